//! A host process.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(data.with_extension("log"))
            .expect("opens a log");
        let mut process = supervised(&binaries().join("sluice-host"), "")
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
            let log = std::fs::read_to_string(data.with_extension("log")).unwrap_or_default();
            panic!("the host is not ready: {line:?}\n{log}");
        };
        Self {
            process,
            data: data.to_owned(),
            agents,
            api,
        }
    }

    /// Ends the process without warning, and starts it again on the same addresses.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        *self = Self::start_at(
            &self.data,
            &self.agents.clone(),
            self.api.trim_start_matches("http://"),
        );
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
