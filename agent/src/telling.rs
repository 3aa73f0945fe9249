//! Telling the host about an operation: one stream for each, on each link, from what the host does not have yet on.
//!
//! Output is told as it comes while it is little. What is more is read in the spool: every [`LOOK`] while the script runs,
//! and to its end when it has ended. So an agent keeps no output, however slow its link is, and a flood costs it a look in
//! a tenth of a second. What the spool does not keep any more when it is looked at is not told; where a script goes on
//! beyond its limit, no more than [`RATE`] of what is kept is told live.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sluice_protocol::causes::Causes;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::LedgerMark;
use sluice_protocol::message::operation::{Chunk, OutputStream, Progress};
use sluice_protocol::report::Report;
use sluice_shim::kept::{Found, Piece, Reader};
use sluice_shim::spool::SpoolError;
use sluice_transport::agent::AgentConnection;
use sluice_transport::error::LinkError;
use sluice_transport::progress::ProgressSender;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::journal::Journal;
use crate::outcome::told_as;

/// Between two looks at what a script has written. Short enough to read along, long enough that a look is not for a line.
const LOOK: Duration = Duration::from_millis(100);

/// How long an operation that was taken in is not told of where its script may be about to start.
const TOGETHER: Duration = Duration::from_millis(5);

/// How much of an output that is over its limit is told live, in bytes a second. It ends up in the host's database and is
/// removed from there again by what comes after it.
const RATE: u64 = 64 << 10;

/// How much is read and told at a time: what one operation that is told keeps in memory.
const BATCH: usize = 64 << 10;

/// How often a look may fail before what is in the spool is given up: the machine may be short of something for a moment,
/// and what the host acknowledges without its output is lost.
const FAILURES: u32 = 5;

/// Operations under way that are told at once. With those below it is less than a host lets an agent have streams.
const UNDER_WAY: usize = 48;

/// Operations that have ended and are told at once: those that wait for hours to start do not keep them back, and no more
/// of them than these have their report in memory.
const ENDED: usize = 8;

/// The places for operations that are told at the same time.
#[derive(Debug)]
pub(crate) struct Places {
    under_way: Semaphore,
    ended: Semaphore,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            under_way: Semaphore::new(UNDER_WAY),
            ended: Semaphore::new(ENDED),
        }
    }
}

impl Places {
    /// A place for an operation that is under way; when it has ended meanwhile, one of the others.
    pub(crate) async fn of_one_under_way(&self, journal: &Journal) -> SemaphorePermit<'_> {
        tokio::select! {
            biased;
            place = acquire(&self.under_way) => place,
            () = journal.has_ended() => self.of_one_that_ended().await,
        }
    }

    /// A place for one that has ended.
    pub(crate) async fn of_one_that_ended(&self) -> SemaphorePermit<'_> {
        acquire(&self.ended).await
    }
}

async fn acquire(places: &Semaphore) -> SemaphorePermit<'_> {
    match places.acquire().await {
        Ok(place) => place,
        // They are never closed.
        Err(_) => std::future::pending().await,
    }
}

/// Up to where each output stream was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) stdout: u64,
    pub(crate) stderr: u64,
}

impl Told {
    /// What of a piece is new, and not lost as far as the report says so: in one part, or in the two around the gap.
    fn rest(&mut self, piece: Chunk, report: Option<&Report>) -> Vec<Chunk> {
        let (told, end) = match piece.stream {
            OutputStream::Stdout => (&mut self.stdout, report.map(|report| report.stdout)),
            OutputStream::Stderr => (&mut self.stderr, report.map(|report| report.stderr)),
        };
        let until = piece.offset.saturating_add(piece.bytes.len() as u64);
        let from = piece.offset.max(*told);
        *told = until.max(*told);
        let gap = end.map(|end| end.gap()).filter(|gap| !gap.is_empty());
        let parts = match gap {
            Some(gap) => [from..until.min(gap.start), from.max(gap.end)..until],
            None if from == piece.offset => return vec![piece],
            None => [from..until, until..until],
        };
        let within = |at: u64| usize::try_from(at - piece.offset).unwrap_or(usize::MAX);
        parts
            .into_iter()
            .filter(|part| !part.is_empty())
            .filter_map(|part| {
                let bytes = piece.bytes.get(within(part.start)..within(part.end))?;
                Some(Chunk {
                    stream: piece.stream,
                    offset: part.start,
                    bytes: bytes.to_vec(),
                })
            })
            .collect()
    }
}

