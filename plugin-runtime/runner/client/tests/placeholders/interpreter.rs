//! The interpreters of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// The file that hostile values make where they are executed.
const CANARY: &str = "canary";

/// What a script did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
    /// Whether a value was executed.
    pub(crate) is_hit: bool,
}

/// Runs a script in a folder of its own.
pub(crate) fn run(interpreter: &str, script: &str) -> Ran {
    let folder = TempDir::new().expect("is made");
    let file = folder.path().join("script");
    fs::write(&file, script).expect("is written");
    let output = start(interpreter, &file, folder.path());
    Ran {
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code(),
        is_hit: folder.path().join(CANARY).exists(),
    }
}

#[expect(clippy::disallowed_methods, reason = "runs what was rendered")]
fn start(interpreter: &str, file: &Path, folder: &Path) -> Output {
    Command::new(interpreter)
        .arg(file)
        .current_dir(folder)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .expect("the interpreter starts")
}

/// Whether the machine has it; says so visibly where it has not.
pub(crate) fn is_here(interpreter: &str) -> bool {
    let found = on_path(interpreter).is_some();
    if !found {
        eprintln!("LEFT OUT: {interpreter} is not installed, so it ran no script");
    }
    found
}

fn on_path(interpreter: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(interpreter))
        .find(|file| file.is_file())
}
