//! Every way a call can fail, and the one place where each becomes a gRPC status.
//!
//! [`Failure`] is what the rest of the gateway speaks; its code follows from an [`ErrorReason`], so that a client who
//! knows the reasons knows the codes. [`complete`] runs over every error on its way out, also over those that tonic
//! makes by itself, and adds the ids that support asks for.

use std::collections::HashMap;
use std::time::Duration;

use bus::{CallError, NotAccepted};
use bytes::BytesMut;
use contracts::ERROR_DOMAIN;
use contracts::v1::ErrorReason;
use http::HeaderMap;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _, pb};
use uuid::Uuid;

/// When to try again after nothing was accepted, and how long before a quota is worth another look.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The fact that says, in the words of the transcoder, what REST refused.
const REST_REFUSAL: &str = "refusal";

/// Why a call was not carried out.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// Fields are missing, malformed or out of range; all of them are named.
    Invalid(Vec<Violation>),
    /// No token, or one that is not believed.
    TokenInvalid(&'static str),
    /// The token is good, but not for this.
    NotAllowed(String),
    /// The engine said no.
    Refused(Box<Refusal>),
    /// Nothing was queued.
    NotAccepted(NotAccepted),
    /// A mutation was queued and not answered in time.
    UnknownOutcome {
        /// Its id, also when the gateway made it: the client needs it to ask again.
        request_id: Option<Uuid>,
    },
    /// There was no time left before anything was queued, or a read was not answered in time.
    Expired,
    /// Too many calls.
    Throttled {
        /// Who is limited.
        subject: String,
        /// When the next call may come.
        retry_after: Duration,
    },
    /// The stream cannot start there.
    ResumePointExpired(String),
    /// The history tables do not reach far enough yet, or cannot be read.
    HistoryBehind(String),
    /// The gateway has not found its database yet.
    Opening,
    /// The gateway is shutting down.
    Leaving,
    /// The connection has served its time.
    ConnectionOver,
    /// The request is larger than is looked at.
    TooLarge(String),
    /// There is no such method.
    MethodUnknown(String),
    /// A fault of ours. The text is for the log alone.
    Internal(String),
}

/// One field at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Its path, for example `amount.amount`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The engine's no, with what the rest of the gateway may need to go on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusal {
    /// As it came.
    pub failure: contracts::bus::Failure,
    /// Sequence of the last change to the account.
    pub account_sequence: u64,
}

impl Failure {
    /// A refusal that the gateway makes in the engine's name.
    pub fn refused(reason: ErrorReason, message: impl Into<String>) -> Self {
        let failure = contracts::bus::Failure {
            reason: reason.into(),
            message: message.into(),
            ..Default::default()
        };
        Self::Refused(Box::new(Refusal {
            failure,
            account_sequence: 0,
        }))
    }

