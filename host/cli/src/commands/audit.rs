//! `sluice audit`: the record, and whether it holds.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use sluice_api_types::audit::{AuditEntry, Broken, ChainVerifier, Head};

use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// Commands about the audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List entries, oldest first
    List {
        /// Only entries behind this number
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
        /// How many at most
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Verify the chain, of the host or of an exported file; exit code 1 where it is broken
    Verify {
        /// What sluice audit export wrote, or - for stdin; the host's log where absent
        file: Option<PathBuf>,
        /// The tenant
        #[arg(long, value_name = "T", conflicts_with = "file")]
        tenant: Option<String>,
    },
    /// Write all entries as JSON lines, which verify takes
    Export {
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: AuditCommand) -> Result<u8, Error> {
    match command {
        AuditCommand::List {
            after,
            limit,
            tenant,
        } => {
            let after = after.map(|seq| seq.to_string());
            list(global, after, limit, tenant.as_deref()).await
        }
        AuditCommand::Verify {
            file: Some(file), ..
        } => verify_file(global.json, &file),
        AuditCommand::Verify { file: None, tenant } => verify_host(global, tenant.as_deref()).await,
        AuditCommand::Export { tenant } => {
            let each = |entries: Vec<AuditEntry>| {
                entries.iter().try_for_each(output::json_line)?;
                Ok(true)
            };
            Client::new(global)?
                .pages(
                    &["audit"],
                    &[("tenant", tenant.as_deref())],
                    None,
                    None,
                    each,
                )
                .await?;
            Ok(exit::SUCCESS)
        }
    }
}

async fn list(
    global: &Global,
    after: Option<String>,
    limit: Option<u64>,
    tenant: Option<&str>,
) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let mut list = List::new(
        &["seq", "time", "event", "machine", "operator", "operation"],
        global.json,
    );
    let each = |entries: Vec<AuditEntry>| {
        list.write(&entries, |entry| {
            vec![
                entry.seq.to_string(),
                entry.time.clone(),
                entry.event.clone(),
                entry.machine.clone().unwrap_or_default(),
                entry.operator.clone().unwrap_or_default(),
                entry.operation.clone().unwrap_or_default(),
            ]
        })?;
        Ok(true)
    };
    client
        .pages(&["audit"], &[("tenant", tenant)], after, limit, each)
        .await?;
    Ok(exit::SUCCESS)
}

async fn verify_host(global: &Global, tenant: Option<&str>) -> Result<u8, Error> {
    let mut verifier = ChainVerifier::default();
    let mut broken = None;
    let each = |entries: Vec<AuditEntry>| {
        broken = entries
            .iter()
            .try_for_each(|entry| verifier.push(entry))
            .err();
        Ok(broken.is_none())
    };
    Client::new(global)?
        .pages(&["audit"], &[("tenant", tenant)], None, None, each)
        .await?;
    report(
        global.json,
        &broken.map_or_else(|| Ok(verifier.head()), |broken| Err(Fault::Broken(broken))),
    )
}

/// Why a log does not hold.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("line {line} is not an audit entry: {problem}")]
    NotAnEntry {
        line: u64,
        seq: u64,
        problem: String,
    },
}

impl Fault {
    const fn seq(&self) -> u64 {
        match self {
            Self::Broken(broken) => broken.seq,
            Self::NotAnEntry { seq, .. } => *seq,
        }
    }
}

fn verify_file(json: bool, path: &Path) -> Result<u8, Error> {
    let outcome = if path == Path::new("-") {
        verify_lines(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(path).map_err(Error::read(path))?;
        verify_lines(std::io::BufReader::new(file))
    };
    report(json, &outcome.map_err(Error::read(path))?)
}

fn verify_lines(mut lines: impl std::io::BufRead) -> std::io::Result<Result<Head, Fault>> {
    let mut verifier = ChainVerifier::default();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        if lines.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        let verified = match serde_json::from_slice::<AuditEntry>(&text) {
            Ok(entry) => verifier.push(&entry).map_err(Fault::from),
            Err(error) => Err(Fault::NotAnEntry {
                line,
                seq: verifier.head().seq + 1,
                problem: error.to_string(),
            }),
        };
        if let Err(fault) = verified {
            return Ok(Err(fault));
        }
    }
    Ok(Ok(verifier.head()))
}

fn report(json: bool, outcome: &Result<Head, Fault>) -> Result<u8, Error> {
    match outcome {
        Ok(head) if json => {
            output::json_line(
                &serde_json::json!({ "verified": true, "entries": head.entries, "head": head.hash }),
            )?;
        }
        Ok(head) => output::print(&format!(
            "audit chain verified: {} entries, head {}\n",
            head.entries, head.hash
        ))?,
        Err(fault) if json => {
            let reason = fault.to_string();
            output::json_line(
                &serde_json::json!({ "verified": false, "first_broken": fault.seq(), "reason": reason }),
            )?;
        }
        Err(fault) => output::complain(&format!(
            "sluice: audit chain broken at entry {}: {}; entries before it hold, keep the log as it is and find out who changed it",
            fault.seq(),
            sluice_protocol::ending::one_line(&fault.to_string())
        )),
    }
    Ok(if outcome.is_ok() {
        exit::SUCCESS
    } else {
        exit::NOT_ALL
    })
}

#[cfg(test)]
mod tests {
    use sluice_api_types::audit::GENESIS;

    use super::*;

    fn export(length: u64) -> Vec<String> {
        let mut prev = GENESIS;
        let entries = (1..=length).map(|seq| {
            let mut entry = AuditEntry {
                seq,
                time: "2026-11-21T06:00:00Z".to_owned(),
                event: "script_started".to_owned(),
                tenant: "default".to_owned(),
                machine: None,
                job: None,
                operation: None,
                operator: None,
                source: "api".to_owned(),
                script_sha256: None,
                bundle_sha256: None,
                details: serde_json::Map::new(),
                prev,
                hash: GENESIS,
            };
            entry.hash = entry.compute_hash();
            prev = entry.hash;
            serde_json::to_string(&entry).expect("serializes") + "\n"
        });
        entries.collect()
    }

    fn verify(lines: &[String]) -> Result<Head, Fault> {
        verify_lines(lines.concat().as_bytes()).expect("reads")
    }

    #[test]
    fn an_export_verifies_and_a_changed_one_names_the_entry() {
        let lines = export(4);
        assert_eq!(verify(&lines).expect("holds").entries, 4);
        let mut changed = lines.clone();
        changed[2] = changed[2].replace("script_started", "script_blocked");
        assert_eq!(verify(&changed).expect_err("is broken").seq(), 3);
        let mut garbage = lines;
        garbage[1] = "{}\n".to_owned();
        assert_eq!(verify(&garbage).expect_err("is broken").seq(), 2);
        assert_eq!(report(false, &verify(&garbage)).expect("writes"), 1);
    }
}
