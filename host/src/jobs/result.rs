//! From what is stored to what an operator gets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sluice_api_types::job::{Job, OperationSummary};
use sluice_api_types::operation::OperationResult;
use sluice_api_types::why::Reason;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::{JobId, OperationId};
use sluice_protocol::message::operation::{Chunk, OutputStream};
use sluice_protocol::report::{Exit, Report, StreamEnd, lost_marker};

use super::why::OfJob;
use super::{hold, later};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::rollouts;
use crate::store::holds;
use crate::store::jobs;
use crate::store::operations::{self, OperationRow};
use crate::store::output::{self, Piece};
use crate::store::tenants::Tenant;
use crate::store::{Connection, Extent, StoreError};

/// A job and its operations; none where the tenant has no such job.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn job(host: &SharedHost, tenant: &Tenant, id: JobId) -> Result<Option<Job>, StoreError> {
    let (tenant_id, store) = (tenant.id, &host.store);
    let Some(job) = store.read(|conn| jobs::head(conn, tenant_id, id))? else {
        return Ok(None);
    };
    let extent = Extent::of_rows(usize::try_from(job.targets).unwrap_or(usize::MAX));
    let host = host.clone();
    let (rollout, approval, later, operations) = store
        .look(extent, move |conn| {
            let rows = operations::of_job(conn, tenant_id, id)?;
            let approval = holds::find(conn, tenant_id, id)?
                .map(|row| hold::show(conn, &row, host.clock.now()))
                .transpose()?;
            let rollout = crate::store::rollouts::find(conn, tenant_id, id)?
                .map(|row| rollouts::show(conn, &row))
                .transpose()?;
            let mut of_job = rows
                .iter()
                .find(|row| !row.state.is_terminal())
                .map(|row| OfJob::read(conn, &host, row))
                .transpose()?;
            let operations = rows
                .into_iter()
                .map(|row| {
                    let why = match &mut of_job {
                        Some(of_job) => of_job.why(conn, &host, &row)?,
                        None => Vec::new(),
                    };
                    Ok(summary(row, why))
                })
                .collect::<Result<Vec<_>, StoreError>>()?;
            Ok::<_, StoreError>((
                rollout,
                approval,
                later::show(conn, tenant_id, id)?,
                operations,
            ))
        })
        .await?;
    Ok(Some(Job {
        job: id,
        tenant: tenant.name.clone(),
        operator: job.operator,
        submitted_at: job.submitted.to_string(),
        script_sha256: job.script_sha256,
        script: job.script.map(Into::into),
        approves: job.approved.as_ref().map(|approved| approved.job),
        approved_by: job.approved.map(|approved| approved.by),
        supersede: job.supersede.map(|key| key.as_str().to_owned()),
        in_order: job.in_order,
        rollout,
        approval,
        later,
        operations,
    }))
}

fn summary(row: OperationRow, why: Vec<Reason>) -> OperationSummary {
    OperationSummary {
        operation: row.id,
        machine: row.machine_name,
        state: row.state,
        status: row.state.status(),
        message: row.message,
        exit_code: row.exit_code,
        why,
    }
}

/// Everything about an operation; none where the tenant has no such operation.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn operation_result(
    conn: &Connection,
    tenant: &Tenant,
    id: OperationId,
) -> Result<Option<OperationResult>, StoreError> {
    let Some((row, reports)) = operations::find_reported(conn, tenant.id, id)? else {
        return Ok(None);
    };
    let job = jobs::head(conn, tenant.id, row.job)?
        .ok_or_else(|| StoreError::Corrupt(format!("operation {id} has no job")))?;
    let mut result = OperationResult::pending(
        row.job,
        id,
        tenant.name.clone(),
        row.machine_name.clone(),
        row.state,
    );
    result.script_sha256 = Some(job.script_sha256);
    result.script = job.script.map(Into::into);
    result.bundle_sha256 = row.bundle_sha256;
    result.started_at = row.started.map(|at| at.to_string());
    if row.started.is_some()
        || reports
            .report
            .as_ref()
            .is_some_and(|report| report.started_at.is_some())
    {
        let pieces = output::pieces(conn, id, 0, u32::MAX)?;
        let ends = reports
            .report
            .as_ref()
            .map(|report| (report.stdout, report.stderr));
        fill_output(&mut result, &pieces, ends);
    }
    if let Some(report) = reports.report {
        fill_report(&mut result, report);
    }
    result.late_report = reports.late.map(|late| {
        serde_json::json!({
            "state": late.ending.state(),
            "message": late.ending.message(),
            "exit_code": late.exit_code(),
            "started_at": late.started_at.map(|at| UnixMillis::from_wire(at).to_string()),
            "finished_at": UnixMillis::from_wire(late.finished_at).to_string(),
        })
    });
    Ok(Some(result))
}

