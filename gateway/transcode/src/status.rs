//! Errors as HTTP: the status code, the `google.rpc.Status` body with typed details, and the headers that go with it.

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Map, Value};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::error::{Failure, Refusal};

/// The HTTP status of a gRPC code, by `google/rpc/code.proto`.
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // Not in the registry: "Client Closed Request", as nginx has it.
        Code::Cancelled => StatusCode::from_u16(499).expect("499 is a status code"),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// Writes statuses, with the descriptors that its details may need.
#[derive(Clone, Debug)]
pub(crate) struct Statuses {
    pool: DescriptorPool,
    /// `google.rpc` as tonic-types has it, for a descriptor set that leaves it out.
    google_rpc: DescriptorPool,
    domain: String,
}

impl Statuses {
    pub fn new(pool: DescriptorPool, domain: String) -> Self {
        let google_rpc = DescriptorPool::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .expect("tonic-types carries a readable descriptor set");
        Self {
            pool,
            google_rpc,
            domain,
        }
    }

    /// The HTTP status, the headers and the body of an answer that is an error.
    pub fn answer(&self, failure: &Failure) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match failure {
            Failure::Refused(refusal) => {
                if let Refusal::MethodNotAllowed { allow, .. } = refusal {
                    let allow: Vec<&str> = allow.iter().map(http::Method::as_str).collect();
                    headers.insert(ALLOW, allow.join(", ").parse().expect("methods are tokens"));
                }
                let status = refusal.to_status(&self.domain);
                (
                    refusal.http_status(),
                    headers,
                    self.json(&status).to_string().into_bytes(),
                )
            }
            Failure::Called(status) => {
                if let Some(seconds) = retry_after(status) {
                    headers.insert(RETRY_AFTER, seconds.into());
                }
                (
                    http_status(status.code()),
                    headers,
                    self.json(status).to_string().into_bytes(),
                )
            }
        }
    }

    /// The ProtoJSON of `google.rpc.Status`.
    pub fn json(&self, status: &Status) -> Value {
        let details = tonic_types::pb::Status::decode(status.details())
            .map(|it| it.details)
            .unwrap_or_default();
        let mut object = Map::new();
        object.insert("code".to_owned(), i32::from(status.code()).into());
        object.insert("message".to_owned(), status.message().into());
        object.insert(
            "details".to_owned(),
            details.iter().map(|detail| self.detail(detail)).collect(),
        );
        Value::Object(object)
    }

    /// One detail: typed where its type is known, and otherwise its bytes in base64, for a reader who knows it.
    fn detail(&self, detail: &prost_types::Any) -> Value {
        self.typed_detail(detail).unwrap_or_else(|| {
            use base64::Engine;
            let bytes = base64::prelude::BASE64_STANDARD.encode(&detail.value);
            serde_json::json!({"@type": detail.type_url, "value": bytes})
        })
    }

    fn typed_detail(&self, detail: &prost_types::Any) -> Option<Value> {
        let name = detail.type_url.rsplit('/').next()?;
        let descriptor = self
            .pool
            .get_message_by_name(name)
            .or_else(|| self.google_rpc.get_message_by_name(name))?;
        let message = DynamicMessage::decode(descriptor.clone(), detail.value.as_slice()).ok()?;
        let value = message
            .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())
            .ok()?;
        match value {
            Value::Object(fields) if descriptor.package_name() != "google.protobuf" => {
                let mut object = Map::new();
                object.insert("@type".to_owned(), detail.type_url.as_str().into());
                object.extend(fields);
                Some(Value::Object(object))
            }
            value => Some(serde_json::json!({"@type": detail.type_url, "value": value})),
        }
    }
}

/// Whole seconds until a retry makes sense: from `RetryInfo`, or else from gRPC's pushback.
fn retry_after(status: &Status) -> Option<u64> {
    let delay = status
        .get_details_retry_info()
        .and_then(|it| it.retry_delay)
        .or_else(|| {
            let pushback = status.metadata().get("grpc-retry-pushback-ms")?.to_str().ok()?;
            Some(std::time::Duration::from_millis(pushback.parse().ok()?))
        })?;
    Some(delay.as_secs() + u64::from(delay.subsec_nanos() > 0))
}
