//! The script library. Versions are added and erased, never changed: the file itself refuses that.

use sluice_api_types::script::{Parameter, Requires};
use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::bundle::{Confinement, Limits, Variable};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, TenantId};
use sluice_protocol::units::{ByteSize, Span};

use super::StoreError;
use super::row::{
    Page, all, change, exists, first, from_json, parsed, parsed_or_null, signed, time,
    time_or_null, to_json, unsigned, unsigned_or_null,
};
use crate::clock::UnixMillis;
use crate::library::{ScriptName, VersionId};

/// A script, without its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptRow {
    /// Its name.
    pub name: ScriptName,
    /// When its first version was added.
    pub created: UnixMillis,
    /// Who added that.
    pub created_by: String,
    /// When it was archived.
    pub archived: Option<UnixMillis>,
    /// Who archived it.
    pub archived_by: Option<String>,
}

/// A version of a script, without its text.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionRow {
    /// Which one.
    pub id: VersionId,
    /// Of the bytes added.
    pub script_sha256: Digest,
    /// In bytes.
    pub size: u64,
    /// What was added with the bytes.
    pub settings: Settings,
    /// What its header or entry declares; none once the text is erased.
    pub declared: Option<Declared>,
    /// When it was added.
    pub created: UnixMillis,
    /// Who added it.
    pub created_by: String,
    /// When its text was erased.
    pub redacted: Option<UnixMillis>,
    /// Who erased it.
    pub redacted_by: Option<String>,
}

/// What a version has besides its text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// For people.
    pub description: String,
    /// Wins over the `#!` line.
    pub interpreter: Option<String>,
    /// The systems it is for; any where empty.
    pub os: Vec<String>,
    /// The user, where a job does not ask for one.
    pub run_as: Option<String>,
    /// Where a job asks for none.
    pub limits: Limits,
    /// What is kept from it at least.
    pub confinement: Option<Confinement>,
    /// What a job starts from.
    pub environment: Vec<Variable>,
}

/// What a version has that can be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The bytes added.
    pub script: Vec<u8>,
    /// What the entry declares of it, as TOML; none where a header block does, or nothing.
    pub declaration: Option<String>,
}

/// What a header or an entry declares.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Declared {
    /// In their order.
    pub parameters: Vec<Parameter>,
    /// Of a machine, besides its system.
    pub requires: Requires,
}

/// A query for [`VersionRow`]s. It names their columns, because the text may be large.
macro_rules! versions {
    ($which:literal) => {
        concat!(
            "SELECT name, version, description, script_sha256, size, interpreter, os, run_as, time_limit,
                    output_limit, memory_limit, confinement, environment, created, created_by, declared, redacted,
                    redacted_by
             FROM script_versions ",
            $which
        )
    };
}

/// Stores a script that has no versions yet.
///
/// # Errors
///
/// Where the database cannot be written, or there is one of that name.
pub fn insert(conn: &Connection, tenant: TenantId, script: &ScriptRow) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO scripts (tenant, name, created, created_by) VALUES (?, ?, ?, ?)",
        params![
            tenant.to_string(),
            script.name.as_str(),
            script.created.0,
            &script.created_by,
        ],
    )?;
    Ok(())
}

/// Stores a version.
///
/// # Errors
///
/// Where the database cannot be written, or the version is there.
pub fn insert_version(
    conn: &Connection,
    tenant: TenantId,
    row: &VersionRow,
    text: &Text,
) -> Result<(), StoreError> {
    let settings = &row.settings;
    change(
        conn,
        "INSERT INTO script_versions (tenant, name, version, description, script_sha256, size, interpreter, os,
                                      run_as, time_limit, output_limit, memory_limit, confinement, environment, created,
                                      created_by, declared, declaration, script)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            tenant.to_string(),
            row.id.name.as_str(),
            signed(row.id.version),
            &settings.description,
            row.script_sha256.to_string(),
            signed(row.size),
            &settings.interpreter,
            to_json(&settings.os)?,
            &settings.run_as,
            settings.limits.time.map(|span| signed(span.0)),
            settings.limits.output.map(|size| signed(size.0)),
            settings.limits.memory.map(|size| signed(size.0)),
            settings.confinement.map(Confinement::as_str),
            to_json(&settings.environment)?,
            row.created.0,
            &row.created_by,
            row.declared.as_ref().map(to_json).transpose()?,
            &text.declaration,
            &text.script,
        ],
    )?;
    Ok(())
}

