//! Where events go: the spool file, which counts, and the agent's pipe, which may be slow or gone.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::event::Event;
use crate::frame;

/// How long a shim waits for an agent that does not read before it ends. The agent then reads the spool.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Writes each event to the spool and queues it for the agent. What is queued is bounded by the output limit.
pub(crate) struct Journal {
    spool: Option<File>,
    /// A write to the spool failed: from then on nothing of it can be relied on.
    torn: bool,
    agent: Option<std::io::Stdout>,
    queue: VecDeque<u8>,
}

impl Default for Journal {
    /// One that is told to nobody.
    fn default() -> Self {
        Self {
            spool: None,
            torn: false,
            agent: None,
            queue: VecDeque::new(),
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
            spool: None,
            torn: false,
            agent: set.is_ok().then_some(agent),
            queue: VecDeque::new(),
        }
    }

    pub(crate) fn attach(&mut self, spool: File) {
        self.spool = Some(spool);
    }

    /// Puts an event on record and tells it.
    pub(crate) fn emit(&mut self, event: &Event) {
        self.record(event);
        self.send();
    }

    /// Puts an event on record; it is told together with the next one.
    pub(crate) fn record(&mut self, event: &Event) {
        let bytes = frame::encode(event);
        let spooled = self
            .spool
            .as_mut()
            .map_or(Ok(()), |file| file.write_all(&bytes));
        if self.agent.is_some() {
            self.queue.extend(&bytes);
        }
        if let Err(error) = spooled {
            // The disk is full or broken. The operation goes on, for the agent that reads along; a torn frame must not
            // be followed by others.
            self.spool = None;
            self.torn = true;
            let text = format!(
                "the spool could not be written ({error}); an agent that restarts cannot pick this operation up"
            );
            self.queue.extend(&frame::encode(&Event::Note { text }));
        }
    }

    /// Makes what is in the spool survive a power cut.
    pub(crate) fn sync(&mut self) -> std::io::Result<()> {
        if self.torn {
            return Err(std::io::Error::other(
                "an earlier write to the spool failed",
            ));
        }
        self.spool.as_ref().map_or(Ok(()), File::sync_data)
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
