//! Which machines a request means.

use std::collections::HashSet;

use sluice_api_types::job::{SubmitJob, Tag};
use sluice_protocol::ids::TenantId;

use super::Selection;
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

/// Looks the machines up, each once, in the order of the request; of those that are there the ones for which `condition`
/// holds. What was typed and is not there stays: whoever mistyped a name is told so.
///
/// # Errors
///
/// Where the database cannot be read.
pub(super) fn look_up(
    conn: &Connection,
    tenant: TenantId,
    selection: &Selection,
    condition: Option<&Expression>,
) -> Result<Vec<Target>, StoreError> {
    let mut found = Vec::new();
    match selection {
        Selection::All => found.extend(
            machines::with_tags(conn, tenant, &[])?
                .into_iter()
                .map(machine),
        ),
        Selection::Some { named, tags } => {
            for typed in named {
                // One that waits to be approved is not one of the fleet yet.
                let row =
                    machines::find_live(conn, tenant, typed)?.filter(|row| row.pending.is_none());
                found.push(row.map_or_else(|| Target::NotFound(typed.clone()), machine));
            }
            if !tags.is_empty() {
                found.extend(
                    machines::with_tags(conn, tenant, tags)?
                        .into_iter()
                        .map(machine),
                );
            }
        }
    }
    let (mut ids, mut names) = (HashSet::new(), HashSet::new());
    found.retain(|target| match target {
        Target::Machine(machine) => ids.insert(machine.id),
        Target::NotFound(typed) => names.insert(typed.clone()),
    });
    let Some(condition) = condition else {
        return Ok(found);
    };
    let mut meant = Vec::new();
    for target in found {
        if match &target {
            Target::Machine(machine) => holds(conn, condition, machine)?,
            Target::NotFound(_) => true,
        } {
            meant.push(target);
        }
    }
    Ok(meant)
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

fn machine(row: MachineRow) -> Target {
    Target::Machine(Box::new(row))
}
