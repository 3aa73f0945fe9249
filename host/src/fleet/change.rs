//! Changing what a machine is called, how it is tagged, and whether it is one of the fleet.

use sluice_api_types::schedule::MachineEvent;
use sluice_protocol::ids::MachineId;
use sluice_protocol::message::CloseCode;
use sluice_protocol::message::control::Identity;
use sluice_protocol::report::Mode;

use super::{Command, InvalidName, InvalidTag, MAX_TAGS, MachineName};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::jobs;
use crate::operators::{About, Actor, Denied, Permission};
use crate::plugins;
use crate::schedules;
use crate::store::bindings::{BindingRow, TagPair};
use crate::store::machines::{self, MachineRow};
use crate::store::tenants::{self, Tenant};
use crate::store::{Connection, StoreError, bindings, later};
use crate::windows;

/// Renames and retags a machine, all or nothing.
///
/// # Errors
///
/// The tenant has no such machine, or the name is taken.
pub async fn patch(
    host: &SharedHost,
    actor: &Actor,
    machine: &str,
    name: Option<MachineName>,
    set: Vec<TagPair>,
    remove: Vec<String>,
    now: UnixMillis,
) -> Result<MachineId, ChangeError> {
    let (typed, asked) = (machine.to_owned(), actor.clone());
    let retagged = !set.is_empty() || !remove.is_empty();
    let (id, regated, rewindowed, noted) = host
        .store
        .write(move |conn| {
            let tenant = asked.tenant.id;
            let row = theirs(conn, &asked, &typed)?;
            let (mut events, mut regated, mut rewindowed) = (Vec::new(), false, false);
            if let Some(name) = name.filter(|name| name.as_str() != row.name) {
                if machines::name_is_taken(conn, tenant, name.as_str())? {
                    return Err(ChangeError::NameTaken(name));
                }
                machines::rename(conn, tenant, row.id, name.as_str())?;
                events.push(
                    Event::by(EventKind::MachineRenamed, &asked)
                        .on(name.as_str())
                        .detail("machine_id", row.id.to_string())
                        .detail("before", row.name.as_str()),
                );
            }
            // Selectors look at names and tags.
            let noted = later::note(conn, tenant, row.id)?;
            if retagged {
                let before = machines::tags(conn, row.id)?;
                for key in &remove {
                    machines::remove_tag(conn, row.id, key)?;
                }
                for tag in &set {
                    machines::set_tag(conn, tenant, row.id, tag)?;
                }
                let tags = machines::tags(conn, row.id)?;
                if tags.len() > MAX_TAGS {
                    return Err(ChangeError::TooManyTags);
                }
                // What it is tagged with now must be theirs to manage too.
                may_manage(&asked, &words(&tags), &row.name)?;
                // A tag that takes a gate that blocks away from a machine is as good as ending its binding.
                let loses = |binding: &BindingRow| {
                    binding.mode == Mode::Enforce
                        && plugins::applies(binding, &before)
                        && !plugins::applies(binding, &tags)
                };
                let bound = bindings::list(conn, tenant)?;
                if bound.iter().any(loses) {
                    asked.require(Permission::Administer)?;
                }
                // And one that takes a window away is as good as removing that.
                let required = windows::required_of(conn, tenant, &before)?;
                let still = windows::required_of(conn, tenant, &tags)?;
                rewindowed = required != still;
                if required.iter().any(|window| !still.contains(window)) {
                    asked.require_always(Permission::ManageMachines)?;
                }
                // Bindings may look at tags, so the machine's gates may be others now.
                let is_touched =
                    |key: &String| remove.contains(key) || set.iter().any(|tag| tag.key == *key);
                let mut looked_at = bound.iter().flat_map(|binding| &binding.tags);
                regated = looked_at.any(|tag| is_touched(&tag.key));
                if regated {
                    tenants::next_gates_revision(conn, tenant)?;
                }
                events.push(
                    Event::by(EventKind::MachineTagged, &asked)
                        .on(&row.name)
                        .detail("machine_id", row.id.to_string())
                        .detail("tags", words(&tags)),
                );
            }
            audit::append(conn, &asked.tenant, now, events)?;
            Ok((row.id, regated, rewindowed, noted))
        })
        .await?;
    if let Some(session) = host.presence.any(id) {
        let identity = host.store.read(|conn| {
            machines::find(conn, actor.tenant.id, id)?
                .map(|row| identity(conn, &actor.tenant, id, &row.name, &host.addresses.api))
                .transpose()
        })?;
        if let Some(identity) = identity {
            session.send(Command::Identity(identity));
        }
    }
    if rewindowed {
        host.windows.wake();
    }
    if noted {
        host.later.wake();
    }
    if regated {
        plugins::announce(host, &actor.tenant)?;
    }
    Ok(id)
}

/// Takes a machine out of the fleet for good: its connection is closed, its certificate is worth nothing, and what it
/// had not finished has ended.
///
/// # Errors
///
/// The tenant has no such machine.
pub async fn revoke(
    host: &SharedHost,
    actor: &Actor,
    machine: &str,
    now: UnixMillis,
) -> Result<(), ChangeError> {
    take_out(host, actor, machine, EventKind::MachineRevoked, now).await
}

