//! From the operations of a job to groups.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};
use sluice_api_types::group::{Example, Group, Groups};
use sluice_protocol::ids::JobId;
use sluice_protocol::message::control::FactValue;
use sluice_protocol::message::operation::OutputStream::{Stderr, Stdout};

use super::difference::{Written, difference};
use super::normalize::Rules;
use super::read::{self, Beginning};
use crate::store::operations::{self, OperationRow};
use crate::store::tenants::Tenant;
use crate::store::{Connection, Store, StoreError, jobs, machines};

/// The most groups that are shown.
const GROUPS: usize = 50;
/// The most machines of a group whose names are shown.
const MACHINES: usize = 20;
/// How much of each stream of an example is shown and compared line by line, in bytes.
const SHOWN: u64 = 64 << 10;
/// How many operations are read before others may use the connection, and the database's log may be shortened.
pub const STEP: u32 = 32;

/// The groups of a job; none where the tenant has no such job.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn groups(
    store: &Store,
    tenant: &Tenant,
    job: JobId,
) -> Result<Option<Groups>, StoreError> {
    let id = tenant.id;
    let rows = store
        .scan(move |conn| {
            let known = jobs::head(conn, id, job)?.is_some();
            known.then(|| operations::of_job(conn, id, job)).transpose()
        })
        .await?;
    let Some(mut rows) = rows else {
        return Ok(None);
    };
    let operations = rows.len() as u64;
    let mut found: HashMap<Key, Members> = HashMap::new();
    while !rows.is_empty() {
        let step: Vec<_> = rows.drain(..rows.len().min(STEP as usize)).collect();
        let keyed = store
            .scan(move |conn| {
                step.into_iter()
                    .map(|row| Ok((Key::of(conn, &row)?, row)))
                    .collect::<Result<Vec<_>, StoreError>>()
            })
            .await?;
        for (key, row) in keyed {
            Members::add(&mut found, key, row);
        }
    }
    let mut members: Vec<_> = found.into_values().collect();
    members.sort_by_key(|members| (std::cmp::Reverse(members.count), members.example.position));
    let left_out = members.split_off(members.len().min(GROUPS));
    let mut answer = Groups {
        operations,
        groups: Vec::with_capacity(members.len()),
        more_groups: left_out.len() as u64,
        more_operations: left_out.iter().map(|members| members.count).sum(),
    };
    let mut largest: Option<(String, String)> = None;
    for members in members {
        let compared_with = largest.clone();
        let (group, written) = store
            .scan(move |conn| members.show(conn, compared_with.as_ref()))
            .await?;
        if largest.is_none() {
            largest = written;
        }
        answer.groups.push(group);
    }
    Ok(Some(answer))
}

/// The group that the result of an operation belongs to which has ended: the same for equal ones, and only for these.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn group_of(conn: &Connection, row: &OperationRow) -> Result<[u8; 32], StoreError> {
    let key = Key::of(conn, row)?;
    let mut digest = Sha256::new();
    // What may have any length comes with it, so that nothing can be read as something else.
    for part in [
        key.state.as_bytes(),
        format!("{:?}", key.exit_code).as_bytes(),
        &key.message,
        &key.stdout,
        &key.stderr,
    ] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    Ok(digest.finalize().into())
}

/// What operations of one group have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    state: &'static str,
    exit_code: Option<i32>,
    /// As it is compared.
    message: Vec<u8>,
    stdout: [u8; 32],
    stderr: [u8; 32],
}

impl Key {
    fn of(conn: &Connection, row: &OperationRow) -> Result<Self, StoreError> {
        let mut key = Self {
            state: row.state.as_str(),
            exit_code: row.exit_code,
            message: Vec::new(),
            stdout: [0; 32],
            stderr: [0; 32],
        };
        // What has not ended may write more.
        if row.state.is_terminal() {
            let rules = rules(conn, row)?;
            rules.line(
                row.message.as_deref().unwrap_or_default().as_bytes(),
                &mut key.message,
            );
            key.stdout = read::digest(conn, row.id, Stdout, &rules)?;
            key.stderr = read::digest(conn, row.id, Stderr, &rules)?;
        }
        Ok(key)
    }
}

/// By which names a machine, and what ran there, may have been called.
fn rules(conn: &Connection, row: &OperationRow) -> Result<Rules, StoreError> {
    let mut ids = vec![row.id.to_string(), row.job.to_string()];
    let mut host_name = None;
    if let Some(machine) = row.machine {
        ids.push(machine.to_string());
        let facts = machines::find(conn, row.tenant, machine)?.map(|machine| machine.facts);
        host_name = facts
            .into_iter()
            .flatten()
            .find_map(|fact| match fact.value {
                FactValue::Text(name) if fact.key == "hostname" => Some(name),
                _ => None,
            });
    }
    let names = [
        row.machine_name.as_str(),
        host_name.as_deref().unwrap_or_default(),
    ];
    Ok(Rules::new(&names, &ids))
}

/// The operations of a group.
struct Members {
    count: u64,
    machines: Vec<String>,
    /// The first.
    example: OperationRow,
}

impl Members {
    fn add(found: &mut HashMap<Key, Self>, key: Key, row: OperationRow) {
        let name = row.machine_name.clone();
        let members = found.entry(key).or_insert_with(|| Self {
            count: 0,
            machines: Vec::new(),
            example: row,
        });
        members.count += 1;
        if members.machines.len() < MACHINES {
            members.machines.push(name);
        }
    }

    /// As an operator sees it; and what the example wrote, as it is compared, where it has ended.
    fn show(
        self,
        conn: &Connection,
        largest: Option<&(String, String)>,
    ) -> Result<(Group, Option<(String, String)>), StoreError> {
        let row = self.example;
        let ended = row.state.is_terminal();
        let (mut stdout, mut stderr) = (Beginning::default(), Beginning::default());
        if ended {
            let rules = rules(conn, &row)?;
            stdout = Beginning::read(conn, row.id, Stdout, &rules, SHOWN)?;
            stderr = Beginning::read(conn, row.id, Stderr, &rules, SHOWN)?;
        }
        let written = (stdout.normalized, stderr.normalized);
        let compared = largest.filter(|_| ended).map(|largest| {
            difference(
                Written {
                    stdout: &largest.0,
                    stderr: &largest.1,
                },
                Written {
                    stdout: &written.0,
                    stderr: &written.1,
                },
            )
        });
        let (diff, diff_truncated) = compared.unzip();
        let group = Group {
            count: self.count,
            state: row.state,
            exit_code: row.exit_code,
            message: row.message,
            machines: self.machines,
            example: Example {
                operation: row.id,
                machine: row.machine_name,
                stdout: stdout.plain,
                stderr: stderr.plain,
                truncated: stdout.truncated || stderr.truncated,
            },
            diff,
            diff_truncated: diff_truncated.unwrap_or_default(),
        };
        Ok((group, ended.then_some(written)))
    }
}

#[cfg(test)]
mod tests;
