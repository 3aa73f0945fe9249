//! Machines that seem to be there twice, or to be another computer than before: nothing is done for them until an operator
//! has looked.
//!
//! A machine is turned away as long as it is quarantined, so that two copies do not push each other out for ever. It gets no
//! gates and no operations; what it had ends as `interrupted`, because of two copies nobody knows which has started it.

use sluice_protocol::message::CloseCode;
use sluice_protocol::message::control::Hardware;

use super::ChangeError;
use super::change::theirs;
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::jobs::{self, Machine};
use crate::operators::Actor;
use crate::store::{StoreError, history};

/// Why a machine is quarantined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A connection that another one had replaced answered.
    ThereTwice,
    /// Its ledger has another entry where the host acknowledged one.
    LedgersFork,
    /// It is on another computer.
    OtherHardware,
}

impl Reason {
    /// For operators.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ThereTwice => {
                "it is there twice: a connection answered that a newer one of the same machine had replaced"
            }
            Self::LedgersFork => {
                "its ledger is not the one that this host knows: a copy of the machine has run, or an older image of it went on without this host"
            }
            Self::OtherHardware => {
                "it is on another computer: its machine-id or its board's id is not what it was"
            }
        }
    }
}

/// Has nothing done for the machine any more: ends what it has, and its connection.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn quarantine(
    host: &SharedHost,
    machine: &Machine,
    reason: Reason,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let ours = machine.clone();
    let ended = host
        .store
        .write(move |conn| {
            if !history::quarantine(conn, ours.id, reason.as_str(), now)? {
                return Ok(Vec::new());
            }
            let ended = jobs::interrupt_all_of_machine(conn, &ours.tenant, ours.id, now)?;
            let event = Event::by_host(EventKind::MachineQuarantined)
                .on(&ours.name)
                .detail("machine_id", ours.id.to_string())
                .detail("reason", reason.as_str())
                .detail("interrupted", ended.len());
            audit::append(conn, &ours.tenant, now, [event])?;
            Ok::<_, StoreError>(ended)
        })
        .await?;
    tracing::warn!(machine = machine.name, ?reason, "a machine is quarantined");
    // Whoever joined before this was on disk is closed here, whoever joins later is turned away.
    if let Some(session) = host.presence.any(machine.id) {
        session.close(CloseCode::Quarantined, "the machine is quarantined");
    }
    jobs::tell_ended(host, ended);
    Ok(())
}

/// Compares the computer that a machine says it is on with the one that it was on. False where it is another, and was
/// quarantined for it.
///
/// # Errors
///
/// Where the database cannot be used.
pub async fn is_same_computer(
    host: &SharedHost,
    machine: &Machine,
    known: Hardware,
    said: Hardware,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    if said.differs_from(&known) {
        quarantine(host, machine, Reason::OtherHardware, now).await?;
        return Ok(false);
    }
    let (id, both) = (machine.id, said.or(known));
    if both != known {
        host.store
            .write(move |conn| history::set_hardware(conn, id, &both))
            .await?;
    }
    Ok(true)
}

/// Has a machine served again.
///
/// # Errors
///
/// The tenant has no such machine, or it is not quarantined.
pub async fn release(
    host: &SharedHost,
    actor: &Actor,
    machine: &str,
    now: UnixMillis,
) -> Result<(), ChangeError> {
    let (typed, asked) = (machine.to_owned(), actor.clone());
    host.store
        .write(move |conn| {
            let row = theirs(conn, &asked, &typed)?;
            let known = history::find(conn, asked.tenant.id, row.id)?.unwrap_or_default();
            let Some(quarantine) = known.quarantine else {
                return Err(ChangeError::NotQuarantined(typed));
            };
            history::release(conn, row.id)?;
            let event = Event::by(EventKind::MachineReleased, &asked)
                .on(&row.name)
                .detail("machine_id", row.id.to_string())
                .detail("since", quarantine.since.to_string())
                .detail("reason", quarantine.reason);
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(())
        })
        .await
}
