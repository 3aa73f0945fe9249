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
use tokio::sync::{mpsc, watch};

use crate::store::tenants::Tenant;

/// What the rest of the host has a connection's task say, beside operations.
#[derive(Debug)]
pub enum Command {
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
    /// A lockdown has begun or was lifted: what is so when this is said.
    Lockdown,
    /// A report is stored.
    Acknowledge {
        /// Of which operation.
        operation: OperationId,
        /// The head of the tenant's audit chain.
        audit_head: Digest,
    },
    /// A new certificate for the machine: DER, leaf first.
    Renewed {
        /// As the protocol has it.
        chain: Vec<serde_bytes::ByteBuf>,
    },
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
    deliveries: mpsc::Sender<Box<Operation>>,
    closing: watch::Sender<Option<Closing>>,
}

/// Why a connection is to be closed: the code, and one line for people.
pub type Closing = (CloseCode, &'static str);

/// The connection's task's end of a session.
#[derive(Debug)]
pub struct Inbox {
    /// What it is asked to say.
    pub commands: mpsc::Receiver<Command>,
    /// Operations to send, which are recorded as delivered. In a queue of their own: a machine that is slow to take them is
    /// told to end one all the same.
    pub deliveries: mpsc::Receiver<Box<Operation>>,
    /// Whether and why it is to be closed; see [`Self::closing`].
    pub closing: watch::Receiver<Option<Closing>>,
}

impl Inbox {
    /// Waits until the connection is to be closed. That does not queue up behind commands, so a machine that takes none is
    /// closed in time all the same.
    pub async fn closing(closing: &mut watch::Receiver<Option<Closing>>) -> Closing {
        loop {
            let asked = *closing.borrow_and_update();
            if let Some(asked) = asked {
                return asked;
            }
            if closing.changed().await.is_err() {
                // All handles are gone: nobody can ask any more.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// How many commands, and how many operations, may wait for a connection. A machine that is slower than that is closed,
/// comes back, and gets what it missed from the store.
const COMMANDS: usize = 1024;

impl Session {
    /// Asks the connection's task to say something. What cannot be handed over is not lost: the store has it, and the
    /// machine gets it when it is back.
    pub fn send(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            self.give_up();
        }
    }

    /// Asks the connection's task for an operation's delivery. What cannot be handed over is not lost, as above.
    pub fn deliver(&self, operation: Box<Operation>) {
        if self.deliveries.try_send(operation).is_err() {
            self.give_up();
        }
    }

    /// What should be sent meets a connection that is gone or stuck. The next one starts from what the store has.
    fn give_up(&self) {
        tracing::debug!(machine = %self.machine, "a machine's connection is gone or stuck");
        self.close(CloseCode::Busy, "too much is waiting; come back");
    }

    /// Has the connection closed, at once.
    pub fn close(&self, code: CloseCode, reason: &'static str) {
        self.closing.send_replace(Some((code, reason)));
    }

    /// As [`Self::send`], and waits while the connection is busy.
    pub async fn send_wait(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!(machine = %self.machine, "a command met a connection that is gone");
        }
    }

    /// As [`Self::deliver`], and waits while the connection is busy.
    pub async fn deliver_wait(&self, operation: Box<Operation>) {
        if self.deliveries.send(operation).await.is_err() {
            tracing::debug!(machine = %self.machine, "an operation met a connection that is gone");
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
    pub fn join(&self, tenant: Tenant, machine: MachineId) -> (Session, Inbox) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (deliveries, operations) = mpsc::channel(COMMANDS);
        let (closing, closed) = watch::channel(None);
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let session = Session {
            tenant,
            machine,
            generation,
            commands,
            deliveries,
            closing,
        };
        let replaced = self.lock().insert(machine, session.clone());
        if let Some(replaced) = replaced {
            replaced.close(
                CloseCode::Replaced,
                "a newer connection of this machine took over",
            );
        }
        (
            session,
            Inbox {
                commands: receiver,
                deliveries: operations,
                closing: closed,
            },
        )
    }

    /// Takes a connection out, if it is still the machine's current one.
    pub fn leave(&self, session: &Session) {
        let mut sessions = self.lock();
        if sessions
            .get(&session.machine)
            .is_some_and(|current| current.generation == session.generation)
        {
            sessions.remove(&session.machine);
        }
    }

    /// The machine's connection.
    #[must_use]
    pub fn get(&self, machine: MachineId) -> Option<Session> {
        self.lock()
            .get(&machine)
            .filter(|session| !session.commands.is_closed())
            .cloned()
    }

    /// All connections of a tenant's machines.
    #[must_use]
    pub fn of_tenant(&self, tenant: TenantId) -> Vec<Session> {
        self.lock()
            .values()
            .filter(|session| session.tenant.id == tenant)
            .cloned()
            .collect()
    }

    /// All connections.
    #[must_use]
    pub fn all(&self) -> Vec<Session> {
        self.lock().values().cloned().collect()
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
        Tenant {
            id: TenantId::generate(),
            name: "default".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_new_connection_replaces_the_old_and_the_old_cannot_take_it_out() {
        let presence = Presence::default();
        let (tenant, machine) = (tenant(), MachineId::generate());
        let (old, mut old_inbox) = presence.join(tenant.clone(), machine);
        let (new, _new_commands) = presence.join(tenant, machine);
        let closing = Inbox::closing(&mut old_inbox.closing).await;
        assert_eq!(closing.0, CloseCode::Replaced);
        presence.leave(&old);
        assert_eq!(
            presence.get(machine).map(|session| session.generation),
            Some(new.generation)
        );
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
