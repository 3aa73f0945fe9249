//! Tenants, and the revision of their gates.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::{HostId, TenantId};

use super::StoreError;
use super::row::{all, change, first, only, parsed, time, time_or_null, unsigned};
use crate::clock::UnixMillis;

/// What the provider's own tenant is called at first.
pub const DEFAULT: &str = "default";

/// A customer of the provider, or the provider itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
}

/// Whose a tenant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantKind {
    /// The provider's own: every host has one.
    Provider,
    /// A customer of the provider.
    Customer,
}

/// Whether the provider's operators get into a tenant by their grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderAccess {
    /// They do.
    Allowed,
    /// They do not, since then.
    DeniedSince(UnixMillis),
}

/// A tenant as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// Its id, which never changes, and its name.
    pub tenant: Tenant,
    /// Whose it is.
    pub kind: TenantKind,
    /// When it was made.
    pub created: UnixMillis,
    /// Since when nothing is done there any more.
    pub archived: Option<UnixMillis>,
    /// Whether it lets the provider in.
    pub access: ProviderAccess,
}

/// Creates a customer.
///
/// # Errors
///
/// Where the name is taken.
pub fn create(conn: &Connection, name: &str, now: UnixMillis) -> Result<Tenant, StoreError> {
    insert(conn, name, TenantKind::Customer, now)
}

/// Creates the provider's own tenant.
///
/// # Errors
///
/// Where the name is taken, or there is one.
pub fn create_provider(
    conn: &Connection,
    name: &str,
    now: UnixMillis,
) -> Result<Tenant, StoreError> {
    insert(conn, name, TenantKind::Provider, now)
}

fn insert(
    conn: &Connection,
    name: &str,
    kind: TenantKind,
    now: UnixMillis,
) -> Result<Tenant, StoreError> {
    let tenant = Tenant {
        id: TenantId::generate(),
        name: name.to_owned(),
    };
    change(
        conn,
        "INSERT INTO tenants (id, name, created, provider) VALUES (?, ?, ?, ?)",
        params![
            tenant.id.to_string(),
            name,
            now.0,
            kind == TenantKind::Provider
        ],
    )?;
    Ok(tenant)
}

/// The tenant with this id.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(conn: &Connection, id: TenantId) -> Result<Option<Tenant>, StoreError> {
    Ok(row(conn, id)?.map(|row| row.tenant))
}

/// The tenant with this name.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find_by_name(conn: &Connection, name: &str) -> Result<Option<Tenant>, StoreError> {
    Ok(row_by_name(conn, name)?.map(|row| row.tenant))
}

/// The tenant with this id, with all that is known of it.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn row(conn: &Connection, id: TenantId) -> Result<Option<TenantRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM tenants WHERE id = ?",
        params![id.to_string()],
        read,
    )
}

/// The tenant with this name, with all that is known of it.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn row_by_name(conn: &Connection, name: &str) -> Result<Option<TenantRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM tenants WHERE name = ?",
        params![name],
        read,
    )
}

/// The provider's own tenant.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn provider(conn: &Connection) -> Result<Option<Tenant>, StoreError> {
    let row = first(
        conn,
        "SELECT * FROM tenants WHERE provider = 1",
        params![],
        read,
    )?;
    Ok(row.map(|row| row.tenant))
}

/// All tenants.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(conn: &Connection) -> Result<Vec<Tenant>, StoreError> {
    let rows = rows(conn)?.into_iter();
    Ok(rows.map(|row| row.tenant).collect())
}

/// All tenants by name, with all that is known of them.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn rows(conn: &Connection) -> Result<Vec<TenantRow>, StoreError> {
    all(conn, "SELECT * FROM tenants ORDER BY name", [], read)
}

/// Gives a tenant another name.
///
/// # Errors
///
/// Where the name is taken.
pub fn rename(conn: &Connection, id: TenantId, name: &str) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE tenants SET name = ? WHERE id = ?",
        params![name, id.to_string()],
    )?;
    Ok(())
}

/// Archives a tenant; says no where that is done.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn archive(conn: &Connection, id: TenantId, now: UnixMillis) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "UPDATE tenants SET archived = ? WHERE id = ? AND archived IS NULL",
        params![now.0, id.to_string()],
    )? == 1)
}

/// Lets the provider in, or not.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_access(
    conn: &Connection,
    id: TenantId,
    access: ProviderAccess,
) -> Result<(), StoreError> {
    let denied = match access {
        ProviderAccess::Allowed => None,
        ProviderAccess::DeniedSince(since) => Some(since.0),
    };
    change(
        conn,
        "UPDATE tenants SET provider_denied = ? WHERE id = ?",
        params![denied, id.to_string()],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<TenantRow, StoreError> {
    let denied = time_or_null(row, "provider_denied")?;
    Ok(TenantRow {
        tenant: Tenant {
            id: parsed(row, "id")?,
            name: row.get("name")?,
        },
        kind: match row.get("provider")? {
            true => TenantKind::Provider,
            false => TenantKind::Customer,
        },
        created: time(row, "created")?,
        archived: time_or_null(row, "archived")?,
        access: denied.map_or(ProviderAccess::Allowed, ProviderAccess::DeniedSince),
    })
}

/// The revision of the tenant's gates.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn gates_revision(conn: &Connection, tenant: TenantId) -> Result<u64, StoreError> {
    only(
        conn,
        "SELECT gates_revision FROM tenants WHERE id = ?",
        params![tenant.to_string()],
        |row| unsigned(row, "gates_revision"),
    )
}

/// Makes the next revision of the tenant's gates, and says which that is.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn next_gates_revision(conn: &Connection, tenant: TenantId) -> Result<u64, StoreError> {
    only(
        conn,
        "UPDATE tenants SET gates_revision = gates_revision + 1 WHERE id = ? RETURNING gates_revision",
        params![tenant.to_string()],
        |row| unsigned(row, "gates_revision"),
    )
}

/// Goes on with numbers for gates that no machine has seen yet, for all tenants: this database is older than what it has given
/// out.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn skip_gates_revisions(conn: &Connection) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE tenants SET gates_revision = gates_revision + 1000000",
        [],
    )?;
    Ok(())
}

/// The host's own id, made by `sluice-host init`.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn host_id(conn: &Connection) -> Result<Option<HostId>, StoreError> {
    first(conn, "SELECT id FROM host", [], |row| parsed(row, "id"))
}

/// Records the host's own id.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_host_id(conn: &Connection, id: HostId, now: UnixMillis) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO host (id, created) VALUES (?, ?)",
        params![id.to_string(), now.0],
    )?;
    Ok(())
}
