//! The child: from the fork to the exec of the interpreter.
//!
//! ```text
//! fork -> what is the same for every operation -> wait for the plan, as a shim waits for its operation
//!     -> become who and what it says -> Ready -> wait -> exec
//! ```
//! A fork is dear, also by the memory that both sides then touch for the first time, so it comes before there is an
//! operation. The shim lets the child go once the agent, which has the start on disk, has said so. What goes wrong before
//! the exec comes back as an error, so it is never mistaken for an exit code of the script.
//!
//! The shim has one thread, so the child of its fork may allocate and use the standard library.

#![allow(
    clippy::disallowed_methods,
    reason = "umask in the child of a process with one thread"
)]
#![allow(
    unsafe_code,
    reason = "fork, clone3, close_range, setpriority and signal dispositions have no safe form"
)]

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair};
use nix::sys::stat::{Mode, umask};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Gid, Pid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, fchown, fork,
    pipe2, read, setsid,
};
use serde::{Deserialize, Serialize};

use crate::confinement::Confined;
use crate::containment::{By, Controller, Groups};
use crate::event::{Confinement, Stage};
use crate::order::canceled;
use crate::spec::{Limits, Profile};
use crate::{privileges, processes, signals};

/// From linux/sched.h; the constant of libc is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How long a child may take from the fork to its report, and from there to the exec.
const SETUP: Duration = Duration::from_secs(30);

/// Everything the child needs to become the script.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) interpreter: PathBuf,
    pub(crate) argv: Vec<CString>,
    pub(crate) envp: Vec<CString>,
    /// Absent when the shim has no right to change it.
    pub(crate) user: Option<Credentials>,
    pub(crate) home: PathBuf,
    pub(crate) confined: Confined,
    pub(crate) limits: Limits,
    pub(crate) limiting: Vec<(Controller, By)>,
    pub(crate) no_new_privs: bool,
}

/// Whose process it is to be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// The child's report before it is let go.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// It is in the unified group, where there is one.
    pub(crate) entered: bool,
    pub(crate) cwd: PathBuf,
    pub(crate) confinement: Confinement,
    pub(crate) notes: Vec<String>,
}

/// A child that did not become the script.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{reason}")]
pub(crate) struct ChildError {
    pub(crate) stage: Stage,
    pub(crate) reason: String,
}

/// A child that waits for what it is to become. One that is not told is ended.
pub(crate) struct Waiting {
    /// None once it was told, or has ended.
    child: Option<Child>,
    plan: OwnedFd,
}

/// A child between fork and exec.
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    control: OwnedFd,
}

