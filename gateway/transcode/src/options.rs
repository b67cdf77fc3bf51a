//! Everything a caller may choose, with the choice we would make.
//!
//! Plain data: nothing here acts. Each struct has a `Default` that suits an API where a silently dropped field costs
//! money: unknown names are refused, defaults are printed, and every size has a bound.

use std::time::Duration;

use http::header::{ACCEPT_LANGUAGE, AUTHORIZATION, USER_AGENT};
use http::{HeaderName, HeaderValue};

/// How a [`Transcoder`](crate::Transcoder) reads requests and writes answers.
#[derive(Clone, Debug)]
pub struct Options {
    /// The shape of the JSON.
    pub json: JsonOptions,
    /// The largest request that is looked at.
    pub limits: Limits,
    /// Which headers become metadata, and which metadata become headers.
    pub headers: HeaderOptions,
    /// How server streams are framed.
    pub streams: StreamOptions,
    /// What to do with a query parameter that names no field.
    pub unknown_query: Unknown,
    /// Query parameters to pass over whatever [`unknown_query`](Self::unknown_query) says: keys that belong to
    /// something in front of this service, such as `access_token`. The default is empty.
    pub ignored_query: Vec<String>,
    /// How far a variable that spans several path segments is percent-decoded.
    pub multi_segment: MultiSegment,
    /// The `domain` of the `google.rpc.ErrorInfo` in every error made here; errors of the gRPC service keep theirs.
    pub error_domain: String,
    /// How long after the caller's own deadline a call is given up here.
    ///
    /// The deadline travels to the gRPC service as `grpc-timeout`, and the service answers it best: it can say what
    /// is known of the outcome. This is the backstop for a service that does not. `None` waits for ever.
    pub deadline_grace: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            json: JsonOptions::default(),
            limits: Limits::default(),
            headers: HeaderOptions::default(),
            streams: StreamOptions::default(),
            unknown_query: Unknown::Refuse,
            ignored_query: Vec::new(),
            multi_segment: MultiSegment::KeepReserved,
            error_domain: "transcode".to_owned(),
            deadline_grace: Some(Duration::from_millis(500)),
        }
    }
}

/// What happens to a name that the request message does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Answer 400 and name it: a misspelt field is a mistake that somebody wants to hear about.
    Refuse,
    /// Act as if it had not been sent.
    Ignore,
}

/// How far a variable that spans several path segments (`{name=shelves/*/books/*}`, `{path=**}`) is percent-decoded.
///
/// A variable of exactly one segment is always decoded in full. In a longer one an encoded slash must stay apart from
/// a real one, so it is never decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultiSegment {
    /// The reserved characters of RFC 6570 (`:/?#[]@!$&'()*+,;=`) stay encoded; the default of `google.api.Http`.
    KeepReserved,
    /// Only `%2F` stays encoded: `google.api.Http.fully_decode_reserved_expansion`.
    KeepSlash,
}

/// The shape of the JSON, within what ProtoJSON leaves open.
#[derive(Clone, Copy, Debug)]
pub struct JsonOptions {
    /// Print fields that hold their default value, unless they track presence. The default is `true`.
    pub print_defaults: bool,
    /// Print `snake_case` names as in the proto file. The default is `false`: `lowerCamelCase`. Both are read.
    pub proto_names: bool,
    /// Print enum values as numbers. The default is `false`: as names. Both are read.
    pub enum_numbers: bool,
    /// Print 64-bit integers as strings, as ProtoJSON wants, because JavaScript rounds such numbers past 2^53.
    /// The default is `true`. Both are read.
    pub int64_strings: bool,
    /// What to do with a body field that the message does not have.
    pub unknown_fields: Unknown,
}

impl Default for JsonOptions {
    fn default() -> Self {
        Self {
            print_defaults: true,
            proto_names: false,
            enum_numbers: false,
            int64_strings: true,
            unknown_fields: Unknown::Refuse,
        }
    }
}

/// The largest request that is looked at, and the largest message that is read back.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of path and query together; past it the answer is 414. The default is 8 KiB.
    pub url_bytes_max: usize,
    /// Pairs in the query; past it the answer is 400. The default is 256.
    pub query_pairs_max: usize,
    /// Bytes of the request body; past it the answer is 413. The default is 1 MiB.
    pub body_bytes_max: usize,
    /// Nesting of the JSON body; past it the answer is 400. The default is 64; the JSON parser stops at 127 in any case.
    pub json_depth_max: usize,
    /// Bytes of one message from the gRPC service; past it the answer is 500. The default is 4 MiB.
    pub message_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            url_bytes_max: 8 * 1024,
            query_pairs_max: 256,
            body_bytes_max: 1024 * 1024,
            json_depth_max: 64,
            message_bytes_max: 4 * 1024 * 1024,
        }
    }
}

