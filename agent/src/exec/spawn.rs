//! Giving an operation to a shim, and what it reports.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use sluice_gate_client::program::{self, ProgramError};
use sluice_protocol::causes::Causes;
use sluice_shim::Found;
use sluice_shim::event::Event;
use sluice_shim::format::OtherFormat;
use sluice_shim::frame::Decoder;
use sluice_shim::order;
use sluice_shim::spec::Spec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::Mutex;

use super::fork_server::{ForkServer, Shim, StartError};
use super::niceness::{self, Niceness};
use super::program::Program;
use crate::exec::spool::{FollowError, Follower, sweep};

/// How long a shim may take to read a description.
const HAND_OVER: Duration = Duration::from_secs(30);
/// How long a shim may take to find out what it can do.
const TRIAL: Duration = Duration::from_secs(10);

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
    /// It speaks another format: it was replaced in place, or agent and shim were not installed together.
    #[error("{} does not fit this agent, which has to be started again for it", path.display())]
    Version {
        /// Which program.
        path: PathBuf,
        /// What it says.
        #[source]
        source: OtherFormat,
    },
    /// The shim ended before it had read everything.
    #[error("the shim did not take the operation")]
    HandOver(#[source] std::io::Error),
    /// It was to try what it can, and did not say.
    #[error("the shim does not say what it can do here")]
    Trial(#[source] std::io::Error),
}

/// Starts shims. One spare waits ready, so that an operation does not wait for a process to be made.
#[derive(Debug, Clone)]
pub struct Launcher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    shim: Program,
    /// Where shims make ready: the directory of all spools.
    spools: PathBuf,
    spare: Mutex<Option<Shim>>,
    server: Mutex<Option<ForkServer>>,
}

/// A shim that has the description of an operation, makes everything ready for it, and waits for the word to start.
/// Dropping this without it ends the shim, which removes what it made; nothing was started.
#[derive(Debug)]
pub struct Waiting {
    launcher: Launcher,
    shim: Shim,
    /// For another shim, where this one is gone before the word.
    order: Vec<u8>,
    spool: PathBuf,
    workspaces: PathBuf,
    operation: String,
}

/// A running operation, as its shim tells it. Dropping this does not end the operation.
#[derive(Debug)]
pub struct Operation {
    shim: Shim,
    source: Source,
    /// Events given out so far, output not counted: of that the pipe has less than the spool.
    seen: usize,
    follower: Follower,
}

#[derive(Debug)]
enum Source {
    Pipe {
        decoder: Decoder,
        buffer: Vec<u8>,
    },
    /// The pipe ended before the last event: the shim gave up waiting for a slow agent, or was killed. Or what came over it
    /// cannot be read.
    Spool,
    Ended,
}

impl Launcher {
    /// With the shim beside the agent's own program.
    ///
    /// # Errors
    /// There is none, or (for an agent that is root) one that others could replace.
    pub fn beside_this_program(spools: PathBuf) -> Result<Self, LaunchError> {
        let shim = program::beside_own_executable("sluice-shim")?;
        Self::new(shim, spools)
    }

    /// With a shim at a path.
    ///
    /// # Errors
    /// As [`Self::beside_this_program`].
    pub fn with_shim(path: &Path, spools: PathBuf) -> Result<Self, LaunchError> {
        Self::new(program::checked(path)?, spools)
    }

    fn new(path: PathBuf, spools: PathBuf) -> Result<Self, LaunchError> {
        let shim = Program::open(path.clone());
        Ok(Self(Arc::new(Shared {
            shim: shim.map_err(|source| LaunchError::Spawn { path, source })?,
            spools,
            spare: Mutex::default(),
            server: Mutex::default(),
        })))
    }

    /// Has a shim find out how operations are held together on this machine.
    ///
    /// # Errors
    /// It cannot be started, or does not say within ten seconds.
    pub async fn try_out(&self) -> Result<Found, LaunchError> {
        let mut shim = self.0.shim.command();
        let shim = shim
            .arg(sluice_shim::TRY_OUT)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(TRIAL, shim)
            .await
            .map_err(|_| LaunchError::Trial(std::io::ErrorKind::TimedOut.into()))?
            .map_err(LaunchError::Trial)?;
        Found::from_bytes(&output.stdout)
            .map_err(|error| LaunchError::Trial(std::io::Error::other(error.to_string())))
    }