/// The child's ends of what joins it to the shim.
struct Ends {
    plan: OwnedFd,
    control: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Waiting {
    /// Forks one, into the groups of the shim.
    pub(crate) fn fork(groups: &Groups) -> Result<Self, ChildError> {
        let setup = |what: &'static str| move |errno: Errno| ChildError::setup(what, errno);
        let (control, childs_control) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(setup("make a socket pair"))?;
        // A child may wait for ever on its way: for a home directory on a file system that does not answer.
        setsockopt(
            &control,
            ReceiveTimeout,
            &TimeVal::seconds(SETUP.as_secs().cast_signed()),
        )
        .map_err(setup("limit the time for setting up"))?;
        let (childs_plan, plan) = pipe2(OFlag::O_CLOEXEC).map_err(setup("make a pipe"))?;
        fcntl(&plan, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(setup("make a pipe"))?;
        let (stdout, childs_stdout) = output().map_err(setup("make a pipe"))?;
        let (stderr, childs_stderr) = output().map_err(setup("make a pipe"))?;
        let shim = Pid::this();
        let (side, cloned) = split(groups.unified()).map_err(setup("fork"))?;
        match side {
            ForkResult::Parent { child } => Ok(Self {
                child: Some(Child {
                    pid: child,
                    stdout,
                    stderr,
                    control,
                }),
                plan,
            }),
            ForkResult::Child => {
                drop((control, plan, stdout, stderr));
                let entered = cloned || groups.unified().is_some_and(enters_by_procs);
                let ends = Ends {
                    plan: childs_plan,
                    control: childs_control,
                    stdout: childs_stdout,
                    stderr: childs_stderr,
                };
                let code = match wait_and_become(groups, entered, &ends, shim) {
                    Ok(None) => 0,
                    Ok(Some(never)) => match never {},
                    Err(error) => {
                        report(&ends.control, &Err(error));
                        125
                    }
                };
                // SAFETY: `_exit` ends this process at once and runs no code of the shim's (no destructors, no
                // handlers), which is what the copy of another process must do.
                unsafe { libc::_exit(code) }
            }
        }
    }

    /// This one, where it waits still. The kernel may have ended it.
    pub(crate) fn if_there(mut self) -> Option<Self> {
        let pid = self.child.as_ref()?.pid;
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => Some(self),
            // Its id may be another's by now.
            _ => {
                self.child = None;
                None
            }
        }
    }

    /// Tells it what to become. It may wait for long, as for its report.
    pub(crate) fn told(mut self, plan: &Plan, signals: &SignalFd) -> Result<Child, ChildError> {
        let until = Instant::now() + SETUP;
        let mut bytes = Vec::new();
        ciborium::into_writer(plan, &mut bytes)
            .map_err(|error| ChildError::setup("write down what is to run", error))?;
        if let Some(child) = &self.child {
            share_niceness(child.pid);
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match nix::unistd::write(&self.plan, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let fds = [
                        PollFd::new(self.plan.as_fd(), PollFlags::POLLOUT),
                        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                    ];
                    wait(fds, until, signals)?;
                }
                // One that has ended reads nothing: that is found where its report is waited for.
                Err(_) => break,
            }
        }
        // The end of the plan is that of the pipe, which goes with this.
        self.child
            .take()
            .ok_or_else(|| ChildError::died("before there was an operation"))
    }
}

/// Gives a child the niceness of the shim, which was another one while both waited.
fn share_niceness(child: Pid) {
    // SAFETY: plain integers; the child was not waited for, so its id is no other process's. Where the shim waited no nicer
    // than it is, nothing changes.
    unsafe {
        let own = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, child.as_raw().unsigned_abs(), own);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            let _ended = nix::sys::signal::kill(child.pid, Signal::SIGKILL);
            processes::reap_within(child.pid, Duration::from_secs(1));
        }
    }
}

impl Child {
    /// Waits until the child has become what it should be, or somebody asks for its end: it may wait for long.
    pub(crate) fn ready(&self, signals: &SignalFd) -> Result<Ready, ChildError> {
        let until = Instant::now() + SETUP;
        loop {
            let fds = [
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            if wait(fds, until, signals)? {
                break;
            }
        }
        self.receive()?
            .unwrap_or_else(|| Err(ChildError::died("before it was set up")))
    }

    /// Lets it execute the interpreter. Returns once it did.
    pub(crate) fn go(&self) -> Result<(), ChildError> {
        nix::unistd::write(&self.control, b"!")
            .map_err(|errno| ChildError::setup("let the child go", errno))?;
        // The child's end is closed by the exec that works.
        match self.receive()? {
            None => Ok(()),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) => Err(ChildError::died("after an unexpected report")),
        }
    }

    fn receive(&self) -> Result<Option<Result<Ready, ChildError>>, ChildError> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match read(&self.control, &mut buffer) {
                Ok(0) => return Ok(None),
                Ok(length) => {
                    let message = ciborium::from_reader(&buffer[..length]);
                    return message
                        .map(Some)
                        .map_err(|_| ChildError::died("in the middle of a report"));
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(ChildError::late()),
                Err(errno) => return Err(ChildError::setup("read the child's report", errno)),
            }
        }
    }
}

