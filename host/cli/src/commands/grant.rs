//! `sluice grant`: operators of the provider who work for its customers.

use clap::Subcommand;
use sluice_api_types::grant::{AddGrant, Grant, GrantState};
use sluice_protocol::units::Span;

use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// Commands about grants.
#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Let an operator of the provider act in a tenant, with --tenant on their commands
    Add {
        /// The operator's name (sluice operator list)
        operator: String,
        /// The tenant that they are to work for
        #[arg(long, value_name = "T", required = true)]
        tenant: Option<String>,
        /// A role, for example operator (sluice role list); may be repeated
        #[arg(
            long = "role",
            value_name = "ROLE",
            required = true,
            value_delimiter = ','
        )]
        roles: Vec<String>,
        /// How long it holds, for example 8h (until revoked where absent)
        #[arg(long = "for", value_name = "D")]
        expires: Option<Span>,
        /// When it ends, for example 2030-01-01T18:00:00Z
        #[arg(long, value_name = "TIME", conflicts_with = "expires")]
        until: Option<String>,
    },
    /// List grants, with those that are over
    List {
        /// Only those in this tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Take a grant back
    Revoke {
        /// Its id
        id: String,
    },
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: GrantCommand) -> Result<u8, Error> {
    let client = Client::at_home(global)?;
    match command {
        GrantCommand::Add {
            operator,
            tenant,
            roles,
            expires,
            until,
        } => {
            let request = AddGrant {
                operator,
                granted_in: tenant.unwrap_or_default(),
                roles,
                expires,
                until,
            };
            let made: Grant = client.post(&["grants"])?.body(&request).json().await?;
            if global.json {
                output::json_line(&made)?;
            } else {
                output::print(&format!("{}\n", made.grant))?;
            }
        }
        GrantCommand::List { tenant } => list(global, &client, tenant.as_deref()).await?,
        GrantCommand::Revoke { id } => {
            client.delete(&["grants", &id])?.send().await?;
            if !global.json {
                output::print(&format!("revoked grant {id}\n"))?;
            }
        }
    }
    Ok(exit::SUCCESS)
}

async fn list(global: &Global, client: &Client, tenant: Option<&str>) -> Result<(), Error> {
    let header = &[
        "grant", "operator", "tenant", "roles", "state", "created", "by", "until",
    ];
    let mut list = List::new(header, global.json);
    let each = |grants: Vec<Grant>| {
        list.write(&grants, |grant| {
            vec![
                grant.grant.clone(),
                grant.operator.clone(),
                grant.granted_in.clone(),
                grant.roles.join(","),
                state(grant.state).to_owned(),
                grant.created_at.clone(),
                grant.created_by.clone(),
                grant.expires_at.clone().unwrap_or_default(),
            ]
        })?;
        Ok(true)
    };
    let query = [("granted_in", tenant)];
    client.pages(&["grants"], &query, None, None, each).await
}

const fn state(state: GrantState) -> &'static str {
    match state {
        GrantState::Active => "active",
        GrantState::Denied => "denied",
        GrantState::Expired => "expired",
        GrantState::Revoked => "revoked",
    }
}
