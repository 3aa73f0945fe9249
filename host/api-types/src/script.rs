//! `/v1/scripts`: the script library.

use serde::{Deserialize, Serialize};
use sluice_protocol::bundle::Confinement;
use sluice_protocol::digest::Digest;
use sluice_protocol::units::ByteSize;

use crate::bytes::Base64;
use crate::job::{JobLimits, Variable};

/// `POST /v1/scripts`: a new script, or a new version of one. What is not given is not taken from the version before,
/// apart from the description.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddScript {
    /// The tenant's name; that of the query where absent, and the operator's own where that has none.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Letters, digits, `-`, `_` and `.`; the first a letter or digit.
    pub name: String,
    /// For people, on one line; that of the version before where absent.
    #[serde(default)]
    pub description: Option<String>,
    /// The bytes of the script. Its header block declares parameters and requirements.
    pub script: Base64,
    /// The same tables as TOML, where the script has no header block.
    #[serde(default)]
    pub parameters: Option<String>,
    /// Wins over the script's `#!` line.
    #[serde(default)]
    pub interpreter: Option<String>,
    /// The systems it is for, where it does not say so itself; any where empty.
    #[serde(default)]
    pub os: Vec<Os>,
    /// The user, where a job does not ask for one; the machine's default where absent.
    #[serde(default)]
    pub run_as: Option<String>,
    /// Where a job asks for none.
    #[serde(default)]
    pub limits: JobLimits,
    /// `standard` or `strict`: what is kept from it at least. A job may ask for more, and the machine's owner.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "strict")]
    pub confinement: Option<Confinement>,
    /// Names are unique. A job may set others, and give these other values.
    #[serde(default)]
    pub environment: Vec<Variable>,
}

/// An operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Os {
    Linux,
    Windows,
    Macos,
}

impl Os {
    /// The word of a header block.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Windows => "windows",
            Self::Macos => "macos",
        }
    }
}

/// Which stored script a job is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScriptRef {
    /// Its name.
    pub name: String,
    /// The newest at the time of the request where absent.
    #[serde(default)]
    pub version: Option<u64>,
}

/// Which stored script a job ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScriptUsed {
    /// Its name.
    pub name: String,
    /// Counted from 1.
    pub version: u64,
}

/// A script in the library.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Script {
    /// Its name.
    pub name: String,
    /// The tenant's name.
    pub tenant: String,
    /// Of its newest version.
    pub description: String,
    /// RFC 3339.
    pub created_at: String,
    /// The operator who added it.
    pub created_by: String,
    /// RFC 3339; null where it is not archived.
    pub archived_at: Option<String>,
    /// The operator who archived it.
    pub archived_by: Option<String>,
    /// How many versions it has; of the provider's, the number of the newest that there is.
    pub versions: u64,
    /// Of the provider's: the versions that may be run now. Null where it is the tenant's own.
    #[serde(default)]
    pub offered: Option<Vec<u64>>,
    /// Its newest version.
    pub latest: ScriptVersion,
}

/// A version of a script. It never changes; its text can be erased.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScriptVersion {
    /// The script's name.
    pub name: String,
    /// Counted from 1.
    pub version: u64,
    /// The tenant's name.
    pub tenant: String,
    /// For people.
    pub description: String,
    /// Of the bytes added.
    #[schema(value_type = String)]
    pub script_sha256: Digest,
    /// In bytes.
    pub size: u64,
    /// Null where the `#!` line says it.
    pub interpreter: Option<String>,
    /// The systems it is for, `linux`, `windows` or `macos`; any where empty.
    pub os: Vec<String>,
    /// What its header block or entry declares, in that order. Empty once its text is erased.
    pub parameters: Vec<Parameter>,
    /// What else that requires of a machine. Empty once its text is erased.
    pub requires: Requires,
    /// The user, where a job does not ask for one.
    pub run_as: Option<String>,
    /// Where a job asks for none.
    pub limits: JobLimits,
    /// `standard` or `strict`: what is kept from it at least; null where the version asks for nothing.
    #[schema(value_type = Option<String>)]
    pub confinement: Option<Confinement>,
    /// What a job starts from.
    pub environment: Vec<Variable>,
    /// RFC 3339.
    pub created_at: String,
    /// The operator who added it.
    pub created_by: String,
    /// RFC 3339; null where its text was not erased.
    pub redacted_at: Option<String>,
    /// The operator who erased it.
    pub redacted_by: Option<String>,
}

/// The answer to `GET /v1/scripts/{script}/versions/{version}`: a version with its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScriptText {
    /// What there is to say about it.
    #[serde(flatten)]
    pub version: ScriptVersion,
    /// The bytes added; null once they are erased.
    pub script: Option<Base64>,
    /// The parameters that were added beside it, as TOML; null where its header block declares them, or nothing does, and
    /// once they are erased.
    pub declaration: Option<String>,
}

/// A parameter, as it is declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// `text`, `integer`, `decimal`, `boolean`, `choice`, `list`, `path` or `secret`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether a value must be given where there is no default.
    pub required: bool,
    /// The value where none is given.
    #[schema(value_type = Option<Object>)]
    pub default: Option<serde_json::Value>,
    /// A regular expression that the whole value must match.
    pub pattern: Option<String>,
    /// The smallest number, length in characters, or number of entries.
    pub min: Option<f64>,
    /// The largest, likewise.
    pub max: Option<f64>,
    /// What may be chosen.
    pub choices: Vec<String>,
    /// `env`, `argument` or `placeholder`.
    #[serde(rename = "as")]
    pub delivery: String,
    /// For people.
    pub description: Option<String>,
}

/// What a script requires of a machine, besides its system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Requires {
    /// `x86_64`, `aarch64` ...; any of them will do.
    pub arch: Vec<String>,
    /// Commands that must all be there.
    pub commands: Vec<String>,
    /// A version of the script's own interpreter, for example `>=3.9`.
    pub interpreter: Option<String>,
    /// A user that must exist.
    pub user: Option<String>,
    /// Free space where scripts run.
    #[schema(value_type = Option<String>, example = "1GiB")]
    pub disk: Option<ByteSize>,
    /// Memory that is available.
    #[schema(value_type = Option<String>, example = "256MiB")]
    pub memory: Option<ByteSize>,
}

/// The answer to `POST /v1/scripts/{script}/versions/{version}/redact`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Redacted {
    /// The versions whose text is erased now: the one that was named, and every other one with the same bytes.
    pub redacted: Vec<ScriptUsed>,
    /// How many operations of theirs had not started, and were told not to.
    pub canceled: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_needs_a_name_and_a_script_and_refuses_what_it_does_not_know() {
        let request: AddScript = serde_json::from_str(
            r#"{"name":"a","script":"aGk=","os":["linux","macos"],"limits":{"time":"30s"}}"#,
        )
        .expect("reads");
        assert_eq!(request.os, [Os::Linux, Os::Macos]);
        for wrong in [
            r#"{"script":"aGk="}"#,
            r#"{"name":"a"}"#,
            r#"{"name":"a","script":"aGk=","os":["beos"]}"#,
            r#"{"name":"a","script":"aGk=","as":"root"}"#,
        ] {
            assert!(serde_json::from_str::<AddScript>(wrong).is_err(), "{wrong}");
        }
    }
}
