//! What [`super::submit`] writes down: the attempt, the refusal, or the job with its operations.

use std::collections::HashSet;
use std::future::Future;

use sluice_api_types::job::SubmitJob;
use sluice_protocol::bundle::{Confinement, Limits};
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::{JobId, MachineId, OperationId, TenantId};
use sluice_protocol::message::operation::Operation;
use sluice_protocol::report::Report;
use sluice_protocol::secret;
use sluice_protocol::units::Span;

use super::approval::Approval;
use super::cancel::Canceling;
use super::hold::Threshold;
use super::outcome::{Ended, events_of_end};
use super::preflight::Plan;
use super::supersede::supersede;
use super::targets::Target;
use super::{Locked, Order, Selector, SubmitError, deliver};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::library::{self, Chosen};
use crate::operators::Actor;
use crate::rollouts::Batches;
use crate::secrets::Confided;
use crate::store::jobs::{self, Approved, JobRow};
use crate::store::operations::{self, From, OperationRow};
use crate::store::rollouts::{self, RolloutRow};
use crate::store::{Connection, Extent, StoreError, Urgency, later};
use crate::windows::{Hold, Standing};

/// How long a machine may be silent after an operation should have ended.
const SILENCE: Span = Span::seconds(24 * 3600);
/// The most jobs of a tenant that machines may join later: each change of a machine is looked at for all of them.
const MOST_OPEN: u64 = 100;
/// The most names of targets that an audit entry spells out.
const NAMES_IN_ENTRY: usize = 50;

/// Which text a request means, as far as the record is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    /// Of the bytes; none where there are none.
    sha256: Option<Digest>,
    /// The script of the library, as it was found or else as it was typed.
    script: Option<String>,
    /// The user that was asked for, by the request or by the library.
    run_as: Option<String>,
    /// What is to be kept from the script at least, by the request and the library.
    confinement: Option<Confinement>,
}

impl Text {
    /// What `request` means, where `chosen` is what it names in the library.
    pub(super) fn of(request: &SubmitJob, chosen: Option<&Chosen>) -> Self {
        let typed = request.script_ref.as_ref().map(|script| {
            let version = script.version.map(|version| format!("@{version}"));
            cut(&format!("{}{}", script.name, version.unwrap_or_default()))
        });
        Self {
            sha256: match chosen {
                Some(chosen) => Some(chosen.script_sha256),
                None => request.script.as_ref().map(|script| Digest::of(&script.0)),
            },
            script: chosen.map(|chosen| chosen.id.to_string()).or(typed),
            run_as: request
                .run_as
                .clone()
                .or_else(|| chosen.and_then(|chosen| chosen.settings.run_as.clone())),
            confinement: request
                .confinement
                .max(chosen.and_then(|chosen| chosen.settings.confinement)),
        }
    }

    fn told(&self, mut event: Event) -> Event {
        event.script_sha256 = self.sha256;
        match &self.script {
            Some(script) => event.detail("script", script.as_str()),
            None => event,
        }
    }
}

