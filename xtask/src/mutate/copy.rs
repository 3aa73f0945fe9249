//! The copy of the checkout in which things are broken.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::row::Row;
use crate::steps::{root, run, target};

/// The sources, and what cargo makes of them.
pub(super) struct Copy {
    pub(super) tree: PathBuf,
    pub(super) target: PathBuf,
}

/// A file that is broken until this is dropped.
pub(super) struct Broken {
    path: PathBuf,
    whole: String,
}

impl Copy {
    /// Brings the copy to what the checkout is now. Only what differs is written, because cargo builds again what was.
    pub(super) fn make() -> Result<Self> {
        let folder = target().join("mutants");
        let copy = Self {
            tree: folder.join("tree"),
            target: folder.join("target"),
        };
        fs::create_dir_all(&copy.tree)?;
        let files = files()?;
        for file in &files {
            let (from, to) = (root().join(file), copy.tree.join(file));
            let bytes = fs::read(&from).with_context(|| from.display().to_string())?;
            if fs::read(&to).is_ok_and(|old| old == bytes) {
                continue;
            }
            fs::create_dir_all(to.parent().unwrap_or(&copy.tree))?;
            fs::copy(&from, &to).with_context(|| to.display().to_string())?;
        }
        remove_others(&copy.tree, Path::new(""), &files)?;
        copy.seed()?;
        Ok(copy)
    }

    /// Takes what is compiled already: dependencies do not know in which folder they were.
    fn seed(&self) -> Result<()> {
        if self.target.exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.target)?;
        for folder in ["debug", "plugin", "wasm32-unknown-unknown"] {
            let from = target().join(folder);
            if from.exists() {
                run(Command::new("cp").arg("-a").arg(from).arg(&self.target))?;
            }
        }
        Ok(())
    }

    /// Breaks the place that the row names.
    pub(super) fn break_at(&self, row: &Row) -> Result<Broken> {
        let path = self.tree.join(&row.file);
        let whole = fs::read_to_string(&path).with_context(|| row.file.clone())?;
        fs::write(&path, row.broken(&whole)?)?;
        Ok(Broken { path, whole })
    }
}

impl Broken {
    /// Writes the file as it was.
    pub(super) fn mend(self) -> Result<()> {
        fs::write(&self.path, &self.whole).with_context(|| self.path.display().to_string())
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        // Where this fails the next copy writes the file anew.
        let _ = fs::write(&self.path, &self.whole);
    }
}

/// What git has, and what it would take.
fn files() -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .context("git is needed for this")?;
    ensure!(output.status.success(), "git ls-files failed");
    let names = String::from_utf8(output.stdout)?;
    let names = names.split_terminator('\0').map(PathBuf::from);
    // What is deleted and not yet committed is still listed.
    Ok(names.filter(|name| root().join(name).exists()).collect())
}

fn remove_others(tree: &Path, folder: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(tree.join(folder))? {
        let entry = entry?;
        let name = folder.join(entry.file_name());
        if entry.path().is_dir() {
            remove_others(tree, &name, files)?;
        } else if !files.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
