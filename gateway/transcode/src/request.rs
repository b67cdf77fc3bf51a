//! From an HTTP request to the gRPC request: the message out of body, query, path and headers, and the metadata.
//!
//! The order is body, query, path, headers. A path variable given once more in the query or the body must agree with
//! the path; a header fills only what is still empty, except `Last-Event-ID`, which is newer than the URL beside it.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use prost_reflect::{DynamicMessage, Kind, Value};
use tonic::metadata::MetadataMap;

use crate::error::Refusal;
use crate::field::{self, FieldPath};
use crate::json::Json;
use crate::options::{HeaderOptions, Options};
use crate::percent;
use crate::query;
use crate::route::Route;
use crate::rule::{Binding, BodyRule};

/// The header of a browser's `EventSource` that resumes a stream.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Reads the body to its end, within the limit.
pub(crate) async fn read_body<B>(headers: &HeaderMap, body: B, bytes_max: usize) -> Result<Bytes, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    let too_large = Refusal::BodyTooLarge { bytes_max };
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|it| it.to_str().ok())
        .and_then(|it| it.parse::<u64>().ok());
    if announced.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large);
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(cause) if cause.is::<LengthLimitError>() => Err(too_large),
        Err(_) => Err(Refusal::BodyUnreadable),
    }
}

/// Builds the request message.
pub(crate) fn message(
    route: &Route<'_, '_>,
    query: &str,
    headers: &HeaderMap,
    body: Bytes,
    json: &Json,
    options: &Options,
) -> Result<DynamicMessage, Refusal> {
    let binding = route.binding;
    let descriptor = binding.method.input();
    let mut message = read_message(binding, headers, body, json)?;
    query::apply(query, &binding.body, &mut message, &descriptor, options)?;
    apply_path(route, &mut message, options)?;
    apply_headers(binding, headers, &mut message)?;
    Ok(message)
}

/// The message as far as the body provides it.
fn read_message(binding: &Binding, headers: &HeaderMap, body: Bytes, json: &Json) -> Result<DynamicMessage, Refusal> {
    let descriptor = binding.method.input();
    match &binding.body {
        BodyRule::None => match body.trim_ascii() {
            // Many clients cannot send a POST without a body; an empty object says nothing either.
            [] | b"{}" => Ok(DynamicMessage::new(descriptor)),
            _ => Err(Refusal::BodyUnexpected),
        },
        BodyRule::Whole if field::is_http_body(&descriptor) => {
            refuse_coding(headers)?;
            Ok(field::http_body(&descriptor, content_type(headers), body))
        }
        BodyRule::Field(field) if field::is_http_body_field(field) => {
            refuse_coding(headers)?;
            let mut message = DynamicMessage::new(descriptor);
            if let Kind::Message(inner) = field.kind() {
                message.set_field(
                    field,
                    Value::Message(field::http_body(&inner, content_type(headers), body)),
                );
            }
            Ok(message)
        }
        _ if body.is_empty() => Ok(DynamicMessage::new(descriptor)),
        rule => {
            refuse_coding(headers)?;
            refuse_media_type(headers)?;
            match rule {
                BodyRule::Field(field) => json.read_field(field, &body),
                BodyRule::Whole | BodyRule::None => json.read(&descriptor, &body),
            }
        }
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    headers
        .get(CONTENT_TYPE)
        .and_then(|it| it.to_str().ok())
        .unwrap_or_default()
}

/// JSON is what can be read; a body without a media type is taken at its word.
fn refuse_media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(header) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let unsupported = || Refusal::MediaTypeUnsupported {
        media_type: String::from_utf8_lossy(header.as_bytes()).into_owned(),
    };
    let text = header.to_str().map_err(|_| unsupported())?;
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let charset = value.trim().trim_matches('"');
            charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("us-ascii")
        }
        _ => true,
    });
    if is_json && is_utf8 { Ok(()) } else { Err(unsupported()) }
}

fn refuse_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(Refusal::CodingUnsupported {
            coding: String::from_utf8_lossy(coding.as_bytes()).into_owned(),
        }),
        _ => Ok(()),
    }
}

fn apply_path(route: &Route<'_, '_>, message: &mut DynamicMessage, options: &Options) -> Result<(), Refusal> {
    for variable in &route.binding.variables {
        let field = || variable.path.dotted();
        let invalid = |cause: String| Refusal::PathInvalid { field: field(), cause };
        let raw = route.capture(variable.start, variable.end);
        let text = match variable.multi_segment {
            true => percent::decode_segments(raw, options.multi_segment),
            false => percent::decode(raw),
        };
        let text = text.map_err(|cause| invalid(cause.to_string()))?;
        let value = field::parse_text(&variable.path.leaf().kind(), &text).map_err(invalid)?;
        if variable.path.get(message).is_some_and(|other| *other != value) {
            return Err(Refusal::PathConflict { field: field() });
        }
        variable
            .path
            .set(message, value)
            .map_err(|taken| Refusal::OneofConflict {
                field: field(),
                other: taken.other,
            })?;
    }
    Ok(())
}

fn apply_headers(binding: &Binding, headers: &HeaderMap, message: &mut DynamicMessage) -> Result<(), Refusal> {
    for (name, path) in &binding.header_fields {
        if path.get(message).is_none() {
            set_from_header(headers, name, path, message)?;
        }
    }
    if let Some(path) = &binding.resume {
        set_from_header(headers, &LAST_EVENT_ID, path, message)?;
    }
    Ok(())
}

fn set_from_header(
    headers: &HeaderMap,
    name: &HeaderName,
    path: &FieldPath,
    message: &mut DynamicMessage,
) -> Result<(), Refusal> {
    let Some(value) = headers.get(name).filter(|value| !value.is_empty()) else {
        return Ok(());
    };
    let invalid = |cause: String| Refusal::HeaderInvalid {
        name: name.to_string(),
        cause,
    };
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| invalid("it is not UTF-8".to_owned()))?;
    let value = field::parse_text(&path.leaf().kind(), text).map_err(invalid)?;
    path.set(message, value).map_err(|taken| Refusal::OneofConflict {
        field: path.dotted(),
        other: taken.other,
    })
}

/// The headers that travel on, as metadata.
pub(crate) fn metadata(headers: &HeaderMap, options: &HeaderOptions) -> MetadataMap {
    let mut forwarded = HeaderMap::new();
    for name in &options.forward {
        for value in headers.get_all(name) {
            forwarded.append(name.clone(), value.clone());
        }
    }
    if let Some(prefix) = options.forward_prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        for (name, value) in headers {
            let Some(name) = name.as_str().strip_prefix(prefix) else {
                continue;
            };
            let Ok(name) = HeaderName::try_from(name) else { continue };
            if !is_reserved(&name) {
                forwarded.append(name, value.clone());
            }
        }
    }
    MetadataMap::from_headers(forwarded)
}

/// Names that HTTP or gRPC keep for themselves: never metadata of the caller's, never headers of the answer's.
pub(crate) fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("grpc-")
        || matches!(
            name,
            "te" | "trailer"
                | "transfer-encoding"
                | "connection"
                | "keep-alive"
                | "proxy-connection"
                | "upgrade"
                | "host"
                | "date"
                | "content-type"
                | "content-length"
                | "content-encoding"
        )
}
