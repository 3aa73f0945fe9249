//! Jobs: what an operator asked.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::bundle::Submission;
use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, TenantId};
use sluice_protocol::shared::Shared;
use uuid::Uuid;

use super::StoreError;
use super::row::{all, bytes, change, first, only, parsed, parsed_or_null, signed, time, unsigned};
use super::scripts;
use crate::clock::UnixMillis;
use crate::jobs::SupersedeKey;
use crate::library::VersionId;

/// A job as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// The operator's token.
    pub token: Uuid,
    /// The operator's name.
    pub operator: String,
    /// What is to run.
    pub submission: Shared<Submission>,
    /// Of the bytes submitted.
    pub script_sha256: Digest,
    /// Where the script is one of the library.
    pub script: Option<VersionId>,
    /// Whether it runs that as it is there, secrets and parameters apart.
    pub as_stored: bool,
    /// When it was accepted.
    pub submitted: UnixMillis,
    /// After which nothing of it may start.
    pub not_after: UnixMillis,
    /// On how many machines it runs.
    pub targets: u64,
    /// Whether the host's scanners are left out.
    pub skip_security_scan: bool,
    /// The revision of the gates that the preflight used.
    pub gates_revision: u64,
    /// What makes a repetition of the request the same job.
    pub idempotency_key: Option<String>,
    /// Of the request, to tell a repetition from another request with the same key.
    pub request_sha256: Digest,
    /// Where an approval made it.
    pub approved: Option<Approved>,
    /// The key under which a newer job takes the place of what waits of it, and it takes that of older ones.
    pub supersede: Option<SupersedeKey>,
    /// Whether its operations are in order with others of their machines.
    pub in_order: bool,
}

/// What an approval made of blocked operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// The job that they belong to.
    pub job: JobId,
    /// The name of the operator who approved.
    pub by: String,
}

/// A job, without what it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobHead {
    /// The operator's name.
    pub operator: String,
    /// When it was accepted.
    pub submitted: UnixMillis,
    /// Of the bytes submitted.
    pub script_sha256: Digest,
    /// Where the script is one of the library.
    pub script: Option<VersionId>,
    /// How many operations it has.
    pub targets: u64,
    /// Where an approval made it.
    pub approved: Option<Approved>,
    /// The key of those of which the newest runs.
    pub supersede: Option<SupersedeKey>,
    /// Whether its operations are in order with others of their machines.
    pub in_order: bool,
}

/// Stores a job. The text of a script of the library, and what its entry declares, are not copied: when they are erased
/// there, no job has them either.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, tenant: TenantId, job: &JobRow) -> Result<(), StoreError> {
    let encoded = match &job.script {
        None => codec::encode(&job.submission),
        Some(_) => codec::encode(&Submission {
            script: Vec::new(),
            declared: None,
            ..Submission::clone(&job.submission)
        }),
    };
    let submission = encoded.map_err(|error| StoreError::Corrupt(error.to_string()))?;
    change(
        conn,
        "INSERT INTO jobs (id, tenant, token, operator, submission, script_sha256, submitted, not_after,
                           targets, skip_security_scan, gates_revision, idempotency_key, request_sha256,
                           script_name, script_version, approves, approved_by, as_stored,
                           supersede, in_order)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            job.id.to_string(),
            tenant.to_string(),
            job.token.to_string(),
            &job.operator,
            submission,
            job.script_sha256.to_string(),
            job.submitted.0,
            job.not_after.0,
            signed(job.targets),
            job.skip_security_scan,
            signed(job.gates_revision),
            &job.idempotency_key,
            job.request_sha256.to_string(),
            job.script.as_ref().map(|id| id.name.as_str()),
            job.script.as_ref().map(|id| signed(id.version)),
            job.approved
                .as_ref()
                .map(|approved| approved.job.to_string()),
            job.approved.as_ref().map(|approved| approved.by.as_str()),
            job.as_stored,
            job.supersede.as_ref().map(SupersedeKey::as_str),
            job.in_order,
        ],
    )?;
    for attachment in &job.submission.attachments {
        change(
            conn,
            "INSERT INTO job_attachments (tenant, job, sha256) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            params![
                tenant.to_string(),
                job.id.to_string(),
                attachment.sha256.to_string(),
            ],
        )?;
    }
    Ok(())
}

/// The job with this id. Its script is empty where it is one of the library whose text was erased.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(conn: &Connection, tenant: TenantId, id: JobId) -> Result<Option<JobRow>, StoreError> {
    let mut job = first(
        conn,
        "SELECT * FROM jobs WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
        read,
    )?;
    if let Some(job) = &mut job
        && let Some(stored) = &job.script
    {
        let text = scripts::text(conn, tenant, stored)?;
        (job.submission.script, job.submission.declared) =
            text.map_or_else(Default::default, |text| (text.script, text.declaration));
    }
    Ok(job)
}

