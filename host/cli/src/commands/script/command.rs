//! The commands, and who does them.

use std::path::PathBuf;

use clap::Subcommand;

use super::add::{self, AddArgs};
use super::{StoredScript, end, import, show};
use crate::command_line::Global;
use crate::error::Error;

/// Commands about stored scripts.
#[derive(Debug, Subcommand)]
pub(crate) enum ScriptCommand {
    /// Add a script, or a new version of one, and print it as NAME@VERSION
    Add(Box<AddArgs>),
    /// Add every script in a folder, named after its file
    Import {
        /// Files in it that start with #! are added; all else is skipped
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// List scripts
    List {
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Show a script, or one version of it
    Show {
        /// The newest version where none is given
        #[arg(value_name = "NAME[@VERSION]")]
        script: StoredScript,
        /// Print the text, and nothing else
        #[arg(long)]
        text: bool,
    },
    /// List the versions of a script
    Versions {
        /// Its name
        #[arg(value_name = "NAME")]
        script: String,
    },
    /// Put a script away for good: nothing of it is started any more, what ran stays
    Archive {
        /// Its name
        #[arg(value_name = "NAME")]
        script: String,
    },
    /// Erase the text of a version for good; its digest and what ran stay
    Redact {
        /// The version must be given
        #[arg(value_name = "NAME@VERSION")]
        script: StoredScript,
    },
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: ScriptCommand) -> Result<u8, Error> {
    match command {
        ScriptCommand::Add(arguments) => add::add(global, *arguments).await,
        ScriptCommand::Import { folder, tenant } => import::import(global, &folder, tenant).await,
        ScriptCommand::List { tenant } => show::list(global, tenant.as_deref()).await,
        ScriptCommand::Show { script, text: true } => show::text(global, &script).await,
        ScriptCommand::Show { script, .. } => show::show(global, &script).await,
        ScriptCommand::Versions { script } => show::versions(global, &script).await,
        ScriptCommand::Archive { script } => end::archive(global, &script).await,
        ScriptCommand::Redact { script } => end::redact(global, &script).await,
    }
}
