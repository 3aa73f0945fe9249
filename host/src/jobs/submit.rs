//! The story of a request, on one screen.

use sluice_api_types::job::SubmitJob;
use sluice_protocol::bundle::{Attachment, Confinement};
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, TenantId};

use super::authorize::Needs;
use super::hold::Threshold;
use super::preflight::{self, GatesInForce, Plan};
use super::targets::{self, MOST_TARGETS, Target};
use super::{Locked, Order, RequestError, deliver, record};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::library::{self, ChooseError, Chosen, VersionId};
use crate::operators::{Actor, Denied};
use crate::rollouts::{self, Batches};
use crate::secrets::{self, UseError};
use crate::store::lockdown::{self, LockdownRow};
use crate::store::{Connection, Extent, StoreError, blobs};
use crate::windows::{self, HoldError};

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
    // Looked up first, because the attempt is recorded with what it is about. Who may not run it is not told.
    let chosen = choose(host, actor, &request).await;
    let text = record::Text::of(&request, chosen.as_ref().ok().and_then(Option::as_ref));
    let attempt = record::attempt(host, actor, job, &text, &request, now).await?;
    let accepted = accept(host, actor, job, request, chosen, key, now).await;
    if let Err(error) = &accepted {
        record::refused(host, actor, job, &text, error, now).await?;
    }
    attempt.await?;
    match accepted? {
        Accepted::Rollout => {
            host.rollouts.begin(job, actor.tenant.clone());
            // The job stands. What cannot be released now is released when the host is asked again, or starts again.
            if let Err(error) = rollouts::advance(host, &actor.tenant, job, now).await {
                tracing::error!(%job, %error, "a rollout cannot begin now; trying again");
                host.rollouts.wake(job);
            }
            Ok(job)
        }
        Accepted::Job { queued } => {
            deliver::deliver_to_all(host, &actor.tenant, job, &queued, now).await;
            Ok(job)
        }
        Accepted::Repeated(earlier) => {
            // Whoever asks again may do so because the host was stopped between the commit and the delivery.
            deliver::deliver_unsent(
                host,
                &actor.tenant,
                earlier,
                &[State::Queued, State::Delivered],
                now,
            )
            .await;
            Ok(earlier)
        }
    }
}

/// What became of a request that was not refused.
enum Accepted {
    /// A new job, with operations to deliver.
    Job { queued: Vec<record::Queued> },
    /// A new job whose operations are held until they are released.
    Rollout,
    /// The request was made before.
    Repeated(JobId),
}

async fn accept(
    host: &SharedHost,
    actor: &Actor,
    job: JobId,
    request: SubmitJob,
    chosen: Result<Option<Chosen>, SubmitError>,
    key: Option<String>,
    now: UnixMillis,
) -> Result<Accepted, SubmitError> {
    let needs = Needs::of(
        actor,
        &request,
        chosen.as_ref().ok().and_then(Option::as_ref),
    );
    needs.in_general(actor)?;
    for_own_tenant(actor, &request)?;
    let digest = Order::digest_of(&request)?;
    // Before anything else is judged: a job that was made stays made, also when its script cannot be run again.
    if let Some(earlier) = record::earlier(host, actor, job, key.as_deref(), digest, now).await? {
        return Ok(Accepted::Repeated(earlier));
    }
    let order = Order::read(request, digest, chosen?)?;
    let (targets, gates) = look_up(host, actor.tenant.id, &order).await?;
    let foreseen = foresee(host, actor, &order, &needs, &targets, &gates, now).await?;
    record::job(
        host,
        actor,
        job,
        key,
        order,
        targets,
        foreseen.plans,
        foreseen.batches,
        foreseen.threshold,
        gates.revision,
        now,
    )
    .await
    .map(|recorded| match recorded {
        record::Recorded::Rollout => Accepted::Rollout,
        record::Recorded::New(queued) => Accepted::Job { queued },
        record::Recorded::Repeated(earlier) => Accepted::Repeated(earlier),
    })
}

/// What is to become of an order, before anything of it is recorded.
pub(super) struct Foreseen {
    /// One for each of its machines.
    pub(super) plans: Vec<Plan>,
    /// None where nobody planned a rollout.
    pub(super) batches: Option<Batches>,
    pub(super) threshold: Threshold,
}

/// Asks the operator's rights, the plan of batches, the gates and the approval policy, of these machines.
pub(super) async fn foresee(
    host: &SharedHost,
    actor: &Actor,
    order: &Order,
    needs: &Needs,
    targets: &[Target],
    gates: &GatesInForce,
    now: UnixMillis,
) -> Result<Foreseen, SubmitError> {
    needs.on(host, actor, order, targets).await?;
    let all = targets.len() as u64;
    // What joins later is released by a rollout.
    let batches =
        batches(order, targets)?.or_else(|| order.later.is_some().then(|| Batches::of_all(all)));
    let plans = preflight::check(host, actor, order, targets, all, gates, now).await?;
    let threshold = Threshold::ask(host, actor, order, targets, &plans, 0, now).await?;
    // Who approves must know the machines.
    if let Some(because) = threshold.because().filter(|_| order.later.is_some()) {
        return Err(SubmitError::LaterNeedsApproval(because));
    }
    Ok(Foreseen {
        plans,
        batches,
        threshold,
    })
}

