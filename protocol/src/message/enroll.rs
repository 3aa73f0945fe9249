//! A machine joins.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::digest::Digest;
use crate::ids::TokenId;

use super::control::Fact;

/// From the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// With a one-time token.
    Enroll(Box<Enroll>),
    /// With the old key, after the certificate has expired. A later version answers it.
    Reenroll {
        /// DER of a PKCS#10 request, made with the old key.
        #[serde(with = "serde_bytes")]
        request: Vec<u8>,
    },
}

/// What an agent shows to join.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enroll {
    /// The token's public part.
    pub token: TokenId,
    /// The token's secret part.
    #[serde(with = "serde_bytes")]
    pub secret: Vec<u8>,
    /// DER of a PKCS#10 request. Of it the host takes the public key alone.
    #[serde(with = "serde_bytes")]
    pub request: Vec<u8>,
    /// The name that the machine would like.
    pub name: String,
    /// The machine, as far as the agent knows it.
    pub facts: Vec<Fact>,
}

impl fmt::Debug for Enroll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enroll")
            .field("token", &self.token)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// From the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// Welcome.
    Enrolled(Box<Enrolled>),
    /// No, and why: one line for the person who enrolls.
    Refused {
        /// For people.
        reason: String,
    },
}

/// What a machine gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// DER of the machine's certificate and its issuer, leaf first.
    pub chain: Vec<serde_bytes::ByteBuf>,
    /// The name that the machine got.
    pub name: String,
    /// The tenant's name.
    pub tenant: String,
}

/// What a person carries to a machine: `sluice1.` and base64url of this in CBOR.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// `address:port` of the host, in the order to try.
    pub addresses: Vec<String>,
    /// The SHA-256 of the root certificate's DER.
    pub authority: Digest,
    /// The public part.
    pub id: TokenId,
    /// The secret part, 32 random bytes.
    #[serde(with = "serde_bytes")]
    pub secret: Vec<u8>,
}

const PREFIX: &str = "sluice1.";

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = codec::encode(self).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(InvalidToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| InvalidToken)?;
        codec::decode(&bytes).map_err(|_| InvalidToken)
    }
}

/// The text is no enrollment token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an enrollment token (expected the text that `sluice machine enroll-token` printed, which starts with sluice1.)"
)]
pub struct InvalidToken;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_never_shown() {
        let token = Token {
            addresses: vec!["127.0.0.1:7443".to_owned()],
            authority: Digest::of(b"root"),
            id: TokenId::generate(),
            secret: vec![0xab; 32],
        };
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(format!(" {token}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains("171"), "{token:?}");
        for text in [
            "",
            "sluice1.",
            "sluice2.abc",
            &token.to_string()[..40],
            &format!("{token}A"),
        ] {
            assert_eq!(text.parse::<Token>(), Err(InvalidToken), "{text}");
        }
    }
}
