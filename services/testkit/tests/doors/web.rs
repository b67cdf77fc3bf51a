//! grpc-web as it is on the wire, and messages as the bytes they are.

use std::str::FromStr as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, BufMut as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost_reflect::MethodDescriptor;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

use super::contract::from_bytes;
use super::{Answer, Door};

/// Takes the frames of grpc-web apart as they come.
pub(super) struct WebReader {
    text: bool,
    encoded: Vec<u8>,
    held: Vec<u8>,
    pub(super) messages: std::collections::VecDeque<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
}

impl WebReader {
    pub(super) fn new(headers: &HeaderMap, door: Door) -> Self {
        // An error without a message may say it all in the headers.
        let trailers = headers.contains_key("grpc-status").then(|| headers.clone());
        let text = door == Door::GrpcWebText;
        Self {
            text,
            encoded: Vec::new(),
            held: Vec::new(),
            messages: std::collections::VecDeque::new(),
            trailers,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.text {
            self.encoded.extend(bytes);
            // Each piece is padded by itself, so padding may stand anywhere.
            let whole = self.encoded.len() / 4 * 4;
            for quantum in self.encoded.drain(..whole).collect::<Vec<_>>().chunks(4) {
                self.held.extend(BASE64_STANDARD.decode(quantum).expect("base64"));
            }
        } else {
            self.held.extend(bytes);
        }
        while self.held.len() >= 5 {
            let length = (&self.held[1..5]).get_u32() as usize;
            if self.held.len() < 5 + length {
                return;
            }
            let frame: Vec<u8> = self.held.drain(..5 + length).collect();
            if frame[0] & 0x80 == 0 {
                self.messages.push_back(Bytes::from(frame).slice(5..));
            } else {
                self.trailers = Some(trailers(&frame[5..]));
            }
        }
    }
}

fn trailers(text: &[u8]) -> HeaderMap {
    let text = std::str::from_utf8(text).expect("text");
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').expect("a name and a value");
            let name = HeaderName::from_str(&name.to_ascii_lowercase()).expect("a name");
            (name, value.trim().parse::<HeaderValue>().expect("a value"))
        })
        .collect()
}

/// The answer to a call that is no stream.
pub(super) fn web_answer(method: &MethodDescriptor, mut reader: WebReader) -> Answer {
    let trailers = reader.trailers.take().expect("trailers");
    let status = Status::from_header_map(&trailers).expect("a status");
    match (status.code(), reader.messages.pop_front()) {
        (Code::Ok, Some(bytes)) => Answer::ok(from_bytes(&method.output(), &bytes)),
        (Code::Ok, None) => panic!("{} answers OK and says nothing", method.name()),
        _ => Answer::failed(&status),
    }
}

/// Messages as the bytes they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
