//! Making operators, tokens and roles. Nobody gives more than they have: what a role gives its giver must have without a
//! condition, and what a role forbids they must be able to do before they lift it.

use std::sync::Arc;

use sluice_protocol::units::Span;
use uuid::Uuid;

use super::invitation;
use super::token::{self, is_operator_name};
use super::{
    Actor, BearerToken, Cause, CreateTokenError, Denied, GrantError, Grants, InvalidRole, MadeBy,
    Permission, Permissions, Role, RoleName, create, create_for, shipped,
};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::store::operators::{self, OperatorRow};
use crate::store::roles::{self, RoleRow};
use crate::store::tokens::{self, TokenRow};
use crate::store::{Connection, StoreError, grants, tenants};

impl Actor {
    /// Whether the actor may give these roles to somebody.
    ///
    /// # Errors
    ///
    /// The first permission that they do not have without conditions.
    pub(crate) fn may_give(&self, given: &[Arc<Role>]) -> Result<(), Denied> {
        self.unless(self.rights.cannot_give(given))
    }

    /// Whether the actor may take these roles, and what they forbid, from somebody.
    fn may_lift(&self, lifted: &[Arc<Role>]) -> Result<(), Denied> {
        self.unless(self.rights.cannot_lift(lifted))
    }

    /// Whether there is nothing that they could not give.
    fn may_give_everything(&self) -> bool {
        Permission::ALL
            .iter()
            .all(|permission| self.rights.may_always(*permission))
    }

    fn unless(&self, missing: Option<Permission>) -> Result<(), Denied> {
        let Some(permission) = missing else {
            return Ok(());
        };
        Err(Denied {
            operator: self.name.clone(),
            permission,
            cause: if self.rights.may_some(permission) {
                Cause::Conditional
            } else {
                Cause::Missing
            },
        })
    }
}

/// Makes an operator, who has no token yet.
///
/// # Errors
///
/// The name is none or is taken, a role is none, or the actor may not give it.
pub async fn add(
    host: &SharedHost,
    actor: &Actor,
    name: String,
    given: Vec<String>,
    now: UnixMillis,
) -> Result<OperatorRow, ChangeOperatorError> {
    if !is_operator_name(&name) {
        return Err(ChangeOperatorError::Name(name));
    }
    let (asked, host_roles) = (actor.clone(), Arc::clone(host));
    host.store
        .write(move |conn| {
            let row = OperatorRow {
                id: Uuid::now_v7(),
                tenant: asked.tenant.id,
                name,
                grants: Grants {
                    roles: distinct(given),
                    permissions: None,
                },
                token: None,
                created: now,
                created_by: Some(asked.token),
                removed: None,
            };
            asked.may_give(&host_roles.roles.mean(conn, row.tenant, &row.grants)?)?;
            if !operators::insert(conn, &row)? {
                return Err(ChangeOperatorError::Taken(row.name));
            }
            let event = of(&row, Event::by(EventKind::OperatorCreated, &asked));
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(row)
        })
        .await
}

/// Gives an operator other roles in place of those that they have. Their tokens have them from the next request on.
///
/// # Errors
///
/// There is no such operator or role, or the actor may not give or take it.
pub async fn set_roles(
    host: &SharedHost,
    actor: &Actor,
    name: String,
    given: Vec<String>,
    now: UnixMillis,
) -> Result<OperatorRow, ChangeOperatorError> {
    let (asked, host_roles) = (actor.clone(), Arc::clone(host));
    host.store
        .write(move |conn| {
            let mut row = find(conn, &asked, &name)?;
            let before = host_roles.roles.mean(conn, row.tenant, &row.grants)?;
            row.grants = Grants {
                roles: distinct(given),
                permissions: None,
            };
            let after = host_roles.roles.mean(conn, row.tenant, &row.grants)?;
            let is_in = |roles: &[Arc<Role>], role: &Arc<Role>| roles.contains(role);
            let (mut added, mut lifted) = (after.clone(), before.clone());
            added.retain(|role| !is_in(&before, role));
            lifted.retain(|role| !is_in(&after, role));
            asked.may_give(&added)?;
            asked.may_lift(&lifted)?;
            operators::set_roles(conn, row.tenant, row.id, &row.grants.roles)?;
            let event = of(&row, Event::by(EventKind::OperatorChanged, &asked));
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(row)
        })
        .await
}

