//! One call, one trace, and one for what a price sets off: a collector that is not ours receives the spans of a real run, and in what it
//! hands on the whole way of each is found under one trace id.

mod binary;
mod doors;
mod mesh;
mod venue;

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use binary::Up;
use doors::{Client, Door};
use mesh::until;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use testkit::free_ports;
use tokio::sync::mpsc;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};
use venue::{Row, Venue};

/// What the client says its trace is.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// And the span that calls.
const CALLER: &str = "00f067aa0ba902b7";

/// Rotel: receives spans by OTLP, and sends them on by OTLP. Ends with the value.
struct Rotel {
    process: Child,
    endpoint: String,
}

impl Rotel {
    /// Starts one that sends to `next`.
    async fn start(next: &str) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/deploy/bin/rotel-agent");
        let ports = free_ports(2);
        let [grpc, http] = [ports[0], ports[1]].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let process = Command::new(&program)
            .arg("start")
            .args(["--otlp-grpc-endpoint", &grpc.to_string()])
            .args(["--otlp-http-endpoint", &http.to_string()])
            .args(["--exporter", "otlp", "--otlp-exporter-protocol", "grpc"])
            .args(["--otlp-exporter-endpoint", next, "--otlp-exporter-compression", "none"])
            .arg("--disable-batching")
            .stdin(Stdio::null())
            // What it says is for whoever looks why the test failed.
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; deploy/checks/setup installs it", program.display()));
        let endpoint = format!("http://{grpc}");
        let rotel = Self { process, endpoint };
        until("rotel listens", async || TcpStream::connect(grpc).ok()).await;
        rotel
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// A collector that hands on what it gets.
struct Collector(mpsc::UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        for span in resources.flat_map(|of| of.scope_spans).flat_map(|of| of.spans) {
            // The test may be over.
            let _over = self.0.send(span);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Everything that was collected.
struct Traces {
    endpoint: String,
    incoming: mpsc::UnboundedReceiver<Span>,
    seen: Vec<Span>,
}

impl Traces {
    /// Begins to collect.
    async fn collect() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own: SocketAddr = listener.local_addr().expect("an address");
        let (send, incoming) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            let server = tonic::transport::Server::builder()
                .add_service(TraceServiceServer::new(Collector(send)).accept_compressed(CompressionEncoding::Gzip));
            server.serve_with_incoming(incoming).await.expect("serves");
        });
        let endpoint = format!("http://{own}");
        Self {
            endpoint,
            incoming,
            seen: Vec::new(),
        }
    }

    /// The way from a span of this name back to where its trace began, once there is one that ends as wanted.
    async fn way(&mut self, from: &str, wanted: impl Fn(&[&Span]) -> bool) -> Vec<Span> {
        let (incoming, seen) = (&mut self.incoming, &mut self.seen);
        until("a whole way", async || {
            while let Ok(span) = incoming.try_recv() {
                seen.push(span);
            }
            let starts = seen.iter().filter(|span| span.name == from);
            let ways = starts.map(|start| {
                let mut way = vec![start];
                while let Some(parent) = way
                    .last()
                    .and_then(|last| seen.iter().find(|it| it.span_id == last.parent_span_id))
                {
                    way.push(parent);
                }
                way
            });
            let mut ways = ways.filter(|way| wanted(way));
            ways.next().map(|way| way.into_iter().cloned().collect())
        })
        .await
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn names(way: &[Span]) -> Vec<&str> {
    way.iter().map(|span| span.name.as_str()).collect()
}

fn row(bid: &str, ask: &str) -> Row {
    Row {
        at_us: 1_514_866_800_000_000,
        bid: bid.parse().expect("a price"),
        ask: ask.parse().expect("a price"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_one_trace_from_the_client_to_the_journal_and_a_liquidation_one_from_the_frame_of_its_price() {
    let mut traces = Traces::collect().await;
    let mut venue = Venue::calm("SOL_USDC", &row("199.98", "200.02")).await;
    let rotel = Rotel::start(&traces.endpoint).await;
    let options = [
        "--feed",
        &venue.url,
        "--symbols",
        "SOL_USDC",
        "--shards",
        "2",
        "--otlp-endpoint",
        &rotel.endpoint,
    ];
    let up = Up::start(&options).await;
    let client = Client::new(Door::Grpc, up.address, &up.token("alice"));
    let traced = client.with_header("traceparent", &format!("00-{TRACE}-{CALLER}-01"));
    traced
        .call("InitializeWallet", json!({"account_id": "alice"}))
        .await
        .good();
    let way = traces
        .way("commit journal", |way| {
            way.last().is_some_and(|first| hex(&first.parent_span_id) == CALLER)
        })
        .await;
    assert_eq!(names(&way), ["commit journal", "process requests", "InitializeWallet"]);
    assert!(way.iter().all(|span| hex(&span.trace_id) == TRACE), "one trace id");

    let open = json!({
        "account_id": "alice", "request_id": uuid::Uuid::now_v7().to_string(), "symbol": "SOL_USDC", "side": "SIDE_LONG",
        "margin": "100", "leverage": "10",
    });
    until("a trade is open", async || {
        let opened = client.call("OpenTrade", open.clone()).await;
        (opened.code == tonic::Code::Ok).then_some(())
    })
    .await;
    venue.rest_at("SOL_USDC", &row("179.98", "180.02")).await;
    let liquidated = json!({"account_id": "alice", "status": "TRADE_STATUS_CLOSED"});
    until("it is liquidated", async || {
        let closed = client.call("ListTrades", liquidated.clone()).await.body;
        (closed["trades"].as_array().is_some_and(|trades| !trades.is_empty())).then_some(())
    })
    .await;
    let way = traces.way("process prices", |way| way.len() > 2).await;
    assert_eq!(names(&way), ["process prices", "send prices", "receive frame"]);
    assert!(way[2].parent_span_id.is_empty(), "a frame begins a trace");
    let trace = &way[2].trace_id;
    assert!(way.iter().all(|span| span.trace_id == *trace), "one trace id");
    // A commit may carry others too: it is a child of the first, and linked to the rest.
    let fired = way[0].span_id.clone();
    traces
        .way("commit journal", |way| {
            way[0].parent_span_id == fired || way[0].links.iter().any(|link| link.span_id == fired)
        })
        .await;
    up.stop().await;
}
