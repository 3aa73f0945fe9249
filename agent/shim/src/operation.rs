//! The story of one operation, from the description on standard input to the last event.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Pid, Uid, setsid};

use crate::child::{ChildError, Credentials, Plan, Waiting};
use crate::confinement::Confined;
use crate::containment::{Containment, Groups};
use crate::ephemeral::Lease;
use crate::event::{Ephemeral, Event, Outcome, Prepared, Stage, Started, UnixMillis};
use crate::journal::Journal;
use crate::order::{Orders, Word};
use crate::spec::{NICE_AHEAD, Profile, Spec, User, Variable};
use crate::spool::{Spool, SpoolError};
use crate::supervise::{Running, supervise};
use crate::workspace::Workspace;
use crate::{privileges, processes, signals, workspace};

/// One shim's life: takes one operation from standard input, runs it once it is told to, and ends. Without one (end of
/// input, as for a spare shim whose agent ended) it ends in silence. `spools` is the directory of all spools, where it is
/// known beforehand.
pub(crate) fn run(spools: Option<PathBuf>) -> ExitCode {
    let signals = match stand_alone() {
        Ok(signals) => signals,
        Err(errno) => {
            return fail(
                &mut Journal::new(),
                Stage::Shim,
                format!("the shim cannot be set up: {errno}"),
            );
        }
    };
    let ahead = Ahead::make(spools);
    let mut journal = Journal::new();
    let described = Orders::from_stdin().and_then(|mut orders| {
        let spec = orders.description()?;
        Ok(spec.map(|spec| (spec, orders)))
    });
    match described {
        Ok(Some((spec, mut orders))) => {
            perform(&spec, ahead, &mut orders, &signals, &mut journal);
        }
        Ok(None) => ahead.remove(),
        Err(error) => {
            ahead.remove();
            return fail(&mut journal, Stage::Spec, with_cause(&error));
        }
    }
    ExitCode::SUCCESS
}

/// What is made while there is no operation yet, so that one need not wait for it. Only the groups are always there.
struct Ahead {
    groups: Groups,
    child: Option<Waiting>,
    spool: Option<(Spool, Option<workspace::Spare>)>,
}

impl Ahead {
    /// In the directory of all spools, where it is known. What cannot be made in it is made when there is an operation, and
    /// what is wrong is then told.
    fn make(spools: Option<PathBuf>) -> Self {
        let groups = Groups::make();
        // Before the spool: a lock is nothing to inherit.
        let child = Waiting::fork(&groups).ok();
        let spool = spools.and_then(|spools| Spool::make_beside(&spools).ok());
        Self {
            groups,
            child,
            spool: spool.map(|spool| {
                let workspace = workspace::Spare::make(spool.path()).ok();
                (spool, workspace)
            }),
        }
    }

    fn remove(self) {
        // A group with somebody in it cannot be removed.
        drop(self.child);
        self.groups.remove();
        self.spool.inspect(|(spool, _)| spool.remove());
    }
}

/// A spool for this operation, beside its place: the one that was made ahead, where it is in the right directory.
fn spool_for(
    spec: &Spec,
    ahead: Option<(Spool, Option<workspace::Spare>)>,
) -> Result<(Spool, Option<workspace::Spare>), SpoolError> {
    let directory = spec.spool.parent().unwrap_or(Path::new("/"));
    match ahead {
        Some((spool, workspace)) if spool.path().parent() == Some(directory) => {
            Ok((spool, workspace))
        }
        other => {
            other.inspect(|(spool, _)| spool.remove());
            Ok((Spool::make_beside(directory)?, None))
        }
    }
}

/// How long what is left to do waits in the end: the report is on its way meanwhile, and has the processors for itself.
const AFTERWARDS: Duration = Duration::from_millis(5);

