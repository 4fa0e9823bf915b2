//! The text by which a receiver recognises what it has already.

use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};

/// Bytes of the longest key. Receivers keep it in columns of this size, and servers refuse headers of some KiB, while a
/// mount path may have 4095 bytes.
const MAX: usize = 255;

/// A delivery's id as it stands in the header `Idempotency-Key`, and in `id` of the body.
///
/// Ids contain paths, so any byte. What is not printable ASCII becomes `\xNN`, and so does a blank at either end, which
/// a header would lose; an id that is written so already stays as it is. A key that would be longer than 255 bytes is
/// cut, and ends with `~` and the SHA-256 of the whole. Receivers compare it whole; it is not meant to be decoded.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key of a delivery. The same id gives the same key, on every replica and in every version.
    #[must_use]
    pub fn of(id: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        let id = id.as_ref();
        let blank = |at: usize| id[at] == b' ' && (at == 0 || at == id.len() - 1);
        let mut whole = String::with_capacity(id.len());
        for (at, byte) in id.iter().enumerate() {
            match byte {
                b' '..=b'~' if !blank(at) => whole.push(char::from(*byte)),
                // Writing to a String cannot fail.
                _ => write!(whole, "\\x{byte:02x}").unwrap_or(()),
            }
        }
        if whole.len() > MAX {
            let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(whole.as_bytes()));
            whole.truncate(MAX - 1 - digest.len());
            whole = format!("{whole}~{digest}");
        }
        Self(whole)
    }

    /// Printable ASCII, at most 255 characters, no blank at either end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdempotencyKey({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_that_is_header_safe_stays_as_it_is() {
        for id in [
            "fs.space/node-7//var/lib@2026-08-22T10:00:00.000Z#fired",
            "fs.space/n1//mnt/a b\\xc3\\xa9, 100%@2026-08-22T10:00:00.000Z#resolved",
            "test/ops@2026-08-22T10:00:00.000Z#fired",
        ] {
            assert_eq!(IdempotencyKey::of(id).as_str(), id);
        }
    }

    #[test]
    fn everything_else_is_escaped() {
        for (id, key) in [
            (&b"/mnt/\xff\xfe"[..], "/mnt/\\xff\\xfe"),
            ("/mnt/日".as_bytes(), "/mnt/\\xe6\\x97\\xa5"),
            (b"a\r\nX-Evil: 1", "a\\x0d\\x0aX-Evil: 1"),
            (b" a b ", "\\x20a b\\x20"),
            (b" ", "\\x20"),
            (b"\x7f\x00", "\\x7f\\x00"),
            (b"", ""),
        ] {
            assert_eq!(IdempotencyKey::of(id).as_str(), key);
        }
    }

    #[test]
    fn long_ids_become_short_and_stay_different() {
        let (a, b) = ("x".repeat(4_000) + "a", "x".repeat(4_000) + "b");
        let (a, b) = (IdempotencyKey::of(&a), IdempotencyKey::of(&b));
        assert_eq!(a.as_str().len(), MAX);
        assert_ne!(a, b);
        assert_eq!(IdempotencyKey::of(&"x".repeat(MAX)).as_str(), "x".repeat(MAX));
    }

    proptest! {
        #[test]
        fn every_key_arrives_as_it_is(id in proptest::collection::vec(any::<u8>(), 0..300)) {
            let key = IdempotencyKey::of(&id);
            let key = key.as_str();
            prop_assert!(key.len() <= MAX);
            prop_assert!(key.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(key.trim(), key);
            prop_assert!(http::HeaderValue::from_str(key).is_ok());
            prop_assert!(IdempotencyKey::of(key).as_str() == key);
        }

        #[test]
        fn different_paths_have_different_keys(a in "[/ax5c é\u{1}]{0,6}", b in "[/ax5c é\u{1}]{0,6}") {
            prop_assert_eq!(a == b, IdempotencyKey::of(&a) == IdempotencyKey::of(&b));
        }
    }
}
