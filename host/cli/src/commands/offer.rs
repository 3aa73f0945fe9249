//! `sluice offer`: scripts of the provider that its customers may run.

use clap::Subcommand;
use sluice_api_types::offer::{AddOffer, Offer};
use sluice_api_types::page::Page;

use super::script::StoredScript;
use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// Commands about offers.
#[derive(Debug, Subcommand)]
pub(crate) enum OfferCommand {
    /// Offer a version of a script of the provider to customers, who have it as provider/NAME
    Add {
        /// The version must be given
        #[arg(value_name = "NAME@VERSION")]
        script: StoredScript,
        /// A customer; may be repeated
        #[arg(long, value_name = "T", required_unless_present = "to_all")]
        to: Vec<String>,
        /// All customers, also those that are made later
        #[arg(long, conflicts_with = "to")]
        to_all: bool,
    },
    /// List offers, with those that were withdrawn
    List,
    /// Withdraw an offer: nothing is started of it any more, what was submitted goes on
    Withdraw {
        /// Its id
        id: String,
    },
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: OfferCommand) -> Result<u8, Error> {
    let client = Client::at_home(global)?;
    match command {
        OfferCommand::Add { script, to, to_all } => {
            let version = script.version.ok_or_else(|| {
                Error::Usage(format!(
                    "which version of {script} is offered? write NAME@VERSION; nothing was offered"
                ))
            })?;
            let request = AddOffer {
                script: script.name,
                version,
                script_sha256: None,
                to: (!to_all).then_some(to),
            };
            let made: Page<Offer> = client.post(&["offers"])?.body(&request).json().await?;
            write(global, &made.items)?;
        }
        OfferCommand::List => {
            let each = |offers: Vec<Offer>| {
                write(global, &offers)?;
                Ok(true)
            };
            client.pages(&["offers"], &[], None, None, each).await?;
        }
        OfferCommand::Withdraw { id } => {
            client.delete(&["offers", &id])?.send().await?;
            if !global.json {
                output::print(&format!("withdrew offer {id}\n"))?;
            }
        }
    }
    Ok(exit::SUCCESS)
}

fn write(global: &Global, offers: &[Offer]) -> Result<(), Error> {
    let header = &["offer", "script", "sha256", "to", "state", "created", "by"];
    let mut list = List::new(header, global.json);
    list.write(offers, |offer| {
        let state = match offer.withdrawn_at {
            Some(_) => "withdrawn",
            None => "active",
        };
        vec![
            offer.offer.clone(),
            format!("{}@{}", offer.script, offer.version),
            offer.script_sha256.to_string(),
            offer.to.clone().unwrap_or_else(|| "all".to_owned()),
            state.to_owned(),
            offer.created_at.clone(),
            offer.created_by.clone(),
        ]
    })
}
