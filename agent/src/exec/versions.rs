//! Which versions the interpreters of this machine have, found out once, apart from any operation: no process starts for an
//! operation before its gates have let it pass, and a requirement such as `>=3.9` is what a gate judges.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::unistd::Uid;
use tokio::process::Command;
use tokio::sync::watch;

use super::interpreter::{self, Interpreter};

/// From the start of the agent to the first look: connecting and what waits to run comes first.
const AFTER_START: Duration = Duration::from_secs(1);
/// How long an interpreter may take to say its version.
const ANSWER: Duration = Duration::from_secs(5);
/// How long an operation waits for the first look to be over.
const PATIENCE: Duration = Duration::from_secs(30);
/// The kernel's overflow user, which owns nothing.
const NOBODY: u32 = 65_534;

/// What is known. A cheap handle.
#[derive(Debug, Clone)]
pub struct Versions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    known: Mutex<HashMap<PathBuf, Known>>,
    /// Looks that are not over, the first one counted from the beginning.
    looking: watch::Sender<usize>,
}

#[derive(Debug)]
struct Known {
    file: Stamp,
    version: Option<String>,
}

/// Tells one program at a path from another that has taken its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

impl Versions {
    /// Looks at the interpreters that the owner allows, soon.
    #[must_use]
    pub fn start(allowed: Vec<String>) -> Self {
        let versions = Self(Arc::new(Shared {
            known: Mutex::default(),
            looking: watch::Sender::new(1),
        }));
        let started = versions.clone();
        tokio::spawn(async move {
            tokio::time::sleep(AFTER_START).await;
            started.look(&allowed).await;
        });
        versions
    }

    /// Looks again, where the owner allows others.
    pub fn renew(&self, allowed: Vec<String>) {
        let versions = self.clone();
        self.0.looking.send_modify(|looks| *looks += 1);
        tokio::spawn(async move { versions.look(&allowed).await });
    }

    /// The version of an interpreter; none where it did not say one, or where another program has taken its place since:
    /// that one is looked at now, for the next operation.
    pub async fn of(&self, interpreter: &Interpreter) -> Option<String> {
        let mut looking = self.0.looking.subscribe();
        // Where that takes too long the version is not known. What is waited for is a lock on the number, not to be kept.
        let over = async { looking.wait_for(|looks| *looks == 0).await.map(drop) };
        let _known_or_not = tokio::time::timeout(PATIENCE, over).await;
        let path = &interpreter.path;
        let there = Stamp::of(path)?;
        match self.known().get(path) {
            Some(known) if known.file == there => return known.version.clone(),
            _ => {}
        }
        self.renew(vec![path.to_str()?.to_owned()]);
        None
    }

    async fn look(&self, allowed: &[String]) {
        for command in allowed {
            let Ok(found) = interpreter::resolve(command, &[], allowed) else {
                continue;
            };
            let Some(file) = Stamp::of(&found.path) else {
                continue;
            };
            let known = self.known().get(&found.path).map(|known| known.file);
            if known != Some(file) {
                let version = asked(&found.path).await;
                self.known().insert(found.path, Known { file, version });
            }
        }
        self.0.looking.send_modify(|looks| *looks -= 1);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first number with a dot in what `--version` prints.
async fn asked(path: &Path) -> Option<String> {
    #[allow(
        clippy::disallowed_methods,
        reason = "exec is one of the places that start processes (ARCHITECTURE.md)"
    )]
    let mut command = Command::new(path);
    command
        .arg("--version")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if Uid::effective().is_root() {
        // Nothing needs root's rights to say its version.
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = tokio::time::timeout(ANSWER, command.output())
        .await
        .ok()?
        .ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.split(|c: char| !c.is_ascii_digit() && c != '.')
        .map(|word| word.trim_matches('.'))
        .find(|word| word.contains('.'))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn an_interpreter_that_is_allowed_is_known_without_an_operation_and_another_is_not() {
        let versions = Versions::start(names(&["bash", "no-such-thing"]));
        let bash = interpreter::resolve("bash", &[], &names(&["bash"])).unwrap();
        let version = versions.of(&bash).await.unwrap();
        assert!(
            version.starts_with(|c: char| c.is_ascii_digit()),
            "{version}"
        );
        let other = Interpreter {
            path: "/usr/bin/env".into(),
            ..bash
        };
        assert_eq!(versions.of(&other).await, None);
    }

    #[tokio::test]
    async fn a_program_that_was_replaced_is_not_taken_for_the_one_before() {
        let versions = Versions(Arc::new(Shared {
            known: Mutex::default(),
            looking: watch::Sender::new(0),
        }));
        let bash = interpreter::resolve("bash", &[], &names(&["bash"])).unwrap();
        let before = Stamp {
            inode: 1,
            ..Stamp::of(&bash.path).unwrap()
        };
        versions.known().insert(
            bash.path.clone(),
            Known {
                file: before,
                version: Some("0.1".to_owned()),
            },
        );
        assert_eq!(versions.of(&bash).await, None);
        let version = versions.of(&bash).await.unwrap();
        assert_ne!(version, "0.1");
    }
}
