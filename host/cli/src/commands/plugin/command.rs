//! The commands, and who does them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Subcommand;
use sluice_gate_types::manifest::Version;
use sluice_gate_types::signature::PublicKey;
use sluice_protocol::report::Mode;
use sluice_protocol::units::Span;

use super::{binding, install, publisher, sign};
use crate::command_line::Global;
use crate::commands::run::KeyValue;
use crate::error::Error;

/// Commands about plugins.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Trust a publisher: their plugins may be installed
    Trust {
        /// Written ed25519:<base64>
        key: PublicKey,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Trust a publisher no longer
    Untrust {
        /// Written ed25519:<base64>
        key: PublicKey,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Install a component with the signature beside it (FILE.sig), and print its digest
    Install {
        /// The component
        #[arg(value_name = "FILE|oci://...")]
        file: PathBuf,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Put a plugin to use, and print the binding's id
    Bind {
        /// A plugin's id, or the digest of its component
        #[arg(value_name = "ID|DIGEST")]
        plugin: String,
        /// Settings, as TOML
        #[arg(long, value_name = "FILE.toml")]
        settings: Option<PathBuf>,
        /// enforce, or monitor to try it without blocking
        #[arg(long, default_value = "enforce", value_parser = mode)]
        mode: Mode,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
        /// Only on machines with this tag; of several a machine needs all
        #[arg(long, value_name = "K=V")]
        tag: Vec<KeyValue>,
    },
    /// End a binding
    Unbind {
        /// The binding's id, as in list --bindings
        binding: String,
    },
    /// List installed plugins, bindings, or trusted publishers
    List {
        /// Plugins in use
        #[arg(long, conflicts_with = "publishers")]
        bindings: bool,
        /// Whose plugins may be installed
        #[arg(long)]
        publishers: bool,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Sign a component
    Sign {
        /// The component
        file: PathBuf,
        /// The publisher's private key: Ed25519, as PKCS#8 (DER or PEM) or its seed of 32 bytes
        #[arg(long, value_name = "KEYFILE")]
        key: PathBuf,
        /// Where the signature goes (FILE.sig where absent)
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// How long the signature is good
        #[arg(long, value_name = "D", default_value = "365d")]
        expires: Span,
        /// Whoever takes this version takes none below this one afterwards (the version itself where absent)
        #[arg(long, value_name = "VERSION")]
        minimum_version: Option<Version>,
    },
    /// Show what a component says about itself (not implemented in this version)
    Inspect {
        /// The component
        file: PathBuf,
    },
    /// Start a plugin (not implemented in this version)
    #[command(hide = true, disable_help_flag = true)]
    New(Later),
    /// Build a plugin (not implemented in this version)
    #[command(hide = true, disable_help_flag = true)]
    Build(Later),
    /// Run a plugin's test cases (not implemented in this version)
    #[command(hide = true, disable_help_flag = true)]
    Test(Later),
    /// Run a receipt again (not implemented in this version)
    #[command(hide = true, disable_help_flag = true)]
    Replay(Later),
    /// Run a plugin on past operations (not implemented in this version)
    #[command(hide = true, disable_help_flag = true)]
    Backtest(Later),
}

/// Whatever stands behind a command that a later version will have.
#[derive(Debug, clap::Args)]
pub(crate) struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<OsString>,
}

fn mode(word: &str) -> Result<Mode, String> {
    match word {
        "enforce" => Ok(Mode::Enforce),
        "monitor" => Ok(Mode::Monitor),
        _ => Err("enforce or monitor".to_owned()),
    }
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: PluginCommand) -> Result<u8, Error> {
    match command {
        PluginCommand::Trust { key, tenant } => publisher::trust(global, key, tenant).await,
        PluginCommand::Untrust { key, tenant } => {
            publisher::untrust(global, key, tenant.as_deref()).await
        }
        PluginCommand::Install { file, tenant } => install::install(global, &file, tenant).await,
        PluginCommand::Bind {
            plugin,
            settings,
            mode,
            tenant,
            tag,
        } => binding::bind(global, plugin, settings.as_deref(), mode, tenant, tag).await,
        PluginCommand::Unbind { binding } => binding::unbind(global, &binding).await,
        PluginCommand::List {
            bindings: true,
            tenant,
            ..
        } => binding::list(global, tenant.as_deref()).await,
        PluginCommand::List {
            publishers: true,
            tenant,
            ..
        } => publisher::list(global, tenant.as_deref()).await,
        PluginCommand::List { tenant, .. } => install::list(global, tenant.as_deref()).await,
        PluginCommand::Sign {
            file,
            key,
            out,
            expires,
            minimum_version,
        } => sign::sign(global.json, &file, &key, out, expires, minimum_version),
        PluginCommand::Inspect { .. } => Err(Error::NotImplemented("sluice plugin inspect")),
        PluginCommand::New(_) => Err(Error::NotImplemented("sluice plugin new")),
        PluginCommand::Build(_) => Err(Error::NotImplemented("sluice plugin build")),
        PluginCommand::Test(_) => Err(Error::NotImplemented("sluice plugin test")),
        PluginCommand::Replay(_) => Err(Error::NotImplemented("sluice plugin replay")),
        PluginCommand::Backtest(_) => Err(Error::NotImplemented("sluice plugin backtest")),
    }
}
