//! The REST compliance suite of gapic-showcase, through the harness binary: every request of every group goes through
//! every binding of its RPCs that can carry it, must reach the gRPC server unchanged, and must come back unchanged.

mod common;

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use common::{Client, GrpcServer, Reply};
use http_body_util::{BodyExt, Full};
use prost_reflect::{DynamicMessage, Kind, ReflectMessage, Value};
use transcode::template::{Segment, Template};
use transcode::{Binding, Lookup, Options, Services, Transcoder};

const PROTO: &str = "google/showcase/v1beta1/compliance.proto";
const SUITE: &str = include_str!("data/gapic_showcase_compliance_suite.json");

/// Every present field, in a form that can be read when it differs.
fn exact(message: &DynamicMessage) -> String {
    common::to_json(message)
}

/// How the client spells field names in the query and the body.
#[derive(Clone, Copy, Debug)]
enum Names {
    Proto,
    Json,
}

struct Harness(Child);

impl Drop for Harness {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_the_suite_survives_every_binding() {
    let pool = common::pool(PROTO);
    let (saw, seen) = mpsc::channel();
    let server = GrpcServer::new(pool.clone(), move |call| {
        saw.send(call.message.clone()).unwrap();
        let mut answer = DynamicMessage::new(call.output);
        answer.set_field_by_name("request", Value::Message(call.message));
        Reply::one(answer)
    });
    let upstream = common::serve(server).await;
    let (_harness, address) = start_harness(upstream).await;
    let transcoder = Transcoder::new(pool.clone(), Services::All, Options::default()).unwrap();
    let client = common::http1();

