//! A host process.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::clock::Clock;
use crate::last_call::LastCall;
use crate::places::{binaries, supervised};

/// A running `sluice-host serve`.
#[derive(Debug)]
pub struct Host {
    process: Child,
    data: PathBuf,
    /// Where a test moves it; the system's otherwise.
    clock: Option<Clock>,
    /// Where agents connect.
    pub agents: String,
    /// Where operators connect.
    pub api: String,
}

/// Sets a host up in `data` and returns the first operator token.
///
/// # Panics
///
/// Where `sluice-host init` fails.
#[must_use]
pub(crate) fn init(data: &Path) -> String {
    let output = Command::new(binaries().join("sluice-host"))
        .arg("init")
        .arg("--data")
        .arg(data)
        .output();
    let output = output.expect("sluice-host was built");
    assert!(
        output.status.success(),
        "init failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("the token is text")
        .trim()
        .to_owned()
}

impl Host {
    /// Starts a host on free ports of the loopback address.
    ///
    /// # Panics
    ///
    /// Where it does not say that it is ready.
    #[must_use]
    pub fn start(data: &Path) -> Self {
        Self::start_by(data, None)
    }

    /// The same by this clock, or by the system's.
    pub(crate) fn start_by(data: &Path, clock: Option<Clock>) -> Self {
        Self::start_at(data, "127.0.0.1:0", "127.0.0.1:0", clock)
    }

    fn start_at(data: &Path, agents: &str, api: &str, clock: Option<Clock>) -> Self {
        Self::start_with(data, agents, api, clock, "").unwrap_or_else(|said| {
            let log = std::fs::read_to_string(data.with_extension("log")).unwrap_or_default();
            panic!("the host is not ready: {said:?}\n{log}");
        })
    }

    /// Ends the process without warning, and starts it again on the same addresses so that it ends at this call. Whether it
    /// came to be ready before.
    #[must_use]
    pub fn kill_and_restart_until(&mut self, call: LastCall) -> bool {
        self.kill();
        let (agents, api) = self.addresses();
        let (clock, calls) = (self.clock.take(), call.commands());
        let started = Self::start_with(&self.data, &agents, &api, clock, &calls);
        started.map(|host| *self = host).is_ok()
    }

    /// Says what it said instead of being ready.
    fn start_with(
        data: &Path,
        agents: &str,
        api: &str,
        mut clock: Option<Clock>,
        commands: &str,
    ) -> Result<Self, String> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(data.with_extension("log"))
            .expect("opens a log");
        let mut command = match &clock {
            Some(clock) => {
                let mut command = supervised(&binaries().join("sluice-test-host"), commands);
                command.arg(clock.now()).arg(data).args([agents, api]);
                command
            }
            None => {
                let mut command = supervised(&binaries().join("sluice-host"), commands);
                command.args(["serve", "--data"]).arg(data);
                command.args(["--agents", agents, "--api", api]);
                command
            }
        };
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the host was built");
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().expect("is piped"));
        output.read_line(&mut line).expect("reads");
        let value = |key: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(key))
                .map(str::to_owned)
        };
        let (Some(agents), Some(api)) = (value("agents="), value("api=")) else {
            let _ = process.kill();
            let _ = process.wait();
            return Err(line);
        };
        if let Some(clock) = &mut clock {
            clock.moves(process.stdin.take().expect("is piped"), output);
        }
        Ok(Self {
            process,
            data: data.to_owned(),
            clock,
            agents,
            api,
        })
    }

    /// Ends the process without warning, and starts it again on the same addresses.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        let (agents, api) = self.addresses();
        let clock = self.clock.take();
        *self = Self::start_at(&self.data, &agents, &api, clock);
    }

    fn addresses(&self) -> (String, String) {
        let api = self.api.trim_start_matches("http://");
        (self.agents.clone(), api.to_owned())
    }

    /// Whether it has ended by itself.
    ///
    /// # Panics
    ///
    /// Where that cannot be found out.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("waits").is_some()
    }

    /// Ends the process without warning.
    ///
    /// # Panics
    ///
    /// Where it cannot be waited for.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        self.process.wait().expect("waits");
        if let Some(clock) = &mut self.clock {
            clock.is_alone();
        }
    }

    /// Its clock.
    ///
    /// # Panics
    ///
    /// Where it goes by the system's.
    pub const fn clock(&mut self) -> &mut Clock {
        self.clock.as_mut().expect("the test moves its clock")
    }

    /// The host's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The host's folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What the host logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