/// Waits for the first of two, the other being the signals, and says whether it came.
fn wait(mut fds: [PollFd<'_>; 2], until: Instant, signals: &SignalFd) -> Result<bool, ChildError> {
    let left = until.saturating_duration_since(Instant::now());
    let polled = poll(
        &mut fds,
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
    );
    let came = fds[0].any().unwrap_or(true);
    if canceled(signals) {
        return Err(ChildError::canceled());
    }
    match polled {
        Ok(0) if left.is_zero() => Err(ChildError::late()),
        Ok(_) => Ok(came),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(ChildError::setup("wait for the child", errno)),
    }
}

impl ChildError {
    pub(crate) fn setup(what: &str, error: impl std::fmt::Display) -> Self {
        Self {
            stage: Stage::Setup,
            reason: format!("cannot {what}: {error}"),
        }
    }

    /// A part that the owner's profile insists on.
    pub(crate) fn confinement(profile: Profile, reason: impl std::fmt::Display) -> Self {
        Self {
            stage: Stage::Confinement,
            reason: format!(
                "confinement.profile: {profile} cannot be put up on this machine: {reason}"
            ),
        }
    }

    pub(crate) fn canceled() -> Self {
        Self {
            stage: Stage::Canceled,
            reason: "canceled before it started".into(),
        }
    }

    fn late() -> Self {
        Self {
            stage: Stage::Setup,
            reason: format!(
                "the script's process was not ready within {} s; does a file system that it needs not answer?",
                SETUP.as_secs()
            ),
        }
    }

    fn died(when: &str) -> Self {
        Self {
            stage: Stage::Setup,
            reason: format!("the script's process ended {when}"),
        }
    }
}

/// A pipe for what a script writes.
fn output() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (shims, scripts) = pipe2(OFlag::O_CLOEXEC)?;
    // Of this end alone: the script's waits as ever when the pipe is full.
    fcntl(&shims, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((shims, scripts))
}

/// Forks, straight into the cgroup where the kernel can. Says whether it did.
fn split(group: Option<&Path>) -> nix::Result<(ForkResult, bool)> {
    if let Some(group) = group.and_then(|path| File::open(path).ok()) {
        // SAFETY: all-zero is a valid value of this plain structure of integers.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = CLONE_INTO_CGROUP;
        args.exit_signal = Signal::SIGCHLD as u64;
        args.cgroup = group.as_raw_fd().unsigned_abs().into();
        // SAFETY: without CLONE_VM and a stack this is a fork. The pointer and size are those of a live structure that
        // the kernel only reads. The shim has one thread, so no lock is held by a thread that the child lacks.
        let result = unsafe {
            libc::syscall(
                libc::SYS_clone3,
                &raw const args,
                size_of::<libc::clone_args>(),
            )
        };
        match result {
            0 => return Ok((ForkResult::Child, true)),
            1.. => {
                return Ok((
                    ForkResult::Parent {
                        child: Pid::from_raw(i32::try_from(result).unwrap_or(i32::MAX)),
                    },
                    true,
                ));
            }
            // Kernels before 5.7 and some seccomp profiles of containers: enter by writing instead.
            _ => {}
        }
    }
    // SAFETY: the shim has one thread, so the child may do whatever a process may.
    unsafe { fork() }.map(|side| (side, false))
}

/// Failing is not fatal: the process tree is followed as well, and resource limits stand in. But the result says so.
fn enters_by_procs(group: &Path) -> bool {
    std::fs::write(group.join("cgroup.procs"), "0").is_ok()
}

/// Whether the kernel lets processes into the unified group: one is made, and ends at once.
pub(crate) fn can_enter(group: &Path) -> bool {
    match split(Some(group)) {
        Ok((ForkResult::Parent { child }, cloned)) => {
            let status = waitpid(child, None);
            cloned || matches!(status, Ok(WaitStatus::Exited(_, 0)))
        }
        Ok((ForkResult::Child, cloned)) => {
            let entered = cloned || enters_by_procs(group);
            // SAFETY: as at the end of `Waiting::fork`.
            unsafe { libc::_exit(i32::from(!entered)) }
        }
        Err(_) => false,
    }
}

/// The child's way to the script. Returns only what went wrong, and nothing where there is no operation.
fn wait_and_become(
    groups: &Groups,
    entered: bool,
    ends: &Ends,
    shim: Pid,
) -> Result<Option<Infallible>, ChildError> {
    set_up(ends)?;
    if Pid::parent() != shim {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::from(
        ends.plan
            .try_clone()
            .map_err(|e| ChildError::setup("wait for what is to run", e))?,
    )
    .read_to_end(&mut bytes)
    .map_err(|e| ChildError::setup("read what is to run", e))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let plan = ciborium::from_reader(&bytes[..])
        .map_err(|e| ChildError::setup("read what is to run", e))?;
    // Its memory is the script's by now.
    drop(bytes);
    become_script(&plan, groups, entered, &ends.control).map(Some)
}

/// What is the same for every operation.
fn set_up(ends: &Ends) -> Result<(), ChildError> {
    tie_to_the_shim()?;
    setsid().map_err(|e| ChildError::setup("make a session", e))?;
    default_signals()?;
    // An agent that the kernel is told to spare does not hand that on.
    let _best_effort = File::options()
        .write(true)
        .open("/proc/self/oom_score_adj")
        .and_then(|mut file| file.write_all(b"0"));
    let null = open(
        "/dev/null",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| ChildError::setup("open /dev/null", e))?;
    dup2_stdin(&null).map_err(|e| ChildError::setup("set standard input", e))?;
    dup2_stdout(&ends.stdout).map_err(|e| ChildError::setup("set standard output", e))?;
    dup2_stderr(&ends.stderr).map_err(|e| ChildError::setup("set standard error", e))?;
    Ok(())
}

/// Nothing goes on when the shim itself is killed.
fn tie_to_the_shim() -> Result<(), ChildError> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|e| ChildError::setup("tie the script to the shim", e))
}

