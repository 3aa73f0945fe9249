//! What a submission fixes, and its digest.
//!
//! The host records and delivers a [`Submission`]. Host and agent each make the [`Bundle`] from it with the same code:
//! normalize the text, read the interpreter, render what the preparers planned. The digest of the bundle's one encoding
//! is `bundle_sha256`; the same submission has the same digest on every machine and whenever it is submitted again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::digest::Digest;
use crate::script::{
    Header, HeaderError, Interpreter, InterpreterError, Language, MAX_DECLARED, ScriptText,
    TextError,
};
use crate::units::{ByteSize, Span};

/// What an operator submitted, as it was submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The bytes of the script.
    #[serde(with = "serde_bytes")]
    pub script: Vec<u8>,
    /// What a library entry declares of the script, as TOML; none where a header block does, or nothing.
    pub declared: Option<String>,
    /// `--interpreter`, which wins over the `#!` line.
    pub interpreter: Option<String>,
    /// Parameters in the order given; names are unique.
    pub parameters: Vec<Variable>,
    /// Variables in the order given; names are unique.
    pub environment: Vec<Variable>,
    /// Attachments in the order given; names are unique.
    pub attachments: Vec<Attachment>,
    /// Names of secrets.
    pub secrets: Vec<String>,
    /// The user asked for, or none where the machine's default is to be taken.
    pub run_as: Option<String>,
    /// Limits asked for.
    pub limits: Limits,
    /// How much of the machine is to be kept from the script at least; where nothing is asked for, an operation looks as
    /// it did before there was anything to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
    /// Names of another product's variables that the script expects.
    pub compatibility: Compatibility,
}

impl Submission {
    /// A script for which nothing else is asked.
    #[must_use]
    pub fn of(script: impl Into<Vec<u8>>) -> Self {
        Self {
            script: script.into(),
            declared: None,
            interpreter: None,
            parameters: Vec::new(),
            environment: Vec::new(),
            attachments: Vec::new(),
            secrets: Vec::new(),
            run_as: None,
            limits: Limits::default(),
            confinement: None,
            compatibility: Compatibility::None,
        }
    }

    /// About how many bytes it has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let variables = self.parameters.iter().chain(&self.environment);
        let given: usize = variables
            .map(|variable| variable.name.len() + variable.value.len())
            .sum();
        let declared = self.declared.as_ref().map_or(0, String::len);
        let secrets: usize = self.secrets.iter().map(String::len).sum();
        self.script.len() + declared + given + secrets + 256 * self.attachments.len()
    }
}

/// A name and its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// A file that comes with a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// A single safe path component.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// Of the content.
    pub sha256: Digest,
}

/// Limits as asked; absent where the job did not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How long the script may run.
    pub time: Option<Span>,
    /// How much output is kept.
    pub output: Option<ByteSize>,
    /// How much memory its processes may have.
    pub memory: Option<ByteSize>,
}

impl Limits {
    /// The time limit of a job that asks for none; the machine's owner may allow less.
    pub const TIME: Span = Span::seconds(600);
    /// The output that is kept of one that asks for none.
    pub const OUTPUT: ByteSize = ByteSize::mib(1);
    /// The memory of one that asks for none.
    pub const MEMORY: ByteSize = ByteSize::mib(512);
}

/// The least that a job wants kept from its script. The machine's owner may keep more; what each comes to is the machine's
/// to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confinement {
    /// System calls that no ordinary script makes, and the temporary files of others.
    Standard,
    /// That, TCP, and all files but the system's and its own.
    Strict,
}

impl Confinement {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Strict => "strict",
        }
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Confinement {
    type Err = ConfinementError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Self::Standard, Self::Strict]
            .into_iter()
            .find(|confinement| confinement.as_str() == word)
            .ok_or(ConfinementError)
    }
}

/// No profile has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is standard or strict; leave it out for what the machine's owner says")]
pub struct ConfinementError;

/// Variables of another product that a script may expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compatibility {
    /// None.
    #[default]
    None,
    /// The `LANDSCAPE_*` names.
    Landscape,
}

/// Everything about a run that a submission fixes: what the gates see is what runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The interpreter and its flags.
    pub interpreter: Interpreter,
    /// The text as it will run.
    pub script: String,
    /// What stands behind the script on the command line.
    pub arguments: Vec<String>,
    /// The job's variables and what preparers set, sorted by name.
    pub environment: Vec<Variable>,
    /// Sorted by name.
    pub attachments: Vec<Attachment>,
    /// Names of secrets, sorted.
    pub secrets: Vec<String>,
    /// As asked.
    pub run_as: Option<String>,
    /// As asked.
    pub limits: Limits,
    /// As asked; where nothing is, the digest is that of a bundle without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
}

impl Bundle {
    /// `bundle_sha256`: the digest of the deterministic encoding.
    ///
    /// # Errors
    ///
    /// Never for this type; see [`codec::encode_sorted`].
    pub fn digest(&self) -> Result<Digest, codec::EncodeError> {
        codec::encode_sorted(self).map(|bytes| Digest::of(&bytes))
    }
}

