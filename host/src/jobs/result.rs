//! From what is stored to what an operator gets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sluice_api_types::job::{Job, OperationSummary};
use sluice_api_types::operation::OperationResult;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::{JobId, OperationId};
use sluice_protocol::message::operation::OutputStream;
use sluice_protocol::report::{Exit, Report, StreamEnd};

use crate::clock::UnixMillis;
use crate::store::jobs;
use crate::store::operations::{self, OperationRow};
use crate::store::output::{self, Piece};
use crate::store::tenants::Tenant;
use crate::store::{Connection, Extent, Store, StoreError};

/// A job and its operations; none where the tenant has no such job.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn job(store: &Store, tenant: &Tenant, id: JobId) -> Result<Option<Job>, StoreError> {
    let tenant_id = tenant.id;
    let Some(job) = store.read(|conn| jobs::head(conn, tenant_id, id))? else {
        return Ok(None);
    };
    let extent = Extent::of_rows(usize::try_from(job.targets).unwrap_or(usize::MAX));
    let operations = store
        .look(extent, move |conn| operations::of_job(conn, tenant_id, id))
        .await?;
    Ok(Some(Job {
        job: id,
        tenant: tenant.name.clone(),
        operator: job.operator,
        submitted_at: job.submitted.to_string(),
        script_sha256: job.script_sha256,
        script: job.script.map(Into::into),
        operations: operations.into_iter().map(summary).collect(),
    }))
}

fn summary(row: OperationRow) -> OperationSummary {
    OperationSummary {
        operation: row.id,
        machine: row.machine_name,
        state: row.state,
        status: row.state.status(),
        message: row.message,
        exit_code: row.exit_code,
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
    let Some(row) = operations::find(conn, tenant.id, id)? else {
        return Ok(None);
    };
    let job = jobs::head(conn, tenant.id, row.job)?
        .ok_or_else(|| StoreError::Corrupt(format!("operation {id} has no job")))?;
    let reports = operations::reports(conn, tenant.id, id)?;
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

/// Joins the pieces of both streams. Where the middle of one was cut, head and tail are joined by a line that says so.
fn fill_output(
    result: &mut OperationResult,
    pieces: &[Piece],
    ends: Option<(StreamEnd, StreamEnd)>,
) {
    let (stdout_end, stderr_end) = ends.unzip();
    let mut both = Vec::new();
    let mut stdout = Joined::new(stdout_end);
    let mut stderr = Joined::new(stderr_end);
    for piece in pieces {
        let stream = match piece.chunk.stream {
            OutputStream::Stdout => &mut stdout,
            OutputStream::Stderr => &mut stderr,
        };
        both.extend_from_slice(&stream.push(&piece.chunk.bytes));
    }
    both.extend_from_slice(&stdout.finish());
    both.extend_from_slice(&stderr.finish());
    result.output_lost_bytes = stdout.lost + stderr.lost;
    result.output_truncated = result.output_lost_bytes > 0;
    for (name, stream) in [("stdout", &stdout), ("stderr", &stderr)] {
        if stream.missing > 0 {
            result.notes.push(format!(
                "{} bytes of {name} did not reach the host",
                stream.missing
            ));
        }
    }
    (result.output, result.output_base64) = text(both);
    (result.stdout, result.stdout_base64) = text(stdout.bytes);
    (result.stderr, result.stderr_base64) = text(stderr.bytes);
}

/// One stream as it is put together.
struct Joined {
    bytes: Vec<u8>,
    /// Stored bytes so far, the marker not counted.
    position: u64,
    end: Option<StreamEnd>,
    marked: bool,
    lost: u64,
    /// Bytes that the machine kept, and that the host has not.
    missing: u64,
}

impl Joined {
    fn new(end: Option<StreamEnd>) -> Self {
        Self {
            bytes: Vec::new(),
            position: 0,
            end,
            marked: false,
            lost: end.map_or(0, |end| end.lost),
            missing: 0,
        }
    }

    /// Adds a piece, and gives what was added, with the marker where it falls into the piece.
    fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut added = Vec::with_capacity(piece.len());
        let split = self
            .gap()
            .and_then(|head| head.checked_sub(self.position))
            .and_then(|at| usize::try_from(at).ok());
        match split.filter(|at| *at < piece.len()) {
            Some(at) => {
                added.extend_from_slice(&piece[..at]);
                added.extend_from_slice(&self.mark());
                added.extend_from_slice(&piece[at..]);
            }
            None => added.extend_from_slice(piece),
        }
        self.position += piece.len() as u64;
        self.bytes.extend_from_slice(&added);
        added
    }

    /// Adds what comes behind the last piece.
    fn finish(&mut self) -> Vec<u8> {
        let Some(end) = self.end else {
            return Vec::new();
        };
        self.missing = end.kept.saturating_sub(self.position);
        self.lost += self.missing;
        let added = if self.lost > 0 && !self.marked {
            self.mark()
        } else {
            Vec::new()
        };
        self.bytes.extend_from_slice(&added);
        added
    }

    /// Where the marker goes, as long as it has not been set.
    fn gap(&self) -> Option<u64> {
        self.end
            .filter(|end| end.lost > 0 && !self.marked)
            .map(|end| end.head)
    }

    fn mark(&mut self) -> Vec<u8> {
        self.marked = true;
        format!("\n[... {} bytes lost ...]\n", self.lost).into_bytes()
    }
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
    use sluice_protocol::message::operation::Chunk;

    use super::*;

    fn joined(
        pieces: &[(OutputStream, &[u8])],
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
            .map(|(stream, bytes)| Piece {
                id: 1,
                chunk: Chunk {
                    stream: *stream,
                    offset: 0,
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
            &[(Stdout, b"a\n"), (Stderr, b"b\n"), (Stdout, b"c\n")],
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
        for pieces in [
            &[(Stdout, b"headtail".as_slice())][..],
            &[(Stdout, b"head"), (Stdout, b"tail")],
        ] {
            let result = joined(pieces, Some((end(8, 10, 4), end(0, 0, 0))));
            assert_eq!(result.stdout.as_deref(), Some(expected));
            assert_eq!(result.output.as_deref(), Some(expected));
            assert_eq!(
                (result.output_truncated, result.output_lost_bytes),
                (true, 10)
            );
        }
        let result = joined(&[(Stdout, b"head")], Some((end(4, 10, 4), end(0, 0, 0))));
        assert_eq!(
            result.stdout.as_deref(),
            Some("head\n[... 10 bytes lost ...]\n")
        );
    }

    #[test]
    fn what_did_not_reach_the_host_counts_as_lost() {
        let result = joined(
            &[(OutputStream::Stdout, b"ab")],
            Some((end(5, 0, 5), end(0, 0, 0))),
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
        let result = joined(&[(OutputStream::Stdout, b"a\xff")], None);
        assert_eq!(result.stdout.as_deref(), Some("a\u{fffd}"));
        assert_eq!(result.stdout_base64.as_deref(), Some("Yf8="));
        assert_eq!(result.stderr.as_deref(), Some(""));
        assert_eq!(result.stderr_base64, None);
    }
}