/// Removes an operator: their tokens are revoked, those that machines enroll with too, and their name is free for somebody
/// else, who gets none of their rights, and counts as the author of what was stored and submitted under that name.
///
/// # Errors
///
/// There is no such operator.
pub async fn remove(
    host: &SharedHost,
    actor: &Actor,
    name: String,
    now: UnixMillis,
) -> Result<(), ChangeOperatorError> {
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            let row = find(conn, &asked, &name)?;
            let enroll_tokens = token::end(conn, &row, now)?;
            let event = of(&row, Event::by(EventKind::OperatorRemoved, &asked))
                .detail("enroll_tokens_revoked", enroll_tokens);
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(())
        })
        .await
}

fn find(conn: &Connection, actor: &Actor, name: &str) -> Result<OperatorRow, ChangeOperatorError> {
    operators::find_by_name(conn, actor.tenant.id, name)?
        .ok_or_else(|| ChangeOperatorError::NoOperator(name.to_owned()))
}

/// What an entry about an operator says of them.
fn of(row: &OperatorRow, event: Event) -> Event {
    event
        .detail("operator_id", row.id.to_string())
        .detail("name", row.name.as_str())
        .detail("roles", row.grants.roles.clone())
}

fn distinct(mut words: Vec<String>) -> Vec<String> {
    words.sort();
    words.dedup();
    words
}

/// A token that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Its name.
    pub name: String,
    /// Whose it is to be; an operator of the token's name where absent, whose only one it is.
    pub operator: Option<String>,
    /// What it is for; everything that its operator may do where there is nothing.
    pub grants: Grants,
    /// How long it is good.
    pub expires: Option<Span>,
}

/// Makes a token, which ends with the grant by which it is made, or by which the token was that makes it. One for themselves of
/// a customer's first administrator, who was invited by a grant, is without that, and ends the one that makes it.
///
/// # Errors
///
/// It would have more than its maker, live longer, or be nobody's.
pub async fn token(
    host: &SharedHost,
    actor: &Actor,
    new: NewToken,
    now: UnixMillis,
) -> Result<(TokenRow, BearerToken), CreateTokenError> {
    if new.expires.is_some_and(|span| span.0 == 0) {
        return Err(CreateTokenError::NoTime);
    }
    let expires = new.expires.map(|span| now.plus(span));
    let (asked, host_roles) = (actor.clone(), Arc::clone(host));
    host.store
        .write(move |conn| {
            let tenant = asked.tenant.id;
            let grants = Grants {
                roles: distinct(new.grants.roles),
                ..new.grants
            };
            let nothing = grants == Grants::default();
            let maker = tokens::find(conn, asked.home(), asked.token)?;
            let is_theirs = nothing && new.operator.as_ref() == Some(&asked.name);
            let invitation = match &maker {
                Some(maker) if is_theirs => {
                    invitation::take_up(conn, &host_roles.roles, &asked, maker, now)?
                }
                _ => None,
            };
            let (end, narrowed) = maker.map_or((None, None), |maker| (maker.expires, maker.only));
            // Nor longer than the grant by which it is made.
            let end = [end, asked.ends()].into_iter().flatten().min();
            let end = end.filter(|_| invitation.is_none());
            if let Some(end) = end.filter(|end| expires.is_none_or(|asked| asked > *end)) {
                return Err(CreateTokenError::Outlives(end));
            }
            let name = &new.name;
            let made_by = MadeBy {
                token: Some(asked.token),
                grant: asked.grant_behind(conn)?.filter(|_| invitation.is_none()),
            };
            let (row, token) = match new.operator {
                None if nothing => return Err(CreateTokenError::Nothing),
                None => {
                    asked.may_give(&host_roles.roles.mean(conn, tenant, &grants)?)?;
                    create(conn, tenant, name, grants.clone(), expires, made_by, now)?
                }
                Some(operator) => {
                    let operator = operators::find_by_name(conn, tenant, &operator)?
                        .ok_or(CreateTokenError::NoOperator(operator))?;
                    let only = if !nothing {
                        Some(grants.clone())
                    } else if operator.id == asked.operator {
                        // One that is narrowed makes none that is not.
                        narrowed
                    } else if asked.may_give_everything() {
                        None
                    } else {
                        // Whoever makes it can keep it: it is not to grow with what others give its operator later.
                        Some(operator.grants.clone())
                    };
                    let has = only.as_ref().unwrap_or(&operator.grants);
                    asked.may_give(&host_roles.roles.mean(conn, tenant, has)?)?;
                    create_for(conn, tenant, operator.id, name, only, expires, made_by, now)?
                }
            };
            let operator = operators::find(conn, tenant, row.operator)?;
            let permissions = grants.permissions.map(Permissions::words);
            let event = Event::by(EventKind::TokenCreated, &asked)
                .detail("token", row.id.to_string())
                .detail("name", row.name.as_str())
                .detail("operator", operator.map(|operator| operator.name))
                .detail("roles", grants.roles)
                .detail("permissions", permissions)
                .detail("expires", row.expires.map(|at| at.to_string()))
                .detail("made_by_grant", made_by.grant.map(|id| id.to_string()))
                .detail("invitation", invitation.map(|id| id.to_string()));
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok((row, token))
        })
        .await
}

