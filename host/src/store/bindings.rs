//! Plugins put to use, and every revision of how they were.

use serde::{Deserialize, Serialize};
use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::{GateLimits, Setting};
use sluice_protocol::ids::{BindingId, TenantId};
use sluice_protocol::report::Mode;
use sluice_protocol::script::Language;

use super::StoreError;
use super::row::{
    all, change, exists, from_json, only, parsed, signed, time, to_json, unsigned, word,
};
use crate::clock::UnixMillis;

/// A binding as its active revision has it, with what it takes from its plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct BindingRow {
    /// Its id.
    pub id: BindingId,
    /// Which change of it this is, counted from 1.
    pub revision: u64,
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
    /// Only for scripts in one of these languages; for all where empty.
    pub languages: Vec<Language>,
    /// Lower than what the plugin asks for.
    pub limits: GateLimits,
    /// Within a stage the lower one comes first.
    pub position: u32,
    /// When it was first bound.
    pub created: UnixMillis,
    /// When this revision became the active one.
    pub revised: UnixMillis,
}

/// A tag, as a binding names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TagPair {
    /// The name.
    pub key: String,
    /// The value.
    pub value: String,
}

impl std::fmt::Display for TagPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// What has become of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevisionState {
    /// It is in force.
    Active,
    /// A later one is, or was.
    Replaced,
    /// It could not be put to use, for this reason, and the one before stayed.
    Failed(String),
    /// It was in force when the binding was ended.
    Ended,
}

/// One revision, as it is listed.
#[derive(Debug, Clone, PartialEq)]
pub struct RevisionRow {
    /// Counted from 1.
    pub revision: u64,
    /// The digest of the component.
    pub component: Digest,
    /// The plugin's version.
    pub version: String,
    /// Whether it can block.
    pub mode: Mode,
    /// What has become of it.
    pub state: RevisionState,
    /// When somebody asked for it.
    pub created: UnixMillis,
    /// Who did.
    pub created_by: String,
}

impl RevisionState {
    /// The word of it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Replaced => "replaced",
            Self::Failed(_) => "failed",
            Self::Ended => "ended",
        }
    }

    /// Why it failed.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Failed(reason) => Some(reason),
            _ => None,
        }
    }
}

/// Stores a binding of an installed plugin: a new one, or the next revision of one that is there, which is then replaced.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn put(
    conn: &Connection,
    tenant: TenantId,
    binding: &BindingRow,
    by: &str,
) -> Result<(), StoreError> {
    end(conn, tenant, binding.id, &RevisionState::Replaced)?;
    change(
        conn,
        "INSERT INTO bindings (id, tenant, component, plugin, settings, mode, tags, created, created_by,
                               revision, position, languages, limits)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET component = excluded.component, plugin = excluded.plugin,
             settings = excluded.settings, mode = excluded.mode, tags = excluded.tags, revision = excluded.revision,
             position = excluded.position, languages = excluded.languages, limits = excluded.limits",
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
            signed(binding.revision),
            binding.position,
            to_json(&binding.languages)?,
            to_json(&binding.limits)?,
        ],
    )?;
    record(conn, tenant, binding, &RevisionState::Active, by)
}

/// Records a revision and what has become of it.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn record(
    conn: &Connection,
    tenant: TenantId,
    binding: &BindingRow,
    state: &RevisionState,
    by: &str,
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO binding_revisions (tenant, binding, revision, component, plugin, settings, mode, tags, languages,
                                        limits, position, state, reason, created, created_by)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            tenant.to_string(),
            binding.id.to_string(),
            signed(binding.revision),
            binding.component.to_string(),
            &binding.plugin,
            to_json(&binding.settings)?,
            mode_word(binding.mode),
            to_json(&binding.tags)?,
            to_json(&binding.languages)?,
            to_json(&binding.limits)?,
            binding.position,
            state.as_str(),
            state.reason(),
            binding.revised.0,
            by,
        ],
    )?;
    Ok(())
}

/// All bindings of a tenant, in the order of their positions, then the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(conn: &Connection, tenant: TenantId) -> Result<Vec<BindingRow>, StoreError> {
    all(
        conn,
        "SELECT b.*, p.version, p.world, p.size, p.signature, r.created AS revised FROM bindings b
         JOIN plugins p ON p.tenant = b.tenant AND p.sha256 = b.component
         JOIN binding_revisions r ON r.tenant = b.tenant AND r.binding = b.id AND r.revision = b.revision
         WHERE b.tenant = ? ORDER BY b.position, b.created, b.id",
        params![tenant.to_string()],
        read,
    )
}

