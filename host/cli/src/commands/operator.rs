//! `sluice operator`: who acts.

use clap::Subcommand;
use sluice_api_types::operator::{CreateOperator, Operator, PatchOperator};

use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// Commands about operators.
#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Make an operator with roles; tokens of theirs come from `sluice token create --operator`
    Create {
        /// The name, as it will stand in the audit log
        name: String,
        /// A role, for example helpdesk (sluice role list); may be repeated
        #[arg(
            long = "role",
            value_name = "ROLE",
            required = true,
            value_delimiter = ','
        )]
        roles: Vec<String>,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// List operators with their roles
    List {
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Give an operator other roles in place of those that they have
    Roles {
        /// The operator's name
        name: String,
        /// A role; may be repeated
        #[arg(
            long = "role",
            value_name = "ROLE",
            required = true,
            value_delimiter = ','
        )]
        roles: Vec<String>,
    },
    /// Remove an operator; their tokens are good for nothing from then on
    Remove {
        /// The operator's name
        name: String,
    },
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: OperatorCommand) -> Result<u8, Error> {
    let client = Client::new(global)?;
    match command {
        OperatorCommand::Create {
            name,
            roles,
            tenant,
        } => {
            let request = CreateOperator {
                name,
                roles,
                tenant,
            };
            let made = client.post(&["operators"])?.body(&request).json().await?;
            told(global, "made", &made)?;
        }
        OperatorCommand::List { tenant } => {
            let mut list = List::new(&["name", "roles", "permissions", "created"], global.json);
            let each = |operators: Vec<Operator>| {
                list.write(&operators, |operator| {
                    vec![
                        operator.name.clone(),
                        operator.roles.join(","),
                        operator.permissions.join(","),
                        operator.created_at.clone(),
                    ]
                })?;
                Ok(true)
            };
            let query = [("tenant", tenant.as_deref())];
            client
                .pages(&["operators"], &query, None, None, each)
                .await?;
        }
        OperatorCommand::Roles { name, roles } => {
            let request = PatchOperator { roles };
            let patch = client.patch(&["operators", &name])?.body(&request);
            told(global, "changed", &patch.json().await?)?;
        }
        OperatorCommand::Remove { name } => {
            client.delete(&["operators", &name])?.send().await?;
            if !global.json {
                output::print(&format!("removed operator {name}\n"))?;
            }
        }
    }
    Ok(exit::SUCCESS)
}

fn told(global: &Global, done: &str, operator: &Operator) -> Result<(), Error> {
    if global.json {
        output::json_line(operator)
    } else {
        let Operator { name, roles, .. } = operator;
        output::print(&format!("{done} operator {name} ({})\n", roles.join(", ")))
    }
}
