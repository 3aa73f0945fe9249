//! The commands, and who does them.

use std::path::PathBuf;

use clap::Subcommand;
use sluice_gate_types::manifest::{Version, World};
use sluice_gate_types::signature::PublicKey;
use sluice_protocol::units::Span;

use super::new::{Language, PluginName};
use super::{
    backtest, bench, binding, build, inspect, install, new, publisher, replay, sign, test,
};
use crate::command_line::Global;
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
    /// Put a plugin to use, and print the binding's id; one that is bound gets a new revision, as is said here
    Bind(binding::Bind),
    /// End a binding
    Unbind {
        /// The binding's id, as in list --bindings
        binding: String,
    },
    /// List what a binding was, is, and was meant to be
    Revisions {
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
    /// Show what a component says about itself and what its bytes show, without running it
    Inspect {
        /// The component
        file: PathBuf,
    },
    /// Start a plugin: a folder that builds as it is
    New {
        /// The plugin's id, and the folder's name: lower-case words joined by dashes
        #[arg(value_name = "NAME")]
        name: PluginName,
        /// rust (c, python and js are not implemented in this version)
        #[arg(long, default_value = "rust", value_parser = new::language)]
        lang: Language,
        /// scanner, environment, preparer or policy
        #[arg(long, default_value = "scanner", value_parser = new::world)]
        world: World,
        /// The SDK's folder in a checkout of Sluice; absent: the SDK of this version is put into the plugin's folder.
        /// [env: SLUICE_SDK]
        #[arg(long, value_name = "PATH")]
        sdk: Option<PathBuf>,
    },
    /// Build the plugin in a folder, and print the component's digest
    Build {
        /// A folder with plugin.toml and Cargo.toml
        #[arg(value_name = "DIR", default_value = ".")]
        folder: PathBuf,
    },
    /// Run a plugin's test cases, behind the walls and under the limits that it will have; a folder is built before
    Test {
        /// A plugin's folder, or a component
        #[arg(value_name = "DIR|FILE.wasm", default_value = ".")]
        plugin: PathBuf,
        /// Where the cases are (cases/ beside the component where absent)
        #[arg(long, value_name = "DIR")]
        cases: Option<PathBuf>,
    },
    /// Ask a plugin about its test cases again and again, and print what an answer costs
    Bench {
        /// A plugin's folder, which is built before, or a component
        #[arg(value_name = "DIR|FILE.wasm", default_value = ".")]
        plugin: PathBuf,
        /// Where the cases are (cases/ beside the component where absent)
        #[arg(long, value_name = "DIR")]
        cases: Option<PathBuf>,
        /// How often each case is asked about
        #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        calls: u32,
    },
    /// Ask the gates of an operation again what they were asked, and compare: the same verdict, and with the same runtime the
    /// same fuel
    Replay {
        /// The operation's id, as in sluice job show
        operation: String,
        /// Only receipts of the plugin with this id
        #[arg(long, value_name = "ID")]
        plugin: Option<String>,
        /// Settings, as TOML, of a gate of the machine's owner, which the host does not know
        #[arg(long, value_name = "FILE.toml")]
        settings: Option<PathBuf>,
    },
    /// Show which of the last operations would be decided otherwise with this plugin or these settings; changes nothing
    Backtest {
        /// A plugin's id (its newest installed version), or the digest of its component
        #[arg(value_name = "ID|DIGEST")]
        plugin: String,
        /// Settings, as TOML; absent: those of the bindings whose place it takes
        #[arg(long, value_name = "FILE.toml")]
        settings: Option<PathBuf>,
        /// How many jobs to look at, the last ones
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        last: u32,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: PluginCommand) -> Result<u8, Error> {
    match command {
        PluginCommand::Trust { key, tenant } => publisher::trust(global, key, tenant).await,
        PluginCommand::Untrust { key, tenant } => {
            publisher::untrust(global, key, tenant.as_deref()).await
        }
        PluginCommand::Install { file, tenant } => install::install(global, &file, tenant).await,
        PluginCommand::Bind(bind) => binding::bind(global, bind).await,
        PluginCommand::Unbind { binding } => binding::unbind(global, &binding).await,
        PluginCommand::Revisions { binding } => binding::revisions(global, &binding).await,
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
        PluginCommand::Inspect { file } => inspect::inspect(global.json, &file).await,
        PluginCommand::New {
            name,
            lang,
            world,
            sdk,
        } => new::new(global.json, &name, lang, world, sdk),
        PluginCommand::Build { folder } => build::build(global.json, &folder),
        PluginCommand::Test { plugin, cases } => {
            test::test(global.json, &plugin, cases.as_deref()).await
        }
        PluginCommand::Bench {
            plugin,
            cases,
            calls,
        } => bench::bench(global.json, &plugin, cases.as_deref(), calls).await,
        PluginCommand::Replay {
            operation,
            plugin,
            settings,
        } => replay::replay(global, &operation, plugin, settings.as_deref()).await,
        PluginCommand::Backtest {
            plugin,
            settings,
            last,
            tenant,
        } => backtest::backtest(global, &plugin, settings.as_deref(), last, tenant).await,
    }
}
