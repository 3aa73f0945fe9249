//! One way to break the code, and who must notice.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::steps::root;

/// A row of `xtask/mutations.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    /// What is wrong then, in words.
    pub(super) breaks: String,
    /// The file that is broken.
    pub(super) file: String,
    /// What stands in it, once.
    pub(super) find: String,
    /// What stands there instead.
    pub(super) replace: String,
    /// The program with the test, by nextest's name: `package` for the unit tests of a library, `package::name` for what is
    /// in its folder `tests`.
    #[serde(default = "whole_system")]
    pub(super) program: String,
    /// The test that must fail, with its modules.
    pub(super) test: String,
}

const WHOLE_SYSTEM: &str = "sluice-tests::system";

fn whole_system() -> String {
    WHOLE_SYSTEM.to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    mutation: Vec<Row>,
}

/// All rows.
pub(super) fn all() -> Result<Vec<Row>> {
    let path = root().join("xtask/mutations.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let table: Table = toml::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(table.mutation)
}

impl Row {
    pub(super) fn contains(&self, filter: &str) -> bool {
        [&self.breaks, &self.file, &self.program, &self.test]
            .iter()
            .any(|text| text.contains(filter))
    }

    /// Whether its test starts the product's programs.
    pub(super) fn starts_programs(&self) -> bool {
        self.program == WHOLE_SYSTEM
    }

    /// Whether a shipped gate is broken.
    pub(super) fn is_of_a_gate(&self) -> bool {
        self.file.starts_with("plugins/")
    }

    /// Its test, as nextest chooses it: <https://nexte.st/docs/filtersets/>.
    pub(super) fn expression(&self) -> String {
        format!("(binary_id(={}) & test(={}))", self.program, self.test)
    }

    /// The options by which cargo builds its program and no other kind. They name no package, see `steps`.
    pub(super) fn selection(&self) -> Vec<&str> {
        match self.program.split_once("::") {
            None => vec!["--lib"],
            Some((_, name)) => vec!["--test", name],
        }
    }

    /// The text of its file below `folder`, with the place broken.
    pub(super) fn broken(&self, text: &str) -> Result<String> {
        let count = text.matches(&self.find).count();
        ensure!(
            count == 1,
            "{}: {:?} occurs {count} times and not once",
            self.file,
            self.find
        );
        ensure!(self.find != self.replace, "{}: nothing changes", self.file);
        Ok(text.replacen(&self.find, &self.replace, 1))
    }

    /// Whether the place and the test are there.
    pub(super) fn check(&self) -> Result<()> {
        let path = root().join(&self.file);
        let text = fs::read_to_string(&path).with_context(|| self.file.clone())?;
        self.broken(&text)?;
        let (package, folder) = match self.program.split_once("::") {
            None => (self.program.as_str(), "src"),
            Some((package, _)) => (package, "tests"),
        };
        let folder = package_folder(&root(), package)
            .with_context(|| format!("there is no package {package}"))?
            .join(folder);
        let name = self.test.rsplit("::").next().unwrap_or(&self.test);
        ensure!(
            says(&folder, &format!("fn {name}("))?,
            "there is no test {} in {}",
            self.test,
            folder.display()
        );
        Ok(())
    }
}

/// Where the manifest of a package of the workspace is.
fn package_folder(folder: &Path, package: &str) -> Option<PathBuf> {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    if manifest.contains(&format!("[package]\nname = \"{package}\"\n")) {
        return Some(folder.to_owned());
    }
    let inner = fs::read_dir(folder).ok()?.flatten();
    inner
        .filter(|entry| entry.file_name() != "target" && entry.path().is_dir())
        .find_map(|entry| package_folder(&entry.path(), package))
}

/// Whether a source below `folder` has this text.
fn says(folder: &Path, text: &str) -> Result<bool> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let found = if path.is_dir() {
            says(&path, text)?
        } else {
            path.extension().is_some_and(|extension| extension == "rs")
                && fs::read_to_string(&path)?.contains(text)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_finds_its_place_once_and_its_test() {
        let wrong: Vec<_> = all()
            .expect("is a table")
            .iter()
            .filter_map(|row| row.check().err())
            .map(|error| format!("{error:#}"))
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn a_place_that_is_there_twice_or_not_at_all_is_refused() {
        let row = |find: &str| Row {
            breaks: String::new(),
            file: "a.rs".to_owned(),
            find: find.to_owned(),
            replace: "c".to_owned(),
            program: whole_system(),
            test: "a".to_owned(),
        };
        assert_eq!(row("b").broken("abz").expect("is there"), "acz");
        for find in ["a", "x"] {
            assert!(row(find).broken("a a").is_err(), "{find}");
        }
        assert!(row("c").broken("c").is_err(), "it changes nothing");
    }
}
