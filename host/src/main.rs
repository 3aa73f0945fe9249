//! `sluice-host`: sets a host up, and runs it.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use sluice_host::clock::{SystemClock, UnixMillis};
use sluice_host::config::Config;
use sluice_host::server::{self, Options};
use sluice_host::{init, rest, restored};
use tracing_subscriber::EnvFilter;

/// The Sluice host: operators ask it, machines connect to it.
#[derive(Debug, Parser)]
#[command(name = "sluice-host", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set a host up in a new folder. Prints the first operator's token, and nothing else, on stdout.
    Init {
        /// The folder for everything that the host keeps.
        #[arg(long)]
        data: PathBuf,
    },
    /// Run the host. Prints `ready agents=ADDR:PORT api=URL` once it can be reached. SIGTERM and SIGINT stop it.
    Serve {
        /// The folder that `init` made.
        #[arg(long)]
        data: PathBuf,
        /// Where machines connect (UDP) [default: 0.0.0.0:7443].
        #[arg(long, value_name = "ADDR:PORT")]
        agents: Option<SocketAddr>,
        /// Where operators connect (TCP; anything but loopback is TLS) [default: 127.0.0.1:7480].
        #[arg(long, value_name = "ADDR:PORT")]
        api: Option<SocketAddr>,
        /// The host's address as machines reach it, for enrollment tokens; may be given more than once.
        #[arg(long, value_name = "ADDR:PORT")]
        advertise: Vec<String>,
        /// Another database than the file in the folder.
        #[arg(long, value_name = "URL")]
        database: Option<String>,
        /// What the command line does not say.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Say that the folder came from a backup: it begins another epoch, which is on the record, here and on every machine.
    /// The host must not run. Machines start nothing again that they know as ended.
    Restored {
        /// The folder that `init` made.
        #[arg(long)]
        data: PathBuf,
    },
    /// Print the description of the REST API (host/openapi.json).
    Openapi,
}

#[tokio::main]
async fn main() -> ExitCode {
    log();
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-host: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init { data } => {
            let token = init::init(&data, UnixMillis::now()).await?;
            writeln!(std::io::stdout(), "{}", token.reveal())
                .context("cannot print the token; remove the folder and try again")
        }
        Command::Serve {
            data,
            agents,
            api,
            advertise,
            database,
            config,
        } => {
            if let Some(url) = database {
                bail!(
                    "--database {url}: not implemented in this version; the host keeps its own file in --data"
                );
            }
            let config = config
                .map(|path| Config::read(&path))
                .transpose()?
                .unwrap_or_default();
            let options = Options {
                data,
                agents: agents
                    .or(config.agents)
                    .unwrap_or(SocketAddr::from(([0, 0, 0, 0], 7443))),
                api: api
                    .or(config.api)
                    .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7480))),
                advertise: if advertise.is_empty() {
                    config.advertise
                } else {
                    advertise
                },
                tls: config.tls,
                gate_runner: config.gate_runner,
            };
            Ok(server::serve(options, Arc::new(SystemClock)).await?)
        }
        Command::Restored { data } => {
            let epoch = restored::restored(&data, UnixMillis::now()).await?;
            writeln!(std::io::stdout(), "epoch={epoch}").context("cannot print the epoch")
        }
        Command::Openapi => Ok(write!(std::io::stdout(), "{}", rest::openapi_text()?)?),
    }
}

/// Human on a terminal, JSON otherwise; on stderr, because stdout is for programs.
fn log() {
    let filter = EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init()
    } else {
        builder.json().init()
    }
}
