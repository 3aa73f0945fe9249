//! The job floor: what running a script as another user costs without Sluice.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// The script of all benches.
pub(crate) const SCRIPT: &str = "#!/bin/bash\necho hello\n";

/// What an agent hands on to scripts of its own environment.
const LOCALE: [&str; 3] = ["LANG", "LC_ALL", "LC_CTYPE"];

/// Temporary file, chown, bash as that user, captured output.
#[allow(
    clippy::disallowed_methods,
    reason = "the floor is a process that is started by hand"
)]
pub(crate) fn job_floor() -> Result<Duration> {
    let nobody = nix::unistd::User::from_name("nobody")?.context("there is no user nobody")?;
    let started = Instant::now();
    let mut file = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempfile()?;
    nix::unistd::fchown(&file, Some(nobody.uid), Some(nobody.gid))?;
    file.write_all(SCRIPT.as_bytes())?;
    let mut command = Command::new("/bin/bash");
    command
        .arg(file.path())
        .uid(nobody.uid.as_raw())
        .gid(nobody.gid.as_raw())
        .env_clear()
        // As an operation's script has it: a shell that knows a locale reads its files first.
        .envs(
            LOCALE
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .current_dir("/");
    let output = command.stdin(Stdio::null()).output()?;
    let elapsed = started.elapsed();
    ensure!(
        output.stdout == b"hello\n",
        "the floor says {:?}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(elapsed)
}
