//! Which gates a host binds to a machine. The agent verifies every claim in here against the component's own bytes, the
//! publisher's signature and the owner's policy.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::BindingId;
use crate::report::Mode;
use crate::script::Language;

/// All gates that a host binds to one machine. A later revision replaces an earlier one whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSet {
    /// Grows with every change.
    pub revision: u64,
    /// The publishers that the tenant trusts, written `ed25519:<base64>`. The machine pins the first list it sees.
    pub publishers: Vec<String>,
    /// In the order in which their answers are listed.
    pub bindings: Vec<GateBinding>,
}

/// A plugin put to use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateBinding {
    /// The binding's id.
    pub binding: BindingId,
    /// Which change of the binding this is, counted from 1. Where it cannot be used, a machine goes on with the one before.
    pub revision: u64,
    /// The plugin's id, as its manifest has it.
    pub plugin: String,
    /// The digest of the component, which is fetched as a blob.
    pub component: Digest,
    /// The component's size in bytes.
    pub size: u64,
    /// The publisher's signature file.
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
    /// Validated against the manifest's schema on both sides, sorted by key.
    pub settings: Vec<Setting>,
    /// Whether it can block.
    pub mode: Mode,
    /// What one call may use, where that is less than the plugin asks for.
    #[serde(default, skip_serializing_if = "GateLimits::is_empty")]
    pub limits: GateLimits,
    /// The languages of the scripts that it is asked about: all where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<Language>,
}

impl GateBinding {
    /// Whether the gate is asked about scripts in this language.
    #[must_use]
    pub fn is_about(&self, language: Language) -> bool {
        is_among(&self.languages, language)
    }
}

/// Whether a gate that is bound for these languages is asked about scripts in this one. Where nobody knows the language it
/// is: what has a name of its own must not get around a gate.
#[must_use]
pub fn is_among(languages: &[Language], language: Language) -> bool {
    languages.is_empty() || language == Language::Unknown || languages.contains(&language)
}

/// Limits of one call of a gate; what is absent stays as the plugin asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateLimits {
    /// Units of fuel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<u64>,
}

impl GateLimits {
    /// Whether nothing is limited further.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A setting and its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The setting's id.
    pub key: String,
    /// Its value.
    pub value: SettingValue,
}

/// The types of settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the words say it")]
pub enum SettingValue {
    Boolean(bool),
    Integer(i64),
    Decimal(f64),
    Text(String),
    Texts(Vec<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_for_some_languages_is_asked_about_those_and_about_what_nobody_knows() {
        let shells = [Language::Shell];
        for (languages, language, asked) in [
            (&[][..], Language::Ruby, true),
            (&shells, Language::Shell, true),
            (&shells, Language::Python, false),
            (&shells, Language::Unknown, true),
        ] {
            assert_eq!(
                is_among(languages, language),
                asked,
                "{languages:?} {language:?}"
            );
        }
    }
}
