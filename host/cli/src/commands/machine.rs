//! `sluice machine`: the fleet.

use clap::Subcommand;
use reqwest::Method;
use sluice_api_types::enroll_token::{Approval, CreateEnrollToken, EnrollToken, ListedEnrollToken};
use sluice_api_types::job::Tag;
use sluice_api_types::machine::{
    Machine, MachineLink, MachineQuarantine, MachineWaiting, PatchMachine, PatchTags,
};
use sluice_protocol::units::Span;

use super::run::KeyValue;
use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// Commands about machines.
#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    /// Make a token that lets machines join, and print it
    EnrollToken {
        /// How many machines may join with it (1 where absent)
        #[arg(long, value_name = "N")]
        uses: Option<u32>,
        /// How long it is good, for example 1d
        #[arg(long, value_name = "D")]
        expires: Option<Span>,
        /// A tag for machines that join; may be repeated
        #[arg(long, value_name = "K=V")]
        tag: Vec<KeyValue>,
        /// Addresses that they may come from, for example 10.1.0.0/16; may be repeated (anywhere where absent)
        #[arg(long = "address", value_name = "RANGE")]
        addresses: Vec<String>,
        /// Whether they are of the fleet at once, or wait for sluice machine approve
        #[arg(long, value_name = "automatic|manual", value_parser = approval, default_value = "automatic")]
        approval: Approval,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// List enrollment tokens, the newest first
    EnrollTokens {
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Revoke an enrollment token; machines that joined with it stay
    RevokeEnrollToken {
        /// Its id
        id: String,
    },
    /// Make a machine that waits one of the fleet
    Approve {
        /// Name or id
        machine: String,
    },
    /// Turn a machine that waits away for good
    Deny {
        /// Name or id
        machine: String,
    },
    /// List machines
    List {
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
        /// Only machines with this tag
        #[arg(long, value_name = "K=V")]
        tag: Option<KeyValue>,
        /// Only machines for which this holds, for example 'os == "debian" and tag.role == "web"'
        #[arg(long = "where", value_name = "EXPR")]
        condition: Option<String>,
    },
    /// Show what the host knows about a machine
    Show {
        /// Name or id
        machine: String,
    },
    /// Set tags (k=v) and remove them (k-)
    Tag {
        /// Name or id
        machine: String,
        /// k=v sets a tag, k- removes one
        #[arg(required = true, value_name = "K=V|K-")]
        changes: Vec<TagChange>,
    },
    /// Give a machine another name
    Rename {
        /// Name or id
        machine: String,
        /// The new name
        name: String,
    },
    /// Release a machine from quarantine: it was there twice, or on another computer, and you know which one stays
    Release {
        /// Name or id
        machine: String,
    },
    /// Revoke a machine's certificate: its connection ends, and it cannot come back without a new token
    Revoke {
        /// Name or id
        machine: String,
    },
}

/// `k=v` or `k-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TagChange {
    Set(Tag),
    Remove(String),
}

