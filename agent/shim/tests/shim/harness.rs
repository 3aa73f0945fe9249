//! Starts a shim on a script and collects what it reports.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};
use serde_bytes::ByteBuf;
use sha2::{Digest as _, Sha256};
use sluice_shim::event::{Ends, Event, Outcome, Stage, Started, Stream};
use sluice_shim::frame::Decoder;
use sluice_shim::kept::{Found, Piece, Reader};
use sluice_shim::order;
use sluice_shim::spec::{
    Attachments, Content, Limits, Opened, Profile, Script, Spec, User, Variable,
};

/// A directory for spools and workspaces, passable by everyone as the agent's is.
pub(crate) struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o711)).unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn workspaces(&self) -> PathBuf {
        self.path().join("run")
    }

    /// What output and events take in the spool.
    pub(crate) fn spooled_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(self.path().join("spool")).unwrap();
        let files = entries.map(|entry| entry.unwrap());
        files
            .filter(|file| file.file_name() != "lock")
            .map(|file| file.metadata().unwrap().len())
            .sum()
    }

    /// A spec for a bash script that runs as whoever runs the test.
    pub(crate) fn script(&self, text: &str) -> Spec {
        let operation = format!(
            "test-{}",
            self.path()
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .trim_start_matches('.')
        );
        Spec {
            spool: self.path().join("spool"),
            operation,
            workspace_base: self.workspaces(),
            interpreter: "/bin/bash".into(),
            flags: vec![],
            script: Script {
                name: "script".into(),
                bytes: ByteBuf::from(text.as_bytes().to_vec()),
            },
            arguments: vec![],
            environment: vec![Variable {
                name: "PATH".into(),
                value: "/usr/local/bin:/usr/bin:/bin".into(),
            }],
            user: User::Named {
                name: "me".into(),
                uid: Uid::effective().as_raw(),
                gid: Gid::effective().as_raw(),
                groups: vec![Gid::effective().as_raw()],
                home: "/".into(),
            },
            attachments: Attachments::default(),
            secrets: vec![],
            limits: Limits {
                time: Duration::from_secs(20),
                grace: Duration::from_millis(200),
                output: 1024 * 1024,
                memory: None,
                processes: None,
                cpu_percent: None,
                file_size: None,
                open_files: None,
            },
            no_new_privs: true,
            profile: Profile::None,
            opened: Opened::default(),
            hidden: vec![],
        }
    }

    pub(crate) fn ephemeral(&self, text: &str) -> Spec {
        Spec {
            user: User::Ephemeral {
                locks: self.path().join("uids"),
            },
            ..self.script(text)
        }
    }

    pub(crate) fn run(&self, text: &str) -> Report {
        run(&self.script(text))
    }
}

/// The file `blob` of a machine's directory, as an attachment.
pub(crate) fn blob(machine: &Machine) -> Content {
    let path = machine.path().join("blob");
    let bytes = std::fs::read(&path).unwrap();
    Content::File {
        path,
        size: bytes.len() as u64,
        sha256: Sha256::digest(&bytes).into(),
    }
}

pub(crate) fn nobody() -> User {
    let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    User::Named {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: vec![1, user.gid.as_raw()],
        home: "/".into(),
    }
}

/// Says why a test is left out when it is.
pub(crate) fn root(test: &str) -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("LEFT OUT: {test} needs root");
    }
    root
}

/// Says why a test is left out when a program is not there.
pub(crate) fn installed(program: &str) -> bool {
    let there = Path::new(program).exists();
    if !there {
        eprintln!("LEFT OUT: {program} is not installed");
    }
    there
}

/// How often something is repeated: so many times, and `SLUICE_ROUNDS` times as often where that is set.
pub(crate) fn rounds(usual: usize) -> usize {
    let times = std::env::var("SLUICE_ROUNDS").map_or(1, |times| times.parse().unwrap());
    usual * times
}

/// What the machine's cgroups look like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cgroups {
    /// One unified hierarchy, and nothing else.
    Unified,
    /// None at all.
    Missing,
}