/// As [`operation_result`], and what it waits for where it has not ended.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn operation_with_why(
    conn: &Connection,
    host: &SharedHost,
    tenant: &Tenant,
    id: OperationId,
) -> Result<Option<OperationResult>, StoreError> {
    let Some(mut result) = operation_result(conn, tenant, id)? else {
        return Ok(None);
    };
    if !result.state.is_terminal()
        && let Some(row) = operations::find(conn, tenant.id, id)?
    {
        result.why = OfJob::read(conn, host, &row)?.why(conn, host, &row)?;
    }
    Ok(Some(result))
}

fn fill_report(result: &mut OperationResult, report: Report) {
    result.message = Some(report.ending.message());
    result.exit_code = Some(report.exit_code());
    if let Some(Exit::Signal(signal)) = &report.exit {
        result.signal = Some(signal.name.clone());
        result.core_dumped = signal.core_dumped;
    }
    result.timed_out = matches!(report.ending, Ending::TimedOut(_));
    result.canceled = matches!(report.ending, Ending::Canceled(_));
    result.code = match &report.ending {
        Ending::Blocked(block) => block.code.clone(),
        _ => None,
    };
    result.limit_hit = report.limit_hit;
    result.survivors_killed = report.survivors_killed;
    result.started_at = report
        .started_at
        .map(|at| UnixMillis::from_wire(at).to_string());
    result.finished_at = Some(UnixMillis::from_wire(report.finished_at).to_string());
    result.duration_ms = report.duration_ms;
    result.run_as = report.run_as;
    result.context = report.context;
    result.containment = report.containment;
    result.confinement = report.confinement;
    if let (Some(ours), Some(theirs)) = (result.bundle_sha256, report.bundle_sha256)
        && ours != theirs
    {
        result.notes.push(format!(
            "the machine reports another bundle than this host made ({ours})"
        ));
    }
    result.bundle_sha256 = report.bundle_sha256.or(result.bundle_sha256);
    result.findings = report.findings;
    result.checks = report.checks;
    result.receipts = report.receipts;
    result.notes.extend(report.notes);
}

/// Joins the pieces of both streams. Where bytes are missing, what is around them is joined by a line that says so.
fn fill_output(
    result: &mut OperationResult,
    pieces: &[Piece],
    ends: Option<(StreamEnd, StreamEnd)>,
) {
    let mut both = Vec::new();
    let (mut stdout, mut stderr) = (Joined::default(), Joined::default());
    for piece in pieces {
        let stream = match piece.chunk.stream {
            OutputStream::Stdout => &mut stdout,
            OutputStream::Stderr => &mut stderr,
        };
        stream.push(&piece.chunk, &mut both);
    }
    for (name, stream, end) in [
        ("stdout", &mut stdout, ends.map(|ends| ends.0)),
        ("stderr", &mut stderr, ends.map(|ends| ends.1)),
    ] {
        let Some(end) = end else { continue };
        stream.skip_to(end.written(), &mut both);
        let missing = stream.lost.saturating_sub(end.lost);
        if missing > 0 {
            result
                .notes
                .push(format!("{missing} bytes of {name} did not reach the host"));
        }
    }
    result.output_lost_bytes = stdout.lost.saturating_add(stderr.lost);
    result.output_truncated = result.output_lost_bytes > 0;
    (result.output, result.output_base64) = text(both);
    (result.stdout, result.stdout_base64) = text(stdout.bytes);
    (result.stderr, result.stderr_base64) = text(stderr.bytes);
}

/// One stream as it is put together.
#[derive(Default)]
struct Joined {
    bytes: Vec<u8>,
    /// How much of the stream is in it, or lost.
    position: u64,
    lost: u64,
}

impl Joined {
    /// Adds a piece, to what both streams have too.
    fn push(&mut self, piece: &Chunk, both: &mut Vec<u8>) {
        self.skip_to(piece.offset, both);
        both.extend_from_slice(&piece.bytes);
        self.bytes.extend_from_slice(&piece.bytes);
        self.position = self.position.saturating_add(piece.bytes.len() as u64);
    }

    /// Bytes up to this place are lost.
    fn skip_to(&mut self, position: u64, both: &mut Vec<u8>) {
        let lost = position.saturating_sub(self.position);
        if lost > 0 {
            let marker = lost_marker(lost);
            both.extend_from_slice(marker.as_bytes());
            self.bytes.extend_from_slice(marker.as_bytes());
            self.lost = self.lost.saturating_add(lost);
            self.position = position;
        }
    }
}

