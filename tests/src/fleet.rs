//! A host, its machines, and the command line.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::agent::{Agent, Machine};
use crate::clock::Clock;
use crate::eventually::{eventually, eventually_or};
use crate::host::{Host, init};
use crate::places::binaries;
use crate::script::{Outcome, Script};
use crate::template::{ROSTER, copy, crowd_template, prepare, template};

/// A fleet of real processes. They end with it.
#[derive(Debug)]
pub struct Fleet {
    /// The agents, by the order of their machines `m1`, `m2` ...
    pub agents: Vec<Agent>,
    /// The host.
    pub host: Host,
    /// The first operator's token.
    pub token: String,
    folder: tempfile::TempDir,
}

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub struct Builder {
    agents: usize,
    gates: bool,
    crowd: Option<usize>,
    policy: String,
    clock: Option<String>,
}

/// What a command said.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// Everything on stdout.
    pub stdout: String,
    /// Everything on stderr.
    pub stderr: String,
}

impl Builder {
    /// How many machines.
    #[must_use]
    pub const fn agents(mut self, count: usize) -> Self {
        self.agents = count;
        self
    }

    /// A host without plugins.
    #[must_use]
    pub const fn without_gates(mut self) -> Self {
        self.gates = false;
        self
    }

    /// A host without plugins that so many simulated machines have joined; [`crate::fake::Crowd::of`] connects them.
    #[must_use]
    pub const fn crowd(mut self, count: usize) -> Self {
        self.agents = 0;
        self.crowd = Some(count);
        self
    }

    /// `agent.toml` of every machine, without `script_tempdir`.
    #[must_use]
    pub fn policy(mut self, policy: &str) -> Self {
        policy.clone_into(&mut self.policy);
        self
    }

    /// A host whose clock shows this (RFC 3339 with an offset) and stands still, until the test moves it
    /// ([`Host::clock`]). Agents go by the system's, and let expire what is before that.
    #[must_use]
    pub fn clock(mut self, time: &str) -> Self {
        self.clock = Some(time.to_owned());
        self
    }

    /// Starts everything and waits until every machine is connected.
    ///
    /// # Panics
    ///
    /// Where something does not start.
    #[must_use]
    pub fn start(self) -> Fleet {
        let folder = tempfile::tempdir().expect("makes a folder");
        // Scripts run below it as users of their own.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))
            .expect("changes the mode");
        let data = folder.path().join("host");
        let template = match self.crowd {
            Some(count) => Some(crowd_template(count)),
            None => self.gates.then(template),
        };
        let token = if let Some(template) = template {
            copy(&template.join("host"), &data);
            if self.crowd.is_some() {
                copy(&template.join(ROSTER), &folder.path().join(ROSTER));
            }
            fs::read_to_string(template.join("token")).expect("reads")
        } else {
            init(&data)
        };
        let clock = self.clock.as_deref().map(Clock::at);
        let host = Host::start_by(&data, clock);
        let mut fleet = Fleet {
            agents: Vec::new(),
            host,
            token,
            folder,
        };
        for number in 1..=self.agents {
            fleet.add_machine(&format!("m{number}"), &self.policy);
        }
        fleet
    }
}

impl Fleet {
    /// One machine with the shipped gates, unless something else is said.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            agents: 1,
            gates: true,
            crowd: None,
            policy: String::new(),
            clock: None,
        }
    }

    /// Enrolls and starts another machine.
    pub fn add_machine(&mut self, name: &str, policy: &str) {
        let machine = self.machine(name, policy);
        self.agents
            .push(connect(&self.host.api, &self.token, &machine));
    }

    /// The same with a token of this operator, in their tenant.
    pub fn add_machine_of(&mut self, operator: &str, name: &str, policy: &str) {
        let machine = self.machine(name, policy);
        self.agents
            .push(connect(&self.host.api, operator, &machine));
    }

    /// A machine's folder, with the gates compiled, and nothing enrolled.
    ///
    /// # Panics
    ///
    /// Where the folder cannot be written.
    #[must_use]
    pub fn machine(&self, name: &str, policy: &str) -> Machine {
        prepare(self.folder.path(), name, policy)
    }

    /// Where the simulated machines stand that it was made with.
    pub(crate) fn roster(&self) -> PathBuf {
        self.folder.path().join(ROSTER)
    }

    /// The fleet's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `sluice`, as the first operator.
    #[must_use]
    pub fn command(&self) -> Command {
        sluice(&self.host.api, &self.token)
    }

    /// Runs `sluice` with these arguments.
    ///
    /// # Panics
    ///
    /// Where it was not built.
    #[must_use]
    pub fn sluice(&self, arguments: &[&str]) -> Output {
        Output::of(
            &self
                .command()
                .args(arguments)
                .output()
                .expect("sluice was built"),
        )
    }

    /// What `sluice <arguments> --json` lists, one object a line.
    ///
    /// # Panics
    ///
    /// Where it fails, or prints something else.
    #[must_use]
    pub fn list(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.sluice(&[arguments, &["--json"]].concat());
        assert_eq!(output.code, 0, "{output:?}");
        output
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("is JSON"))
            .collect()
    }

    /// Runs a script on the first machine, or on the one it names, and waits.
    #[must_use]
    pub fn run(&self, script: &Script) -> Outcome {
        let machine = script.machine.clone().unwrap_or_else(|| "m1".to_owned());
        run_on(
            &self.host.api,
            &self.token,
            &machine,
            script,
            self.folder.path(),
        )
    }
}

