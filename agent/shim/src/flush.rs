//! Making the spool survive a power cut while the script runs.
//!
//! Flushing waits for the disk, so it has a thread of its own: a disk that is slow or hangs holds up neither the output
//! nor the time limit nor a cancel. The thread is started when something is flushed for the first time, which is long
//! after the last fork.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// Between two flushes, while there is something new.
const EVERY: Duration = Duration::from_secs(1);
/// A disk that needs long is not kept busy: so many times as long as it needed it has rest.
const REST: u32 = 20;
/// The thread makes system calls and nothing else.
const STACK: usize = 64 * 1024;

/// Says when to flush, and has it done.
pub(crate) struct Flusher {
    next: Instant,
    thread: Option<Thread>,
    /// It did not work, and is not tried again: what the kernel has dropped, no later flush brings to the disk.
    failed: bool,
}

struct Thread {
    work: SyncSender<Vec<File>>,
    done: Receiver<io::Result<Duration>>,
    is_busy: bool,
}

impl Flusher {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            next: now + EVERY,
            thread: None,
            failed: false,
        }
    }

    /// When to come back with what is new.
    pub(crate) fn next(&self) -> Option<Instant> {
        (!self.failed).then_some(self.next)
    }

    /// Flushes what `unsynced` gives, if it is time and the last flush is over.
    pub(crate) fn flush(
        &mut self,
        now: Instant,
        unsynced: impl FnOnce() -> io::Result<Vec<File>>,
    ) -> io::Result<()> {
        if self.failed || now < self.next {
            return Ok(());
        }
        self.next = now + EVERY;
        let flushed = self.is_over(now).and_then(|over| {
            if over {
                self.start(unsynced()?)
            } else {
                Ok(())
            }
        });
        self.failed = flushed.is_err();
        flushed
    }

    /// Whether the thread has nothing to do, and the disk has had its rest.
    fn is_over(&mut self, now: Instant) -> io::Result<bool> {
        let Some(thread) = self.thread.as_mut().filter(|thread| thread.is_busy) else {
            return Ok(true);
        };
        let took = match thread.done.try_recv() {
            Ok(took) => took?,
            Err(TryRecvError::Empty) => return Ok(false),
            Err(TryRecvError::Disconnected) => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        thread.is_busy = false;
        let rest = took * REST;
        if rest > EVERY {
            self.next = now + rest;
        }
        Ok(rest <= EVERY)
    }

    fn start(&mut self, files: Vec<File>) -> io::Result<()> {
        let thread = match &mut self.thread {
            Some(thread) => thread,
            none => none.insert(Thread::start()?),
        };
        thread.is_busy = true;
        thread
            .work
            .try_send(files)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Thread {
    fn start() -> io::Result<Self> {
        let (work, files) = sync_channel::<Vec<File>>(1);
        let (tell, done) = sync_channel(1);
        std::thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || {
                while let Ok(files) = files.recv() {
                    let started = Instant::now();
                    // One may be a directory, of which only that is enough.
                    let flushed = files.iter().try_for_each(File::sync_all);
                    if tell.send(flushed.map(|()| started.elapsed())).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            work,
            done,
            is_busy: false,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_new_is_flushed_once_a_second_and_a_failure_is_told_once() {
        let start = Instant::now();
        let mut flusher = Flusher::new(start);
        let mut flushes = 0;
        for tick in 0..100 {
            let now = start + Duration::from_millis(100) * tick;
            flusher
                .flush(now, || {
                    flushes += 1;
                    Ok(vec![tempfile::tempfile()?])
                })
                .unwrap();
            // The clock here is not that of the thread.
            let until = Instant::now() + Duration::from_secs(5);
            while flusher.thread.as_ref().is_some_and(|thread| thread.is_busy) {
                assert!(Instant::now() < until, "the thread does not answer");
                if let Ok(over) = flusher.is_over(now) {
                    flusher.next = flusher.next.min(now + EVERY);
                    if over {
                        break;
                    }
                }
            }
        }
        assert_eq!(flushes, 9);
        let late = start + Duration::from_secs(20);
        let failed = flusher.flush(late, || Err(io::ErrorKind::Other.into()));
        assert!(failed.is_err());
        assert_eq!(flusher.next(), None);
        assert!(flusher.flush(late, || panic!("it was given up")).is_ok());
    }
}
