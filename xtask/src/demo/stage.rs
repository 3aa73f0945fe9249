//! The stage: a host, an agent and the command line, in a temporary folder.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::processes::descendants;
use crate::plugins::NAMES;
use crate::steps::{headline, target};

/// Everything that was started. It ends with this.
pub(super) struct Stage {
    // The order matters: the agent ends before the host, the folder goes last.
    agent: Running,
    host: Running,
    api: String,
    token: String,
    folder: tempfile::TempDir,
}

/// A process that ends when this is dropped.
struct Running(Child);

impl Running {
    /// Ends it as an init system does.
    fn stop(&mut self, name: &str) -> Result<()> {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM)?;
        let status = eventually(&format!("{name} ends after SIGTERM"), || {
            Ok(self.0.try_wait()?)
        })?;
        ensure!(status.success(), "{name} ended with {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `sluice run --json` said.
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) json: Value,
}

const MACHINE: &str = "demo";

impl Stage {
    pub(super) fn set_up(gates: &Path) -> Result<Self> {
        // Whatever is left in the end is found among our children.
        set_child_subreaper(true)?;
        let folder = tempfile::Builder::new().prefix("sluice-demo-").tempdir()?;
        // Scripts run below it as users of their own.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        let data = folder.path().join("host");

        headline("A host with a database of its own");
        let token = output(
            Command::new(binary("sluice-host"))
                .arg("init")
                .arg("--data")
                .arg(&data),
        )?;
        let mut serve = Command::new(binary("sluice-host"));
        serve.arg("serve").arg("--data").arg(&data).args([
            "--agents",
            "127.0.0.1:0",
            "--api",
            "127.0.0.1:0",
        ]);
        let log = fs::File::create(folder.path().join("host.log"))?;
        let mut host = Running(serve.stdout(Stdio::piped()).stderr(log).spawn()?);
        let mut ready = String::new();
        BufReader::new(host.0.stdout.take().context("no output")?).read_line(&mut ready)?;
        print!("   {ready}");
        let api = ready
            .split_whitespace()
            .find_map(|word| word.strip_prefix("api="))
            .context("the host is not ready")?
            .to_owned();
        let sluice = |arguments: &[&str]| output(command(&api, &token).args(arguments));

        headline("Four gates: trusted by their publisher's key, installed, bound");
        let publisher = fs::read_to_string(gates.join("publisher.pub"))?;
        println!("   {}", sluice(&["plugin", "trust", publisher.trim()])?);
        for name in NAMES {
            let digest = sluice(&[
                "plugin",
                "install",
                &gates.join(format!("{name}.wasm")).to_string_lossy(),
            ])?;
            sluice(&["plugin", "bind", &digest])?;
            println!("   {name:<12} sha256:{digest}");
        }

        headline("A machine, enrolled with a one-time token");
        let (state, workspace) = (folder.path().join("agent"), folder.path().join("run"));
        let enroll_token = sluice(&["machine", "enroll-token"])?;
        let mut enroll = Command::new(binary("sluice-agent"));
        enroll
            .args(["enroll", "-", "--name", MACHINE, "--state"])
            .arg(&state);
        println!("   {}", with_input(&mut enroll, &enroll_token)?);
        fs::create_dir(&workspace)?;
        let config = folder.path().join("agent.toml");
        fs::write(
            &config,
            format!("script_tempdir = {workspace:?}\n[limits]\ngrace = \"200ms\"\n"),
        )?;
        let mut run = Command::new(binary("sluice-agent"));
        run.arg("run")
            .arg("--state")
            .arg(&state)
            .arg("--config")
            .arg(&config);
        let agent = Running(
            run.stderr(fs::File::create(folder.path().join("agent.log"))?)
                .spawn()?,
        );
        let stage = Self {
            agent,
            host,
            api,
            token,
            folder,
        };
        stage.wait_for_machine()?;
        Ok(stage)
    }

    fn wait_for_machine(&self) -> Result<()> {
        let log = self.folder.path().join("agent.log");
        eventually(
            &format!("the agent connects; see {}", log.display()),
            || {
                let shown = self.sluice(&["machine", "show", MACHINE, "--json"])?;
                let shown: Value = serde_json::from_str(&shown)?;
                Ok((shown["connected"] == true).then_some(()))
            },
        )?;
        println!("   {MACHINE} is connected");
        Ok(())
    }

