//! What an operator or a token is given, by name, and the roles that those names mean. Policies are read once and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sluice_protocol::ids::TenantId;
use uuid::Uuid;

use super::{InvalidRole, Permission, Permissions, Role, shipped};
use crate::store::{Connection, StoreError, roles};

/// The most roles that are kept. Each is the tenant's own or a list of permissions, and a few kilobytes.
const MOST_KEPT: usize = 4096;
/// The most roles that somebody has: each is asked for each decision.
pub const MOST_ROLES: usize = 16;

/// Names of roles, and permissions besides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// The shipped roles and the tenant's own, by name.
    pub roles: Vec<String>,
    /// A list of permissions, which gives looking at things too; none where there are roles alone.
    pub permissions: Option<Permissions>,
}

impl Grants {
    /// These permissions.
    #[must_use]
    pub fn of_permissions(permissions: &[Permission]) -> Self {
        Self {
            roles: Vec::new(),
            permissions: Some(permissions.iter().copied().collect()),
        }
    }

    /// This role.
    #[must_use]
    pub fn of_role(name: &str) -> Self {
        Self {
            roles: vec![name.to_owned()],
            permissions: None,
        }
    }
}

/// The roles that were read since the host was started.
#[derive(Debug, Default)]
pub struct Roles(Mutex<HashMap<Kept, Arc<Role>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kept {
    /// One of a tenant's own, in a revision.
    Stored(Uuid, u64),
    /// A list.
    List(Permissions),
}

impl Roles {
    /// What the names in `grants` mean in a tenant now.
    ///
    /// # Errors
    ///
    /// There is no such role, or the database cannot be read.
    pub fn mean(
        &self,
        conn: &Connection,
        tenant: TenantId,
        grants: &Grants,
    ) -> Result<Vec<Arc<Role>>, GrantError> {
        if grants.roles.len() > MOST_ROLES {
            return Err(GrantError::TooMany);
        }
        let mut found = Vec::with_capacity(grants.roles.len() + 1);
        for name in &grants.roles {
            found.push(match shipped(name) {
                Some(role) => role,
                None => self.stored(conn, tenant, name)?,
            });
        }
        if let Some(list) = grants.permissions {
            found.push(self.kept(Kept::List(list), || {
                Role::of_list(list).map_err(|error| corrupt(&error))
            })?);
        }
        Ok(found)
    }

    /// The tenant's own role of this name.
    fn stored(
        &self,
        conn: &Connection,
        tenant: TenantId,
        name: &str,
    ) -> Result<Arc<Role>, GrantError> {
        let none = || GrantError::NoRole(name.to_owned());
        let (id, revision) = roles::revision(conn, tenant, name)?.ok_or_else(none)?;
        self.kept(Kept::Stored(id, revision), || {
            let row = roles::find(conn, tenant, name)?.ok_or_else(none)?;
            let read = row
                .name
                .parse()
                .and_then(|name| Role::read(name, &row.policy));
            read.map_err(|error| corrupt(&error))
        })
    }

    fn kept(
        &self,
        key: Kept,
        read: impl FnOnce() -> Result<Role, GrantError>,
    ) -> Result<Arc<Role>, GrantError> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(role) = lock().get(&key) {
            return Ok(Arc::clone(role));
        }
        let role = Arc::new(read()?);
        let mut kept = lock();
        // They are read again as they are needed.
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&role));
        Ok(role)
    }
}

/// What is stored was checked, so another version of the program wrote it: nobody gets anything by it.
fn corrupt(error: &InvalidRole) -> GrantError {
    GrantError::Store(StoreError::Corrupt(error.to_string()))
}

/// Names mean nothing.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no role {} (sluice role list)", .0.escape_debug())]
    NoRole(String),
    /// Each is asked for each decision.
    #[error("nobody has more than {MOST_ROLES} roles; make one of them (sluice role set)")]
    TooMany,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
