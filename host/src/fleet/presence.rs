//! Who is connected. In memory alone: it is true only as long as the connections are.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sluice_protocol::digest::Digest;
use sluice_protocol::gates::GateSet;
use sluice_protocol::ids::{MachineId, OperationId, TenantId};
use sluice_protocol::message::CloseCode;
use sluice_protocol::message::control::Identity;
use sluice_protocol::message::operation::Operation;
use tokio::sync::{mpsc, watch};

use crate::clock::UnixMillis;
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
    /// The operations that it was given last.
    given: Arc<Mutex<VecDeque<OperationId>>>,
    closing: watch::Sender<Option<Closing>>,
    /// Its history is confirmed.
    confirmed: Arc<AtomicBool>,
    /// It is known what it is owed: it may be given operations beside that.
    proven: Arc<AtomicBool>,
    fate: watch::Sender<Fate>,
    quality: Quality,
}

/// How a connection fares, looked up when somebody asks.
#[derive(Clone, Default)]
struct Quality(Arc<OnceLock<Box<dyn Fn() -> LinkQuality + Send + Sync>>>);

impl std::fmt::Debug for Quality {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quality").finish_non_exhaustive()
    }
}

/// How a connection fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkQuality {
    /// Since when it is up.
    pub since: UnixMillis,
    /// Where the machine is, as the host sees it.
    pub address: SocketAddr,
    /// The time of a round trip, as estimated.
    pub rtt: Duration,
    /// Packets that the host has sent.
    pub sent_packets: u64,
    /// How many of them were lost.
    pub lost_packets: u64,
    /// Bytes that the host has sent.
    pub sent_bytes: u64,
    /// Bytes that came from the machine.
    pub received_bytes: u64,
}

/// What became of a connection that was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nobody knows yet whether its machine is still there.
    Open,
    /// It has ended.
    Ended,
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
    /// What becomes of the connection that this one has replaced; see [`Self::before`].
    pub before: Option<watch::Receiver<Fate>>,
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

/// How long a connection that was replaced is waited for, at most.
const BEFORE: Duration = Duration::from_secs(5);

impl Inbox {
    /// Waits until the connection before this one, if there was any, has ended: until then its machine may be at work.
    pub async fn before(before: Option<watch::Receiver<Fate>>) {
        let Some(mut fate) = before else { return };
        let ended = fate.wait_for(|fate| *fate == Fate::Ended);
        if tokio::time::timeout(BEFORE, ended).await.is_err() {
            tracing::warn!("a connection that was replaced does not end");
        }
    }
}

/// How many commands, and how many operations, may wait for a connection. A machine that is slower than that is closed,
/// comes back, and gets what it missed from the store.
const COMMANDS: usize = 1024;
/// Of how many operations a connection remembers that it was given them: two who look at the same time do so within moments.
const GIVEN: usize = 256;

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
        if self.was_given(operation.operation) {
            return;
        }
        if self.deliveries.try_send(operation).is_err() {
            self.give_up();
        }
    }

    /// Whether this connection was given the operation before; it is from here on. Two who look at the same time at what the
    /// machine is owed may both find it there, and the machine may be done with the first before the second comes. What this
    /// connection cannot send closes it, so that whatever it was given comes, or is for the next one.
    fn was_given(&self, operation: OperationId) -> bool {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.contains(&operation) {
            return true;
        }
        if given.len() == GIVEN {
            given.pop_front();
        }
        given.push_back(operation);
        false
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

    /// The machine's history is confirmed.
    pub fn confirm(&self) {
        self.confirmed.store(true, Ordering::Release);
    }

    /// Whether its history is confirmed.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Acquire)
    }

    /// It is known what the machine is owed: from here on [`Presence::get`] finds this connection. To be called in the
    /// transaction that finds that out, so that what is released beside it is sent by one of the two, and not by both.
    pub fn prove(&self) {
        self.proven.store(true, Ordering::Release);
    }

    /// Says how the connection's quality is looked up; once.
    pub fn watch_quality(&self, look: impl Fn() -> LinkQuality + Send + Sync + 'static) {
        self.quality.0.get_or_init(|| Box::new(look));
    }

    /// How the connection fares.
    #[must_use]
    pub fn quality(&self) -> Option<LinkQuality> {
        self.quality.0.get().map(|look| look())
    }

    /// Whether it may be given operations.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Acquire)
    }

    /// As [`Self::send`], and waits while the connection is busy.
    pub async fn send_wait(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!(machine = %self.machine, "a command met a connection that is gone");
        }
    }

    /// As [`Self::deliver`], and waits while the connection is busy.
    pub async fn deliver_wait(&self, operation: Box<Operation>) {
        if self.was_given(operation.operation) {
            return;
        }
        if self.deliveries.send(operation).await.is_err() {
            tracing::debug!(machine = %self.machine, "an operation met a connection that is gone");
        }
    }
}

