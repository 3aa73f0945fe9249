//! Giving an operation to a shim, and what it reports.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_gate_client::program::{self, ProgramError};
use sluice_shim::event::Event;
use sluice_shim::frame::Decoder;
use sluice_shim::spec::{self, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Mutex;

use crate::exec::spool::{FollowError, Follower};

/// How long a spare may take to read a description.
const HAND_OVER: Duration = Duration::from_secs(30);

/// Why no shim took the operation. No script was started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It is missing, or others could replace it.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The process could not be made.
    #[error("{} cannot be started", path.display())]
    Spawn {
        /// Which program.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The shim ended before it had read everything.
    #[error("the shim did not take the operation")]
    HandOver(#[source] std::io::Error),
}

/// Starts shims. One spare waits ready, so that an operation does not wait for a process to be made.
#[derive(Debug, Clone)]
pub struct Launcher {
    shim: PathBuf,
    /// Where shims make ready: the directory of all spools.
    spools: PathBuf,
    spare: Arc<Mutex<Option<Child>>>,
}

/// A running operation, as its shim tells it. Dropping this does not end the operation.
#[derive(Debug)]
pub struct Operation {
    child: Child,
    source: Source,
    /// Events given out so far.
    seen: usize,
    spool: PathBuf,
    workspaces: PathBuf,
    operation: String,
}

#[derive(Debug)]
enum Source {
    Pipe {
        stdout: ChildStdout,
        decoder: Decoder,
        buffer: Vec<u8>,
    },
    /// The pipe ended before the last event: the shim gave up waiting for a slow agent, or was killed.
    Spool(Follower),
    Ended,
}

impl Launcher {
    /// With the shim beside the agent's own program.
    ///
    /// # Errors
    /// There is none, or (for an agent that is root) one that others could replace.
    pub fn beside_this_program(spools: PathBuf) -> Result<Self, LaunchError> {
        let shim = program::beside_own_executable("sluice-shim")?;
        Ok(Self::new(shim, spools))
    }

    /// With a shim at a path.
    ///
    /// # Errors
    /// As [`Self::beside_this_program`].
    pub fn with_shim(path: &Path, spools: PathBuf) -> Result<Self, LaunchError> {
        Ok(Self::new(program::checked(path)?, spools))
    }

    fn new(shim: PathBuf, spools: PathBuf) -> Self {
        Self {
            shim,
            spools,
            spare: Arc::default(),
        }
    }

    /// Makes a shim that waits for an operation, unless there is one, and makes ready meanwhile. It ends by itself when the agent does.
    ///
    /// # Errors
    /// The process cannot be made.
    pub async fn prepare_spare(&self) -> Result<(), LaunchError> {
        let mut spare = self.spare.lock().await;
        if !spare.as_mut().is_some_and(is_alive) {
            let launcher = self.clone();
            // On a thread of its own: the one that spawns a process waits until that has executed its program.
            let made = tokio::task::spawn_blocking(move || launcher.spawn(Some(&launcher.spools)))
                .await
                .map_err(|error| LaunchError::HandOver(error.into()))??;
            // It makes ready beside operations that somebody waits for.
            set_niceness(&made, true);
            *spare = Some(made);
        }
        Ok(())
    }

    /// Gives an operation to a shim. When this returns the shim has all of it, and the operation goes on whatever happens
    /// to the agent.
    ///
    /// # Errors
    /// No shim could be started, or it did not take the operation; the script was not started.
    pub async fn start(&self, spec: &Spec) -> Result<Operation, LaunchError> {
        let bytes = spec.to_bytes();
        let spare = self.spare.lock().await.take();
        let handed = match spare {
            // One that was killed meanwhile is replaced: it has not read the whole description, so it starts nothing.
            Some(spare) => match hand_over_in_time(spare, &bytes).await {
                Ok(handed) => handed,
                Err(error) => {
                    tracing::debug!(%error, "the spare shim was gone");
                    hand_over(self.spawn(None)?, &bytes)
                        .await
                        .map_err(LaunchError::HandOver)?
                }
            },
            None => hand_over(self.spawn(None)?, &bytes)
                .await
                .map_err(LaunchError::HandOver)?,
        };
        let (child, stdout) = handed;
        let source = Source::Pipe {
            stdout,
            decoder: Decoder::default(),
            buffer: vec![0; 64 * 1024],
        };
        Ok(Operation {
            child,
            source,
            seen: 0,
            spool: spec.spool.clone(),
            workspaces: spec.workspace_base.clone(),
            operation: spec.operation.clone(),
        })
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "exec is one of the places that start processes (ARCHITECTURE.md)"
    )]
    fn spawn(&self, spools: Option<&Path>) -> Result<Child, LaunchError> {
        // Nothing here may need code between fork and exec: then the standard library uses posix_spawn. The shim itself
        // leaves the agent's session and directory.
        Command::new(&self.shim)
            .args(spools)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| LaunchError::Spawn {
                path: self.shim.clone(),
                source,
            })
    }
}