/// Tells what happens to an operation, and what became of it. `told` is what the host has of its output,
/// `ledger` says how far the ledger is on disk.
///
/// # Errors
///
/// Where the link breaks; on the next one it goes on with what the host does not have then.
pub(crate) async fn tell(
    journal: &Journal,
    operation: OperationId,
    connection: &AgentConnection,
    told: Told,
    spool: &Path,
    ledger: &Marks<'_>,
) -> Result<(), LinkError> {
    if !journal.is_accepted().await {
        return Ok(());
    }
    // Most begin at once, and are told of by then with one message and not with two.
    let _ = tokio::time::timeout(TOGETHER, journal.has_begun()).await;
    let mut telling = Telling {
        journal,
        stream: connection.open_progress(operation).await?,
        entries: 0,
        told,
        ledger,
        mark: None,
        receipts: false,
    };
    let finished = loop {
        let news = journal.news(telling.entries).await;
        telling.entries(&news.entries).await?;
        match news.finished {
            _ if news.spooled => break telling.spooled(spool).await?,
            Some(finished) => break finished,
            None => {}
        }
    };
    telling.mark().await?;
    telling.report(&finished).await?;
    telling.stream.finish().await
}

struct Telling<'a> {
    journal: &'a Journal,
    stream: ProgressSender,
    /// How many entries of the journal were told.
    entries: usize,
    told: Told,
    ledger: &'a Marks<'a>,
    /// How far the host knows the ledger to be, by this stream.
    mark: Option<LedgerMark>,
    /// The receipts were told on this stream.
    receipts: bool,
}

/// How far the ledger is on disk; none where that cannot be read.
pub(crate) type Marks<'a> = dyn Fn() -> Option<LedgerMark> + Send + Sync + 'a;