/// Records that somebody asks for scripts to be run: one entry for each machine that is named, and one for tags or all.
/// Answers at once with what becomes of that. The entries stand before any that follows from them, and are durable with
/// the next commit: with that of the job or its refusal, or alone after a moment, where the gates take longer.
pub(super) async fn attempt(
    host: &SharedHost,
    actor: &Actor,
    job: JobId,
    text: &Text,
    request: &SubmitJob,
    now: UnixMillis,
) -> Result<impl Future<Output = Result<(), StoreError>> + Send + use<>, StoreError> {
    let base = text
        .told(Event::by(EventKind::ScriptExecutionAttempt, actor))
        .of_job(job)
        .detail("run_as", text.run_as.clone())
        .detail("confinement", text.confinement.map(Confinement::as_str))
        .detail("no_security_scan", request.no_security_scan);
    // Only where it is said: what is recorded of others does not grow.
    let base = match (&request.windows[..], request.ignore_windows) {
        ([], false) => base,
        ([], true) => base.detail("ignore_windows", true),
        (windows, _) => {
            let names = windows.iter().take(NAMES_IN_ENTRY).map(|name| cut(name));
            base.detail("windows", names.collect::<Vec<_>>())
        }
    };
    let base = match &request.condition {
        Some(condition) => base.detail("where", cut(condition)),
        None => base,
    };
    let base = match &request.supersede {
        Some(key) => base.detail("supersede", cut(key)),
        None => base,
    };
    let base = if request.in_order {
        base.detail("in_order", true)
    } else {
        base
    };
    let base = match request.include_later {
        true => base.detail("include_later", true),
        false => base,
    };
    let base = naming(&request.secrets, base);
    let mut events: Vec<Event> = request
        .machines
        .iter()
        .map(|typed| base.clone().on(&cut(typed)))
        .collect();
    if request.all {
        events.push(base.clone().detail("all", true));
    } else if !request.tags.is_empty() || events.is_empty() {
        let tags: Vec<String> = request
            .tags
            .iter()
            .take(NAMES_IN_ENTRY)
            .map(|tag| cut(&format!("{}={}", tag.key, tag.value)))
            .collect();
        events.push(base.clone().detail("tags", tags));
    }
    // A request that spells out too many machines is refused; its attempt is one entry.
    if events.len() > super::request::MOST_NAMES {
        events = vec![base.detail("machines", request.machines.len())];
    }
    let tenant = actor.tenant.clone();
    host.store
        .enqueue(Urgency::Soon, move |conn| {
            audit::append(conn, &tenant, now, events).map(|_| ())
        })
        .await
}

/// Records that a request was refused.
pub(super) async fn refused(
    host: &SharedHost,
    actor: &Actor,
    job: JobId,
    text: &Text,
    error: &SubmitError,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let event = match error {
        SubmitError::Denied(denied) => {
            host.metrics.request_refused();
            Event::by(EventKind::PermissionDenied, actor)
                .detail("permission", denied.permission.as_str())
        }
        _ => Event::by(EventKind::RequestRefused, actor),
    };
    let event = text
        .told(event)
        .of_job(job)
        .detail("reason", cut(&error.to_string()));
    let tenant = actor.tenant.clone();
    host.store
        .write(move |conn| audit::append(conn, &tenant, now, [event]).map(|_| ()))
        .await
}

/// The job that this request made before, where it comes with a key.
pub(super) async fn earlier(
    host: &SharedHost,
    actor: &Actor,
    job: JobId,
    key: Option<&str>,
    request: Digest,
    now: UnixMillis,
) -> Result<Option<JobId>, SubmitError> {
    let Some(key) = key else { return Ok(None) };
    if !(1..=200).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(SubmitError::InvalidKey);
    }
    let found = host
        .store
        .read(|conn| repetition(conn, actor, Some(key), request))?;
    if let Some(earlier) = found {
        let (tenant, event) = (actor.tenant.clone(), repeated(actor, job, earlier));
        host.store
            .write(move |conn| audit::append(conn, &tenant, now, [event]).map(|_| ()))
            .await?;
    }
    Ok(found)
}

fn repetition(
    conn: &Connection,
    actor: &Actor,
    key: Option<&str>,
    request: Digest,
) -> Result<Option<JobId>, SubmitError> {
    let Some(key) = key else { return Ok(None) };
    match jobs::find_by_key(conn, actor.tenant.id, actor.token, key)? {
        Some((earlier, digest)) if digest == request => Ok(Some(earlier)),
        Some((earlier, _)) => Err(SubmitError::KeyReused(earlier)),
        None => Ok(None),
    }
}

fn repeated(actor: &Actor, job: JobId, earlier: JobId) -> Event {
    Event::by(EventKind::RequestRepeated, actor)
        .of_job(earlier)
        .detail("attempt", job.to_string())
}

/// An operation to deliver.
#[derive(Debug)]
pub(super) struct Queued {
    /// The machine.
    pub(super) machine: MachineId,
    /// The message, where the operation is recorded as delivered: the machine was connected.
    pub(super) message: Option<Operation>,
}

/// What was recorded.
pub(super) enum Recorded {
    /// A new job, with operations to deliver.
    New(Vec<Queued>),
    /// A new job whose operations are held until they are released.
    Rollout,
    /// The request was made before; its repetition was faster here than elsewhere.
    Repeated(JobId),
}