impl std::str::FromStr for TagChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) {
            return Ok(Self::Set(Tag {
                key: key.to_owned(),
                value: value.to_owned(),
            }));
        }
        match text.strip_suffix('-') {
            Some(key) if !key.is_empty() && !key.contains('=') => Ok(Self::Remove(key.to_owned())),
            _ => Err("write K=V to set a tag, K- to remove it".to_owned()),
        }
    }
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: MachineCommand) -> Result<u8, Error> {
    let client = Client::new(global)?;
    match command {
        MachineCommand::EnrollToken {
            uses,
            expires,
            tag: tags,
            addresses,
            approval,
            tenant,
        } => {
            let tag = |KeyValue { key, value }: KeyValue| Tag { key, value };
            let request = CreateEnrollToken {
                uses,
                expires,
                tags: tags.into_iter().map(tag).collect(),
                addresses,
                approval,
                tenant,
            };
            let token: EnrollToken = client
                .post(&["enroll-tokens"])?
                .body(&request)
                .json()
                .await?;
            if global.json {
                output::json_line(&token)?
            } else {
                output::print(&format!("{}\n", token.token))?
            }
        }
        MachineCommand::EnrollTokens { tenant } => {
            list_enroll_tokens(&client, global.json, tenant.as_deref()).await?;
        }
        MachineCommand::RevokeEnrollToken { id } => {
            client.delete(&["enroll-tokens", &id])?.send().await?;
            if !global.json {
                output::print(&format!("revoked enrollment token {id}\n"))?;
            }
        }
        MachineCommand::Approve { machine } => {
            let approve = client.post(&["machines", &machine, "approve"])?;
            show(approve.json().await?, global.json)?;
        }
        MachineCommand::Deny { machine } => {
            let deny = client.post(&["machines", &machine, "deny"])?;
            deny.send().await?;
            if !global.json {
                output::print(&format!("turned {machine} away\n"))?;
            }
        }
        MachineCommand::List {
            tenant,
            tag,
            condition,
        } => {
            let tag = tag.map(|tag| format!("{}={}", tag.key, tag.value));
            let query = [
                ("tenant", tenant.as_deref()),
                ("tag", tag.as_deref()),
                ("where", condition.as_deref()),
            ];
            list(&client, global.json, &query).await?;
        }
        MachineCommand::Show { machine } => {
            let machine: serde_json::Value = client.get(&["machines", &machine])?.json().await?;
            show(machine, global.json)?;
        }
        MachineCommand::Tag { machine, changes } => {
            let mut tags = PatchTags::default();
            for change in changes {
                match change {
                    TagChange::Set(tag) => tags.set.push(tag),
                    TagChange::Remove(key) => tags.remove.push(key),
                }
            }
            patch(
                &client,
                global.json,
                &machine,
                &PatchMachine {
                    name: None,
                    tags: Some(tags),
                },
            )
            .await?;
        }
        MachineCommand::Rename { machine, name } => {
            patch(
                &client,
                global.json,
                &machine,
                &PatchMachine {
                    name: Some(name),
                    tags: None,
                },
            )
            .await?;
        }
        MachineCommand::Release { machine } => {
            client
                .post(&["machines", &machine, "release"])?
                .send()
                .await?;
            let text = format!(
                "released {machine}; it is served again when it connects next, within two minutes; what it had open has ended as interrupted\n"
            );
            if !global.json {
                output::print(&text)?;
            }
        }
        MachineCommand::Revoke { machine } => {
            client.delete(&["machines", &machine])?.send().await?;
            let text = format!(
                "revoked {machine}; its connection ends, and it needs a new enroll token to come back\n"
            );
            if !global.json {
                output::print(&text)?;
            }
        }
    }
    Ok(exit::SUCCESS)
}

async fn list(client: &Client, json: bool, query: &[(&str, Option<&str>)]) -> Result<(), Error> {
    let mut list = List::new(&["name", "id", "state", "last seen", "tags"], json);
    let each = |machines: Vec<Machine>| {
        list.write(&machines, |machine| {
            vec![
                machine.name.clone(),
                machine.id.to_string(),
                state(machine).to_owned(),
                machine.last_seen.clone().unwrap_or_default(),
                tags(machine),
            ]
        })?;
        Ok(true)
    };
    client.pages(&["machines"], query, None, None, each).await
}

async fn list_enroll_tokens(
    client: &Client,
    json: bool,
    tenant: Option<&str>,
) -> Result<(), Error> {
    let mut list = List::new(
        &[
            "id",
            "uses left",
            "tags",
            "addresses",
            "approval",
            "operator",
            "expires",
            "state",
        ],
        json,
    );
    let each = |tokens: Vec<ListedEnrollToken>| {
        list.write(&tokens, |token| {
            vec![
                token.id.clone(),
                format!("{} of {}", token.uses_left, token.uses),
                joined(&token.tags),
                token.addresses.join(","),
                match token.approval {
                    Approval::Automatic => "automatic",
                    Approval::Manual => "manual",
                }
                .to_owned(),
                token.operator.clone(),
                token.expires_at.clone(),
                if token.revoked { "revoked" } else { "active" }.to_owned(),
            ]
        })?;
        Ok(true)
    };
    let query = [("tenant", tenant)];
    client
        .pages(&["enroll-tokens"], &query, None, None, each)
        .await
}