/// What there is to say about the job with this id.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn head(conn: &Connection, tenant: TenantId, id: JobId) -> Result<Option<JobHead>, StoreError> {
    first(
        conn,
        "SELECT operator, submitted, script_sha256, script_name, script_version, targets, approves, approved_by, supersede,
                in_order
         FROM jobs
         WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
        |row| {
            Ok(JobHead {
                operator: row.get("operator")?,
                submitted: time(row, "submitted")?,
                script_sha256: parsed(row, "script_sha256")?,
                script: scripts::of_job(row)?,
                targets: unsigned(row, "targets")?,
                approved: approved(row)?,
                supersede: parsed_or_null(row, "supersede")?,
                in_order: row.get("in_order")?,
            })
        },
    )
}

/// After which nothing of the job may start.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn not_after(
    conn: &Connection,
    tenant: TenantId,
    id: JobId,
) -> Result<Option<UnixMillis>, StoreError> {
    first(
        conn,
        "SELECT not_after FROM jobs INDEXED BY jobs_heads WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
        |row| time(row, "not_after"),
    )
}

/// Lets machines wait for gates of this revision at least before they run the job.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn raise_gates_revision(
    conn: &Connection,
    tenant: TenantId,
    id: JobId,
    revision: u64,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE jobs SET gates_revision = max(gates_revision, ?) WHERE tenant = ? AND id = ?",
        params![signed(revision), tenant.to_string(), id.to_string()],
    )?;
    Ok(())
}

/// The revision of the gates that the job was checked with: machines wait for it.
///
/// # Errors
///
/// Where the database cannot be read, or there is no such job.
pub fn gates_revision(conn: &Connection, tenant: TenantId, id: JobId) -> Result<u64, StoreError> {
    only(
        conn,
        "SELECT gates_revision FROM jobs WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
        |row| unsigned(row, "gates_revision"),
    )
}

/// Says on how many machines the job runs.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_targets(
    conn: &Connection,
    tenant: TenantId,
    id: JobId,
    targets: u64,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE jobs SET targets = ? WHERE tenant = ? AND id = ?",
        params![signed(targets), tenant.to_string(), id.to_string()],
    )?;
    Ok(())
}

/// The digest of the job's script.
///
/// # Errors
///
/// Where the database cannot be read, or there is no such job.
pub fn script_sha256(conn: &Connection, tenant: TenantId, id: JobId) -> Result<Digest, StoreError> {
    only(
        conn,
        "SELECT script_sha256 FROM jobs INDEXED BY jobs_heads WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
        |row| parsed(row, "script_sha256"),
    )
}

/// The job that this token's operator submitted with this key, and the digest of that request.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find_by_key(
    conn: &Connection,
    tenant: TenantId,
    token: Uuid,
    key: &str,
) -> Result<Option<(JobId, Digest)>, StoreError> {
    first(
        conn,
        "SELECT id, request_sha256 FROM jobs WHERE tenant = ? AND token = ? AND idempotency_key = ?",
        params![tenant.to_string(), token.to_string(), key],
        |row| Ok((parsed(row, "id")?, parsed(row, "request_sha256")?)),
    )
}

/// The ids of jobs, the newest first, from before `before` where one is given.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn ids_before(
    conn: &Connection,
    tenant: TenantId,
    before: Option<JobId>,
    limit: u32,
) -> Result<Vec<JobId>, StoreError> {
    all(
        conn,
        "SELECT id FROM jobs WHERE tenant = ?1 AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3",
        params![tenant.to_string(), before.map(|id| id.to_string()), limit],
        |row| parsed(row, "id"),
    )
}

fn read(row: &Row<'_>) -> Result<JobRow, StoreError> {
    Ok(JobRow {
        id: parsed(row, "id")?,
        token: parsed(row, "token")?,
        operator: row.get("operator")?,
        submission: codec::decode(bytes(row, "submission")?)
            .map_err(|error| StoreError::Corrupt(format!("submission: {error}")))?,
        script_sha256: parsed(row, "script_sha256")?,
        script: scripts::of_job(row)?,
        as_stored: row.get("as_stored")?,
        submitted: time(row, "submitted")?,
        not_after: time(row, "not_after")?,
        targets: unsigned(row, "targets")?,
        skip_security_scan: row.get("skip_security_scan")?,
        gates_revision: unsigned(row, "gates_revision")?,
        idempotency_key: row.get("idempotency_key")?,
        request_sha256: parsed(row, "request_sha256")?,
        approved: approved(row)?,
        supersede: parsed_or_null(row, "supersede")?,
        in_order: row.get("in_order")?,
    })
}

fn approved(row: &Row<'_>) -> Result<Option<Approved>, StoreError> {
    let job = parsed_or_null(row, "approves")?;
    let by: Option<String> = row.get("approved_by")?;
    Ok(job.zip(by).map(|(job, by)| Approved { job, by }))
}