    /// One field at fault.
    pub fn invalid(field: &str, problem: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation {
            field: field.to_owned(),
            problem: problem.into(),
        }])
    }

    /// The reason that clients branch on.
    pub fn reason(&self) -> ErrorReason {
        match self {
            Self::Invalid(_) => ErrorReason::InvalidField,
            Self::TooLarge(_) | Self::NotAccepted(NotAccepted::TooLarge) => ErrorReason::BodyTooLarge,
            Self::TokenInvalid(_) => ErrorReason::TokenInvalid,
            Self::NotAllowed(_) => ErrorReason::NotAllowed,
            Self::Refused(refusal) => match refusal.failure.reason() {
                ErrorReason::Unspecified => ErrorReason::Internal,
                reason => reason,
            },
            Self::NotAccepted(_) | Self::Opening | Self::Leaving | Self::ConnectionOver => ErrorReason::NotAccepted,
            Self::UnknownOutcome { .. } => ErrorReason::UnknownOutcome,
            Self::Expired => ErrorReason::Expired,
            Self::Throttled { .. } => ErrorReason::Throttled,
            Self::ResumePointExpired(_) => ErrorReason::ResumePointExpired,
            Self::HistoryBehind(_) => ErrorReason::HistoryBehind,
            Self::MethodUnknown(_) => ErrorReason::MethodUnknown,
            Self::Internal(_) => ErrorReason::Internal,
        }
    }

    /// What a person reads: it says what to do next and nothing about our insides.
    fn message(&self) -> String {
        match self {
            Self::Invalid(violations) => {
                let all: Vec<String> = violations
                    .iter()
                    .map(|it| format!("{} {}", it.field, it.problem))
                    .collect();
                all.join("; ")
            }
            Self::TokenInvalid(why) => (*why).to_owned(),
            Self::NotAllowed(why)
            | Self::ResumePointExpired(why)
            | Self::HistoryBehind(why)
            | Self::TooLarge(why)
            | Self::MethodUnknown(why) => why.clone(),
            Self::Refused(refusal) => refusal.failure.message.clone(),
            Self::NotAccepted(why) => format!("nothing was accepted: {why}; send the same request_id again"),
            Self::UnknownOutcome { request_id: Some(id) } => {
                format!(
                    "no answer in time, it may have been executed: send request_id {id} again, or ask GetOperation for it"
                )
            }
            Self::UnknownOutcome { request_id: None } => {
                "no answer in time, it may have been executed: send the same request_id again".to_owned()
            }
            Self::Expired => "the deadline passed before the call was carried out; it changed nothing".to_owned(),
            Self::Throttled { subject, retry_after } => {
                format!(
                    "too many calls ({subject}): come back in {} ms",
                    retry_after.as_millis()
                )
            }
            Self::Opening => {
                "nothing was accepted: this server has just started and waits for its database; call again".to_owned()
            }
            Self::Leaving => "this server is shutting down: call again, another one answers".to_owned(),
            Self::ConnectionOver => {
                "this connection was asked to end and its time is over: call again on a new one; events go on after the last sequence seen"
                    .to_owned()
            }
            Self::Internal(_) => "a fault on our side: tell support the request id of this answer".to_owned(),
        }
    }

    fn facts(&self) -> HashMap<String, String> {
        let mut facts = HashMap::new();
        match self {
            Self::Refused(refusal) => {
                facts.extend(
                    refusal
                        .failure
                        .facts
                        .iter()
                        .map(|fact| (fact.name.clone(), fact.value.clone())),
                );
            }
            Self::UnknownOutcome { request_id: Some(id) } => {
                facts.insert("request_id".to_owned(), id.to_string());
            }
            _ => {}
        }
        facts
    }

    fn fields(&self) -> Vec<FieldViolation> {
        match self {
            Self::Invalid(violations) => violations
                .iter()
                .map(|it| FieldViolation::new(it.field.clone(), it.problem.clone()))
                .collect(),
            Self::Refused(refusal) => {
                let fields = &refusal.failure.fields;
                fields
                    .iter()
                    .map(|it| FieldViolation::new(it.field.clone(), it.problem.clone()))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotAccepted(NotAccepted::TooLarge) => None,
            Self::NotAccepted(_) | Self::Opening | Self::Leaving | Self::ConnectionOver | Self::HistoryBehind(_) => {
                Some(RETRY_AFTER)
            }
            Self::Throttled { retry_after, .. } => Some(*retry_after),
            Self::Refused(refusal) if refusal.failure.retry_after_ms > 0 => {
                Some(Duration::from_millis(refusal.failure.retry_after_ms.into()))
            }
            _ => None,
        }
    }

    fn details(&self, code: Code) -> ErrorDetails {
        let mut details = ErrorDetails::new();
        let reason = self.reason().code();
        details.set_error_info(reason, ERROR_DOMAIN, self.facts());
        let fields = self.fields();
        if !fields.is_empty() {
            details.set_bad_request(fields);
        }
        if code == Code::FailedPrecondition {
            details.add_precondition_failure_violation(reason, "account", self.message());
        }
        if let Some(delay) = self.retry_after() {
            details.set_retry_info(Some(delay));
        }
        if let Self::Throttled { subject, .. } = self {
            details.add_quota_failure_violation(subject.clone(), self.message());
        }
        details
    }
}

/// The code of a reason.
fn code(reason: ErrorReason) -> Code {
    // No `_` arm: a new reason must choose its code here, or this does not compile.
    match reason {
        ErrorReason::InvalidField => Code::InvalidArgument,
        ErrorReason::TokenInvalid => Code::Unauthenticated,
        ErrorReason::NotAllowed => Code::PermissionDenied,
        ErrorReason::SymbolUnknown
        | ErrorReason::CurrencyUnknown
        | ErrorReason::TradeNotFound
        | ErrorReason::AccountNotFound
        | ErrorReason::OperationNotFound => Code::NotFound,
        ErrorReason::InsufficientMargin
        | ErrorReason::InsufficientFunds
        | ErrorReason::TradeClosed
        | ErrorReason::MarketClosed
        | ErrorReason::MaxExposureReached
        | ErrorReason::RequestIdExpired => Code::FailedPrecondition,
        ErrorReason::RequestIdReused => Code::AlreadyExists,
        ErrorReason::PriceMoved => Code::Aborted,
        ErrorReason::StalePrice | ErrorReason::NotAccepted | ErrorReason::HistoryBehind => Code::Unavailable,
        ErrorReason::UnknownOutcome | ErrorReason::Expired => Code::DeadlineExceeded,
        ErrorReason::Throttled | ErrorReason::BodyTooLarge => Code::ResourceExhausted,
        ErrorReason::ResumePointExpired => Code::OutOfRange,
        ErrorReason::MethodUnknown => Code::Unimplemented,
        ErrorReason::Unspecified | ErrorReason::Internal => Code::Internal,
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match &failure {
            Failure::Internal(cause) => tracing::error!(cause, "a fault of ours"),
            Failure::Refused(refusal) if failure.reason() == ErrorReason::Internal => {
                tracing::error!(message = refusal.failure.message, "the engine reports a fault");
            }
            _ => {}
        }
        let code = code(failure.reason());
        let message = match &failure {
            // The engine's own words about its insides are for the log.
            Failure::Refused(_) if code == Code::Internal => Failure::Internal(String::new()).message(),
            other => other.message(),
        };
        let mut status = Status::with_error_details(code, message, failure.details(code));
        // What gRPC clients with a retry policy go by; RetryInfo says the same to people.
        if let (Code::Unavailable | Code::ResourceExhausted, Some(delay)) = (code, failure.retry_after())
            && let Ok(pushback) = delay.as_millis().to_string().parse()
        {
            status.metadata_mut().insert("grpc-retry-pushback-ms", pushback);
        }
        if code == Code::Unauthenticated {
            status.metadata_mut().insert(
                "www-authenticate",
                tonic::metadata::MetadataValue::from_static("Bearer"),
            );
        }
        status
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotAccepted(why) => Self::NotAccepted(why),
            CallError::UnknownOutcome => Self::UnknownOutcome { request_id: None },
        }
    }
}

