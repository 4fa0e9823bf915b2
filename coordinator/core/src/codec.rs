//! How entries and rows are written: CBOR with field numbers, so that what was written once can be read for ever.

use minicbor::{Decode, Encode};

/// Why bytes could not be read. Whoever holds the log adds which entry it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// Whole, but of a kind that is not known here: a newer version wrote it.
    #[error("a newer version of Mainstay wrote it: {0}")]
    Newer(String),
    /// No version ever wrote this.
    #[error("it is damaged: {0}")]
    Garbage(String),
}

/// The bytes of a value.
///
/// # Panics
/// Never: writing to memory does not fail, and no value of ours refuses to be written.
#[must_use]
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("memory takes everything")
}

/// The value of these bytes, all of them.
///
/// # Errors
/// [`Undecodable`] tells a kind from the future apart from garbage.
pub fn decode<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, Undecodable> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|error| {
        let words = error.to_string();
        if error.is_unknown_variant() { Undecodable::Newer(words) } else { Undecodable::Garbage(words) }
    })?;
    match bytes.len() - decoder.position() {
        0 => Ok(value),
        more => Err(Undecodable::Garbage(format!("{more} bytes too many"))),
    }
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): tells values apart where nobody wants them to collide, the same in every
/// version.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Spans of time as whole milliseconds: `#[cbor(with = "crate::codec::span")]`.
pub(crate) mod span {
    use std::time::Duration;

    use minicbor::{Decoder, Encoder, decode::Error, encode as to_bytes};

    pub(crate) fn encode<C, W: to_bytes::Write>(
        span: &Duration,
        to: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), to_bytes::Error<W::Error>> {
        to.u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))?.ok()
    }

    pub(crate) fn decode<C>(from: &mut Decoder<'_>, _: &mut C) -> Result<Duration, Error> {
        from.u64().map(Duration::from_millis)
    }
}

/// The same where there may be none.
pub(crate) mod maybe_span {
    use std::time::Duration;

    use minicbor::{Decoder, Encoder, data::Type, decode::Error, encode as to_bytes};

    pub(crate) fn encode<C, W: to_bytes::Write>(
        span: &Option<Duration>,
        to: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), to_bytes::Error<W::Error>> {
        match span {
            Some(span) => super::span::encode(span, to, context),
            None => to.null()?.ok(),
        }
    }

    pub(crate) fn decode<C>(from: &mut Decoder<'_>, context: &mut C) -> Result<Option<Duration>, Error> {
        if from.datatype()? == Type::Null {
            from.null()?;
            return Ok(None);
        }
        super::span::decode(from, context).map(Some)
    }

    pub(crate) fn nil() -> Option<Option<Duration>> {
        Some(None)
    }

    pub(crate) fn is_nil(span: &Option<Duration>) -> bool {
        span.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    enum Today {
        #[n(0)]
        A(#[n(0)] u8),
    }

    #[derive(Debug, PartialEq, Encode, Decode)]
    enum Tomorrow {
        #[n(0)]
        A(#[n(0)] u8, #[n(1)] Option<u8>),
        #[n(1)]
        B(#[n(0)] u8),
    }

    #[test]
    fn a_kind_of_tomorrow_is_told_apart_from_garbage() {
        assert!(matches!(decode::<Today>(&encode(&Tomorrow::B(1))), Err(Undecodable::Newer(_))));
        for garbage in [&b""[..], b"\xff", b"\x82\x00", b"hello"] {
            assert!(matches!(decode::<Today>(garbage), Err(Undecodable::Garbage(_))), "{garbage:?}");
        }
        let mut longer = encode(&Today::A(1));
        longer.push(0);
        assert_eq!(decode::<Today>(&longer), Err(Undecodable::Garbage("1 bytes too many".into())));
    }

    #[test]
    fn a_digest_is_that_of_the_draft() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_field_may_be_added() {
        assert_eq!(decode::<Tomorrow>(&encode(&Today::A(3))), Ok(Tomorrow::A(3, None)));
        assert_eq!(decode::<Today>(&encode(&Tomorrow::A(3, Some(4)))), Ok(Today::A(3)));
    }
}
