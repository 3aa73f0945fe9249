//! `sluice script import`: a folder of scripts, each under the name of its file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sluice_api_types::script::AddScript;

use super::add::{send, stem};
use crate::command_line::Global;
use crate::commands::run::read_script;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// What became of an entry of the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Line {
    /// The entry's name, lossy where it is no text.
    file: String,
    status: Status,
    /// The script; null where none was added or found.
    script: Option<String>,
    version: Option<u64>,
    /// Why it was skipped, or failed.
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Added,
    Unchanged,
    Skipped,
    Failed,
}

impl Status {
    const ALL: [Self; 4] = [Self::Added, Self::Unchanged, Self::Skipped, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Unchanged => "unchanged",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

impl Line {
    fn without_script(file: String, status: Status, reason: impl Into<String>) -> Self {
        Self {
            file,
            status,
            script: None,
            version: None,
            reason: Some(reason.into()),
        }
    }
}

/// A file that is to be added.
struct Candidate {
    file: String,
    name: String,
    script: Vec<u8>,
}

/// Adds what is a script, one after the other, and says of each entry what became of it. Exits with 1 where one failed.
pub(super) async fn import(
    global: &Global,
    folder: &Path,
    tenant: Option<String>,
) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let (candidates, mut lines) = read(folder)?;
    let mut stopped = None;
    for candidate in candidates {
        let request = AddScript {
            tenant: tenant.clone(),
            name: candidate.name,
            script: candidate.script.into(),
            ..AddScript::default()
        };
        match send(&client, &request).await {
            Ok((version, is_new)) => lines.push(Line {
                file: candidate.file,
                status: if is_new {
                    Status::Added
                } else {
                    Status::Unchanged
                },
                script: Some(version.name),
                version: Some(version.version),
                reason: None,
            }),
            Err(Error::Refused(problem)) if problem.status < 500 => lines.push(
                Line::without_script(candidate.file, Status::Failed, problem.detail),
            ),
            // The host is not there, or not well: the next one would fare no better.
            Err(error) => {
                stopped = Some(error);
                break;
            }
        }
    }
    lines.sort_by(|one, other| one.file.cmp(&other.file));
    report(global.json, &lines)?;
    match stopped {
        Some(error) => Err(error),
        None if lines.iter().any(|line| line.status == Status::Failed) => Ok(exit::NOT_ALL),
        None => Ok(exit::SUCCESS),
    }
}

fn report(json: bool, lines: &[Line]) -> Result<(), Error> {
    List::new(&["status", "file", "script", "reason"], json).write(lines, |line| {
        let script = line.script.as_ref().zip(line.version);
        vec![
            line.status.as_str().to_owned(),
            line.file.clone(),
            script.map_or_else(String::new, |(name, version)| format!("{name}@{version}")),
            line.reason.clone().unwrap_or_default(),
        ]
    })?;
    if !json {
        let counts = Status::ALL.map(|status| {
            let count = lines.iter().filter(|line| line.status == status).count();
            format!("{count} {}", status.as_str())
        });
        output::complain(&format!("sluice: {}", counts.join(", ")));
    }
    Ok(())
}

/// What there is to add in a folder, and what became of the other entries. Nothing is followed out of the folder.
fn read(folder: &Path) -> Result<(Vec<Candidate>, Vec<Line>), Error> {
    let mut paths = std::fs::read_dir(folder)
        .map_err(Error::read(folder))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<PathBuf>, _>>()
        .map_err(Error::read(folder))?;
    paths.sort();
    let (mut candidates, mut lines) = (Vec::new(), Vec::new());
    for path in paths {
        match candidate(&path) {
            Ok(candidate) => candidates.push(candidate),
            Err(line) => lines.push(line),
        }
    }
    let mut files: BTreeMap<String, usize> = BTreeMap::new();
    for candidate in &candidates {
        *files.entry(candidate.name.clone()).or_default() += 1;
    }
    // Of two files with one name neither is the next version of the other.
    let (unique, same): (Vec<_>, Vec<_>) = candidates
        .into_iter()
        .partition(|candidate| files.get(&candidate.name) == Some(&1));
    lines.extend(same.into_iter().map(|candidate| {
        let reason = format!(
            "another file here would be {} too; rename one, or add them with --name",
            candidate.name
        );
        Line::without_script(candidate.file, Status::Failed, reason)
    }));
    Ok((unique, lines))
}

fn candidate(path: &Path) -> Result<Candidate, Line> {
    let file = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let not = |status, reason: &str| Err(Line::without_script(file.clone(), status, reason));
    let kind = match path.symlink_metadata() {
        Ok(metadata) => metadata.file_type(),
        Err(error) => return not(Status::Failed, &error.to_string()),
    };
    if kind.is_symlink() {
        return not(Status::Skipped, "a symbolic link");
    }
    if !kind.is_file() {
        return not(Status::Skipped, "no regular file");
    }
    let Some(name) = stem(path).map(str::to_owned) else {
        return not(Status::Skipped, "its name is no text");
    };
    match read_script(path) {
        Ok(script) if script.starts_with(b"#!") => Ok(Candidate { file, name, script }),
        Ok(_) => not(Status::Skipped, "no #! line"),
        Err(error) => not(Status::Failed, &error.line()),
    }
}
