//! Machines and their tags.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::{MachineId, TenantId};
use sluice_protocol::message::control::Fact;

use super::bindings::TagPair;
use super::history::{self, Quarantine};
use super::row::{
    all, change, each, exists, first, from_json, parsed, signed, time, time_or_null, to_json,
    unsigned_or_null,
};
use super::{Page, StoreError};
use crate::clock::UnixMillis;

/// A machine, without its tags.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineRow {
    /// Its id, which never changes.
    pub id: MachineId,
    /// Its name, unique among the tenant's machines that are not revoked.
    pub name: String,
    /// When it joined.
    pub enrolled: UnixMillis,
    /// When it was last connected.
    pub last_seen: Option<UnixMillis>,
    /// When it was revoked.
    pub revoked: Option<UnixMillis>,
    /// Since when it waits for somebody to approve it; none where it does not.
    pub pending: Option<UnixMillis>,
    /// The version of its agent.
    pub software: Option<String>,
    /// What it says about itself.
    pub facts: Vec<Fact>,
    /// What it said about gates that it could not take in.
    pub gates_problems: Vec<String>,
}

/// Stores a new machine.
///
/// # Errors
///
/// Where the name is taken.
pub fn insert(
    conn: &Connection,
    tenant: TenantId,
    id: MachineId,
    name: &str,
    facts: &[Fact],
    now: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO machines (id, tenant, name, enrolled, facts) VALUES (?, ?, ?, ?, ?)",
        params![
            id.to_string(),
            tenant.to_string(),
            name,
            now.0,
            to_json(facts)?
        ],
    )?;
    Ok(())
}

/// The machine with this id, revoked or not.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    id: MachineId,
) -> Result<Option<MachineRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM machines WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
        read,
    )
}

/// Whether the machine with this id was revoked, or there is none.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn is_revoked(conn: &Connection, tenant: TenantId, id: MachineId) -> Result<bool, StoreError> {
    let there = exists(
        conn,
        "SELECT 1 FROM machines WHERE tenant = ? AND id = ? AND revoked IS NULL",
        params![tenant.to_string(), id.to_string()],
    )?;
    Ok(!there)
}

/// What of a machine may keep an operation waiting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readiness {
    /// When it was last connected.
    pub last_seen: Option<UnixMillis>,
    /// Since when nothing is done for it, and why.
    pub quarantine: Option<Quarantine>,
    /// The revision of the gates that it spoke of last.
    pub gates_revision: Option<u64>,
    /// What it said about gates of that revision that it could not take in.
    pub gates_problems: Vec<String>,
}

/// What of the machine with this id may keep an operation waiting; none where there is no such machine.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn readiness(
    conn: &Connection,
    tenant: TenantId,
    id: MachineId,
) -> Result<Option<Readiness>, StoreError> {
    first(
        conn,
        "SELECT last_seen, quarantined, quarantine_reason, gates_revision, gates_problems
         FROM machines WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
        |row| {
            Ok(Readiness {
                last_seen: time_or_null(row, "last_seen")?,
                quarantine: history::quarantine_of(row)?,
                gates_revision: unsigned_or_null(row, "gates_revision")?,
                gates_problems: from_json(row, "gates_problems")?,
            })
        },
    )
}

/// The machine that is not revoked and has this id, or else this name. Nothing that looks like an id is a name
/// (`fleet/name.rs`).
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find_live(
    conn: &Connection,
    tenant: TenantId,
    name_or_id: &str,
) -> Result<Option<MachineRow>, StoreError> {
    // Two lookups: asked for both at once, SQLite would walk through all machines of the tenant.
    if name_or_id.parse::<MachineId>().is_ok() {
        return first(
            conn,
            "SELECT * FROM machines WHERE tenant = ? AND id = ? AND revoked IS NULL",
            params![tenant.to_string(), name_or_id],
            read,
        );
    }
    first(
        conn,
        "SELECT * FROM machines WHERE tenant = ? AND name = ? AND revoked IS NULL",
        params![tenant.to_string(), name_or_id],
        read,
    )
}

/// Whether a machine that is not revoked has this name.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn name_is_taken(conn: &Connection, tenant: TenantId, name: &str) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM machines WHERE tenant = ? AND name = ? AND revoked IS NULL",
        params![tenant.to_string(), name],
    )
}

/// Machines by name; those with `tag` alone where one is given. The key of a page is the name, then the id.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(
    conn: &Connection,
    tenant: TenantId,
    tag: Option<&TagPair>,
    page: &Page,
) -> Result<Vec<MachineRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM machines m WHERE tenant = ?1 AND name || '/' || id > ?2
             AND (?3 IS NULL OR EXISTS (SELECT 1 FROM machine_tags t
                                        WHERE t.machine = m.id AND t.key = ?3 AND t.value = ?4))
         ORDER BY name || '/' || id LIMIT ?5",
        params![
            tenant.to_string(),
            &page.after,
            tag.map(|tag| tag.key.as_str()),
            tag.map(|tag| tag.value.as_str()),
            page.limit,
        ],
        read,
    )
}