    /// Makes a shim that waits for an operation, unless there is one, and makes ready meanwhile. It ends by itself when the
    /// agent does.
    ///
    /// # Errors
    /// The process cannot be made.
    pub async fn prepare_spare(&self) -> Result<(), LaunchError> {
        let mut spare = self.0.spare.lock().await;
        if !spare.as_ref().is_some_and(Shim::waits) {
            let made = self.fork().await?;
            // It makes ready beside operations that somebody waits for.
            niceness::of_process(made.id(), Niceness::Aside);
            *spare = Some(made);
        }
        Ok(())
    }

    /// Describes an operation to a shim, which makes everything ready for it: user, private directory with the script,
    /// limits, a process that waits to become the interpreter. Nothing starts before [`Waiting::go`].
    ///
    /// # Errors
    /// No shim could be started, or it did not take the description.
    pub async fn describe(&self, spec: &Spec) -> Result<Waiting, LaunchError> {
        let order = order::describe(spec);
        let spare = self.0.spare.lock().await.take();
        let taken = match spare {
            Some(spare) => {
                let id = spare.id();
                hand_over(spare, &order)
                    .await
                    .inspect_err(|error| {
                        tracing::debug!(%error, "the spare shim was gone");
                        drop(sweep(self.0.spools.clone(), id));
                    })
                    .ok()
            }
            None => None,
        };
        // One that was killed meanwhile is replaced: it was not told to start, so it starts nothing.
        let shim = match taken {
            Some(shim) => shim,
            None => self.describe_anew(&order).await?,
        };
        Ok(Waiting {
            launcher: self.clone(),
            shim,
            order,
            spool: spec.spool.clone(),
            workspaces: spec.workspace_base.clone(),
            operation: spec.operation.clone(),
        })
    }

    async fn describe_anew(&self, order: &[u8]) -> Result<Shim, LaunchError> {
        hand_over(self.fork().await?, order)
            .await
            .map_err(LaunchError::HandOver)
    }

    /// Has the server make a shim. A server that is gone is started again, once.
    async fn fork(&self) -> Result<Shim, LaunchError> {
        let mut server = self.0.server.lock().await;
        if let Some(known) = server.as_mut() {
            match known.fork().await {
                Ok(shim) => return Ok(shim),
                Err(error) => tracing::warn!(%error, "the server of shims is started again"),
            }
        }
        let path = || self.0.shim.path().to_owned();
        let failed = |source| LaunchError::Spawn {
            path: path(),
            source,
        };
        *server = None;
        let mut started = ForkServer::start(&self.0.shim, &self.0.spools)
            .await
            .map_err(|error| match error {
                StartError::Io(source) => failed(source),
                StartError::Format(source) => LaunchError::Version {
                    path: path(),
                    source,
                },
            })?;
        // A fork of it that nobody waits for keeps nobody from the processors.
        if let Some(id) = started.id() {
            niceness::of_process(id, Niceness::Aside);
        }
        let shim = started.fork().await.map_err(failed)?;
        *server = Some(started);
        Ok(shim)
    }
}

impl Waiting {
    /// Lets the operation start. When this returns it goes on whatever happens to the agent.
    ///
    /// # Errors
    /// The shim was gone, and no other could be started; the script was not started.
    pub async fn go(self) -> Result<Operation, LaunchError> {
        let Self {
            launcher,
            mut shim,
            order,
            ..
        } = self;
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; 64 * 1024];
        if let Err(error) = say_go(&mut shim.stdin).await {
            // It ended without the word, so it has started nothing. It says why, where it could.
            let told = shim.stdout.read(&mut buffer).await.unwrap_or_default();
            if told > 0 {
                decoder.push(&buffer[..told]);
            } else {
                tracing::debug!(%error, "the shim was gone before the operation could start");
                drop(sweep(launcher.0.spools.clone(), shim.id()));
                shim = launcher.describe_anew(&order).await?;
                say_go(&mut shim.stdin)
                    .await
                    .map_err(LaunchError::HandOver)?;
            }
        }
        let mut follower = Follower::after(&self.spool, &self.workspaces, &self.operation);
        follower.of_shim(launcher.0.spools.clone(), shim.id());
        Ok(Operation {
            shim,
            source: Source::Pipe { decoder, buffer },
            seen: 0,
            follower,
        })
    }
}

