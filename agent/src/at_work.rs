//! Which operations this agent is at work on that it has not started, for the agent after it.
//!
//! Where an operation makes the agent end, the next agent would take it up from the ledger and end too, for ever. So the ids of
//! those that are at the gates, or about to be started, stand in a small file. It is not put on disk before anything goes on:
//! what a process wrote outlives its end, and the end of the machine is not an operation's doing. What stands there when an
//! agent starts on the same boot is counted in the ledger; an agent that is told to stop leaves nothing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sluice_protocol::ids::OperationId;

/// How often an agent may end over an operation; then it is not tried again.
pub(crate) const MOST_CRASHES: u32 = 2;

/// An id and the end of its line.
const LINE: usize = 37;
/// More of a file is not read: nobody is at work on so many.
const LONGEST: u64 = 1 << 20;

/// The file.
#[derive(Debug)]
pub struct AtWork {
    file: File,
    /// Where the first line begins, after that of the boot.
    from: u64,
    lines: Mutex<Vec<Option<OperationId>>>,
}

/// An operation stands in the file for as long as this is there.
#[derive(Debug)]
pub struct Standing<'a> {
    at_work: &'a AtWork,
    line: usize,
}

impl AtWork {
    /// Begins a new file, and gives what an earlier agent has left in it on this boot.
    ///
    /// # Errors
    ///
    /// Where it cannot be read or written.
    pub fn open(path: &Path, boot: &str) -> io::Result<(Self, Vec<OperationId>)> {
        let boot = boot.trim();
        let left = match fs::metadata(path) {
            Ok(metadata) if metadata.len() <= LONGEST => {
                fs::read_to_string(path).unwrap_or_default()
            }
            Ok(_) => String::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut lines = left.lines();
        let left = if lines.next() == Some(boot) {
            lines.filter_map(|line| line.parse().ok()).collect()
        } else {
            Vec::new()
        };
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let head = format!("{boot}\n");
        file.write_all_at(head.as_bytes(), 0)?;
        let at_work = Self {
            file,
            from: head.len() as u64,
            lines: Mutex::default(),
        };
        Ok((at_work, left))
    }

    /// From here on the agent is at work on it.
    pub fn begin(&self, operation: OperationId) -> Standing<'_> {
        let mut lines = self.lines();
        let free = lines.iter().position(Option::is_none);
        let line = free.unwrap_or(lines.len());
        if free.is_none() {
            lines.push(None);
        }
        lines[line] = Some(operation);
        self.write(line, &operation.to_string());
        Standing {
            at_work: self,
            line,
        }
    }

    /// Without it an operation that makes the agent end is tried once more: that is no reason to end another one.
    fn write(&self, line: usize, text: &str) {
        let text = format!("{text:36}\n");
        if let Err(error) = self
            .file
            .write_all_at(text.as_bytes(), self.from + (line * LINE) as u64)
        {
            tracing::warn!(%error, "what the agent is at work on is not noted");
        }
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Option<OperationId>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        let mut lines = self.at_work.lines();
        if let Some(line) = lines.get_mut(self.line) {
            *line = None;
        }
        self.at_work.write(self.line, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_was_at_work_on_is_found_by_the_next_one_of_the_same_boot() {
        let folder = tempfile::tempdir().expect("makes a folder");
        let path = folder.path().join("at-work");
        let ids: Vec<_> = (0..3).map(|_| OperationId::generate()).collect();
        let (first, left) = AtWork::open(&path, "boot").expect("opens");
        assert_eq!(left, []);
        let done = first.begin(ids[0]);
        let crashing = first.begin(ids[1]);
        drop(done);
        let also = first.begin(ids[2]);
        std::mem::forget((crashing, also));
        let (_second, mut left) = AtWork::open(&path, "boot").expect("opens");
        left.sort_unstable();
        assert_eq!(left, ids[1..]);
        let (_third, left) = AtWork::open(&path, "boot").expect("opens");
        assert_eq!(left, [], "they are counted once");

        let (fourth, _) = AtWork::open(&path, "boot").expect("opens");
        std::mem::forget(fourth.begin(ids[0]));
        let (_other, left) = AtWork::open(&path, "another boot").expect("opens");
        assert_eq!(left, [], "the machine was restarted");
        fs::write(&path, b"boot\nnonsense\n\xff\xfe").expect("writes");
        assert_eq!(AtWork::open(&path, "boot").expect("opens").1, []);
    }
}
