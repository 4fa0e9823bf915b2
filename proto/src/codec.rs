//! Messages to bytes and back; one that would unfold to too much is refused before it does.

use std::marker::PhantomData;

use prost::{Message, Name, bytes::Buf as _};
use tonic::{
    Status,
    codec::{BufferSettings, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

use crate::unfold::{MAX_UNFOLDED_BYTES, unfolded};

/// Thousands of streams are idle most of the time: they begin with little, and grow where there is much to say.
const BUFFER_BYTES: usize = 1024;
/// Before more messages are put into a frame, the frame goes.
const FRAME_BYTES: usize = 32 * 1024;

/// The codec of every service.
#[derive(Debug, Clone)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, FRAME_BYTES)
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Name + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Unfolding<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::new(buffers())
    }

    fn decoder(&mut self) -> Unfolding<U> {
        Unfolding(PhantomData)
    }
}

/// Decodes what does not take too much.
#[derive(Debug, Clone)]
pub struct Unfolding<U>(PhantomData<U>);

impl<U: Message + Default + Name> Decoder for Unfolding<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buf.copy_to_bytes(buf.remaining());
        if unfolded(&U::full_name(), &bytes) > MAX_UNFOLDED_BYTES {
            return Err(Status::out_of_range("a message that is small on the wire would take too much memory"));
        }
        U::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}
