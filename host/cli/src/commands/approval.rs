//! `sluice approval`: which jobs wait for other operators, and what is approved in advance.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use sluice_api_types::approval::{
    AddStandingApproval, ApprovalPolicy, ApprovalRule, SetApprovalPolicy, StandingApproval,
};
use sluice_api_types::job::Variable;
use sluice_protocol::digest::Digest;
use sluice_protocol::units::Span;

use super::run::KeyValue;
use super::script::StoredScript;
use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// More than a policy may have, so that an endless file is not read to its end.
const LONGEST: u64 = 256 << 10;

/// Commands about approvals.
#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalCommand {
    /// From when jobs wait for other operators: show, set, revisions
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// What is approved in advance: add, approve, list, revoke
    #[command(subcommand)]
    Standing(StandingCommand),
}

/// Commands about the tenant's policy.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print the policy, as a file for set
    Show,
    /// Set the policy, for what is submitted from then on
    Set {
        /// The policy, in TOML: a file, or - for stdin
        file: PathBuf,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// List what the policy was, the last revision first
    Revisions {
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
}

/// Commands about what is approved in advance.
#[derive(Debug, Subcommand)]
pub(crate) enum StandingCommand {
    /// Approve a script for jobs of others, and print the id
    Add {
        /// A script of the library, run as it is there; the newest version of now where none is given
        #[arg(
            long,
            value_name = "NAME[@VERSION]",
            required_unless_present = "sha256"
        )]
        script: Option<StoredScript>,
        /// The digest of a script whose text comes with its job (script_sha256 of a result)
        #[arg(long, value_name = "SHA256", conflicts_with = "script")]
        sha256: Option<Digest>,
        /// A user that it may run as, or default for the machine's own; may be repeated
        #[arg(long = "as", value_name = "USER", required = true)]
        run_as: Vec<String>,
        /// A parameter; with one, jobs must have exactly those that are given
        #[arg(long, value_name = "K=V", conflicts_with = "no_param")]
        param: Vec<KeyValue>,
        /// Jobs must have no parameters
        #[arg(long)]
        no_param: bool,
        /// A tag that every machine of a job must have; may be repeated
        #[arg(long, value_name = "K=V")]
        tag: Vec<KeyValue>,
        /// How many machines a job may have
        #[arg(long, value_name = "N")]
        targets: u64,
        /// How long it counts (30d where absent, 90d at most)
        #[arg(long, value_name = "DURATION")]
        expires: Option<Span>,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Approve what somebody else has approved in advance, too
    Approve {
        /// Its id
        id: String,
    },
    /// List what is approved in advance
    List {
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Revoke one; no job that is submitted from then on fits it
    Revoke {
        /// Its id
        id: String,
    },
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: ApprovalCommand) -> Result<u8, Error> {
    match command {
        ApprovalCommand::Policy(command) => policy(global, command).await,
        ApprovalCommand::Standing(command) => standing(global, command).await,
    }
}

async fn policy(global: &Global, command: PolicyCommand) -> Result<u8, Error> {
    let client = Client::new(global)?;
    match command {
        PolicyCommand::Show => {
            let policy: ApprovalPolicy = client.get(&["approval-policy"])?.json().await?;
            if global.json {
                output::json_line(&policy)?;
            } else {
                output::print(&text(&policy)?)?;
            }
        }
        PolicyCommand::Set { file, tenant } => {
            let File { expires, rules } = read(&file)?;
            let request = SetApprovalPolicy {
                tenant,
                expires,
                rules,
            };
            let put = client.put(&["approval-policy"])?.body(&request);
            let policy: ApprovalPolicy = put.json().await?;
            if global.json {
                output::json_line(&policy)?;
            } else {
                output::print(&format!(
                    "the approval policy is at revision {}, with {} rules\n",
                    policy.revision,
                    policy.rules.len()
                ))?;
            }
        }
        PolicyCommand::Revisions { tenant } => {
            let mut list = List::new(&["revision", "changed", "by", "rules"], global.json);
            let each = |policies: Vec<ApprovalPolicy>| {
                list.write(&policies, |policy| {
                    vec![
                        policy.revision.to_string(),
                        policy.changed_at.clone().unwrap_or_default(),
                        policy.changed_by.clone().unwrap_or_default(),
                        policy.rules.len().to_string(),
                    ]
                })?;
                Ok(true)
            };
            let query = [("tenant", tenant.as_deref())];
            let path = ["approval-policy", "revisions"];
            client.pages(&path, &query, None, None, each).await?;
        }
    }
    Ok(exit::SUCCESS)
}

async fn standing(global: &Global, command: StandingCommand) -> Result<u8, Error> {
    let client = Client::new(global)?;
    match command {
        StandingCommand::Add {
            script,
            sha256,
            run_as,
            param,
            no_param,
            tag,
            targets,
            expires,
            tenant,
        } => {
            let exactly = no_param || !param.is_empty();
            let parameters = param.into_iter().map(|pair| Variable {
                name: pair.key,
                value: pair.value,
            });
            let tags = tag
                .iter()
                .map(|pair| format!("{}={}", pair.key, pair.value));
            let request = AddStandingApproval {
                tenant,
                script_ref: script.map(Into::into),
                script_sha256: sha256,
                run_as,
                parameters: exactly.then(|| parameters.collect()),
                tags: tags.collect(),
                targets,
                expires,
            };
            let post = client.post(&["standing-approvals"])?.body(&request);
            let added: StandingApproval = post.json().await?;
            if global.json {
                output::json_line(&added)?;
            } else {
                output::print(&format!("{}\n", added.id))?;
            }
        }
        StandingCommand::Approve { id } => {
            let post = client.post(&["standing-approvals", &id, "approve"])?;
            let approved: StandingApproval = post.json().await?;
            if global.json {
                output::json_line(&approved)?;
            } else {
                let approvers = approved.approvers.join(", ");
                output::print(&format!("{id} is approved by {approvers}\n"))?;
            }
        }
        StandingCommand::List { tenant } => list(&client, global, tenant.as_deref()).await?,
        StandingCommand::Revoke { id } => {
            client.delete(&["standing-approvals", &id])?.send().await?;
            if !global.json {
                output::print(&format!("revoked {id}\n"))?;
            }
        }
    }
    Ok(exit::SUCCESS)
}

async fn list(client: &Client, global: &Global, tenant: Option<&str>) -> Result<(), Error> {
    let mut list = List::new(
        &[
            "id",
            "script",
            "as",
            "parameters",
            "tags",
            "targets",
            "approvers",
            "until",
        ],
        global.json,
    );
    let each = |standing: Vec<StandingApproval>| {
        list.write(&standing, |one| {
            let script = one.script.as_ref();
            let parameters = one.parameters.as_ref().map(|parameters| {
                let pairs = parameters.iter();
                let pairs = pairs.map(|pair| format!("{}={}", pair.name, pair.value));
                pairs.collect::<Vec<_>>().join(",")
            });
            vec![
                one.id.clone(),
                script.map_or_else(
                    || one.script_sha256.to_string(),
                    |script| format!("{}@{}", script.name, script.version),
                ),
                one.run_as.join(","),
                parameters.unwrap_or_else(|| "any".to_owned()),
                one.tags.join(","),
                one.targets.to_string(),
                one.approvers.join(","),
                one.until.clone(),
            ]
        })?;
        Ok(true)
    };
    let query = [("tenant", tenant)];
    client
        .pages(&["standing-approvals"], &query, None, None, each)
        .await
}

/// A policy as a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    expires: Option<Span>,
    #[serde(default)]
    rules: Vec<ApprovalRule>,
}

