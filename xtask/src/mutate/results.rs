//! What came of each row, kept between runs: trying all of them takes hours.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use sha2::{Digest as _, Sha256};

use super::row::Row;
use crate::steps::target;

/// What became of a broken place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The test failed.
    Caught,
    /// The test passed all the same.
    Survived,
    /// There is nothing to test.
    DoesNotCompile,
}

const NAMES: [(Verdict, &str); 3] = [
    (Verdict::Caught, "caught"),
    (Verdict::Survived, "SURVIVED"),
    (Verdict::DoesNotCompile, "DOES NOT COMPILE"),
];

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(verdict, _)| verdict == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

/// A line for each row: its digest and what came of it.
pub(super) struct Results {
    path: PathBuf,
    verdicts: BTreeMap<String, Verdict>,
}

impl Results {
    pub(super) fn load() -> Result<Self> {
        let folder = target().join("mutants");
        fs::create_dir_all(&folder)?;
        let path = folder.join("results");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let verdict = |line: &str| {
            let (digest, name) = line.split_once(' ')?;
            let (verdict, _) = NAMES.iter().find(|(_, known)| *known == name)?;
            Some((digest.to_owned(), *verdict))
        };
        Ok(Self {
            path,
            verdicts: text.lines().filter_map(verdict).collect(),
        })
    }

    pub(super) fn of(&self, row: &Row) -> Option<Verdict> {
        self.verdicts.get(&digest(row)).copied()
    }

    pub(super) fn add(&mut self, row: &Row, verdict: Verdict) -> Result<()> {
        self.verdicts.insert(digest(row), verdict);
        let lines = self.verdicts.iter();
        let lines: Vec<_> = lines
            .map(|(digest, verdict)| format!("{digest} {verdict}\n"))
            .collect();
        Ok(fs::write(&self.path, lines.concat())?)
    }
}

fn digest(row: &Row) -> String {
    let mut digest = Sha256::new();
    for part in [&row.file, &row.find, &row.replace, &row.program, &row.test] {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    digest.finalize()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
