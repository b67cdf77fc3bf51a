//! One call, four ways in: gRPC, grpc-web in binary and in text, and REST. The request is JSON and the answer is JSON, so that a test
//! can say once what it asks for, send it through each door, and hold the answers against each other.
//!
//! gRPC goes through tonic's client. The others are spelt out over plain HTTP/1.1, and the REST address is made from the annotations of
//! the contract, so that neither shares code with what it tests.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::net::SocketAddr;
use std::str::FromStr as _;
use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, BufMut as _, Bytes};
use futures::future::Either;
use futures::{FutureExt as _, StreamExt as _};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
    Value as Field,
};
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(contracts::DESCRIPTOR_SET).expect("our own build made it"));

/// How a client comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Grpc,
    GrpcWeb,
    GrpcWebText,
    Rest,
}

impl Door {
    pub const ALL: [Self; 4] = [Self::Grpc, Self::GrpcWeb, Self::GrpcWebText, Self::Rest];

    /// As part of an account's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::GrpcWeb => "web",
            Self::GrpcWebText => "text",
            Self::Rest => "rest",
        }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The gRPC code, whichever the door.
    pub code: Code,
    /// The text for a person.
    pub message: String,
    /// The typed details.
    pub details: Vec<Value>,
    /// The response; null after an error.
    pub body: Value,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self {
            code: Code::Ok,
            message: String::new(),
            details: Vec::new(),
            body,
        }
    }

    /// From what gRPC sends.
    fn failed(status: &Status) -> Self {
        let descriptor = message("google.rpc.Status");
        let details = DynamicMessage::decode(descriptor, status.details()).expect("details are a google.rpc.Status");
        let it = Self::from_json(&to_json(&details));
        if !status.details().is_empty() {
            assert_eq!(
                (it.code, it.message.as_str()),
                (status.code(), status.message()),
                "the details say the same as the status"
            );
        }
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            ..it
        }
    }

    /// From the JSON of a `google.rpc.Status`.
    fn from_json(status: &Value) -> Self {
        let code = status["code"]
            .as_i64()
            .and_then(|code| i32::try_from(code).ok())
            .expect("a code");
        Self {
            code: code.into(),
            message: status["message"].as_str().unwrap_or_default().to_owned(),
            details: status["details"].as_array().cloned().unwrap_or_default(),
            body: Value::Null,
        }
    }

    /// The details of one type.
    pub fn detail(&self, name: &str) -> Option<&Value> {
        let url = format!("type.googleapis.com/google.rpc.{name}");
        self.details.iter().find(|detail| detail["@type"] == url.as_str())
    }

    /// What a client branches on; empty when all is well.
    pub fn reason(&self) -> &str {
        self.detail("ErrorInfo")
            .and_then(|info| info["reason"].as_str())
            .unwrap_or_default()
    }

    /// The fields at fault.
    pub fn fields(&self) -> Vec<&str> {
        let violations = self
            .detail("BadRequest")
            .and_then(|it| it["fieldViolations"].as_array());
        violations
            .into_iter()
            .flatten()
            .filter_map(|it| it["field"].as_str())
            .collect()
    }

    /// The response.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn good(self) -> Value {
        assert_eq!(
            self.code,
            Code::Ok,
            "{} {}: {}",
            self.reason(),
            self.message,
            json!(self.details)
        );
        self.body
    }

    /// The whole of it, for comparing.
    pub fn all(&self) -> Value {
        json!({"code": format!("{:?}", self.code), "message": self.message, "details": self.details, "body": self.body})
    }
}

/// A client of one door, with one token.
#[derive(Clone)]
pub struct Client {
    pub door: Door,
    address: SocketAddr,
    token: Option<String>,
    timeout: Option<Duration>,
    headers: Vec<(&'static str, String)>,
    channel: Channel,
}

impl Client {
    pub fn new(door: Door, address: SocketAddr, token: &str) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .expect("an address")
            .connect_lazy();
        Self {
            door,
            address,
            token: Some(token.to_owned()),
            timeout: None,
            headers: Vec::new(),
            channel,
        }
    }