impl Operation {
    /// The next event; `None` after the last.
    ///
    /// # Errors
    /// [`FollowError::Interrupted`] when the shim was killed. What it left has then been ended and removed.
    pub async fn next(&mut self) -> Result<Option<Event>, FollowError> {
        loop {
            let event = match &mut self.source {
                Source::Ended => return Ok(None),
                Source::Spool(follower) => follower.next().await?,
                Source::Pipe {
                    stdout,
                    decoder,
                    buffer,
                } => match decoder.next_event() {
                    Ok(Some(event)) => Some(event),
                    Ok(None) => match stdout.read(buffer).await {
                        Ok(length) if length > 0 => {
                            decoder.push(&buffer[..length]);
                            continue;
                        }
                        _ => None,
                    },
                    Err(source) => {
                        return Err(FollowError::Damaged {
                            path: self.spool.clone(),
                            source,
                        });
                    }
                },
            };
            match (event, &self.source) {
                (Some(event), _) => {
                    self.seen += 1;
                    if event.is_last() {
                        self.source = Source::Ended;
                    }
                    return Ok(Some(event));
                }
                (None, Source::Pipe { .. }) => {
                    self.source = Source::Spool(Follower::after(
                        &self.spool,
                        &self.workspaces,
                        &self.operation,
                        self.seen,
                    ))
                }
                (None, _) => self.source = Source::Ended,
            }
        }
    }

    /// Asks for the end: SIGTERM to every process of the operation, SIGKILL after the grace. The events go on to the last.
    pub fn cancel(&self) {
        // The id is there as long as the shim was not waited for, so it is the shim's.
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok())
            && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM)
        {
            tracing::debug!(%error, pid, "the shim had ended before it could be asked to cancel");
        }
    }
}

/// A spare that does not read has not seen the end of the description. It is killed, so it starts nothing.
async fn hand_over_in_time(spare: Child, bytes: &[u8]) -> std::io::Result<(Child, ChildStdout)> {
    let pid = spare.id();
    match tokio::time::timeout(HAND_OVER, hand_over(spare, bytes)).await {
        Ok(result) => result,
        Err(_) => {
            if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
                let _gone_by_itself = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            Err(std::io::ErrorKind::TimedOut.into())
        }
    }
}

async fn hand_over(mut shim: Child, bytes: &[u8]) -> std::io::Result<(Child, ChildStdout)> {
    set_niceness(&shim, false);
    let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    let mut stdin = shim.stdin.take().ok_or_else(gone)?;
    let stdout = shim.stdout.take().ok_or_else(gone)?;
    stdin.write_all(bytes).await?;
    stdin.shutdown().await?;
    Ok((shim, stdout))
}

/// Gives a shim the niceness of what nobody waits for, or the agent's own again. An agent that could not take it back gives
/// none.
#[allow(unsafe_code, reason = "nix has no setpriority")]
fn set_niceness(shim: &Child, ahead: bool) {
    static OWN: OnceLock<Option<libc::c_int>> = OnceLock::new();
    let own = *OWN.get_or_init(|| {
        may_be_nicer().then(|| {
            // SAFETY: plain integers; 0 is this process.
            unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
        })
    });
    if let (Some(own), Some(pid)) = (own, shim.id()) {
        let niceness = if ahead {
            own.saturating_add(spec::NICE_AHEAD)
        } else {
            own
        };
        // SAFETY: plain integers. The shim was not waited for, so the id is its.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, pid, niceness) };
    }
}

/// Whether this process has CAP_SYS_NICE (number 23 in capabilities(7)) in effect.
fn may_be_nicer() -> bool {
    const SYS_NICE: u32 = 23;
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .is_some_and(|effective| effective & (1 << SYS_NICE) != 0)
}