/// The script with this name.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    name: &ScriptName,
) -> Result<Option<ScriptRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM scripts WHERE tenant = ? AND name = ?",
        params![tenant.to_string(), name.as_str()],
        read,
    )
}

/// Scripts by name.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(
    conn: &Connection,
    tenant: TenantId,
    page: &Page,
) -> Result<Vec<ScriptRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM scripts WHERE tenant = ? AND name > ? ORDER BY name LIMIT ?",
        params![tenant.to_string(), &page.after, page.limit],
        read,
    )
}

/// This version.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn version(
    conn: &Connection,
    tenant: TenantId,
    id: &VersionId,
) -> Result<Option<VersionRow>, StoreError> {
    first(
        conn,
        versions!("WHERE tenant = ? AND name = ? AND version = ?"),
        params![tenant.to_string(), id.name.as_str(), signed(id.version)],
        read_version,
    )
}

/// The newest version of a script.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn latest(
    conn: &Connection,
    tenant: TenantId,
    name: &ScriptName,
) -> Result<Option<VersionRow>, StoreError> {
    first(
        conn,
        versions!("WHERE tenant = ? AND name = ? ORDER BY version DESC LIMIT 1"),
        params![tenant.to_string(), name.as_str()],
        read_version,
    )
}

/// The versions of a script after `after`, the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn versions(
    conn: &Connection,
    tenant: TenantId,
    name: &ScriptName,
    after: u64,
    limit: u32,
) -> Result<Vec<VersionRow>, StoreError> {
    all(
        conn,
        versions!("WHERE tenant = ? AND name = ? AND version > ? ORDER BY version LIMIT ?"),
        params![tenant.to_string(), name.as_str(), signed(after), limit],
        read_version,
    )
}

/// Every version with these bytes, of whatever script.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn with_text(
    conn: &Connection,
    tenant: TenantId,
    script_sha256: Digest,
) -> Result<Vec<VersionRow>, StoreError> {
    all(
        conn,
        versions!("WHERE tenant = ? AND script_sha256 = ? ORDER BY name, version"),
        params![tenant.to_string(), script_sha256.to_string()],
        read_version,
    )
}

/// The text of a version; none where it is erased, or there is no such version.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn text(
    conn: &Connection,
    tenant: TenantId,
    id: &VersionId,
) -> Result<Option<Text>, StoreError> {
    let text = first(
        conn,
        "SELECT script, declaration FROM script_versions WHERE tenant = ? AND name = ? AND version = ?",
        params![tenant.to_string(), id.name.as_str(), signed(id.version)],
        |row| {
            let declaration = row.get("declaration")?;
            let script = row.get::<_, Option<Vec<u8>>>("script")?;
            Ok(script.map(|script| Text {
                script,
                declaration,
            }))
        },
    )?;
    Ok(text.flatten())
}

/// What the entry of a version declares, without its text.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn declaration(
    conn: &Connection,
    tenant: TenantId,
    id: &VersionId,
) -> Result<Option<String>, StoreError> {
    let declaration = first(
        conn,
        "SELECT declaration FROM script_versions WHERE tenant = ? AND name = ? AND version = ?",
        params![tenant.to_string(), id.name.as_str(), signed(id.version)],
        |row| Ok(row.get::<_, Option<String>>("declaration")?),
    )?;
    Ok(declaration.flatten())
}

/// Whether a version may run at this moment: its text is there, and its script is not archived.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn may_run(conn: &Connection, tenant: TenantId, id: &VersionId) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM script_versions v JOIN scripts s ON s.tenant = v.tenant AND s.name = v.name
         WHERE v.tenant = ? AND v.name = ? AND v.version = ? AND v.redacted IS NULL AND s.archived IS NULL",
        params![tenant.to_string(), id.name.as_str(), signed(id.version)],
    )
}

/// Archives a script; says no where it is archived already, or is none.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn archive(
    conn: &Connection,
    tenant: TenantId,
    name: &ScriptName,
    by: &str,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "UPDATE scripts SET archived = ?, archived_by = ? WHERE tenant = ? AND name = ? AND archived IS NULL",
        params![now.0, by, tenant.to_string(), name.as_str()],
    )? == 1)
}