    let suite = common::message(
        &pool
            .get_message_by_name("google.showcase.v1beta1.ComplianceSuite")
            .unwrap(),
        SUITE,
    );
    let mut exchanged = 0;
    for group in messages(&suite, "group") {
        let rpcs: Vec<String> = list(&group, "rpcs")
            .iter()
            .filter_map(|rpc| rpc.as_str()?.strip_prefix("Compliance.").map(str::to_owned))
            .collect();
        assert!(!rpcs.is_empty());
        for rpc in rpcs {
            let bindings: Vec<&Binding> = transcoder
                .bindings()
                .iter()
                .filter(|it| it.method().name() == rpc)
                .collect();
            for request in messages(&group, "requests") {
                let mut carried = 0;
                for binding in &bindings {
                    for names in [Names::Proto, Names::Json] {
                        let Some(http_request) = encode(binding, &request, names, address) else {
                            continue;
                        };
                        check_binding(&transcoder, binding, &request, &http_request);
                        let story = format!("{rpc}, {names:?}: {} {}", http_request.method(), http_request.uri());
                        let answer = send(&client, http_request).await;
                        let want = exact(&request);
                        let reached = seen
                            .try_recv()
                            .unwrap_or_else(|_| panic!("{story} did not arrive: {answer}"));
                        assert_eq!(exact(&reached), want, "{story}");
                        // The largest float in its shortest digits, which the client's reader wants quoted.
                        let answer = answer.replace(":3.4028235e+38", r#":"3.4028235e+38""#);
                        let answer = common::message(&binding.method().output(), &answer);
                        let echoed = answer.get_field_by_name("request").unwrap();
                        assert_eq!(exact(echoed.as_message().unwrap()), want, "{story}");
                        carried += 1;
                    }
                }
                assert!(carried > 0, "no binding of {rpc} carries {request}");
                exchanged += carried;
            }
        }
    }
    // 6 RPCs by 7 requests, 4 by 1, 1 by 3 (one binding each), 4 by 1; each in two spellings.
    assert_eq!(exchanged, (6 * 7 + 4 + 3 + 4) * 2);
}

/// A request that says which binding it is meant for must be routed to that one.
fn check_binding(
    transcoder: &Transcoder,
    binding: &Binding,
    request: &DynamicMessage,
    http_request: &http::Request<Full<Bytes>>,
) {
    let Lookup::Bound(found) = transcoder.lookup(http_request.method(), http_request.uri().path()) else {
        panic!("{} is not bound", http_request.uri())
    };
    assert_eq!(found.template(), binding.template());
    let intended = request.get_field_by_name("intended_binding_uri").unwrap();
    if request.has_field_by_name("intended_binding_uri") {
        assert_eq!(intended.as_str().unwrap(), found.template().as_str());
    }
}

async fn start_harness(upstream: SocketAddr) -> (Harness, SocketAddr) {
    let directory = std::env::temp_dir().join(format!("transcode-compliance-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let descriptor_set = directory.join("compliance.bin");
    std::fs::write(&descriptor_set, common::descriptor_set(PROTO)).unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_transcode-harness"))
        .arg("--descriptor-set")
        .arg(&descriptor_set)
        .args(["--service", "google.showcase.v1beta1.Compliance"])
        .args(["--upstream", &format!("http://{upstream}")])
        .args(["--listen", &address.to_string()])
        .spawn()
        .unwrap();
    let harness = Harness(child);
    for _ in 0..500 {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            std::fs::remove_dir_all(&directory).unwrap();
            return (harness, address);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the harness does not listen on {address}");
}

async fn send(client: &Client, request: http::Request<Full<Bytes>>) -> String {
    let response = client.request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(status, 200, "{text}");
    text
}

/// The HTTP request for a message, as a client library would make it; none where the template does not fit.
fn encode(
    binding: &Binding,
    message: &DynamicMessage,
    names: Names,
    address: SocketAddr,
) -> Option<http::Request<Full<Bytes>>> {
    let mut rest = message.clone();
    let path = expand(binding.template(), message)?;
    for variable in binding.template().variables() {
        clear(&mut rest, &variable.field_path);
    }
    let body = match binding.body() {
        "" => Bytes::new(),
        "*" => std::mem::replace(&mut rest, DynamicMessage::new(message.descriptor())).to_body(names),
        field => match rest.take_field_by_name(field) {
            Some(Value::Message(inner)) => inner.to_body(names),
            other => panic!("the body is {other:?}"),
        },
    };
    let mut query = Vec::new();
    flatten(&rest, "", names, &mut query);
    let query = if query.is_empty() {
        String::new()
    } else {
        format!("?{}", query.join("&"))
    };
    let mut request = http::Request::builder()
        .method(binding.http_method().to_string().as_str())
        .uri(format!("http://{address}{path}{query}"));
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    Some(request.body(Full::new(body)).unwrap())
}

trait ToBody {
    fn to_body(&self, names: Names) -> Bytes;
}

impl ToBody for DynamicMessage {
    fn to_body(&self, names: Names) -> Bytes {
        let options = prost_reflect::SerializeOptions::new().use_proto_field_name(matches!(names, Names::Proto));
        let mut out = Vec::new();
        self.serialize_with_options(&mut serde_json::Serializer::new(&mut out), &options)
            .unwrap();
        out.into()
    }
}

/// The path with the variables filled in, or nothing where a value does not match its part of the template.
fn expand(template: &Template, message: &DynamicMessage) -> Option<String> {
    let mut parts = Vec::new();
    let mut at = 0;
    for variable in template.variables() {
        parts.extend(template.segments()[at..variable.range.start].iter().map(literal));
        let value = text_at(message, &variable.field_path);
        let shape = &template.segments()[variable.range.clone()];
        let values: Vec<&str> = if shape.len() == 1 {
            vec![&value]
        } else {
            value.split('/').collect()
        };
        let ends_open = shape.last() == Some(&Segment::Rest);
        let fits = values.len() == shape.len() || (ends_open && values.len() + 1 >= shape.len());
        let literals_fit = shape.iter().zip(&values).all(|(segment, value)| match segment {
            Segment::Literal(text) => text == value,
            Segment::One => !value.is_empty(),
            Segment::Rest => true,
        });
        if !fits || !literals_fit {
            return None;
        }
        parts.extend(values.iter().map(|value| escape(value)));
        at = variable.range.end;
    }
    parts.extend(template.segments()[at..].iter().map(literal));
    let verb = template.verb().map(|verb| format!(":{verb}")).unwrap_or_default();
    Some(format!("/{}{verb}", parts.join("/")))
}

fn literal(segment: &Segment) -> String {
    match segment {
        Segment::Literal(text) => escape(text),
        other => panic!("{other:?} outside a variable"),
    }
}

fn text_at(message: &DynamicMessage, path: &str) -> String {
    let (name, rest) = path
        .split_once('.')
        .map_or((path, None), |(name, rest)| (name, Some(rest)));
    let field = message.descriptor().get_field_by_name(name).unwrap();
    let value = message.get_field(&field);
    match (value.as_ref(), rest) {
        (Value::Message(inner), Some(rest)) => text_at(inner, rest),
        (value, None) => scalar(value, &field.kind()),
        other => panic!("{path} is {other:?}"),
    }
}

fn clear(message: &mut DynamicMessage, path: &str) {
    match path.split_once('.') {
        None => message.clear_field_by_name(path),
        Some((name, rest)) => {
            if let Some(Value::Message(inner)) = message.get_field_by_name_mut(name) {
                clear(inner, rest);
            }
        }
    }
}

/// All fields that are present, as pairs of a query.
fn flatten(message: &DynamicMessage, prefix: &str, names: Names, out: &mut Vec<String>) {
    for (field, value) in message.fields() {
        let name = match names {
            Names::Proto => field.name(),
            Names::Json => field.json_name(),
        };
        match value {
            Value::Message(inner) => flatten(inner, &format!("{prefix}{name}."), names, out),
            value => out.push(format!("{prefix}{name}={}", escape(&scalar(value, &field.kind())))),
        }
    }
}

fn scalar(value: &Value, kind: &Kind) -> String {
    match (value, kind) {
        (Value::String(text), _) => text.clone(),
        (Value::Bool(it), _) => it.to_string(),
        (Value::I32(it), _) => it.to_string(),
        (Value::U32(it), _) => it.to_string(),
        (Value::I64(it), _) => it.to_string(),
        (Value::U64(it), _) => it.to_string(),
        (Value::F32(it), _) => format!("{it:e}"),
        (Value::F64(it), _) => format!("{it:e}"),
        (Value::EnumNumber(number), Kind::Enum(descriptor)) => descriptor.get_value(*number).unwrap().name().to_owned(),
        other => panic!("{other:?} is no scalar of the suite"),
    }
}

/// Everything but `[-_.~0-9a-zA-Z]`, as http.proto asks of clients.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn list(message: &DynamicMessage, field: &str) -> Vec<Value> {
    message.get_field_by_name(field).unwrap().as_list().unwrap().to_vec()
}

fn messages(message: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    list(message, field)
        .iter()
        .map(|value| value.as_message().unwrap().clone())
        .collect()
}
