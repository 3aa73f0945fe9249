//! Bearer tokens: 32 random bytes, of which the host keeps the hash alone.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;
use uuid::Uuid;

use super::Permission;
use crate::clock::UnixMillis;
use crate::random;
use crate::store::tokens::{self, TokenRow};
use crate::store::{Connection, StoreError};

/// Makes leaked tokens findable by scanners of repositories.
const PREFIX: &str = "sluiceop_";

/// A token as its operator has it. Neither logged nor stored.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(String);

impl BearerToken {
    /// A new token.
    ///
    /// # Errors
    ///
    /// The system has no randomness.
    pub fn generate() -> Result<Self, random::NoRandomness> {
        Ok(Self(format!(
            "{PREFIX}{}",
            URL_SAFE_NO_PAD.encode(random::bytes::<32>()?)
        )))
    }

    /// What a request carries, whatever it is.
    #[must_use]
    pub fn presented(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// What the host keeps of it. The token has 256 bits of randomness, so a plain hash of it cannot be turned around.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }

    /// The text, for the one time that it is shown.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(..)")
    }
}

/// Makes a token in the caller's transaction; `maker` is the token that asks for it.
///
/// # Errors
///
/// Where the name is no name or is taken, or the database cannot be written.
pub fn create(
    conn: &Connection,
    tenant: TenantId,
    name: &str,
    permissions: &[Permission],
    expires: Option<UnixMillis>,
    maker: Option<Uuid>,
    now: UnixMillis,
) -> Result<(TokenRow, BearerToken), CreateTokenError> {
    if !is_name(name) {
        return Err(CreateTokenError::Name(name.to_owned()));
    }
    let token = BearerToken::generate()?;
    let mut permissions = permissions.to_vec();
    permissions.sort();
    permissions.dedup();
    let row = TokenRow {
        id: Uuid::now_v7(),
        tenant,
        name: name.to_owned(),
        permissions,
        created: now,
        expires,
        revoked: None,
        created_by: maker,
    };
    if tokens::insert(conn, &row, token.digest())? {
        Ok((row, token))
    } else {
        Err(CreateTokenError::Taken(name.to_owned()))
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+'))
}

/// A token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateTokenError {
    /// It would be shown in messages and the audit log.
    #[error("{} is no name for an operator (1 to 64 letters, digits and - _ . @ +, the first a letter or digit)", .0.escape_debug())]
    Name(String),
    /// The audit log could not tell the two apart.
    #[error("there is a token for {0} already; revoke it first, or choose another name")]
    Taken(String),
    /// Whoever loses a token for an hour should not have lost one for ever.
    #[error(
        "a token cannot be good for longer than the one that makes it, which ends at {0}; ask for an earlier end, or have somebody else make it"
    )]
    Outlives(UnixMillis),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] random::NoRandomness),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
