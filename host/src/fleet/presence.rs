//! Who is connected. In memory alone: it is true only as long as the connections are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use sluice_protocol::digest::Digest;
use sluice_protocol::gates::GateSet;
use sluice_protocol::ids::{MachineId, OperationId, TenantId};
use sluice_protocol::message::CloseCode;
use sluice_protocol::message::control::Identity;
use sluice_protocol::message::operation::Operation;
use tokio::sync::mpsc;

use crate::store::tenants::Tenant;

/// What the rest of the host asks of a connection's task.
#[derive(Debug)]
pub enum Command {
    /// Send an operation, which is recorded as delivered.
    Deliver(Box<Operation>),
    /// The gates have changed.
    Gates(Box<GateSet>),
    /// Name or tags have changed.
    Identity(Identity),
    /// End an operation.
    Cancel {
        /// Which.
        operation: OperationId,
        /// The operator.
        by: String,
    },
    /// A report is stored.
    Acknowledge {
        /// Of which operation.
        operation: OperationId,
        /// The head of the tenant's audit chain.
        audit_head: Digest,
    },
    /// Close the connection.
    Close(CloseCode, &'static str),
}

/// A live connection of a machine.
#[derive(Debug, Clone)]
pub struct Session {
    /// The machine's tenant.
    pub tenant: Tenant,
    /// The machine.
    pub machine: MachineId,
    /// Tells this connection from the one before it.
    generation: u64,
    commands: mpsc::Sender<Command>,
}

/// How many commands may wait for a connection. A machine that is slower than that is closed, comes back, and gets what
/// it missed from the store.
const COMMANDS: usize = 1024;

impl Session {
    /// Asks the connection's task for something. What cannot be handed over is not lost: the store has it, and the
    /// machine gets it when it is back.
    pub fn send(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            tracing::debug!(machine = %self.machine, "a command met a connection that is gone or stuck");
        }
    }

    /// Asks the connection's task for something, and waits while it is busy.
    pub async fn send_wait(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!(machine = %self.machine, "a command met a connection that is gone");
        }
    }
}

/// All live connections.
#[derive(Debug, Default)]
pub struct Presence {
    sessions: Mutex<HashMap<MachineId, Session>>,
    generation: AtomicU64,
}

impl Presence {
    /// Takes a new connection in. One that the machine had before is closed: it is the same machine in another place, or
    /// it lost the old one without either side noticing.
    pub fn join(&self, tenant: Tenant, machine: MachineId) -> (Session, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let session = Session { tenant, machine, generation, commands };
        let replaced = self.lock().insert(machine, session.clone());
        if let Some(replaced) = replaced {
            replaced.send(Command::Close(CloseCode::Replaced, "a newer connection of this machine took over"));
        }
        (session, receiver)
    }

    /// Takes a connection out, if it is still the machine's current one.
    pub fn leave(&self, session: &Session) {
        let mut sessions = self.lock();
        if sessions.get(&session.machine).is_some_and(|current| current.generation == session.generation) {
            sessions.remove(&session.machine);
        }
    }

    /// The machine's connection.
    #[must_use]
    pub fn get(&self, machine: MachineId) -> Option<Session> {
        self.lock().get(&machine).filter(|session| !session.commands.is_closed()).cloned()
    }

    /// All connections of a tenant's machines.
    #[must_use]
    pub fn of_tenant(&self, tenant: TenantId) -> Vec<Session> {
        self.lock().values().filter(|session| session.tenant.id == tenant).cloned().collect()
    }

    /// How many machines are connected.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MachineId, Session>> {
        // The map is whole after every statement here, so a panic elsewhere does not make it less true.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}


#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> Tenant {
        Tenant { id: TenantId::generate(), name: "default".to_owned() }
    }

    #[tokio::test]
    async fn a_new_connection_replaces_the_old_and_the_old_cannot_take_it_out() {
        let presence = Presence::default();
        let (tenant, machine) = (tenant(), MachineId::generate());
        let (old, mut old_commands) = presence.join(tenant.clone(), machine);
        let (new, _new_commands) = presence.join(tenant, machine);
        assert!(matches!(old_commands.recv().await, Some(Command::Close(CloseCode::Replaced, _))));
        presence.leave(&old);
        assert_eq!(presence.get(machine).map(|session| session.generation), Some(new.generation));
        presence.leave(&new);
        assert!(presence.get(machine).is_none());
        assert_eq!(presence.count(), 0);
    }

    #[tokio::test]
    async fn a_connection_whose_task_is_gone_does_not_count() {
        let presence = Presence::default();
        let (tenant, machine) = (tenant(), MachineId::generate());
        let (_session, commands) = presence.join(tenant, machine);
        drop(commands);
        assert!(presence.get(machine).is_none());
    }
}
