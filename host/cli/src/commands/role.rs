//! `sluice role`: what operators may do, as policies in Cedar.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use sluice_api_types::role::{Role, SetRole};

use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, Inert, List};

/// More than a role may have, so that an endless file is not read to its end.
const LONGEST: u64 = 64 << 10;

/// Commands about roles.
#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// List roles: those that every host has, and the tenant's own
    List {
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Print a role's policies
    Show {
        /// Its name
        name: String,
    },
    /// Make a role, or give one other policies; whoever has it has them from then on
    Set {
        /// Its name: lower-case letters, digits and -
        name: String,
        /// The policies, in Cedar: a file, or - for stdin
        file: PathBuf,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Remove a role that nobody has
    Remove {
        /// Its name
        name: String,
    },
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: RoleCommand) -> Result<u8, Error> {
    match command {
        RoleCommand::List { tenant } => {
            let mut list = List::new(&["name", "origin", "gives", "forbids"], global.json);
            let each = |roles: Vec<Role>| {
                list.write(&roles, |role| {
                    vec![
                        role.name.clone(),
                        if role.shipped { "shipped" } else { "own" }.to_owned(),
                        role.gives.join(","),
                        role.forbids.join(","),
                    ]
                })?;
                Ok(true)
            };
            let query = [("tenant", tenant.as_deref())];
            let client = Client::new(global)?;
            client.pages(&["roles"], &query, None, None, each).await?;
        }
        RoleCommand::Show { name } => {
            let client = Client::new(global)?;
            let role: Role = client.get(&["roles", &name])?.json().await?;
            if global.json {
                output::json_line(&role)?;
            } else {
                output::print(&Inert::default().push(role.policy.as_bytes()))?;
            }
        }
        RoleCommand::Set { name, file, tenant } => {
            let request = SetRole {
                policy: read(&file)?,
                tenant,
            };
            let client = Client::new(global)?;
            let put = client.put(&["roles", &name])?.body(&request);
            let role: Role = put.json().await?;
            if global.json {
                output::json_line(&role)?;
            } else {
                let gives = role.gives.join(", ");
                output::print(&format!("set role {} (gives {gives})\n", role.name))?;
            }
        }
        RoleCommand::Remove { name } => {
            let client = Client::new(global)?;
            client.delete(&["roles", &name])?.send().await?;
            if !global.json {
                output::print(&format!("removed role {name}\n"))?;
            }
        }
    }
    Ok(exit::SUCCESS)
}

fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(LONGEST)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text))
    };
    read.map_err(Error::read(path))?;
    Ok(text)
}