/// The machines that are meant, and the gates in force. What the order names must be there, and nothing locked down.
pub(super) async fn look_up(
    host: &SharedHost,
    tenant: TenantId,
    order: &Order,
) -> Result<(Vec<Target>, GatesInForce), SubmitError> {
    let meant = meant(host, tenant, order, For::Running).await?;
    Ok((meant.targets, meant.gates))
}

/// What an order is looked up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// To make a job of it.
    Running,
    /// To tell what would come of it: what is in the way at this moment alone is told too.
    Preview,
}

/// What an order means at one moment.
pub(super) struct Meant {
    pub(super) targets: Vec<Target>,
    pub(super) gates: GatesInForce,
    pub(super) lockdown: Option<LockdownRow>,
    /// The attachments that are not on this host.
    pub(super) unseen: Vec<String>,
}

/// Looks up what an order means. What it names must be there; but for a preview, attachments may come later.
pub(super) async fn meant(
    host: &SharedHost,
    tenant: TenantId,
    order: &Order,
    purpose: For,
) -> Result<Meant, SubmitError> {
    let (selection, condition) = (order.selection.clone(), order.condition.clone());
    let (attachments, secrets) = (
        order.submission.attachments.clone(),
        order.submission.secrets.clone(),
    );
    let asked = order.windows.clone();
    host.store
        .look(selection.extent(), move |conn| {
            // Asked once more in the transaction that records the job: this one spares the gates the work.
            let lockdown = lockdown::current(conn)?;
            if let (For::Running, Some(row)) = (purpose, &lockdown) {
                return Err(SubmitError::Locked(Locked::by(row)));
            }
            secrets::are_usable(conn, tenant, &secrets)?;
            windows::are_there(conn, tenant, &asked)?;
            let targets = targets::look_up(conn, tenant, &selection, condition.as_ref())?;
            if targets.is_empty() {
                return Err(SubmitError::NoMachines);
            }
            let unseen = missing(conn, tenant, &attachments)?;
            if let (For::Running, Some(name)) = (purpose, unseen.first()) {
                return Err(SubmitError::NoAttachment(name.clone()));
            }
            Ok(Meant {
                targets,
                gates: GatesInForce::read(conn, tenant)?,
                lockdown,
                unseen,
            })
        })
        .await
}

/// Those of the attachments that are not on this host.
fn missing(
    conn: &Connection,
    tenant: TenantId,
    attachments: &[Attachment],
) -> Result<Vec<String>, SubmitError> {
    let mut missing = Vec::new();
    for attachment in attachments {
        if blobs::size(conn, tenant, attachment.sha256)? != Some(attachment.size) {
            missing.push(attachment.name.clone());
        }
    }
    Ok(missing)
}

/// What a request comes to that could be submitted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Of the script's bytes.
    pub script_sha256: Digest,
    /// The library's version of it; the newest of now where the request names none.
    pub script: Option<VersionId>,
    /// The user; the machine's default where absent.
    pub run_as: Option<String>,
    /// What is kept from the script at least.
    pub confinement: Option<Confinement>,
}

/// Whether a request could be submitted, apart from the machines that it means, which may come later. Makes no job and
/// records nothing.
///
/// # Errors
///
/// The request would be refused.
pub async fn check(
    host: &SharedHost,
    actor: &Actor,
    request: SubmitJob,
) -> Result<Checked, SubmitError> {
    let (order, _) = read(host, actor, request).await?;
    let Order {
        submission,
        script,
        windows,
        ..
    } = order;
    host.store
        .read(|conn| windows::are_there(conn, actor.tenant.id, &windows))?;
    let checked = Checked {
        script_sha256: Digest::of(&submission.script),
        script,
        run_as: submission.run_as.clone(),
        confinement: submission.confinement,
    };
    let tenant = actor.tenant.id;
    let extent = Extent::of_rows(submission.attachments.len() + submission.secrets.len());
    host.store
        .look(extent, move |conn| {
            secrets::are_usable(conn, tenant, &submission.secrets)?;
            match missing(conn, tenant, &submission.attachments)?
                .into_iter()
                .next()
            {
                Some(name) => Err(SubmitError::NoAttachment(name)),
                None => Ok(()),
            }
        })
        .await?;
    Ok(checked)
}

/// Whether a request could be submitted at this moment, for the machines that it means now. Makes no job and records nothing.
///
/// # Errors
///
/// The request would be refused.
pub async fn could_run_now(
    host: &SharedHost,
    actor: &Actor,
    request: SubmitJob,
    now: UnixMillis,
) -> Result<(), SubmitError> {
    let (order, needs) = read(host, actor, request).await?;
    let (targets, _) = look_up(host, actor.tenant.id, &order).await?;
    needs.on(host, actor, &order, &targets).await?;
    record::hold(host, actor, &order, &targets, now).await?;
    batches(&order, &targets).map(|_| ())
}