/// A submission that has been read: the script's text, interpreter and header.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The normalized text, placeholders still in it.
    pub text: ScriptText,
    /// Which interpreter is asked for.
    pub interpreter: Interpreter,
    /// What the script declares, in a header block or its library entry.
    pub header: Option<Header>,
}

impl Source {
    /// Reads the script of `submission`.
    ///
    /// # Errors
    ///
    /// The request is refused: no operation exists.
    pub fn read(submission: &Submission) -> Result<Self, SourceError> {
        let text = ScriptText::parse(&submission.script)?;
        let interpreter = match &submission.interpreter {
            Some(command) => with_own_flags(Interpreter::from_command(command)?, text.as_str())?,
            None => Interpreter::from_shebang(text.as_str())?,
        };
        let text = text.normalize_for(interpreter.language());
        let header = match (Header::find(text.as_str())?, &submission.declared) {
            (Some(_), Some(_)) => return Err(SourceError::DeclaredTwice),
            (None, Some(tables)) if tables.len() > MAX_DECLARED => {
                return Err(SourceError::DeclaredTooLarge(tables.len()));
            }
            (None, Some(tables)) => Some(Header::parse(tables).map_err(SourceError::Declared)?),
            (header, None) => header,
        };
        Ok(Self {
            text,
            interpreter,
            header,
        })
    }
}

/// Perl and Ruby read the `#!` line of a script themselves, whatever they were started for: they take the flags there for
/// their own, and Perl executes a program that it names instead of itself. So the line has to name the interpreter that is
/// asked for, and its flags are seen and judged with the others.
fn with_own_flags(mut asked: Interpreter, text: &str) -> Result<Interpreter, SourceError> {
    if !matches!(asked.language(), Language::Perl | Language::Ruby) || !text.starts_with("#!") {
        return Ok(asked);
    }
    let own = Interpreter::from_shebang(text)?;
    if own.language() != asked.language() {
        return Err(SourceError::OtherInterpreter {
            asked: asked.name().to_owned(),
            own: own.name().escape_debug().take(80).collect(),
        });
    }
    for flag in own.flags {
        if !asked.flags.contains(&flag) {
            asked.flags.push(flag);
        }
    }
    Ok(asked)
}

/// What the preparers' plan comes to, rendered: the last input to a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prepared {
    /// The text with its placeholders filled, or none where it has no placeholders.
    pub script: Option<String>,
    /// Arguments in order.
    pub arguments: Vec<String>,
    /// Variables for parameters.
    pub environment: Vec<Variable>,
}

/// Makes the bundle of a submission.
#[must_use]
pub fn assemble(submission: &Submission, source: &Source, prepared: Prepared) -> Bundle {
    let mut environment = submission.environment.clone();
    environment.extend(prepared.environment);
    environment.sort();
    let mut attachments = submission.attachments.clone();
    attachments.sort_by(|a, b| a.name.cmp(&b.name));
    let mut secrets = submission.secrets.clone();
    secrets.sort();
    Bundle {
        interpreter: source.interpreter.clone(),
        script: prepared
            .script
            .unwrap_or_else(|| source.text.as_str().to_owned()),
        arguments: prepared.arguments,
        environment,
        attachments,
        secrets,
        run_as: submission.run_as.clone(),
        limits: submission.limits,
        confinement: submission.confinement,
    }
}