/// One binding.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    id: BindingId,
) -> Result<Option<BindingRow>, StoreError> {
    // A tenant has few: their number has a limit.
    let all = list(conn, tenant)?;
    Ok(all.into_iter().find(|binding| binding.id == id))
}

/// Whether a component is put to use by a binding.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn any_is_of(
    conn: &Connection,
    tenant: TenantId,
    component: Digest,
) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM bindings WHERE tenant = ? AND component = ?",
        params![tenant.to_string(), component.to_string()],
    )
}

/// The number that the next revision of a binding has.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn next_revision(
    conn: &Connection,
    tenant: TenantId,
    id: BindingId,
) -> Result<u64, StoreError> {
    only(
        conn,
        "SELECT COALESCE(MAX(revision), 0) + 1 AS next FROM binding_revisions WHERE tenant = ? AND binding = ?",
        params![tenant.to_string(), id.to_string()],
        |row| unsigned(row, "next"),
    )
}

/// The revisions of a binding, also of one that was ended, the newest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn revisions(
    conn: &Connection,
    tenant: TenantId,
    id: BindingId,
    limit: u32,
) -> Result<Vec<RevisionRow>, StoreError> {
    all(
        conn,
        "SELECT r.*, p.version FROM binding_revisions r
         JOIN plugins p ON p.tenant = r.tenant AND p.sha256 = r.component
         WHERE r.tenant = ? AND r.binding = ? ORDER BY r.revision DESC LIMIT ?",
        params![tenant.to_string(), id.to_string(), limit],
        read_revision,
    )
}

/// What publishers said of the versions of a plugin that were put to use here as gates that block: the minimum versions in
/// their signatures.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn minimum_versions(
    conn: &Connection,
    tenant: TenantId,
    plugin: &str,
) -> Result<Vec<String>, StoreError> {
    all(
        conn,
        "SELECT DISTINCT p.minimum_version FROM binding_revisions r
         JOIN plugins p ON p.tenant = r.tenant AND p.sha256 = r.component
         WHERE r.tenant = ? AND r.plugin = ? AND r.mode = 'enforce' AND r.state <> 'failed'
           AND p.minimum_version IS NOT NULL",
        params![tenant.to_string(), plugin],
        |row| Ok(row.get("minimum_version")?),
    )
}

/// Ends a binding, and gives it. Its revisions stay.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn remove(
    conn: &Connection,
    tenant: TenantId,
    id: BindingId,
) -> Result<Option<BindingRow>, StoreError> {
    let found = find(conn, tenant, id)?;
    end(conn, tenant, id, &RevisionState::Ended)?;
    change(
        conn,
        "DELETE FROM bindings WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
    )?;
    Ok(found)
}

/// The active revision of a binding is it no more.
fn end(
    conn: &Connection,
    tenant: TenantId,
    id: BindingId,
    state: &RevisionState,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE binding_revisions SET state = ? WHERE tenant = ? AND binding = ? AND state = 'active'",
        params![state.as_str(), tenant.to_string(), id.to_string()],
    )?;
    Ok(())
}

const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
}

fn mode(row: &Row<'_>) -> Result<Mode, StoreError> {
    word(row, "mode", |word| {
        [Mode::Enforce, Mode::Monitor]
            .into_iter()
            .find(|mode| mode_word(*mode) == word)
    })
}

fn read(row: &Row<'_>) -> Result<BindingRow, StoreError> {
    Ok(BindingRow {
        id: parsed(row, "id")?,
        revision: unsigned(row, "revision")?,
        component: parsed(row, "component")?,
        plugin: row.get("plugin")?,
        version: row.get("version")?,
        world: row.get("world")?,
        size: unsigned(row, "size")?,
        signature: row.get("signature")?,
        settings: from_json(row, "settings")?,
        mode: mode(row)?,
        tags: from_json(row, "tags")?,
        languages: from_json(row, "languages")?,
        limits: from_json(row, "limits")?,
        position: row.get("position")?,
        created: time(row, "created")?,
        revised: time(row, "revised")?,
    })
}

fn read_revision(row: &Row<'_>) -> Result<RevisionRow, StoreError> {
    let reason: Option<String> = row.get("reason")?;
    Ok(RevisionRow {
        revision: unsigned(row, "revision")?,
        component: parsed(row, "component")?,
        version: row.get("version")?,
        mode: mode(row)?,
        state: word(row, "state", |word| {
            Some(match word {
                "active" => RevisionState::Active,
                "replaced" => RevisionState::Replaced,
                "failed" => RevisionState::Failed(reason.unwrap_or_default()),
                "ended" => RevisionState::Ended,
                _ => return None,
            })
        })?,
        created: time(row, "created")?,
        created_by: row.get("created_by")?,
    })
}