/// Records the job and its operations: those that the preflight ended, those to deliver now, and those that wait.
#[expect(
    clippy::too_many_arguments,
    reason = "everything that a job consists of; called in one place"
)]
pub(super) async fn job(
    host: &SharedHost,
    actor: &Actor,
    id: JobId,
    key: Option<String>,
    order: Order,
    targets: Vec<Target>,
    plans: Vec<Plan>,
    batches: Option<Batches>,
    threshold: Threshold,
    gates_revision: u64,
    now: UnixMillis,
) -> Result<Recorded, SubmitError> {
    let ids: Vec<OperationId> = targets.iter().map(|_| OperationId::generate()).collect();
    let confided = confided(host, actor, &order, &targets, &ids).await?;
    let hold = hold(host, actor, &order, &targets, now).await?;
    let not_after = hold.not_after;
    let batches = held_in(batches, &threshold, &hold, targets.len() as u64);
    let is_rollout = batches.is_some();
    let job = JobRow {
        id,
        token: actor.token,
        operator: actor.name.clone(),
        script_sha256: Digest::of(&order.submission.script),
        script: order.script,
        as_stored: order.as_stored,
        submission: order.submission,
        submitted: now,
        not_after,
        targets: targets.len() as u64,
        skip_security_scan: order.skip_security_scan,
        gates_revision,
        idempotency_key: key,
        request_sha256: order.digest,
        approved: order.approval.as_ref().map(|approval| Approved {
            job: approval.job,
            by: approval.approver.name.clone(),
        }),
        supersede: order.supersede,
        in_order: order.in_order,
    };
    // A machine that is connected now gets its operation right after the commit. It counts as delivered from the commit
    // on: if the host stops in between, nobody may believe that no byte was sent.
    let mut connected = HashSet::new();
    let operations: Vec<(OperationRow, Option<Report>)> = targets
        .iter()
        .zip(plans)
        .enumerate()
        .map(|(position, (target, plan))| {
            let machine = match target {
                Target::Machine(machine) => Some(machine.id),
                Target::NotFound(_) => None,
            };
            let present = machine.is_some_and(|machine| host.presence.get(machine).is_some());
            let batch = batches
                .as_ref()
                .map(|batches| batches.batch_of(position as u64));
            let id_of_operation = ids[position];
            let waits = !order.no_queue || batch.is_some();
            let ended = plan.ended.or_else(|| {
                let ending = ends_at_once(present, waits, &confided, id_of_operation)?;
                Some(Report::without_process(ending, now.to_wire()))
            });
            let sha256 = plan.bundle_sha256;
            let operation = OperationRow {
                position: position as u64,
                state: match batch {
                    Some(_) => State::Held,
                    // Whether it is its turn is seen in the transaction that delivers it.
                    None if present && ended.is_none() && !order.in_order => State::Delivered,
                    None => State::Queued,
                },
                batch,
                ..self::operation(&job, actor.tenant.id, id_of_operation, target, sha256)
            };
            if operation.state == State::Delivered {
                connected.insert(operation.id);
            }
            (operation, ended)
        })
        .collect();
    let queued = operations
        .iter()
        .filter(|(_, ended)| ended.is_none())
        .filter_map(|(operation, _)| {
            let machine = operation.machine?;
            let message = connected
                .contains(&operation.id)
                .then(|| {
                    let sealed = confided.of(operation.id).unwrap_or_default();
                    // Else it would be held.
                    deliver::message(&job, operation, sealed, &Standing::Free)
                })
                .flatten();
            Some(Queued { machine, message })
        })
        .collect();
    let open: Vec<OperationId> = operations
        .iter()
        .filter(|(_, ended)| ended.is_none())
        .map(|(operation, _)| operation.id)
        .collect();
    let count = operations.len() as u64;
    let ends: Vec<State> = operations
        .iter()
        .filter_map(|(_, ended)| ended.as_ref().map(|report| report.ending.state()))
        .collect();
    let beside = Beside {
        rollout: batches
            .map(|batches| RolloutRow::new(id, actor.tenant.id, batches, order.no_queue)),
        approval: order.approval,
        later: order.later,
        threshold,
        hold,
    };
    let writer = actor.clone();
    let written = host
        .store
        .write(move |conn| {
            let written = write_job(conn, &writer, &job, &beside, operations, now)?;
            if matches!(written, Written::New { .. }) {
                confided.store(conn, writer.tenant.id, &open)?;
            }
            Ok::<_, SubmitError>(written)
        })
        .await?;
    match written {
        Written::Repeated(earlier) => return Ok(Recorded::Repeated(earlier)),
        Written::New { superseded } => drop(superseded.tell(host, actor)),
    }
    host.metrics.operations_submitted(count);
    for state in ends {
        host.metrics.operation_ended(state);
    }
    Ok(if is_rollout {
        Recorded::Rollout
    } else {
        Recorded::New(queued)
    })
}

