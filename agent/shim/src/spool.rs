//! The spool: the directory in which one operation's events survive its agent.
//!
//! ```text
//! <spool>/lock     flock held by the shim for its life; its pid as text
//! <spool>/events   frames (see `frame`), made O_EXCL, also by [`abandon`]
//! <spool>/tail-*   frames with output that is over its limit (see `record`, and [`crate::kept`])
//! ```
//! A shim makes both in a directory beside that (`spare-<pid>-<time>`), and puts it there when its operation starts: nothing
//! may be there then, which is why an operation starts at most once. What a shim that was killed before has left is in the directory beside ([`recover_spares`]).
//!
//! An agent that starts again reads the events of each operation that its ledger has as started, as long as its shim
//! [`is_running`]. Where there is no shim and no last event, [`state`] says whether it is to be recovered or given up. A
//! spool without events whose shim is not running is [`abandon`]ed, so that a shim that comes late finds it taken and
//! starts nothing.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, Uid, mkdir};

use crate::ephemeral::Lease;
use crate::event::{Ephemeral, Event, Prepared, Stage, UnixMillis};
use crate::event_file::EventFile;
use crate::frame;
use crate::operation::with_cause;
use crate::{containment, processes, workspace};

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The directory is another user's, or others can write to it.
    #[error("{} is not a directory that only this user can write to", .0.display())]
    Unsafe(PathBuf),
    /// A shim holds the lock.
    #[error("a shim is running on {}", .0.display())]
    Busy(PathBuf),
    /// There are events already: the operation was started, or given up, before.
    #[error("{} exists: this operation was started or given up before", .0.display())]
    Taken(PathBuf),
}

/// Where an operation stands, from its spool alone.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// A shim holds the lock. Its events so far may be read, and the end waited for.
    Running,
    /// The last event is there.
    Ended,
    /// No shim, and no last event: it was killed, or the machine was. The script may have run.
    /// Call [`recover`] to end what is left of it.
    Broken,
    /// No shim, and nothing was prepared: the script did not run. Call [`abandon`] before relying on it.
    NotStarted,
}

/// Where the operation of this spool stands.
///
/// # Errors
/// The directory cannot be read.
pub fn state(spool: &Path) -> Result<State, SpoolError> {
    if is_running(spool)? {
        return Ok(State::Running);
    }
    let mut file = events(spool);
    let mut last = None;
    while let Some(event) = file.next_event()? {
        last = Some(event.is_last());
    }
    Ok(match last {
        Some(true) => State::Ended,
        // The spool is put here right before the child is told to go. (Events are not flushed to disk before the start: after
        // a restart of the machine only the agent's ledger tells, see [`recover`].)
        Some(false) => State::Broken,
        // A file that is there and tells nothing was torn: whether something ran is not known.
        None if spool.join("events").exists() => State::Broken,
        None => State::NotStarted,
    })
}

/// True while the operation's shim lives.
///
/// # Errors
/// The lock cannot be opened for another reason than that it is not there.
pub fn is_running(spool: &Path) -> Result<bool, SpoolError> {
    let Some(file) = open_lock(spool)? else {
        return Ok(false);
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_released_on_drop) => Ok(false),
        Err((_, Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, errno)) => Err(io("lock", &spool.join("lock"), errno.into())),
    }
}

/// Asks a running shim to cancel its operation. Returns false when none runs.
///
/// # Errors
/// The lock cannot be read, or the signal cannot be sent.
pub fn cancel(spool: &Path) -> Result<bool, SpoolError> {
    let Some(mut file) = open_lock(spool)? else {
        return Ok(false);
    };
    let mut text = String::new();
    file.read_to_string(&mut text)
        .map_err(|e| io("read", &spool.join("lock"), e))?;
    let Ok(pid) = text.trim().parse::<i32>() else {
        return Ok(false);
    };
    // The lock is held by the process that wrote the pid, so while it is held the pid is its.
    // An agent that gives a spool up holds it for a moment too.
    let is_own = u32::try_from(pid) == Ok(std::process::id());
    if pid <= 1 || is_own || !is_running(spool)? {
        return Ok(false);
    }
    match nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(errno) => Err(io("signal the shim of", spool, errno.into())),
    }
}

/// The events so far, and those to come. What was torn by a crash at the end of the file is left out.
#[must_use]
pub fn events(spool: &Path) -> EventFile {
    EventFile::new(spool.join("events"))
}

