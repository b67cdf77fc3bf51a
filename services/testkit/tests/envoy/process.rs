//! An Envoy of our own, and one request to both doors.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Once;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};

use crate::binary::root;
use crate::doors;
use crate::mesh::{Mesh, until, within};

/// Once for all tests of this program: two that install at once are in each other's way.
static INSTALLED: Once = Once::new();

fn install(client: &Path) {
    let made = std::process::Command::new("make")
        .args(["--no-print-directory", "--silent", "setup", "build", "--directory"])
        .arg(client)
        .status();
    assert!(made.expect("make runs").success(), "Envoy cannot be installed");
}

/// An Envoy of our own.
pub struct Envoy {
    socket: PathBuf,
    _process: Child,
    _directory: tempfile::TempDir,
}

impl Envoy {
    pub async fn start(gateway: std::net::SocketAddr) -> Self {
        let client = root().join("services/testkit/clients/envoy");
        INSTALLED.call_once(|| install(&client));
        let directory = tempfile::tempdir().expect("a directory");
        let (socket, set) = (directory.path().join("door"), directory.path().join("set"));
        std::fs::write(&set, contracts::DESCRIPTOR_SET).expect("our own directory");
        let config = directory.path().join("config.json");
        std::fs::write(&config, settings(&socket, &set, gateway).to_string()).expect("our own directory");
        let process = Command::new(client.join(".venv/bin/envoy"))
            .arg("--config-path")
            .arg(&config)
            .args(["--log-level", "error", "--concurrency", "1", "--disable-hot-restart"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("Envoy starts");
        let mut envoy = Self {
            socket,
            _process: process,
            _directory: directory,
        };
        until("Envoy", async || {
            assert!(envoy._process.try_wait().expect("a child").is_none(), "Envoy ended");
            UnixStream::connect(&envoy.socket).await.ok()
        })
        .await;
        envoy
    }

    async fn ask(&self, asked: &Asked) -> Got {
        send(UnixStream::connect(&self.socket).await.expect("Envoy listens"), asked).await
    }
}

/// As strict as Envoy can be made, and printing as we print.
fn settings(socket: &Path, set: &Path, gateway: std::net::SocketAddr) -> Value {
    let package = "type.googleapis.com/envoy.extensions";
    let pool = prost_reflect::DescriptorPool::decode(contracts::DESCRIPTOR_SET).expect("our own build made it");
    let services: Vec<String> = pool
        .services()
        .filter(|it| it.package_name() == "fulcrum.v1")
        .map(|it| it.full_name().to_owned())
        .collect();
    let transcoder = json!({
        "@type": format!("{package}.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder"),
        "proto_descriptor": set,
        "services": services,
        "print_options": {"always_print_primitive_fields": true},
        "convert_grpc_status": true,
        "url_unescape_spec": "ALL_CHARACTERS_EXCEPT_RESERVED",
        "query_param_unescape_plus": true,
        "request_validation_options": {
            "reject_unknown_method": true,
            "reject_unknown_query_parameters": true,
            "reject_binding_body_field_collisions": true,
        },
    });
    let manager = json!({
        "@type": format!("{package}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "door",
        "generate_request_id": false,
        "preserve_external_request_id": true,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "gateway", "timeout": "0s"}}],
        }]},
        "http_filters": [
            {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": transcoder},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": format!("{package}.filters.http.router.v3.Router")}},
        ],
    });
    json!({"static_resources": {
        "listeners": [{
            "name": "door",
            "address": {"pipe": {"path": socket}},
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
        }],
        "clusters": [{
            "name": "gateway", "type": "STATIC", "connect_timeout": "5s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{package}.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {"cluster_name": "gateway", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                "socket_address": {"address": gateway.ip().to_string(), "port_value": gateway.port()},
            }}}]}]},
        }],
    }})
}

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub verb: Method,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// One answer: text where it is no JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Got {
    pub status: u16,
    pub json: Value,
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, asked: &Asked) -> Got {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("a connection");
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(&asked.verb)
        .uri(&asked.path)
        .header("host", "x");
    for (name, value) in &asked.headers {
        request = request.header(*name, value);
    }
    let request = request
        .body(Full::new(Bytes::from(asked.body.clone())))
        .expect("a request");
    let response = within("an answer", sender.send_request(request))
        .await
        .expect("an answer");
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut all = Vec::new();
    // A stream without end is read up to its first message.
    while let Some(frame) = within("its body", body.frame()).await {
        all.extend_from_slice(frame.expect("its body").data_ref().map_or(&[][..], |data| data));
        if asked.path.contains(":stream") && status == 200 && first(&all).is_some() {
            break;
        }
    }
    connection.abort();
    let text = || Value::String(String::from_utf8_lossy(&all).into_owned());
    let json = first(&all).unwrap_or_else(|| serde_json::from_slice(&all).unwrap_or_else(|_| text()));
    // Envoy writes empty fields of errors too, we do not: both mean the same message.
    let is_error = status != 200 && json.get("code").is_some();
    let json = if is_error { doors::canonical_error(&json) } else { json };
    Got { status, json }
}

/// The first message of an array that goes on.
fn first(body: &[u8]) -> Option<Value> {
    let rest = body.strip_prefix(b"[")?;
    serde_json::Deserializer::from_slice(rest).into_iter().next()?.ok()
}

/// What both say, at a moment when ours says the same before and after.
pub async fn both(mesh: &Mesh, envoy: &Envoy, asked: &Asked) -> (Got, Got) {
    let ours = async || {
        let stream = TcpStream::connect(mesh.address).await.expect("it listens");
        let mut got = send(stream, asked).await;
        still(&mut got.json);
        got
    };
    until("a still moment", async || {
        let before = ours().await;
        let mut theirs = envoy.ask(asked).await;
        still(&mut theirs.json);
        (before == ours().await).then_some((before, theirs))
    })
    .await
}

/// Without what is another at each call: how much of a limit is left, and when a stream said something.
fn still(json: &mut Value) {
    match json {
        Value::Object(members) => {
            for name in ["callsAdmitted", "remaining", "resetAfter", "eventTime"] {
                if let Some(value) = members.get_mut(name) {
                    *value = json!("another each time");
                }
            }
            members.values_mut().for_each(still);
        }
        Value::Array(items) => items.iter_mut().for_each(still),
        _ => {}
    }
}