/// The batches in which a job is held, where it is. What is held is released by a rollout: of all at once, where nobody planned
/// another.
pub(super) fn held_in(
    planned: Option<Batches>,
    threshold: &Threshold,
    hold: &Hold,
    all: u64,
) -> Option<Batches> {
    let is_held = threshold.waits() || hold.is_held;
    planned.or_else(|| is_held.then(|| Batches::of_all(all)))
}

/// How an operation that the preflight let pass ends before anything is sent, where it does. `waits` says whether it may for its
/// machine; of a batch that is asked when it begins.
pub(super) fn ends_at_once(
    is_present: bool,
    waits: bool,
    confided: &Confided,
    operation: OperationId,
) -> Option<Ending> {
    if !is_present && !waits {
        return Some(Ending::AgentNotConnected);
    }
    confided.of(operation).err()
}

/// What windows make of an order on its machines.
pub(super) async fn hold(
    host: &SharedHost,
    actor: &Actor,
    order: &Order,
    targets: &[Target],
    now: UnixMillis,
) -> Result<Hold, SubmitError> {
    let machines = targets.iter().filter_map(|target| match target {
        Target::Machine(machine) => Some(machine.id),
        Target::NotFound(_) => None,
    });
    let machines: Vec<MachineId> = machines.collect();
    let (tenant, asked, expires) = (actor.tenant.id, order.windows.clone(), order.expires);
    let hold = host
        .store
        .look(Extent::of_rows(machines.len()), move |conn| {
            Hold::of(conn, tenant, &asked, &machines, expires, now)
        })
        .await?;
    Ok(hold)
}

/// The job's secrets, sealed to its machines.
pub(super) async fn confided(
    host: &SharedHost,
    actor: &Actor,
    order: &Order,
    targets: &[Target],
    ids: &[OperationId],
) -> Result<Confided, SubmitError> {
    let operations = ids
        .iter()
        .zip(targets)
        .filter_map(|(id, target)| match target {
            Target::Machine(machine) => Some((*id, machine.id)),
            Target::NotFound(_) => None,
        });
    let names = &order.submission.secrets;
    Ok(Confided::seal(host, actor.tenant.id, names, operations.collect()).await?)
}

/// What is stored beside a job.
struct Beside {
    approval: Option<Approval>,
    later: Option<Selector>,
    rollout: Option<RolloutRow>,
    threshold: Threshold,
    hold: Hold,
}

/// What a transaction wrote.
enum Written {
    /// The job.
    New {
        /// What ended of older ones, of which nobody was told.
        superseded: Canceling,
    },
    /// Nothing: the request was made before.
    Repeated(JobId),
}