impl Telling<'_> {
    /// Tells how far the ledger is on disk, where that is news. It is before what it has in it is told, so that a host that
    /// knows of a start or an end can tell a ledger that lacks it.
    async fn mark(&mut self) -> Result<(), LinkError> {
        match (self.ledger)() {
            Some(mark) if self.mark != Some(mark) => {
                self.mark = Some(mark);
                self.stream.send(&Progress::Ledger(mark)).await
            }
            _ => Ok(()),
        }
    }

    async fn entries(&mut self, entries: &[Arc<Progress>]) -> Result<(), LinkError> {
        self.entries += entries.len();
        for entry in entries {
            match &**entry {
                Progress::Output(chunk) => self.output(chunk.clone(), None).await?,
                step @ Progress::Running { .. } => {
                    self.mark().await?;
                    self.stream.send(step).await?;
                }
                step => {
                    self.receipts |= matches!(step, Progress::Receipts(_));
                    self.stream.send(step).await?;
                }
            }
        }
        Ok(())
    }

    /// Tells the end, without the receipts where the host has them.
    async fn report(&mut self, finished: &Progress) -> Result<(), LinkError> {
        match finished {
            Progress::Finished(report) if self.receipts => {
                let report = Report {
                    receipts: Vec::new(),
                    attestation: None,
                    ..(**report).clone()
                };
                self.stream
                    .send(&Progress::Finished(Box::new(report)))
                    .await
            }
            finished => self.stream.send(finished).await,
        }
    }

    async fn output(&mut self, chunk: Chunk, report: Option<&Report>) -> Result<(), LinkError> {
        for chunk in self.told.rest(chunk, report) {
            self.stream.send(&Progress::Output(chunk)).await?;
        }
        Ok(())
    }

    /// Tells what the spool has until the operation has ended, and to its end. Gives the report, which is to be told next.
    async fn spooled(&mut self, spool: &Path) -> Result<Arc<Progress>, LinkError> {
        let (mut reader, mut failures) = (Reader::new(spool), 0);
        loop {
            // Before the look: whatever has ended by now has all of its output in the spool.
            let news = self.journal.after(self.entries);
            self.entries(&news.entries).await?;
            let (report, mut rest) = (news.report(), LOOK);
            // One that fails again and again does not keep the report back.
            let mut is_over = failures >= FAILURES;
            while failures < FAILURES {
                let (read, batch) = match look(reader, report.is_some()).await {
                    Ok(found) => found,
                    Err(error) => {
                        tracing::error!(operation = %self.stream.operation(), error = %Causes(&error), "output that is in the spool cannot be told");
                        failures += 1;
                        // From the beginning: what was told is not told again.
                        reader = Reader::new(spool);
                        is_over = failures >= FAILURES;
                        break;
                    }
                };
                failures = 0;
                let bytes: usize = batch.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
                for chunk in batch.chunks {
                    self.output(chunk, report).await?;
                }
                let is_paced = report.is_none() && read.is_beyond_limit();
                reader = read;
                if is_paced {
                    rest = rest.max(Duration::from_millis(bytes as u64 * 1000 / RATE));
                }
                is_over = true;
                if is_paced || !batch.more {
                    break;
                }
            }
            match news.finished {
                Some(finished) if is_over => return Ok(finished),
                Some(_) => tokio::time::sleep(rest).await,
                None => tokio::select! {
                    () = self.journal.has_ended() => {}
                    () = tokio::time::sleep(rest) => {}
                },
            }
        }
    }
}

/// What one look into a spool finds.
#[derive(Debug, Default)]
struct Batch {
    chunks: Vec<Chunk>,
    /// There may be more.
    more: bool,
}

/// The look could not be made.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("there is no thread to read the spool")]
    Thread(#[from] tokio::task::JoinError),
}

/// Reads on, where blocking is allowed.
async fn look(mut reader: Reader, is_over: bool) -> Result<(Reader, Batch), LookError> {
    tokio::task::spawn_blocking(move || {
        let batch = read_on(&mut reader, is_over)?;
        Ok((reader, batch))
    })
    .await?
}

/// Reads on. What a script that still runs has overtaken is passed over, and what is kept then is left to the next look:
/// by then a flood has overtaken it too.
fn read_on(reader: &mut Reader, is_over: bool) -> Result<Batch, SpoolError> {
    let mut batch = Batch::default();
    if !is_over && reader.skip_what_is_gone()? {
        return Ok(batch);
    }
    let (mut size, mut joins) = (0, false);
    while size < BATCH {
        let was_beyond_head = reader.is_beyond_head();
        let piece = match reader.next_piece()? {
            Found::Piece(piece) => piece,
            Found::Gone if is_over => continue,
            Found::Gone | Found::Nothing => return Ok(batch),
        };
        // What is behind the head may be cut off again: no piece reaches over that place.
        joins &= was_beyond_head == reader.is_beyond_head();
        size += piece.bytes.len();
        batch.add(piece, joins);
        joins = true;
    }
    batch.more = true;
    Ok(batch)
}

impl Batch {
    /// Adds a piece, to the last one where it may and can be.
    fn add(&mut self, piece: Piece, joins: bool) {
        let stream = told_as(piece.stream);
        match self.chunks.last_mut() {
            Some(last)
                if joins
                    && last.stream == stream
                    && last.offset + last.bytes.len() as u64 == piece.at =>
            {
                last.bytes.extend(piece.bytes);
            }
            _ => self.chunks.push(Chunk {
                stream,
                offset: piece.at,
                bytes: piece.bytes,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
