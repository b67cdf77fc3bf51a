//! One call, four ways in: gRPC, grpc-web in binary and in text, and REST. The request is JSON and the answer is JSON, so that a test
//! can say once what it asks for, send it through each door, and hold the answers against each other.
//!
//! gRPC goes through tonic's client. The others are spelt out over plain HTTP/1.1, and the REST address is made from the annotations of
//! the contract, so that neither shares code with what it tests.

#![allow(dead_code, unused_imports, reason = "every test binary uses a part of it")]

mod answer;
mod contract;
mod web;

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut as _, Bytes};
use futures::future::Either;
use futures::{FutureExt as _, StreamExt as _};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use prost_reflect::MethodDescriptor;
use serde_json::Value;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

pub use answer::Answer;
pub use contract::{by_rest, canonical_answer, canonical_error, in_path, input, methods, mutates, streams};

use answer::rest_answer;
use contract::{from_bytes, message, method, path, rest, rewritten, to_bytes};
use web::{Raw, WebReader, web_answer};

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