/// Erases the text of a version, and overwrites where it was in the file.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn erase(
    conn: &Connection,
    tenant: TenantId,
    id: &VersionId,
    by: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE script_versions SET script = NULL, declared = NULL, declaration = NULL, redacted = ?, redacted_by = ?
         WHERE tenant = ? AND name = ? AND version = ? AND redacted IS NULL",
        params![
            now.0,
            by,
            tenant.to_string(),
            id.name.as_str(),
            signed(id.version)
        ],
    )
    .map(|_| ())
}

/// Jobs that run this version and have not ended.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn open_jobs(
    conn: &Connection,
    tenant: TenantId,
    id: &VersionId,
) -> Result<Vec<JobId>, StoreError> {
    all(
        conn,
        "SELECT j.id FROM jobs j WHERE j.tenant = ?1 AND j.script_name = ?2 AND j.script_version = ?3
             AND EXISTS (SELECT 1 FROM operations o WHERE o.tenant = ?1 AND o.job = j.id AND o.ended = 0)
         ORDER BY j.id",
        params![tenant.to_string(), id.name.as_str(), signed(id.version)],
        |row| parsed(row, "id"),
    )
}

/// The version that the row of a job names.
pub(super) fn of_job(row: &Row<'_>) -> Result<Option<VersionId>, StoreError> {
    let name = parsed_or_null(row, "script_name")?;
    let version = unsigned_or_null(row, "script_version")?;
    Ok(name
        .zip(version)
        .map(|(name, version)| VersionId { name, version }))
}

fn read(row: &Row<'_>) -> Result<ScriptRow, StoreError> {
    Ok(ScriptRow {
        name: parsed(row, "name")?,
        created: time(row, "created")?,
        created_by: row.get("created_by")?,
        archived: time_or_null(row, "archived")?,
        archived_by: row.get("archived_by")?,
    })
}

