//! `sluice token`: operators' tokens.

use clap::Subcommand;
use sluice_api_types::token::{CreateToken, CreatedToken, Token};
use sluice_protocol::units::Span;

use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// Commands about tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it; it cannot be shown again
    Create {
        /// The token's name; without --operator also the operator's, as it will stand in the audit log
        name: String,
        /// The operator whose it is (sluice operator list). The token may do what they may; with roles or permissions
        /// no more than these of it
        #[arg(long, value_name = "O")]
        operator: Option<String>,
        /// A role, for example helpdesk; may be repeated
        #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
        roles: Vec<String>,
        /// A permission, for example RemoteExecution; may be repeated
        #[arg(long = "permission", value_name = "P", value_delimiter = ',')]
        permissions: Vec<String>,
        /// How long it is good, for example 30d (until revoked where absent)
        #[arg(long, value_name = "D")]
        expires: Option<Span>,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// List tokens
    List {
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Revoke a token
    Revoke {
        /// Its id
        id: String,
    },
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: TokenCommand) -> Result<u8, Error> {
    let client = Client::new(global)?;
    match command {
        TokenCommand::Create {
            name,
            operator,
            roles,
            permissions,
            expires,
            tenant,
        } => {
            let request = CreateToken {
                name,
                operator,
                roles,
                permissions: (!permissions.is_empty()).then_some(permissions),
                expires,
                tenant,
            };
            let created: CreatedToken = client.post(&["tokens"])?.body(&request).json().await?;
            if global.json {
                output::json_line(&created)?
            } else {
                output::print(&format!("{}\n", created.token))?
            }
        }
        TokenCommand::List { tenant } => {
            let mut list = List::new(
                &[
                    "id",
                    "name",
                    "operator",
                    "roles",
                    "permissions",
                    "created",
                    "expires",
                    "state",
                ],
                global.json,
            );
            let each = |tokens: Vec<Token>| {
                list.write(&tokens, |token| {
                    vec![
                        token.id.clone(),
                        token.name.clone(),
                        token.operator.clone(),
                        token.roles.join(","),
                        token.permissions.join(","),
                        token.created_at.clone(),
                        token.expires_at.clone().unwrap_or_default(),
                        if token.revoked { "revoked" } else { "active" }.to_owned(),
                    ]
                })?;
                Ok(true)
            };
            client
                .pages(
                    &["tokens"],
                    &[("tenant", tenant.as_deref())],
                    None,
                    None,
                    each,
                )
                .await?;
        }
        TokenCommand::Revoke { id } => {
            client.delete(&["tokens", &id])?.send().await?;
            if !global.json {
                output::print(&format!("revoked token {id}\n"))?;
            }
        }
    }
    Ok(exit::SUCCESS)
}
