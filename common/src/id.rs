//! Names that were checked once, at the edge.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Serialize};

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{noun} must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or digit")]
pub struct InvalidName {
    /// What it was meant to name.
    pub noun: &'static str,
}

/// True for 1 to 64 of `[A-Za-z0-9._-]`, the first a letter or digit: safe in URIs, paths, logs and shells.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                if is_name(text) { Ok(Self(text.to_owned())) } else { Err(InvalidName { noun: $noun }) }
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl<C> Encode<C> for $type {
            fn encode<W: encode::Write>(&self, to: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
                to.str(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $type {
            fn decode(from: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                let at = from.position();
                from.str()?.parse().map_err(|error: InvalidName| decode::Error::message(error).at(at))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// A machine that an agent watches.
    NodeId, "a node's name"
);
name!(
    /// A member of the coordinator's Raft group.
    ReplicaId, "a replica's id"
);
name!(
    /// A person with a certificate.
    UserName, "a user's name"
);
name!(
    /// A join token's public half.
    TokenId, "a token's id"
);
name!(
    /// A place where messages go.
    ReceiverName, "a receiver's name"
);
name!(
    /// A cluster for ever: random, the trust domain of its certificates.
    ClusterId, "a cluster's id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_everywhere() {
        for good in ["n1", "db-1.example", "A_b", &"x".repeat(64)] {
            assert!(good.parse::<NodeId>().is_ok(), "{good}");
        }
        for bad in ["", ".hidden", "-flag", "a/b", "a b", "n\u{e9}", "a\n", "..", &"x".repeat(65)] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad:?}");
        }
    }
}