fn text(policy: &ApprovalPolicy) -> Result<String, Error> {
    let file = File {
        expires: Some(policy.expires),
        rules: policy.rules.clone(),
    };
    let text = toml::to_string(&file).map_err(|error| Error::Answer(error.to_string()))?;
    Ok(match (&policy.changed_by, &policy.changed_at) {
        (Some(by), Some(at)) => format!("# revision {}, by {by} at {at}\n{text}", policy.revision),
        _ => format!("# no policy was ever set: no job waits\n{text}"),
    })
}

fn read(path: &Path) -> Result<File, Error> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        let stdin = std::io::stdin().lock();
        stdin.take(LONGEST).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text))
    };
    read.map_err(Error::read(path))?;
    toml::from_str(&text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text[..at].matches('\n').count() + 1;
        let message = error.message();
        Error::Content {
            path: path.to_owned(),
            problem: format!("line {line}: {message}; the policy stays as it is"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_show_prints_is_a_file_for_set() {
        let rules: Vec<ApprovalRule> = serde_json::from_str(
            r#"[{"approvers":2,"targets":10,"tags":["env=production"]},{"run_as":["root"],"findings":"high"}]"#,
        )
        .expect("reads");
        let policy = ApprovalPolicy {
            tenant: "default".to_owned(),
            revision: 3,
            expires: Span::seconds(3600),
            rules: rules.clone(),
            changed_at: Some("2026-11-27T00:00:00Z".to_owned()),
            changed_by: Some("ann".to_owned()),
        };
        let text = text(&policy).expect("has a form");
        let file: File = toml::from_str(&text).expect("reads");
        assert_eq!((file.expires, file.rules), (Some(policy.expires), rules));
    }
}
