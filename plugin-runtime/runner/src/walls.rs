//! The walls. wasmtime has had sandbox escapes; whoever gets out of a guest must find nothing here.
//!
//! | wall | mandatory | against |
//! |---|---|---|
//! | unprivileged user of its own (as root) | yes | everything that asks for a uid |
//! | empty capability sets, `no_new_privs`, not dumpable | yes | gaining rights, ptrace by others of that uid |
//! | no descriptor but the socket and stderr | yes | files of the parent |
//! | seccomp allow-list | yes | open, connect, exec, fork, kill, ptrace, mount ... |
//! | resource limits | yes | core files, files, memory (RLIMIT_DATA: a pool's reservations do not count in it) |
//! | network namespace, IPC namespace | best effort | sockets |
//! | Landlock without any path | best effort | files, once more |

mod seccomp;

use caps::CapSet;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// What the process may use.
pub(crate) struct Limits {
    /// Bytes of private writable memory.
    data: u64,
    /// Seconds of processor time, where it does not serve for long.
    cpu: Option<u64>,
    /// System calls that the other mode does not need.
    calls: &'static [libc::c_long],
}

impl Limits {
    /// A pool of 64 MiB slots, compiled code, and frames.
    pub(crate) const SERVE: Self = Self {
        data: 2 << 30,
        cpu: None,
        calls: seccomp::IMAGES,
    };
    /// Cranelift on a hostile component.
    pub(crate) const COMPILE: Self = Self {
        data: 3 << 30,
        cpu: Some(120),
        calls: &[],
    };
}

/// Puts up all walls but [`close_inherited`], from the outside in. Returns the names of those that stand.
pub(crate) fn put_up(user: Option<u32>, limits: &Limits) -> Result<Vec<String>, WallError> {
    let mut walls = Vec::new();
    let mut stands = |wall: &str| walls.push(wall.to_owned());

    set_limits(limits).map_err(WallError::Limits)?;
    stands("limits");
    // Only root may do this without a user namespace, which would open more doors than it closes.
    if Uid::effective().is_root()
        && unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC).is_ok()
    {
        stands("namespaces");
    }
    if matches!(landlock(), Ok(true)) {
        stands("landlock");
    }
    match user {
        Some(user) => {
            drop_to(user)?;
            stands("user");
        }
        None if Uid::effective().is_root() => return Err(WallError::NoUser),
        None => {}
    }
    for set in [
        CapSet::Inheritable,
        CapSet::Permitted,
        CapSet::Effective,
        CapSet::Ambient,
    ] {
        if !caps::read(None, set)
            .map_err(|_| WallError::Capabilities)?
            .is_empty()
        {
            caps::clear(None, set).map_err(|_| WallError::Capabilities)?;
        }
        if !caps::read(None, set)
            .map_err(|_| WallError::Capabilities)?
            .is_empty()
        {
            return Err(WallError::Capabilities);
        }
    }
    stands("capabilities");
    nix::sys::prctl::set_no_new_privs().map_err(WallError::NoNewPrivileges)?;
    stands("no-new-privs");
    nix::sys::prctl::set_dumpable(false).map_err(WallError::Dumpable)?;
    seccomp::install(limits.calls)?;
    stands("seccomp");
    Ok(walls)
}

/// A mandatory wall that cannot be put up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WallError {
    #[error("it was started as root without a user to drop to")]
    NoUser,
    #[error("descriptors cannot be closed: {0}")]
    Descriptors(#[source] nix::Error),
    #[error("resource limits cannot be set: {0}")]
    Limits(#[source] nix::Error),
    #[error("it cannot become user {0}: {1}")]
    User(u32, #[source] nix::Error),
    #[error("its capabilities cannot be given up")]
    Capabilities,
    #[error("no_new_privs cannot be set: {0}")]
    NoNewPrivileges(#[source] nix::Error),
    #[error("it cannot be made undumpable: {0}")]
    Dumpable(#[source] nix::Error),
    #[error("the seccomp filter cannot be installed: {0}")]
    Seccomp(String),
}

/// Closes everything above stderr: whatever a parent, or who started it, left open. The first thing that a runner does.
#[allow(unsafe_code, reason = "close_range has no safe wrapper")]
pub(crate) fn close_inherited() -> Result<(), WallError> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: close_range takes numbers only. Nothing in this process owns a descriptor from FIRST on: it runs before
    // anything was opened.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
    nix::errno::Errno::result(result)
        .map(drop)
        .map_err(WallError::Descriptors)
}

fn set_limits(limits: &Limits) -> nix::Result<()> {
    let set = |resource, value: u64| setrlimit(resource, value, value);
    set(Resource::RLIMIT_CORE, 0)?;
    // Memory files: images of instances, and answers that the parent gave space for. No other file can be written.
    set(Resource::RLIMIT_FSIZE, 128 << 20)?;
    set(Resource::RLIMIT_NOFILE, 256)?;
    set(Resource::RLIMIT_DATA, limits.data)?;
    limits
        .cpu
        .map_or(Ok(()), |seconds| set(Resource::RLIMIT_CPU, seconds))
}

fn drop_to(user: u32) -> Result<(), WallError> {
    let failed = |error| WallError::User(user, error);
    for capability in caps::all() {
        // The bounding set can only be emptied while we are root; unknown capabilities of newer kernels stay, without a
        // way to gain them: no_new_privs.
        if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability).map_err(|_| WallError::Capabilities)?;
        }
    }
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    setgroups(&[]).map_err(failed)?;
    setresgid(gid, gid, gid).map_err(failed)?;
    setresuid(uid, uid, uid).map_err(failed)?;
    let (uids, gids) = (
        nix::unistd::getresuid().map_err(failed)?,
        nix::unistd::getresgid().map_err(failed)?,
    );
    let dropped = [uids.real, uids.effective, uids.saved]
        .iter()
        .all(|id| *id == uid)
        && [gids.real, gids.effective, gids.saved]
            .iter()
            .all(|id| *id == gid)
        && nix::unistd::getgroups().map_err(failed)?.is_empty();
    if dropped {
        Ok(())
    } else {
        Err(failed(nix::Error::EPERM))
    }
}

/// A ruleset that handles everything and allows nothing; whether the kernel enforces any of it.
fn landlock() -> Result<bool, landlock::RulesetError> {
    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset,
        RulesetAttr as _, RulesetStatus,
    };
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V5))?
        .create()?
        .restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Ok(false);
    }
    Ok(true)
}