impl From<contracts::bus::Failure> for Failure {
    fn from(failure: contracts::bus::Failure) -> Self {
        Self::Refused(Box::new(Refusal {
            failure,
            account_sequence: 0,
        }))
    }
}

/// A refusal as data: what `Operation.error` carries.
pub(crate) fn as_message(failure: contracts::bus::Failure) -> contracts::google::rpc::Status {
    let status = Status::from(Failure::from(failure));
    contracts::google::rpc::Status::decode(status.details()).unwrap_or_else(|_| contracts::google::rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

/// Completes the error in headers or trailers, if there is one: every error has an `ErrorInfo` and names the request.
///
/// What tonic refuses by itself has no `ErrorInfo`: an unknown method, a message too large, bytes that are no message.
pub(crate) fn complete(headers: &mut HeaderMap, request_id: &str, trace_id: &str) {
    let Some(status) = Status::from_header_map(headers).filter(|it| it.code() != Code::Ok) else {
        return;
    };
    let foreign = status.get_error_details().error_info().is_none();
    let status = if foreign { adopt(&status) } else { status };
    let whole = named(&status, request_id, trace_id);
    for name in [Status::GRPC_STATUS, Status::GRPC_MESSAGE, Status::GRPC_STATUS_DETAILS] {
        headers.remove(name);
    }
    if whole.add_header(headers).is_err() {
        // The message cannot be a header: the code alone must do.
        headers.insert(Status::GRPC_STATUS, i32::from(whole.code()).into());
    }
}

/// The status with the ids that support asks for. They are one more detail, and an encoded message is lengthened by what is written behind
/// it: nothing is read again for that.
pub(crate) fn named(status: &Status, request_id: &str, trace_id: &str) -> Status {
    let info = pb::RequestInfo {
        request_id: request_id.to_owned(),
        serving_data: match trace_id {
            "" => String::new(),
            id => format!("trace {id}"),
        },
    };
    let more = pb::Status {
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.RequestInfo".to_owned(),
            value: info.encode_to_vec(),
        }],
        ..Default::default()
    };
    let mut details = BytesMut::with_capacity(status.details().len() + more.encoded_len());
    details.extend_from_slice(status.details());
    more.encode_raw(&mut details);
    Status::with_details_and_metadata(
        status.code(),
        status.message(),
        details.freeze(),
        status.metadata().clone(),
    )
}

/// What REST refuses before there is a call, in our words; its HTTP status is its own.
pub(crate) fn of_rest(refusal: &transcode::Refusal) -> Status {
    use transcode::Refusal;
    let said = refusal.to_string();
    let failure = match refusal {
        Refusal::PathUnknown | Refusal::MethodNotAllowed { .. } => Failure::MethodUnknown(said),
        Refusal::BodyTooLarge { .. } => Failure::TooLarge(said),
        other => Failure::invalid(other.field().unwrap_or("request"), said),
    };
    let mut details = failure.details(code(failure.reason()));
    details.set_error_info(
        failure.reason().code(),
        ERROR_DOMAIN,
        HashMap::from([(REST_REFUSAL.to_owned(), refusal.reason().to_owned())]),
    );
    Status::with_error_details(code(failure.reason()), refusal.to_string(), details)
}

/// One of tonic's own errors in our words.
fn adopt(status: &Status) -> Status {
    let said = |otherwise: &str| {
        if status.message().is_empty() {
            otherwise
        } else {
            status.message()
        }
        .to_owned()
    };
    match status.code() {
        Code::Unimplemented => Failure::MethodUnknown(said("this server does not offer the method")).into(),
        Code::OutOfRange | Code::ResourceExhausted => Failure::TooLarge(said("the request is too large")).into(),
        // All of ours have an ErrorInfo, so this is about the request's bytes.
        Code::Internal | Code::InvalidArgument => Failure::invalid("request", said("cannot be read")).into(),
        code => {
            let mut details = ErrorDetails::new();
            details.set_error_info(
                ErrorReason::Internal.code(),
                ERROR_DOMAIN,
                HashMap::<String, String>::new(),
            );
            Status::with_error_details(code, status.message(), details)
        }
    }
}

#[cfg(test)]
mod tests;
