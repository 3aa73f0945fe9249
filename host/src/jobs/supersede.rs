//! A newer job takes the place of what still waits of older ones with the same key.
//!
//! ```text
//! accepted: of each machine on which it will run -> what of older jobs with its key was never sent there -> may its
//!     operator end that? -> canceled, and on the record with the job that took its place
//! ```
//!
//! All of it happens in the transaction that stores the newer job: there is no moment, and no crash, after which both are
//! owed to a machine. What was sent is the machine's, and stays as it is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::str::FromStr;

use sluice_protocol::digest::Digest;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::{JobId, MachineId};
use sluice_protocol::report::Report;
use uuid::Uuid;

use super::SubmitError;
use super::cancel::Canceling;
use crate::audit::{Event, EventKind};
use crate::clock::UnixMillis;
use crate::fleet;
use crate::operators::{About, Actor, Denied, Permission, Run};
use crate::store::jobs::{self, JobRow};
use crate::store::operations::{self, OperationRow};
use crate::store::{Connection, StoreError, machines};

/// What jobs have in common of which only the newest should run: plain characters alone, so that two keys that look the same
/// are the same, and at most 120 of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupersedeKey(String);

impl SupersedeKey {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SupersedeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SupersedeKey {
    type Err = InvalidSupersedeKey;

    fn from_str(text: &str) -> Result<Self, InvalidSupersedeKey> {
        if fleet::is_plain_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSupersedeKey(text.chars().take(200).collect()))
        }
    }
}

/// The text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} can be no key for supersede: a letter or digit, then letters, digits, -, _ and ., at most 120 in all; no job was made", .0.escape_debug())]
pub struct InvalidSupersedeKey(String);

/// Ends what waits of older jobs with the key of `newer` on these machines, in the transaction that stores `newer`, before
/// its own operations are stored. Gives what is to be recorded; [`Canceling::tell`] follows the commit.
///
/// # Errors
///
/// The operator may not end something of that: then nothing is ended, and the job is not to be made.
pub(super) fn supersede(
    conn: &Connection,
    actor: &Actor,
    newer: &JobRow,
    machines: impl Iterator<Item = MachineId>,
    canceling: &mut Canceling,
    now: UnixMillis,
) -> Result<Vec<Event>, SubmitError> {
    let mut events = Vec::new();
    let Some(key) = &newer.supersede else {
        return Ok(events);
    };
    let by = format!("{}: superseded by job {}", actor.name, newer.id);
    let report = Report::without_process(Ending::Canceled(by), now.to_wire());
    let source = Event::by(EventKind::ScriptCanceled, actor)
        .detail("supersede", key.as_str())
        .detail("superseded_by", newer.id.to_string());
    let mut olders = HashMap::new();
    for machine in machines {
        for operation in operations::unsent_with_key(conn, actor.tenant.id, machine, key)? {
            let older = match olders.entry(operation.job) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(Older::find(conn, actor, operation.job)?),
            };
            may_end(conn, actor, older, &operation, key)?;
            let digest = older.script_sha256;
            events.extend(canceling.end_unsent(conn, &source, &operation, digest, &report)?);
        }
    }
    Ok(events)
}

/// What counts of an older job: there may be as many as machines, and each may have a large script.
struct Older {
    token: Uuid,
    /// The script of the library, where the job runs that as it is there.
    script: Option<String>,
    script_sha256: Digest,
    run_as: Option<String>,
    targets: u64,
}

impl Older {
    fn find(conn: &Connection, actor: &Actor, id: JobId) -> Result<Self, StoreError> {
        let job = jobs::find(conn, actor.tenant.id, id)?;
        let job = job.ok_or_else(|| StoreError::Corrupt(format!("no job {id}")))?;
        let script = job.script.filter(|_| job.as_stored);
        Ok(Self {
            token: job.token,
            script: script.map(|id| id.name.to_string()),
            script_sha256: job.script_sha256,
            run_as: job.submission.run_as.clone(),
            targets: job.targets,
        })
    }
}

/// Whether the operator may end what waits there of an older job. What was submitted by the same token they may; for anything
/// else they need what canceling needs, on that machine and for what the older job would do there. A token that was narrowed
/// is not its operator's other tokens.
fn may_end(
    conn: &Connection,
    actor: &Actor,
    older: &Older,
    operation: &OperationRow,
    key: &SupersedeKey,
) -> Result<(), SubmitError> {
    if older.token == actor.token {
        return Ok(());
    }
    let run = Run {
        script: older.script.as_deref(),
        run_as: older.run_as.as_deref(),
        targets: older.targets,
    };
    let tags = match operation.machine {
        Some(machine) => machines::words_of_tags(conn, machine)?,
        None => Vec::new(),
    };
    // Neither whose job it is nor what it does: who may not end it may not be allowed to read it either.
    let place = format!(
        "{}, where a job that was not submitted with this token waits under the key {key}",
        operation.machine_name
    );
    let about = About::Run { tags: &tags, run };
    actor
        .require_on(Permission::RemoteExecution, about, &place)
        .map_err(|denied: Denied| denied.into())
}

#[cfg(test)]
mod tests;
