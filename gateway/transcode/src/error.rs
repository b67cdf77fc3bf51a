//! Every refusal of this crate's own, and the one place where each becomes an HTTP status and a gRPC code.

use http::{Method, StatusCode};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// A request that was answered here, without calling the gRPC service.
///
/// It travels to the client as a `google.rpc.Status` whose `google.rpc.ErrorInfo` carries [`reason`](Self::reason);
/// those that concern a field carry a `google.rpc.BadRequest` too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No binding has this path.
    #[error("no method is bound to this path")]
    PathUnknown,
    /// The path has bindings, with other HTTP methods.
    #[error("{method} is not allowed here")]
    MethodNotAllowed {
        /// The method of the request.
        method: Method,
        /// The methods that are bound.
        allow: Vec<Method>,
    },
    /// Path and query are too long.
    #[error("the URL is longer than {bytes_max} bytes")]
    UrlTooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// The query has too many pairs.
    #[error("the query has more than {pairs_max} parameters")]
    QueryTooLong {
        /// The limit.
        pairs_max: usize,
    },
    /// A query parameter names no field that the query may set.
    #[error("unknown query parameter '{key}'")]
    QueryUnknown {
        /// The parameter as it was sent, decoded.
        key: String,
    },
    /// A query parameter does not fit its field.
    #[error("invalid query parameter '{key}': {cause}")]
    QueryInvalid {
        /// The parameter as it was sent, decoded.
        key: String,
        /// Why.
        cause: String,
    },
    /// A path segment does not fit the field that it sets.
    #[error("invalid value for '{field}' in the path: {cause}")]
    PathInvalid {
        /// The field.
        field: String,
        /// Why.
        cause: String,
    },
    /// The path and the query or body set a field to different values.
    #[error("'{field}' has one value in the path and another in the query or the body")]
    PathConflict {
        /// The field.
        field: String,
    },
    /// Two members of one oneof were given.
    #[error("'{field}' cannot be set together with '{other}'")]
    OneofConflict {
        /// The field that came second.
        field: String,
        /// The field that was there.
        other: String,
    },
    /// The body is larger than is looked at.
    #[error("the body is larger than {bytes_max} bytes")]
    BodyTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The body ended early.
    #[error("the body could not be read to its end")]
    BodyUnreadable,
    /// The binding takes no body and got one.
    #[error("this method takes no body")]
    BodyUnexpected,
    /// The body is not in a media type that can be read.
    #[error("the body must be application/json in UTF-8, not '{media_type}'")]
    MediaTypeUnsupported {
        /// The media type of the body.
        media_type: String,
    },
    /// The body is in a content coding that is not undone here.
    #[error("the content coding '{coding}' is not supported")]
    CodingUnsupported {
        /// The coding.
        coding: String,
    },
    /// The JSON names a field that the message does not have.
    #[error("unknown field '{field}' in the body")]
    BodyFieldUnknown {
        /// The field, dotted from the root of the body.
        field: String,
    },
    /// The JSON gives a field twice, perhaps once under each of its names.
    #[error("field '{field}' is given twice in the body")]
    BodyFieldRepeated {
        /// The field, dotted from the root of the body.
        field: String,
    },
    /// The body is not JSON, or not of the message's shape.
    #[error("invalid body: {cause}")]
    BodyInvalid {
        /// The place, dotted from the root of the body; empty for the root.
        field: String,
        /// Why.
        cause: String,
    },
    /// The JSON is nested too deeply.
    #[error("the JSON is nested deeper than {depth_max}")]
    BodyTooDeep {
        /// The limit.
        depth_max: usize,
    },
    /// A header that matters here cannot be understood.
    #[error("invalid header '{name}': {cause}")]
    HeaderInvalid {
        /// The header.
        name: String,
        /// Why.
        cause: String,
    },
    /// `Accept` leaves nothing that can be sent.
    #[error("cannot answer with any of '{accept}'; there is {offered}")]
    NotAcceptable {
        /// What the client would take.
        accept: String,
        /// What there is.
        offered: &'static str,
    },
}

