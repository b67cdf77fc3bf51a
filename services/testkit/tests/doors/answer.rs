//! What came back, in the one form in which answers are compared, whichever the door.

use http::StatusCode;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::contract::{message, rewritten, to_json};

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The gRPC code, whichever the door.
    pub code: Code,
    /// The text for a person.
    pub message: String,
    /// The typed details.
    pub details: Vec<Value>,
    /// The response; null after an error.
    pub body: Value,
}

impl Answer {
    pub(super) fn ok(body: Value) -> Self {
        Self {
            code: Code::Ok,
            message: String::new(),
            details: Vec::new(),
            body,
        }
    }

    /// From what gRPC sends.
    pub(super) fn failed(status: &Status) -> Self {
        let descriptor = message("google.rpc.Status");
        let details = DynamicMessage::decode(descriptor, status.details()).expect("details are a google.rpc.Status");
        let it = Self::from_json(&to_json(&details));
        if !status.details().is_empty() {
            assert_eq!(
                (it.code, it.message.as_str()),
                (status.code(), status.message()),
                "the details say the same as the status"
            );
        }
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            ..it
        }
    }

    /// From the JSON of a `google.rpc.Status`.
    pub(super) fn from_json(status: &Value) -> Self {
        let code = status["code"]
            .as_i64()
            .and_then(|code| i32::try_from(code).ok())
            .expect("a code");
        Self {
            code: code.into(),
            message: status["message"].as_str().unwrap_or_default().to_owned(),
            details: status["details"].as_array().cloned().unwrap_or_default(),
            body: Value::Null,
        }
    }

    /// The details of one type.
    pub fn detail(&self, name: &str) -> Option<&Value> {
        let url = format!("type.googleapis.com/google.rpc.{name}");
        self.details.iter().find(|detail| detail["@type"] == url.as_str())
    }

    /// What a client branches on; empty when all is well.
    pub fn reason(&self) -> &str {
        self.detail("ErrorInfo")
            .and_then(|info| info["reason"].as_str())
            .unwrap_or_default()
    }

    /// The fields at fault.
    pub fn fields(&self) -> Vec<&str> {
        let violations = self
            .detail("BadRequest")
            .and_then(|it| it["fieldViolations"].as_array());
        violations
            .into_iter()
            .flatten()
            .filter_map(|it| it["field"].as_str())
            .collect()
    }

    /// The response.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn good(self) -> Value {
        assert_eq!(
            self.code,
            Code::Ok,
            "{} {}: {}",
            self.reason(),
            self.message,
            json!(self.details)
        );
        self.body
    }

    /// The whole of it, for comparing.
    pub fn all(&self) -> Value {
        json!({"code": format!("{:?}", self.code), "message": self.message, "details": self.details, "body": self.body})
    }
}

/// From what REST sends, whose HTTP status must be that of the code.
pub(super) fn rest_answer(method: &MethodDescriptor, status: StatusCode, body: &[u8]) -> Answer {
    let json: Value = serde_json::from_slice(body)
        .unwrap_or_else(|error| panic!("{} {status}: {error}: {}", method.name(), String::from_utf8_lossy(body)));
    if status == StatusCode::OK {
        return Answer::ok(rewritten(&method.output(), &json));
    }
    let answer = Answer::from_json(&rewritten(&message("google.rpc.Status"), &json));
    let expected = match answer.code {
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        // Two names for too much: of one body, and of calls.
        Code::ResourceExhausted if answer.reason() == "BODY_TOO_LARGE" => 413,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
        _ => 500,
    };
    assert_eq!(status.as_u16(), expected, "{:?} {}", answer.code, answer.message);
    answer
}