/// From the description to the last event, and what is left to do after it.
fn perform(
    spec: &Spec,
    ahead: Ahead,
    orders: &mut Orders,
    signals: &SignalFd,
    journal: &mut Journal,
) {
    let Ahead {
        groups,
        child,
        spool,
    } = ahead;
    let (mut spool, workspace) = match spool_for(spec, spool) {
        Ok(made) => made,
        Err(error) => {
            drop(child);
            groups.remove();
            let reason = with_cause(&error);
            journal.emit(&Event::Failed {
                stage: Stage::Spool,
                reason,
            });
            return std::mem::take(journal).finish();
        }
    };
    if let Some(events) = spool.events() {
        // Output comes when the spool is at its place.
        journal.attach(&spec.spool, events);
    }
    let mut notes = Vec::new();
    let waited = child.and_then(Waiting::if_there);
    let was_ended = waited.is_none();
    let child = waited.map_or_else(|| Waiting::fork(&groups), Ok);
    let mut containment = groups.limit(&spec.limits, &mut notes);
    if was_ended {
        // By the kernel, perhaps, for want of memory: which is no limit of this operation.
        containment.count_from_now();
    }
    let mut left = None;
    let mut scene = Scene {
        left: &mut left,
        spec,
        containment: &containment,
        signals,
        orders,
        spool: &mut spool,
        journal,
        notes: &mut notes,
    };
    let result = scene.prepare_and_run(workspace, child);
    for text in notes.drain(..) {
        journal.record(&Event::Note { text });
    }
    match result {
        Ok(outcome) => journal.emit(&Event::Exited(outcome)),
        Err(Never::Failed(ChildError { stage, reason })) => {
            journal.emit(&Event::Failed { stage, reason });
        }
        Err(Never::Unwanted) => {}
    }
    // Nobody waits for what follows. The groups are empty, and hold no file of the operation.
    step_back();
    if spool.is_at_its_place()
        && let Err(error) = journal.sync()
    {
        notes.push(format!("the spool could not be made durable: {error}"));
    }
    std::thread::sleep(AFTERWARDS);
    containment.remove(&mut notes);
    if spool.is_at_its_place() {
        workspace::remove_emptied(spool.path());
    } else {
        spool.remove();
    }
    for note in notes {
        eprintln!("sluice-shim: {}: {note}", spec.operation);
    }
    std::mem::take(journal).finish();
    if let Some((path, identity)) = left {
        workspace::remove_at_leisure(&path, identity);
    }
}

/// Why the script was not started.
enum Never {
    /// Something went wrong; the agent is told.
    Failed(ChildError),
    /// The agent did not come to want it.
    Unwanted,
}

impl From<ChildError> for Never {
    fn from(error: ChildError) -> Self {
        Self::Failed(error)
    }
}

/// What the steps of one operation share.
struct Scene<'a> {
    /// What of the private directory could not be removed in time.
    left: &'a mut Option<(PathBuf, (u64, u64))>,
    spec: &'a Spec,
    containment: &'a Containment,
    signals: &'a SignalFd,
    orders: &'a mut Orders,
    spool: &'a mut Spool,
    journal: &'a mut Journal,
    notes: &'a mut Vec<String>,
}