    /// Runs a script through `sluice run --json`.
    pub(super) fn run(&self, script: &str, arguments: &[&str]) -> Result<Ran> {
        println!(
            "   $ sluice run script --on {MACHINE} {}",
            arguments.join(" ")
        );
        let mut command = command(&self.api, &self.token);
        command
            .args(["run", "-", "--on", MACHINE, "--json"])
            .args(arguments);
        let output = fed(&mut command, script)?;
        let text = String::from_utf8(output.stdout)?;
        let json = serde_json::from_str(text.trim()).with_context(|| {
            format!(
                "sluice run printed {text:?} and {:?}",
                String::from_utf8_lossy(&output.stderr)
            )
        })?;
        Ok(Ran {
            code: output.status.code().unwrap_or(-1),
            json,
        })
    }

    /// The audit trail, and the check of its chain on both sides.
    pub(super) fn show_record(&self) -> Result<()> {
        headline("The record: every attempt, verdict, start and end");
        let entries = self.sluice(&["audit", "list", "--json"])?;
        let mut threats = 0;
        for line in entries.lines() {
            let entry: Value = serde_json::from_str(line)?;
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            threats += usize::from(text("event") == "script_security_threat");
            println!(
                "   {:>4} {:<24} {}",
                entry["seq"].to_string(),
                text("event"),
                text("machine")
            );
        }
        ensure!(
            threats == 1,
            "{threats} threats are on the record and not 1"
        );
        println!("   $ sluice audit verify");
        println!("   {}", self.sluice(&["audit", "verify"])?);
        let mut verify = Command::new(binary("sluice-agent"));
        verify
            .args(["audit", "verify", "--state"])
            .arg(self.folder.path().join("agent"));
        println!("   $ sluice-agent audit verify");
        println!("   {}", output(&mut verify)?);
        Ok(())
    }

    /// Leaves everything running until Enter is pressed or input ends.
    pub(super) fn stay(&self) -> Result<()> {
        println!("Host and agent are running. In another terminal:\n");
        println!(
            "  export SLUICE_HOST={} SLUICE_TOKEN={}",
            self.api, self.token
        );
        println!("  export PATH={}:$PATH\n", binary("").display());
        for example in [
            "machine list",
            "run SCRIPT --on demo",
            "job list",
            "audit list",
            "plugin list",
            "doctor",
        ] {
            println!("  sluice {example}");
        }
        println!("\nPress Enter to stop.");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        let _running = (&self.agent, &self.host);
        Ok(())
    }

    /// Stops agent and host, and looks for what they and the scripts left behind: processes, and files where scripts run.
    pub(super) fn stop(mut self) -> Result<()> {
        self.agent.stop("the agent")?;
        self.host.stop("the host")?;
        let ended = eventually("every process that was started ends", || {
            Ok(descendants()?.is_empty().then_some(()))
        });
        ended.with_context(|| format!("left behind: {:?}", descendants()))?;
        let files: Vec<_> = fs::read_dir(self.folder.path().join("run"))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        ensure!(files.is_empty(), "scripts left files behind: {files:?}");
        Ok(())
    }

    fn sluice(&self, arguments: &[&str]) -> Result<String> {
        output(command(&self.api, &self.token).args(arguments))
    }
}

impl Ran {
    pub(super) fn text(&self, key: &str) -> String {
        self.json[key].as_str().unwrap_or_default().to_owned()
    }

    pub(super) fn show(&self) {
        for stream in ["stdout", "stderr"] {
            self.text(stream)
                .lines()
                .for_each(|line| println!("   {stream}: {line}"));
        }
        println!("   {}: {}", self.text("state"), self.text("message"));
        for finding in self.json["findings"].as_array().into_iter().flatten() {
            let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            println!(
                "   finding: {} {} in {} line {}: {}",
                text("severity"),
                text("rule"),
                text("subject"),
                finding["line"],
                text("message")
            );
        }
    }
}

/// Asks again and again until there is an answer.
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("waited 30 s in vain until {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn binary(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

fn command(api: &str, token: &str) -> Command {
    let mut command = Command::new(binary("sluice"));
    command.env("SLUICE_HOST", api).env("SLUICE_TOKEN", token);
    command
}

/// What a command prints; an error with what it says where it fails.
fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{}", command.get_program().display()))?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    } else {
        bail!(
            "{}: {}",
            command.get_program().display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )
    }
}

/// Runs a command to its end with this on its standard input.
fn fed(command: &mut Command, input: &str) -> Result<std::process::Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    std::io::Write::write_all(
        &mut child.stdin.take().context("no input")?,
        input.as_bytes(),
    )?;
    Ok(child.wait_with_output()?)
}

fn with_input(command: &mut Command, input: &str) -> Result<String> {
    let output = fed(command, input)?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
