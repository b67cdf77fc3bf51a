//! A tonic codec for messages whose type is known at run time only.

use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Room for all but the largest messages; a buffer grows when it must. tonic's own take 8 KiB a call in each direction. Bytes.
const BUFFER_BYTES: usize = 1024;
/// How much of a stream is gathered before it is passed on, as tonic does. Bytes.
const GATHERED_BYTES: usize = 32 * 1024;

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, GATHERED_BYTES)
}

/// Encodes any [`DynamicMessage`] and decodes messages of one type.
///
/// With the response type it calls a method through `tonic::client::Grpc`; with the request type it serves one
/// through `tonic::server::Grpc`.
#[derive(Clone, Debug)]
pub struct DynamicCodec {
    decodes: MessageDescriptor,
}

impl DynamicCodec {
    /// A codec that decodes messages of this type.
    pub fn new(decodes: MessageDescriptor) -> Self {
        Self { decodes }
    }
}

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicEncoder;
    type Decoder = DynamicDecoder;

    fn encoder(&mut self) -> DynamicEncoder {
        DynamicEncoder
    }

    fn decoder(&mut self) -> DynamicDecoder {
        DynamicDecoder {
            decodes: self.decodes.clone(),
        }
    }
}

/// The encoding half of a [`DynamicCodec`].
#[derive(Clone, Copy, Debug)]
pub struct DynamicEncoder;

impl Encoder for DynamicEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|cause| Status::internal(cause.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}

/// The decoding half of a [`DynamicCodec`].
#[derive(Clone, Debug)]
pub struct DynamicDecoder {
    decodes: MessageDescriptor,
}

impl Decoder for DynamicDecoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.decodes.clone(), buffer);
        message
            .map(Some)
            .map_err(|cause| Status::internal(format!("the answer cannot be decoded: {cause}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}
