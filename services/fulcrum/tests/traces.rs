//! One call, one trace: a foreign collector receives the spans of a real run and finds the whole way under the caller's trace id.

mod running;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use running::{Up, http};
use tonic::{Request, Response, Status};

/// What the client says its trace is.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// And the span that calls.
const CALLER: &str = "00f067aa0ba902b7";

/// A collector that hands on what it gets.
struct Collector(mpsc::Sender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request
            .into_inner()
            .resource_spans
            .into_iter()
            .flat_map(|of| of.scope_spans)
            .flat_map(|of| of.spans);
        for span in spans {
            // The test may be over.
            let _over = self.0.send(span);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[test]
fn a_trade_is_one_trace_from_the_client_to_the_journal() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("an address");
    let (send, spans) = mpsc::channel();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Collector(send)))
            .serve_with_incoming(incoming)
            .await
            .expect("serves");
    });

    let endpoint = format!("http://{address}");
    let up = Up::start(&[
        "--ephemeral",
        "--feed",
        "replay",
        "--otlp-endpoint",
        &endpoint,
        "--trace-ratio",
        "0",
    ]);
    up.until_ready();
    let headers = format!(
        "Authorization: Bearer {}\r\ntraceparent: 00-{TRACE}-{CALLER}-01\r\n",
        up.token
    );
    let call = |path: &str, body: &str| http(up.listen, "POST", path, &headers, body).expect("an answer");
    let (status, answer) = call("/v1/accounts/demo/wallet:initialize", "{}");
    assert_eq!(status, 200, "{answer}");
    // An error names the trace, so that a client can quote it.
    let (status, answer) = call(
        "/v1/accounts/demo/trades",
        r#"{"symbol":"SOL_USDC","side":"SIDE_LONG","margin":"-1","leverage":"1"}"#,
    );
    assert_eq!(status, 400, "{answer}");
    assert!(answer.contains(TRACE), "{answer}");

    let mut seen: Vec<Span> = Vec::new();
    let chain = |seen: &[Span]| -> Option<Vec<String>> {
        // From the commit back to the client, by parent.
        let mut at = seen.iter().find(|span| span.name == "commit journal")?;
        let mut names = vec![at.name.clone()];
        while hex(&at.parent_span_id) != CALLER {
            at = seen.iter().find(|span| span.span_id == at.parent_span_id)?;
            names.push(at.name.clone());
        }
        Some(names)
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let names = loop {
        if let Some(names) = chain(&seen) {
            break names;
        }
        assert!(
            Instant::now() < deadline,
            "no whole chain in {:?}",
            seen.iter().map(|span| &span.name).collect::<Vec<_>>()
        );
        if let Ok(span) = spans.recv_timeout(Duration::from_millis(200))
            && hex(&span.trace_id) == TRACE
        {
            seen.push(span);
        }
    };
    assert!(names.len() >= 3, "{names:?}");
    assert_eq!(names[1], "process requests", "{names:?}");
    assert!(
        names.last().is_some_and(|name| name.contains("InitializeWallet")),
        "{names:?}"
    );
    let (code, _) = up.end(rustix::process::Signal::INT);
    assert_eq!(code, Some(0));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