/// Makes a role, or gives one of this name other policies, which whoever has it has from the next request on.
///
/// # Errors
///
/// The text is no role, the name is a shipped one's, or the actor may not give what it gives or lift what it forbade.
pub async fn put_role(
    host: &SharedHost,
    actor: &Actor,
    name: &str,
    policy: String,
    now: UnixMillis,
) -> Result<RoleRow, ChangeRoleError> {
    let name: RoleName = name.parse()?;
    if shipped(name.as_str()).is_some() {
        return Err(ChangeRoleError::Shipped(name.to_string()));
    }
    // Read here, where it may take its time.
    let new = Arc::new(Role::read(name, &policy)?);
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            let (tenant, name) = (asked.tenant.id, new.name().as_str());
            // Theirs or not: what they have by this role is not a reason for giving more by it.
            asked.unless(
                new.gives()
                    .iter()
                    .find(|permission| !asked.rights.may_always(*permission)),
            )?;
            if let Some(before) = roles::find(conn, tenant, name)? {
                let before = Role::read(new.name().clone(), &before.policy)?;
                asked.may_lift(&[Arc::new(before)])?;
            }
            roles::put(conn, tenant, name, &policy, &asked.name, now)?;
            let row = roles::find(conn, tenant, name)?
                .ok_or_else(|| ChangeRoleError::NoRole(name.to_owned()))?;
            let event = Event::by(EventKind::RoleSet, &asked)
                .detail("role", name)
                .detail("revision", row.revision)
                .detail("policy", row.policy.as_str());
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(row)
        })
        .await
}

/// Removes a role that nobody has.
///
/// # Errors
///
/// There is no such role, it is a shipped one, or somebody has it.
pub async fn remove_role(
    host: &SharedHost,
    actor: &Actor,
    name: String,
    now: UnixMillis,
) -> Result<(), ChangeRoleError> {
    if shipped(&name).is_some() {
        return Err(ChangeRoleError::Shipped(name));
    }
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            let tenant = asked.tenant.id;
            if roles::find(conn, tenant, &name)?.is_none() {
                return Err(ChangeRoleError::NoRole(name));
            }
            let is_the_providers = tenants::provider(conn)?.is_some_and(|own| own.id == tenant);
            if operators::is_role_in_use(conn, tenant, &name)?
                || is_the_providers && grants::is_role_in_use(conn, &name)?
            {
                return Err(ChangeRoleError::InUse(name));
            }
            roles::remove(conn, tenant, &name)?;
            let event = Event::by(EventKind::RoleRemoved, &asked).detail("role", name);
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(())
        })
        .await
}

/// An operator was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeOperatorError {
    /// It would be shown in messages and the audit log.
    #[error("{} is no name for an operator (1 to 64 letters, digits and - _ . @ +, the first a letter or digit); nothing was changed", .0.escape_debug())]
    Name(String),
    /// The audit log could not tell the two apart.
    #[error("there is an operator {0} already; nothing was changed")]
    Taken(String),
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no operator {} (sluice operator list); nothing was changed", .0.escape_debug())]
    NoOperator(String),
    /// More than the actor has.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A role that is none.
    #[error("{0}; nothing was changed")]
    Grant(#[source] GrantError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<GrantError> for ChangeOperatorError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::Store(error) => Self::Store(error),
            error => Self::Grant(error),
        }
    }
}

/// A role was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeRoleError {
    /// The text.
    #[error("{0}; nothing was changed")]
    Invalid(#[from] InvalidRole),
    /// One that every host has.
    #[error("the role {0} comes with the host and cannot be changed; choose another name")]
    Shipped(String),
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no role {} (sluice role list); nothing was changed", .0.escape_debug())]
    NoRole(String),
    /// Somebody would have less than they were given, without a word.
    #[error(
        "an operator, a token or a grant has the role {0}; give them others first (sluice operator roles, sluice token revoke, sluice grant revoke)"
    )]
    InUse(String),
    /// More than the actor has.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