    /// The same client with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// The same client without a token.
    pub fn without_token(&self) -> Self {
        Self {
            token: None,
            ..self.clone()
        }
    }

    /// The same client, which waits so long.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self.clone()
        }
    }

    /// The same client, which sends a header of its own.
    pub fn with_header(&self, name: &'static str, value: &str) -> Self {
        let mut it = self.clone();
        it.headers.push((name, value.to_owned()));
        it
    }

    /// Calls a method by its name. The fields of the request are named as in the contract.
    pub async fn call(&self, name: &str, request: Value) -> Answer {
        let method = method(name);
        match self.door {
            Door::Grpc => {
                let bytes = to_bytes(&method.input(), &request);
                let mut grpc = tonic::client::Grpc::new(self.channel.clone());
                grpc.ready().await.expect("a gateway to connect to");
                match grpc
                    .unary(self.grpc(bytes), path(&method).parse().expect("a path"), Raw)
                    .await
                {
                    Ok(response) => Answer::ok(from_bytes(&method.output(), &response.into_inner())),
                    Err(status) => Answer::failed(&status),
                }
            }
            Door::GrpcWeb | Door::GrpcWebText => {
                let response = self.web(&method, &request).await;
                let (head, body) = response.into_parts();
                let body = body.collect().await.expect("a whole body").to_bytes();
                let mut reader = WebReader::new(&head.headers, self.door);
                reader.push(&body);
                web_answer(&method, reader)
            }
            Door::Rest => {
                let response = self.send(rest(&method, &request)).await;
                let (head, body) = response.into_parts();
                let body = body.collect().await.expect("a whole body").to_bytes();
                rest_answer(&method, head.status, &body)
            }
        }
    }

    /// Opens a stream and gives its messages, then how it ended if it failed.
    pub async fn stream(&self, name: &str, request: Value) -> Messages {
        let method = method(name);
        match self.door {
            Door::Grpc => {
                let bytes = to_bytes(&method.input(), &request);
                let mut grpc = tonic::client::Grpc::new(self.channel.clone());
                grpc.ready().await.expect("a gateway to connect to");
                let opened = grpc
                    .server_streaming(self.grpc(bytes), path(&method).parse().expect("a path"), Raw)
                    .await;
                let output = method.output();
                match opened {
                    Ok(response) => response
                        .into_inner()
                        .map(move |next| match next {
                            Ok(bytes) => Answer::ok(from_bytes(&output, &bytes)),
                            Err(status) => Answer::failed(&status),
                        })
                        .boxed(),
                    Err(status) => futures::stream::iter([Answer::failed(&status)]).boxed(),
                }
            }
            Door::GrpcWeb | Door::GrpcWebText => {
                let response = self.web(&method, &request).await;
                let reader = WebReader::new(response.headers(), self.door);
                let state = (response.into_body(), reader, method.output());
                futures::stream::unfold(state, |(mut body, mut reader, output)| async move {
                    loop {
                        if let Some(bytes) = reader.messages.pop_front() {
                            return Some((Answer::ok(from_bytes(&output, &bytes)), (body, reader, output)));
                        }
                        if let Some(status) = reader.trailers.take().as_ref().and_then(Status::from_header_map) {
                            if status.code() == Code::Ok {
                                return None;
                            }
                            return Some((Answer::failed(&status), (body, reader, output)));
                        }
                        let frame = body.frame().await?;
                        reader.push(&frame.expect("a body that goes on").into_data().unwrap_or_default());
                    }
                })
                .boxed()
            }
            Door::Rest => {
                let response = self.send(rest(&method, &request)).await;
                let status = response.status();
                if status != StatusCode::OK {
                    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
                    return futures::stream::iter([rest_answer(&method, status, &body)]).boxed();
                }
                let state = (response.into_body(), Vec::new(), method.output());
                futures::stream::unfold(
                    state,
                    |(mut body, mut held, output): (Incoming, Vec<u8>, _)| async move {
                        loop {
                            if let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                                let line: Vec<u8> = held.drain(..=end).collect();
                                if line.trim_ascii().is_empty() {
                                    continue;
                                }
                                let value: Value = serde_json::from_slice(&line).expect("a line of JSON");
                                let answer = match value.get("error") {
                                    Some(status) => {
                                        Answer::from_json(&rewritten(&message("google.rpc.Status"), status))
                                    }
                                    None => Answer::ok(rewritten(&output, &value)),
                                };
                                return Some((answer, (body, held, output)));
                            }
                            let frame = body.frame().await?;
                            held.extend(frame.expect("a body that goes on").into_data().unwrap_or_default());
                        }
                    },
                )
                .boxed()
            }
        }
    }

    /// Sends bytes to a method as they are: what no client library would send.
    pub async fn raw(&self, name: &str, bytes: Vec<u8>) -> Answer {
        let method = method(name);
        match self.door {
            Door::Grpc => {
                let mut grpc = tonic::client::Grpc::new(self.channel.clone());
                grpc.ready().await.expect("a gateway to connect to");
                match grpc
                    .unary(self.grpc(bytes), path(&method).parse().expect("a path"), Raw)
                    .await
                {
                    Ok(response) => Answer::ok(from_bytes(&method.output(), &response.into_inner())),
                    Err(status) => Answer::failed(&status),
                }
            }
            Door::GrpcWeb | Door::GrpcWebText => {
                let (head, body) = self.web_bytes(&method, &bytes).await.into_parts();
                let body = body.collect().await.expect("a whole body").to_bytes();
                let mut reader = WebReader::new(&head.headers, self.door);
                reader.push(&body);
                web_answer(&method, reader)
            }
            Door::Rest => panic!("REST has no bytes of its own"),
        }
    }

    /// Sends a plain HTTP request as it is, with the token.
    pub async fn http(&self, verb: Method, path: &str, body: Vec<u8>) -> (StatusCode, HeaderMap, Bytes) {
        let (head, body) = self.send((verb, path.to_owned(), body)).await.into_parts();
        (
            head.status,
            head.headers,
            body.collect().await.expect("a whole body").to_bytes(),
        )
    }

    fn grpc(&self, bytes: Vec<u8>) -> tonic::Request<Vec<u8>> {
        let mut request = tonic::Request::new(bytes);
        if let Some(token) = &self.token {
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {token}").parse().expect("a token"));
        }
        for (name, value) in &self.headers {
            request.metadata_mut().insert(*name, value.parse().expect("a value"));
        }
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        request
    }

    async fn web(&self, method: &MethodDescriptor, request: &Value) -> Response<Incoming> {
        self.web_bytes(method, &to_bytes(&method.input(), request)).await
    }

    async fn web_bytes(&self, method: &MethodDescriptor, bytes: &[u8]) -> Response<Incoming> {
        let mut frame = vec![0];
        frame.put_u32(u32::try_from(bytes.len()).expect("a small message"));
        frame.extend(bytes);
        let (media_type, body) = match self.door {
            Door::GrpcWebText => (
                "application/grpc-web-text+proto",
                BASE64_STANDARD.encode(frame).into_bytes(),
            ),
            _ => ("application/grpc-web+proto", frame),
        };
        let mut client = self.clone();
        client.headers.push(("content-type", media_type.to_owned()));
        client.headers.push(("accept", media_type.to_owned()));
        client.headers.push(("x-grpc-web", "1".to_owned()));
        let response = client.send((Method::POST, path(method), body)).await;
        assert_eq!(response.status(), StatusCode::OK, "grpc-web says everything inside");
        response
    }

    /// One request on a connection of its own, HTTP/1.1.
    async fn send(&self, (verb, path, body): (Method, String, Vec<u8>)) -> Response<Incoming> {
        let socket = TcpStream::connect(self.address).await.expect("a gateway to connect to");
        let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(socket))
            .await
            .expect("a connection");
        tokio::spawn(connection.map(drop));
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = verb.clone();
        *request.uri_mut() = path.parse().expect("a path");
        let headers = request.headers_mut();
        headers.insert(HOST, self.address.to_string().parse().expect("an address"));
        if verb == Method::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a token"));
        }
        if let Some(timeout) = self.timeout {
            headers.insert(
                "grpc-timeout",
                format!("{}m", timeout.as_millis()).parse().expect("a number"),
            );
        }
        for (name, value) in &self.headers {
            headers.insert(HeaderName::from_static(name), value.parse().expect("a value"));
        }
        sender.send_request(request).await.expect("a response")
    }
}

