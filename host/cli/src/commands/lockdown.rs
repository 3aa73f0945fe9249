//! `sluice lockdown`: nothing starts on any machine of the host, until that is lifted.

use clap::Subcommand;
use reqwest::Method;
use sluice_api_types::lockdown::{Lockdown, StartLockdown};

use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output;

/// Commands about the lockdown.
#[derive(Debug, Subcommand)]
pub(crate) enum LockdownCommand {
    /// Refuse new jobs, deliver nothing, fire no schedule, for all tenants of the host
    On {
        /// One line for the record and for whoever is refused
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// End what has not ended, too
        #[arg(long)]
        cancel: bool,
    },
    /// Lift the lockdown; what waited is delivered
    Off,
    /// Say whether the host is locked down
    Show,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: LockdownCommand) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let path = ["lockdown"];
    let request = match command {
        LockdownCommand::On { reason, cancel } => client
            .request(Method::PUT, &path)?
            .body(&StartLockdown { reason, cancel }),
        LockdownCommand::Off => client.delete(&path)?,
        LockdownCommand::Show => client.get(&path)?,
    };
    let lockdown: Lockdown = request.json().await?;
    if global.json {
        output::json_line(&lockdown)?;
    } else {
        output::print(&describe(&lockdown))?;
    }
    Ok(exit::SUCCESS)
}

fn describe(lockdown: &Lockdown) -> String {
    let canceled = Some(lockdown.canceled)
        .filter(|count| *count > 0)
        .map(|count| format!("{count} operations that had not ended"));
    output::record(&[
        (
            "lockdown",
            Some(if lockdown.on { "on" } else { "off" }.to_owned()),
        ),
        ("since", lockdown.since.clone()),
        ("operator", lockdown.operator.clone()),
        ("reason", lockdown.reason.clone()),
        ("canceled", canceled),
    ])
}