/// Takes a spool that no shim has, for good: a shim that was told to start this operation and comes late finds the
/// events there and starts nothing.
///
/// # Errors
/// [`SpoolError::Busy`] or [`SpoolError::Taken`] when a shim was first; look at [`state`] again.
pub fn abandon(spool: &Path, reason: &str) -> Result<(), SpoolError> {
    let Opened {
        lock: _held,
        mut events,
    } = open(spool)?;
    let path = spool.join("events");
    let last = Event::Failed {
        stage: Stage::Shim,
        reason: reason.to_owned(),
    };
    events
        .write_all(&frame::encode(&last))
        .and_then(|()| events.sync_data())
        .map_err(|e| io("write", &path, e))
}

/// Ends and removes what a shim that was killed left behind: processes in its cgroups or of its ephemeral uid, the
/// cgroups, the private directory, also one that it made in `workspaces` and did not come to tell of. Returns what could
/// not be done. Call it for [`State::Broken`], and for whatever has not [`State::Ended`] after a restart of the machine.
///
/// # Errors
/// The events cannot be read.
pub fn recover(
    spool: &Path,
    workspaces: &Path,
    operation: &str,
) -> Result<Vec<String>, SpoolError> {
    let mut notes = Vec::new();
    end_prepared(spool, &mut notes)?;
    workspace::remove_all_of(workspaces, operation, &mut notes);
    Ok(notes)
}

fn end_prepared(spool: &Path, notes: &mut Vec<String>) -> Result<(), SpoolError> {
    let mut file = events(spool);
    while let Some(event) = file.next_event()? {
        let Event::Prepared(Prepared {
            workspace,
            device,
            inode,
            cgroups,
            ephemeral,
            ..
        }) = event
        else {
            continue;
        };
        containment::end(&cgroups, notes);
        if let Some(user) = ephemeral {
            end_user(&user, notes);
        }
        workspace::remove(&workspace, (device, inode), notes);
    }
    if let Some(damage) = file.damage() {
        notes.push(format!(
            "what was made for the operation is not known, and may be left: {} cannot be read: {}",
            spool.join("events").display(),
            with_cause(damage)
        ));
    }
    Ok(())
}

/// Ends and removes what is left of an ephemeral user, under its lock. Where another operation has that by now, what there
/// is of the user is that one's.
fn end_user(Ephemeral { uid, locks }: &Ephemeral, notes: &mut Vec<String>) {
    match Lease::take_again(locks, *uid) {
        Ok(Some(lease)) => {
            processes::kill_all_of(*uid);
            workspace::remove_files_of(*uid, notes);
            lease.release(notes);
        }
        Ok(None) => notes.push(format!(
            "another operation has the ephemeral user {uid} by now; what this one left of it was not looked for"
        )),
        Err(error) => notes.push(format!(
            "what the ephemeral user {uid} left was not looked for: {error}"
        )),
    }
}

/// Ends and removes what shims that were killed before their operation started have left in the directory of all spools:
/// of all of them, or of the one with a process id, which is dead. Returns what could not be done.
///
/// # Errors
/// The directory cannot be read.
pub fn recover_spares(spools: &Path, shim: Option<u32>) -> Result<Vec<String>, SpoolError> {
    let of = shim.map_or_else(|| SPARE.to_owned(), |shim| format!("{SPARE}{shim}-"));
    let mut notes = Vec::new();
    let entries = std::fs::read_dir(spools).map_err(|e| io("read", spools, e))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let is_meant = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(&of));
        if is_meant && let Err(error) = recover_spare(&path, shim.is_some(), &mut notes) {
            notes.push(with_cause(&error));
        }
    }
    Ok(notes)
}

