//! The server's side of the venue's protocol, pure: what a client's text changes, and what it is answered.
//!
//! Nothing acknowledges a subscription; data starts or stops. Only faults are answered, and the socket stays open.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;

use crate::stream::{self, StreamFault};

/// Most streams of one connection.
pub const STREAMS_MAX: usize = 1_024;
/// Text that is no JSON, or an unknown method.
pub const PARSE_ERROR: &str = r#"{"id":null,"error":{"code":4002,"message":"Parse error"}}"#;
/// A kind of stream that does not exist.
pub const INVALID_STREAM: &str = r#"{"id":null,"error":{"code":4006,"message":"Invalid stream"}}"#;
/// A depth window that does not exist.
pub const INVALID_DEPTH_WINDOW: &str = r#"{"id":null,"error":{"code":4008,"message":"Invalid depth window"}}"#;

/// What one connection listens to.
#[derive(Debug, Default)]
pub struct Subscriptions {
    streams: HashSet<String>,
}

#[derive(Deserialize)]
struct Request {
    method: Method,
    #[serde(default)]
    params: Vec<String>,
    // Tolerated and never echoed, as the venue does.
    #[serde(default, rename = "id")]
    _id: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    Subscribe,
    Unsubscribe,
}

impl Subscriptions {
    /// Whether this stream was asked for.
    #[must_use]
    pub fn contains(&self, stream: &str) -> bool {
        self.streams.contains(stream)
    }

    /// Whether nothing was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Takes a client's text; the answers are error frames, one for each fault.
    pub fn hear(&mut self, text: &str) -> Vec<&'static str> {
        let Ok(request) = serde_json::from_str::<Request>(text) else {
            return vec![PARSE_ERROR];
        };
        let mut answers = Vec::new();
        for name in request.params {
            match (&request.method, stream::kind(&name)) {
                (_, Err(StreamFault::Unknown)) => answers.push(INVALID_STREAM),
                (_, Err(StreamFault::DepthWindow)) => answers.push(INVALID_DEPTH_WINDOW),
                (Method::Subscribe, Ok(_)) if self.streams.len() < STREAMS_MAX => {
                    self.streams.insert(name);
                }
                // The venue publishes no cap and so no answer for one.
                (Method::Subscribe, Ok(_)) => answers.push(INVALID_STREAM),
                (Method::Unsubscribe, Ok(_)) => {
                    self.streams.remove(&name);
                }
            }
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_come_and_go_without_an_answer() {
        let mut subscriptions = Subscriptions::default();
        let none: Vec<&str> = Vec::new();
        assert_eq!(
            subscriptions.hear(r#"{"method":"SUBSCRIBE","params":["bookTicker.SOL_USDC","trade.SOL_USDC"]}"#),
            none
        );
        assert_eq!(
            subscriptions.hear(r#"{"method":"SUBSCRIBE","params":["depth.200ms.SOL_USDC"],"id":2}"#),
            none
        );
        assert!(subscriptions.contains("bookTicker.SOL_USDC") && subscriptions.contains("depth.200ms.SOL_USDC"));
        assert_eq!(
            subscriptions.hear(r#"{"method":"UNSUBSCRIBE","params":["bookTicker.SOL_USDC","bookTicker.NOPE"]}"#),
            none
        );
        assert!(!subscriptions.contains("bookTicker.SOL_USDC") && subscriptions.contains("trade.SOL_USDC"));
    }

    #[test]
    fn faults_are_answered_and_the_rest_of_the_request_still_counts() {
        let mut subscriptions = Subscriptions::default();
        let request =
            r#"{"method":"SUBSCRIBE","params":["nope.BTC_USDC_PERP","bookTicker.SOL_USDC","depth.100ms.SOL_USDC"]}"#;
        assert_eq!(subscriptions.hear(request), [INVALID_STREAM, INVALID_DEPTH_WINDOW]);
        assert!(subscriptions.contains("bookTicker.SOL_USDC"));
        for bad in [
            "hello",
            "{}",
            r#"{"method":"PING"}"#,
            r#"{"method":"SUBSCRIBE","params":"x"}"#,
            "[]",
            "",
        ] {
            assert_eq!(subscriptions.hear(bad), [PARSE_ERROR], "{bad}");
        }
    }

    #[test]
    fn one_connection_cannot_ask_without_end() {
        let mut subscriptions = Subscriptions::default();
        for number in 0..=STREAMS_MAX {
            let answers = subscriptions.hear(&format!(r#"{{"method":"SUBSCRIBE","params":["trade.S{number}"]}}"#));
            assert_eq!(answers.is_empty(), number < STREAMS_MAX);
        }
    }
}
