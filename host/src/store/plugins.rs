//! Components that passed admission. Their bytes are blobs of the tenant.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;

use super::StoreError;
use super::row::{all, change, first, parsed, signed, time, unsigned};
use crate::clock::UnixMillis;

/// An installed plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginRow {
    /// The digest of the component.
    pub sha256: Digest,
    /// The id in its manifest.
    pub id: String,
    /// The version in its manifest.
    pub version: String,
    /// The vendor in its manifest.
    pub vendor: String,
    /// The name of its world in WIT.
    pub world: String,
    /// The description in its manifest.
    pub description: String,
    /// The manifest's text.
    pub manifest: String,
    /// Who signed it.
    pub publisher: String,
    /// Whoever takes this version takes none below this one afterwards.
    pub minimum_version: Option<String>,
    /// The signature file.
    pub signature: Vec<u8>,
    /// In bytes.
    pub size: u64,
    /// When it was installed.
    pub installed: UnixMillis,
}

/// Stores a plugin; one that is there already gets the newer signature.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, tenant: TenantId, plugin: &PluginRow) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO plugins (tenant, sha256, id, version, vendor, world, description, manifest,
                              publisher, minimum_version, signature, size, installed)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (tenant, sha256) DO UPDATE SET signature = excluded.signature,
             publisher = excluded.publisher, minimum_version = excluded.minimum_version,
             installed = excluded.installed",
        params![
            tenant.to_string(),
            plugin.sha256.to_string(),
            &plugin.id,
            &plugin.version,
            &plugin.vendor,
            &plugin.world,
            &plugin.description,
            &plugin.manifest,
            &plugin.publisher,
            &plugin.minimum_version,
            &plugin.signature,
            signed(plugin.size),
            plugin.installed.0,
        ],
    )?;
    Ok(())
}

/// The plugin with this digest.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    sha256: Digest,
) -> Result<Option<PluginRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM plugins WHERE tenant = ? AND sha256 = ?",
        params![tenant.to_string(), sha256.to_string()],
        read,
    )
}

/// All plugins with this id, the one installed last first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn with_id(
    conn: &Connection,
    tenant: TenantId,
    id: &str,
) -> Result<Vec<PluginRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM plugins WHERE tenant = ? AND id = ? ORDER BY installed DESC, sha256",
        params![tenant.to_string(), id],
        read,
    )
}

/// All plugins of a tenant, by id, the one installed last first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(conn: &Connection, tenant: TenantId) -> Result<Vec<PluginRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM plugins WHERE tenant = ? ORDER BY id, installed DESC, sha256",
        params![tenant.to_string()],
        read,
    )
}

fn read(row: &Row<'_>) -> Result<PluginRow, StoreError> {
    Ok(PluginRow {
        sha256: parsed(row, "sha256")?,
        id: row.get("id")?,
        version: row.get("version")?,
        vendor: row.get("vendor")?,
        world: row.get("world")?,
        description: row.get("description")?,
        manifest: row.get("manifest")?,
        publisher: row.get("publisher")?,
        minimum_version: row.get("minimum_version")?,
        signature: row.get("signature")?,
        size: unsigned(row, "size")?,
        installed: time(row, "installed")?,
    })
}