impl Scene<'_> {
    /// Takes the user and makes the directory, runs the script, and gives both back.
    fn prepare_and_run(
        &mut self,
        spare: Option<workspace::Spare>,
        child: Result<Waiting, ChildError>,
    ) -> Result<Outcome, Never> {
        let child = child?;
        let user = Identity::take(&self.spec.user)?;
        let made = Workspace::make(
            spare,
            self.spool.path(),
            self.spec,
            user.owner(),
            self.notes,
        );
        let workspace = match made {
            Ok(workspace) => workspace,
            Err(error) => {
                user.release(false, self.notes);
                return Err(Never::Failed(ChildError {
                    stage: Stage::Workspace,
                    reason: error.to_string(),
                }));
            }
        };
        let mut private_tmp = false;
        let result = self.start_and_supervise(child, &user, &workspace, &mut private_tmp);
        workspace.clear(self.spool.path(), self.notes);
        *self.left = workspace.left();
        user.release(!private_tmp, self.notes);
        result
    }

    fn start_and_supervise(
        &mut self,
        child: Waiting,
        user: &Identity,
        workspace: &Workspace,
        private_tmp: &mut bool,
    ) -> Result<Outcome, Never> {
        let (spec, containment) = (self.spec, self.containment);
        let (device, inode) = workspace.identity;
        self.journal.record(&Event::Prepared(Prepared {
            at: UnixMillis::now(),
            workspace: workspace.path.clone(),
            device,
            inode,
            cgroups: containment.paths(),
            ephemeral: user.ephemeral(),
        }));
        if !self.journal.is_complete() {
            // Whoever had to clean up after this shim would not know what it made.
            return Err(Never::Failed(ChildError {
                stage: Stage::Spool,
                reason: "the spool cannot be written; is the disk full?".into(),
            }));
        }
        let child = child.told(&plan(spec, user, workspace, containment)?, self.signals)?;
        let ready = child
            .ready(self.signals)
            .map_err(|error| self.gone(child.pid, error.into()))?;
        *private_tmp = ready.confinement.private_tmp;
        self.notes
            .extend(containment.shortcomings(&spec.limits, ready.entered));
        self.notes.extend(ready.notes);
        self.may_start()
            .map_err(|never| self.gone(child.pid, never))?;
        let at = UnixMillis::now();
        child
            .go()
            .map_err(|error| self.gone(child.pid, error.into()))?;
        // Not before: an interpreter that cannot be executed is a script that did not start.
        self.journal.emit(&Event::Started(Started {
            at,
            pid: child.pid.as_raw().unsigned_abs(),
            uid: user.uid.as_raw(),
            gids: user.gids(),
            cwd: ready.cwd,
            interpreter: spec.interpreter.clone(),
            containment: containment.kind(ready.entered),
            confinement: ready.confinement,
        }));
        if let Err(error) = privileges::keep_what_ending_needs() {
            self.notes
                .push(format!("the shim kept its capabilities: {error}"));
        }
        let running = Running {
            pid: child.pid,
            stdout: child.stdout,
            stderr: child.stderr,
            signals: self.signals,
            containment,
            ephemeral_uid: user.ephemeral_uid(),
            limits: &spec.limits,
            secrets: &spec.secrets,
            spool: &spec.spool,
        };
        Ok(supervise(running, self.journal, self.notes))
    }

    /// Ends a child that does not become the script.
    fn gone(&mut self, child: Pid, never: Never) -> Never {
        let _ended = nix::sys::signal::kill(child, Signal::SIGKILL);
        self.containment.kill();
        // One that was let go at the last moment may have started others.
        let mut tree = processes::descendants(std::process::id());
        tree.extend(self.containment.members());
        processes::signal(&tree, Signal::SIGKILL);
        processes::reap_within(child, Duration::from_secs(1));
        if processes::is_alive(child.as_raw()) {
            self.notes.push(processes::not_let_go(&[child.as_raw()]));
        }
        never
    }

    /// Waits for the agent's word, and takes the operation's place in the spool: whoever was there before started it, or
    /// gave it up.
    fn may_start(&mut self) -> Result<(), Never> {
        match self.orders.word(self.signals) {
            Word::Go => {}
            Word::Gone => return Err(Never::Unwanted),
            Word::Canceled => return Err(Never::Failed(ChildError::canceled())),
        }
        self.spool.put_at(&self.spec.spool).map_err(|error| {
            Never::Failed(ChildError {
                stage: Stage::Spool,
                reason: with_cause(&error),
            })
        })
    }
}

fn plan(
    spec: &Spec,
    user: &Identity,
    workspace: &Workspace,
    containment: &Containment,
) -> Result<Plan, ChildError> {
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|e| ChildError {
            stage: Stage::Spec,
            reason: e.to_string(),
        })
    };
    let argv = std::iter::once(spec.interpreter.as_os_str().as_bytes())
        .chain(spec.flags.iter().map(String::as_bytes))
        .chain([workspace.script.as_os_str().as_bytes()])
        .chain(spec.arguments.iter().map(String::as_bytes))
        .map(text)
        .collect::<Result<_, _>>()?;
    let mut environment = spec.environment.clone();
    for variable in user.variables() {
        if !environment.iter().any(|there| there.name == variable.name) {
            environment.push(variable);
        }
    }
    // Ours win: some interpreters take the first of two, others the last.
    environment.retain(|given| {
        !workspace
            .variables
            .iter()
            .any(|ours| ours.name == given.name)
    });
    environment.extend(workspace.variables.iter().cloned());
    let envp = environment
        .iter()
        .map(|v| text(format!("{}={}", v.name, v.value).as_bytes()))
        .collect::<Result<_, _>>()?;
    Ok(Plan {
        interpreter: spec.interpreter.clone(),
        argv,
        envp,
        user: Uid::effective().is_root().then(|| Credentials {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: user.groups.iter().map(|group| group.as_raw()).collect(),
        }),
        home: match &spec.user {
            User::Ephemeral { .. } => "/".into(),
            User::Named { home, .. } => home.clone(),
        },
        confined: Confined {
            profile: spec.profile,
            opened: spec.opened.clone(),
            private: user.lease.is_some() || spec.profile != Profile::None,
            hidden: if user.uid.is_root() || spec.profile != Profile::None {
                spec.hidden.clone()
            } else {
                Vec::new()
            },
            workspace: workspace.path.clone(),
            temporary: spec.limits.memory,
        },
        limits: spec.limits.clone(),
        limiting: containment.limiting(),
        no_new_privs: spec.no_new_privs,
    })
}