impl Refusal {
    /// The HTTP status of the answer.
    pub fn http_status(&self) -> StatusCode {
        match self {
            Self::PathUnknown => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::UrlTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaTypeUnsupported { .. } | Self::CodingUnsupported { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotAcceptable { .. } => StatusCode::NOT_ACCEPTABLE,
            Self::QueryTooLong { .. }
            | Self::QueryUnknown { .. }
            | Self::QueryInvalid { .. }
            | Self::PathInvalid { .. }
            | Self::PathConflict { .. }
            | Self::OneofConflict { .. }
            | Self::BodyUnreadable
            | Self::BodyUnexpected
            | Self::BodyFieldUnknown { .. }
            | Self::BodyFieldRepeated { .. }
            | Self::BodyInvalid { .. }
            | Self::BodyTooDeep { .. }
            | Self::HeaderInvalid { .. } => StatusCode::BAD_REQUEST,
        }
    }

    /// The gRPC code in the answer.
    pub fn code(&self) -> Code {
        match self {
            Self::PathUnknown => Code::NotFound,
            Self::MethodNotAllowed { .. } => Code::Unimplemented,
            Self::BodyTooLarge { .. } => Code::ResourceExhausted,
            Self::UrlTooLong { .. }
            | Self::MediaTypeUnsupported { .. }
            | Self::CodingUnsupported { .. }
            | Self::NotAcceptable { .. }
            | Self::QueryTooLong { .. }
            | Self::QueryUnknown { .. }
            | Self::QueryInvalid { .. }
            | Self::PathInvalid { .. }
            | Self::PathConflict { .. }
            | Self::OneofConflict { .. }
            | Self::BodyUnreadable
            | Self::BodyUnexpected
            | Self::BodyFieldUnknown { .. }
            | Self::BodyFieldRepeated { .. }
            | Self::BodyInvalid { .. }
            | Self::BodyTooDeep { .. }
            | Self::HeaderInvalid { .. } => Code::InvalidArgument,
        }
    }

    /// The word that a client can branch on.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PathUnknown => "PATH_UNKNOWN",
            Self::MethodNotAllowed { .. } => "METHOD_NOT_ALLOWED",
            Self::UrlTooLong { .. } => "URL_TOO_LONG",
            Self::QueryTooLong { .. } => "QUERY_TOO_LONG",
            Self::QueryUnknown { .. } => "QUERY_PARAMETER_UNKNOWN",
            Self::QueryInvalid { .. } => "QUERY_PARAMETER_INVALID",
            Self::PathInvalid { .. } => "PATH_PARAMETER_INVALID",
            Self::PathConflict { .. } => "PATH_PARAMETER_CONFLICT",
            Self::OneofConflict { .. } => "ONEOF_CONFLICT",
            Self::BodyTooLarge { .. } => "BODY_TOO_LARGE",
            Self::BodyUnreadable => "BODY_UNREADABLE",
            Self::BodyUnexpected => "BODY_UNEXPECTED",
            Self::MediaTypeUnsupported { .. } => "MEDIA_TYPE_UNSUPPORTED",
            Self::CodingUnsupported { .. } => "CONTENT_CODING_UNSUPPORTED",
            Self::BodyFieldUnknown { .. } => "BODY_FIELD_UNKNOWN",
            Self::BodyFieldRepeated { .. } => "BODY_FIELD_REPEATED",
            Self::BodyInvalid { .. } => "BODY_INVALID",
            Self::BodyTooDeep { .. } => "BODY_TOO_DEEP",
            Self::HeaderInvalid { .. } => "HEADER_INVALID",
            Self::NotAcceptable { .. } => "NOT_ACCEPTABLE",
        }
    }

    /// The field or parameter that it concerns, if one does.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::QueryUnknown { key } | Self::QueryInvalid { key, .. } => Some(key),
            Self::PathInvalid { field, .. }
            | Self::PathConflict { field }
            | Self::OneofConflict { field, .. }
            | Self::BodyFieldUnknown { field }
            | Self::BodyFieldRepeated { field }
            | Self::BodyInvalid { field, .. } => Some(field),
            Self::HeaderInvalid { name, .. } => Some(name),
            Self::PathUnknown
            | Self::MethodNotAllowed { .. }
            | Self::UrlTooLong { .. }
            | Self::QueryTooLong { .. }
            | Self::BodyTooLarge { .. }
            | Self::BodyUnreadable
            | Self::BodyUnexpected
            | Self::MediaTypeUnsupported { .. }
            | Self::CodingUnsupported { .. }
            | Self::BodyTooDeep { .. }
            | Self::NotAcceptable { .. } => None,
        }
    }

    /// The refusal as a gRPC status with typed details.
    pub fn to_status(&self, domain: &str) -> Status {
        let message = self.to_string();
        let mut details = ErrorDetails::new();
        details.set_error_info(
            self.reason(),
            domain,
            std::collections::HashMap::<String, String>::new(),
        );
        if let Some(field) = self.field() {
            details.add_bad_request_violation(field, message.clone());
        }
        Status::with_error_details(self.code(), message, details)
    }
}

/// Why a call has no answer but an error: it was refused here, or the gRPC service said so.
#[derive(Debug)]
pub(crate) enum Failure {
    Refused(Refusal),
    Called(Status),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Called(status)
    }
}
