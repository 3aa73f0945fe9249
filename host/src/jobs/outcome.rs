//! A machine's report becomes a result: stored and recorded in one transaction, acknowledged after it.

use sluice_protocol::digest::Digest;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::{MachineId, OperationId};
use sluice_protocol::message::operation::OutputStream;
use sluice_protocol::receipt::Receipt;
use sluice_protocol::report::Report;

use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::receipts::{Recorded, Reported, Verified};
use crate::store::operations::{self, From, OperationRow};
use crate::store::receipts::In;
use crate::store::tenants::Tenant;
use crate::store::{self, Connection, StoreError, jobs, output};

/// The machine that a connection belongs to, by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its tenant.
    pub tenant: Tenant,
    /// Its id.
    pub id: MachineId,
    /// Its name, for the audit log.
    pub name: String,
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored, or was before: the machine may forget the operation.
    Acknowledge {
        /// The head of the tenant's audit chain after the commit.
        audit_head: Digest,
    },
    /// The machine has no such operation, or says what only a host may: it broke the protocol.
    Violation(&'static str),
}

/// Stores a report, and what was verified of its receipts. The first one that comes wins; one for an operation that has ended is kept beside the result where it
/// says something else.
///
/// # Errors
///
/// Where the database cannot be written. The machine reports again.
pub async fn store_report(
    host: &SharedHost,
    machine: &Machine,
    operation: OperationId,
    reported: impl Into<Reported>,
    now: UnixMillis,
) -> Result<Outcome, StoreError> {
    let Reported {
        report,
        receipts,
        recorded,
    } = reported.into();
    // An agent may say of itself that something expired, and after a crash that it does not know.
    if matches!(
        report.ending,
        Ending::MachineNotFound | Ending::AgentNotConnected
    ) {
        return Ok(Outcome::Violation(
            "a machine reported what only a host can know",
        ));
    }
    let machine = machine.clone();
    let state = report.ending.state();
    let (outcome, ended) = host
        .store
        .write(move |conn| {
            let signed = Signed::of(receipts.as_ref(), &recorded);
            write(conn, &machine, operation, &report, signed, now)
        })
        .await?;
    if let Some(operation) = ended {
        host.metrics.operation_ended(state);
        host.events.notify(operation.job);
        host.rollouts.wake(operation.job);
        if operation.in_order {
            host.turns.wake();
        }
    }
    Ok(outcome)
}

/// What was verified of a report's receipts.
#[derive(Clone, Copy)]
enum Signed<'a> {
    /// Nothing: there are none.
    Nothing,
    /// It came with the report.
    New(&'a Verified),
    /// It came ahead, and is in the store and on the record.
    Recorded,
}

impl<'a> Signed<'a> {
    fn of(verified: Option<&'a Verified>, recorded: &Recorded) -> Self {
        match verified {
            None => Self::Nothing,
            Some(_) if recorded.is_so() => Self::Recorded,
            Some(verified) => Self::New(verified),
        }
    }
}

fn write(
    conn: &Connection,
    machine: &Machine,
    id: OperationId,
    report: &Report,
    signed: Signed<'_>,
    now: UnixMillis,
) -> Result<(Outcome, Option<OperationRow>), StoreError> {
    let tenant = &machine.tenant;
    let Some(operation) = operations::find(conn, tenant.id, id)? else {
        // The host's database may be an older copy. There is nothing to store it with, and a machine that is not told so
        // would come back with it for ever.
        let event = Event::by_agent(EventKind::ScriptLateReport, &machine.name)
            .of_operation(id)
            .with_bundle(report.bundle_sha256)
            .detail("state", report.ending.state().as_str())
            .detail("unknown_operation", true);
        let audit_head = audit::append(conn, tenant, now, [event])?;
        return Ok((Outcome::Acknowledge { audit_head }, None));
    };
    if operation.machine != Some(machine.id) {
        return Ok((
            Outcome::Violation("a machine reported an operation of another"),
            None,
        ));
    }
    let script_sha256 = jobs::script_sha256(conn, tenant.id, operation.job)?;
    let verdict_is_recorded = match signed {
        Signed::Nothing => false,
        // Ahead, over another link: where that was the same.
        Signed::New(_) => store::receipts::find(conn, tenant.id, id)?
            .is_some_and(|row| row.is_of(tenant.id, id, &report.receipts)),
        Signed::Recorded => true,
    };
    let ended = Ended {
        operation: &operation,
        script_sha256,
        report,
        verdict_is_recorded,
    };
    let keep_receipts = |place| match signed {
        Signed::Nothing => Ok(()),
        Signed::New(verified) => {
            store::receipts::insert(conn, tenant.id, machine.id, id, place, verified)
        }
        Signed::Recorded => store::receipts::settle(conn, id, place),
    };
    if operations::end(conn, id, From::Open, report)? {
        keep_receipts(In::Report)?;
        for (stream, end) in [
            (OutputStream::Stdout, report.stdout),
            (OutputStream::Stderr, report.stderr),
        ] {
            // What was told while it was not known that it would be lost.
            if end.lost > 0 {
                output::cut(conn, id, stream, end.gap())?;
            }
        }
        let events = events_of_end(
            &Event::by_agent(EventKind::ScriptExecuted, &machine.name),
            &ended,
        );
        let audit_head = audit::append(conn, tenant, now, events)?;
        return Ok((Outcome::Acknowledge { audit_head }, Some(operation)));
    }
    let is_late = operations::keep_late_report(conn, id, report)?;
    if is_late {
        keep_receipts(In::LateReport)?;
    }
    let late = is_late.then(|| {
        ended
            .event(
                &Event::by_agent(EventKind::ScriptLateReport, &machine.name),
                EventKind::ScriptLateReport,
            )
            .detail("recorded_state", operation.state.as_str())
    });
    let audit_head = match late {
        Some(event) => audit::append(conn, tenant, now, [event])?,
        None => store::audit::head(conn, tenant.id)?.hash,
    };
    Ok((Outcome::Acknowledge { audit_head }, None))
}

