//! Who acts.

use std::fmt;
use std::sync::Arc;

use sluice_protocol::ids::TenantId;
use uuid::Uuid;

use super::{
    About, BearerToken, GrantError, Grants, No, Permission, Question, Rights, Role, Roles,
};
use crate::clock::UnixMillis;
use crate::store::tenants::{self, ProviderAccess, Tenant, TenantKind, TenantRow};
use crate::store::tokens::TokenRow;
use crate::store::{Connection, StoreError, grants, operators, tokens};

/// An operator whose token was checked for this request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The tenant that they act in, and all that they can see.
    pub tenant: Tenant,
    /// How they come to act there.
    pub standing: Standing,
    /// The token.
    pub token: Uuid,
    /// The operator, whatever token they use.
    pub operator: Uuid,
    /// The operator's name, as it is on the record of the tenant ([`in_others`]).
    pub name: String,
    /// What they may do.
    pub rights: Rights,
    /// Where the request came from, for the audit log.
    pub source: String,
}

/// How somebody comes to act in a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is their own.
    Own(TenantKind),
    /// They are the provider's, and have a grant.
    Granted {
        /// The grant.
        grant: Uuid,
        /// When it ends by itself.
        ends: Option<UnixMillis>,
        /// The provider's own tenant, which has the operator and the token.
        home: TenantId,
    },
}

/// What an operator of the provider is called on the record of other tenants, whose own operators cannot have such a name.
#[must_use]
pub fn in_others(name: &str) -> String {
    format!("provider/{name}")
}

impl Actor {
    /// The tenant whose operator they are.
    #[must_use]
    pub const fn home(&self) -> TenantId {
        match self.standing {
            Standing::Own(_) => self.tenant.id,
            Standing::Granted { home, .. } => home,
        }
    }

    /// When what they act by ends by itself, besides the token.
    #[must_use]
    pub const fn ends(&self) -> Option<UnixMillis> {
        match self.standing {
            Standing::Own(_) => None,
            Standing::Granted { ends, .. } => ends,
        }
    }

    /// The grant without which they could not act here: the one by which they do, or by which their token was made.
    ///
    /// # Errors
    ///
    /// Where the database cannot be read.
    pub fn grant_behind(&self, conn: &Connection) -> Result<Option<Uuid>, StoreError> {
        Ok(match self.standing {
            Standing::Own(_) => {
                let token = tokens::find(conn, self.tenant.id, self.token)?;
                token.and_then(|token| token.made_by_grant)
            }
            Standing::Granted { grant, .. } => Some(grant),
        })
    }

    /// The same operator as the provider's in one of its tenants, for what the provider does there by itself.
    #[must_use]
    pub fn reaching(&self, tenant: Tenant) -> Self {
        let name = match tenant == self.tenant {
            true => self.name.clone(),
            false => in_others(&self.name),
        };
        Self {
            tenant,
            name,
            ..self.clone()
        }
    }

    /// Whether the actor may do it: with the tenant's things, or on some machine. What is done on a machine is asked once
    /// more, for that one ([`Self::require_on`]).
    ///
    /// # Errors
    ///
    /// The permission is missing; the caller records that.
    pub fn require(&self, permission: Permission) -> Result<(), Denied> {
        if !permission.is_about_machines() {
            return self.require_on(permission, About::Tenant, "");
        }
        if self.rights.may_some(permission) {
            Ok(())
        } else {
            Err(self.denied(permission, Cause::Missing))
        }
    }

    /// Whether the actor may do it there; `place` says in words where that is, after "for".
    ///
    /// # Errors
    ///
    /// The permission is missing; the caller records that.
    pub fn require_on(
        &self,
        permission: Permission,
        about: About<'_>,
        place: &str,
    ) -> Result<(), Denied> {
        let question = Question {
            operator: &self.name,
            tenant: &self.tenant.name,
            permission,
            about,
        };
        let no = match self.rights.decide(&question) {
            Ok(()) => return Ok(()),
            Err(no) => no,
        };
        let place = place.to_owned();
        Err(self.denied(
            permission,
            match no {
                No::Missing if place.is_empty() => Cause::Missing,
                No::Missing => Cause::MissingThere { place },
                No::Forbidden { role, policy } => Cause::Forbidden {
                    place,
                    role,
                    policy,
                },
                No::Unclear => Cause::Unclear { place },
            },
        ))
    }

    /// Whether the actor may do it on every machine, whatever it is tagged.
    ///
    /// # Errors
    ///
    /// The permission is missing, or comes with conditions; the caller records that.
    pub fn require_always(&self, permission: Permission) -> Result<(), Denied> {
        self.require(permission)?;
        if self.rights.may_always(permission) {
            return Ok(());
        }
        let place = "every machine".to_owned();
        Err(self.denied(permission, Cause::MissingThere { place }))
    }

    fn denied(&self, permission: Permission, cause: Cause) -> Denied {
        Denied {
            operator: self.name.clone(),
            permission,
            cause,
        }
    }

