//! The story of a request, on one screen.

use sluice_api_types::job::SubmitJob;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::JobId;

use super::preflight::{self, GatesInForce};
use super::{Order, RequestError, record, targets};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::{Actor, Denied, Permission};
use crate::store::{StoreError, blobs};

/// Takes a request. When this answers with a job, the job is on disk, and its operations are on their way or queued;
/// when it answers with an error, there is no job, and the refusal is on the record.
///
/// # Errors
///
/// The request is refused.
pub async fn submit(
    host: &SharedHost,
    actor: &Actor,
    request: SubmitJob,
    key: Option<String>,
    now: UnixMillis,
) -> Result<JobId, SubmitError> {
    let job = JobId::generate();
    let script = Digest::of(&request.script.0);
    let attempt = record::attempt(host, actor, job, script, &request, now).await?;
    let accepted = accept(host, actor, job, request, key, now).await;
    if let Err(error) = &accepted {
        record::refused(host, actor, job, script, error, now).await?;
    }
    attempt.await?;
    match accepted? {
        Accepted::Job { queued } => {
            super::deliver::deliver_to_all(host, &queued).await?;
            Ok(job)
        }
        Accepted::Repeated(earlier) => Ok(earlier),
    }
}

/// What became of a request that was not refused.
enum Accepted {
    /// A new job, with operations to deliver.
    Job { queued: Vec<record::Queued> },
    /// The request was made before.
    Repeated(JobId),
}

async fn accept(
    host: &SharedHost,
    actor: &Actor,
    job: JobId,
    request: SubmitJob,
    key: Option<String>,
    now: UnixMillis,
) -> Result<Accepted, SubmitError> {
    authorise(actor, &request)?;
    let order = Order::read(request)?;
    if let Some(earlier) = record::earlier(host, actor, job, key.as_deref(), &order, now).await? {
        return Ok(Accepted::Repeated(earlier));
    }
    let mut conn = host.store.read().await?;
    let targets = targets::look_up(&mut conn, actor, &order.selection).await?;
    if targets.is_empty() {
        return Err(SubmitError::NoMachines);
    }
    for attachment in &order.submission.attachments {
        if blobs::size(&mut conn, actor.tenant.id, attachment.sha256).await?
            != Some(attachment.size)
        {
            return Err(SubmitError::NoAttachment(attachment.name.clone()));
        }
    }
    let gates = GatesInForce::read(&mut conn, actor.tenant.id).await?;
    drop(conn);
    let plans = preflight::check(host, actor, &order, &targets, &gates, now).await?;
    record::job(
        host,
        actor,
        job,
        key,
        order,
        targets,
        plans,
        gates.revision,
        now,
    )
    .await
    .map(|recorded| match recorded {
        record::Recorded::New(queued) => Accepted::Job { queued },
        record::Recorded::Repeated(earlier) => Accepted::Repeated(earlier),
    })
}

fn authorise(actor: &Actor, request: &SubmitJob) -> Result<(), SubmitError> {
    actor.require(Permission::RemoteExecution)?;
    if request.no_security_scan {
        actor.require(Permission::SkipSecurityScan)?;
    }
    if actor.is_of_tenant(request.tenant.as_deref()) {
        Ok(())
    } else {
        Err(SubmitError::NoTenant(
            request.tenant.clone().unwrap_or_default(),
        ))
    }
}

/// A request is refused: no operation exists.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// A permission is missing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It makes no sense.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Another tenant, or none.
    #[error("there is no tenant {} for this token; no job was made", .0.escape_debug())]
    NoTenant(String),
    /// Tags, or all, and nothing there.
    #[error("no machine is meant: none has these tags, or none is enrolled; no job was made")]
    NoMachines,
    /// An attachment that was not uploaded.
    #[error("the attachment {} is not on this host; upload it first (PUT /v1/blobs); no job was made", .0.escape_debug())]
    NoAttachment(String),
    /// A key that cannot be one.
    #[error("an idempotency key is 1 to 200 visible ASCII characters; no job was made")]
    InvalidKey,
    /// A key that was used for something else.
    #[error("the idempotency key was used for another request (job {0}); no job was made")]
    KeyReused(JobId),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
