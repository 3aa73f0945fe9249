//! What is told to the host about one operation, in order, from the first word on.
//!
//! While an operation runs its journal is in memory, and every link that comes up is told all of it. When it has ended,
//! the journal is made again from the ledger and the spool for each link, until the host acknowledges.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sluice_protocol::ids::OperationId;
use sluice_protocol::message::operation::{Chunk, MAX_CHUNK, OutputStream, Progress};
use sluice_protocol::report::{Report, StreamEnd};
use sluice_shim::event::{Event, Stream};
use sluice_transport::agent::AgentConnection;
use sluice_transport::error::LinkError;
use tokio::sync::{Notify, watch};

/// The journal of one operation.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<Vec<Arc<Progress>>>,
    fate: watch::Sender<Fate>,
    more: Notify,
}

/// Whether the operation is on disk. Nothing is told before it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Pending,
    Accepted,
    /// It never came there, and nothing will be told.
    Abandoned,
}

impl Journal {
    /// Adds an entry and wakes whoever tells it.
    pub fn push(&self, progress: Progress) {
        self.0
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::new(progress));
        self.0.more.notify_waiters();
    }

    /// The operation is on disk: from here on the journal is told.
    pub fn accepted(&self) {
        self.0.fate.send_replace(Fate::Accepted);
    }

    /// The operation could not be taken in: nobody is told of it, and who waits to tell ends.
    pub fn abandon(&self) {
        self.0.fate.send_replace(Fate::Abandoned);
    }

    /// The journal of an operation that has ended.
    ///
    /// # Errors
    ///
    /// Where the spool cannot be read.
    pub fn of_ended(report: Report, spool: &Path) -> Result<Self, sluice_shim::spool::SpoolError> {
        let journal = Self::default();
        journal.push(Progress::Accepted);
        if let Some(started_at) = report.started_at {
            journal.push(Progress::Running { started_at });
            let mut offsets = Offsets::default();
            for event in sluice_shim::spool::read_events(spool)? {
                offsets
                    .take(&event)
                    .into_iter()
                    .for_each(|chunk| journal.push(Progress::Output(chunk)));
            }
        }
        journal.push(Progress::Finished(Box::new(report)));
        journal.accepted();
        Ok(journal)
    }

    /// Tells everything from the first entry to the report; nothing of an operation that could not be taken in.
    ///
    /// # Errors
    ///
    /// Where the link breaks; the next one is told all again.
    pub async fn tell(
        &self,
        operation: OperationId,
        connection: &AgentConnection,
    ) -> Result<(), LinkError> {
        if !self.is_accepted().await {
            return Ok(());
        }
        let mut stream = connection.open_progress(operation).await?;
        let mut told = 0;
        loop {
            let more = self.0.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            let entries = self.after(told);
            for entry in &entries {
                stream.send(entry).await?;
                if matches!(**entry, Progress::Finished(_)) {
                    return stream.finish().await;
                }
            }
            told += entries.len();
            if entries.is_empty() {
                more.await;
            }
        }
    }
}

impl Journal {
    /// Waits until the operation is on disk. False where it never will be.
    async fn is_accepted(&self) -> bool {
        let mut fate = self.0.fate.subscribe();
        let known = fate.wait_for(|fate| *fate != Fate::Pending).await;
        known.is_ok_and(|fate| *fate == Fate::Accepted)
    }

    /// The entries after the first `told`.
    fn after(&self, told: usize) -> Vec<Arc<Progress>> {
        let entries = self
            .0
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        entries[told..].to_vec()
    }
}

/// Counts what was kept and lost of both streams while events go by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offsets {
    stdout: StreamEnd,
    stderr: StreamEnd,
}

impl Offsets {
    /// Takes an event in; gives its output in pieces that fit into messages.
    pub fn take(&mut self, event: &Event) -> Vec<Chunk> {
        match event {
            Event::Output { stream, bytes } => {
                let end = self.stream(*stream);
                let mut chunks = Vec::new();
                for piece in bytes.chunks(MAX_CHUNK) {
                    chunks.push(Chunk {
                        stream: name(*stream),
                        offset: end.kept,
                        bytes: piece.to_vec(),
                    });
                    end.kept += piece.len() as u64;
                    if end.lost == 0 {
                        end.head = end.kept;
                    }
                }
                chunks
            }
            Event::Lost { stream, bytes } => {
                self.stream(*stream).lost += bytes;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Where stdout and stderr end.
    #[must_use]
    pub const fn ends(&self) -> (StreamEnd, StreamEnd) {
        (self.stdout, self.stderr)
    }

    const fn stream(&mut self, stream: Stream) -> &mut StreamEnd {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

const fn name(stream: Stream) -> OutputStream {
    match stream {
        Stream::Stdout => OutputStream::Stdout,
        Stream::Stderr => OutputStream::Stderr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_what_was_kept_and_where_the_gap_is() {
        let mut offsets = Offsets::default();
        let output = |stream, length: usize| Event::Output {
            stream,
            bytes: vec![b'x'; length].into(),
        };
        assert_eq!(
            offsets.take(&output(Stream::Stdout, MAX_CHUNK + 1)).len(),
            2
        );
        offsets.take(&output(Stream::Stderr, 3));
        offsets.take(&Event::Lost {
            stream: Stream::Stdout,
            bytes: 7,
        });
        let tail = offsets.take(&output(Stream::Stdout, 2));
        let kept = MAX_CHUNK as u64 + 3;
        assert_eq!(tail[0].offset, kept - 2);
        assert_eq!(
            offsets.ends().0,
            StreamEnd {
                kept,
                lost: 7,
                head: kept - 2
            }
        );
        assert_eq!(
            offsets.ends().1,
            StreamEnd {
                kept: 3,
                lost: 0,
                head: 3
            }
        );
    }
}
