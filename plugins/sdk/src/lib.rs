//! Everything that a Sluice gate written in Rust needs.
//!
//! A gate is a type that implements one of four traits, and one macro that makes it a component:
//!
//! | stage | trait | macro | `world` in `plugin.toml` |
//! |---|---|---|---|
//! | environment | [`Environment`] | [`export_environment!`] | `environment-plugin` |
//! | prepare | [`Preparer`] | [`export_preparer!`] | `preparer-plugin` |
//! | scan | [`Scanner`] | [`export_scanner!`] | `scanner-plugin` |
//! | policy | [`Policy`] | [`export_policy!`] | `policy-plugin` |
//!
//! `configure` makes the value of the type, once, when the plugin is bound. The runtime takes a snapshot of the memory
//! right after, so whatever `configure` computes (compiled rules, parsed lists) is free for every later call. All other
//! calls get `&self` and are pure functions of it and their input.
//!
//! A whole scanner:
//!
//! ```
//! use sluice_plugin_sdk::{export_scanner, prelude::*};
//!
//! /// Reports a word that has no place in a script.
//! struct Words {
//!     word: String,
//! }
//!
//! impl Scanner for Words {
//!     fn configure(settings: &Settings, _data: &[DataPack]) -> Result<Self, GateError> {
//!         Ok(Self { word: settings.text("word")?.unwrap_or("forbidden").to_owned() })
//!     }
//!
//!     fn scan(&self, bundle: &Bundle, _job: &Job) -> Result<Vec<Finding>, GateError> {
//!         let mut findings = Vec::new();
//!         for part in bundle.texts() {
//!             for (start, found) in part.text.match_indices(&self.word) {
//!                 let message = format!("the word `{found}` is used");
//!                 findings.push(Finding::new("word", Severity::High, message).at(&part, start..start + found.len()));
//!             }
//!         }
//!         Ok(findings)
//!     }
//! }
//!
//! export_scanner!(Words);
//!
//! # fn main() -> Result<(), GateError> {
//! let scanner = Words::configure(&Settings::default(), &[])?;
//! let bundle = Bundle::of_script("shell", "echo forbidden");
//! assert_eq!(scanner.scan(&bundle, &Job::default())?.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! Natively (`cargo test`) everything works as above; the exports exist only where the target is WebAssembly, and log
//! lines go nowhere.

pub mod attributes;
pub mod bindings;
pub mod bundle;
mod export;
pub mod finding;
pub mod gate;
pub mod log;
pub mod settings;

pub use bindings::sluice::gate::types;
pub use gate::{Environment, Policy, Preparer, Scanner};
pub use settings::Settings;

/// What nearly every plugin names.
pub mod prelude {
    pub use crate::attributes::Attributes;
    pub use crate::bundle::TextPart;
    pub use crate::gate::{Environment, Policy, Preparer, Scanner};
    pub use crate::log;
    pub use crate::settings::Settings;
    pub use crate::types::{
        Attachment, Attribute, Binding, Bundle, Check, CheckStatus, Confidence, DataPack, Decision,
        Destination, Finding, GateError, Job, Origin, Parameter, ParameterProblem, Plan, Planned,
        Prepared, Reason, Review, Script, SettingsProblem, Severity, Span, Value, Verdict,
    };
}
