//! Join tokens as text: `MSJ1-<role>-<id>-<secret>-<pin>-<crc>`.
//!
//! The pin is the SHA-256 of the cluster CA's public key: whoever redeems a token knows the coordinator before the
//! secret leaves the machine. The checksum tells a truncated paste from a wrong token.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};

use crate::TokenId;

/// Bytes of a secret: 128 random bits.
pub const SECRET_BYTES: usize = 16;

/// Random bytes that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; SECRET_BYTES]);

impl Secret {
    /// What a coordinator keeps in place of the secret.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A join token in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// What its holder becomes: `agent`.
    pub role: String,
    /// Its public half.
    pub id: TokenId,
    /// Its secret half.
    pub secret: Secret,
    /// SHA-256 of the cluster CA's SubjectPublicKeyInfo, DER.
    pub ca_pin: [u8; 32],
}

/// Why a text is no join token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It does not begin with `MSJ1-` or lacks parts.
    #[error("it is not of the form MSJ1-ROLE-ID-SECRET-PIN-CHECKSUM")]
    Form,
    /// Something is missing or was changed.
    #[error("its checksum does not fit: it was cut short or changed on the way")]
    Checksum,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = format!(
            "MSJ1-{}-{}-{}-{}",
            self.role,
            self.id,
            BASE32_NOPAD.encode(&self.secret.0),
            BASE32_NOPAD.encode(&self.ca_pin)
        );
        write!(f, "{body}-{:08x}", crc32fast::hash(body.as_bytes()))
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        if !text.starts_with("MSJ1-") {
            return Err(InvalidToken::Form);
        }
        let (body, checksum) = text.rsplit_once('-').ok_or(InvalidToken::Form)?;
        if u32::from_str_radix(checksum, 16) != Ok(crc32fast::hash(body.as_bytes())) {
            return Err(InvalidToken::Checksum);
        }
        let parts: Vec<&str> = body.split('-').collect();
        let [_, role, id, secret, pin] = parts[..] else { return Err(InvalidToken::Form) };
        Ok(Self {
            role: role.to_owned(),
            id: id.parse().map_err(|_| InvalidToken::Form)?,
            secret: Secret(decode(secret)?),
            ca_pin: decode(pin)?,
        })
    }
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], InvalidToken> {
    BASE32_NOPAD.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(InvalidToken::Form)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken { role: "agent".into(), id: "k3x9".parse().unwrap(), secret: Secret([7; 16]), ca_pin: [9; 32] }
    }

    #[test]
    fn a_token_reads_back_also_with_a_newline() {
        assert_eq!(format!("{}\n", token()).parse(), Ok(token()));
        assert!(!format!("{:?}", token()).contains('7'));
    }

    #[test]
    fn a_cut_or_changed_token_says_so() {
        let text = token().to_string();
        for end in 6..text.len() {
            assert!(text[..end].parse::<JoinToken>().is_err(), "{end}");
        }
        assert_eq!(text.replace("agent", "admin").parse::<JoinToken>(), Err(InvalidToken::Checksum));
        assert_eq!("hello".parse::<JoinToken>(), Err(InvalidToken::Form));
    }
}
