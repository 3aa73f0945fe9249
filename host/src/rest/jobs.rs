//! `/v1/jobs`

use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sluice_api_types::approval::DenyJob;
use sluice_api_types::event::JOB;
use sluice_api_types::group::Groups;
use sluice_api_types::job::{
    ApproveJob, Canceled, HaltJobs, IDEMPOTENCY_KEY, Job, JobQuery, JobSummary, SubmitJob,
};
use sluice_api_types::page::Page;
use sluice_api_types::preview::JobPreview;
use sluice_api_types::rollout::Rollout;
use sluice_protocol::ids::JobId;

use super::auth::{Operator, allow, own_tenant, record_denied};
use super::extract::{Answer, Body, Path, Query, limit, uninterrupted};
use super::{Refusal, events, job_filter};
use crate::folding;
use crate::host::SharedHost;
use crate::jobs::{self, Follower, SubmitError};
use crate::operators::Permission;
use crate::rollouts;
use crate::schedules;
use crate::store::job_list;

/// The largest request, in bytes: a script of 4 MiB in base64, parameters and variables, and room for JSON's escapes.
pub(super) const BODY: usize = 12 << 20;

/// Submits a script to machines. When this answers with 201, the job is on disk. Needs `RemoteExecution`; for a script of
/// the library as it is there, `RunStoredScripts`. Who accepts `text/event-stream` gets the job as the first event, `job`, and
/// then what `GET /v1/jobs/{job}/events` tells.
#[utoipa::path(
    post, path = "/v1/jobs", request_body = SubmitJob,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat: the same key and request is the same job")),
    responses((status = 201, description = "The job; or server-sent events: job, then state, output, rollout, result, end", content((Job = "application/json"), (String = "text/event-stream"))))
)]
pub(super) async fn submit_job(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    headers: HeaderMap,
    Body(request): Body<SubmitJob>,
) -> Result<Response, Refusal> {
    let follows = accepts_events(&headers);
    let (host, actor, job) = uninterrupted(async move {
        // A key that is no text is a key that makes no sense, and is refused as such.
        let key = headers
            .get(IDEMPOTENCY_KEY)
            .map(|value| value.to_str().unwrap_or_default().to_owned());
        if key.as_deref().is_some_and(|key| key.starts_with(schedules::KEY)) {
            return Err(Refusal::invalid(format!(
                "an idempotency key that begins with {} is of a schedule's run; no job was made, choose another key",
                schedules::KEY
            )));
        }
        let id = jobs::submit(&host, &actor, request, key, host.clock.now()).await?;
        let job = jobs::job(&host, &actor.tenant, id)
            .await?
            .ok_or_else(|| no_job(&id.to_string()))?;
        Ok((host, actor, job))
    })
    .await?;
    if !follows {
        return Ok((StatusCode::CREATED, Answer(job)).into_response());
    }
    let follower = Follower::new(host.clone(), actor.tenant.clone(), job.job)?
        .ok_or_else(|| no_job(&job.job.to_string()))?;
    let first = events::json(JOB, &job);
    Ok((
        StatusCode::CREATED,
        events::stream(host, actor, follower, first),
    )
        .into_response())
}

/// The machines that a request means now, and what would come of it: gates are asked, so that it is on the record. Makes no job.
/// Needs what submitting it needs.
#[utoipa::path(post, path = "/v1/jobs/preview", request_body = SubmitJob, responses((status = 200, body = JobPreview)))]
pub(super) async fn preview_job(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<SubmitJob>,
) -> Result<Answer<JobPreview>, Refusal> {
    match jobs::preview(&host, &actor, request, host.clock.now()).await {
        Ok(preview) => Ok(Answer(preview)),
        Err(SubmitError::Denied(denied)) => {
            record_denied(&host, &actor, &denied, "preview a job").await?;
            Err(SubmitError::Denied(denied).into())
        }
        Err(error) => Err(error.into()),
    }
}

fn accepts_events(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|kind| kind.split(';').next().unwrap_or_default().trim() == "text/event-stream")
}

/// Lists jobs, the newest first. Needs `ReadJobs`.
#[utoipa::path(get, path = "/v1/jobs", params(JobQuery), responses((status = 200, body = Page<JobSummary>)))]
pub(super) async fn list_jobs(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<JobQuery>,
) -> Result<Answer<Page<JobSummary>>, Refusal> {
    allow(&host, &actor, Permission::ReadJobs, "list jobs").await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let before = query
        .after
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|error| Refusal::invalid(format!("after: {error}")))?;
    let limit = limit(query.limit)?;
    let tenant = actor.tenant.id;
    let filter = job_filter::read(&host, tenant, &query)?;
    let part = host
        .store
        .scan(move |conn| job_list::list(conn, tenant, &filter, before, limit))
        .await?;
    let items = part
        .lines
        .into_iter()
        .map(|row| JobSummary {
            job: row.id,
            tenant: actor.tenant.name.clone(),
            operator: row.operator,
            submitted_at: row.submitted.to_string(),
            script_sha256: row.script_sha256,
            script: row.script.map(Into::into),
            operations: row.operations,
            ended: row.ended,
            succeeded: row.succeeded,
            open_until: row.open_until.map(|at| at.to_string()),
        })
        .collect();
    let next = part.next.map(|id| id.to_string());
    Ok(Answer(Page { items, next }))
}

