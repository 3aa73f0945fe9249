//! Bearer tokens: 32 random bytes, of which the host keeps the hash alone.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;
use uuid::Uuid;

use super::{Denied, GrantError, Grants};
use crate::clock::UnixMillis;
use crate::provider;
use crate::random;
use crate::store::enroll_tokens;
use crate::store::operators::{self, OperatorRow};
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

/// By what a token is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MadeBy {
    /// The token that asks for it; none for a host's first.
    pub token: Option<Uuid>,
    /// The grant by which that acts, or was made: the new one is good as long as it.
    pub grant: Option<Uuid>,
}

/// Makes a token, and the operator of the same name whose only one it is, in the caller's transaction.
///
/// # Errors
///
/// Where the name is no name or is taken, or the database cannot be written.
pub fn create(
    conn: &Connection,
    tenant: TenantId,
    name: &str,
    grants: Grants,
    expires: Option<UnixMillis>,
    made_by: MadeBy,
    now: UnixMillis,
) -> Result<(TokenRow, BearerToken), CreateTokenError> {
    if !is_operator_name(name) {
        return Err(CreateTokenError::Name(name.to_owned()));
    }
    let (id, operator) = (Uuid::now_v7(), Uuid::now_v7());
    let operator = OperatorRow {
        id: operator,
        tenant,
        name: name.to_owned(),
        grants,
        token: Some(id),
        created: now,
        created_by: made_by.token,
        removed: None,
    };
    if !operators::insert(conn, &operator)? {
        return Err(CreateTokenError::TakenByOperator(name.to_owned()));
    }
    store(
        conn,
        TokenRow {
            id,
            tenant,
            operator: operator.id,
            name: name.to_owned(),
            only: None,
            created: now,
            expires,
            revoked: None,
            created_by: made_by.token,
            made_by_grant: made_by.grant,
        },
    )
}

/// Makes a token for an operator who is there, in the caller's transaction. It leaves them what `only` says of what they
/// may do, or everything.
///
/// # Errors
///
/// As [`create`].
#[expect(
    clippy::too_many_arguments,
    reason = "everything that a token consists of; called in one place"
)]
pub fn create_for(
    conn: &Connection,
    tenant: TenantId,
    operator: Uuid,
    name: &str,
    only: Option<Grants>,
    expires: Option<UnixMillis>,
    made_by: MadeBy,
    now: UnixMillis,
) -> Result<(TokenRow, BearerToken), CreateTokenError> {
    if !is_operator_name(name) {
        return Err(CreateTokenError::Name(name.to_owned()));
    }
    store(
        conn,
        TokenRow {
            id: Uuid::now_v7(),
            tenant,
            operator,
            name: name.to_owned(),
            only,
            created: now,
            expires,
            revoked: None,
            created_by: made_by.token,
            made_by_grant: made_by.grant,
        },
    )
}

fn store(conn: &Connection, row: TokenRow) -> Result<(TokenRow, BearerToken), CreateTokenError> {
    let token = BearerToken::generate()?;
    if tokens::insert(conn, &row, token.digest())? {
        Ok((row, token))
    } else {
        Err(CreateTokenError::Taken(row.name))
    }
}

/// Revokes a token that is not revoked yet, in the caller's transaction; the operator that was made with it goes with it.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn revoke(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
    now: UnixMillis,
) -> Result<Option<TokenRow>, StoreError> {
    let Some(row) = tokens::revoke(conn, tenant, id, now)? else {
        return Ok(None);
    };
    let operator = operators::find(conn, tenant, row.operator)?;
    if let Some(operator) = operator.filter(|operator| operator.token == Some(id)) {
        end(conn, &operator, now)?;
    }
    Ok(Some(row))
}

/// Ends an operator, with all tokens that are theirs or that they made for machines, and their grants. Gives how many of the latter there were.
pub(super) fn end(
    conn: &Connection,
    operator: &OperatorRow,
    now: UnixMillis,
) -> Result<usize, StoreError> {
    tokens::revoke_all_of(conn, operator.tenant, operator.id, now)?;
    provider::revoke_all_of(conn, operator, now)?;
    operators::remove(conn, operator.tenant, operator.id, now)?;
    enroll_tokens::revoke_all_of(conn, operator.tenant, &operator.name, now)
}

/// Whether a text can be the name of an operator or a token.
pub(super) fn is_operator_name(name: &str) -> bool {
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
    /// The operator's other tokens would be made with it too.
    #[error(
        "there is an operator {0} already; make a token of theirs (--operator {0}), or choose another name"
    )]
    TakenByOperator(String),
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no operator {} (sluice operator list); no token was made", .0.escape_debug())]
    NoOperator(String),
    /// A token alone would be one that may do nothing.
    #[error(
        "a token needs an operator, roles or permissions (--operator, --role, --permission); no token was made"
    )]
    Nothing,
    /// No good for anything.
    #[error("a token cannot be good for no time at all; no token was made")]
    NoTime,
    /// More than the maker has.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Whoever loses a token for an hour should not have lost one for ever.
    #[error(
        "a token cannot be good for longer than the one that makes it, or the grant by which that is done, which ends at {0}; ask for an earlier end, or have somebody else make it"
    )]
    Outlives(UnixMillis),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] random::NoRandomness),
    /// A role that is none.
    #[error("{0}; no token was made")]
    Grant(#[source] GrantError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<GrantError> for CreateTokenError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::Store(error) => Self::Store(error),
            error => Self::Grant(error),
        }
    }
}