    /// What they may do under some condition, or none.
    pub fn permissions(&self) -> impl Iterator<Item = Permission> {
        self.rights.some().iter()
    }

    /// Whether a request that names this tenant is one for that in which they act.
    #[must_use]
    pub fn is_of_tenant(&self, name: Option<&str>) -> bool {
        name.is_none_or(|name| name == self.tenant.name)
    }
}

/// A permission is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operator} lacks the permission {permission}{cause}; nothing was done")]
pub struct Denied {
    /// Who asked.
    pub operator: String,
    /// What they would need.
    pub permission: Permission,
    /// Why they do not have it.
    pub cause: Cause,
}

/// Why a permission is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Nothing gives it.
    Missing,
    /// Nothing gives it here, though perhaps elsewhere.
    MissingThere {
        /// For what.
        place: String,
    },
    /// A role takes it away.
    Forbidden {
        /// For what; empty where it is nothing in particular.
        place: String,
        /// The role.
        role: String,
        /// Which of its policies.
        policy: String,
    },
    /// A policy cannot be evaluated.
    Unclear {
        /// For what; empty where it is nothing in particular.
        place: String,
    },
    /// It is theirs under conditions, and they would give it to others without.
    Conditional,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = |place: &str| match place {
            "" => String::new(),
            place => format!(" for {place}"),
        };
        match self {
            Self::Missing => Ok(()),
            Self::MissingThere { place } => f.write_str(&there(place)),
            Self::Forbidden {
                place,
                role,
                policy,
            } => write!(f, "{}: the role {role} forbids it ({policy})", there(place)),
            Self::Unclear { place } => {
                write!(
                    f,
                    "{}: a policy of theirs cannot be evaluated",
                    there(place)
                )
            }
            Self::Conditional => {
                f.write_str(" without conditions, so they cannot give it, or lift what forbids it")
            }
        }
    }
}

/// The actor whose token this is, in their own tenant.
///
/// # Errors
///
/// The token is unknown, expired or revoked.
pub fn authenticate(
    conn: &Connection,
    roles: &Roles,
    token: &BearerToken,
    source: &str,
    now: UnixMillis,
) -> Result<Actor, AuthenticationError> {
    authenticate_in(conn, roles, token, None, source, now)
}

/// The actor whose token this is, in the tenant of this name: their own, or one in which they have a grant.
///
/// # Errors
///
/// The token is unknown, expired or revoked, or there is no such tenant for it.
pub fn authenticate_in(
    conn: &Connection,
    roles: &Roles,
    token: &BearerToken,
    tenant: Option<&str>,
    source: &str,
    now: UnixMillis,
) -> Result<Actor, AuthenticationError> {
    let row = tokens::find_by_secret(conn, token.digest())?.ok_or(AuthenticationError::Unknown)?;
    let home = tenants::row(conn, row.tenant)?.ok_or(AuthenticationError::Unknown)?;
    let known = known(conn, row, home, source, now)?;
    let Some(name) = tenant.filter(|name| *name != known.home.tenant.name) else {
        return known.at_home(conn, roles);
    };
    // Looked up for the provider's operators alone: nobody else finds out by the time that it takes whether there is one.
    let there = match known.home.kind {
        TenantKind::Provider => tenants::row_by_name(conn, name)?,
        TenantKind::Customer => None,
    };
    let there = there.ok_or_else(|| AuthenticationError::NoTenant(name.to_owned()))?;
    known.by_grant(conn, roles, there, now)
}

/// The actor whose token this was when they asked for something in a tenant that is done now, with what they may do now.
///
/// # Errors
///
/// The token is unknown, expired or revoked, or the grant by which they asked is over.
pub fn on_behalf_of(
    conn: &Connection,
    roles: &Roles,
    tenant: TenantId,
    token: Uuid,
    source: &str,
    now: UnixMillis,
) -> Result<Actor, AuthenticationError> {
    let row = tokens::find_here_or_provider(conn, tenant, token)?;
    let row = row.ok_or(AuthenticationError::Unknown)?;
    let home = tenants::row(conn, row.tenant)?.ok_or(AuthenticationError::Unknown)?;
    let known = known(conn, row, home, source, now)?;
    if known.home.tenant.id == tenant {
        return known.at_home(conn, roles);
    }
    let there = tenants::row(conn, tenant)?.ok_or(AuthenticationError::Unknown)?;
    known.by_grant(conn, roles, there, now)
}

/// Somebody whose token is good.
struct Known<'a> {
    home: TenantRow,
    token: TokenRow,
    operator: operators::OperatorRow,
    source: &'a str,
}

