//! Operators: who acts.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::TenantId;
use uuid::Uuid;

use super::StoreError;
use super::row::{
    all, change, exists, first, from_json, parsed, parsed_or_null, time, time_or_null, to_json,
};
use super::tokens::{permissions_from_json, permissions_to_json};
use crate::clock::UnixMillis;
use crate::operators::Grants;

/// An operator as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorRow {
    /// Its id, which never changes.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name, unique among the tenant's operators that were not removed.
    pub name: String,
    /// What it may do.
    pub grants: Grants,
    /// The token that it was made with and ends with.
    pub token: Option<Uuid>,
    /// When it was made.
    pub created: UnixMillis,
    /// The token that made it; none for a host's first.
    pub created_by: Option<Uuid>,
    /// When it was removed.
    pub removed: Option<UnixMillis>,
}

/// Stores an operator; says no where the tenant has one of that name.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, operator: &OperatorRow) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "INSERT INTO operators (id, tenant, name, roles, permissions, token, created, created_by)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (tenant, name) WHERE removed IS NULL DO NOTHING",
        params![
            operator.id.to_string(),
            operator.tenant.to_string(),
            &operator.name,
            to_json(&operator.grants.roles)?,
            permissions_to_json(operator.grants.permissions)?,
            operator.token.map(|id| id.to_string()),
            operator.created.0,
            operator.created_by.map(|id| id.to_string()),
        ],
    )? == 1)
}

/// The tenant's operator with this id, also one that was removed.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
) -> Result<Option<OperatorRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM operators WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
        read,
    )
}

/// The tenant's operator with this name that was not removed.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find_by_name(
    conn: &Connection,
    tenant: TenantId,
    name: &str,
) -> Result<Option<OperatorRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM operators WHERE tenant = ? AND name = ? AND removed IS NULL",
        params![tenant.to_string(), name],
        read,
    )
}

/// The tenant's operators that were not removed, by name.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(conn: &Connection, tenant: TenantId) -> Result<Vec<OperatorRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM operators WHERE tenant = ? AND removed IS NULL ORDER BY name",
        params![tenant.to_string()],
        read,
    )
}

/// Gives an operator other roles, in place of all that they had, also of a list of permissions.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_roles(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
    roles: &[String],
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE operators SET roles = ?, permissions = NULL WHERE tenant = ? AND id = ?",
        params![to_json(roles)?, tenant.to_string(), id.to_string()],
    )?;
    Ok(())
}

/// Removes an operator.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn remove(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
    now: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE operators SET removed = ? WHERE tenant = ? AND id = ? AND removed IS NULL",
        params![now.0, tenant.to_string(), id.to_string()],
    )?;
    Ok(())
}

/// Whether an operator or a token that is good has a role.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn is_role_in_use(conn: &Connection, tenant: TenantId, role: &str) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM operators o, json_each(o.roles) r
             WHERE o.tenant = ?1 AND o.removed IS NULL AND r.value = ?2
         UNION ALL
         SELECT 1 FROM tokens t, json_each(t.only_roles) r
             WHERE t.tenant = ?1 AND t.revoked IS NULL AND r.value = ?2",
        params![tenant.to_string(), role],
    )
}

fn read(row: &Row<'_>) -> Result<OperatorRow, StoreError> {
    Ok(OperatorRow {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        name: row.get("name")?,
        grants: Grants {
            roles: from_json(row, "roles")?,
            permissions: permissions_from_json(row, "permissions")?,
        },
        token: parsed_or_null(row, "token")?,
        created: time(row, "created")?,
        created_by: parsed_or_null(row, "created_by")?,
        removed: time_or_null(row, "removed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::{Permission, Roles};
    use crate::store::tokens;

    #[test]
    fn tokens_that_were_made_before_there_were_operators_keep_what_they_may_do() {
        let conn = Connection::open_in_memory().expect("opens");
        let run = |sql: &str| conn.execute_batch(sql).expect("runs");
        for before in [
            include_str!("../../migrations/0001_first.sql"),
            include_str!("../../migrations/0002_scripts.sql"),
            include_str!("../../migrations/0003_schedules.sql"),
            include_str!("../../migrations/0004_declarations.sql"),
            include_str!("../../migrations/0005_output.sql"),
            include_str!("../../migrations/0006_confinement.sql"),
            include_str!("../../migrations/0007_approvals.sql"),
            include_str!("../../migrations/0008_rollouts.sql"),
            include_str!("../../migrations/0009_secrets.sql"),
        ] {
            run(before);
        }
        let tenant: TenantId = "019a0000-0000-7000-8000-000000000001"
            .parse()
            .expect("an id");
        let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
        run(&format!(
            "INSERT INTO tenants (id, name, created) VALUES ('{tenant}', 'default', 0);
             INSERT INTO tokens (id, tenant, name, secret_sha256, permissions, created, revoked) VALUES
                 ('{old}', '{tenant}', 'ann', x'01', '[\"Administer\"]', 1, 2),
                 ('{new}', '{tenant}', 'ann', x'02', '[\"ReadAudit\", \"RunStoredScripts\"]', 3, NULL);"
        ));
        for after in [
            include_str!("../../migrations/0012_operators.sql"),
            include_str!("../../migrations/0018_tenants.sql"),
            include_str!("../../migrations/0020_made_by_grants.sql"),
        ] {
            run(after);
        }
        let operator = find_by_name(&conn, tenant, "ann")
            .expect("reads")
            .expect("is there");
        let token = tokens::find(&conn, tenant, new)
            .expect("reads")
            .expect("is there");
        assert_eq!((token.operator, token.only), (operator.id, None));
        assert_eq!(operator.token, Some(new));
        let given = [Permission::ReadAudit, Permission::RunStoredScripts];
        assert_eq!(operator.grants, Grants::of_permissions(&given));
        let roles = Roles::default().mean(&conn, tenant, &operator.grants);
        assert!(
            roles.expect("are roles")[0]
                .gives()
                .contains(Permission::ReadJobs)
        );
        let revoked = find(&conn, tenant, old).expect("reads").expect("is there");
        assert_eq!(revoked.removed, Some(UnixMillis(2)));
    }
}