/// From the plan to the exec. Returns only what went wrong.
fn become_script(
    plan: &Plan,
    groups: &Groups,
    entered: bool,
    control: &OwnedFd,
) -> Result<Infallible, ChildError> {
    let mut notes = Vec::new();
    for mut tasks in groups.tasks(&plan.limiting) {
        tasks
            .write_all(b"0")
            .map_err(|e| ChildError::setup("enter a cgroup", e))?;
    }
    let mut confinement = plan.confined.set_apart(&mut notes)?;
    let limited = |controller| By::limits(&plan.limiting, controller, entered);
    limit_resources(&plan.limits, limited, &mut notes)?;
    close_others_at_exec()?;
    if plan.no_new_privs {
        prctl::set_no_new_privs().map_err(|e| ChildError::setup("set no_new_privs", e))?;
    }
    if let Some(user) = &plan.user {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        // It may open them by their names (`/dev/stderr`), and so read from them too: the shim must not wait for what it was
        // told is there.
        let given = |fd: BorrowedFd<'_>| {
            fchown(fd, Some(uid), Some(gid)).map_err(|e| ChildError::setup("give a pipe away", e))
        };
        given(std::io::stdout().as_fd())?;
        given(std::io::stderr().as_fd())?;
        let groups: Vec<_> = user.groups.iter().copied().map(Gid::from_raw).collect();
        privileges::become_user(uid, gid, &groups).map_err(|e| ChildError {
            stage: Stage::User,
            reason: e.to_string(),
        })?;
        // The change of user has cleared it.
        tie_to_the_shim()?;
    }
    let cwd = enter(&plan.home, &mut notes)?;
    umask(Mode::from_bits_truncate(0o022));
    // Last: what follows is a message, and the exec.
    plan.confined
        .restrict(&plan.home, &plan.interpreter, &mut confinement, &mut notes)?;
    report(
        control,
        &Ok(Ready {
            entered,
            cwd,
            confinement,
            notes,
        }),
    );
    let mut go = [0];
    if read(control, &mut go) != Ok(1) {
        return Err(ChildError::died("with the shim"));
    }
    let program = CString::new(plan.interpreter.as_os_str().as_bytes())
        .map_err(|e| ChildError::setup("name the interpreter", e))?;
    let Err(errno) = execve(&program, &plan.argv, &plan.envp);
    let reason = match errno {
        Errno::E2BIG => "arguments and environment are too large for the kernel".to_owned(),
        errno => format!("{} cannot be executed: {errno}", plan.interpreter.display()),
    };
    Err(ChildError {
        stage: Stage::Interpreter,
        reason,
    })
}

