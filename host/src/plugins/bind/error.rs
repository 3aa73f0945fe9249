//! Why a binding is not made, changed or ended.

use sluice_gate_client::BindError as ClientError;
use sluice_gate_types::answer::SettingsProblem;
use sluice_gate_types::manifest::Version;
use sluice_gate_types::signature::SignatureError;
use sluice_protocol::ids::BindingId;

use super::MOST_BINDINGS;
use crate::blobs::BlobError;
use crate::operators::Denied;
use crate::plugins::judge::NotAllowed;
use crate::plugins::{install, settings};
use crate::store::StoreError;

/// A binding was not made or removed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Unknown, or another tenant's: the answer is the same.
    #[error("no plugin {} is installed; install it first (sluice plugin install)", .0.escape_debug())]
    NoPlugin(String),
    /// Unknown, or another tenant's.
    #[error("there is no binding {0}")]
    NoBinding(BindingId),
    /// Its publisher is not trusted any more, or its signature is no longer good.
    #[error("{0}{advice}; nothing was bound", advice = install::advice(.0))]
    Signature(#[from] SignatureError),
    /// A newer one was put to use, whose publisher lets nobody go back.
    #[error(
        "{id} {version} may not be used any more: its publisher lets nobody go back below {minimum}, and no machine takes it; nothing was bound"
    )]
    Downgrade {
        /// The plugin.
        id: String,
        /// What was asked for.
        version: Version,
        /// What is needed.
        minimum: Version,
    },
    /// More bindings than one message carries.
    #[error("a tenant has at most {MOST_BINDINGS} bindings; unbind one first; nothing was bound")]
    TooMany,
    /// Larger settings than one message carries.
    #[error(
        "the settings have more than {} bytes; nothing was bound",
        settings::LARGEST
    )]
    TooLarge,
    /// A setting of a type that no setting has.
    #[error("the setting {} must be text, a number, true or false, or a list of texts; nothing was bound", .0.escape_debug())]
    SettingType(String),
    /// More than the plugin gets.
    #[error("the limits are not valid: {}; nothing was bound", .0.join("; "))]
    Limits(Vec<String>),
    /// The gate would keep less than it does, and that needs more than the permission to manage plugins.
    #[error("{denied}: {what} a gate that blocks is weakened")]
    Weaker {
        /// What is missing.
        denied: Denied,
        /// By what.
        what: &'static str,
    },
    /// The id of a binding that is of something else.
    #[error("the binding {binding} is of {of}, not of {plugin}; nothing was bound")]
    OtherPlugin {
        /// Which.
        binding: BindingId,
        /// Its plugin.
        of: String,
        /// What was asked for.
        plugin: String,
    },
    /// Which one is meant is not clear.
    #[error(
        "{0} has several bindings with this scope; say which one is meant (--binding ID); nothing was bound"
    )]
    Several(String),
    /// Somebody else was faster.
    #[error("the binding {0} was changed meanwhile; look at it and try again; nothing was bound")]
    Changed(BindingId),
    /// There is a revision before, and it goes on.
    #[error("{error}; revision {revision} of binding {binding} stays active")]
    Stays {
        /// What is wrong with the new one.
        error: Box<Self>,
        /// The binding.
        binding: BindingId,
        /// What is in force.
        revision: u64,
    },
    /// The schema says no.
    #[error("the settings are not valid: {}; nothing was bound", join(.0))]
    Settings(Vec<SettingsProblem>),
    /// The plugin itself says no, or cannot be asked.
    #[error("{0}; nothing was bound")]
    Refused(#[from] ClientError),
    /// The stored manifest cannot be read.
    #[error("the stored manifest cannot be read: {0}")]
    Manifest(String),
    /// The file system.
    #[error("the plugin's bytes cannot be read")]
    Blob(#[from] BlobError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<NotAllowed> for BindError {
    fn from(error: NotAllowed) -> Self {
        match error {
            NotAllowed::Signature(error) => Self::Signature(error),
            NotAllowed::Downgrade {
                id,
                version,
                minimum,
            } => Self::Downgrade {
                id,
                version,
                minimum,
            },
        }
    }
}

fn join(problems: &[SettingsProblem]) -> String {
    problems
        .iter()
        .map(|problem| format!("{} {}", problem.key, problem.message))
        .collect::<Vec<_>>()
        .join("; ")
}