fn is_alive(child: &mut Child) -> bool {
    matches!(child.try_wait(), Ok(None))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use sluice_shim::event::End;
    use sluice_shim::spec::{Attachments, Limits, Script};

    use super::*;
    use crate::exec::{spool, users};

    struct Bench {
        directory: tempfile::TempDir,
        launcher: Launcher,
    }

    /// The shim beside this test's program, two folders up from where cargo puts test programs.
    fn bench() -> Option<Bench> {
        let own = std::env::current_exe().unwrap();
        let shim = own.ancestors().nth(2).unwrap().join("sluice-shim");
        if !shim.exists() {
            eprintln!(
                "LEFT OUT: {} is not built (cargo build -p sluice-shim)",
                shim.display()
            );
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o711)).unwrap();
        Some(Bench {
            launcher: Launcher::with_shim(&shim, directory.path().to_owned()).unwrap(),
            directory,
        })
    }

    impl Bench {
        async fn prepare_spare(&self) {
            self.launcher.prepare_spare().await.unwrap();
        }

        fn spec(&self, name: &str, script: &str) -> Spec {
            let path = self.directory.path();
            Spec {
                operation: format!("spawn-{}-{name}", std::process::id()),
                spool: path.join(name),
                workspace_base: path.join("run"),
                interpreter: "/bin/sh".into(),
                flags: vec![],
                script: Script {
                    name: "script".into(),
                    bytes: script.as_bytes().to_vec().into(),
                },
                arguments: vec![],
                environment: vec![],
                user: users::RunAs::Named(users::own_user().unwrap()).to_spec(),
                attachments: Attachments::default(),
                secrets: vec![],
                limits: Limits {
                    time: Duration::from_secs(20),
                    grace: Duration::from_millis(200),
                    output: 1000,
                    memory: None,
                    processes: None,
                    cpu_percent: None,
                    file_size: None,
                    open_files: None,
                },
                no_new_privs: true,
                profile: spec::Profile::None,
                hidden: vec![],
            }
        }
    }

    fn end_of(event: Option<&Event>) -> Option<End> {
        if let Some(Event::Exited(outcome)) = event {
            Some(outcome.end.clone())
        } else {
            None
        }
    }

    async fn all(operation: &mut Operation) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = operation.next().await.unwrap() {
            events.push(event);
        }
        events
    }

    #[tokio::test]
    async fn an_operation_runs_with_a_spare_shim_with_a_dead_one_and_without() {
        let Some(bench) = bench() else { return };
        for name in ["without", "spare", "dead"] {
            if name != "without" {
                bench.prepare_spare().await;
            }
            if name == "dead" {
                bench
                    .launcher
                    .spare
                    .lock()
                    .await
                    .as_mut()
                    .unwrap()
                    .kill()
                    .await
                    .unwrap();
            }
            let mut operation = bench
                .launcher
                .start(&bench.spec(name, "echo hello; exit 3"))
                .await
                .unwrap();
            let events = all(&mut operation).await;
            assert_eq!(
                end_of(events.last()),
                Some(End::Code(3)),
                "{name}: {events:?}"
            );
            assert!(
                events.iter().any(
                    |e| matches!(e, Event::Output { bytes, .. } if bytes.as_slice() == b"hello\n")
                ),
                "{name}"
            );
        }
    }

    #[tokio::test]
    async fn cancel_ends_it_and_the_events_go_on_to_the_last() {
        let Some(bench) = bench() else { return };
        let mut operation = bench
            .launcher
            .start(&bench.spec("cancel", "echo up; sleep 30"))
            .await
            .unwrap();
        while !matches!(operation.next().await.unwrap(), Some(Event::Output { .. })) {}
        operation.cancel();
        let events = all(&mut operation).await;
        assert!(
            matches!(events.last(), Some(Event::Exited(outcome)) if outcome.canceled),
            "{events:?}"
        );
    }

    #[tokio::test]
    async fn an_operation_is_adopted_by_another_agent_with_all_its_events() {
        let Some(bench) = bench() else { return };
        let spec = bench.spec("adopt", "echo one; sleep 0.4; echo two; exit 4");
        drop(bench.launcher.start(&spec).await.unwrap());
        tokio::time::timeout(Duration::from_secs(5), async {
            while !sluice_shim::spool::is_running(&spec.spool).unwrap() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .unwrap();
        let mut follower = spool::adopt(&spec.spool, &spec.workspace_base, &spec.operation, false);
        let mut events = Vec::new();
        while let Some(event) = follower.next().await.unwrap() {
            events.push(event);
        }
        assert_eq!(end_of(events.last()), Some(End::Code(4)));
        assert_eq!(
            events
                .iter()
                .filter(|e| matches!(e, Event::Output { .. }))
                .count(),
            2,
            "{events:?}"
        );
    }

    #[tokio::test]
    async fn a_killed_shim_is_an_interruption_and_no_outcome() {
        let Some(bench) = bench() else { return };
        let spec = bench.spec("killed", "echo up; sleep 30");
        let mut operation = bench.launcher.start(&spec).await.unwrap();
        while !matches!(operation.next().await.unwrap(), Some(Event::Output { .. })) {}
        operation.child.start_kill().unwrap();
        assert!(
            matches!(operation.next().await, Err(FollowError::Interrupted { notes }) if notes.is_empty())
        );
        assert_eq!(std::fs::read_dir(&spec.workspace_base).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_spool_that_never_started_is_given_up_for_good() {
        let Some(bench) = bench() else { return };
        let spec = bench.spec("late", "echo ran");
        let mut follower = spool::adopt(&spec.spool, &spec.workspace_base, &spec.operation, false);
        assert!(matches!(
            follower.next().await.unwrap(),
            Some(Event::Failed { .. })
        ));
        let mut late = bench.launcher.start(&spec).await.unwrap();
        let events = all(&mut late).await;
        assert!(
            matches!(events.as_slice(), [Event::Failed { .. }]),
            "{events:?}"
        );
    }
}
