//! A REST front for any gRPC server, given its descriptor set: for suites that test transcoding from outside, and for
//! trying annotations out.
//!
//! ```text
//! transcode-harness --descriptor-set library.bin --service library.v1.Library \
//!     --upstream http://127.0.0.1:50051 --listen 127.0.0.1:8080
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};
use transcode::{Options, Services, TranscodeService, Transcoder};

/// Serves REST for a gRPC server.
#[derive(Parser)]
struct Arguments {
    /// A file with a FileDescriptorSet that has all imports and options.
    #[arg(long, value_name = "F")]
    descriptor_set: PathBuf,
    /// The full name of a service to serve; may be repeated. Without it all are served.
    #[arg(long, value_name = "S")]
    service: Vec<String>,
    /// Where the gRPC server is.
    #[arg(long, value_name = "URL")]
    upstream: Endpoint,
    /// Where to listen for HTTP/1.1 and HTTP/2 without TLS.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let descriptor_set = std::fs::read(&arguments.descriptor_set)
        .with_context(|| format!("reading {}", arguments.descriptor_set.display()))?;
    let services = match arguments.service {
        all if all.is_empty() => Services::All,
        names => Services::Only(names),
    };
    let transcoder = Transcoder::decode(&descriptor_set, services, Options::default())?;
    let rest = transcoder.into_service(arguments.upstream.connect_lazy());
    let listener = TcpListener::bind(arguments.listen)
        .await
        .context("binding the address to listen on")?;
    serve(listener, rest).await
}

async fn serve(listener: TcpListener, rest: TranscodeService<Channel>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(rest.clone());
        tokio::spawn(async move {
            // A broken connection concerns its client alone.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