impl Fleet {
    /// `sluice run` as a person at a terminal has it, on these machines: live output, then an outcome line for each.
    ///
    /// # Panics
    ///
    /// Where `sluice` was not built.
    #[must_use]
    pub fn watch(&self, script: &Script, machines: &[&str]) -> Output {
        let file = tempfile::NamedTempFile::new_in(self.folder.path()).expect("makes a file");
        fs::write(file.path(), &script.bytes).expect("writes the script");
        let on = machines.iter().flat_map(|machine| ["--on", machine]);
        let output = self
            .command()
            .arg("run")
            .arg(file.path())
            .args(on)
            .args(&script.arguments)
            .output();
        output
            .map(|output| Output::of(&output))
            .expect("sluice was built")
    }

    /// Submits a script to the first machine, or to the one it names, without waiting, and returns the job's id.
    ///
    /// # Panics
    ///
    /// Where it is refused.
    #[must_use]
    pub fn detach(&self, script: &Script) -> String {
        let machine = script.machine.clone().unwrap_or_else(|| "m1".to_owned());
        let output = self.watch(&script.clone().flag("--detach"), &[machine.as_str()]);
        assert_eq!(output.code, 0, "{output:?}");
        output.stdout.trim().to_owned()
    }

    /// The first operation of a job as it is now.
    ///
    /// # Panics
    ///
    /// Where there is no such job.
    #[must_use]
    pub fn show(&self, job: &str) -> Outcome {
        let json = self.list(&["job", "show", job]).swap_remove(0);
        Outcome {
            code: 0,
            json,
            stderr: String::new(),
        }
    }

    /// The same; none where the host does not answer.
    ///
    /// # Panics
    ///
    /// Where it answers something else.
    #[must_use]
    pub fn try_show(&self, job: &str) -> Option<Outcome> {
        let output = self.sluice(&["job", "show", job, "--json"]);
        let line = output.stdout.lines().next().filter(|_| output.code == 0)?;
        Some(Outcome {
            code: 0,
            json: serde_json::from_str(line).expect("is JSON"),
            stderr: String::new(),
        })
    }

    /// Waits until a job's first operation is in this state.
    ///
    /// # Panics
    ///
    /// Where it does not get there within 30 s.
    pub fn until(&self, job: &str, state: &str) -> Outcome {
        eventually(&format!("{job} is {state}"), || {
            Some(self.show(job)).filter(|shown| shown.text("state") == state)
        })
    }

    /// A token with these permissions and no others.
    ///
    /// # Panics
    ///
    /// Where it cannot be made.
    #[must_use]
    pub fn token_with(&self, name: &str, permissions: &[&str]) -> String {
        let wanted = permissions
            .iter()
            .flat_map(|permission| ["--permission", permission]);
        let output = self.sluice(
            &["token", "create", name]
                .into_iter()
                .chain(wanted)
                .collect::<Vec<_>>(),
        );
        assert_eq!(output.code, 0, "{output:?}");
        output.stdout.trim().to_owned()
    }

    /// The names of the events in the audit log, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        let entries = self.list(&["audit", "list"]);
        entries
            .iter()
            .map(|entry| entry["event"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

impl Output {
    /// What a process that has ended said.
    #[must_use]
    pub fn of(output: &std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `sluice` itself said no: exit code 125, one line on stderr, and nothing on stdout.
    ///
    /// # Panics
    ///
    /// Where it said anything else.
    pub fn expect_refused(&self) {
        assert_eq!(
            (self.code, self.stdout.as_str(), self.stderr.lines().count()),
            (125, "", 1),
            "{self:?}"
        );
    }
}

/// A token with which so many machines may enroll.
pub(crate) fn enroll_token(api: &str, token: &str, uses: usize) -> String {
    let output = sluice(api, token)
        .args(["machine", "enroll-token", "--uses", &uses.to_string()])
        .output()
        .expect("sluice was built");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Enrolls a machine, starts its agent, and waits until it is connected.
pub(crate) fn connect(api: &str, token: &str, machine: &Machine) -> Agent {
    let enrolled = machine.enroll(&enroll_token(api, token, 1));
    assert!(
        enrolled.status.success(),
        "{}",
        String::from_utf8_lossy(&enrolled.stderr)
    );
    let agent = machine.start();
    let connected = || {
        let output = sluice(api, token)
            .args(["machine", "show", &machine.name, "--json"])
            .output()
            .ok()?;
        let shown: Value = serde_json::from_slice(&output.stdout).ok()?;
        shown["connected"].as_bool().filter(|connected| *connected)
    };
    eventually_or(&format!("{} is connected", machine.name), connected, || {
        machine.log()
    });
    agent
}

pub(crate) fn sluice(api: &str, token: &str) -> Command {
    let mut command = Command::new(binaries().join("sluice"));
    command
        .env("SLUICE_HOST", api)
        .env("SLUICE_TOKEN", token)
        .env("HOME", "/nonexistent");
    command
}

pub(crate) fn run_on(
    api: &str,
    token: &str,
    machine: &str,
    script: &Script,
    folder: &Path,
) -> Outcome {
    let file = tempfile::NamedTempFile::new_in(folder).expect("makes a file");
    fs::write(file.path(), &script.bytes).expect("writes the script");
    let mut command = sluice(api, token);
    command
        .arg("run")
        .arg(file.path())
        .args(["--on", machine, "--json"])
        .args(&script.arguments);
    let output = command.output().expect("sluice was built");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        json: serde_json::from_str(stdout.trim()).unwrap_or(Value::Null),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