fn approval(text: &str) -> Result<Approval, String> {
    match text {
        "automatic" => Ok(Approval::Automatic),
        "manual" => Ok(Approval::Manual),
        _ => Err("automatic or manual".to_owned()),
    }
}

const fn state(machine: &Machine) -> &'static str {
    match machine {
        Machine { revoked: true, .. } => "revoked",
        Machine { pending: true, .. } => "waits for approval",
        Machine {
            quarantine: Some(_),
            ..
        } => "quarantined",
        Machine {
            connected: true, ..
        } => "connected",
        _ => "away",
    }
}

fn tags(machine: &Machine) -> String {
    joined(&machine.tags)
}

fn joined(tags: &[Tag]) -> String {
    tags.iter()
        .map(|tag| format!("{}={}", tag.key, tag.value))
        .collect::<Vec<_>>()
        .join(",")
}

fn quarantined(quarantine: &MachineQuarantine) -> String {
    format!(
        "since {}: {}; sluice machine release lifts it",
        quarantine.since, quarantine.reason
    )
}

fn offline_since(machine: &Machine) -> Option<String> {
    machine
        .last_seen
        .clone()
        .filter(|_| !machine.connected && !machine.revoked)
}

fn link(link: &MachineLink) -> String {
    let percent = match link.sent_packets {
        0 => 0.0,
        sent => link.lost_packets as f64 * 100.0 / sent as f64,
    };
    format!(
        "since {} from {}: round trip {:.1} ms, {percent:.1} % lost, {} bytes sent, {} received",
        link.since,
        link.address,
        link.rtt_us as f64 / 1000.0,
        link.sent_bytes,
        link.received_bytes
    )
}

fn waiting(waiting: &MachineWaiting) -> Option<String> {
    let since = waiting.since.as_ref()?;
    Some(format!(
        "{} queued, the first since {since}",
        waiting.operations
    ))
}

fn show(value: serde_json::Value, json: bool) -> Result<(), Error> {
    if json {
        return output::json_line(&value);
    }
    let machine: Machine =
        serde_json::from_value(value).map_err(|error| Error::Answer(error.to_string()))?;
    let mut fields = vec![
        ("name", Some(machine.name.clone())),
        ("id", Some(machine.id.to_string())),
        ("tenant", Some(machine.tenant.clone())),
        ("state", Some(state(&machine).to_owned())),
        ("enrolled", Some(machine.enrolled_at.clone())),
        ("last seen", machine.last_seen.clone()),
        ("agent version", machine.agent_version.clone()),
        ("quarantined", machine.quarantine.as_ref().map(quarantined)),
        (
            "history lost",
            machine
                .history_lost_at
                .as_ref()
                .map(|at| format!("{at}: it was rolled back or copied")),
        ),
        ("offline since", offline_since(&machine)),
        ("link", machine.link.as_ref().map(link)),
        ("waiting", waiting(&machine.waiting)),
        ("tags", Some(tags(&machine)).filter(|tags| !tags.is_empty())),
    ];
    fields.extend(
        machine
            .gate_problems
            .iter()
            .map(|problem| ("gate problem", Some(problem.clone()))),
    );
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    fields.extend(
        machine
            .facts
            .iter()
            .map(|(name, value)| (name.as_str(), Some(text(value)))),
    );
    output::print(&output::record(&fields))
}

async fn patch(
    client: &Client,
    json: bool,
    machine: &str,
    change: &PatchMachine,
) -> Result<(), Error> {
    let value: serde_json::Value = client
        .request(Method::PATCH, &["machines", machine])?
        .body(change)
        .json()
        .await?;
    show(value, json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_set_and_removed() {
        let set = |key: &str, value: &str| {
            TagChange::Set(Tag {
                key: key.to_owned(),
                value: value.to_owned(),
            })
        };
        assert_eq!("a=b".parse(), Ok(set("a", "b")));
        assert_eq!("a=b-".parse(), Ok(set("a", "b-")));
        assert_eq!("a=".parse(), Ok(set("a", "")));
        assert_eq!("a-".parse(), Ok(TagChange::Remove("a".to_owned())));
        for wrong in ["a", "=b", "-", ""] {
            assert!(wrong.parse::<TagChange>().is_err(), "{wrong}");
        }
    }
}
