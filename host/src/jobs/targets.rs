//! Which machines a request means.

use std::collections::HashSet;

use sluice_api_types::job::{SubmitJob, Tag};
use sluice_protocol::ids::{MachineId, TenantId};

use super::{Selection, SubmitError};
use crate::store::machines::{self, MachineRow};
use crate::store::{Connection, StoreError};
use crate::targets::{Expression, Known};

/// A target of a job.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Target {
    /// A machine of the operator's tenant.
    Machine(Box<MachineRow>),
    /// What was typed, where there is no such machine, or none that the operator could know of.
    NotFound(String),
}

impl Target {
    /// The machine's name, or what was typed.
    #[must_use]
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Machine(machine) => &machine.name,
            Self::NotFound(typed) => typed,
        }
    }
}

/// The most machines of a job: its operations are made in one transaction, and everything else waits for that.
pub(super) const MOST_TARGETS: usize = 100_000;

/// Looks the machines up, each once, in the order of the request; of those that are there the ones for which `condition`
/// holds. What was typed and is not there stays: whoever mistyped a name is told so.
///
/// # Errors
///
/// Where there are more than a job may have, or the database cannot be read.
pub(super) fn look_up(
    conn: &Connection,
    tenant: TenantId,
    selection: &Selection,
    condition: Option<&Expression>,
) -> Result<Vec<Target>, SubmitError> {
    let mut meant = Meant {
        conn,
        condition,
        targets: Vec::new(),
        ids: HashSet::new(),
        names: HashSet::new(),
    };
    match selection {
        Selection::All => machines::each_with_tags(conn, tenant, &[], |row| meant.machine(row))?,
        Selection::Some { named, tags } => {
            for typed in named {
                // One that waits to be approved is not one of the fleet yet.
                match machines::find_live(conn, tenant, typed)?.filter(|row| row.pending.is_none())
                {
                    Some(row) => meant.machine(row)?,
                    None => meant.nothing(typed)?,
                }
            }
            if !tags.is_empty() {
                machines::each_with_tags(conn, tenant, tags, |row| meant.machine(row))?;
            }
        }
    }
    Ok(meant.targets)
}

/// Targets as they are found.
struct Meant<'a> {
    conn: &'a Connection,
    condition: Option<&'a Expression>,
    targets: Vec<Target>,
    ids: HashSet<MachineId>,
    names: HashSet<String>,
}

impl Meant<'_> {
    fn machine(&mut self, row: MachineRow) -> Result<(), SubmitError> {
        if let Some(condition) = self.condition
            && !holds(self.conn, condition, &row)?
        {
            return Ok(());
        }
        match self.ids.insert(row.id) {
            true => self.add(Target::Machine(Box::new(row))),
            false => Ok(()),
        }
    }

    fn nothing(&mut self, typed: &str) -> Result<(), SubmitError> {
        match self.names.insert(typed.to_owned()) {
            true => self.add(Target::NotFound(typed.to_owned())),
            false => Ok(()),
        }
    }

    fn add(&mut self, target: Target) -> Result<(), SubmitError> {
        if self.targets.len() == MOST_TARGETS {
            return Err(SubmitError::TooManyMachines);
        }
        self.targets.push(target);
        Ok(())
    }
}

/// Whether an expression holds for a machine, by what is known of it now.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn holds(
    conn: &Connection,
    condition: &Expression,
    machine: &MachineRow,
) -> Result<bool, StoreError> {
    let tags = machines::tags(conn, machine.id)?;
    Ok(condition.means(&Known {
        name: &machine.name,
        tags: &tags,
        facts: &machine.facts,
    }))
}

/// Whether a machine is one of those that a request means, by what is known of it now.
///
/// # Errors
///
/// Where the database cannot be read, or the request was never checked.
pub fn is_target(
    conn: &Connection,
    request: &SubmitJob,
    machine: &MachineRow,
) -> Result<bool, StoreError> {
    if machine.revoked.is_some() || machine.pending.is_some() {
        return Ok(false);
    }
    let id = machine.id.to_string();
    let mut named = request.machines.iter();
    let is_named = named.any(|typed| *typed == machine.name || *typed == id);
    let tags = machines::tags(conn, machine.id)?;
    let has = |tag: &Tag| {
        let mut tags = tags.iter();
        tags.any(|of| of.key == tag.key && of.value == tag.value)
    };
    let is_tagged = !request.tags.is_empty() && request.tags.iter().all(has);
    let is_any = request.machines.is_empty() && request.tags.is_empty();
    if !(is_named || is_tagged || is_any) {
        return Ok(false);
    }
    match &request.condition {
        None => Ok(true),
        Some(text) => {
            let condition = Expression::read(text)
                .map_err(|error| StoreError::Corrupt(format!("an expression: {error}")))?;
            holds(conn, &condition, machine)
        }
    }
}