async fn say_go(stdin: &mut pipe::Sender) -> std::io::Result<()> {
    stdin.write_all(order::go()).await?;
    stdin.flush().await
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
                Source::Spool => self.follower.next().await?,
                Source::Pipe { decoder, buffer } => match decoder.next_event() {
                    Ok(Some(event)) => Some(event),
                    Ok(None) => match self.shim.stdout.read(buffer).await {
                        Ok(length) if length > 0 => {
                            decoder.push(&buffer[..length]);
                            continue;
                        }
                        _ => None,
                    },
                    // The script goes on, and the spool may tell more.
                    Err(error) => {
                        tracing::warn!(spool = %self.follower.spool().display(), error = %Causes(&error), "what a shim says cannot be read");
                        None
                    }
                },
            };
            match (event, &self.source) {
                (Some(event), _) => {
                    if !matches!(event, Event::Output { .. } | Event::Spooled) {
                        self.seen += 1;
                    }
                    if event.is_last() {
                        self.source = Source::Ended;
                    }
                    return Ok(Some(event));
                }
                (None, Source::Pipe { .. }) => {
                    self.follower.skip(self.seen);
                    self.source = Source::Spool;
                }
                (None, _) => self.source = Source::Ended,
            }
        }
    }

    /// Where its events and output are kept.
    pub(crate) fn spool(&self) -> &Path {
        self.follower.spool()
    }

    /// Asks for the end: SIGTERM to every process of the operation, SIGKILL after the grace. The events go on to the last.
    pub fn cancel(&self) {
        if let Err(error) = self.shim.signal(Signal::SIGTERM) {
            tracing::debug!(%error, "the shim had ended before it could be asked to cancel");
        }
    }
}