fn known<'a>(
    conn: &Connection,
    row: TokenRow,
    home: TenantRow,
    source: &'a str,
    now: UnixMillis,
) -> Result<Known<'a>, AuthenticationError> {
    let operator =
        operators::find(conn, row.tenant, row.operator)?.ok_or(AuthenticationError::Unknown)?;
    // With an operator all of their tokens are revoked. Looked at here all the same: there is one way in.
    if row.revoked.is_some() || operator.removed.is_some() {
        return Err(AuthenticationError::Revoked {
            tenant: row.tenant,
            operator: operator.name,
        });
    }
    if row.expires.is_some_and(|expires| expires <= now) {
        return Err(AuthenticationError::Expired {
            tenant: row.tenant,
            operator: operator.name,
        });
    }
    if let Some(grant) = row.made_by_grant
        && !grants::lets_in(conn, grant, now)?
    {
        return Err(AuthenticationError::GrantOver {
            tenant: row.tenant,
            operator: operator.name,
        });
    }
    Ok(Known {
        home,
        token: row,
        operator,
        source,
    })
}

impl Known<'_> {
    fn at_home(self, conn: &Connection, roles: &Roles) -> Result<Actor, AuthenticationError> {
        let held = roles.mean(conn, self.home.tenant.id, &self.operator.grants)?;
        let rights = self.narrowed(conn, roles, &self.home, |scope| Rights::new(held, scope))?;
        Ok(Actor {
            standing: Standing::Own(self.home.kind),
            tenant: self.home.tenant,
            token: self.token.id,
            operator: self.operator.id,
            name: self.operator.name,
            rights,
            source: self.source.to_owned(),
        })
    }

    /// In a tenant that is not theirs. What their own roles forbid them stays forbidden there.
    fn by_grant(
        self,
        conn: &Connection,
        roles: &Roles,
        there: TenantRow,
        now: UnixMillis,
    ) -> Result<Actor, AuthenticationError> {
        let home = self.home.tenant.id;
        let grant = match (self.home.kind, there.access) {
            (TenantKind::Provider, ProviderAccess::Allowed) => {
                grants::good(conn, there.tenant.id, self.operator.id, now)?
            }
            (TenantKind::Customer, _) | (_, ProviderAccess::DeniedSince(_)) => None,
        };
        let Some(grant) = grant else {
            return Err(AuthenticationError::NoTenant(there.tenant.name));
        };
        let granted = Grants {
            roles: grant.roles,
            permissions: None,
        };
        let held = roles.mean(conn, home, &granted)?;
        let bound = roles.mean(conn, home, &self.operator.grants)?;
        let rights = self.narrowed(conn, roles, &there, |scope| {
            Rights::new(held, scope).bound_by(bound)
        })?;
        Ok(Actor {
            standing: Standing::Granted {
                grant: grant.id,
                ends: grant.expires,
                home,
            },
            tenant: there.tenant,
            token: self.token.id,
            operator: self.operator.id,
            name: in_others(&self.operator.name),
            rights,
            source: self.source.to_owned(),
        })
    }

    /// Rights as far as the token leaves them, and in a tenant that is archived for looking alone.
    fn narrowed(
        &self,
        conn: &Connection,
        roles: &Roles,
        there: &TenantRow,
        rights: impl FnOnce(Option<Vec<Arc<Role>>>) -> Rights,
    ) -> Result<Rights, AuthenticationError> {
        let only = self.token.only.as_ref();
        let only = only.map(|only| roles.mean(conn, self.home.tenant.id, only));
        let rights = rights(only.transpose()?);
        Ok(match there.archived {
            None => rights,
            Some(_) => {
                let looking = Grants::of_permissions(&[Permission::ReadAudit]);
                rights.narrowed_to(roles.mean(conn, there.tenant.id, &looking)?)
            }
        })
    }
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
    /// It was made by a grant that is over, or that the tenant lets nobody in by.
    #[error("the token of {operator} was made by a grant that is over, or gets nobody in now")]
    GrantOver {
        /// Whose it was.
        tenant: TenantId,
        /// The operator's name.
        operator: String,
    },
    /// Another's, in which they have no grant that is in force, or none: the answer is the same.
    #[error("there is no tenant {} for this token (sluice tenant list)", .0.escape_debug())]
    NoTenant(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<GrantError> for AuthenticationError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::Store(error) => Self::Store(error),
            // A role that is in use is not removed, so somebody else changed the file: nobody gets in by that.
            error => Self::Store(StoreError::Corrupt(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::{CreateTokenError, Grants, MadeBy, create, revoke};
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
                    Grants::of_permissions(&[Permission::ReadAudit]),
                    expires,
                    MadeBy::default(),
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
        store.read(|conn| authenticate(conn, &Roles::default(), token, "test", now))
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
            store.write(move |conn| {
                let made_by = MadeBy::default();
                create(conn, tenant, name, Grants::default(), None, made_by, NOW).map(|_| ())
            })
        };
        assert!(matches!(
            attempt("ann").await,
            Err(CreateTokenError::TakenByOperator(_))
        ));
        for name in ["", "a b", "ä", "-x", "a\u{202e}b"] {
            assert!(
                matches!(attempt(name).await, Err(CreateTokenError::Name(_))),
                "{name:?}"
            );
        }
        store
            .write(move |conn| revoke(conn, tenant, id, NOW))
            .await
            .expect("revokes");
        attempt("ann").await.expect("is free again");
    }
}