/// Runs a test where the cgroups look like this to itself and to all that it starts. Says where that cannot be had.
pub(crate) fn where_cgroups_are(cgroups: Cgroups, test: impl FnOnce() + Send) {
    if !root("mounting cgroups") {
        return;
    }
    // Mounts are a thread's own, and end with it and its children.
    std::thread::scope(|scope| {
        let run = scope.spawn(move || {
            let none: Option<&str> = None;
            let kind = match cgroups {
                Cgroups::Unified => "cgroup2",
                Cgroups::Missing => "tmpfs",
            };
            let mounted = unshare(CloneFlags::CLONE_NEWNS)
                .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
                .and_then(|()| mount(none, CGROUP, Some(kind), MsFlags::empty(), none));
            match mounted {
                Ok(()) => test(),
                Err(errno) => eprintln!("LEFT OUT: {kind} cannot be mounted here: {errno}"),
            }
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

pub(crate) const CGROUP: &str = "/sys/fs/cgroup";

/// A group of the test's own in the hierarchy that is mounted there; removed with all in it.
pub(crate) struct Group(pub(crate) PathBuf);

impl Group {
    pub(crate) fn make(name: &str) -> Self {
        let group = Path::new(CGROUP).join(format!("sluice-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        Self(group)
    }

    /// As processes in it see its path.
    pub(crate) fn name(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().to_str().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _older_kernels = std::fs::write(self.0.join("cgroup.kill"), "1");
        let until = Instant::now() + Duration::from_secs(5);
        while self.0.exists() && Instant::now() < until {
            remove_groups(&self.0);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn remove_groups(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    let _not_empty_yet = std::fs::remove_dir(group);
}

pub(crate) fn spawn(spec: &Spec) -> Child {
    started(&mut Command::new(env!("CARGO_BIN_EXE_sluice-shim")), spec)
}

/// Starts the shim from a shell, which can change what it inherits; `exec "$0"` becomes the shim.
pub(crate) fn spawn_from(shell: &str, spec: &Spec) -> Child {
    let mut bash = Command::new("/bin/bash");
    bash.args(["-c", shell, env!("CARGO_BIN_EXE_sluice-shim")]);
    started(&mut bash, spec)
}

/// A shim that has the description, and the pipe for the word to start.
pub(crate) fn describe(spec: &Spec) -> (Child, ChildStdin) {
    described(&mut Command::new(env!("CARGO_BIN_EXE_sluice-shim")), spec)
}

fn described(shim: &mut Command, spec: &Spec) -> (Child, ChildStdin) {
    let mut child = shim
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&order::describe(spec)).unwrap();
    (child, stdin)
}

fn started(shim: &mut Command, spec: &Spec) -> Child {
    let (child, mut word) = described(shim, spec);
    word.write_all(order::go()).unwrap();
    child
}

/// Runs it to its end, and reads what the spool has of its output.
pub(crate) fn run(spec: &Spec) -> Report {
    let mut report = collect(spawn(spec));
    if let Some(Event::Exited(outcome)) = report.events.last() {
        report.kept = Some(kept(&spec.spool, outcome.output));
    }
    report
}

/// The pieces of output that a spool keeps: those before and behind the gap of each stream.
fn kept(spool: &Path, ends: Ends) -> Vec<Piece> {
    let mut reader = Reader::new(spool);
    let mut pieces = Vec::new();
    loop {
        let piece = match reader.next_piece().unwrap() {
            Found::Piece(piece) => piece,
            Found::Gone => continue,
            Found::Nothing => return pieces,
        };
        let end = match piece.stream {
            Stream::Stdout => ends.stdout,
            Stream::Stderr => ends.stderr,
        };
        let bytes = (piece.at..)
            .zip(&piece.bytes)
            .filter(|(at, _)| *at < end.head || *at >= end.head + end.lost)
            .map(|(_, byte)| *byte)
            .collect();
        pieces.push(Piece { bytes, ..piece });
    }
}

/// The events of a spool so far.
pub(crate) fn spooled(spool: &Path) -> Vec<Event> {
    let mut file = sluice_shim::spool::events(spool);
    std::iter::from_fn(|| file.next_event().unwrap()).collect()
}

pub(crate) fn collect(mut child: Child) -> Report {
    let mut bytes = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    assert!(child.wait().unwrap().success());
    Report::read(&bytes)
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Living processes with this text in their command line.
pub(crate) fn processes_with(text: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(text) {
            found.push(pid);
        }
    }
    found
}

#[derive(Debug)]
pub(crate) struct Report {
    /// As they were told live.
    pub(crate) events: Vec<Event>,
    /// From the spool, where that was read.
    kept: Option<Vec<Piece>>,
}

impl Report {
    /// What a spool has of an operation that is not over.
    pub(crate) fn so_far(spool: &Path) -> Self {
        Self {
            events: spooled(spool),
            kept: None,
        }
    }

    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        let events: Vec<Event> = std::iter::from_fn(|| decoder.next_event().unwrap()).collect();
        assert_eq!(
            events.iter().filter(|e| e.is_last()).count(),
            1,
            "{events:?}"
        );
        assert!(events.last().unwrap().is_last(), "{events:?}");
        Self { events, kept: None }
    }

    /// What a spool has of an operation that did not come to its end.
    pub(crate) fn of_spool(spool: &Path, ends: Ends) -> Self {
        Self {
            events: spooled(spool),
            kept: Some(kept(spool, ends)),
        }
    }

    pub(crate) fn outcome(&self) -> &Outcome {
        let Some(Event::Exited(outcome)) = self.events.last() else {
            panic!("did not run: {:?}", self.events)
        };
        outcome
    }

    pub(crate) fn failure(&self) -> (Stage, &str) {
        let Some(Event::Failed { stage, reason }) = self.events.last() else {
            panic!("did run: {:?}", self.events)
        };
        (*stage, reason)
    }

    pub(crate) fn started(&self) -> &Started {
        let started = self.events.iter().find_map(|e| {
            if let Event::Started(s) = e {
                Some(s)
            } else {
                None
            }
        });
        started.unwrap_or_else(|| panic!("did not start: {:?}", self.events))
    }

    /// The cgroups that were made for it.
    pub(crate) fn cgroups(&self) -> &[PathBuf] {
        let prepared = self.events.iter().find_map(|e| {
            if let Event::Prepared(prepared) = e {
                Some(prepared)
            } else {
                None
            }
        });
        &prepared.unwrap().cgroups
    }

    /// What is kept of a stream.
    pub(crate) fn bytes(&self, of: Stream) -> Vec<u8> {
        if let Some(kept) = &self.kept {
            let of = kept.iter().filter(|piece| piece.stream == of);
            return of.flat_map(|piece| piece.bytes.clone()).collect();
        }
        let output = |e: &Event| {
            if let Event::Output { stream, bytes, .. } = e {
                (*stream == of).then(|| bytes.to_vec())
            } else {
                None
            }
        };
        self.events.iter().filter_map(output).flatten().collect()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.bytes(Stream::Stdout)).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.bytes(Stream::Stderr)).unwrap()
    }

    pub(crate) fn notes(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|e| {
                if let Event::Note { text } = e {
                    Some(text.as_str())
                } else {
                    None
                }
            })
            .collect()
    }
}
