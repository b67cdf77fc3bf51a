//! The REST door: what it lets in becomes a call to the room, what it refuses by itself is counted and said in our words.
//!
//! It has no handlers: the transcoder calls the room as the annotations of the contract say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use contracts::DESCRIPTOR_SET;
use http::header::ALLOW;
use http::{HeaderName, Request, Response};
use http_body::Body as _;
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;
use transcode::{HeaderField, MatchedBinding, Options, Refusal, Services, StreamOptions, Transcoder};

use crate::GatewayError;
use crate::config::Config;
use crate::failure::{self, Failure};
use crate::gates::Came;
use crate::inner::{Inner, settled};
use crate::limits::{Crowds, Limiter, Peer};
use crate::methods;
use crate::metrics::Metrics;
use crate::pages::Pages;
use crate::server::{Front, MESSAGE_BYTES_MAX};
use crate::trace::Door;

/// Deepest JSON.
const JSON_DEPTH_MAX: usize = 16;
/// How long after the longest deadline a call is given up: the room answers before.
const GRACE: Duration = Duration::from_secs(1);

/// The door.
pub(crate) struct Rest {
    inside: Inner,
    transcoder: Transcoder,
    pages: Pages,
    crowds: Crowds,
    addresses: Arc<Limiter<Peer>>,
    metrics: Arc<Metrics>,
    /// Longest that a call may take until its headers go out.
    longest: Duration,
}

impl Rest {
    /// A door to what is inside.
    pub fn new(config: &Config, front: &Front, inside: Inner) -> Result<Self, GatewayError> {
        let transcoder = transcoder()?;
        Ok(Self {
            inside,
            pages: Pages::new(&transcoder, config.reflection),
            transcoder,
            crowds: front.crowds.clone(),
            addresses: Arc::clone(&front.addresses),
            metrics: Arc::clone(&front.metrics),
            longest: config.deadlines.max + GRACE,
        })
    }

    /// Answers a request.
    pub async fn answer(&self, mut request: Request<Body>) -> Response<Body> {
        let (method, path) = (request.method(), request.uri().path());
        if let Some(alive) = Pages::alive(method, path) {
            return alive;
        }
        let started = Instant::now();
        let Some(came) = request.extensions_mut().get_mut::<Came>() else {
            return self.refuse(
                Failure::Internal("a request came through no door".to_owned()),
                "",
                started,
            );
        };
        let id = came.id.clone();
        let id = id.to_str().unwrap_or_default();
        // Here and not in the room, because what is refused here never gets there, and reading it costs something.
        if let Some(peer) = came.peer {
            match self.addresses.charge(&peer, None, &mut None) {
                Ok(counted) => came.counted = Some(counted),
                Err(failure) => {
                    let mut response = self.refuse(failure, id, started);
                    self.addresses.show(response.headers_mut(), None);
                    return response;
                }
            }
        }
        let (peer, counted) = (came.peer, came.counted);
        let mut response = match self.pages.page(request.method(), request.uri().path()) {
            Some(page) => return page,
            None => match self.call(peer, request).await {
                Ok(response) => self.in_our_words(response, id, started),
                Err(failure) => self.refuse(failure, id, started),
            },
        };
        if counted.is_some() {
            self.addresses.show(response.headers_mut(), counted);
        }
        response
    }

    /// Calls the room, or says what went wrong outside of it.
    async fn call(&self, peer: Option<Peer>, request: Request<Body>) -> Result<Response<Body>, Failure> {
        // The body is read out here, in front of the room and its deadline: a slow one must not stay for ever.
        let request = self.crowds.reading(peer, request)?;
        let call = self.transcoder.clone().into_service(self.inside.clone()).call(request);
        let answer = tokio::time::timeout(self.longest, call).await;
        answer.map(settled).map_err(|_| Failure::Expired)
    }

    /// Says what was not even looked at.
    fn refuse(&self, failure: Failure, request_id: &str, started: Instant) -> Response<Body> {
        let status = Status::from(failure);
        self.metrics
            .call_ended(None, Door::Rest, status.code(), started.elapsed(), None);
        self.transcoder.error_response(failure::named(&status, request_id, ""))
    }

    /// What the transcoder refused by itself says what every other error says: a reason of the contract, and which request it was.
    fn in_our_words(&self, response: Response<Body>, request_id: &str, started: Instant) -> Response<Body> {
        let Some(refusal) = response.extensions().get::<Refusal>() else {
            // The room has answered, and counted it.
            return response;
        };
        let status = failure::of_rest(refusal);
        let method = response.extensions().get::<MatchedBinding>();
        let method = method.and_then(|it| methods::find(&it.grpc_path));
        self.metrics
            .call_ended(method, Door::Rest, status.code(), started.elapsed(), None);
        let mut worded = self.transcoder.error_response(failure::named(&status, request_id, ""));
        *worded.status_mut() = response.status();
        // To a HEAD.
        if response.body().is_end_stream() {
            *worded.body_mut() = Body::empty();
        }
        if let Some(allow) = response.headers().get(ALLOW) {
            worded.headers_mut().insert(ALLOW, allow.clone());
        }
        worded
    }
}

/// REST, as the annotations of the contract say.
fn transcoder() -> Result<Transcoder, GatewayError> {
    let mut options = Options {
        error_domain: contracts::ERROR_DOMAIN.to_owned(),
        ..Options::default()
    };
    options.limits.body_bytes_max = MESSAGE_BYTES_MAX;
    options.limits.json_depth_max = JSON_DEPTH_MAX;
    options.headers.fields.push(HeaderField {
        header: HeaderName::from_static("idempotency-key"),
        field: "request_id".to_owned(),
    });
    options.streams = StreamOptions {
        // Long enough for a snapshot or a refusal, short enough for a page that waits for its stream to open.
        first_message_wait: Duration::from_secs(1),
        event_id_field: Some("sequence".to_owned()),
        resume_field: Some("resume_after_sequence".to_owned()),
        ..StreamOptions::default()
    };
    Transcoder::decode(DESCRIPTOR_SET, Services::only(methods::services()), options)
        .map_err(|cause| GatewayError::Config(format!("REST bindings: {cause}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_bindings_of_the_contract_are_sound() {
        let bindings = transcoder().unwrap();
        assert!(bindings.bindings().len() >= 19, "{bindings:?}");
    }
}
