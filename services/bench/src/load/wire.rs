//! One HTTP/2 connection, shared by the callers on it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::net::TcpStream;

use super::door::{Answer, Call, Door, End, Letterhead};

/// How much the server may send before it is told that there is room for more. Bytes.
const WINDOW: u32 = 16 * 1024 * 1024;
/// How long a call may take before it counts as lost: longer than any deadline of the server.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);

/// A way to make calls. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    send: SendRequest<Bytes>,
    letterhead: Letterhead,
}

impl Wire {
    pub(super) async fn connect(address: SocketAddr, door: Door, token: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("nobody answers at {address}"))?;
        stream.set_nodelay(true).context("the socket")?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .enable_push(false)
            .handshake(stream)
            .await
            .context("HTTP/2")?;
        // Ends with the last clone of `send`; what ends it early is told to each call on it.
        tokio::task::spawn_local(async move {
            let _told_elsewhere = connection.await;
        });
        Ok(Self {
            send,
            letterhead: Letterhead::new(door, &address.to_string(), token),
        })
    }

    /// Makes a call; nothing when there is no answer.
    pub(super) async fn call(&mut self, call: &Call, wants_trade: bool) -> Option<Answer> {
        match tokio::time::timeout(ANSWER_WITHIN, self.answer(call, wants_trade)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) if error.reason() == Some(h2::Reason::REFUSED_STREAM) => Some(Answer {
                end: End::Refused,
                opened: None,
            }),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    async fn answer(&mut self, call: &Call, wants_trade: bool) -> Result<Answer, h2::Error> {
        let (request, body) = self.letterhead.write(call);
        std::future::poll_fn(|context| self.send.poll_ready(context)).await?;
        let (answer, mut stream) = self.send.send_request(request, body.is_none())?;
        if let Some(body) = body {
            stream.send_data(body, true)?;
        }
        let (head, mut stream) = answer.await?.into_parts();
        let mut body = Body::default();
        while let Some(chunk) = stream.data().await {
            let chunk = chunk?;
            stream.flow_control().release_capacity(chunk.len())?;
            body.add(chunk);
        }
        let trailers = stream.trailers().await?;
        Ok(self
            .letterhead
            .read(head.status, &head.headers, body.bytes(), trailers.as_ref(), wants_trade))
    }
}

/// A body: nearly always one chunk, which is not copied.
#[derive(Debug, Default)]
struct Body {
    first: Bytes,
    all: BytesMut,
}

impl Body {
    fn add(&mut self, chunk: Bytes) {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = chunk;
        } else {
            if self.all.is_empty() {
                self.all.extend_from_slice(&self.first);
            }
            self.all.extend_from_slice(&chunk);
        }
    }

    fn bytes(&self) -> &[u8] {
        if self.all.is_empty() { &self.first } else { &self.all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_make_one_body() {
        let mut body = Body::default();
        assert_eq!(body.bytes(), b"");
        body.add(Bytes::from_static(b"a"));
        assert_eq!(body.bytes(), b"a");
        body.add(Bytes::from_static(b"bc"));
        assert_eq!(body.bytes(), b"abc");
    }
}
