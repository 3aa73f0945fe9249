//! Who acts.

use sluice_protocol::ids::TenantId;
use uuid::Uuid;

use super::{BearerToken, Permission};
use crate::clock::UnixMillis;
use crate::store::tenants::{self, Tenant};
use crate::store::tokens::TokenRow;
use crate::store::{Connection, StoreError, tokens};

/// An operator whose token was checked for this request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The tenant that the operator belongs to, and all that they can see.
    pub tenant: Tenant,
    /// The token.
    pub token: Uuid,
    /// The operator's name.
    pub name: String,
    /// What they may do.
    pub permissions: Vec<Permission>,
    /// Where the request came from, for the audit log.
    pub source: String,
}

impl Actor {
    /// Whether the actor may do it.
    ///
    /// # Errors
    ///
    /// The permission is missing; the caller records that.
    pub fn require(&self, permission: Permission) -> Result<(), Denied> {
        if self.permissions.iter().any(|held| held.gives(permission)) {
            Ok(())
        } else {
            Err(Denied {
                operator: self.name.clone(),
                permission,
            })
        }
    }

    /// Whether a request for the tenant of this name is one for the actor's own.
    #[must_use]
    pub fn is_of_tenant(&self, name: Option<&str>) -> bool {
        name.is_none_or(|name| name == self.tenant.name)
    }
}

/// A permission is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operator} lacks the permission {permission}; nothing was done")]
pub struct Denied {
    /// Who asked.
    pub operator: String,
    /// What they would need.
    pub permission: Permission,
}

/// The actor whose token this is.
///
/// # Errors
///
/// The token is unknown, expired or revoked.
pub fn authenticate(
    conn: &Connection,
    token: &BearerToken,
    source: &str,
    now: UnixMillis,
) -> Result<Actor, AuthenticationError> {
    let row = tokens::find_by_secret(conn, token.digest())?.ok_or(AuthenticationError::Unknown)?;
    actor(conn, row, source, now)
}

/// The actor whose token this was when they asked for something that is done now, with what they may do now.
///
/// # Errors
///
/// The token is unknown, expired or revoked.
pub fn on_behalf_of(
    conn: &Connection,
    tenant: TenantId,
    token: Uuid,
    source: &str,
    now: UnixMillis,
) -> Result<Actor, AuthenticationError> {
    let row = tokens::find(conn, tenant, token)?.ok_or(AuthenticationError::Unknown)?;
    actor(conn, row, source, now)
}

fn actor(
    conn: &Connection,
    row: TokenRow,
    source: &str,
    now: UnixMillis,
) -> Result<Actor, AuthenticationError> {
    if row.revoked.is_some() {
        return Err(AuthenticationError::Revoked {
            tenant: row.tenant,
            operator: row.name,
        });
    }
    if row.expires.is_some_and(|expires| expires <= now) {
        return Err(AuthenticationError::Expired {
            tenant: row.tenant,
            operator: row.name,
        });
    }
    let tenant = tenants::find(conn, row.tenant)?.ok_or(AuthenticationError::Unknown)?;
    Ok(Actor {
        tenant,
        token: row.id,
        name: row.name,
        permissions: row.permissions,
        source: source.to_owned(),
    })
}

/// The bearer of a token is nobody.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// Never made here, or mistyped.
    #[error("the token is not one of this host")]
    Unknown,
    /// Its time is over.
    #[error("the token of {operator} has expired")]
    Expired {
        /// Whose it was.
        tenant: TenantId,
        /// The operator's name.
        operator: String,
    },
    /// Taken back.
    #[error("the token of {operator} was revoked")]
    Revoked {
        /// Whose it was.
        tenant: TenantId,
        /// The operator's name.
        operator: String,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::{CreateTokenError, create};
    use crate::store::Store;

    const NOW: UnixMillis = UnixMillis(1000);

    async fn with_token(
        expires: Option<UnixMillis>,
    ) -> (tempfile::TempDir, Store, Tenant, Uuid, BearerToken) {
        let (dir, store) = crate::store::tests_support::temporary();
        let (tenant, row, token) = store
            .write(move |conn| {
                let tenant = tenants::create(conn, "default", NOW)?;
                let (row, token) = create(
                    conn,
                    tenant.id,
                    "ann",
                    &[Permission::ReadAudit],
                    expires,
                    None,
                    NOW,
                )?;
                Ok::<_, CreateTokenError>((tenant, row, token))
            })
            .await
            .expect("creates");
        (dir, store, tenant, row.id, token)
    }

    fn authenticated(
        store: &Store,
        token: &BearerToken,
        now: UnixMillis,
    ) -> Result<Actor, AuthenticationError> {
        store.read(|conn| authenticate(conn, token, "test", now))
    }

    #[tokio::test]
    async fn a_token_is_its_operator_with_its_permissions_alone() {
        let (_dir, store, tenant, _, token) = with_token(None).await;
        let actor = authenticated(&store, &token, NOW).expect("is known");
        assert_eq!((actor.name.as_str(), actor.tenant.clone()), ("ann", tenant));
        actor.require(Permission::ReadAudit).expect("is allowed");
        let denied = actor
            .require(Permission::Administer)
            .expect_err("is not allowed");
        assert!(denied.to_string().contains("Administer"), "{denied}");
    }

    #[tokio::test]
    async fn unknown_expired_and_revoked_tokens_are_nobody() {
        let (_dir, store, tenant, id, token) = with_token(Some(UnixMillis(2000))).await;
        let wrong = BearerToken::presented(&format!("{}x", token.reveal()));
        assert!(matches!(
            authenticated(&store, &wrong, NOW),
            Err(AuthenticationError::Unknown)
        ));
        assert!(authenticated(&store, &token, UnixMillis(1999)).is_ok());
        assert!(matches!(
            authenticated(&store, &token, UnixMillis(2000)),
            Err(AuthenticationError::Expired { .. })
        ));
        store
            .write(move |conn| tokens::revoke(conn, tenant.id, id, NOW))
            .await
            .expect("revokes");
        assert!(matches!(
            authenticated(&store, &token, NOW),
            Err(AuthenticationError::Revoked { .. })
        ));
    }

    #[tokio::test]
    async fn the_database_does_not_hold_the_token() {
        let (dir, store, _, _, token) = with_token(None).await;
        store.close().await;
        for entry in std::fs::read_dir(dir.path()).expect("lists") {
            let bytes = std::fs::read(entry.expect("an entry").path()).expect("reads");
            assert!(
                !bytes
                    .windows(token.reveal().len())
                    .any(|window| window == token.reveal().as_bytes())
            );
        }
        assert!(!format!("{token:?}").contains(token.reveal()));
    }

    #[tokio::test]
    async fn names_are_unique_until_revoked_and_plain() {
        let (_dir, store, tenant, id, _) = with_token(None).await;
        let tenant = tenant.id;
        let attempt = |name: &'static str| {
            store.write(move |conn| create(conn, tenant, name, &[], None, None, NOW).map(|_| ()))
        };
        assert!(matches!(
            attempt("ann").await,
            Err(CreateTokenError::Taken(_))
        ));
        for name in ["", "a b", "ä", "-x", "a\u{202e}b"] {
            assert!(
                matches!(attempt(name).await, Err(CreateTokenError::Name(_))),
                "{name:?}"
            );
        }
        store
            .write(move |conn| tokens::revoke(conn, tenant, id, NOW))
            .await
            .expect("revokes");
        attempt("ann").await.expect("is free again");
    }
}