fn read_version(row: &Row<'_>) -> Result<VersionRow, StoreError> {
    Ok(VersionRow {
        id: VersionId {
            name: parsed(row, "name")?,
            version: unsigned(row, "version")?,
        },
        script_sha256: parsed(row, "script_sha256")?,
        size: unsigned(row, "size")?,
        settings: Settings {
            description: row.get("description")?,
            interpreter: row.get("interpreter")?,
            os: from_json(row, "os")?,
            run_as: row.get("run_as")?,
            limits: Limits {
                time: unsigned_or_null(row, "time_limit")?.map(Span),
                output: unsigned_or_null(row, "output_limit")?.map(ByteSize),
                memory: unsigned_or_null(row, "memory_limit")?.map(ByteSize),
            },
            confinement: parsed_or_null(row, "confinement")?,
            environment: from_json(row, "environment")?,
        },
        declared: match row.get_ref("declared")? {
            sluice_database::rusqlite::types::ValueRef::Null => None,
            _ => Some(from_json(row, "declared")?),
        },
        created: time(row, "created")?,
        created_by: row.get("created_by")?,
        redacted: time_or_null(row, "redacted")?,
        redacted_by: row.get("redacted_by")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, tenants};

    const NOW: UnixMillis = UnixMillis(1000);
    const DECLARATION: &str = "[parameters.token]\ndefault = \"hunter3-hunter3\"\n";

    fn version_row(name: &ScriptName, version: u64, script: &[u8]) -> VersionRow {
        VersionRow {
            id: VersionId {
                name: name.clone(),
                version,
            },
            script_sha256: Digest::of(script),
            size: script.len() as u64,
            settings: Settings {
                description: "what it is for".to_owned(),
                interpreter: Some("bash -e".to_owned()),
                os: vec!["linux".to_owned()],
                run_as: Some("nobody".to_owned()),
                limits: Limits {
                    time: Some(Span::seconds(30)),
                    output: None,
                    memory: Some(ByteSize::mib(64)),
                },
                confinement: Some(Confinement::Strict),
                environment: vec![Variable {
                    name: "A".to_owned(),
                    value: "1".to_owned(),
                }],
            },
            declared: Some(Declared::default()),
            created: NOW,
            created_by: "ann".to_owned(),
            redacted: None,
            redacted_by: None,
        }
    }

    /// A store with one tenant, and one script of one version.
    async fn with_script(script: Vec<u8>) -> (tempfile::TempDir, Store, TenantId, VersionRow) {
        let (dir, store) = crate::store::tests_support::temporary();
        let name: ScriptName = "deploy".parse().expect("is a name");
        let row = version_row(&name, 1, &script);
        let (stored, created) = (row.clone(), row.clone());
        let tenant = store
            .write(move |conn| {
                let tenant = tenants::create(conn, "default", NOW)?.id;
                let script_row = ScriptRow {
                    name,
                    created: NOW,
                    created_by: created.created_by,
                    archived: None,
                    archived_by: None,
                };
                insert(conn, tenant, &script_row)?;
                let text = Text {
                    script,
                    declaration: Some(DECLARATION.to_owned()),
                };
                insert_version(conn, tenant, &stored, &text)?;
                Ok::<_, StoreError>(tenant)
            })
            .await
            .expect("writes");
        (dir, store, tenant, row)
    }

    #[tokio::test]
    async fn a_version_is_read_back_as_it_was_stored_by_its_own_tenant_alone() {
        let (_dir, store, tenant, row) = with_script(b"#!/bin/sh\n".to_vec()).await;
        let id = row.id.clone();
        let found = store.read(|conn| version(conn, tenant, &id));
        assert_eq!(found.expect("reads"), Some(row));
        let text_of = |tenant| store.read(|conn| text(conn, tenant, &id)).expect("reads");
        let stored = Text {
            script: b"#!/bin/sh\n".to_vec(),
            declaration: Some(DECLARATION.to_owned()),
        };
        assert_eq!(text_of(tenant), Some(stored));
        let declaration = store.read(|conn| declaration(conn, tenant, &id));
        assert_eq!(declaration.expect("reads").as_deref(), Some(DECLARATION));
        let other = TenantId::generate();
        assert_eq!(text_of(other), None);
        let runs = |tenant| store.read(|conn| may_run(conn, tenant, &id));
        assert!(runs(tenant).expect("reads"));
        assert!(!runs(other).expect("reads"));
    }

    #[tokio::test]
    async fn the_file_refuses_to_change_or_delete_a_version() {
        let (_dir, store, _, _) = with_script(b"#!/bin/sh\n".to_vec()).await;
        for statement in [
            "UPDATE script_versions SET script = x'00'",
            "UPDATE script_versions SET declaration = ''",
            "UPDATE script_versions SET declaration = NULL",
            "UPDATE script_versions SET script_sha256 = ''",
            "UPDATE script_versions SET run_as = 'root'",
            "UPDATE script_versions SET version = 2",
            "UPDATE script_versions SET redacted = 1",
            "DELETE FROM script_versions",
        ] {
            let changed = store
                .write(move |conn| change(conn, statement, []).map(|_| ()))
                .await;
            assert!(
                matches!(changed, Err(StoreError::Statement(_))),
                "{statement}"
            );
        }
    }

    #[tokio::test]
    async fn an_erased_text_is_in_no_file_any_more() {
        // One that fits into a page, and one that has pages of its own.
        for filler in [0, 100_000] {
            let mut script = b"#!/bin/sh\n# hunter2-hunter2\n".to_vec();
            script.resize(script.len() + filler, b'#');
            let (dir, store, tenant, row) = with_script(script).await;
            let holds = || {
                std::fs::read_dir(dir.path())
                    .expect("lists")
                    .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("reads"))
                    .any(|bytes| {
                        bytes.windows(b"hunter2-hunter2".len()).any(|window| {
                            [b"hunter2-hunter2", b"hunter3-hunter3"]
                                .contains(&window.try_into().expect("is as long"))
                        })
                    })
            };
            assert!(holds());
            let id = row.id.clone();
            store
                .write(move |conn| erase(conn, tenant, &id, "ann", NOW))
                .await
                .expect("erases");
            store.shorten_log().await.expect("shortens");
            assert!(!holds(), "with {filler} bytes more");
            let found = store.read(|conn| version(conn, tenant, &row.id));
            let expected = VersionRow {
                declared: None,
                redacted: Some(NOW),
                redacted_by: Some("ann".to_owned()),
                ..row
            };
            assert_eq!(found.expect("reads"), Some(expected));
        }
    }
}
