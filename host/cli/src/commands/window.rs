//! `sluice window`: when operations may start on machines.

use clap::Subcommand;
use sluice_api_types::window::{AddWindow, Window};
use sluice_protocol::units::Span;

use super::run::{KeyValue, tag as to_tag};
use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// Commands about maintenance windows.
#[derive(Debug, Subcommand)]
pub(crate) enum WindowCommand {
    /// Add a window: a time in which operations may start, and outside of which they are held
    Add {
        /// What to call it
        name: String,
        /// When it opens: a cron expression of five fields, for example "0 2 * * 0"
        #[arg(long, value_name = "EXPR")]
        cron: String,
        /// It closes when the clocks show so much more, for example 3h
        #[arg(long = "for", value_name = "DURATION")]
        lasts: Span,
        /// The time zone whose clocks are meant, for example Europe/Berlin (UTC where absent)
        #[arg(long, value_name = "ZONE")]
        zone: Option<String>,
        /// Nothing starts outside of it on machines with this tag; of several tags a machine needs all
        #[arg(long, value_name = "K=V")]
        tag: Vec<KeyValue>,
        /// Nothing starts outside of it on any machine of the tenant
        #[arg(long, conflicts_with = "tag")]
        all: bool,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// List windows
    List {
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Show a window, whether it is open, and when it opens next
    Show {
        /// Its name
        window: String,
    },
    /// Remove a window: what it held on its machines starts; jobs that asked for it wait for it all the same
    Remove {
        /// Its name
        window: String,
    },
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: WindowCommand) -> Result<u8, Error> {
    match command {
        WindowCommand::Add {
            name,
            cron,
            lasts,
            zone,
            tag,
            all,
            tenant,
        } => {
            let request = AddWindow {
                tenant,
                name,
                cron,
                lasts,
                zone,
                tags: tag.into_iter().map(to_tag).collect(),
                all,
            };
            let client = Client::new(global)?;
            let added: Window = client.post(&["windows"])?.body(&request).json().await?;
            print(global, &added)?;
        }
        WindowCommand::List { tenant } => list(global, tenant.as_deref()).await?,
        WindowCommand::Show { window } => {
            let client = Client::new(global)?;
            let window: Window = client.get(&["windows", &window])?.json().await?;
            print(global, &window)?;
        }
        WindowCommand::Remove { window } => {
            let client = Client::new(global)?;
            client.delete(&["windows", &window])?.send().await?;
            if !global.json {
                output::print(&format!("removed window {window}\n"))?;
            }
        }
    }
    Ok(exit::SUCCESS)
}

async fn list(global: &Global, tenant: Option<&str>) -> Result<(), Error> {
    let mut list = List::new(
        &["name", "state", "opens", "for", "zone", "machines", "next"],
        global.json,
    );
    let each = |windows: Vec<Window>| {
        list.write(&windows, |window| {
            vec![
                window.name.clone(),
                state(window).to_owned(),
                window.cron.clone(),
                window.lasts.to_string(),
                window.zone.clone(),
                machines(window),
                window
                    .next
                    .first()
                    .map_or_else(String::new, |next| next.local.clone()),
            ]
        })?;
        Ok(true)
    };
    let client = Client::new(global)?;
    let query = [("tenant", tenant)];
    client.pages(&["windows"], &query, None, None, each).await?;
    Ok(())
}

fn print(global: &Global, window: &Window) -> Result<(), Error> {
    if global.json {
        return output::json_line(window);
    }
    let mut fields = vec![
        ("window", Some(window.name.clone())),
        ("state", Some(state(window).to_owned())),
        ("opens", Some(window.cron.clone())),
        ("for", Some(window.lasts.to_string())),
        ("zone", Some(window.zone.clone())),
        ("machines", Some(machines(window))),
        ("added", Some(window.created_at.clone())),
        ("by", Some(window.created_by.clone())),
    ];
    let next = window.next.iter();
    fields.extend(next.map(|next| {
        let text = format!("{} until {}", next.local, next.local_until);
        ("next", Some(text))
    }));
    output::print(&output::record(&fields))
}

const fn state(window: &Window) -> &'static str {
    if window.open { "open" } else { "closed" }
}

/// On which machines nothing starts outside of it.
fn machines(window: &Window) -> String {
    let tags = window.tags.iter();
    let tags: Vec<_> = tags
        .map(|tag| format!("{}={}", tag.key, tag.value))
        .collect();
    match (window.all, tags.is_empty()) {
        (true, _) => format!("all ({})", window.machines),
        (false, false) => format!("{} ({})", tags.join(", "), window.machines),
        (false, true) => "for jobs that ask".to_owned(),
    }
}