/// What an operator who may ask for it asks for, and what that needs on each machine.
pub(super) async fn read(
    host: &SharedHost,
    actor: &Actor,
    request: SubmitJob,
) -> Result<(Order, Needs), SubmitError> {
    Needs::of(actor, &request, None).in_general(actor)?;
    for_own_tenant(actor, &request)?;
    let chosen = choose(host, actor, &request).await?;
    let needs = Needs::of(actor, &request, chosen.as_ref());
    needs.in_general(actor)?;
    let digest = Order::digest_of(&request)?;
    Ok((Order::read(request, digest, chosen)?, needs))
}

/// The plan of a rollout for the machines that are meant; none where the order has none.
fn batches(order: &Order, targets: &[Target]) -> Result<Option<Batches>, SubmitError> {
    let plan = order.rollout.as_ref();
    let batches = plan.map(|plan| plan.of(targets.len() as u64));
    Ok(batches.transpose().map_err(RequestError::from)?)
}

/// What a request names in the library; none where it brings the text.
async fn choose(
    host: &SharedHost,
    actor: &Actor,
    request: &SubmitJob,
) -> Result<Option<Chosen>, SubmitError> {
    match (&request.script, &request.script_ref) {
        (None, None) => Err(RequestError::NoScript.into()),
        (Some(_), Some(_)) => Err(RequestError::TwoScripts.into()),
        (Some(_), None) => Ok(None),
        (None, Some(script)) => {
            let (tenant, script) = (actor.tenant.id, script.clone());
            let chosen = host
                .store
                .scan(move |conn| library::choose(conn, tenant, &script))
                .await?;
            Ok(Some(chosen))
        }
    }
}

fn for_own_tenant(actor: &Actor, request: &SubmitJob) -> Result<(), SubmitError> {
    if actor.is_of_tenant(request.tenant.as_deref()) {
        Ok(())
    } else {
        Err(SubmitError::NoTenant(
            request.tenant.clone().unwrap_or_default(),
        ))
    }
}

impl From<ChooseError> for SubmitError {
    fn from(error: ChooseError) -> Self {
        match error {
            ChooseError::Store(error) => Self::Store(error),
            error => Self::Script(error),
        }
    }
}

impl From<HoldError> for SubmitError {
    fn from(error: HoldError) -> Self {
        match error {
            HoldError::Store(error) => Self::Store(error),
            error => Self::Windows(error),
        }
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
    /// The library has nothing to run.
    #[error(transparent)]
    Script(ChooseError),
    /// Another tenant, or none.
    #[error("there is no tenant {} for this token; no job was made", .0.escape_debug())]
    NoTenant(String),
    /// Tags, or all, and nothing there.
    #[error(
        "no machine is meant: none has these tags, none is what the expression (where) says, or none is enrolled; no job was made"
    )]
    NoMachines,
    /// More than one job may have.
    #[error(
        "more than {MOST_TARGETS} machines are meant, and one job has no more; no job was made, divide them by tags or expressions"
    )]
    TooManyMachines,
    /// An attachment that was not uploaded.
    #[error("the attachment {} is not on this host; upload it first (PUT /v1/blobs); no job was made", .0.escape_debug())]
    NoAttachment(String),
    /// A secret that it cannot have.
    #[error(transparent)]
    Secret(#[from] UseError),
    /// A key that cannot be one.
    #[error("an idempotency key is 1 to 200 visible ASCII characters; no job was made")]
    InvalidKey,
    /// A key that was used for something else.
    #[error("the idempotency key was used for another request (job {0}); no job was made")]
    KeyReused(JobId),
    /// An approval that somebody was faster to give.
    #[error(
        "what was blocked on {0} was approved before, and an approval is used once; nothing was approved (sluice job list)"
    )]
    ApprovedBefore(String),
    /// What was asked is not what counts.
    #[error(
        "the approval policy of this tenant, or the standing approval that counted, was changed at the same moment; no job was made, submit it again"
    )]
    ApprovalChanged,
    /// It cannot start in the windows that it asks for.
    #[error(transparent)]
    Windows(HoldError),
    /// Approvals are of the machines that are known.
    #[error(
        "the job needs approvals, which are of the machines that are known, because {0}; no job was made, submit it without include_later, or once more when there are others"
    )]
    LaterNeedsApproval(String),
    /// There may be too many.
    #[error(
        "{0} jobs of this tenant are open for machines that match later; no job was made, end one with sluice job cancel"
    )]
    TooManyLater(u64),
    /// A machine that would join is one too many.
    #[error("a job has at most {0} machines")]
    LaterFull(u64),
    /// A machine that joins an older job has a newer one.
    #[error("the newer job {0} with its key is there")]
    LaterSuperseded(JobId),
    /// Nothing may start now.
    #[error(transparent)]
    Locked(Locked),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