/// The tags of a machine as roles and scripts know them, `key=value`, in order.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn words_of_tags(conn: &Connection, machine: MachineId) -> Result<Vec<String>, StoreError> {
    let tags = tags(conn, machine)?;
    Ok(tags.iter().map(ToString::to_string).collect())
}

/// Every machine that is not revoked, waits for no approval and has all of `tags`, by name.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn each_with_tags<E: From<StoreError>>(
    conn: &Connection,
    tenant: TenantId,
    tags: &[TagPair],
    found: impl FnMut(MachineRow) -> Result<(), E>,
) -> Result<(), E> {
    each(
        conn,
        "SELECT * FROM machines m WHERE tenant = ?1 AND revoked IS NULL AND pending IS NULL
             AND (SELECT count(*) FROM json_each(?2) w JOIN machine_tags t
                      ON t.machine = m.id AND t.key = w.value ->> 'key'
                      AND t.value = w.value ->> 'value')
                 = json_array_length(?2)
         ORDER BY name",
        params![tenant.to_string(), to_json(tags)?],
        read,
        found,
    )
}

/// Gives a machine another name. The caller has seen that it is free.
///
/// # Errors
///
/// Where the name is taken after all.
pub fn rename(
    conn: &Connection,
    tenant: TenantId,
    id: MachineId,
    name: &str,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE machines SET name = ? WHERE tenant = ? AND id = ?",
        params![name, tenant.to_string(), id.to_string()],
    )?;
    Ok(())
}

/// Records that a machine is revoked.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn revoke(
    conn: &Connection,
    tenant: TenantId,
    id: MachineId,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "UPDATE machines SET revoked = ? WHERE tenant = ? AND id = ? AND revoked IS NULL",
        params![now.0, tenant.to_string(), id.to_string()],
    )? == 1)
}

/// Has a machine wait for somebody to approve it, or ends that.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_pending(
    conn: &Connection,
    tenant: TenantId,
    id: MachineId,
    since: Option<UnixMillis>,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE machines SET pending = ? WHERE tenant = ? AND id = ?",
        params![since.map(|at| at.0), tenant.to_string(), id.to_string()],
    )?;
    Ok(())
}

/// Records what a machine said when it connected.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_hello(
    conn: &Connection,
    id: MachineId,
    software: &str,
    facts: &[Fact],
    now: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE machines SET software = ?, facts = ?, last_seen = ? WHERE id = ?",
        params![software, to_json(facts)?, now.0, id.to_string()],
    )?;
    Ok(())
}

/// Records what a machine says about itself.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_facts(conn: &Connection, id: MachineId, facts: &[Fact]) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE machines SET facts = ? WHERE id = ?",
        params![to_json(facts)?, id.to_string()],
    )?;
    Ok(())
}

/// Records what a machine said about a gate set.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_gates(
    conn: &Connection,
    id: MachineId,
    revision: u64,
    problems: &[String],
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE machines SET gates_revision = ?, gates_problems = ? WHERE id = ?",
        params![signed(revision), to_json(problems)?, id.to_string()],
    )?;
    Ok(())
}

/// Records when a machine was last connected.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_last_seen(conn: &Connection, id: MachineId, now: UnixMillis) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE machines SET last_seen = ? WHERE id = ?",
        params![now.0, id.to_string()],
    )?;
    Ok(())
}

/// A machine's tags, sorted by key.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn tags(conn: &Connection, id: MachineId) -> Result<Vec<TagPair>, StoreError> {
    all(
        conn,
        "SELECT key, value FROM machine_tags WHERE machine = ? ORDER BY key",
        params![id.to_string()],
        |row| {
            Ok(TagPair {
                key: row.get("key")?,
                value: row.get("value")?,
            })
        },
    )
}

/// Adds a tag, or gives it another value.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_tag(
    conn: &Connection,
    tenant: TenantId,
    id: MachineId,
    tag: &TagPair,
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO machine_tags (tenant, machine, key, value) VALUES (?, ?, ?, ?)
         ON CONFLICT (machine, key) DO UPDATE SET value = excluded.value",
        params![tenant.to_string(), id.to_string(), &tag.key, &tag.value],
    )?;
    Ok(())
}

/// Removes a tag.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn remove_tag(conn: &Connection, id: MachineId, key: &str) -> Result<(), StoreError> {
    change(
        conn,
        "DELETE FROM machine_tags WHERE machine = ? AND key = ?",
        params![id.to_string(), key],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<MachineRow, StoreError> {
    Ok(MachineRow {
        id: parsed(row, "id")?,
        name: row.get("name")?,
        enrolled: time(row, "enrolled")?,
        last_seen: time_or_null(row, "last_seen")?,
        revoked: time_or_null(row, "revoked")?,
        pending: time_or_null(row, "pending")?,
        software: row.get("software")?,
        facts: from_json(row, "facts")?,
        gates_problems: from_json(row, "gates_problems")?,
    })
}
