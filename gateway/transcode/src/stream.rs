//! A server stream as an HTTP body: newline-delimited JSON, server-sent events, a JSON array, or the raw chunks of
//! `google.api.HttpBody`.
//!
//! Each message leaves as one frame as soon as it is there. A failure after the first frame cannot change the status
//! any more, so it becomes the last element: `{"error": <google.rpc.Status>}`. Raw chunks have no place for that; there
//! the body breaks off, which a client sees as a transfer that did not end. Dropping the body drops the call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http_body::Frame;
use prost_reflect::DynamicMessage;
use tokio::time::{Instant, Sleep};
use tonic::{Status, Streaming};

use crate::deadline::Deadline;
use crate::field;
use crate::options::StreamFormat;
use crate::response;
use crate::rule::Binding;
use crate::service::Shared;

/// How the messages of a stream are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Json(StreamFormat),
    /// The data of each `google.api.HttpBody`, one after another.
    Raw,
}

/// The body of a streamed answer.
pub(crate) struct StreamBody {
    shared: Arc<Shared>,
    /// Which of the router's bindings it answers.
    binding: usize,
    framing: Framing,
    /// What was read ahead to learn the HTTP status.
    first: Option<DynamicMessage>,
    /// `None` once the last frame is out.
    messages: Option<Streaming<DynamicMessage>>,
    elements: u64,
    keep_alive: Duration,
    silence: Pin<Box<Sleep>>,
    deadline: Option<Deadline>,
    give_up: Option<Pin<Box<Sleep>>>,
}

impl StreamBody {
    pub fn new(
        shared: Arc<Shared>,
        binding: usize,
        framing: Framing,
        first: Option<DynamicMessage>,
        messages: Streaming<DynamicMessage>,
        deadline: Option<Deadline>,
    ) -> Self {
        let keep_alive = shared.options.streams.keep_alive;
        let give_up = deadline.as_ref().and_then(Deadline::give_up_at);
        Self {
            shared,
            binding,
            framing,
            first,
            messages: Some(messages),
            elements: 0,
            keep_alive,
            silence: Box::pin(tokio::time::sleep(keep_alive)),
            deadline,
            give_up: give_up.map(|at| Box::pin(tokio::time::sleep_until(at))),
        }
    }

    /// The next message, or how the stream ended.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<DynamicMessage, Status>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(messages) = &mut self.messages else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(message) = Pin::new(messages).poll_next(context) {
            let corrected = |status| match &self.deadline {
                Some(deadline) => deadline.correct(status),
                None => status,
            };
            return Poll::Ready(message.map(|message| message.map_err(corrected)));
        }
        if let Some(give_up) = &mut self.give_up {
            ready!(give_up.as_mut().poll(context));
            return Poll::Ready(Some(Err(Status::deadline_exceeded(
                "the deadline passed before the stream ended",
            ))));
        }
        Poll::Pending
    }

    fn element(&mut self, message: &DynamicMessage) -> Result<Bytes, Status> {
        let mut out = Vec::with_capacity(256);
        match self.framing {
            Framing::Raw => return Ok(response::http_body(self.binding(), message).1),
            Framing::Json(StreamFormat::NdJson) => {
                self.write(message, &mut out)?;
                out.push(b'\n');
            }
            Framing::Json(StreamFormat::Events) => {
                let id = self
                    .binding()
                    .event_id
                    .as_ref()
                    .and_then(|path| field::to_text(path.get(message)?.as_ref()));
                // A line break would end the field, and a NUL makes browsers drop the whole id.
                if let Some(id) = id.filter(|id| !id.contains(['\r', '\n', '\0'])) {
                    out.extend_from_slice(format!("id: {id}\n").as_bytes());
                }
                out.extend_from_slice(b"data: ");
                self.write(message, &mut out)?;
                out.extend_from_slice(b"\n\n");
            }
            Framing::Json(StreamFormat::Array) => {
                out.extend_from_slice(self.separator());
                self.write(message, &mut out)?;
            }
        }
        self.elements += 1;
        Ok(out.into())
    }

    fn write(&self, message: &DynamicMessage, out: &mut Vec<u8>) -> Result<(), Status> {
        response::write(self.binding(), message, &self.shared.json, out)
    }

    fn binding(&self) -> &Binding {
        &self.shared.router.bindings()[self.binding]
    }

    fn separator(&self) -> &'static [u8] {
        if self.elements == 0 { b"[" } else { b",\n" }
    }

    /// The last frame of a stream that ended well, if its framing has one.
    fn end(&self) -> Option<Bytes> {
        match self.framing {
            Framing::Json(StreamFormat::Array) if self.elements == 0 => Some(Bytes::from_static(b"[]\n")),
            Framing::Json(StreamFormat::Array) => Some(Bytes::from_static(b"]\n")),
            _ => None,
        }
    }

    /// The last frame of a stream that failed.
    fn failed(&self, status: Status) -> Result<Bytes, Status> {
        let error = serde_json::json!({"error": self.shared.statuses.json(&status)});
        match self.framing {
            Framing::Raw => Err(status),
            Framing::Json(StreamFormat::NdJson) => Ok(format!("{error}\n").into()),
            Framing::Json(StreamFormat::Events) => Ok(format!("event: error\ndata: {error}\n\n").into()),
            Framing::Json(StreamFormat::Array) => {
                let mut out = self.separator().to_vec();
                out.extend_from_slice(error.to_string().as_bytes());
                out.extend_from_slice(b"]\n");
                Ok(out.into())
            }
        }
    }

    fn close(&mut self) {
        self.messages = None;
        self.give_up = None;
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.messages.is_none() {
            return Poll::Ready(None);
        }
        let frame = match this.poll_message(context) {
            Poll::Ready(Some(Ok(message))) => match this.element(&message) {
                Ok(bytes) => Some(Ok(bytes)),
                Err(status) => {
                    let last = this.failed(status);
                    this.close();
                    Some(last)
                }
            },
            Poll::Ready(Some(Err(status))) => {
                let last = this.failed(status);
                this.close();
                Some(last)
            }
            Poll::Ready(None) => {
                let last = this.end();
                this.close();
                last.map(Ok)
            }
            Poll::Pending if this.framing == Framing::Json(StreamFormat::Events) => {
                ready!(this.silence.as_mut().poll(context));
                Some(Ok(Bytes::from_static(b": keep-alive\n\n")))
            }
            Poll::Pending => return Poll::Pending,
        };
        if this.framing == Framing::Json(StreamFormat::Events) && this.messages.is_some() {
            this.silence.as_mut().reset(Instant::now() + this.keep_alive);
        }
        Poll::Ready(frame.map(|it| it.map(Frame::data)))
    }
}
