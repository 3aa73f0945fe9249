//! Components that passed admission. Their bytes are blobs of the tenant.

use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::StoreError;
use super::row::{parsed, signed, unsigned};
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
pub async fn insert(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    plugin: &PluginRow,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO plugins (tenant, sha256, id, version, vendor, world, description, manifest, publisher, minimum_version,
                              signature, size, installed)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (tenant, sha256) DO UPDATE SET signature = excluded.signature, publisher = excluded.publisher,
             minimum_version = excluded.minimum_version, installed = excluded.installed",
    )
    .bind(tenant.to_string())
    .bind(plugin.sha256.to_string())
    .bind(&plugin.id)
    .bind(&plugin.version)
    .bind(&plugin.vendor)
    .bind(&plugin.world)
    .bind(&plugin.description)
    .bind(&plugin.manifest)
    .bind(&plugin.publisher)
    .bind(&plugin.minimum_version)
    .bind(&plugin.signature)
    .bind(signed(plugin.size))
    .bind(plugin.installed.0)
    .execute(conn)
    .await?;
    Ok(())
}

/// The plugin with this digest.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn find(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    sha256: Digest,
) -> Result<Option<PluginRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM plugins WHERE tenant = ? AND sha256 = ?")
        .bind(tenant.to_string())
        .bind(sha256.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(|row| read(&row)).transpose()
}

/// All plugins with this id, the one installed last first.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn with_id(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: &str,
) -> Result<Vec<PluginRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM plugins WHERE tenant = ? AND id = ? ORDER BY installed DESC, sha256",
    )
    .bind(tenant.to_string())
    .bind(id)
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}

/// All plugins of a tenant, by id, the one installed last first.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<Vec<PluginRow>, StoreError> {
    let rows =
        sqlx::query("SELECT * FROM plugins WHERE tenant = ? ORDER BY id, installed DESC, sha256")
            .bind(tenant.to_string())
            .fetch_all(conn)
            .await?;
    rows.iter().map(read).collect()
}

fn read(row: &SqliteRow) -> Result<PluginRow, StoreError> {
    Ok(PluginRow {
        sha256: parsed(row, "sha256")?,
        id: row.try_get("id")?,
        version: row.try_get("version")?,
        vendor: row.try_get("vendor")?,
        world: row.try_get("world")?,
        description: row.try_get("description")?,
        manifest: row.try_get("manifest")?,
        publisher: row.try_get("publisher")?,
        minimum_version: row.try_get("minimum_version")?,
        signature: row.try_get("signature")?,
        size: unsigned(row, "size")?,
        installed: UnixMillis(row.try_get("installed")?),
    })
}
