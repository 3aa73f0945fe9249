//! What the shim reports, live on its standard output and in the spool's `events` file.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::spec::Profile;

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The machine's clock now.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// One thing that happened. The last one is [`Event::Exited`] or [`Event::Failed`]; nothing follows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Event {
    /// What was made for the operation, in the spool before the child is asked to start: after a crash of the shim this is
    /// what has to be ended and removed. It is not flushed: after a power cut the agent's ledger alone tells.
    Prepared(Prepared),
    /// The interpreter was executed, as the child that has its user, limits and directory.
    Started(Started),
    /// Bytes as they were read. On standard output only the first [`INLINE`]: see [`Event::Spooled`].
    Output {
        /// From which stream.
        stream: Stream,
        /// How many bytes of that stream the script wrote before these.
        at: u64,
        /// The bytes; a UTF-8 character is never split between two of these unless the script wrote it so.
        bytes: ByteBuf,
    },
    /// On standard output alone, at most once: what follows of the output is in the spool and not here.
    Spooled,
    /// In the spool alone, at most once: what follows of the output is kept as long as it is among the last bytes.
    HeadFull(HeadFull),
    /// In the spool alone, first in each file of the tail: how much each stream had before it.
    TailAt {
        /// Bytes of standard output.
        stdout: u64,
        /// Bytes of standard error.
        stderr: u64,
    },
    /// Something a person should know: a fallback, or something that could not be cleaned.
    Note {
        /// A sentence.
        text: String,
    },
    /// The script ended, every process of it is gone, and its files are removed.
    Exited(Outcome),
    /// No script was started.
    Failed {
        /// What was being done.
        stage: Stage,
        /// Why it did not work.
        reason: String,
    },
}

impl Event {
    /// True of the event that nothing follows.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Exited(_) | Self::Failed { .. })
    }
}

/// See [`Event::Prepared`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepared {
    /// When.
    pub at: UnixMillis,
    /// The private directory, with its device and inode numbers: only that very directory is ever removed.
    pub workspace: PathBuf,
    /// Device number of the private directory.
    pub device: u64,
    /// Inode number of the private directory.
    pub inode: u64,
    /// The cgroup directories of the operation.
    pub cgroups: Vec<PathBuf>,
    /// Its user, where no other process of the machine may have it.
    pub ephemeral: Option<Ephemeral>,
}

/// A uid that one operation has at a time: whoever holds its lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ephemeral {
    /// The uid.
    pub uid: u32,
    /// The directory with its lock, as in [`crate::spec::User::Ephemeral`].
    pub locks: PathBuf,
}

/// See [`Event::Started`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// Right before it.
    pub at: UnixMillis,
    /// The script's process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its groups, the primary one first.
    pub gids: Vec<u32>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// What runs it.
    pub interpreter: PathBuf,
    /// How its processes are held together.
    pub containment: ContainmentKind,
    /// What is hidden from it.
    pub confinement: Confinement,
}

/// How the processes of an operation are held together and limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainmentKind {
    /// A cgroup of the unified hierarchy.
    CgroupV2,
    /// Limits in version 1 controllers, killing through the unified hierarchy.
    Hybrid,
    /// The process tree alone; limits of version 1 controllers where there are any, else resource limits.
    None,
}

impl fmt::Display for ContainmentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupV2 => "cgroup-v2",
            Self::Hybrid => "hybrid",
            Self::None => "none",
        })
    }
}

/// What was actually applied, which may be less than what was asked where the machine does not allow it. (Each field that
/// is younger than the first release has a default, as the spool of an older shim is read too.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    /// The profile, all of whose mandatory parts were applied: the script did not start otherwise.
    #[serde(default)]
    pub profile: Profile,
    /// `/tmp`, `/var/tmp` and `/dev/shm` are the operation's own.
    pub private_tmp: bool,
    /// System V IPC and POSIX message queues are the operation's own.
    pub private_ipc: bool,
    /// Sluice's own files are covered.
    #[serde(default)]
    pub hidden_files: bool,
    /// A deny-list of system calls, which also refuses those of other architectures.
    #[serde(default)]
    pub seccomp: bool,
    /// Landlock, with the version of its interface that applies.
    #[serde(default)]
    pub landlock: Option<u32>,
    /// Landlock lets the script reach paths that the owner names.
    #[serde(default)]
    pub owner_paths: bool,
    /// The same of TCP ports.
    #[serde(default)]
    pub owner_ports: bool,
}

impl fmt::Display for Confinement {
    /// `none`, `private-tmp, private-ipc`, or with a profile
    /// `strict: private-tmp, private-ipc, hidden-files, no-new-privs, seccomp, landlock-7, owner-paths, owner-ports`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let profile = self.profile != Profile::None;
        let parts = [
            (self.private_tmp, "private-tmp"),
            (self.private_ipc, "private-ipc"),
            (self.hidden_files, "hidden-files"),
            (profile, "no-new-privs"),
            (self.seccomp, "seccomp"),
        ];
        let mut parts: Vec<_> = parts
            .into_iter()
            .filter(|(applied, _)| *applied)
            .map(|(_, name)| name.to_owned())
            .collect();
        parts.extend(self.landlock.map(|version| format!("landlock-{version}")));
        let widened = [
            (self.owner_paths, "owner-paths"),
            (self.owner_ports, "owner-ports"),
        ];
        parts.extend(
            widened
                .into_iter()
                .filter(|(let_through, _)| *let_through)
                .map(|(_, name)| name.to_owned()),
        );
        match (profile, parts.is_empty()) {
            (true, _) => write!(f, "{}: {}", self.profile, parts.join(", ")),
            (false, true) => f.write_str("none"),
            (false, false) => f.write_str(&parts.join(", ")),
        }
    }
}

