//! Logs, traces and metrics of the process: installed once at its start, flushed at its end.
//!
//! The other crates only speak: to `tracing`, and to the global meter and propagator of OpenTelemetry. Here is decided who listens. Without
//! an exporter nothing is recorded, but calls still get trace ids, so that an error can be found in the logs.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use prometheus::{Encoder as _, Registry, TextEncoder};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::settings::{LogFormat, TelemetrySettings};

/// The standard's own names for the exporter's address.
const OTLP_ENVIRONMENT: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// What was installed; flush it with [`Telemetry::shutdown`].
#[derive(Debug)]
pub(crate) struct Telemetry {
    tracer: SdkTracerProvider,
    meter: SdkMeterProvider,
    metrics: Metrics,
}

/// The metrics of this process, to be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(Registry);

impl Metrics {
    /// All of them as Prometheus reads them.
    pub(crate) fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.0.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

type Output = Box<dyn Layer<tracing_subscriber::Registry> + Send + Sync>;

impl Telemetry {
    /// Installs everything for a process of this name. With a file, all log lines go there, and only warnings also to the terminal.
    ///
    /// # Errors
    /// When the filter cannot be read, the file not written, the exporter not made.
    pub(crate) fn install(settings: &TelemetrySettings, name: &str, file: Option<&Path>) -> anyhow::Result<Self> {
        let filter = EnvFilter::try_new(&settings.log).with_context(|| {
            format!(
                "--log {:?} must be a level, or levels by module, as in info,engine=debug",
                settings.log
            )
        })?;
        let resource = Resource::builder()
            .with_service_name(format!("fulcrum-{name}"))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()))
            .build();

        global::set_text_map_propagator(TraceContextPropagator::new());
        let tracer = tracer(settings, resource.clone())?;
        global::set_tracer_provider(tracer.clone());
        let metrics = Metrics::default();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(metrics.0.clone())
            .build()
            .context("metrics")?;
        let meter = SdkMeterProvider::builder()
            .with_reader(exporter)
            .with_resource(resource)
            .build();
        global::set_meter_provider(meter.clone());

        let mut outputs: Vec<Output> = Vec::new();
        match file {
            None => outputs.push(lines(settings.log_format, std::io::stderr, true)),
            Some(path) => {
                let opened = OpenOptions::new().create(true).append(true).open(path);
                let file = opened.with_context(|| format!("the log {}", path.display()))?;
                outputs.push(lines(settings.log_format, Arc::new(file), false));
                outputs.push(
                    lines(settings.log_format, std::io::stderr, true)
                        .with_filter(LevelFilter::WARN)
                        .boxed(),
                );
            }
        }
        let traces = tracing_opentelemetry::layer().with_tracer(tracer.tracer("fulcrum"));
        tracing_subscriber::registry()
            .with(outputs)
            .with(filter)
            .with(traces)
            .try_init()
            .context("logs")?;
        Ok(Self { tracer, meter, metrics })
    }

    /// The metrics of this process.
    pub(crate) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Sends what is still held back.
    pub(crate) async fn shutdown(self) {
        // The exporter's thread is waited for, so not on a thread that other tasks need.
        let flushed = tokio::task::spawn_blocking(move || {
            let traces = self.tracer.shutdown();
            traces.and(self.meter.shutdown())
        });
        if let Ok(Err(error)) = flushed.await {
            tracing::warn!(%error, "traces not sent to the end");
        }
    }
}

fn lines<W>(format: LogFormat, output: W, colours: bool) -> Output
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let colours =
        colours && std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    match format {
        LogFormat::Text => fmt::layer().with_writer(output).with_ansi(colours).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(output).boxed(),
    }
}

fn tracer(settings: &TelemetrySettings, resource: Resource) -> anyhow::Result<SdkTracerProvider> {
    let provider = SdkTracerProvider::builder().with_resource(resource);
    let configured = OTLP_ENVIRONMENT
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if settings.otlp_endpoint.is_none() && !configured {
        return Ok(provider.with_sampler(Sampler::AlwaysOff).build());
    }
    let mut exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic();
    if let Some(endpoint) = &settings.otlp_endpoint {
        exporter = exporter.with_endpoint(endpoint);
    }
    let exporter = exporter.build().context("the exporter of traces")?;
    let begun_here = Sampler::TraceIdRatioBased(settings.trace_ratio);
    Ok(provider
        .with_sampler(Sampler::ParentBased(Box::new(begun_here)))
        .with_batch_exporter(exporter)
        .build())
}