/// Which headers become metadata, and which metadata become headers.
///
/// `Grpc-Timeout` (`2S`, `500m`) and `X-Request-Timeout` (`2`, `1.5s`, `500ms`) always become `grpc-timeout`; the
/// shorter one counts when both are there.
#[derive(Clone, Debug)]
pub struct HeaderOptions {
    /// Request headers passed on under their own name. The default: `authorization`, `traceparent`, `tracestate`,
    /// `x-request-id`, `idempotency-key`, `accept-language`, `user-agent`.
    pub forward: Vec<HeaderName>,
    /// Request headers that start with this are passed on without it, for example `grpc-metadata-`, lower case.
    /// Names that gRPC and HTTP keep for themselves are dropped. The default is `None`.
    pub forward_prefix: Option<String>,
    /// Headers that fill a request field which the request left empty.
    pub fields: Vec<HeaderField>,
    /// Metadata of the answer (initial, and the trailers of a unary call) given back as headers.
    pub returned: Returned,
    /// The `WWW-Authenticate` of a 401, which HTTP wants there, unless the gRPC service sends one. The default is
    /// `Bearer`.
    pub challenge: Option<HeaderValue>,
}

impl Default for HeaderOptions {
    fn default() -> Self {
        Self {
            forward: vec![
                AUTHORIZATION,
                HeaderName::from_static("traceparent"),
                HeaderName::from_static("tracestate"),
                HeaderName::from_static("x-request-id"),
                HeaderName::from_static("idempotency-key"),
                ACCEPT_LANGUAGE,
                USER_AGENT,
            ],
            forward_prefix: None,
            fields: Vec::new(),
            returned: Returned::All,
            challenge: Some(HeaderValue::from_static("Bearer")),
        }
    }
}

/// A header that fills a request field which neither the path, the query nor the body has set.
///
/// It concerns the methods whose request has the field, and no others.
#[derive(Clone, Debug)]
pub struct HeaderField {
    /// The header, for example `idempotency-key`.
    pub header: HeaderName,
    /// The field by its proto name, dotted when nested, for example `request_id`.
    pub field: String,
}

/// Which metadata of the gRPC answer come back as headers.
///
/// What HTTP and gRPC keep for themselves (`grpc-status`, `content-type`, `connection`, …) never does.
#[derive(Clone, Debug)]
pub enum Returned {
    /// All the others.
    All,
    /// These alone.
    Only(Vec<HeaderName>),
}

/// How server streams are framed.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// The framing when `Accept` is missing or allows several. The default is NDJSON.
    pub default_format: StreamFormat,
    /// Silence after which a comment is sent on an event stream, so that proxies keep it open. The default is 15 s.
    pub keep_alive: Duration,
    /// How long to wait for a first message or a failure before the headers of a 200 are sent. The default is 5 s.
    ///
    /// Within it a failing call gets its real HTTP status. Past it the stream opens, for otherwise a client of a quiet
    /// stream could not tell a live server from a dead one.
    pub first_message_wait: Duration,
    /// The response field, by its proto name and dotted when nested, that becomes the `id:` of an event, for example
    /// `sequence`. Zero and empty values give no `id:`. It concerns the methods whose response has the field.
    pub event_id_field: Option<String>,
    /// The request field that `Last-Event-ID` sets, for example `resume_after_sequence`.
    ///
    /// The header wins over the query: a browser that reconnects repeats the old URL and adds the newer header.
    pub resume_field: Option<String>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            default_format: StreamFormat::NdJson,
            keep_alive: Duration::from_secs(15),
            first_message_wait: Duration::from_secs(5),
            event_id_field: None,
            resume_field: None,
        }
    }
}

/// The framing of a server stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFormat {
    /// `application/x-ndjson`: one JSON text a line, the last line ended too.
    NdJson,
    /// `text/event-stream`: server-sent events.
    Events,
    /// `application/json`: one JSON array.
    Array,
}

impl StreamFormat {
    /// The media type that asks for it and that it is sent with.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::NdJson => "application/x-ndjson",
            Self::Events => "text/event-stream",
            Self::Array => "application/json",
        }
    }
}
