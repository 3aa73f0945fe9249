//! Where events go: the spool file, which counts, and the agent's pipe, which may be slow or gone.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::event::{Event, INLINE};
use crate::flush::Flusher;
use crate::frame;
use crate::output::Place;
use crate::record::Record;

/// How long a shim waits for an agent that does not read before it ends. The agent then reads the spool.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Writes each event to the spool and queues it for the agent. What is queued is bounded: of the output only the
/// beginning goes to the agent with the events, and the rest it reads in the spool.
pub(crate) struct Journal {
    record: Option<Record>,
    flusher: Flusher,
    /// A write to the spool failed, which is told once.
    incomplete: bool,
    agent: Option<std::io::Stdout>,
    queue: VecDeque<u8>,
    /// How much output may still go to the agent; none once it was told to look into the spool.
    inline: Option<usize>,
}

impl Default for Journal {
    /// One that is told to nobody.
    fn default() -> Self {
        Self {
            record: None,
            flusher: Flusher::new(Instant::now()),
            incomplete: false,
            agent: None,
            queue: VecDeque::new(),
            inline: Some(INLINE),
        }
    }
}

impl Journal {
    /// A journal for the agent alone, until there is a spool.
    pub(crate) fn new() -> Self {
        let agent = std::io::stdout();
        // Without this a stalled agent would stop the shim, and with it the operation's time limit.
        let blocking = fcntl(agent.as_fd(), FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
        let set = blocking
            .and_then(|flags| fcntl(agent.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)));
        Self {
            agent: set.is_ok().then_some(agent),
            ..Self::default()
        }
    }

    pub(crate) fn attach(&mut self, spool: &Path, events: File) {
        self.record = Some(Record::new(spool, events));
    }

    /// Puts an event on record and tells it.
    pub(crate) fn emit(&mut self, event: &Event) {
        self.record(event);
        self.send();
    }

    /// Whether everything so far is on record.
    pub(crate) fn is_complete(&self) -> bool {
        !self.incomplete
    }

    /// Puts an event on record; it is told together with the next one.
    pub(crate) fn record(&mut self, event: &Event) {
        let bytes = frame::encode(event);
        self.keep(Place::Events, event, &bytes);
        self.tell(&bytes);
    }

    /// Puts output on record, and tells the beginning of it: nothing that may not be kept.
    pub(crate) fn output(&mut self, output: Vec<(Place, Event)>) {
        for (place, event) in output {
            let bytes = frame::encode(&event);
            self.keep(place, &event, &bytes);
            let left = match (&event, self.inline) {
                (_, None) => continue,
                (Event::Output { bytes, .. }, Some(left)) => left.checked_sub(bytes.len()),
                (_, Some(_)) => None,
            };
            self.inline = left;
            match left {
                Some(_) => self.tell(&bytes),
                None => self.tell(&frame::encode(&Event::Spooled)),
            }
        }
        self.send();
    }

    fn keep(&mut self, place: Place, event: &Event, bytes: &[u8]) {
        let Some(record) = &mut self.record else {
            return;
        };
        if let Err(error) = record.append(place, event, bytes)
            && !std::mem::replace(&mut self.incomplete, true)
        {
            // The disk is full or broken. The operation goes on, and there may be room again: what is missing then is
            // output, and not how it ended.
            let text = format!(
                "the spool could not be written ({error}): output may be missing, and an agent that restarts may not be able to pick this operation up"
            );
            self.record(&Event::Note { text });
        }
    }

    fn tell(&mut self, bytes: &[u8]) {
        if self.agent.is_some() {
            self.queue.extend(bytes);
        }
    }

    /// What the spool takes on disk, in bytes.
    pub(crate) fn spooled(&self) -> u64 {
        self.record.as_ref().map_or(0, Record::size)
    }

    /// When [`Self::flush`] is due, while there is something to flush.
    pub(crate) fn flushes_at(&self) -> Option<Instant> {
        let record = self.record.as_ref()?;
        self.flusher.next().filter(|_| record.is_unsynced())
    }

    /// Has what is new in the spool brought to the disk, beside everything else.
    pub(crate) fn flush(&mut self, now: Instant) {
        let Some(record) = self.record.as_mut().filter(|record| record.is_unsynced()) else {
            return;
        };
        if let Err(error) = self.flusher.flush(now, || record.unsynced()) {
            let text = format!("the spool is not safe from a power cut: {error}");
            self.record(&Event::Note { text });
        }
    }

    /// Makes what is in the spool survive a power cut.
    pub(crate) fn sync(&mut self) -> std::io::Result<()> {
        self.record.as_mut().map_or(Ok(()), Record::sync)
    }

    /// The agent's pipe, while there is something to write to it.
    pub(crate) fn waiting(&self) -> Option<BorrowedFd<'_>> {
        self.agent
            .as_ref()
            .filter(|_| !self.queue.is_empty())
            .map(AsFd::as_fd)
    }

    /// Writes what the agent's pipe takes now.
    pub(crate) fn send(&mut self) {
        while let Some(agent) = &self.agent {
            let (bytes, _) = self.queue.as_slices();
            if bytes.is_empty() {
                return;
            }
            match nix::unistd::write(agent.as_fd(), bytes) {
                Ok(count) => drop(self.queue.drain(..count)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => {
                    // The agent is gone. Its successor reads the spool.
                    self.agent = None;
                    self.queue = VecDeque::new();
                }
            }
        }
    }

    /// Waits until the agent has read everything, is gone, or has not read for long enough.
    pub(crate) fn finish(mut self) {
        let until = Instant::now() + LAST_WORDS;
        while let Some(fd) = self.waiting() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
            let _retried_by_the_loop = poll(
                &mut fds,
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
            );
            self.send();
        }
    }
}