/// Makes a machine that waits one of the fleet. Its agent comes back within a minute and gets its gates.
///
/// # Errors
///
/// The tenant has no such machine, or it does not wait.
pub async fn approve(
    host: &SharedHost,
    actor: &Actor,
    machine: &str,
    now: UnixMillis,
) -> Result<MachineId, ChangeError> {
    let (typed, asked) = (machine.to_owned(), actor.clone());
    let approved = host
        .store
        .write(move |conn| {
            let row = theirs(conn, &asked, &typed)?;
            let Some(since) = row.pending else {
                return Err(ChangeError::NotWaiting(row.name));
            };
            machines::set_pending(conn, asked.tenant.id, row.id, None)?;
            let event = Event::by(EventKind::MachineApproved, &asked)
                .on(&row.name)
                .detail("machine_id", row.id.to_string())
                .detail("waited_since", since.to_string());
            audit::append(conn, &asked.tenant, now, [event])?;
            schedules::note(conn, asked.tenant.id, row.id, MachineEvent::Enrolled, now)?;
            later::note(conn, asked.tenant.id, row.id)?;
            Ok(row.id)
        })
        .await;
    host.schedules.wake();
    host.later.wake();
    approved
}

/// Turns a machine that waits away for good.
///
/// # Errors
///
/// The tenant has no such machine, or it does not wait.
pub async fn deny(
    host: &SharedHost,
    actor: &Actor,
    machine: &str,
    now: UnixMillis,
) -> Result<(), ChangeError> {
    take_out(host, actor, machine, EventKind::MachineDenied, now).await
}

async fn take_out(
    host: &SharedHost,
    actor: &Actor,
    machine: &str,
    kind: EventKind,
    now: UnixMillis,
) -> Result<(), ChangeError> {
    let (typed, asked) = (machine.to_owned(), actor.clone());
    let (id, ended) = host
        .store
        .write(move |conn| {
            let tenant = asked.tenant.id;
            let row = theirs(conn, &asked, &typed)?;
            if kind == EventKind::MachineDenied && row.pending.is_none() {
                return Err(ChangeError::NotWaiting(row.name));
            }
            machines::revoke(conn, tenant, row.id, now)?;
            let event = Event::by(kind, &asked)
                .on(&row.name)
                .detail("machine_id", row.id.to_string());
            audit::append(conn, &asked.tenant, now, [event])?;
            let ended = jobs::end_all_of_machine(conn, &asked, row.id, now)?;
            Ok::<_, ChangeError>((row.id, ended))
        })
        .await?;
    if let Some(session) = host.presence.any(id) {
        session.close(CloseCode::Revoked, "the machine was revoked");
    }
    for (job, state) in ended {
        host.metrics.operation_ended(state);
        host.events.notify(job);
        host.rollouts.wake(job);
    }
    Ok(())
}

/// The machine that is meant, which is the actor's to manage.
pub(super) fn theirs(
    conn: &Connection,
    actor: &Actor,
    typed: &str,
) -> Result<MachineRow, ChangeError> {
    let found = machines::find_live(conn, actor.tenant.id, typed)?;
    let row = found.ok_or_else(|| ChangeError::NoMachine(typed.to_owned()))?;
    may_manage(actor, &machines::words_of_tags(conn, row.id)?, &row.name)?;
    Ok(row)
}

fn may_manage(actor: &Actor, tags: &[String], name: &str) -> Result<(), Denied> {
    actor.require_on(Permission::ManageMachines, About::Machine(tags), name)
}

/// What a machine is called, as it is told.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn identity(
    conn: &Connection,
    tenant: &Tenant,
    id: MachineId,
    name: &str,
    url: &str,
) -> Result<Identity, StoreError> {
    let tags = machines::tags(conn, id)?;
    Ok(Identity {
        tenant: tenant.name.clone(),
        name: name.to_owned(),
        tags: words(&tags),
        url: url.to_owned(),
    })
}

pub(super) fn words(tags: &[TagPair]) -> Vec<String> {
    tags.iter().map(ToString::to_string).collect()
}

/// A machine was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Unknown, revoked, or another tenant's: the answer is the same.
    #[error("there is no machine {}; nothing was changed", .0.escape_debug())]
    NoMachine(String),
    /// Nothing is asked.
    #[error("the machine {0} does not wait for approval; nothing was changed")]
    NotWaiting(String),
    /// A permission is missing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Nothing is to be lifted.
    #[error("machine {} is not quarantined; nothing was changed", .0.escape_debug())]
    NotQuarantined(String),
    /// Another machine has it.
    #[error("another machine is called {0}; nothing was changed")]
    NameTaken(MachineName),
    /// Too many tags.
    #[error("a machine has at most {MAX_TAGS} tags; nothing was changed")]
    TooManyTags,
    /// No name.
    #[error("{0}; nothing was changed")]
    Name(#[from] InvalidName),
    /// No tag.
    #[error("{0}; nothing was changed")]
    Tag(#[from] InvalidTag),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
