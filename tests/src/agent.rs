//! A machine with its agent.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually::eventually;
use crate::last_call::LastCall;
use crate::places::{binaries, supervised};

/// strace(1) on what makes files and folders.
pub const TRACE_WHAT_IS_MADE: [&str; 7] = [
    "/usr/bin/strace",
    "-f",
    "--seccomp-bpf",
    "-y",
    "-qq",
    "-e",
    "trace=openat,?open,?creat,?mkdir,mkdirat,?mknod,mknodat",
];

/// A machine's folder: state, configuration, and where scripts run.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The name it asked for.
    pub name: String,
    /// `--state`
    pub state: PathBuf,
    /// `--config`
    pub config: PathBuf,
    /// `script_tempdir`
    pub workspace: PathBuf,
    log: PathBuf,
}

impl Machine {
    /// Prepares the folder. `policy` is `agent.toml` without `script_tempdir`, which comes first.
    ///
    /// # Panics
    ///
    /// Where the folder cannot be written.
    #[must_use]
    pub fn prepare(root: &Path, name: &str, policy: &str) -> Self {
        let folder = root.join(name);
        let workspace = folder.join("run");
        std::fs::create_dir_all(&workspace).expect("makes a folder");
        let machine = Self {
            name: name.to_owned(),
            state: folder.join("state"),
            config: folder.join("agent.toml"),
            workspace,
            log: folder.join("agent.log"),
        };
        machine.configure(policy);
        machine
    }

    /// Writes `agent.toml`.
    ///
    /// # Panics
    ///
    /// Where it cannot be written.
    pub fn configure(&self, policy: &str) {
        let text = format!("script_tempdir = {:?}\n{policy}", self.workspace);
        std::fs::write(&self.config, text).expect("writes the configuration");
    }

    /// `sluice-agent enroll`
    ///
    /// # Panics
    ///
    /// Where the binary was not built.
    #[must_use]
    pub fn enroll(&self, token: &str) -> Output {
        let mut command = Command::new(binaries().join("sluice-agent"));
        command
            .args(["enroll", token, "--name", &self.name, "--state"])
            .arg(&self.state);
        command.output().expect("sluice-agent was built")
    }

    /// `sluice-agent run`
    ///
    /// # Panics
    ///
    /// Where the binary was not built.
    #[must_use]
    pub fn start(&self) -> Agent {
        self.start_with(&binaries(), "")
    }

    /// The same with the programs in another folder.
    ///
    /// # Panics
    ///
    /// Where they are not there.
    #[must_use]
    pub fn start_from(&self, programs: &Path) -> Agent {
        self.start_with(programs, "")
    }

    /// The same, in mounts of its own and after some commands of a shell: in another cgroup, or without any.
    ///
    /// # Panics
    ///
    /// Where the binary was not built.
    #[must_use]
    pub fn start_apart(&self, commands: &str) -> Agent {
        let apart =
            format!(r#"exec unshare --mount /bin/sh -ec '{commands}; exec "$0" "$@"' "$0" "$@""#);
        self.start_with(&binaries(), &apart)
    }

    /// The same, with every file and folder that it and its shims make written to `trace`, by strace(1).
    ///
    /// # Panics
    ///
    /// Where the binary was not built.
    #[must_use]
    pub fn start_traced(&self, trace: &Path) -> Agent {
        let words = TRACE_WHAT_IS_MADE.join(" ");
        // The tracer is a grandchild: the process that is started becomes the agent.
        let traced = format!("exec {words} -D -o {} \"$0\" \"$@\"", trace.display());
        self.start_with(&binaries(), &traced)
    }

    /// The same; it ends at this call, and so does each shim that gets there.
    ///
    /// # Panics
    ///
    /// Where the binary was not built.
    #[must_use]
    pub fn start_until(&self, call: LastCall) -> Agent {
        self.start_with(&binaries(), &call.commands())
    }

    fn start_with(&self, programs: &Path, commands: &str) -> Agent {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("opens a log");
        let mut command = supervised(&programs.join("sluice-agent"), commands);
        command
            .arg("run")
            .arg("--state")
            .arg(&self.state)
            .arg("--config")
            .arg(&self.config)
            .stderr(log);
        Agent {
            process: command.spawn().expect("sluice-agent was built"),
            machine: self.clone(),
        }
    }

    /// `sluice-agent audit <verb>`
    ///
    /// # Panics
    ///
    /// Where the binary was not built.
    #[must_use]
    pub fn audit(&self, verb: &str) -> Output {
        let mut command = Command::new(binaries().join("sluice-agent"));
        command
            .args(["audit", verb, "--state"])
            .arg(&self.state)
            .output()
            .expect("sluice-agent was built")
    }

    /// The events of the agent's own chain, oldest first.
    ///
    /// # Panics
    ///
    /// Where there is none yet.
    #[must_use]
    pub fn events(&self) -> Vec<serde_json::Value> {
        let listed = self.audit("list");
        assert!(
            listed.status.success(),
            "{}",
            String::from_utf8_lossy(&listed.stderr)
        );
        let text = String::from_utf8(listed.stdout).expect("is text");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("is JSON"))
            .collect()
    }

    /// Whether the agent ever started a script, by its own account.
    #[must_use]
    pub fn has_started_something(&self) -> bool {
        self.events()
            .iter()
            .any(|entry| entry["event"] == "script_started")
    }

    /// What the agent logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Everything that is in the folder where scripts run.
    ///
    /// # Panics
    ///
    /// Where it cannot be read.
    #[must_use]
    pub fn left_behind(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.workspace).expect("reads the folder");
        entries
            .map(|entry| entry.expect("reads the folder").path())
            .collect()
    }
}

/// A running `sluice-agent run`.
#[derive(Debug)]
pub struct Agent {
    process: Child,
    /// Where it runs.
    pub machine: Machine,
}

impl Agent {
    /// Ends the agent without warning. Its shims go on.
    ///
    /// # Panics
    ///
    /// Where it cannot be waited for.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        self.process.wait().expect("waits");
    }

    /// Ends the agent as an init system does, so that the host knows at once; one that has ended is left as it is. Its
    /// shims go on.
    ///
    /// # Panics
    ///
    /// Where it does not end.
    pub fn stop(&mut self) {
        if self.process.try_wait().expect("waits").is_none() {
            self.signal(Signal::SIGTERM);
        }
        self.ended();
    }

    /// Waits until it ends by itself, and returns its exit code.
    ///
    /// # Panics
    ///
    /// Where it does not.
    pub fn ended(&mut self) -> Option<i32> {
        eventually("the agent ends", || self.process.try_wait().expect("waits")).code()
    }

    /// Whether it has ended by itself.
    ///
    /// # Panics
    ///
    /// Where that cannot be found out.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("waits").is_some()
    }

    /// Starts a new agent where this one was.
    pub fn restart(&mut self) {
        self.kill();
        *self = self.machine.start();
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// Where it cannot be sent.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).expect("sends a signal");
    }

    /// The agent's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
