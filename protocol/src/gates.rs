//! Which gates a host binds to a machine. The agent verifies every claim in here against the component's own bytes, the
//! publisher's signature and the owner's policy.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::BindingId;
use crate::report::Mode;

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
