//! What a simulated machine tells of an operation: one stream for each, on each link.

use quinn::Connection;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::StreamKind;
use sluice_protocol::message::operation::{Chunk, OutputStream, Progress};

use super::ledger::{Open, Phase};
use super::member::Member;
use crate::fake::wire::{frame, stream};

/// Tells of an operation as it goes, to its end. The host has so many bytes `stored` of its output. None where the link
/// breaks before.
pub(super) async fn tell(
    member: &Member,
    connection: &Connection,
    operation: OperationId,
    open: &Open,
    stored: u64,
) -> Option<()> {
    let mut phases = open.phase.subscribe();
    let mut send = connection.open_uni().await.ok()?;
    let mut frames = vec![frame(&Progress::Of(operation)), frame(&Progress::Accepted)];
    let mut bytes = stream(StreamKind::Progress, &frames);
    let mut has_told_start = false;
    loop {
        let phase = phases.borrow_and_update().clone();
        let (started, answer) = match phase {
            Phase::Accepted => (None, None),
            Phase::Running { started_at } => (Some(started_at), None),
            Phase::Ended(answer) => (answer.report.started_at, Some(answer)),
        };
        frames.clear();
        if let Some(started_at) = started.filter(|_| !has_told_start) {
            frames.push(mark(member));
            frames.push(frame(&Progress::Running { started_at }));
            has_told_start = true;
        }
        let is_over = answer.is_some();
        if let Some(answer) = answer {
            let from = usize::try_from(stored).unwrap_or(usize::MAX);
            let rest = answer.stdout.get(from..).unwrap_or_default();
            if !rest.is_empty() {
                frames.push(frame(&Progress::Output(Chunk {
                    stream: OutputStream::Stdout,
                    offset: stored,
                    bytes: rest.to_vec(),
                })));
            }
            frames.push(mark(member));
            frames.push(frame(&Progress::Finished(Box::new(answer.report))));
        }
        bytes.extend(frames.concat());
        send.write_all(&bytes).await.ok()?;
        bytes.clear();
        if is_over {
            send.finish().ok()?;
            return send.stopped().await.ok().map(|_| ());
        }
        phases.changed().await.ok()?;
    }
}

/// How far the ledger is: before what it has in it is told.
fn mark(member: &Member) -> Vec<u8> {
    frame(&Progress::Ledger(member.ledger().head()))
}