fn write_job(
    conn: &Connection,
    actor: &Actor,
    job: &JobRow,
    beside: &Beside,
    operations: Vec<(OperationRow, Option<Report>)>,
    now: UnixMillis,
) -> Result<Written, SubmitError> {
    if let Some(earlier) = repetition(
        conn,
        actor,
        job.idempotency_key.as_deref(),
        job.request_sha256,
    )? {
        audit::append(conn, &actor.tenant, now, [repeated(actor, job.id, earlier)])?;
        return Ok(Written::Repeated(earlier));
    }
    // Looked at here, where it cannot change any more before the job is there.
    if let Some(locked) = Locked::check(conn)? {
        return Err(SubmitError::Locked(locked));
    }
    // Between the look at the library and this moment it may have been changed.
    if let Some(script) = &job.script {
        library::still_runs(conn, actor.tenant.id, script)?;
    }
    jobs::insert(conn, actor.tenant.id, job)?;
    beside.hold.store(conn, actor.tenant.id, job.id)?;
    if let Some(rollout) = &beside.rollout {
        rollouts::insert(conn, rollout)?;
    }
    if let Some(selector) = &beside.later {
        if later::count_open(conn, actor.tenant.id)? >= MOST_OPEN {
            return Err(SubmitError::TooManyLater(MOST_OPEN));
        }
        later::insert(conn, actor.tenant.id, job.id, selector, job.not_after)?;
    }
    let mut events = Vec::with_capacity(operations.len());
    events.extend(beside.threshold.store(conn, actor, job, &operations, now)?);
    let mut superseded = Canceling::default();
    // What an approval runs once more is not newer than what came since it was asked for.
    if beside.approval.is_none() {
        // Where it ends at once itself, what waits there is still the newest that can run.
        let runs = operations.iter().filter(|(_, ended)| ended.is_none());
        let on = runs.filter_map(|(operation, _)| operation.machine);
        events.extend(supersede(conn, actor, job, on, &mut superseded, now)?);
    }
    for (operation, ended) in operations {
        operations::insert(conn, &operation, job.not_after)?;
        if let Some(approval) = &beside.approval {
            events.push(approval.use_for(conn, job, &operation, now)?);
        }
        events.extend(events_of(conn, actor, job, &operation, ended)?);
    }
    audit::append(conn, &actor.tenant, now, events)?;
    Ok(Written::New { superseded })
}

/// What is to be recorded of an operation that was just stored; one that has ended is ended by this.
pub(super) fn events_of(
    conn: &Connection,
    actor: &Actor,
    job: &JobRow,
    operation: &OperationRow,
    ended: Option<Report>,
) -> Result<Vec<Event>, StoreError> {
    let Some(report) = ended else {
        let event = Event::by(EventKind::ScriptQueued, actor)
            .on(&operation.machine_name)
            .of_job(job.id)
            .of_operation(operation.id)
            .with_script(job.script_sha256)
            .with_bundle(operation.bundle_sha256);
        let event = naming(&job.submission.secrets, event);
        return Ok(vec![match operation.batch {
            Some(batch) => event.detail("held_for_batch", batch),
            None => event,
        }]);
    };
    operations::end(conn, operation.id, From::NotSent, &report)?;
    let ended = Ended {
        operation,
        script_sha256: job.script_sha256,
        report: &report,
        verdict_is_recorded: false,
    };
    let event = Event::by_host(EventKind::ScriptExecuted);
    Ok(events_of_end(&event, &ended))
}

/// An operation of a job on a target, queued, in no batch and the first of all, as long as nothing else is said.
pub(super) fn operation(
    job: &JobRow,
    tenant: TenantId,
    id: OperationId,
    target: &Target,
    bundle_sha256: Option<Digest>,
) -> OperationRow {
    let limits = &job.submission.limits;
    let time = limits.time.unwrap_or(Limits::TIME);
    OperationRow {
        id,
        tenant,
        job: job.id,
        machine: match target {
            Target::Machine(machine) => Some(machine.id),
            Target::NotFound(_) => None,
        },
        machine_name: target.name().to_owned(),
        position: 0,
        state: State::Queued,
        bundle_sha256,
        silence_after: job.not_after.plus(time).plus(SILENCE),
        output_limit: limits.output.unwrap_or(Limits::OUTPUT).0,
        started: None,
        message: None,
        exit_code: None,
        cancel_by: None,
        batch: None,
        in_order: job.in_order,
    }
}

/// The event, with the names of the secrets that are used, where there are any.
fn naming(secrets: &[String], event: Event) -> Event {
    if secrets.is_empty() {
        return event;
    }
    // What is no name may be a value that was given by mistake, and the log is for ever.
    let names = secrets
        .iter()
        .take(NAMES_IN_ENTRY)
        .map(|name| match secret::check_name(name) {
            Ok(()) => name.clone(),
            Err(_) => format!("(no name: {} bytes)", name.len()),
        });
    event.detail("secrets", names.collect::<Vec<_>>())
}

/// Text from a request, short enough for the log.
pub(super) fn cut(text: &str) -> String {
    const LONGEST: usize = 500;
    text.chars().take(LONGEST).collect()
}
