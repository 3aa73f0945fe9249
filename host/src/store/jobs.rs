//! Jobs: what an operator asked.

use sluice_protocol::bundle::Submission;
use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, TenantId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::StoreError;
use super::row::{parsed, signed, unsigned};
use crate::clock::UnixMillis;

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
    pub submission: Submission,
    /// Of the bytes submitted.
    pub script_sha256: Digest,
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
}

/// A job in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobLine {
    /// Its id.
    pub id: JobId,
    /// The operator's name.
    pub operator: String,
    /// When it was accepted.
    pub submitted: UnixMillis,
    /// Of the bytes submitted.
    pub script_sha256: Digest,
    /// How many operations it has.
    pub operations: u64,
    /// How many of them have ended.
    pub ended: u64,
    /// How many of them succeeded.
    pub succeeded: u64,
}

/// Stores a job.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn insert(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    job: &JobRow,
) -> Result<(), StoreError> {
    let submission =
        codec::encode(&job.submission).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    sqlx::query(
        "INSERT INTO jobs (id, tenant, token, operator, submission, script_sha256, submitted, not_after, targets,
                           skip_security_scan, gates_revision, idempotency_key, request_sha256)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(job.id.to_string())
    .bind(tenant.to_string())
    .bind(job.token.to_string())
    .bind(&job.operator)
    .bind(submission)
    .bind(job.script_sha256.to_string())
    .bind(job.submitted.0)
    .bind(job.not_after.0)
    .bind(signed(job.targets))
    .bind(job.skip_security_scan)
    .bind(signed(job.gates_revision))
    .bind(&job.idempotency_key)
    .bind(job.request_sha256.to_string())
    .execute(&mut *conn)
    .await?;
    for attachment in &job.submission.attachments {
        sqlx::query("INSERT INTO job_attachments (tenant, job, sha256) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(tenant.to_string())
            .bind(job.id.to_string())
            .bind(attachment.sha256.to_string())
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// The job with this id.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn find(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: JobId,
) -> Result<Option<JobRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM jobs WHERE tenant = ? AND id = ?")
        .bind(tenant.to_string())
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(|row| read(&row)).transpose()
}

/// After which nothing of the job may start.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn not_after(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: JobId,
) -> Result<Option<UnixMillis>, StoreError> {
    let row = sqlx::query("SELECT not_after FROM jobs WHERE tenant = ? AND id = ?")
        .bind(tenant.to_string())
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(row
        .map(|row| row.try_get("not_after").map(UnixMillis))
        .transpose()?)
}

/// The digest of the job's script.
///
/// # Errors
///
/// Where the database cannot be read, or there is no such job.
pub async fn script_sha256(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: JobId,
) -> Result<Digest, StoreError> {
    let row = sqlx::query("SELECT script_sha256 FROM jobs WHERE tenant = ? AND id = ?")
        .bind(tenant.to_string())
        .bind(id.to_string())
        .fetch_one(conn)
        .await?;
    parsed(&row, "script_sha256")
}

/// The job that this token's operator submitted with this key, and the digest of that request.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn find_by_key(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    token: Uuid,
    key: &str,
) -> Result<Option<(JobId, Digest)>, StoreError> {
    let row = sqlx::query("SELECT id, request_sha256 FROM jobs WHERE tenant = ? AND token = ? AND idempotency_key = ?")
        .bind(tenant.to_string())
        .bind(token.to_string())
        .bind(key)
        .fetch_optional(conn)
        .await?;
    row.map(|row| Ok((parsed(&row, "id")?, parsed(&row, "request_sha256")?)))
        .transpose()
}

/// Jobs, the newest first, from before `before` where one is given.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    before: Option<JobId>,
    limit: u32,
) -> Result<Vec<JobLine>, StoreError> {
    // Ids are UUIDs of version 7, so their order is the order in which jobs were made.
    let rows = sqlx::query(
        "SELECT j.id, j.operator, j.submitted, j.script_sha256, count(o.id) AS operations,
                coalesce(sum(o.ended), 0) AS ended, coalesce(sum(o.state = 'succeeded'), 0) AS succeeded
         FROM (SELECT * FROM jobs WHERE tenant = ?1 AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3) j
         LEFT JOIN operations o ON o.tenant = ?1 AND o.job = j.id GROUP BY j.id ORDER BY j.id DESC",
    )
    .bind(tenant.to_string())
    .bind(before.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(JobLine {
                id: parsed(row, "id")?,
                operator: row.try_get("operator")?,
                submitted: UnixMillis(row.try_get("submitted")?),
                script_sha256: parsed(row, "script_sha256")?,
                operations: unsigned(row, "operations")?,
                ended: unsigned(row, "ended")?,
                succeeded: unsigned(row, "succeeded")?,
            })
        })
        .collect()
}

fn read(row: &SqliteRow) -> Result<JobRow, StoreError> {
    let submission: &[u8] = row.try_get("submission")?;
    Ok(JobRow {
        id: parsed(row, "id")?,
        token: parsed(row, "token")?,
        operator: row.try_get("operator")?,
        submission: codec::decode(submission)
            .map_err(|error| StoreError::Corrupt(format!("submission: {error}")))?,
        script_sha256: parsed(row, "script_sha256")?,
        submitted: UnixMillis(row.try_get("submitted")?),
        not_after: UnixMillis(row.try_get("not_after")?),
        targets: unsigned(row, "targets")?,
        skip_security_scan: row.try_get("skip_security_scan")?,
        gates_revision: unsigned(row, "gates_revision")?,
        idempotency_key: row.try_get("idempotency_key")?,
        request_sha256: parsed(row, "request_sha256")?,
    })
}
