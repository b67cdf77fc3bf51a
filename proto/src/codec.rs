//! Protobuf as tonic speaks it, with buffers of the size of our messages: tonic's own take 8 KiB a call in each direction.

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// Room for all but the largest requests and answers; a buffer grows when it must. Bytes.
const BUFFER_BYTES: usize = 1024;
/// How much of a stream is gathered before it is sent, as tonic does. Bytes.
const GATHERED_BYTES: usize = 32 * 1024;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Small<T, U>(std::marker::PhantomData<(T, U)>);

impl<T, U> Default for Small<T, U> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, GATHERED_BYTES)
}

impl<T, U> Codec for Small<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(settings())
    }
}
