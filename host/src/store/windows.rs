//! Maintenance windows, and which of them jobs are held to.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::{JobId, TenantId};
use sluice_protocol::units::Span;
use uuid::Uuid;

use super::StoreError;
use super::bindings::TagPair;
use super::row::{
    all, change, exists, first, from_json, only, parsed, signed, time, to_json, unsigned,
};
use crate::clock::UnixMillis;

/// A window as it is stored. Zones and expressions are text here: what one version of the program can read, another may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowRow {
    /// Its id. One that was removed and added again has another.
    pub id: Uuid,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// When it opens: five fields.
    pub cron: String,
    /// How much later it closes.
    pub lasts: Span,
    /// The name of the zone whose clocks are meant.
    pub zone: String,
    /// Where nothing starts outside of it.
    pub scope: Scope,
    /// When it was added.
    pub created: UnixMillis,
    /// By whom.
    pub created_by: String,
}

/// On which machines nothing starts outside of a window, whether that was asked for or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// On none: it is there to be asked for.
    Asked,
    /// On those that have all of these tags.
    Tagged(Vec<TagPair>),
    /// On every machine of the tenant.
    Every,
}

impl Scope {
    /// Whether it is about a machine with these tags.
    #[must_use]
    pub fn has(&self, tags: &[TagPair]) -> bool {
        match self {
            Self::Asked => false,
            Self::Tagged(wanted) => wanted.iter().all(|tag| tags.contains(tag)),
            Self::Every => true,
        }
    }
}

/// Stores a window; says no where the tenant has one of that name.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, row: &WindowRow) -> Result<bool, StoreError> {
    let tags: &[TagPair] = match &row.scope {
        Scope::Tagged(tags) => tags,
        Scope::Asked | Scope::Every => &[],
    };
    Ok(change(
        conn,
        "INSERT INTO windows (id, tenant, name, cron, lasts, zone, tags, every_machine, created, created_by)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (tenant, name) WHERE removed IS NULL DO NOTHING",
        params![
            row.id.to_string(),
            row.tenant.to_string(),
            &row.name,
            &row.cron,
            signed(row.lasts.0),
            &row.zone,
            to_json(tags)?,
            row.scope == Scope::Every,
            row.created.0,
            &row.created_by,
        ],
    )? == 1)
}

/// How many windows a tenant has.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn count(conn: &Connection, tenant: TenantId) -> Result<u64, StoreError> {
    only(
        conn,
        "SELECT count(*) AS n FROM windows WHERE tenant = ? AND removed IS NULL",
        params![tenant.to_string()],
        |row| unsigned(row, "n"),
    )
}

/// The tenant's window of this name.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    name: &str,
) -> Result<Option<WindowRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM windows WHERE tenant = ? AND name = ? AND removed IS NULL",
        params![tenant.to_string(), name],
        read,
    )
}

/// The tenant's windows, by name.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(conn: &Connection, tenant: TenantId) -> Result<Vec<WindowRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM windows WHERE tenant = ? AND removed IS NULL ORDER BY name",
        params![tenant.to_string()],
        read,
    )
}

/// The tenant's windows outside of which nothing starts on some machines, by name.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn required(conn: &Connection, tenant: TenantId) -> Result<Vec<WindowRow>, StoreError> {
    let mut rows = list(conn, tenant)?;
    rows.retain(|row| row.scope != Scope::Asked);
    Ok(rows)
}

/// The windows of every tenant, and those that jobs which have not ended asked for before they were removed.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn in_use(conn: &Connection) -> Result<Vec<WindowRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM windows w WHERE removed IS NULL OR EXISTS
             (SELECT 1 FROM rollouts r JOIN job_windows j ON j.job = r.job WHERE r.state <> 'done' AND j.window = w.id)
         ORDER BY id",
        [],
        read,
    )
}

/// Removes a window; says no where there is none.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn remove(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "UPDATE windows SET removed = ? WHERE tenant = ? AND id = ? AND removed IS NULL",
        params![now.0, tenant.to_string(), id.to_string()],
    )? == 1)
}

/// Records that a job asked for a window.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn ask(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
    window: Uuid,
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO job_windows (job, tenant, window) VALUES (?, ?, ?)",
        params![job.to_string(), tenant.to_string(), window.to_string()],
    )?;
    Ok(())
}

/// The windows that the tenant's job asked for, also those that were removed since.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn asked_by(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<Vec<WindowRow>, StoreError> {
    all(
        conn,
        "SELECT w.* FROM job_windows j JOIN windows w ON w.id = j.window WHERE j.job = ? AND j.tenant = ? ORDER BY w.name",
        params![job.to_string(), tenant.to_string()],
        read,
    )
}

/// Records that a job runs outside of windows.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn ignore(conn: &Connection, tenant: TenantId, job: JobId) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE jobs SET ignores_windows = 1 WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), job.to_string()],
    )?;
    Ok(())
}

/// Whether a job runs outside of windows.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn are_ignored(conn: &Connection, tenant: TenantId, job: JobId) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM jobs WHERE tenant = ? AND id = ? AND ignores_windows = 1",
        params![tenant.to_string(), job.to_string()],
    )
}

/// Whether a tenant has a window that is about machines at all: what is asked before anything else.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn are_required(conn: &Connection, tenant: TenantId) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM windows WHERE tenant = ? AND removed IS NULL AND (every_machine = 1 OR tags <> '[]') LIMIT 1",
        params![tenant.to_string()],
    )
}

/// How many of the tenant's machines a scope is about.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn count_machines(
    conn: &Connection,
    tenant: TenantId,
    scope: &Scope,
) -> Result<u64, StoreError> {
    let tags: &[TagPair] = match scope {
        Scope::Asked => return Ok(0),
        Scope::Tagged(tags) => tags,
        Scope::Every => &[],
    };
    only(
        conn,
        "SELECT count(*) AS n FROM machines m WHERE tenant = ?1 AND revoked IS NULL AND pending IS NULL
             AND (SELECT count(*) FROM json_each(?2) w JOIN machine_tags t
                      ON t.machine = m.id AND t.key = w.value ->> 'key'
                      AND t.value = w.value ->> 'value')
                 = json_array_length(?2)",
        params![tenant.to_string(), to_json(tags)?],
        |row| unsigned(row, "n"),
    )
}

fn read(row: &Row<'_>) -> Result<WindowRow, StoreError> {
    let tags: Vec<TagPair> = from_json(row, "tags")?;
    let scope = match (row.get("every_machine")?, tags.is_empty()) {
        (true, _) => Scope::Every,
        (false, true) => Scope::Asked,
        (false, false) => Scope::Tagged(tags),
    };
    Ok(WindowRow {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        name: row.get("name")?,
        cron: row.get("cron")?,
        lasts: Span(unsigned(row, "lasts")?),
        zone: row.get("zone")?,
        scope,
        created: time(row, "created")?,
        created_by: row.get("created_by")?,
    })
}