/// A shim that does not read has not seen the end of the description: it starts nothing.
async fn hand_over(mut shim: Shim, order: &[u8]) -> std::io::Result<Shim> {
    niceness::of_process(shim.id(), Niceness::Own);
    let written = tokio::time::timeout(HAND_OVER, async {
        shim.stdin.write_all(order).await?;
        shim.stdin.flush().await
    })
    .await;
    match written {
        Ok(written) => written.map(|()| shim),
        Err(_) => {
            let _gone_by_itself = shim.signal(Signal::SIGKILL);
            Err(std::io::ErrorKind::TimedOut.into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use sluice_shim::event::End;
    use sluice_shim::spec::{self, Attachments, Limits, Script};

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

        async fn kill_server(&self) {
            let server = self.launcher.0.server.lock().await;
            server.as_ref().unwrap().kill();
        }

        async fn start(&self, spec: &Spec) -> Operation {
            let waiting = self.launcher.describe(spec).await.unwrap();
            waiting.go().await.unwrap()
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
                opened: spec::Opened::default(),
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

    /// Kills a shim, and waits until it is gone.
    async fn kill_shim(shim: &Shim) {
        shim.signal(Signal::SIGKILL).unwrap();
        for _ in 0..1000 {
            if !shim.waits() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it lives on");
    }

    async fn all(operation: &mut Operation) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = operation.next().await.unwrap() {
            events.push(event);
        }
        events
    }

    #[tokio::test]
    async fn an_operation_runs_with_a_spare_shim_with_a_dead_one_and_without_one_or_a_server() {
        let Some(bench) = bench() else { return };
        for name in ["without", "spare", "dead", "no-server"] {
            if !["without", "no-server"].contains(&name) {
                bench.prepare_spare().await;
            }
            if name == "dead" {
                kill_shim(bench.launcher.0.spare.lock().await.as_ref().unwrap()).await;
            }
            if name == "no-server" {
                bench.kill_server().await;
            }
            let mut operation = bench.start(&bench.spec(name, "echo hello; exit 3")).await;
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
    async fn a_shim_that_was_overwritten_is_an_error_that_names_it_and_nothing_starts() {
        let Some(mut bench) = bench() else { return };
        let copy = bench.directory.path().join("program");
        std::fs::copy(bench.launcher.0.shim.path(), &copy).unwrap();
        bench.launcher = Launcher::with_shim(&copy, bench.directory.path().to_owned()).unwrap();
        let mut operation = bench.start(&bench.spec("before", "exit 3")).await;
        assert_eq!(end_of(all(&mut operation).await.last()), Some(End::Code(3)));
        bench.kill_server().await;
        // What is executed cannot be written to.
        let other = "#!/bin/sh\nexit 0\n";
        for _ in 0..1000 {
            if std::fs::write(&copy, other).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), other);
        let spec = bench.spec("after", "exit 3");
        let error = bench.launcher.describe(&spec).await.unwrap_err();
        assert!(
            matches!(&error, LaunchError::Spawn { path, .. } if *path == copy),
            "{error:?}"
        );
        assert!(!spec.spool.exists());
    }

    #[tokio::test]
    async fn cancel_ends_it_and_the_events_go_on_to_the_last() {
        let Some(bench) = bench() else { return };
        let mut operation = bench
            .start(&bench.spec("cancel", "echo up; sleep 30"))
            .await;
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
        drop(bench.start(&spec).await);
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
            events.iter().filter(|e| **e == Event::Spooled).count(),
            1,
            "{events:?}"
        );
        let ends = sluice_shim::kept::ends(&spec.spool).unwrap();
        assert_eq!(ends.stdout.written, 8);
    }

    #[tokio::test]
    async fn a_killed_shim_is_an_interruption_and_no_outcome() {
        let Some(bench) = bench() else { return };
        let spec = bench.spec("killed", "echo up; sleep 30");
        let mut operation = bench.start(&spec).await;
        while !matches!(operation.next().await.unwrap(), Some(Event::Output { .. })) {}
        operation.shim.signal(Signal::SIGKILL).unwrap();
        let end = loop {
            match operation.next().await {
                // What it wrote is there to be read.
                Ok(Some(Event::Spooled)) => {}
                end => break end,
            }
        };
        assert!(
            matches!(&end, Err(FollowError::Interrupted { notes }) if notes.is_empty()),
            "{end:?}"
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
        let mut late = bench.start(&spec).await;
        let events = all(&mut late).await;
        assert!(
            matches!(
                events.as_slice(),
                [Event::Prepared(_), Event::Failed { .. }]
            ),
            "{events:?}"
        );
    }

    /// What is in the directories of spools and workspaces, as soon as nothing changes it any more.
    async fn left(bench: &Bench, spec: &Spec) -> Vec<PathBuf> {
        let entries = |path: &Path| {
            let read = std::fs::read_dir(path);
            let paths = read
                .into_iter()
                .flatten()
                .map(|entry| entry.unwrap().path());
            paths.collect::<Vec<_>>()
        };
        let mut found = Vec::new();
        for _ in 0..500 {
            found = entries(bench.directory.path());
            found.retain(|path| *path != spec.workspace_base);
            found.extend(entries(&spec.workspace_base));
            if found.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        found
    }

    #[tokio::test]
    async fn what_is_described_and_not_let_go_starts_nothing_and_leaves_nothing() {
        let Some(bench) = bench() else { return };
        for spare in [true, false] {
            if spare {
                bench.prepare_spare().await;
            }
            let ran = bench.directory.path().join("ran");
            let spec = bench.spec("unwanted", &format!("touch {}", ran.display()));
            drop(bench.launcher.describe(&spec).await.unwrap());
            assert_eq!(left(&bench, &spec).await, Vec::<PathBuf>::new());
        }
    }

    #[tokio::test]
    async fn a_shim_that_is_killed_before_the_word_is_replaced_and_the_script_runs_once() {
        let Some(bench) = bench() else { return };
        let ran = bench.directory.path().join("ran");
        let spec = bench.spec("replaced", &format!("echo x >> {}", ran.display()));
        let waiting = bench.launcher.describe(&spec).await.unwrap();
        kill_shim(&waiting.shim).await;
        let mut operation = waiting.go().await.unwrap();
        let events = all(&mut operation).await;
        assert_eq!(end_of(events.last()), Some(End::Code(0)), "{events:?}");
        assert_eq!(std::fs::read_to_string(ran).unwrap(), "x\n");
    }

    #[tokio::test]
    async fn a_shim_that_is_killed_with_the_word_unread_has_started_nothing_and_is_cleaned_up_after()
     {
        let Some(bench) = bench() else { return };
        let spec = bench.spec("unread", "echo ran");
        let waiting = bench.launcher.describe(&spec).await.unwrap();
        // Once it is stopped it reads no more; the word is in the pipe when it dies.
        eventually_prepared(&bench).await;
        waiting.shim.signal(Signal::SIGSTOP).unwrap();
        let mut operation = waiting.go().await.unwrap();
        operation.shim.signal(Signal::SIGKILL).unwrap();
        let events = all(&mut operation).await;
        assert!(
            matches!(events.last(), Some(Event::Failed { .. })),
            "{events:?}"
        );
        assert!(spec.spool.exists(), "it was given up");
        std::fs::remove_dir_all(&spec.spool).unwrap();
        assert_eq!(left(&bench, &spec).await, Vec::<PathBuf>::new());
    }

    async fn eventually_prepared(bench: &Bench) {
        let prepared = || {
            std::fs::read_dir(bench.directory.path())
                .unwrap()
                .flat_map(|entry| {
                    let mut file = sluice_shim::spool::events(&entry.unwrap().path());
                    std::iter::from_fn(move || file.next_event().ok().flatten())
                })
                .any(|event| matches!(event, Event::Prepared(_)))
        };
        for _ in 0..1000 {
            if prepared() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("no shim made anything ready");
    }
}