fn report(control: &OwnedFd, message: &Result<Ready, ChildError>) {
    let mut bytes = Vec::new();
    if ciborium::into_writer(message, &mut bytes).is_ok() {
        // The shim then sees the end of the socket instead, and says that the child died.
        let _seen_by_the_shim = nix::unistd::write(control, &bytes);
    }
}

/// Undoes what the shim does to its own signals; what it inherited it has undone itself.
fn default_signals() -> Result<(), ChildError> {
    let failed = |errno| ChildError::setup("reset signals", errno);
    for signal in signals::IGNORED {
        signals::reset(signal).map_err(failed)?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(failed)
}

fn close_others_at_exec() -> Result<(), ChildError> {
    // SAFETY: the flag only marks descriptors close-on-exec; none that is in use here is closed.
    let result = unsafe {
        libc::close_range(
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_int,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(ChildError::setup(
            "mark descriptors for closing",
            Errno::last(),
        ))
    }
}

/// The kernel's own sign that nothing is to be dumped: where cores are piped to a program (core(5), `core_pattern`) it takes
/// no notice of any other limit, and that program would get the memory of a script that crashes.
const NO_CORE: u64 = 1;

fn limit_resources(
    limits: &Limits,
    limited: impl Fn(Controller) -> bool,
    notes: &mut Vec<String>,
) -> Result<(), ChildError> {
    let instead = |controller, value: Option<u64>| value.filter(|_| !limited(controller));
    let time = limits.cpu_percent.map(|percent| {
        let share = limits.time.as_millis() * u128::from(percent);
        u64::try_from(share.div_ceil(100 * 1000)).unwrap_or(u64::MAX)
    });
    for (resource, value) in [
        (Resource::RLIMIT_CORE, Some(NO_CORE)),
        (Resource::RLIMIT_FSIZE, limits.file_size),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        (
            Resource::RLIMIT_DATA,
            instead(Controller::Memory, limits.memory),
        ),
        // Counts all processes of the uid, and does nothing for root: second best.
        (
            Resource::RLIMIT_NPROC,
            instead(Controller::Processes, limits.processes),
        ),
        // As much as its share of all its time would be.
        (Resource::RLIMIT_CPU, instead(Controller::Cpu, time)),
    ] {
        let Some(value) = value else { continue };
        let failed = |e| ChildError::setup(&format!("set {resource:?}"), e);
        // A second more, as the kernel would send SIGKILL instead of SIGXCPU.
        let most = value.saturating_add(u64::from(resource == Resource::RLIMIT_CPU));
        match setrlimit(resource, value, most) {
            // A hard limit that may not be raised (by a user, or by a root without CAP_SYS_RESOURCE) is lower, and so as
            // good.
            Err(Errno::EPERM) => {
                let (_, hard) = getrlimit(resource).map_err(failed)?;
                setrlimit(resource, value.min(hard), most.min(hard)).map_err(failed)?;
                if resource == Resource::RLIMIT_CORE && cores_are_piped() {
                    notes.push("the memory of a script that crashes goes to the program that collects cores here, as the limit that tells the kernel otherwise may not be set".into());
                }
            }
            result => result.map_err(failed)?,
        }
    }
    Ok(())
}

/// To a program, or to a socket of one.
fn cores_are_piped() -> bool {
    std::fs::read("/proc/sys/kernel/core_pattern")
        .is_ok_and(|pattern| pattern.starts_with(b"|") || pattern.starts_with(b"@"))
}

/// The home directory, or `/` with a note.
fn enter(home: &Path, notes: &mut Vec<String>) -> Result<PathBuf, ChildError> {
    match chdir(home) {
        Ok(()) => Ok(home.to_owned()),
        Err(errno) => {
            chdir("/").map_err(|e| ChildError::setup("enter /", e))?;
            notes.push(format!(
                "the working directory is / as the home directory {} cannot be entered: {errno}",
                home.display()
            ));
            Ok("/".into())
        }
    }
}