/// A submission whose script cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The bytes are no script text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// No usable interpreter is named.
    #[error(transparent)]
    Interpreter(#[from] InterpreterError),
    /// The script would run under something else than was asked for.
    #[error(
        "the script's first line names {own}, and {asked} would obey that; change the line, or leave the interpreter out"
    )]
    OtherInterpreter {
        /// By the request.
        asked: String,
        /// By the `#!` line.
        own: String,
    },
    /// The header block cannot be read.
    #[error("the script's header, {0}")]
    Header(#[from] HeaderError),
    /// What the library entry declares cannot be read.
    #[error("the declaration of the script's parameters, {0}")]
    Declared(#[source] HeaderError),
    /// It declares more than anyone writes.
    #[error("the declaration of the script's parameters has {0} bytes, over the limit of {max} bytes", max = MAX_DECLARED)]
    DeclaredTooLarge(usize),
    /// Which of the two holds would be a guess.
    #[error(
        "the script declares its parameters in a header block, and they are declared beside it too; keep one of the two"
    )]
    DeclaredTwice,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission() -> Submission {
        Submission {
            environment: vec![
                Variable {
                    name: "B".to_owned(),
                    value: "2".to_owned(),
                },
                Variable {
                    name: "A".to_owned(),
                    value: "1".to_owned(),
                },
            ],
            ..Submission::of("#!/bin/bash\necho hi\n")
        }
    }

    fn digest(submission: &Submission) -> Digest {
        let source = Source::read(submission).expect("reads");
        assemble(submission, &source, Prepared::default())
            .digest()
            .expect("encodes")
    }

    #[test]
    fn the_same_submission_has_the_same_digest() {
        let mut other = submission();
        other.environment.reverse();
        assert_eq!(digest(&submission()), digest(&other));
    }

    #[test]
    fn an_interpreter_that_obeys_the_first_line_gets_what_that_says_or_nothing() {
        let read = |interpreter: &str, script: &str| {
            let read = Source::read(&Submission {
                script: script.as_bytes().to_vec(),
                interpreter: Some(interpreter.to_owned()),
                ..submission()
            });
            read.map(|source| (source.interpreter.command, source.interpreter.flags))
        };
        let flags = |flags: &[&str]| flags.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (interpreter, script, expected) in [
            ("perl", "print 1;\n", flags(&[])),
            ("perl", "#!/usr/bin/perl\n", flags(&[])),
            ("perl -T", "#!/usr/bin/perl -w\n", flags(&["-T", "-w"])),
            ("perl -w", "#!/usr/bin/env -S perl -w\n", flags(&["-w"])),
            ("ruby", "#!/usr/bin/ruby -r./x\n", flags(&["-r./x"])),
            ("bash", "#!/bin/sh\n", flags(&[])),
            ("python3", "#!/bin/sh -e\n", flags(&[])),
        ] {
            let found = read(interpreter, script).expect("reads");
            assert_eq!(found.1, expected, "{interpreter} {script}");
        }
        for (interpreter, script) in [
            ("perl", "#!/bin/sh\n"),
            ("perl", "#!/usr/bin/awk -f\nBEGIN{system(\"id\")}\n"),
            ("perl", "#!/usr/bin/env bash\n"),
            ("perl", "#!/tmp/x\n"),
            ("ruby", "#!/usr/bin/perl\n"),
        ] {
            let refused = read(interpreter, script);
            assert!(
                matches!(refused, Err(SourceError::OtherInterpreter { .. })),
                "{interpreter} {script}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_script_declares_its_parameters_in_one_place() {
        let declared = |script: &str, tables: &str| {
            Source::read(&Submission {
                script: script.as_bytes().to_vec(),
                declared: Some(tables.to_owned()),
                ..submission()
            })
        };
        let plain = "#!/bin/sh\n";
        let source = declared(plain, "[parameters.b]\n[parameters.a]\n").expect("reads");
        let header = source.header.expect("is declared");
        let names: Vec<_> = header
            .parameters
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["b", "a"]);
        let header = "#!/bin/sh\n# /// sluice\n# ///\n";
        assert_eq!(declared(header, ""), Err(SourceError::DeclaredTwice));
        let wrong = declared(plain, "\n[parameter.a]\n").expect_err("is no table of these");
        assert!(wrong.to_string().contains("line 2"), "{wrong}");
        let large = declared(plain, &"#".repeat(MAX_DECLARED + 1));
        assert!(matches!(large, Err(SourceError::DeclaredTooLarge(_))));
    }

    #[test]
    fn the_digest_is_pinned() {
        // It stands in records that outlive this program: a change of the encoding is a new protocol version.
        assert_eq!(digest(&submission()).to_string(), PINNED);
    }

    const PINNED: &str = "0719d3b93024bbb947f06202e3e726bd0fef094b5a9aa5ae9bc0339ac8c69ef5";

    #[test]
    fn a_job_that_asks_for_no_confinement_is_encoded_as_ever() {
        let mut asked = submission();
        let fields = |submission: &Submission| {
            let bytes = codec::encode(submission).expect("encodes");
            let read: Submission = codec::decode(&bytes).expect("decodes");
            assert_eq!(&read, submission);
            bytes.windows(11).any(|field| field == b"confinement")
        };
        assert!(!fields(&asked));
        asked.confinement = Some(Confinement::Strict);
        assert!(fields(&asked));
        assert!(Confinement::Standard < Confinement::Strict && None < asked.confinement);
        assert_eq!("strict".parse(), Ok(Confinement::Strict));
        assert_eq!("none".parse::<Confinement>(), Err(ConfinementError));
    }

    #[test]
    fn everything_that_runs_changes_the_digest() {
        let changes: &[fn(&mut Submission)] = &[
            |s| s.script.push(b'#'),
            |s| s.interpreter = Some("bash -e".to_owned()),
            |s| s.environment[0].value.push('x'),
            |s| {
                s.attachments.push(Attachment {
                    name: "a".to_owned(),
                    size: 0,
                    sha256: Digest::of(b""),
                })
            },
            |s| s.secrets.push("s".to_owned()),
            |s| s.run_as = Some("root".to_owned()),
            |s| s.limits.time = Some(Span::seconds(1)),
            |s| s.confinement = Some(Confinement::Standard),
            |s| s.confinement = Some(Confinement::Strict),
        ];
        for change in changes {
            let mut changed = submission();
            change(&mut changed);
            assert_ne!(digest(&submission()), digest(&changed));
        }
    }
}
