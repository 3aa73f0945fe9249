//! Versions of the provider's scripts that its customers may run.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;
use uuid::Uuid;

use super::StoreError;
use super::row::{
    all, change, exists, first, parsed, parsed_or_null, signed, time, time_or_null, unsigned,
};
use crate::clock::UnixMillis;
use crate::library::{ScriptName, VersionId};

/// An offer as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferRow {
    /// Its id.
    pub id: Uuid,
    /// The version, as the provider's library has it.
    pub version: VersionId,
    /// Of its bytes.
    pub script_sha256: Digest,
    /// To which customer; to all where there is none.
    pub tenant: Option<TenantId>,
    /// When it was made.
    pub created: UnixMillis,
    /// Which operator of the provider made it.
    pub created_by: String,
    /// When it was withdrawn.
    pub withdrawn: Option<UnixMillis>,
}

/// Stores an offer.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, offer: &OfferRow) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO offers (id, script, version, script_sha256, tenant, created, created_by) VALUES (?, ?, ?, ?, ?, ?, ?)",
        params![
            offer.id.to_string(),
            offer.version.name.as_str(),
            signed(offer.version.version),
            offer.script_sha256.to_string(),
            offer.tenant.map(|id| id.to_string()),
            offer.created.0,
            &offer.created_by,
        ],
    )?;
    Ok(())
}

/// The offer with this id.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(conn: &Connection, id: Uuid) -> Result<Option<OfferRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM offers WHERE id = ?",
        params![id.to_string()],
        read,
    )
}

/// All offers, the oldest first, with those that were withdrawn.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(conn: &Connection) -> Result<Vec<OfferRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM offers ORDER BY created, id",
        params![],
        read,
    )
}

/// The offers that hold for a customer, the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn open_for(conn: &Connection, tenant: TenantId) -> Result<Vec<OfferRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM offers WHERE withdrawn IS NULL AND (tenant IS NULL OR tenant = ?) ORDER BY created, id",
        params![tenant.to_string()],
        read,
    )
}

/// Whether a customer may run a version of the provider's; `version` is named as the provider's library has it.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn holds(conn: &Connection, tenant: TenantId, version: &VersionId) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM offers WHERE script = ? AND version = ? AND withdrawn IS NULL AND (tenant IS NULL OR tenant = ?)",
        params![
            version.name.as_str(),
            signed(version.version),
            tenant.to_string()
        ],
    )
}

/// The newest version of the provider's script that a customer may run.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn newest(
    conn: &Connection,
    tenant: TenantId,
    script: &ScriptName,
) -> Result<Option<u64>, StoreError> {
    Ok(versions(conn, tenant, script)?.pop())
}

/// The versions of the provider's script that a customer may run, the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn versions(
    conn: &Connection,
    tenant: TenantId,
    script: &ScriptName,
) -> Result<Vec<u64>, StoreError> {
    all(
        conn,
        "SELECT DISTINCT version FROM offers WHERE script = ? AND withdrawn IS NULL AND (tenant IS NULL OR tenant = ?)
         ORDER BY version",
        params![script.as_str(), tenant.to_string()],
        |row| unsigned(row, "version"),
    )
}

/// Withdraws an offer; says no where that is done.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn withdraw(conn: &Connection, id: Uuid, now: UnixMillis) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "UPDATE offers SET withdrawn = ? WHERE id = ? AND withdrawn IS NULL",
        params![now.0, id.to_string()],
    )? == 1)
}

fn read(row: &Row<'_>) -> Result<OfferRow, StoreError> {
    Ok(OfferRow {
        id: parsed(row, "id")?,
        version: VersionId {
            name: parsed(row, "script")?,
            version: unsigned(row, "version")?,
        },
        script_sha256: parsed(row, "script_sha256")?,
        tenant: parsed_or_null(row, "tenant")?,
        created: time(row, "created")?,
        created_by: row.get("created_by")?,
        withdrawn: time_or_null(row, "withdrawn")?,
    })
}
