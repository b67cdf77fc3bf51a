//! Clients that speak each door's protocol by hand, so that nothing of ours checks itself.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use contracts::v1;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;
use tokio::net::TcpStream;

/// The doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Grpc,
    WebBinary,
    WebText,
    Rest,
}

pub const DOORS: [Door; 4] = [Door::Grpc, Door::WebBinary, Door::WebText, Door::Rest];

/// One call, in the words of both kinds of doors.
#[derive(Clone, Debug)]
pub struct Case {
    pub method: &'static str,
    pub verb: &'static str,
    pub path: String,
    /// REST body; null for none.
    pub body: Value,
    /// The whole request message.
    pub message: Value,
}

/// A GET: the message is what path and query say.
pub fn get(method: &'static str, path: &str, message: Value) -> Case {
    Case {
        method,
        verb: "GET",
        path: path.into(),
        body: Value::Null,
        message,
    }
}

/// A POST: the body is the message, but for what the path says.
pub fn post(method: &'static str, path: &str, in_path: &[&str], message: Value) -> Case {
    let mut body = message.clone();
    for field in in_path {
        body.as_object_mut().unwrap().remove(*field);
    }
    Case {
        method,
        verb: "POST",
        path: path.into(),
        body,
        message,
    }
}

/// What came back: the response as JSON, or the whole status as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub code: i32,
    pub json: Value,
}

impl Outcome {
    /// The `ErrorInfo.reason`.
    pub fn reason(&self) -> &str {
        let info = self.detail("ErrorInfo");
        info.and_then(|it| it["reason"].as_str()).unwrap_or_default()
    }

    pub fn detail(&self, name: &str) -> Option<&Value> {
        let all = self.json["details"].as_array()?;
        all.iter()
            .find(|it| it["@type"].as_str().is_some_and(|it| it.ends_with(name)))
    }
}

/// An answer of the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

pub fn pool() -> DescriptorPool {
    static POOL: std::sync::LazyLock<DescriptorPool> =
        std::sync::LazyLock::new(|| DescriptorPool::decode(contracts::DESCRIPTOR_SET).unwrap());
    POOL.clone()
}

fn method(name: &str) -> prost_reflect::MethodDescriptor {
    let (service, name) = name.split_once('/').unwrap();
    let service = pool().get_service_by_name(&format!("fulcrum.v1.{service}")).unwrap();
    service.methods().find(|it| it.name() == name).unwrap()
}

/// The request message, framed for gRPC.
pub fn framed(name: &str, message: &Value) -> Bytes {
    let dynamic = DynamicMessage::deserialize(method(name).input(), message.clone()).unwrap();
    frame(&dynamic.encode_to_vec())
}

pub fn frame(payload: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(payload.len().try_into().unwrap());
    framed.put_slice(payload);
    framed.freeze()
}

/// As REST writes it: responses with their defaults, errors without.
fn to_json(message: &DynamicMessage, with_defaults: bool) -> Value {
    let options = SerializeOptions::new().skip_default_fields(!with_defaults);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .unwrap()
}

/// Sends one request by hand.
pub async fn send(address: SocketAddr, http2: bool, request: http::Request<Bytes>) -> Answer {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let request = request.map(Full::new);
    let response = if http2 {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    };
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.to_bytes(),
        trailers,
    }
}

/// Makes a call through a door.
pub async fn call(address: SocketAddr, door: Door, case: &Case, headers: &[(&str, &str)]) -> (Answer, Outcome) {
    let (media_type, payload) = match door {
        Door::Grpc => ("application/grpc", framed(case.method, &case.message)),
        Door::WebBinary => ("application/grpc-web+proto", framed(case.method, &case.message)),
        Door::WebText => {
            let text = BASE64_STANDARD.encode(framed(case.method, &case.message));
            ("application/grpc-web-text+proto", Bytes::from(text))
        }
        Door::Rest if case.body.is_null() => ("application/json", Bytes::new()),
        Door::Rest => ("application/json", Bytes::from(case.body.to_string())),
    };
    raw(address, door, case, media_type, payload, headers).await
}

