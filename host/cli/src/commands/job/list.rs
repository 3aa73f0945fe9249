//! `sluice job list`

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use sluice_api_types::job::JobSummary;
use sluice_protocol::units::Span;

use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::List;

/// What is listed. Machine, state and status are those of one operation of a job.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The tenant
    #[arg(long, value_name = "T")]
    tenant: Option<String>,
    /// Only jobs with an operation in this state, for example running or timed-out
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only jobs with an operation that ended so: success, failed, blocked or error
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only jobs with an operation on this machine: its name, or its id, which also finds a revoked one
    #[arg(long, value_name = "MACHINE")]
    machine: Option<String>,
    /// Only jobs that ran a version of this script of the library
    #[arg(long, value_name = "NAME")]
    script: Option<String>,
    /// Only jobs that this operator submitted, or a schedule of theirs
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// Only jobs submitted at this time or later: 2030-01-01T18:00:00Z, or so long ago: 24h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only jobs submitted before this time, written as for --since
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// How many at most
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// A point in time: RFC 3339, or how long it is ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = text.parse::<Span>() {
        let ago = Duration::from_millis(ago.0);
        return Timestamp::now()
            .checked_sub(ago)
            .map_err(|_| "that is longer ago than there are times for".to_owned());
    }
    text.parse()
        .map_err(|_| "a time like 2030-01-01T18:00:00Z, or how long ago, like 24h".to_owned())
}

/// Runs the command.
pub(super) async fn run(global: &Global, args: &ListArgs) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let mut list = List::new(
        &[
            "job",
            "submitted",
            "operator",
            "script",
            "operations",
            "ended",
            "succeeded",
            "open until",
        ],
        global.json,
    );
    let each = |jobs: Vec<JobSummary>| {
        list.write(&jobs, |job| {
            vec![
                job.job.to_string(),
                job.submitted_at.clone(),
                job.operator.clone(),
                job.script.as_ref().map_or_else(String::new, |script| {
                    format!("{}@{}", script.name, script.version)
                }),
                job.operations.to_string(),
                job.ended.to_string(),
                job.succeeded.to_string(),
                job.open_until.clone().unwrap_or_default(),
            ]
        })?;
        Ok(true)
    };
    let since = args.since.map(|at| at.to_string());
    let until = args.until.map(|at| at.to_string());
    let query = [
        ("tenant", args.tenant.as_deref()),
        ("state", args.state.as_deref()),
        ("status", args.status.as_deref()),
        ("machine", args.machine.as_deref()),
        ("script", args.script.as_deref()),
        ("operator", args.operator.as_deref()),
        ("since", since.as_deref()),
        ("until", until.as_deref()),
    ];
    client
        .pages(&["jobs"], &query, None, args.limit, each)
        .await?;
    Ok(exit::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_it_is_ago() {
        let at = moment("2026-11-27T12:00:00+01:00").expect("a time");
        assert_eq!(at.to_string(), "2026-11-27T11:00:00Z");
        let hour_ago = moment("1h").expect("so long ago");
        let ago = Timestamp::now().duration_since(hour_ago).as_secs();
        assert!((3600..3660).contains(&ago), "{ago}");
        for wrong in ["", "yesterday", "2026-11-27", "-1h", "99999999999d"] {
            moment(wrong).expect_err(wrong);
        }
    }
}
