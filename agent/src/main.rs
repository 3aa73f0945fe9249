//! `sluice-agent`: enroll a machine, run the agent, look at its own record.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use sluice_agent::ledger::Ledger;
use sluice_agent::state::StateDirectory;
use sluice_agent::{audit, enroll, supervisor};
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::enroll::Token;
use tracing_subscriber::fmt::format::FmtSpan;

#[derive(Parser)]
#[command(
    name = "sluice-agent",
    version,
    about = "Runs scripts that the gates of this machine let pass"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join a host with a token from `sluice machine enroll-token`
    Enroll {
        /// The token, or - to read it from standard input, or @FILE
        token: String,
        /// Where this machine keeps its identity and ledger
        #[arg(long)]
        state: PathBuf,
        /// The name to ask for instead of the host name
        #[arg(long)]
        name: Option<String>,
    },
    /// Run the agent
    Run {
        /// Where this machine keeps its identity and ledger
        #[arg(long)]
        state: PathBuf,
        /// The owner's policy
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Print what the gates of this machine were asked and said: one line of JSON for each of the last operations
    Receipts {
        /// Where this machine keeps its identity and ledger
        #[arg(long)]
        state: PathBuf,
        /// Only of this operation
        #[arg(long, value_name = "ID")]
        operation: Option<OperationId>,
    },
    /// Look at the machine's own record
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Print every entry as a line of JSON
    List {
        /// Where this machine keeps its identity and ledger
        #[arg(long)]
        state: PathBuf,
    },
    /// Check the chain of hashes
    Verify {
        /// Where this machine keeps its identity and ledger
        #[arg(long)]
        state: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging();
    // One thread: an agent waits far more than it works, and waking a second one costs more than it would do.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime
        .context("no run time")
        .and_then(|runtime| runtime.block_on(run(arguments.command)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Enroll { token, state, name } => {
            let token: Token = read_token(&token)?.parse()?;
            let joined = enroll::join(&StateDirectory::open(&state)?, &token, name).await?;
            println!("enrolled as {} of tenant {}", joined.name, joined.tenant);
            Ok(())
        }
        Command::Run { state, config } => {
            supervisor::run(StateDirectory::open(&state)?, config).await
        }
        Command::Receipts { state, operation } => {
            for receipts in ledger(&state)?.receipts(operation).await? {
                println!("{}", serde_json::to_string(&receipts)?);
            }
            Ok(())
        }
        Command::Audit {
            command: AuditCommand::List { state },
        } => {
            for entry in ledger(&state)?.audit().await? {
                println!("{}", serde_json::to_string(&entry)?);
            }
            Ok(())
        }
        Command::Audit {
            command: AuditCommand::Verify { state },
        } => {
            let entries = ledger(&state)?.audit().await?;
            let head = audit::verify(&entries)?;
            println!(
                "audit chain verified: {} entries, head {head}",
                entries.len()
            );
            Ok(())
        }
    }
}

fn ledger(state: &std::path::Path) -> anyhow::Result<Ledger> {
    // Opening would make it.
    anyhow::ensure!(state.is_dir(), "{} is no directory", state.display());
    let path = StateDirectory::open(state)?.path("ledger.db");
    anyhow::ensure!(
        path.exists(),
        "{} does not exist: no agent has run with this state",
        path.display()
    );
    Ok(Ledger::open(&path)?)
}

/// A token on the command line can be seen by other users of the machine; `-` and `@FILE` keep it from them.
fn read_token(argument: &str) -> anyhow::Result<String> {
    if argument == "-" {
        let mut text = String::new();
        std::io::stdin()
            .take(64 << 10)
            .read_to_string(&mut text)
            .context("reading the token from standard input")?;
        return Ok(text);
    }
    match argument.strip_prefix('@') {
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("reading the token from {file}"))
        }
        None => Ok(argument.to_owned()),
    }
}

fn start_logging() {
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_| "info".into());
    // At level debug every step says how long it took.
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.init()
    } else {
        logs.json().init()
    }
}
