//! What a gate is asked. The records of `wit/types.wit`, field by field.

use serde::{Deserialize, Serialize};

/// A typed value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Value {
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Decimal(f64),
    /// Text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Bytes.
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The name of a secret, never its value.
    Secret(String),
}

/// Who vouches for an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The agent saw it on the machine.
    Machine,
    /// The machine's owner said it.
    Owner,
    /// A signature says it.
    Signed,
    /// The host says it.
    HostClaim,
}

/// The contract's one extension point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attribute {
    /// Lower-case words joined by dots.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Who vouches for it.
    pub origin: Origin,
}

impl Attribute {
    /// An attribute.
    #[must_use]
    pub fn new(key: impl Into<String>, value: Value, origin: Origin) -> Self {
        Self {
            key: key.into(),
            value,
            origin,
        }
    }
}

/// A name and a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Binding {
    pub name: String,
    pub value: String,
}

/// The script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// As requested.
    pub interpreter: String,
    /// Between the interpreter and the file.
    pub flags: Vec<String>,
    /// `shell`, `python`, `perl`, `ruby`, `javascript`, `powershell` or `unknown`.
    pub language: String,
    /// What will run.
    pub text: String,
    /// Of the text.
    #[serde(with = "serde_bytes")]
    pub sha256: Vec<u8>,
}

/// A file that comes with a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// A single path component.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// Of the content.
    #[serde(with = "serde_bytes")]
    pub sha256: Vec<u8>,
    /// The content where it is UTF-8 and at most 1 MiB.
    pub text: Option<String>,
}

/// Everything that will run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub struct Bundle {
    pub script: Script,
    pub arguments: Vec<String>,
    pub environment: Vec<Binding>,
    pub attachments: Vec<Attachment>,
    pub secrets: Vec<String>,
    pub run_as: String,
    pub limits: Vec<Attribute>,
}

/// The circumstances of a job.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub struct Job {
    pub attributes: Vec<Attribute>,
}

/// A parameter as it was given and declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub struct Parameter {
    pub name: String,
    pub kind: String,
    pub value: Option<Value>,
    pub declared: Vec<Attribute>,
}

/// Everything that is known when a policy decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub struct Review {
    pub bundle: Bundle,
    pub parameters: Vec<Parameter>,
    pub facts: Vec<Attribute>,
    pub checks: Vec<crate::answer::Check>,
    pub findings: Vec<crate::answer::Finding>,
    pub job: Job,
}

/// Signed content beside a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub struct DataPack {
    pub name: String,
    pub version: String,
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// One question to one gate: the export that is called, and its arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// `environment.check`
    #[expect(missing_docs, reason = "as in wit/environment.wit")]
    Check {
        script: Script,
        requirements: Vec<Attribute>,
        facts: Vec<Attribute>,
        job: Job,
    },
    /// `preparer.prepare`
    #[expect(missing_docs, reason = "as in wit/preparer.wit")]
    Prepare {
        script: Script,
        parameters: Vec<Parameter>,
        job: Job,
    },
    /// `scanner.scan`
    #[expect(missing_docs, reason = "as in wit/scanner.wit")]
    Scan { bundle: Bundle, job: Job },
    /// `policy.decide`
    Decide(Box<Review>),
}