/// The streams of an operation that has ended of which the last bytes are lost, and how long they were.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn ends_that_are_lost(
    conn: &Connection,
    tenant: &Tenant,
    id: OperationId,
) -> Result<Vec<(OutputStream, u64)>, StoreError> {
    let Some(report) = operations::reports(conn, tenant.id, id)?.report else {
        return Ok(Vec::new());
    };
    let stored = output::lengths(conn, id)?;
    let ends = [
        (OutputStream::Stdout, report.stdout),
        (OutputStream::Stderr, report.stderr),
    ];
    Ok(ends
        .map(|(stream, end)| (stream, end.written()))
        .into_iter()
        .filter(|(stream, written)| *written > stored.of(*stream))
        .collect())
}

/// Bytes as text, and as base64 too where the text is not all of it.
fn text(bytes: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => {
            let bytes = error.into_bytes();
            (
                Some(String::from_utf8_lossy(&bytes).into_owned()),
                Some(STANDARD.encode(&bytes)),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_protocol::ending::State;

    use super::*;

    fn joined(
        pieces: &[(OutputStream, u64, &[u8])],
        ends: Option<(StreamEnd, StreamEnd)>,
    ) -> OperationResult {
        let mut result = OperationResult::pending(
            JobId::generate(),
            OperationId::generate(),
            "default".to_owned(),
            "m".to_owned(),
            State::Running,
        );
        let pieces: Vec<Piece> = pieces
            .iter()
            .map(|(stream, offset, bytes)| Piece {
                id: 1,
                chunk: Chunk {
                    stream: *stream,
                    offset: *offset,
                    bytes: bytes.to_vec(),
                },
            })
            .collect();
        fill_output(&mut result, &pieces, ends);
        result
    }

    const fn end(kept: u64, lost: u64, head: u64) -> StreamEnd {
        StreamEnd { kept, lost, head }
    }

    #[test]
    fn both_streams_keep_the_order_in_which_they_were_read() {
        use OutputStream::{Stderr, Stdout};
        let result = joined(
            &[
                (Stdout, 0, b"a\n"),
                (Stderr, 0, b"b\n"),
                (Stdout, 2, b"c\n"),
            ],
            Some((end(4, 0, 4), end(2, 0, 2))),
        );
        assert_eq!(result.output.as_deref(), Some("a\nb\nc\n"));
        assert_eq!(result.stdout.as_deref(), Some("a\nc\n"));
        assert_eq!(result.stderr.as_deref(), Some("b\n"));
        assert_eq!(
            (result.output_truncated, result.output_lost_bytes),
            (false, 0)
        );
    }

    #[test]
    fn head_and_tail_are_joined_by_what_is_missing() {
        use OutputStream::Stdout;
        let expected = "head\n[... 10 bytes lost ...]\ntail";
        let result = joined(
            &[(Stdout, 0, b"head"), (Stdout, 14, b"tail")],
            Some((end(8, 10, 4), end(0, 0, 0))),
        );
        assert_eq!(result.stdout.as_deref(), Some(expected));
        assert_eq!(result.output.as_deref(), Some(expected));
        assert_eq!(
            (result.output_truncated, result.output_lost_bytes),
            (true, 10)
        );
        assert_eq!(result.notes, Vec::<String>::new());
        let result = joined(&[(Stdout, 0, b"head")], Some((end(4, 10, 4), end(0, 0, 0))));
        assert_eq!(
            result.stdout.as_deref(),
            Some("head\n[... 10 bytes lost ...]\n")
        );
    }

    #[test]
    fn what_did_not_reach_the_host_counts_as_lost() {
        let result = joined(
            &[
                (OutputStream::Stdout, 0, b"ab"),
                (OutputStream::Stdout, 4, b"e"),
            ],
            Some((end(6, 0, 6), end(0, 0, 0))),
        );
        assert_eq!(
            result.stdout.as_deref(),
            Some("ab\n[... 2 bytes lost ...]\ne\n[... 1 bytes lost ...]\n")
        );
        assert_eq!(result.output_lost_bytes, 3);
        assert!(
            result.notes[0].contains("3 bytes of stdout"),
            "{:?}",
            result.notes
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_there_twice() {
        let result = joined(&[(OutputStream::Stdout, 0, b"a\xff")], None);
        assert_eq!(result.stdout.as_deref(), Some("a\u{fffd}"));
        assert_eq!(result.stdout_base64.as_deref(), Some("Yf8="));
        assert_eq!(result.stderr.as_deref(), Some(""));
        assert_eq!(result.stderr_base64, None);
    }
}