/// Who the script runs as, with the lease of an ephemeral uid.
struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    lease: Option<Lease>,
}

impl Identity {
    fn take(user: &User) -> Result<Self, ChildError> {
        let refuse = |reason: String| ChildError {
            stage: Stage::User,
            reason,
        };
        let me = Uid::effective();
        match user {
            User::Ephemeral { .. } if !me.is_root() => Err(refuse(
                "an ephemeral user needs an agent that is root".into(),
            )),
            User::Ephemeral { locks } => {
                let lease = Lease::take(locks).map_err(|e| refuse(e.to_string()))?;
                let gid = Gid::from_raw(lease.uid);
                Ok(Self {
                    uid: Uid::from_raw(lease.uid),
                    gid,
                    groups: vec![gid],
                    lease: Some(lease),
                })
            }
            User::Named {
                name,
                uid,
                gid,
                groups,
                ..
            } => {
                if !me.is_root() && me.as_raw() != *uid {
                    return Err(refuse(format!(
                        "an agent that is not root can run scripts only as its own user, not as `{name}`"
                    )));
                }
                let groups = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
                Ok(Self {
                    uid: Uid::from_raw(*uid),
                    gid: Gid::from_raw(*gid),
                    groups,
                    lease: None,
                })
            }
        }
    }

    /// Who the script's files belong to; absent where owners cannot be changed.
    fn owner(&self) -> Option<(Uid, Gid)> {
        Uid::effective().is_root().then_some((self.uid, self.gid))
    }

    fn ephemeral_uid(&self) -> Option<u32> {
        self.lease.as_ref().map(|lease| lease.uid)
    }

    /// For whoever has to end and remove what is left of it.
    fn ephemeral(&self) -> Option<Ephemeral> {
        self.lease.as_ref().map(|lease| Ephemeral {
            uid: lease.uid,
            locks: lease.locks().to_owned(),
        })
    }

    fn gids(&self) -> Vec<u32> {
        let others = self.groups.iter().filter(|gid| **gid != self.gid);
        std::iter::once(&self.gid)
            .chain(others)
            .map(|gid| gid.as_raw())
            .collect()
    }

    fn variables(&self) -> Vec<Variable> {
        let Some(uid) = self.ephemeral_uid() else {
            return Vec::new();
        };
        ["USER", "LOGNAME"]
            .map(|name| Variable {
                name: name.into(),
                value: format!("sluice-{uid}"),
            })
            .into()
    }

    fn release(self, files_were_shared: bool, notes: &mut Vec<String>) {
        let Some(lease) = self.lease else { return };
        if files_were_shared {
            processes::kill_all_of(lease.uid);
            workspace::remove_files_of(lease.uid, notes);
        }
        lease.release(notes);
    }
}

/// Cuts what ties the shim to whoever started it, and makes every descendant its own.
fn stand_alone() -> nix::Result<SignalFd> {
    // Refused for the leader of a group, such as a shim started by hand from a shell: then it stays in its session.
    let _already_a_leader = setsid();
    close_inherited()?;
    signals::reset_all();
    for signal in signals::IGNORED {
        signals::ignore(signal)?;
    }
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGCHLD].into_iter().collect();
    signals.thread_block()?;
    prctl::set_child_subreaper(true)?;
    #[allow(clippy::disallowed_methods, reason = "the shim has one thread")]
    umask(Mode::from_bits_truncate(0o077));
    nix::unistd::chdir("/")?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// What the agent was started with, such as a supervisor's lock, must not last as long as a shim. Called before anything
/// is opened.
#[expect(unsafe_code, reason = "close_range has no safe form")]
pub(crate) fn close_inherited() -> nix::Result<()> {
    // SAFETY: plain integers; nothing in this process owns a descriptor from 3 on yet.
    nix::errno::Errno::result(unsafe { libc::close_range(3, libc::c_uint::MAX, 0) }).map(drop)
}

#[expect(unsafe_code, reason = "nix has no setpriority")]
fn step_back() {
    // SAFETY: plain integers; 0 is this process.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE_AHEAD) };
}

fn fail(journal: &mut Journal, stage: Stage, reason: String) -> ExitCode {
    journal.emit(&Event::Failed { stage, reason });
    std::mem::take(journal).finish();
    ExitCode::SUCCESS
}

/// A message with its causes: the shim's last words are one text.
pub(crate) fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
