//! Plugins put to use.

use serde::{Deserialize, Serialize};
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::Setting;
use sluice_protocol::ids::{BindingId, TenantId};
use sluice_protocol::report::Mode;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::StoreError;
use super::row::{from_json, parsed, to_json, unsigned};
use crate::clock::UnixMillis;

/// A binding, with what it takes from its plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct BindingRow {
    /// Its id.
    pub id: BindingId,
    /// The digest of the component.
    pub component: Digest,
    /// The plugin's id.
    pub plugin: String,
    /// The plugin's version.
    pub version: String,
    /// The name of the plugin's world in WIT.
    pub world: String,
    /// The component's size.
    pub size: u64,
    /// The publisher's signature file.
    pub signature: Vec<u8>,
    /// Validated, with defaults, sorted by key.
    pub settings: Vec<Setting>,
    /// Whether it can block.
    pub mode: Mode,
    /// Only on machines that have all of these.
    pub tags: Vec<TagPair>,
    /// When it was bound.
    pub created: UnixMillis,
}

/// A tag, as a binding names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TagPair {
    /// The name.
    pub key: String,
    /// The value.
    pub value: String,
}

/// Stores a binding of an installed plugin.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn insert(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    binding: &BindingRow,
    by: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO bindings (id, tenant, component, plugin, settings, mode, tags, created, created_by)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(binding.id.to_string())
    .bind(tenant.to_string())
    .bind(binding.component.to_string())
    .bind(&binding.plugin)
    .bind(to_json(&binding.settings)?)
    .bind(mode_word(binding.mode))
    .bind(to_json(&binding.tags)?)
    .bind(binding.created.0)
    .bind(by)
    .execute(conn)
    .await?;
    Ok(())
}

/// All bindings of a tenant, the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<Vec<BindingRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT b.*, p.version, p.world, p.size, p.signature FROM bindings b
         JOIN plugins p ON p.tenant = b.tenant AND p.sha256 = b.component WHERE b.tenant = ? ORDER BY b.created, b.id",
    )
    .bind(tenant.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}

/// Removes a binding, and gives it.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn remove(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: BindingId,
) -> Result<Option<BindingRow>, StoreError> {
    let found = list(&mut *conn, tenant)
        .await?
        .into_iter()
        .find(|binding| binding.id == id);
    sqlx::query("DELETE FROM bindings WHERE tenant = ? AND id = ?")
        .bind(tenant.to_string())
        .bind(id.to_string())
        .execute(conn)
        .await?;
    Ok(found)
}

/// Whether a binding of the tenant names these bytes.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn names_component(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    sha256: Digest,
) -> Result<Vec<Vec<TagPair>>, StoreError> {
    let rows = sqlx::query("SELECT tags FROM bindings WHERE tenant = ? AND component = ?")
        .bind(tenant.to_string())
        .bind(sha256.to_string())
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| from_json(row, "tags")).collect()
}

const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
}

fn read(row: &SqliteRow) -> Result<BindingRow, StoreError> {
    let mode = match row.try_get::<&str, _>("mode")? {
        "enforce" => Mode::Enforce,
        "monitor" => Mode::Monitor,
        other => return Err(StoreError::Corrupt(format!("mode {other}"))),
    };
    Ok(BindingRow {
        id: parsed(row, "id")?,
        component: parsed(row, "component")?,
        plugin: row.try_get("plugin")?,
        version: row.try_get("version")?,
        world: row.try_get("world")?,
        size: unsigned(row, "size")?,
        signature: row.try_get("signature")?,
        settings: from_json(row, "settings")?,
        mode,
        tags: from_json(row, "tags")?,
        created: UnixMillis(row.try_get("created")?),
    })
}