/// All live connections.
#[derive(Debug)]
pub struct Presence {
    sessions: Mutex<HashMap<MachineId, Session>>,
    generation: AtomicU64,
    /// When machines that were connected went away: an hour is an hour whatever becomes of the clock on the wall.
    left: Mutex<HashMap<MachineId, Instant>>,
    /// From when on machines could connect.
    began: Instant,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            sessions: Mutex::default(),
            generation: AtomicU64::default(),
            left: Mutex::default(),
            began: Instant::now(),
        }
    }
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
            given: Arc::default(),
            closing,
            confirmed: Arc::default(),
            proven: Arc::default(),
            fate: watch::Sender::new(Fate::Open),
            quality: Quality::default(),
        };
        let replaced = self.lock().insert(machine, session.clone());
        let before = replaced.as_ref().map(|session| session.fate.subscribe());
        if let Some(replaced) = replaced {
            self.was_there(&replaced);
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
                before,
            },
        )
    }

    /// Takes a connection out, if it is still the machine's current one. It has ended.
    pub fn leave(&self, session: &Session) {
        session.fate.send_replace(Fate::Ended);
        let mut sessions = self.lock();
        if sessions
            .get(&session.machine)
            .is_some_and(|current| current.generation == session.generation)
        {
            sessions.remove(&session.machine);
            self.was_there(session);
        }
    }

    /// A connection ends, or gives way to one that is not confirmed yet: until then its machine was there.
    fn was_there(&self, session: &Session) {
        if session.is_confirmed() {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.insert(session.machine, Instant::now());
        }
    }

    /// How long a machine has been away, as far as this process has seen; none where it is connected.
    #[must_use]
    pub fn away_for(&self, machine: MachineId) -> Option<Duration> {
        if self.any(machine).is_some_and(|it| it.is_confirmed()) {
            return None;
        }
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        Some(left.get(&machine).unwrap_or(&self.began).elapsed())
    }

    /// As if a machine had gone away that long ago.
    #[cfg(test)]
    pub(crate) fn left_ago(&self, machine: MachineId, ago: Duration) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.insert(machine, Instant::now() - ago);
    }

    /// The machine's connection, once it is known what it is owed: one that may be given operations.
    #[must_use]
    pub fn get(&self, machine: MachineId) -> Option<Session> {
        self.any(machine).filter(Session::is_proven)
    }

    /// The machine's connection, also one that may not be given operations yet.
    #[must_use]
    pub fn any(&self, machine: MachineId) -> Option<Session> {
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
    use crate::testing::TestHost;

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
        assert!(old_inbox.before.is_none() && presence.get(machine).is_none());
        old.prove();
        assert!(presence.get(machine).is_some());
        let (new, mut new_inbox) = presence.join(tenant, machine);
        assert!(presence.get(machine).is_none(), "not before it is proven");
        new.prove();
        let before = new_inbox.before.take();
        assert!(
            before
                .as_ref()
                .is_some_and(|fate| *fate.borrow() == Fate::Open)
        );
        let closing = Inbox::closing(&mut old_inbox.closing).await;
        assert_eq!(closing.0, CloseCode::Replaced);
        presence.leave(&old);
        Inbox::before(before).await;
        assert_eq!(
            presence.get(machine).map(|session| session.generation),
            Some(new.generation)
        );
        presence.leave(&new);
        assert!(presence.get(machine).is_none());
        assert_eq!(presence.count(), 0);
    }

    #[tokio::test]
    async fn a_connection_is_given_an_operation_once_and_the_next_one_again() {
        let test = TestHost::new().await;
        let machine = test.machine("m1").await;
        let (old, mut old_inbox) = test.connect(&machine);
        test.submit("m1", |_| {}).await;
        let one = old_inbox.deliveries.try_recv().expect("is sent");
        old.deliver(one.clone());
        old.clone().deliver_wait(one.clone()).await;
        assert!(old_inbox.deliveries.try_recv().is_err());
        let (new, mut new_inbox) = test.connect(&machine);
        new.deliver(one.clone());
        assert_eq!(new_inbox.deliveries.try_recv().ok(), Some(one));
    }

    #[test]
    fn a_machine_that_comes_back_has_been_away_since_its_last_connection_and_no_longer() {
        let presence = Presence::default();
        let (machine, tenant) = (MachineId::generate(), tenant());
        let long = Duration::from_secs(3600);
        let is_new = |away: Option<Duration>| away.is_some_and(|away| away < long);
        presence.left_ago(machine, long);
        let (old, _inbox) = presence.join(tenant.clone(), machine);
        assert!(!is_new(presence.away_for(machine)), "it is not confirmed");
        old.confirm();
        assert_eq!(presence.away_for(machine), None);
        let (new, _inbox) = presence.join(tenant, machine);
        assert!(is_new(presence.away_for(machine)), "it was there until now");
        presence.leave(&new);
        assert!(is_new(presence.away_for(machine)), "it was never confirmed");
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
