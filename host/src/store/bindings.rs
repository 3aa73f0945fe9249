//! Plugins put to use.

use serde::{Deserialize, Serialize};
use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::Setting;
use sluice_protocol::ids::{BindingId, TenantId};
use sluice_protocol::report::Mode;

use super::StoreError;
use super::row::{all, change, from_json, parsed, time, to_json, unsigned, word};
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
pub fn insert(
    conn: &Connection,
    tenant: TenantId,
    binding: &BindingRow,
    by: &str,
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO bindings (id, tenant, component, plugin, settings, mode, tags, created, created_by)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            binding.id.to_string(),
            tenant.to_string(),
            binding.component.to_string(),
            &binding.plugin,
            to_json(&binding.settings)?,
            mode_word(binding.mode),
            to_json(&binding.tags)?,
            binding.created.0,
            by,
        ],
    )?;
    Ok(())
}

/// All bindings of a tenant, the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(conn: &Connection, tenant: TenantId) -> Result<Vec<BindingRow>, StoreError> {
    all(
        conn,
        "SELECT b.*, p.version, p.world, p.size, p.signature FROM bindings b
         JOIN plugins p ON p.tenant = b.tenant AND p.sha256 = b.component
         WHERE b.tenant = ? ORDER BY b.created, b.id",
        params![tenant.to_string()],
        read,
    )
}

/// Removes a binding, and gives it.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn remove(
    conn: &Connection,
    tenant: TenantId,
    id: BindingId,
) -> Result<Option<BindingRow>, StoreError> {
    let found = list(conn, tenant)?
        .into_iter()
        .find(|binding| binding.id == id);
    change(
        conn,
        "DELETE FROM bindings WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
    )?;
    Ok(found)
}

const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
}

fn read(row: &Row<'_>) -> Result<BindingRow, StoreError> {
    Ok(BindingRow {
        id: parsed(row, "id")?,
        component: parsed(row, "component")?,
        plugin: row.get("plugin")?,
        version: row.get("version")?,
        world: row.get("world")?,
        size: unsigned(row, "size")?,
        signature: row.get("signature")?,
        settings: from_json(row, "settings")?,
        mode: word(row, "mode", |word| {
            [Mode::Enforce, Mode::Monitor]
                .into_iter()
                .find(|mode| mode_word(*mode) == word)
        })?,
        tags: from_json(row, "tags")?,
        created: time(row, "created")?,
    })
}
