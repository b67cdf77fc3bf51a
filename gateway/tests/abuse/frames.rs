//! HTTP/2 written frame by frame, because a library would not misbehave.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::neighbour::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const WINDOW: u32 = 0x3fff_0000;

/// What the server sent.
#[derive(Debug, Default)]
pub struct Seen {
    /// Streams whose headers came, and how many.
    pub streams: BTreeSet<u32>,
    pub answered: u64,
    /// Streams that ended with their headers or data.
    pub ended: u64,
    /// Streams that it reset, by code.
    pub resets: BTreeMap<u32, u64>,
    /// Why it wants no more streams.
    pub goaway: Option<u32>,
    /// gRPC messages, by stream.
    pub messages: BTreeMap<u32, u32>,
    /// Pings that it answered.
    pub pongs: u64,
    /// Whether it has closed the connection.
    pub closed: bool,
}

/// A connection.
pub struct Raw {
    write: Arc<Mutex<OwnedWriteHalf>>,
    seen: watch::Receiver<Seen>,
    _reading: AbortOnDropHandle<()>,
}

impl Raw {
    /// One that reads all, answers settings and pings, and opens its windows wide.
    pub async fn open(server: SocketAddr) -> Self {
        Self::start(server, true).await
    }

    /// One that reads all and answers nothing.
    pub async fn mute(server: SocketAddr) -> Self {
        Self::start(server, false).await
    }

    async fn start(server: SocketAddr, answers: bool) -> Self {
        let stream = TcpStream::connect(server).await.expect("a connection is accepted");
        let (read, write) = stream.into_split();
        let write = Arc::new(Mutex::new(write));
        let (told, seen) = watch::channel(Seen::default());
        let reading = tokio::spawn(follow(read, answers.then(|| Arc::clone(&write)), told));
        let raw = Self {
            write,
            seen,
            _reading: AbortOnDropHandle::new(reading),
        };
        let mut hello = BytesMut::from(PREFACE);
        let mut settings = BytesMut::new();
        // SETTINGS_INITIAL_WINDOW_SIZE.
        settings.put_u16(4);
        settings.put_u32(WINDOW);
        put(&mut hello, SETTINGS, 0, 0, &settings);
        put(&mut hello, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        raw.write(&hello).await.expect("the server is there");
        raw
    }

    /// Writes, if the server still reads.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.write.lock().await.write_all(bytes).await
    }

    /// What came up to now.
    pub fn seen(&self) -> watch::Ref<'_, Seen> {
        self.seen.borrow()
    }

    /// Waits until something has come.
    pub async fn until(&self, what: impl Fn(&Seen) -> bool) {
        let mut seen = self.seen.clone();
        let waiting = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| what(seen)));
        if waiting.await.is_err() {
            panic!("it did not come: {:?}", self.seen());
        }
    }
}

async fn follow(mut read: OwnedReadHalf, write: Option<Arc<Mutex<OwnedWriteHalf>>>, told: watch::Sender<Seen>) {
    let mut pending: BTreeMap<u32, BytesMut> = BTreeMap::new();
    let mut bytes = BytesMut::with_capacity(16 << 10);
    while matches!(read.read_buf(&mut bytes).await, Ok(1..)) {
        let mut answers = BytesMut::new();
        told.send_modify(|seen| {
            while let Some(length) = bytes
                .first_chunk()
                .map(|&[a, b, c]| u32::from_be_bytes([0, a, b, c]) as usize)
            {
                if bytes.len() < 9 + length {
                    break;
                }
                bytes.advance(3);
                let (kind, flags, stream) = (bytes.get_u8(), bytes.get_u8(), bytes.get_u32());
                let payload = bytes.split_to(length);
                let ended = flags & END_STREAM != 0;
                match kind {
                    DATA => {
                        let whole = pending.entry(stream).or_default();
                        whole.extend_from_slice(&payload);
                        while let Some(length) = message(whole) {
                            whole.advance(length);
                            *seen.messages.entry(stream).or_default() += 1;
                        }
                        if whole.is_empty() {
                            pending.remove(&stream);
                        }
                        seen.ended += u64::from(ended);
                    }
                    HEADERS => {
                        seen.answered += u64::from(seen.streams.insert(stream));
                        seen.ended += u64::from(ended);
                    }
                    RST_STREAM => *seen.resets.entry((&payload[..]).get_u32()).or_default() += 1,
                    GOAWAY => seen.goaway = Some((&payload[4..]).get_u32()),
                    SETTINGS if flags & ACK == 0 => put(&mut answers, SETTINGS, ACK, 0, &[]),
                    PING if flags & ACK == 0 => put(&mut answers, PING, ACK, 0, &payload),
                    PING => seen.pongs += 1,
                    _ => {}
                }
            }
        });
        if let Some(write) = &write {
            // Whether it is still read shows at the next read.
            let _sent = write.lock().await.write_all(&answers).await;
        }
    }
    told.send_modify(|seen| seen.closed = true);
}

/// How long the gRPC message at the front is, if it is whole.
fn message(bytes: &[u8]) -> Option<usize> {
    let length = 5 + u32::from_be_bytes(*bytes.get(1..)?.first_chunk()?) as usize;
    (bytes.len() >= length).then_some(length)
}

/// Appends a frame.
pub fn put(out: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
    out.put_slice(payload);
}

/// A header block in its plainest form: nothing indexed, nothing compressed.
pub fn block(headers: &[(&str, &str)]) -> BytesMut {
    let mut out = BytesMut::new();
    for (name, value) in headers {
        out.put_u8(0);
        for text in [name, value] {
            put_length(&mut out, text.len());
            out.put_slice(text.as_bytes());
        }
    }
    out
}

/// A length as HPACK has it, in front of text that is not compressed.
pub fn put_length(out: &mut BytesMut, length: usize) {
    let mut rest = match length.checked_sub(127) {
        None => return out.put_u8(u8::try_from(length).unwrap()),
        Some(rest) => rest,
    };
    out.put_u8(127);
    while rest >= 128 {
        out.put_u8(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    out.put_u8(u8::try_from(rest).unwrap());
}

/// The headers of a gRPC call.
pub fn grpc(method: &str, authorization: &str) -> BytesMut {
    let path = format!("/fulcrum.v1.{method}");
    grpc_to(&path, authorization)
}

/// The same of a method by its whole path.
pub fn grpc_to(path: &str, authorization: &str) -> BytesMut {
    block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", authorization),
    ])
}
