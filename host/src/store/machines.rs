//! Machines and their tags.

use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{MachineId, TenantId};
use sluice_protocol::message::control::Fact;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::bindings::TagPair;
use super::row::{from_json, parsed, signed, to_json};
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
pub async fn insert(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: MachineId,
    name: &str,
    facts: &[Fact],
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO machines (id, tenant, name, enrolled, facts) VALUES (?, ?, ?, ?, ?)")
        .bind(id.to_string())
        .bind(tenant.to_string())
        .bind(name)
        .bind(now.0)
        .bind(to_json(facts)?)
        .execute(conn)
        .await?;
    Ok(())
}

/// The machine with this id, revoked or not.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn find(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: MachineId,
) -> Result<Option<MachineRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM machines WHERE tenant = ? AND id = ?")
        .bind(tenant.to_string())
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(|row| read(&row)).transpose()
}

/// The machine that is not revoked and has this name, or else this id.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn find_live(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    name_or_id: &str,
) -> Result<Option<MachineRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM machines WHERE tenant = ?1 AND revoked IS NULL AND (name = ?2 OR id = ?2) ORDER BY name = ?2 DESC LIMIT 1")
        .bind(tenant.to_string())
        .bind(name_or_id)
        .fetch_optional(conn)
        .await?;
    row.map(|row| read(&row)).transpose()
}

/// Whether a machine that is not revoked has this name.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn name_is_taken(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    name: &str,
) -> Result<bool, StoreError> {
    let row =
        sqlx::query("SELECT 1 FROM machines WHERE tenant = ? AND name = ? AND revoked IS NULL")
            .bind(tenant.to_string())
            .bind(name)
            .fetch_optional(conn)
            .await?;
    Ok(row.is_some())
}

/// Machines by name; those with `tag` alone where one is given. The key of a page is the name, then the id.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    tag: Option<&TagPair>,
    page: &Page,
) -> Result<Vec<MachineRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM machines m WHERE tenant = ?1 AND name || '/' || id > ?2
             AND (?3 IS NULL OR EXISTS (SELECT 1 FROM machine_tags t WHERE t.machine = m.id AND t.key = ?3 AND t.value = ?4))
         ORDER BY name || '/' || id LIMIT ?5",
    )
    .bind(tenant.to_string())
    .bind(&page.after)
    .bind(tag.map(|tag| tag.key.as_str()))
    .bind(tag.map(|tag| tag.value.as_str()))
    .bind(page.limit)
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}

/// Every machine that is not revoked and has all of `tags`, by name.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn with_tags(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    tags: &[TagPair],
) -> Result<Vec<MachineRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM machines m WHERE tenant = ?1 AND revoked IS NULL
             AND (SELECT count(*) FROM json_each(?2) w JOIN machine_tags t
                      ON t.machine = m.id AND t.key = w.value ->> 'key' AND t.value = w.value ->> 'value') = json_array_length(?2)
         ORDER BY name",
    )
    .bind(tenant.to_string())
    .bind(to_json(tags)?)
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}

/// Gives a machine another name. The caller has seen that it is free.
///
/// # Errors
///
/// Where the name is taken after all.
pub async fn rename(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: MachineId,
    name: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE machines SET name = ? WHERE tenant = ? AND id = ?")
        .bind(name)
        .bind(tenant.to_string())
        .bind(id.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Records that a machine is revoked.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn revoke(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: MachineId,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE machines SET revoked = ? WHERE tenant = ? AND id = ? AND revoked IS NULL",
    )
    .bind(now.0)
    .bind(tenant.to_string())
    .bind(id.to_string())
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Records what a machine said when it connected.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn set_hello(
    conn: &mut SqliteConnection,
    id: MachineId,
    software: &str,
    facts: &[Fact],
    ledger_head: Option<Digest>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE machines SET software = ?, facts = ?, ledger_head = ?, last_seen = ? WHERE id = ?",
    )
    .bind(software)
    .bind(to_json(facts)?)
    .bind(ledger_head.map(|digest| digest.to_string()))
    .bind(now.0)
    .bind(id.to_string())
    .execute(conn)
    .await?;
    Ok(())
}

/// Records what a machine says about itself.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn set_facts(
    conn: &mut SqliteConnection,
    id: MachineId,
    facts: &[Fact],
) -> Result<(), StoreError> {
    sqlx::query("UPDATE machines SET facts = ? WHERE id = ?")
        .bind(to_json(facts)?)
        .bind(id.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Records what a machine said about a gate set.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn set_gates(
    conn: &mut SqliteConnection,
    id: MachineId,
    revision: u64,
    problems: &[String],
) -> Result<(), StoreError> {
    sqlx::query("UPDATE machines SET gates_revision = ?, gates_problems = ? WHERE id = ?")
        .bind(signed(revision))
        .bind(to_json(problems)?)
        .bind(id.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Records when a machine was last connected.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn set_last_seen(
    conn: &mut SqliteConnection,
    id: MachineId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE machines SET last_seen = ? WHERE id = ?")
        .bind(now.0)
        .bind(id.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// A machine's tags, sorted by key.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn tags(conn: &mut SqliteConnection, id: MachineId) -> Result<Vec<TagPair>, StoreError> {
    let rows = sqlx::query("SELECT key, value FROM machine_tags WHERE machine = ? ORDER BY key")
        .bind(id.to_string())
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(TagPair {
                key: row.try_get("key")?,
                value: row.try_get("value")?,
            })
        })
        .collect()
}

/// Adds a tag, or gives it another value.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn set_tag(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: MachineId,
    tag: &TagPair,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO machine_tags (tenant, machine, key, value) VALUES (?, ?, ?, ?)
         ON CONFLICT (machine, key) DO UPDATE SET value = excluded.value",
    )
    .bind(tenant.to_string())
    .bind(id.to_string())
    .bind(&tag.key)
    .bind(&tag.value)
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes a tag.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn remove_tag(
    conn: &mut SqliteConnection,
    id: MachineId,
    key: &str,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM machine_tags WHERE machine = ? AND key = ?")
        .bind(id.to_string())
        .bind(key)
        .execute(conn)
        .await?;
    Ok(())
}

fn read(row: &SqliteRow) -> Result<MachineRow, StoreError> {
    Ok(MachineRow {
        id: parsed(row, "id")?,
        name: row.try_get("name")?,
        enrolled: UnixMillis(row.try_get("enrolled")?),
        last_seen: row.try_get::<Option<i64>, _>("last_seen")?.map(UnixMillis),
        revoked: row.try_get::<Option<i64>, _>("revoked")?.map(UnixMillis),
        software: row.try_get("software")?,
        facts: from_json(row, "facts")?,
        gates_problems: from_json(row, "gates_problems")?,
    })
}
