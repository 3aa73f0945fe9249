//! `sluice tenant`: the provider's customers.

use clap::{Subcommand, ValueEnum};
use sluice_api_types::tenant::{
    Access, CreateTenant, PatchTenant, SetProviderAccess, Tenant, TenantKind,
};

use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List, record};

/// Commands about tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Make a tenant; nobody may do anything in it until somebody is granted that (sluice grant add)
    Create {
        /// Its name: small letters, digits and -
        name: String,
    },
    /// List the tenants that the token is good for; all for the provider's administrators
    List,
    /// Show a tenant
    Show {
        /// Its name
        name: String,
    },
    /// Give a tenant another name
    Rename {
        /// Its name
        name: String,
        /// The new one
        to: String,
    },
    /// Archive a tenant for good: its machines are turned away, and nothing runs there any more; nothing of it is removed
    Archive {
        /// Its name
        name: String,
    },
    /// Let the provider's operators into your own tenant by their grants, or keep them out
    ProviderAccess {
        /// allow or deny
        access: Choice,
    },
}

/// What a tenant's administrator says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// They get in by their grants
    Allow,
    /// They do not, from now on
    Deny,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: TenantCommand) -> Result<u8, Error> {
    let client = Client::at_home(global)?;
    match command {
        TenantCommand::Create { name } => {
            let request = CreateTenant { name };
            let made: Tenant = client.post(&["tenants"])?.body(&request).json().await?;
            told(global, "made tenant", &made)?;
        }
        TenantCommand::List => list(global, &client).await?,
        TenantCommand::Show { name } => {
            let tenant: Tenant = client.get(&["tenants", &name])?.json().await?;
            show(global, &tenant)?;
        }
        TenantCommand::Rename { name, to } => {
            let request = PatchTenant { name: to };
            let patch = client.patch(&["tenants", &name])?.body(&request);
            told(global, "renamed tenant to", &patch.json().await?)?;
        }
        TenantCommand::Archive { name } => {
            let path = ["tenants", &name, "archive"];
            told(
                global,
                "archived tenant",
                &client.post(&path)?.json().await?,
            )?;
        }
        TenantCommand::ProviderAccess { access } => {
            let access = match access {
                Choice::Allow => Access::Allowed,
                Choice::Deny => Access::Denied,
            };
            let request = client
                .put(&["provider-access"])?
                .body(&SetProviderAccess { access });
            let tenant: Tenant = request.json().await?;
            let done = match tenant.provider_access {
                Access::Allowed => "the provider's operators get by their grants into",
                Access::Denied => "the provider's operators are kept out of",
            };
            told(global, done, &tenant)?;
        }
    }
    Ok(exit::SUCCESS)
}

async fn list(global: &Global, client: &Client) -> Result<(), Error> {
    let header = &["name", "kind", "state", "provider access", "roles", "until"];
    let mut list = List::new(header, global.json);
    let each = |tenants: Vec<Tenant>| {
        list.write(&tenants, |tenant| {
            let grant = tenant.grant.as_ref();
            vec![
                tenant.name.clone(),
                kind(tenant).to_owned(),
                state(tenant).to_owned(),
                access(tenant).to_owned(),
                grant.map_or_else(String::new, |grant| grant.roles.join(",")),
                grant
                    .and_then(|grant| grant.expires_at.clone())
                    .unwrap_or_default(),
            ]
        })?;
        Ok(true)
    };
    client.pages(&["tenants"], &[], None, None, each).await
}

fn show(global: &Global, tenant: &Tenant) -> Result<(), Error> {
    if global.json {
        return output::json_line(tenant);
    }
    let grant = tenant.grant.as_ref();
    output::print(&record(&[
        ("name", Some(tenant.name.clone())),
        ("id", Some(tenant.id.clone())),
        ("kind", Some(kind(tenant).to_owned())),
        ("state", Some(state(tenant).to_owned())),
        ("provider access", Some(access(tenant).to_owned())),
        ("denied since", tenant.denied_since.clone()),
        ("created", Some(tenant.created_at.clone())),
        ("archived", tenant.archived_at.clone()),
        ("your grant", grant.map(|grant| grant.grant.clone())),
        ("its roles", grant.map(|grant| grant.roles.join(","))),
        ("it ends", grant.and_then(|grant| grant.expires_at.clone())),
    ]))
}

fn told(global: &Global, done: &str, tenant: &Tenant) -> Result<(), Error> {
    if global.json {
        output::json_line(tenant)
    } else {
        output::print(&format!("{done} {}\n", tenant.name))
    }
}

fn kind(tenant: &Tenant) -> &'static str {
    match tenant.kind {
        TenantKind::Provider => "provider",
        TenantKind::Customer => "customer",
    }
}

fn state(tenant: &Tenant) -> &'static str {
    match tenant.archived_at {
        Some(_) => "archived",
        None => "active",
    }
}

fn access(tenant: &Tenant) -> &'static str {
    match (tenant.kind, tenant.provider_access) {
        (TenantKind::Provider, _) => "-",
        (TenantKind::Customer, Access::Allowed) => "allowed",
        (TenantKind::Customer, Access::Denied) => "denied",
    }
}
