//! What `GET /v1/jobs` is narrowed to.

use sluice_api_types::job::JobQuery;
use sluice_protocol::ending::{State, Status};
use sluice_protocol::ids::TenantId;

use super::Refusal;
use super::machines::find_any;
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::library::ScriptName;
use crate::store::job_list::JobFilter;

/// Reads the filter of a query. A machine is looked up among those of the tenant alone.
///
/// # Errors
///
/// Something is asked for that no job can have.
pub(super) fn read(
    host: &SharedHost,
    tenant: TenantId,
    query: &JobQuery,
) -> Result<JobFilter, Refusal> {
    let script = query.script.as_deref().map(str::parse::<ScriptName>);
    let script = script
        .transpose()
        .map_err(|error| Refusal::invalid(format!("script: {error}")))?;
    let machine = match query.machine.as_deref() {
        Some(text) => Some(host.store.read(|conn| find_any(conn, tenant, text))?.id),
        None => None,
    };
    Ok(JobFilter {
        machine,
        states: states(query)?,
        script,
        operator: query.operator.clone(),
        since: time("since", query.since.as_deref())?,
        until: time("until", query.until.as_deref())?,
    })
}

/// The states that are asked for: all where none and no status is said.
fn states(query: &JobQuery) -> Result<Vec<State>, Refusal> {
    let state = match query.state.as_deref() {
        Some(word) => Some(State::from_word(word).ok_or_else(|| {
            let words = State::ALL.iter().map(|state| state.as_str());
            unknown("state", word, &words.collect::<Vec<_>>())
        })?),
        None => None,
    };
    let status = match query.status.as_deref() {
        Some(word) => Some(Status::from_word(word).ok_or_else(|| {
            let words = Status::ALL.iter().map(|status| status.as_str());
            unknown("status", word, &words.collect::<Vec<_>>())
        })?),
        None => None,
    };
    match (state, status) {
        (None, None) => Ok(Vec::new()),
        (Some(state), None) => Ok(vec![state]),
        (None, Some(status)) => {
            let states = State::ALL.iter().copied();
            Ok(states
                .filter(|state| state.status() == Some(status))
                .collect())
        }
        (Some(state), Some(status)) if state.status() == Some(status) => Ok(vec![state]),
        (Some(state), Some(status)) => Err(Refusal::invalid(format!(
            "no operation in state {} has the status {}; leave one of them out",
            state.as_str(),
            status.as_str()
        ))),
    }
}

fn unknown(what: &str, word: &str, known: &[&str]) -> Refusal {
    Refusal::invalid(format!(
        "{what}: there is no {}; it is one of {}",
        word.escape_debug(),
        known.join(", ")
    ))
}

fn time(what: &str, text: Option<&str>) -> Result<Option<UnixMillis>, Refusal> {
    let time = text.map(str::parse::<jiff::Timestamp>).transpose();
    let time = time.map_err(|_| {
        Refusal::invalid(format!("{what}: expected a time like 2030-01-01T18:00:00Z"))
    })?;
    Ok(time.map(|time| UnixMillis(time.as_millisecond())))
}