/// A job and its operations. Needs `ReadJobs`.
#[utoipa::path(get, path = "/v1/jobs/{job}", params(("job" = String, Path)), responses((status = 200, body = Job)))]
pub(super) async fn get_job(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(job): Path,
) -> Result<Answer<Job>, Refusal> {
    allow(&host, &actor, Permission::ReadJobs, "read a job").await?;
    Ok(Answer(
        jobs::job(&host, &actor.tenant, job_id(&job)?)
            .await?
            .ok_or_else(|| no_job(&job))?,
    ))
}

/// A job's operations in groups of the same result, with the differences between them. Needs `ReadJobs`.
#[utoipa::path(get, path = "/v1/jobs/{job}/groups", params(("job" = String, Path)), responses((status = 200, body = Groups)))]
pub(super) async fn get_groups(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(job): Path,
) -> Result<Answer<Groups>, Refusal> {
    allow(&host, &actor, Permission::ReadJobs, "read a job").await?;
    Ok(Answer(
        folding::groups(&host.store, &actor.tenant, job_id(&job)?)
            .await?
            .ok_or_else(|| no_job(&job))?,
    ))
}

/// Cancels a job: what was not sent ends now, the rest is told to the machines. Needs `RemoteExecution`.
#[utoipa::path(post, path = "/v1/jobs/{job}/cancel", params(("job" = String, Path)), responses((status = 200, body = Canceled)))]
pub(super) async fn cancel_job(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(job): Path,
) -> Result<Answer<Canceled>, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::RemoteExecution, "cancel a job").await?;
        let canceled = jobs::cancel(&host, &actor, job_id(&job)?, host.clock.now()).await?;
        Ok(Answer(Canceled { canceled }))
    })
    .await
}

/// Pauses a job's rollout: nothing more of it is released until it is resumed. Needs `RemoteExecution`.
#[utoipa::path(post, path = "/v1/jobs/{job}/pause", params(("job" = String, Path)), responses((status = 200, body = Rollout)))]
pub(super) async fn pause_job(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(job): Path,
) -> Result<Answer<Rollout>, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::RemoteExecution, "pause a job").await?;
        let now = host.clock.now();
        Ok(Answer(
            rollouts::pause(&host, &actor, job_id(&job)?, now).await?,
        ))
    })
    .await
}

/// Goes on with a job's rollout; the failures until now do not count any more. Needs `RemoteExecution`.
#[utoipa::path(post, path = "/v1/jobs/{job}/resume", params(("job" = String, Path)), responses((status = 200, body = Rollout)))]
pub(super) async fn resume_job(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(job): Path,
) -> Result<Answer<Rollout>, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::RemoteExecution, "resume a job").await?;
        let now = host.clock.now();
        Ok(Answer(
            rollouts::resume(&host, &actor, job_id(&job)?, now).await?,
        ))
    })
    .await
}

/// Approves what a policy blocked until another operator approves it, and makes the job that runs it: the same bundle, on
/// the same machines, as the operator who submitted it. Of a job that waits for approvals as a whole it counts as one, and the
/// answer is that job. Needs `ApproveJobs`; nobody approves their own.
#[utoipa::path(post, path = "/v1/jobs/{job}/approve", params(("job" = String, Path)), request_body = ApproveJob, responses((status = 201, body = Job)))]
pub(super) async fn approve_job(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(job): Path,
    Body(request): Body<ApproveJob>,
) -> Result<(StatusCode, Answer<Job>), Refusal> {
    uninterrupted(async move {
        let id = jobs::approve(&host, &actor, &job, request, host.clock.now()).await?;
        let made = jobs::job(&host, &actor.tenant, id)
            .await?
            .ok_or_else(|| no_job(&id.to_string()))?;
        Ok((StatusCode::CREATED, Answer(made)))
    })
    .await
}

/// Denies a job that waits for approvals: what is held of it is canceled. Needs `ApproveJobs`.
#[utoipa::path(post, path = "/v1/jobs/{job}/deny", params(("job" = String, Path)), request_body = DenyJob, responses((status = 200, body = Job)))]
pub(super) async fn deny_job(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(job): Path,
    Body(request): Body<DenyJob>,
) -> Result<Answer<Job>, Refusal> {
    uninterrupted(async move {
        let id = jobs::deny(&host, &actor, &job, request, host.clock.now()).await?;
        let denied = jobs::job(&host, &actor.tenant, id)
            .await?
            .ok_or_else(|| no_job(&id.to_string()))?;
        Ok(Answer(denied))
    })
    .await
}

/// Cancels every operation of the tenant that has not ended. Needs `RemoteExecution`.
#[utoipa::path(post, path = "/v1/jobs/halt", request_body = HaltJobs, responses((status = 200, body = Canceled)))]
pub(super) async fn halt_jobs(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<HaltJobs>,
) -> Result<Answer<Canceled>, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::RemoteExecution, "halt all jobs").await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        let canceled = jobs::halt(&host, &actor, host.clock.now()).await?;
        Ok(Answer(Canceled { canceled }))
    })
    .await
}

/// What is no id is no job's.
pub(super) fn job_id(text: &str) -> Result<JobId, Refusal> {
    text.parse().map_err(|_| no_job(text))
}

/// There is no such job of the tenant.
pub(super) fn no_job(text: &str) -> Refusal {
    Refusal::not_found(
        "job-not-found",
        format!("there is no job {}", text.escape_debug()),
    )
}
