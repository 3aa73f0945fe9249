//! A test case: a file that says what goes into a gate and what must come out.
//!
//! ```toml
//! [input]
//! script = """..."""             # or file = "x.sh", below the folder of the case
//! interpreter = "bash"           # where there is no #! line
//! arguments = ["-v"]
//! environment = { A = "b" }
//! attachments = { "a.txt" = "its text" }
//! parameters = { path = "/tmp" }
//! run_as = "root"
//! settings = { word = "x" }      # of the plugin
//! facts = { "memory.total" = 1 } # of the machine, for environment and policy
//! job = { targets = 3 }
//! checks = [{ id = "os", status = "met" }]            # for a policy: what other gates said
//! findings = [{ rule = "word", severity = "high" }]
//!
//! [expect]                       # one of these
//! findings = [{ rule = "word", at_least = "medium", line = 3, subject = "script" }]
//! checks = [{ id = "memory", status = "unmet" }]
//! plan = [{ name = "path", destination = "environment", value = "/tmp" }]
//! refused = ["path"]
//! verdict = "block"              # and reasons = ["code"], if they matter
//! error = "a part of the text"
//! ```

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use sluice_gate_client::trial::Trial;
use sluice_gate_types::answer as a;
use sluice_gate_types::input::{Attribute, Origin, Value};
use sluice_gate_types::manifest::toml_value;
use sluice_protocol::bundle::{Attachment, Source, Submission, Variable};
use sluice_protocol::digest::Digest;

use super::expectation::{Expectation, ExpectationFile};
use super::install::read_at_most;

/// The largest case, and the largest script of one, in bytes.
const MAX_CASE: u64 = 4 << 20;

