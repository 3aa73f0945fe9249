//! A host process.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::last_call::LastCall;
use crate::places::{binaries, supervised};

/// A running `sluice-host serve`.
#[derive(Debug)]
pub struct Host {
    process: Child,
    data: PathBuf,
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
        Self::start_at(data, "127.0.0.1:0", "127.0.0.1:0")
    }

    /// Starts a host on these addresses.
    ///
    /// # Panics
    ///
    /// Where it does not say that it is ready.
    #[must_use]
    pub fn start_at(data: &Path, agents: &str, api: &str) -> Self {
        Self::start_with(data, agents, api, "").unwrap_or_else(|said| {
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
        let started = Self::start_with(&self.data, &agents, &api, &call.commands());
        started.map(|host| *self = host).is_ok()
    }

    /// Says what it said instead of being ready.
    fn start_with(data: &Path, agents: &str, api: &str, commands: &str) -> Result<Self, String> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(data.with_extension("log"))
            .expect("opens a log");
        let mut process = supervised(&binaries().join("sluice-host"), commands)
            .arg("serve")
            .arg("--data")
            .arg(data)
            .args(["--agents", agents, "--api", api])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("sluice-host was built");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("is piped"))
            .read_line(&mut line)
            .expect("reads");
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
        Ok(Self {
            process,
            data: data.to_owned(),
            agents,
            api,
        })
    }

    /// Ends the process without warning, and starts it again on the same addresses.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        let (agents, api) = self.addresses();
        *self = Self::start_at(&self.data, &agents, &api);
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