/// What a stream sends.
pub type Messages = futures::stream::BoxStream<'static, Answer>;

/// The next message that is no heartbeat.
///
/// # Panics
/// When the stream ended or failed.
pub async fn next(messages: &mut Messages) -> Value {
    let looking = async {
        loop {
            let message = messages.next().await.expect("a stream that goes on").good();
            if message.get("heartbeat").is_none() {
                return message;
            }
        }
    };
    match futures::future::select(Box::pin(looking), Box::pin(tokio::time::sleep(Duration::from_secs(60)))).await {
        Either::Left((message, _)) => message,
        Either::Right(_) => panic!("the stream says nothing"),
    }
}

/// The answer of a method as another client wrote it in ProtoJSON, in the form in which answers are compared.
pub fn canonical_answer(name: &str, json: &Value) -> Value {
    rewritten(&method(name).output(), json)
}

/// The same of a refusal.
pub fn canonical_error(json: &Value) -> Value {
    rewritten(&message("google.rpc.Status"), json)
}

/// All methods of the contract.
pub fn methods() -> Vec<String> {
    let services = POOL.services().filter(|it| it.package_name() == "fulcrum.v1");
    services
        .flat_map(|service| {
            service
                .methods()
                .map(|method| method.name().to_owned())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Verb, address and body of a call by REST.
pub fn by_rest(name: &str, request: &Value) -> (Method, String, Vec<u8>) {
    rest(&method(name), request)
}

fn method(name: &str) -> MethodDescriptor {
    let services = POOL.services().filter(|it| it.package_name() == "fulcrum.v1");
    let mut methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    methods
        .find(|method| method.name() == name)
        .unwrap_or_else(|| panic!("there is no method {name}"))
}

fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(name)
        .unwrap_or_else(|| panic!("there is no message {name}"))
}

fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

fn read(descriptor: &MessageDescriptor, json: &Value) -> DynamicMessage {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor.clone(), json, &options)
        .unwrap_or_else(|error| panic!("{json} is no {}: {error}", descriptor.full_name()))
}

fn to_bytes(descriptor: &MessageDescriptor, json: &Value) -> Vec<u8> {
    read(descriptor, json).encode_to_vec()
}

fn from_bytes(descriptor: &MessageDescriptor, bytes: &[u8]) -> Value {
    to_json(&DynamicMessage::decode(descriptor.clone(), bytes).expect("a message of its method"))
}

/// The one form in which answers are compared: every field, by its JSON name.
fn to_json(message: &DynamicMessage) -> Value {
    let options = SerializeOptions::new().skip_default_fields(false);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("JSON")
}

/// JSON that a door wrote, in the form in which answers are compared.
fn rewritten(descriptor: &MessageDescriptor, json: &Value) -> Value {
    to_json(&read(descriptor, json))
}

/// Verb, address and body by the annotation of a method.
fn rest(method: &MethodDescriptor, request: &Value) -> (Method, String, Vec<u8>) {
    let extension = POOL.get_extension_by_name("google.api.http").expect("the annotation");
    let options = method.options();
    let rule = options.get_extension(&extension);
    let rule = rule.as_message().expect("a rule");
    let text = |name: &str| {
        let field = rule.get_field_by_name(name).map(|it| it.into_owned());
        field
            .and_then(|it: Field| it.as_str().map(ToOwned::to_owned))
            .unwrap_or_default()
    };
    let (verb, template) = match (text("get"), text("post")) {
        (get, _) if !get.is_empty() => (Method::GET, get),
        (_, post) => (Method::POST, post),
    };
    let mut rest: Map<String, Value> = request.as_object().expect("an object").clone();
    let mut path = String::new();
    for (index, part) in template.split('{').enumerate() {
        let Some((name, fixed)) = part.split_once('}').filter(|_| index > 0) else {
            path += part;
            continue;
        };
        let value = rest
            .remove(name)
            .unwrap_or_else(|| panic!("{name} is part of the address"));
        let value = value.as_str().expect("text").to_owned();
        path += &utf8_percent_encode(&value, NON_ALPHANUMERIC).to_string();
        path += fixed;
    }
    if text("body") == "*" {
        return (verb, path, Value::Object(rest).to_string().into_bytes());
    }
    let pairs = rest.iter().flat_map(|(name, value)| {
        let values = match value {
            Value::Array(values) => values.clone(),
            value => vec![value.clone()],
        };
        values.into_iter().map(move |value| {
            let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            format!("{name}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC))
        })
    });
    let query: Vec<String> = pairs.collect();
    let mark = if query.is_empty() { "" } else { "?" };
    (verb, format!("{path}{mark}{}", query.join("&")), Vec::new())
}

fn rest_answer(method: &MethodDescriptor, status: StatusCode, body: &[u8]) -> Answer {
    let json: Value = serde_json::from_slice(body)
        .unwrap_or_else(|error| panic!("{} {status}: {error}: {}", method.name(), String::from_utf8_lossy(body)));
    if status == StatusCode::OK {
        return Answer::ok(rewritten(&method.output(), &json));
    }
    let answer = Answer::from_json(&rewritten(&message("google.rpc.Status"), &json));
    let expected = match answer.code {
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        // Two names for too much: of one body, and of calls.
        Code::ResourceExhausted if answer.reason() == "BODY_TOO_LARGE" => 413,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
        _ => 500,
    };
    assert_eq!(status.as_u16(), expected, "{:?} {}", answer.code, answer.message);
    answer
}

/// Takes the frames of grpc-web apart as they come.
struct WebReader {
    text: bool,
    encoded: Vec<u8>,
    held: Vec<u8>,
    messages: std::collections::VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl WebReader {
    fn new(headers: &HeaderMap, door: Door) -> Self {
        // An error without a message may say it all in the headers.
        let trailers = headers.contains_key("grpc-status").then(|| headers.clone());
        let text = door == Door::GrpcWebText;
        Self {
            text,
            encoded: Vec::new(),
            held: Vec::new(),
            messages: std::collections::VecDeque::new(),
            trailers,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.text {
            self.encoded.extend(bytes);
            // Each piece is padded by itself, so padding may stand anywhere.
            let whole = self.encoded.len() / 4 * 4;
            for quantum in self.encoded.drain(..whole).collect::<Vec<_>>().chunks(4) {
                self.held.extend(BASE64_STANDARD.decode(quantum).expect("base64"));
            }
        } else {
            self.held.extend(bytes);
        }
        while self.held.len() >= 5 {
            let length = (&self.held[1..5]).get_u32() as usize;
            if self.held.len() < 5 + length {
                return;
            }
            let frame: Vec<u8> = self.held.drain(..5 + length).collect();
            if frame[0] & 0x80 == 0 {
                self.messages.push_back(Bytes::from(frame).slice(5..));
            } else {
                self.trailers = Some(trailers(&frame[5..]));
            }
        }
    }
}

fn trailers(text: &[u8]) -> HeaderMap {
    let text = std::str::from_utf8(text).expect("text");
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').expect("a name and a value");
            let name = HeaderName::from_str(&name.to_ascii_lowercase()).expect("a name");
            (name, value.trim().parse::<HeaderValue>().expect("a value"))
        })
        .collect()
}

fn web_answer(method: &MethodDescriptor, mut reader: WebReader) -> Answer {
    let trailers = reader.trailers.take().expect("trailers");
    let status = Status::from_header_map(&trailers).expect("a status");
    match (status.code(), reader.messages.pop_front()) {
        (Code::Ok, Some(bytes)) => Answer::ok(from_bytes(&method.output(), &bytes)),
        (Code::Ok, None) => panic!("{} answers OK and says nothing", method.name()),
        _ => Answer::failed(&status),
    }
}

/// Messages as the bytes they are.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