/// One case.
#[derive(Debug)]
pub(super) struct Case {
    /// The file's name without its ending.
    pub(super) name: String,
    /// What the plugin is bound with.
    pub(super) settings: Vec<(String, Value)>,
    /// What it is asked about.
    pub(super) trial: Trial,
    /// What it must answer.
    pub(super) expected: Expectation,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    input: Input,
    expect: ExpectationFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    script: Option<String>,
    file: Option<PathBuf>,
    interpreter: Option<String>,
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    attachments: BTreeMap<String, String>,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
    run_as: Option<String>,
    #[serde(default)]
    settings: toml::Table,
    #[serde(default)]
    facts: toml::Table,
    #[serde(default)]
    job: toml::Table,
    #[serde(default)]
    checks: Vec<GivenCheck>,
    #[serde(default)]
    findings: Vec<GivenFinding>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenCheck {
    id: String,
    status: a::CheckStatus,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenFinding {
    rule: String,
    severity: a::Severity,
    #[serde(default = "medium")]
    confidence: a::Confidence,
    #[serde(default)]
    message: String,
    #[serde(default = "script")]
    subject: String,
}

const fn medium() -> a::Confidence {
    a::Confidence::Medium
}

fn script() -> String {
    "script".to_owned()
}

impl Case {
    /// All cases of a folder, by name. All are read before one is run.
    pub(super) fn all(folder: &Path) -> Result<Vec<Self>, CaseError> {
        let unreadable = |source| CaseError::Read {
            path: folder.to_owned(),
            source,
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        if paths.is_empty() {
            return Err(CaseError::None(folder.to_owned()));
        }
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Result<Self, CaseError> {
        let wrong = |problem: String| CaseError::Wrong {
            path: path.to_owned(),
            problem,
        };
        let text = text_of(path).map_err(wrong)?;
        let File { input, expect } = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                text[..span.start.min(text.len())].matches('\n').count() + 1
            });
            wrong(format!("line {line}: {}", error.message()))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let settings = pairs(&input.settings).map_err(wrong)?;
        Ok(Self {
            name: path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            settings,
            trial: trial(input, folder).map_err(wrong)?,
            expected: Expectation::read(expect).map_err(wrong)?,
        })
    }
}

fn text_of(path: &Path) -> Result<String, String> {
    let bytes = read_at_most(path, MAX_CASE).map_err(|error| error.line())?;
    String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
}

fn trial(input: Input, folder: &Path) -> Result<Trial, String> {
    let script = match (input.script, input.file) {
        (Some(script), None) => script,
        (None, Some(file)) => {
            // A case may come from somebody else: it names files beside it, and no others.
            let inside = file
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            if !inside {
                return Err("input.file does not lie below the folder of the case".to_owned());
            }
            text_of(&folder.join(file))?
        }
        _ => return Err("input needs either script or file".to_owned()),
    };
    let variables = |map: BTreeMap<String, String>| {
        map.into_iter()
            .map(|(name, value)| Variable { name, value })
            .collect::<Vec<_>>()
    };
    let attachments = input.attachments.iter().map(|(name, text)| Attachment {
        name: name.clone(),
        size: text.len() as u64,
        sha256: Digest::of(text.as_bytes()),
    });
    let submission = Submission {
        interpreter: input.interpreter,
        parameters: variables(input.parameters),
        environment: variables(input.environment),
        attachments: attachments.collect(),
        run_as: input.run_as,
        ..Submission::of(script)
    };
    let source = Source::read(&submission).map_err(|error| error.to_string())?;
    Ok(Trial {
        submission,
        source,
        arguments: input.arguments,
        attachments: input.attachments.into_iter().collect(),
        facts: attributes(&input.facts, Origin::Machine)?,
        job: attributes(&input.job, Origin::HostClaim)?,
        checks: input.checks.into_iter().map(Into::into).collect(),
        findings: input.findings.into_iter().map(Into::into).collect(),
    })
}

fn attributes(table: &toml::Table, origin: Origin) -> Result<Vec<Attribute>, String> {
    let pairs = pairs(table)?.into_iter();
    Ok(pairs
        .map(|(key, value)| Attribute::new(key, value, origin))
        .collect())
}

fn pairs(table: &toml::Table) -> Result<Vec<(String, Value)>, String> {
    let pair = |(key, value): (&String, &toml::Value)| {
        let value = toml_value(value).ok_or_else(|| {
            format!("{key} is neither a text, a number, true or false, nor a list of texts")
        })?;
        Ok((key.clone(), value))
    };
    table.iter().map(pair).collect()
}

impl From<GivenCheck> for a::Check {
    fn from(check: GivenCheck) -> Self {
        Self {
            id: check.id,
            status: check.status,
            message: check.message,
        }
    }
}

impl From<GivenFinding> for a::Finding {
    fn from(finding: GivenFinding) -> Self {
        Self {
            rule: finding.rule,
            severity: finding.severity,
            confidence: finding.confidence,
            message: finding.message,
            primary: None,
            related: Vec::new(),
            subject: finding.subject,
            remediation: None,
            attributes: Vec::new(),
        }
    }
}

/// The cases cannot be run; none was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaseError {
    /// No folder.
    #[error("cannot read the cases in {}; nothing was run, name their folder with --cases", path.display())]
    Read {
        /// Which folder.
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A test of nothing.
    #[error("there is no case (*.toml) in {}; nothing was tested", .0.display())]
    None(PathBuf),
    /// A file that is no case.
    #[error("{}: {problem}; no case was run", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// Line, key, and what is wrong.
        problem: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Case, String> {
        let folder = tempfile::tempdir().expect("makes a folder");
        std::fs::write(folder.path().join("x.sh"), "#!/bin/sh\necho x\n").expect("writes");
        std::fs::write(folder.path().join("a.toml"), text).expect("writes");
        let cases = Case::all(folder.path()).map_err(|error| error.to_string())?;
        cases.into_iter().next().ok_or_else(String::new)
    }

    #[test]
    fn a_case_has_a_script_and_one_expectation() {
        let case = read("[input]\nfile = \"x.sh\"\n[expect]\nfindings = []\n").expect("is a case");
        assert_eq!(
            (case.name.as_str(), case.trial.submission.script.as_slice()),
            ("a", &b"#!/bin/sh\necho x\n"[..])
        );
        let wrong = [
            ("", "missing field `input`"),
            ("[input]\nfile = \"x.sh\"\n", "missing field `expect`"),
            ("[input]\nfile = \"x.sh\"\n[expect]\n", "expects nothing"),
            (
                "[input]\n[expect]\nfindings = []\n",
                "either script or file",
            ),
            (
                "[input]\nfile = \"x.sh\"\nscript = \"\"\n[expect]\nfindings = []\n",
                "either script or file",
            ),
            (
                "[input]\nfile = \"/etc/passwd\"\n[expect]\nfindings = []\n",
                "below the folder",
            ),
            (
                "[input]\nfile = \"../x.sh\"\n[expect]\nfindings = []\n",
                "below the folder",
            ),
            (
                "[input]\nfile = \"y.sh\"\n[expect]\nfindings = []\n",
                "cannot read",
            ),
            (
                "[input]\nscript = \"echo\"\n[expect]\nfindings = []\n",
                "interpreter",
            ),
            (
                "[input]\nfile = \"x.sh\"\nsettings = { a = { b = 1 } }\n[expect]\nfindings = []\n",
                "a is neither",
            ),
            (
                "[input]\nfile = \"x.sh\"\n[expect]\nfindings = []\nverdict = \"allow\"\n",
                "more than one",
            ),
            (
                "[input]\nfile = \"x.sh\"\nfindigs = []\n[expect]\nfindings = []\n",
                "line 3: unknown field",
            ),
        ];
        for (text, part) in wrong {
            let error = read(text).expect_err(text);
            assert!(
                error.contains(part) && error.ends_with("no case was run"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_folder_without_a_case_tests_nothing() {
        let folder = tempfile::tempdir().expect("makes a folder");
        assert!(matches!(Case::all(folder.path()), Err(CaseError::None(_))));
        assert!(matches!(
            Case::all(&folder.path().join("cases")),
            Err(CaseError::Read { .. })
        ));
    }
}