/// The most output that goes to an agent with the events, in bytes. Nobody who is slow makes a shim or an agent keep more
/// than this of it in memory.
pub const INLINE: usize = 64 * 1024;

/// What is kept for good, and how much of what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadFull {
    /// Bytes of standard output that are kept for good.
    pub stdout: u64,
    /// Bytes of standard error that are kept for good.
    pub stderr: u64,
    /// How many of the bytes that follow are kept, of both streams together: the last ones.
    pub rest: u64,
}

/// One of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// When.
    pub at: UnixMillis,
    /// From the start of the interpreter until every process was gone.
    pub duration: Duration,
    /// Exit code or signal of the script's own process.
    pub end: End,
    /// The time limit was reached, and ended it.
    pub timed_out: bool,
    /// It was asked to stop, and that ended it.
    pub canceled: bool,
    /// A limit of memory, processes, file size or output that it ran into. From the kernel's counters, not guessed.
    pub limit_hit: Option<LimitHit>,
    /// Processes of it, besides the script's own, that had to be killed.
    pub survivors_killed: u32,
    /// What became of its output.
    pub output: Ends,
    /// How many bytes the spool takes on disk.
    pub spooled: u64,
    /// Processor time and memory.
    pub usage: Usage,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum End {
    /// It exited by itself.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The signal's number here.
        number: i32,
        /// Its name without `SIG`, such as `KILL`; the number where it has none.
        name: String,
        /// A core was written.
        core_dumped: bool,
    },
    /// The kernel did not let it be killed within some seconds (a process in an uninterruptible system call). It was
    /// left behind, with a note naming it.
    Unkillable,
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitHit {
    /// The kernel killed a process of it for lack of memory.
    Memory,
    /// The kernel refused a process.
    Processes,
    /// A write went beyond the largest file size.
    FileSize,
    /// Output was lost.
    Output,
}

impl fmt::Display for LimitHit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Processes => "processes",
            Self::FileSize => "file-size",
            Self::Output => "output",
        })
    }
}

/// Where both output streams end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Ends {
    pub stdout: StreamEnd,
    pub stderr: StreamEnd,
}

impl Ends {
    /// Of streams of which nothing was lost, with how much was written.
    #[must_use]
    pub const fn whole([stdout, stderr]: [u64; 2]) -> Self {
        Self {
            stdout: StreamEnd::whole(stdout),
            stderr: StreamEnd::whole(stderr),
        }
    }

    /// Bytes of both that are lost.
    #[must_use]
    pub const fn lost(self) -> u64 {
        self.stdout.lost + self.stderr.lost
    }
}

/// What became of one stream: `head` bytes are kept, then `lost` are not, and those after them are, up to `written`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamEnd {
    /// Bytes that the script wrote.
    pub written: u64,
    /// Bytes before the gap; all of them where nothing was lost.
    pub head: u64,
    /// Bytes of the gap.
    pub lost: u64,
}

impl StreamEnd {
    /// Of a stream of which nothing was lost.
    #[must_use]
    pub const fn whole(written: u64) -> Self {
        Self {
            written,
            head: written,
            lost: 0,
        }
    }
}

/// What the operation's processes used, as far as they were waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Processor time in user space.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// The largest resident set of one process, in bytes.
    pub largest_resident: u64,
}

/// What the shim was doing when it could not go on. In none of these did the script start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Reading what to do.
    Spec,
    /// Opening the spool; also when this operation was started before.
    Spool,
    /// Taking an ephemeral user, or becoming the requested one.
    User,
    /// Making the private directory.
    Workspace,
    /// Setting the child up: limits, namespaces, descriptors.
    Setup,
    /// Putting up a part of the confinement that the profile insists on.
    Confinement,
    /// Executing the interpreter.
    Interpreter,
    /// It was canceled before it started.
    Canceled,
    /// The shim ended unexpectedly, or another agent process gave the operation up.
    Shim,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_was_applied_is_one_line_and_an_older_shims_is_still_read() {
        let mut applied = Confinement::default();
        assert_eq!(applied.to_string(), "none");
        (applied.private_tmp, applied.hidden_files) = (true, true);
        assert_eq!(applied.to_string(), "private-tmp, hidden-files");
        applied = Confinement {
            profile: Profile::Strict,
            private_ipc: true,
            seccomp: true,
            landlock: Some(7),
            ..applied
        };
        assert_eq!(
            applied.to_string(),
            "strict: private-tmp, private-ipc, hidden-files, no-new-privs, seccomp, landlock-7"
        );
        (applied.owner_paths, applied.owner_ports) = (true, true);
        assert!(
            applied
                .to_string()
                .ends_with(", landlock-7, owner-paths, owner-ports")
        );
        let mut bytes = Vec::new();
        let older =
            std::collections::BTreeMap::from([("private_tmp", true), ("private_ipc", true)]);
        ciborium::into_writer(&older, &mut bytes).unwrap();
        let read: Confinement = ciborium::from_reader(&bytes[..]).unwrap();
        assert_eq!(read.to_string(), "private-tmp, private-ipc");
    }
}
