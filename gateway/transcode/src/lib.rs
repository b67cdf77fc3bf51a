//! REST for any gRPC service: `google.api.http` annotations served at run time from a descriptor set.
//!
//! A [`Transcoder`] reads the rules of a [`DescriptorPool`] and checks all of them at once; put in front of a gRPC
//! service it becomes a [`TranscodeService`]. The gRPC service is anything that tower and tonic call one: the `Routes`
//! of the same process with all their layers around them, or a `tonic::transport::Channel` to somewhere else. So
//! authentication, deadlines and validation are written once, in the gRPC stack, and hold for both doors.
//!
//! No code is generated and no message type is known here.
//!
//! ```
//! use transcode::{Options, Services, Transcoder};
//! # let directory = tempdir();
//! # fn tempdir() -> std::path::PathBuf {
//! #     let directory = std::env::temp_dir().join(format!("transcode-doc-{}", std::process::id()));
//! #     std::fs::create_dir_all(&directory).unwrap();
//! #     std::fs::write(directory.join("library.proto"), r#"
//! #         syntax = "proto3";
//! #         package library.v1;
//! #         import "google/api/annotations.proto";
//! #         service Library {
//! #             rpc GetBook(GetBookRequest) returns (Book) {
//! #                 option (google.api.http) = { get: "/v1/{name=shelves/*/books/*}" };
//! #             }
//! #         }
//! #         message GetBookRequest { string name = 1; }
//! #         message Book { string name = 1; }
//! #     "#).unwrap();
//! #     directory
//! # }
//! # let includes = [directory.clone(), concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto").into()];
//! # let mut compiler = protox::Compiler::new(includes).unwrap();
//! # compiler.include_imports(true).open_file("library.proto").unwrap();
//! # let descriptor_set = compiler.encode_file_descriptor_set();
//! # std::fs::remove_dir_all(directory).unwrap();
//! // `descriptor_set`: the bytes of a FileDescriptorSet with its imports and its options, as protox or `protoc`
//! // write it, and here with:
//! //   rpc GetBook(GetBookRequest) returns (Book) {
//! //     option (google.api.http) = { get: "/v1/{name=shelves/*/books/*}" };
//! //   }
//! let transcoder = Transcoder::decode(&descriptor_set, Services::only(["library.v1.Library"]), Options::default())?;
//! assert!(transcoder.matches(&http::Request::get("/v1/shelves/1/books/2").body(()).unwrap()));
//!
//! // Any tonic `Routes`; a `Channel` does as well.
//! let grpc = tonic::service::Routes::default();
//! let rest = transcoder.into_service(grpc);
//! # fn is_service<S: tower::Service<http::Request<tonic::body::Body>, Error = std::convert::Infallible>>(_: &S) {}
//! # is_service(&rest);
//! # Ok::<(), transcode::RuleError>(())
//! ```
//!
//! # What a client sees
//!
//! * **Requests.** The whole of `google/api/http.proto`: literals, `*`, `**`, `{name=shelves/*/books/**}`, nested
//!   fields, verbs, `body`, `response_body`, `additional_bindings`, `custom`. A literal wins over `*`, and `*` over
//!   `**`. Fields that neither path nor body provide come from the query, also nested, repeated and well-known ones.
//!   A path variable given again in the query or the body must have the same value there, or the answer is 400.
//! * **JSON.** ProtoJSON: both `snake_case` and `lowerCamelCase` are read, `lowerCamelCase` is written; fields with
//!   default values are written; 64-bit integers are strings; enums are names. A field that is unknown or given twice
//!   is refused by name.
//! * **Errors.** Always a `google.rpc.Status` in JSON with typed details, also for 404, 405, 413 and 415.
//! * **Streams.** `Accept` chooses NDJSON, server-sent events or a JSON array. A call that fails before its first
//!   message has its real status; later the failure is the last element. Trailers of a stream are not returned.
//! * **`google.api.HttpBody`** is raw bytes in both directions.
//!
//! What is left to layers outside: TLS, CORS (and so `OPTIONS`), compression, access logs.
//!
//! # Reading order
//!
//! [`template`] is the grammar, `rule` binds it to messages, `route` finds a binding, `request` builds the message,
//! `response` and `stream` write the answer, `service` is the story that ties them together.

mod accept;
pub mod codec;
mod deadline;
mod error;
mod field;
mod json;
mod options;
mod percent;
mod query;
mod request;
mod response;
mod route;
mod rule;
mod service;
mod shape;
mod status;
mod stream;
pub mod template;
mod timeout;

use std::fmt;
use std::sync::Arc;

use prost_reflect::DescriptorPool;

pub use error::Refusal;
pub use options::{
    HeaderField, HeaderOptions, JsonOptions, Limits, MultiSegment, Options, Returned, StreamFormat, StreamOptions,
    Unknown,
};
pub use route::Lookup;
pub use rule::{Binding, HttpMethod, RuleError, RuleReason, Services};
pub use service::{MatchedBinding, TranscodeService};
pub use status::http_status;

/// The checked rules of a descriptor set. Cheap to clone.
#[derive(Clone)]
pub struct Transcoder {
    shared: Arc<service::Shared>,
}

impl Transcoder {
    /// Reads and checks the rules of the selected services. The first wrong one is named, and nothing is served.
    pub fn new(pool: DescriptorPool, services: Services, options: Options) -> Result<Self, RuleError> {
        let bindings = rule::read(&pool, &services, &options)?;
        let shared = service::Shared {
            router: route::Router::new(bindings)?,
            json: json::Json::new(&options.json, &options.limits),
            statuses: status::Statuses::new(pool, options.error_domain.clone()),
            options,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// [`new`](Self::new), from the bytes of a `google.protobuf.FileDescriptorSet` with all imports.
    pub fn decode(descriptor_set: &[u8], services: Services, options: Options) -> Result<Self, RuleError> {
        let pool = DescriptorPool::decode(descriptor_set).map_err(|it| RuleError::DescriptorSet(it.to_string()))?;
        Self::new(pool, services, options)
    }

    /// All bindings, in the order of the descriptor set.
    pub fn bindings(&self) -> &[Binding] {
        self.shared.router.bindings()
    }

    /// What a method and a path, still percent-encoded, lead to.
    pub fn lookup(&self, method: &http::Method, path: &str) -> Lookup<'_> {
        self.shared.lookup(method, path)
    }

    /// Whether the path of the request has a binding, with this or another HTTP method: whether [`into_service`]
    /// would answer it with something else than its own 404.
    ///
    /// [`into_service`]: Self::into_service
    pub fn matches<B>(&self, request: &http::Request<B>) -> bool {
        !matches!(self.lookup(request.method(), request.uri().path()), Lookup::Unbound)
    }

    /// The HTTP service in front of a gRPC service.
    ///
    /// A path without a binding is answered with 404 and a JSON body; ask [`matches`](Self::matches) first where
    /// another service shall have it.
    pub fn into_service<S>(self, grpc: S) -> TranscodeService<S> {
        TranscodeService {
            shared: self.shared,
            grpc,
        }
    }

    /// The answer of this crate's own making for an error that arose outside of it: the same JSON, HTTP status and
    /// headers as if the gRPC service had said it.
    pub fn error_response(&self, status: tonic::Status) -> http::Response<tonic::body::Body> {
        let failure = error::Failure::Called(status);
        service::error_response(&self.shared, failure)
    }
}

impl fmt::Debug for Transcoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcoder")
            .field("bindings", &self.bindings().len())
            .finish_non_exhaustive()
    }
}
