//! From the gRPC answer to the HTTP response, where the answer is one message.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use prost_reflect::{DynamicMessage, Value};
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;

use crate::field;
use crate::json::Json;
use crate::options::Returned;
use crate::request::is_reserved;
use crate::rule::Binding;

/// A body of these bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Body::new(Full::new(bytes.into()).map_err(|never| match never {}))
}

/// The media type and the bytes of one answered message.
pub(crate) fn payload(
    binding: &Binding,
    message: &DynamicMessage,
    json: &Json,
) -> Result<(HeaderValue, Bytes), Status> {
    if binding.answers_http_body() {
        let (media_type, data) = http_body(binding, message);
        return Ok((media_type, data));
    }
    let mut out = Vec::with_capacity(256);
    write(binding, message, json, &mut out)?;
    Ok((HeaderValue::from_static("application/json"), out.into()))
}

/// Appends the JSON of one answered message: the whole of it, or the field that the rule names.
pub(crate) fn write(binding: &Binding, message: &DynamicMessage, json: &Json, out: &mut Vec<u8>) -> Result<(), Status> {
    let written = match &binding.response_body {
        Some(field) => json.write_field(message, field, out),
        None => json.write(message, out),
    };
    written.map_err(|cause| Status::internal(format!("the answer has no JSON form: {cause}")))
}

/// The media type and the bytes of a `google.api.HttpBody`.
pub(crate) fn http_body(binding: &Binding, message: &DynamicMessage) -> (HeaderValue, Bytes) {
    let (media_type, data) = match &binding.response_body {
        Some(field) => match message.get_field(field).as_ref() {
            Value::Message(inner) => field::http_body_parts(inner),
            _ => Default::default(),
        },
        None => field::http_body_parts(message),
    };
    let media_type = HeaderValue::try_from(media_type).ok().filter(|it| !it.is_empty());
    (
        media_type.unwrap_or_else(|| HeaderValue::from_static("application/octet-stream")),
        data,
    )
}

/// Gives metadata back as headers. What is already there stays.
pub(crate) fn return_metadata(metadata: MetadataMap, returned: &Returned, headers: &mut HeaderMap) {
    let allowed = |name: &HeaderName| match returned {
        Returned::All => true,
        Returned::Only(names) => names.contains(name),
    };
    let mut returned_name: Option<HeaderName> = None;
    for (name, value) in metadata.into_headers() {
        // An owning iteration names each header once, before its first value.
        if let Some(name) = name {
            let free = !is_reserved(&name) && allowed(&name) && !headers.contains_key(&name);
            returned_name = free.then_some(name);
        }
        if let Some(name) = &returned_name {
            headers.append(name.clone(), value);
        }
    }
}