/// An operation and how it ended.
pub(super) struct Ended<'a> {
    /// As it was before its end.
    pub(super) operation: &'a OperationRow,
    /// Of the job's script.
    pub(super) script_sha256: Digest,
    /// How it ended.
    pub(super) report: &'a Report,
    /// What the gates said was recorded before.
    pub(super) verdict_is_recorded: bool,
}

impl Ended<'_> {
    fn event(&self, source: &Event, kind: EventKind) -> Event {
        let ending = &self.report.ending;
        Event {
            kind,
            ..source.clone()
        }
        .on(&self.operation.machine_name)
        .of_job(self.operation.job)
        .of_operation(self.operation.id)
        .with_script(self.script_sha256)
        .with_bundle(self.report.bundle_sha256.or(self.operation.bundle_sha256))
        .detail("state", ending.state().as_str())
        .detail("message", ending.message())
        .detail("exit_code", self.report.exit_code())
    }
}

/// What the end of an operation is on the record as: that it was started, where nothing said so before; what the gates
/// said; and the end. `source` is where the news came from.
pub(super) fn events_of_end(source: &Event, ended: &Ended<'_>) -> Vec<Event> {
    let report = ended.report;
    let mut events = Vec::new();
    if let (Some(started), None) = (report.started_at, ended.operation.started) {
        events.push(started_event(
            source,
            ended.operation,
            ended.script_sha256,
            UnixMillis::from_wire(started),
        ));
    }
    if !report.receipts.is_empty() && !ended.verdict_is_recorded {
        let bundle_sha256 = report.bundle_sha256.or(ended.operation.bundle_sha256);
        events.push(
            verdict_event(
                source,
                ended.operation,
                ended.script_sha256,
                &report.receipts,
            )
            .with_bundle(bundle_sha256),
        );
    }
    let mut end = ended.event(source, EventKind::of_ending(&report.ending));
    if !report.findings.is_empty() {
        let rules: Vec<serde_json::Value> = report
            .findings
            .iter()
            .take(50)
            .map(|finding| serde_json::json!({"gate": finding.gate, "rule": finding.rule, "severity": finding.severity, "subject": finding.subject}))
            .collect();
        end = end.detail("findings", rules);
    }
    events.push(end);
    events
}

/// What the gates said.
pub(super) fn verdict_event(
    source: &Event,
    operation: &OperationRow,
    script_sha256: Digest,
    receipts: &[Receipt],
) -> Event {
    let gates: Vec<serde_json::Value> = receipts
        .iter()
        .take(64)
        .map(|receipt| {
            serde_json::json!({
                "plugin": receipt.plugin,
                "version": receipt.version,
                "component_sha256": receipt.component_sha256.to_string(),
                "verdict": receipt.verdict,
                "verdict_sha256": receipt.verdict_sha256.to_string(),
                "mode": receipt.mode,
            })
        })
        .collect();
    Event {
        kind: EventKind::ScriptGateVerdict,
        ..source.clone()
    }
    .on(&operation.machine_name)
    .of_job(operation.job)
    .of_operation(operation.id)
    .with_script(script_sha256)
    .with_bundle(operation.bundle_sha256)
    .detail("gates", gates)
}

/// That a process was started.
pub(super) fn started_event(
    source: &Event,
    operation: &OperationRow,
    script_sha256: Digest,
    started: UnixMillis,
) -> Event {
    Event {
        kind: EventKind::ScriptStarted,
        ..source.clone()
    }
    .on(&operation.machine_name)
    .of_job(operation.job)
    .of_operation(operation.id)
    .with_script(script_sha256)
    .with_bundle(operation.bundle_sha256)
    .detail("started_at", started.to_string())
}