/// The same with a body of one's own.
pub async fn raw(
    address: SocketAddr,
    door: Door,
    case: &Case,
    media_type: &str,
    payload: Bytes,
    headers: &[(&str, &str)],
) -> (Answer, Outcome) {
    let (verb, path) = match door {
        Door::Rest => (case.verb, case.path.clone()),
        _ => ("POST", format!("/fulcrum.v1.{}", case.method)),
    };
    let uri = format!("http://{address}{path}");
    let mut request = http::Request::builder()
        .method(verb)
        .uri(uri)
        .header("content-type", media_type);
    request = request.header("host", address.to_string()).header("te", "trailers");
    if door == Door::WebText {
        request = request.header("accept", "application/grpc-web-text+proto");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = send(address, door == Door::Grpc, request.body(payload).unwrap()).await;
    let outcome = outcome(door, case.method, &answer);
    (answer, outcome)
}

fn outcome(door: Door, name: &str, answer: &Answer) -> Outcome {
    if door == Door::Rest {
        let json: Value = serde_json::from_slice(&answer.body).expect("JSON, whatever happens");
        let code = if answer.status == StatusCode::OK {
            0
        } else {
            json["code"].as_i64().unwrap().try_into().unwrap()
        };
        return Outcome { code, json };
    }
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let (message, mut trailers) = match door {
        Door::Grpc => (
            frames(&answer.body).into_iter().next().map(|(_, data)| data),
            answer.trailers.clone(),
        ),
        Door::WebText => web(&untext(&answer.body)),
        _ => web(&answer.body),
    };
    if trailers.get("grpc-status").is_none() {
        trailers = answer.headers.clone();
    }
    let text = |name: &str| {
        trailers
            .get(name)
            .and_then(|it| it.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let code = text("grpc-status").parse().expect("a status");
    if code == 0 {
        let descriptor = self::method(name).output();
        return Outcome {
            code,
            json: to_json(&DynamicMessage::decode(descriptor, message.unwrap()).unwrap(), true),
        };
    }
    let details = base64::engine::general_purpose::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    let details = details.decode(text("grpc-status-details-bin")).unwrap();
    let descriptor = pool().get_message_by_name("google.rpc.Status").unwrap();
    Outcome {
        code,
        json: to_json(&DynamicMessage::decode(descriptor, details.as_slice()).unwrap(), false),
    }
}

/// Splits length-prefixed frames into flag and payload.
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, Bytes)> {
    let mut all = Vec::new();
    while bytes.len() >= 5 {
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        all.push((bytes[0], Bytes::copy_from_slice(&bytes[5..5 + length])));
        bytes = &bytes[5 + length..];
    }
    all
}

fn web(body: &[u8]) -> (Option<Bytes>, HeaderMap) {
    let (mut message, mut trailers) = (None, HeaderMap::new());
    for (flag, data) in frames(body) {
        if flag & 0x80 == 0 {
            message = Some(data);
            continue;
        }
        for line in std::str::from_utf8(&data).unwrap().lines() {
            let (name, value) = line.split_once(':').unwrap();
            let name: http::HeaderName = name.parse().unwrap();
            trailers.insert(name, value.trim().parse().unwrap());
        }
    }
    (message, trailers)
}

/// Base64 that was written piece by piece: padding may stand anywhere.
fn untext(body: &[u8]) -> Vec<u8> {
    body.chunks(4)
        .flat_map(|group| BASE64_STANDARD.decode(group).unwrap())
        .collect()
}

pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// What a stream brought until it ended.
#[derive(Debug)]
pub struct Streamed {
    pub messages: Vec<v1::StreamAccountEventsResponse>,
    pub code: i32,
    pub reason: String,
    /// How long the headers took.
    pub headers_after: Duration,
}

/// Reads a stream of account events over gRPC to its end.
pub async fn call_stream(address: SocketAddr, case: &Case, headers: &[(&str, &str)]) -> Streamed {
    let (messages, code, (reason, headers_after)) = call_messages(address, case, headers).await;
    Streamed {
        messages,
        code,
        reason,
        headers_after,
    }
}

/// Reads any stream over gRPC: its messages, its code, the reason and how long the headers took.
pub async fn call_messages<M: Message + Default>(
    address: SocketAddr,
    case: &Case,
    headers: &[(&str, &str)],
) -> (Vec<M>, i32, (String, Duration)) {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{address}/fulcrum.v1.{}", case.method))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let begun = std::time::Instant::now();
    let request = request.body(Full::new(framed(case.method, &case.message))).unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let headers_after = begun.elapsed();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or(parts.headers);
    let messages = frames(&body.to_bytes())
        .into_iter()
        .map(|(_, data)| M::decode(data).unwrap())
        .collect();
    let status = tonic::Status::from_header_map(&trailers).unwrap();
    let reason = tonic_types::StatusExt::get_details_error_info(&status)
        .map(|it| it.reason)
        .unwrap_or_default();
    (messages, status.code().into(), (reason, headers_after))
}