fn recover_spare(path: &Path, dead: bool, notes: &mut Vec<String>) -> Result<(), SpoolError> {
    // One whose shim lives may be on its way to an operation; it removes itself where it is not.
    if !is_left(path, dead)? {
        return Ok(());
    }
    end_prepared(path, notes)?;
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Whether nobody holds a spool. The child of a shim that is known to be dead holds it for a moment more: the kernel is
/// ending it.
fn is_left(spool: &Path, dead: bool) -> Result<bool, SpoolError> {
    let until = Instant::now() + Duration::from_secs(2);
    while is_running(spool)? {
        if !dead || Instant::now() > until {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}

/// What the one process that owns an operation holds: the lock, and a new events file.
pub(crate) struct Opened {
    pub(crate) lock: Flock<File>,
    pub(crate) events: File,
}

/// The spool of a shim: made beside the place of an operation's, before there is one, and put there when the operation
/// starts. One of a shim that was killed before is ended and removed by the agent.
pub(crate) struct Spool {
    path: PathBuf,
    at_its_place: bool,
    events: Option<File>,
    /// Held for the shim's life.
    _lock: Flock<File>,
}

impl Spool {
    /// Makes one in the directory of all spools.
    pub(crate) fn make_beside(directory: &Path) -> Result<Self, SpoolError> {
        // A process id comes back; what a killed shim of that id left may still be there.
        let name = format!("{SPARE}{}-{}", std::process::id(), UnixMillis::now().0);
        let path = directory.join(name);
        let Opened { lock, events } = open(&path)?;
        Ok(Self {
            path,
            at_its_place: false,
            events: Some(events),
            _lock: lock,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// True once the operation has it.
    pub(crate) fn is_at_its_place(&self) -> bool {
        self.at_its_place
    }

    /// The file that events go to; given once.
    pub(crate) fn events(&mut self) -> Option<File> {
        self.events.take()
    }

    /// Puts it at the operation's place, where nothing may be: there an operation was started, or given up.
    pub(crate) fn put_at(&mut self, place: &Path) -> Result<(), SpoolError> {
        let failed = |errno: Errno| match errno {
            Errno::EEXIST | Errno::ENOTEMPTY => SpoolError::Taken(place.to_owned()),
            errno => io("make", place, errno.into()),
        };
        let moved = renameat2(
            AT_FDCWD,
            &self.path,
            AT_FDCWD,
            place,
            RenameFlags::RENAME_NOREPLACE,
        );
        match moved {
            Ok(()) => {}
            // There is no such rename here. What is made now was not there, and is replaced as long as nobody fills it.
            Err(Errno::EINVAL) => {
                mkdir(place, Mode::S_IRWXU).map_err(failed)?;
                rename(&self.path, place)?;
            }
            Err(errno) => return Err(failed(errno)),
        }
        place.clone_into(&mut self.path);
        self.at_its_place = true;
        Ok(())
    }

    /// There is no operation.
    pub(crate) fn remove(&self) {
        let _removed_by_the_agent = std::fs::remove_dir_all(&self.path);
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), SpoolError> {
    std::fs::rename(from, to).map_err(|error| match error.kind() {
        ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists => SpoolError::Taken(to.to_owned()),
        _ => io("make", to, error),
    })
}

/// How the name of a spool begins that is not at its place.
const SPARE: &str = "spare-";

/// Opens the spool for the one process that owns the operation.
pub(crate) fn open(spool: &Path) -> Result<Opened, SpoolError> {
    match DirBuilder::new().mode(0o700).create(spool) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(e) => return Err(io("make", spool, e)),
    }
    let meta = std::fs::symlink_metadata(spool).map_err(|e| io("look at", spool, e))?;
    if !meta.is_dir() || meta.uid() != Uid::effective().as_raw() || meta.mode() & 0o022 != 0 {
        return Err(SpoolError::Unsafe(spool.to_owned()));
    }
    let path = spool.join("lock");
    let lock = private()
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| io("open", &path, e))?;
    let mut lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => return Err(SpoolError::Busy(spool.to_owned())),
        Err((_, errno)) => return Err(io("lock", &path, errno.into())),
    };
    lock.set_len(0)
        .and_then(|()| write!(lock, "{}", std::process::id()))
        .map_err(|e| io("write", &path, e))?;
    let events = make_events(spool)?;
    Ok(Opened { lock, events })
}

/// Makes the events, which are made once.
pub(crate) fn make_events(spool: &Path) -> Result<File, SpoolError> {
    let path = spool.join("events");
    match private().create_new(true).append(true).open(&path) {
        Ok(events) => Ok(events),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(SpoolError::Taken(path)),
        Err(e) => Err(io("make", &path, e)),
    }
}

/// Makes a file of the tail, for the shim that owns the spool.
pub(crate) fn make_tail(spool: &Path, number: u64) -> std::io::Result<File> {
    private()
        .create_new(true)
        .append(true)
        .open(tail(spool, number))
}

/// Removes one whose output is not kept any more.
pub(crate) fn remove_tail(spool: &Path, number: u64) -> std::io::Result<()> {
    std::fs::remove_file(tail(spool, number))
}

/// The numbers of the files of the tail that are there, in no order.
pub(crate) fn tail_numbers(spool: &Path) -> std::io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(spool)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(TAIL));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(numbers)
}

/// Where a file of the tail is.
pub(crate) fn tail(spool: &Path, number: u64) -> PathBuf {
    spool.join(format!("{TAIL}{number}"))
}

/// How the names of the files begin that output over its limit is in.
const TAIL: &str = "tail-";

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW);
    options
}

fn open_lock(spool: &Path) -> Result<Option<File>, SpoolError> {
    let path = spool.join("lock");
    match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
    {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io("open", &path, e)),
    }
}

fn io(what: &'static str, path: &Path, source: std::io::Error) -> SpoolError {
    SpoolError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}
