//! What the tests share: descriptor sets compiled on the spot, a gRPC service made of closures, and a client.
#![allow(dead_code, missing_docs)] // Each test file uses a part.

use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tower::{BoxError, Service};
use transcode::codec::DynamicCodec;
use transcode::{Options, Services, TranscodeService, Transcoder};

/// The descriptor set of proto files below `tests/proto`.
pub fn descriptor_set(file: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut compiler = protox::Compiler::new([root.join("tests/proto"), root.join("../../proto")]).unwrap();
    compiler.include_imports(true).open_file(file).unwrap();
    compiler.encode_file_descriptor_set()
}

/// The descriptor set of one proto file given as text.
pub fn descriptor_set_of(text: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut resolver = protox::file::ChainFileResolver::new();
    let file = protox::file::File::from_source("test.proto", text).unwrap();
    resolver.add(One(file.file_descriptor_proto().clone()));
    resolver.add(protox::file::GoogleFileResolver::new());
    resolver.add(protox::file::IncludeFileResolver::new(root.join("../../proto")));
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("test.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

struct One(prost_types::FileDescriptorProto);

impl protox::file::FileResolver for One {
    fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
        match name {
            "test.proto" => Ok(protox::file::File::from_file_descriptor_proto(self.0.clone())),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

pub fn pool(file: &str) -> DescriptorPool {
    DescriptorPool::decode(descriptor_set(file).as_slice()).unwrap()
}

pub fn message(descriptor: &MessageDescriptor, json: &str) -> DynamicMessage {
    let mut source = serde_json::Deserializer::from_str(json);
    let message = DynamicMessage::deserialize(descriptor.clone(), &mut source).unwrap();
    source.end().unwrap();
    message
}

/// A message as JSON without defaults, keys sorted: what a table in a test compares.
pub fn to_json(message: &DynamicMessage) -> String {
    message
        .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())
        .unwrap()
        .to_string()
}

/// One call, as the gRPC service sees it.
pub struct Call {
    pub method: String,
    pub message: DynamicMessage,
    pub metadata: MetadataMap,
    pub extensions: http::Extensions,
    pub output: MessageDescriptor,
}

impl Call {
    pub fn json(&self) -> String {
        to_json(&self.message)
    }

    pub fn answer(&self, json: &str) -> DynamicMessage {
        message(&self.output, json)
    }

    /// The request again where the types agree, or an empty answer.
    pub fn echo(self) -> DynamicMessage {
        if self.message.descriptor_is(&self.output) {
            self.message
        } else {
            DynamicMessage::new(self.output)
        }
    }
}

trait DescriptorIs {
    fn descriptor_is(&self, descriptor: &MessageDescriptor) -> bool;
}

impl DescriptorIs for DynamicMessage {
    fn descriptor_is(&self, descriptor: &MessageDescriptor) -> bool {
        prost_reflect::ReflectMessage::descriptor(self) == *descriptor
    }
}

pub type Messages = Pin<Box<dyn Stream<Item = Result<DynamicMessage, Status>> + Send>>;
pub type OneMessage = Pin<Box<dyn Future<Output = Result<tonic::Response<DynamicMessage>, Status>> + Send>>;

pub enum Reply {
    One(OneMessage),
    Many(Messages),
    Failed(Status),
}

impl Reply {
    pub fn one(message: DynamicMessage) -> Self {
        Self::One(Box::pin(async move { Ok(tonic::Response::new(message)) }))
    }

    pub fn many(messages: Vec<Result<DynamicMessage, Status>>) -> Self {
        Self::Many(Box::pin(stream::iter(messages)))
    }
}

/// A gRPC service made of one closure.
#[derive(Clone)]
pub struct GrpcServer {
    pool: DescriptorPool,
    handler: Arc<dyn Fn(Call) -> Reply + Send + Sync>,
}

impl GrpcServer {
    pub fn new(pool: DescriptorPool, handler: impl Fn(Call) -> Reply + Send + Sync + 'static) -> Self {
        Self {
            pool,
            handler: Arc::new(handler),
        }
    }
}

impl tonic::server::NamedService for GrpcServer {
    const NAME: &'static str = "library.v1.Library";
}

impl<B> Service<Request<B>> for GrpcServer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (service, method) = request.uri().path()[1..].split_once('/').unwrap();
        let service = self.pool.get_service_by_name(service).unwrap();
        let method = service.methods().find(|it| it.name() == method).unwrap();
        let mut grpc = tonic::server::Grpc::new(DynamicCodec::new(method.input()));
        let bound = BoundMethod {
            handler: self.handler.clone(),
            method,
        };
        Box::pin(async move {
            Ok(match bound.method.is_server_streaming() {
                true => grpc.server_streaming(bound, request).await,
                false => grpc.unary(bound, request).await,
            })
        })
    }
}

struct BoundMethod {
    handler: Arc<dyn Fn(Call) -> Reply + Send + Sync>,
    method: MethodDescriptor,
}

impl BoundMethod {
    fn answer(&self, request: tonic::Request<DynamicMessage>) -> Reply {
        let (metadata, extensions, message) = request.into_parts();
        let (method, output) = (self.method.name().to_owned(), self.method.output());
        (self.handler)(Call {
            method,
            message,
            metadata,
            extensions,
            output,
        })
    }
}

impl tonic::server::UnaryService<DynamicMessage> for BoundMethod {
    type Response = DynamicMessage;
    type Future = OneMessage;

    fn call(&mut self, request: tonic::Request<DynamicMessage>) -> OneMessage {
        match self.answer(request) {
            Reply::One(message) => message,
            Reply::Failed(status) => Box::pin(std::future::ready(Err(status))),
            Reply::Many(_) => unreachable!("a unary method answers with one"),
        }
    }
}

impl tonic::server::ServerStreamingService<DynamicMessage> for BoundMethod {
    type Response = DynamicMessage;
    type ResponseStream = Messages;
    type Future = std::future::Ready<Result<tonic::Response<Messages>, Status>>;

    fn call(&mut self, request: tonic::Request<DynamicMessage>) -> Self::Future {
        std::future::ready(match self.answer(request) {
            Reply::Many(messages) => Ok(tonic::Response::new(messages)),
            Reply::Failed(status) => Err(status),
            Reply::One(_) => unreachable!("a streaming method answers with many"),
        })
    }
}

/// What the client got.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub extensions: http::Extensions,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|cause| panic!("{cause}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }

    /// The `reason` of the `ErrorInfo`, after checking that the body is a status with that shape.
    pub fn reason(&self) -> String {
        let json = self.json();
        assert_eq!(self.header("content-type"), "application/json");
        assert!(json["code"].is_i64() && json["message"].is_string(), "{json}");
        let details = json["details"].as_array().unwrap();
        let info = details
            .iter()
            .find(|it| it["@type"] == "type.googleapis.com/google.rpc.ErrorInfo");
        info.unwrap_or_else(|| panic!("no ErrorInfo in {json}"))["reason"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

/// The request `line` is a method and a URL.
pub fn request(line: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let (method, url) = line.split_once(' ').unwrap();
    let mut builder = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::new(body.into())).unwrap()
}

/// REST for the library, with what the gRPC service last saw.
#[derive(Clone)]
pub struct Library {
    pub rest: TranscodeService<GrpcServer>,
    pub seen: Arc<Mutex<Option<Call>>>,
}

impl Library {
    /// A service that remembers each call and answers with an echo.
    pub fn echo(options: Options) -> Self {
        let seen: Arc<Mutex<Option<Call>>> = Arc::default();
        let remember = seen.clone();
        let mut library = Self::new(options, move |call| {
            let answer = DynamicMessage::new(call.output.clone());
            let is_stream = matches!(call.method.as_str(), "WatchShelf" | "Download");
            let echo = if call.message.descriptor_is(&call.output) {
                call.message.clone()
            } else {
                answer
            };
            *remember.lock().unwrap() = Some(call);
            if is_stream {
                Reply::many(vec![Ok(echo)])
            } else {
                Reply::one(echo)
            }
        });
        library.seen = seen;
        library
    }

    pub fn new(options: Options, handler: impl Fn(Call) -> Reply + Send + Sync + 'static) -> Self {
        let pool = pool("library.proto");
        let transcoder = Transcoder::new(pool.clone(), Services::All, options).unwrap();
        let rest = transcoder.into_service(GrpcServer::new(pool, handler));
        Self {
            rest,
            seen: Arc::default(),
        }
    }

    pub async fn send(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send_request(request(line, headers, body.to_owned())).await
    }

    pub async fn send_request(&self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.open(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
            extensions: parts.extensions,
        }
    }

    pub async fn open(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        self.rest.clone().call(request).await.unwrap()
    }

    pub async fn get(&self, url: &str) -> Answer {
        self.send(&format!("GET {url}"), &[], "").await
    }

    /// The method and the message of the last call, which is taken.
    pub fn take_seen(&self) -> String {
        match self.seen.lock().unwrap().take() {
            Some(call) => format!("{} {}", call.method, call.json()),
            None => "nothing".to_owned(),
        }
    }

    pub fn take_call(&self) -> Call {
        self.seen.lock().unwrap().take().expect("the gRPC service was called")
    }
}

/// Serves HTTP/1.1 and HTTP/2 on a free port.
pub async fn serve<S>(service: S) -> std::net::SocketAddr
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

pub type Client = hyper_util::client::legacy::Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;

pub fn http1() -> Client {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http()
}

pub fn http2() -> Client {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http()
}

pub fn status_with(code: Code, message: &str, details: tonic_types::ErrorDetails) -> Status {
    use tonic_types::StatusExt;
    Status::with_error_details(code, message, details)
}
