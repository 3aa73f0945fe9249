//! One connection of an enrolled machine, from its handshake to its end.
//!
//! ```text
//! known, not revoked, waits for nobody, not quarantined? -> Hello -> join (the older connection is replaced) -> Welcome
//!      -> History: is it the one that is known here? -> Gates -> what it is owed
//! then side by side: control in and out, operations out, progress and blobs in; the first that ends, ends all
//! ```

use std::time::{Duration, SystemTime};

use sluice_api_types::schedule::MachineEvent;
use sluice_protocol::causes::Causes;
use sluice_protocol::ending::short_line;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::CloseCode;
use sluice_protocol::message::control::{
    Fact, FromAgent, FromHost, Hello, Lockdown, MAX_STORED, Welcome,
};
use sluice_protocol::message::operation::Operation;
use sluice_transport::control::{ControlReceiver, ControlSender};
use sluice_transport::error::LinkError;
use sluice_transport::host::{DeliverError, FromMachine, HostConnection};
use sluice_transport::identity::MachineIdentity;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{Link, blob, progress, violations};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::fleet::{self, Command, Fate, Inbox, Judged, LinkQuality, Session};
use crate::host::SharedHost;
use crate::jobs::{self, Machine};
use crate::plugins;
use crate::random;
use crate::schedules;
use crate::store::history::{self, HistoryRow};
use crate::store::machines::{self, MachineRow};
use crate::store::tenants::{self, Tenant};
use crate::store::{self, Connection, StoreError, later, lockdown, output, secrets};

/// How long a machine may take to say what its history is.
const HISTORY: Duration = Duration::from_secs(10);
/// How long a connection that was replaced is waited for to answer: a round trip over any network, and a busy computer.
const PONG: Duration = Duration::from_secs(2);
/// How many operations are on their way to one machine at once.
const DELIVERIES: usize = 32;
/// The most problems with gates that are kept of a machine, and how long each may be.
const PROBLEMS: usize = 100;
const PROBLEM: usize = 500;
/// How much is kept of what a machine says of its software, in characters.
const SOFTWARE: usize = 100;

/// The longest key that is kept of what a machine says, in bytes; whether it is one, is seen when something is sealed to it.
const LONGEST_SEALING_KEY: usize = 64;

/// Serves a connection to its end.
pub(super) async fn serve(link: &Link, connection: HostConnection) {
    let remote = connection.remote();
    let ended = session(link, &connection).await;
    // However it has ended: a machine that comes back at once does not hide what it did.
    if let Some(reason) = connection.violated() {
        violations::record(link, connection.machine(), remote, reason).await;
    }
    match ended {
        Ok(()) => tracing::debug!(%remote, "a machine's connection has ended"),
        Err(SessionError::NotServed(reason)) => {
            tracing::info!(%remote, reason, "a machine was turned away");
            connection.close(CloseCode::Revoked, reason);
        }
        Err(SessionError::Waits) => {
            tracing::debug!(%remote, "a machine waits for approval");
            connection.close(CloseCode::Waiting, "the machine waits for approval");
        }
        Err(SessionError::Quarantined) => {
            tracing::info!(%remote, "a machine that is quarantined was turned away");
            connection.close(CloseCode::Quarantined, "the machine is quarantined");
        }
        Err(SessionError::Link(error)) => {
            tracing::debug!(%remote, %error, "a machine's connection has ended")
        }
        Err(SessionError::Store(error)) => {
            tracing::error!(%remote, %error, "a machine cannot be served");
            connection.close(CloseCode::Busy, "the host has a problem with its database");
        }
    }
}

async fn session(link: &Link, connection: &HostConnection) -> Result<(), SessionError> {
    let host = &link.host;
    let identity = connection.machine();
    let (machine, known) = host.store.read(|conn| {
        let tenant = tenants::find(conn, identity.tenant)?.ok_or(SessionError::NotServed(
            "the machine's tenant is not known here",
        ))?;
        let (row, known) = known_and_served(conn, &tenant, identity.machine)?;
        let machine = Machine {
            tenant,
            id: row.id,
            name: row.name,
        };
        Ok::<_, SessionError>((machine, known))
    })?;

    let (hello, control) = connection.accept_control().await?;
    let now = host.clock.now();
    if !fleet::is_same_computer(host, &machine, known.hardware, hello.hardware, now).await? {
        return Err(SessionError::Quarantined);
    }
    keep_sealing_key(host, identity, &hello).await?;
    let (session, inbox) = host.presence.join(machine.tenant.clone(), machine.id);
    let _leaving = Leave {
        host: host.clone(),
        session: session.clone(),
    };
    host.metrics.connected();
    session.watch_quality({
        let connection = connection.clone();
        move || quality(&connection, now)
    });
    let (mut sender, mut receiver) = control.split();
    let Inbox {
        commands,
        deliveries,
        mut closing,
        before,
    } = inbox;
    let joined = Joined {
        link,
        machine: &machine,
        session: &session,
        connection,
    };
    let serving = async {
        joined
            .prove(&hello, before, &mut sender, &mut receiver)
            .await?;
        joined
            .serve(hello, commands, deliveries, &mut sender, &mut receiver)
            .await
    };
    let (code, reason) = tokio::select! {
        // Whoever is to be closed is told nothing more.
        biased;
        closing = Inbox::closing(&mut closing) => closing,
        () = certificate_ends(connection) => {
            (CloseCode::Stopping, "the machine's certificate has ended; connect with the new one")
        }
        ended = serving => return ended,
    };
    if code == CloseCode::Replaced && answers(&mut sender, &mut receiver).await {
        let now = host.clock.now();
        fleet::quarantine(host, &machine, fleet::Reason::ThereTwice, now).await?;
        return Err(SessionError::Quarantined);
    }
    connection.close(code, reason);
    Ok(())
}

fn quality(connection: &HostConnection, since: UnixMillis) -> LinkQuality {
    let stats = connection.stats();
    LinkQuality {
        since,
        address: connection.remote(),
        rtt: stats.rtt,
        sent_packets: stats.sent_packets,
        lost_packets: stats.lost_packets,
        sent_bytes: stats.sent_bytes,
        received_bytes: stats.received_bytes,
    }
}

/// Whether somebody is still there, after a newer connection of the same machine has said `Hello`: then there are two. An agent
/// ends the connection that it had before it makes another, and one that is gone does not answer.
async fn answers(
    sender: &mut ControlSender<FromHost>,
    receiver: &mut ControlReceiver<FromAgent>,
) -> bool {
    let nonce = random::bytes().map_or(0, u64::from_le_bytes);
    let answer = async {
        sender.send(&FromHost::Ping { nonce }).await?;
        loop {
            if receiver.receive().await? == (FromAgent::Pong { nonce }) {
                return Ok::<_, LinkError>(());
            }
        }
    };
    matches!(tokio::time::timeout(PONG, answer).await, Ok(Ok(())))
}

/// A connection that has joined.
struct Joined<'a> {
    link: &'a Link,
    machine: &'a Machine,
    session: &'a Session,
    connection: &'a HostConnection,
}

impl Joined<'_> {
    /// Welcomes the machine, and finds out whether its history is the one that is known here. Until then nothing goes out that
    /// could start.
    async fn prove(
        &self,
        hello: &Hello,
        before: Option<watch::Receiver<Fate>>,
        sender: &mut ControlSender<FromHost>,
        receiver: &mut ControlReceiver<FromAgent>,
    ) -> Result<(), SessionError> {
        let host = &self.link.host;
        let known = welcome(self.link, self.machine, hello, sender).await?;
        let said = match tokio::time::timeout(HISTORY, receiver.receive()).await {
            Ok(Ok(FromAgent::History(said))) => said,
            Ok(Ok(_)) => {
                self.connection
                    .violation("a machine that does not say first what its history is");
                return Err(self.connection.closed().await.into());
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {
                let reason = "no `History` in time";
                self.connection.close(CloseCode::Busy, reason);
                return Err(self.connection.closed().await.into());
            }
        };
        Inbox::before(before).await;
        // That one may have answered, which is on disk before it counts as ended.
        host.store.read(|conn| {
            let Machine { tenant, id, .. } = self.machine;
            known_and_served(conn, tenant, *id).map(|_| ())
        })?;
        let now = host.clock.now();
        // To its end, whatever becomes of this connection: what it changes others have to be told.
        let (host, machine) = (host.clone(), self.machine.clone());
        let open = hello.open.clone();
        let judging = tokio::spawn(async move {
            let judged = fleet::judge(&host, &machine, &known, said, &open, now).await?;
            if matches!(judged, Judged::Served(_)) {
                jobs::interrupt_forgotten(&host, &machine, &open, now).await?;
            }
            Ok::<_, StoreError>(judged)
        });
        let judged = judging.await.unwrap_or_else(|error| {
            Err(StoreError::Corrupt(format!(
                "a machine's history could not be judged: {error}"
            )))
        });
        match judged? {
            Judged::Served(verdict) => sender.send(&FromHost::History(verdict)).await?,
            Judged::Quarantined => return Err(SessionError::Quarantined),
        }
        self.session.confirm();
        Ok(())
    }

    /// Sends the machine what it is owed, and takes in what it says, until one of them ends.
    async fn serve(
        &self,
        hello: Hello,
        commands: mpsc::Receiver<Command>,
        deliveries: mpsc::Receiver<Box<Operation>>,
        sender: &mut ControlSender<FromHost>,
        receiver: &mut ControlReceiver<FromAgent>,
    ) -> Result<(), SessionError> {
        let Self {
            link,
            machine,
            session,
            connection,
        } = *self;
        let host = &link.host;
        let gates = host
            .store
            .read(|conn| plugins::of_machine(conn, &machine.tenant, machine.id))?;
        sender.send(&FromHost::Gates(Box::new(gates))).await?;
        remember(host, machine, &hello).await?;
        let owed = {
            let (host, session, open) = (host.clone(), session.clone(), hello.open);
            AbortOnDropHandle::new(tokio::spawn(
                async move { owed(&host, &session, &open).await },
            ))
        };
        let result = tokio::select! {
            ended = control_out(host, commands, sender) => ended,
            ended = operations_out(host, connection, deliveries) => ended,
            ended = control_in(link, machine, session, receiver) => ended,
            ended = streams_in(link, machine, session, connection) => ended,
        };
        drop(owed);
        result
    }
}

/// Takes the session out of the presence however its task ends, and notes when the machine was last there.
struct Leave {
    host: SharedHost,
    session: Session,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.host.presence.leave(&self.session);
        let (host, machine) = (self.host.clone(), self.session.machine);
        let now = host.clock.now();
        tokio::spawn(async move {
            let noted = host
                .store
                .write_lazily(
                    move |conn| machines::set_last_seen(conn, machine, now),
                    |_| (),
                )
                .await;
            if noted.is_err() {
                tracing::debug!(%machine, "the host is stopping; when the machine was last seen is not noted");
            }
        });
    }
}

fn known_and_served(
    conn: &Connection,
    tenant: &Tenant,
    machine: sluice_protocol::ids::MachineId,
) -> Result<(MachineRow, HistoryRow), SessionError> {
    let unknown = SessionError::NotServed("the machine is not known here");
    let there = tenants::row(conn, tenant.id)?;
    if there.is_none_or(|there| there.archived.is_some()) {
        return Err(SessionError::NotServed("the machine's tenant is archived"));
    }
    let Some(row) = machines::find(conn, tenant.id, machine)? else {
        return Err(unknown);
    };
    let Some(known) = history::find(conn, tenant.id, machine)? else {
        return Err(unknown);
    };
    if row.revoked.is_some() {
        Err(SessionError::NotServed("the machine is revoked"))
    } else if row.pending.is_some() {
        Err(SessionError::Waits)
    } else if known.quarantine.is_some() {
        Err(SessionError::Quarantined)
    } else {
        Ok((row, known))
    }
}

/// Answers `Hello`, and gives what was known of the machine's history then.
async fn welcome(
    link: &Link,
    machine: &Machine,
    hello: &Hello,
    sender: &mut ControlSender<FromHost>,
) -> Result<HistoryRow, SessionError> {
    let version = sluice_transport::negotiate(&hello.versions).ok_or(SessionError::Link(
        LinkError::Version {
            reason: "the machine offers none that this host speaks".to_owned(),
        },
    ))?;
    let (welcome, known) = link.host.store.read(|conn| {
        // Looked up again after the machine has joined: whoever revokes or quarantines it from here on finds the connection
        // and closes it.
        let (row, known) = known_and_served(conn, &machine.tenant, machine.id)?;
        let welcome = Welcome {
            version,
            time: link.host.clock.now().to_wire(),
            identity: fleet::identity(
                conn,
                &machine.tenant,
                row.id,
                &row.name,
                &link.host.addresses.api,
            )?,
            epoch: history::epoch(conn)?,
            acknowledged: known.acknowledged.map(|mark| mark.seq),
            audit_head: store::audit::head(conn, machine.tenant.id)?.hash,
            stored: output::stored_of_machine(conn, machine.tenant.id, machine.id, MAX_STORED)?,
            lockdown: lockdown_now(conn)?,
        };
        Ok::<_, SessionError>((welcome, known))
    })?;
    sender.send(&FromHost::Welcome(Box::new(welcome))).await?;
    Ok(known)
}

/// What machines are told.
fn lockdown_now(conn: &Connection) -> Result<Lockdown, StoreError> {
    Ok(match lockdown::current(conn)? {
        Some(_) => Lockdown::On,
        None => Lockdown::Off,
    })
}

/// Keeps what secrets for the machine are sealed to. On disk before the machine counts as connected, so that whoever sees it
/// connected can give it secrets.
async fn keep_sealing_key(
    host: &SharedHost,
    machine: MachineIdentity,
    hello: &Hello,
) -> Result<(), StoreError> {
    let MachineIdentity { tenant, machine } = machine;
    let key = hello.sealing_key.clone();
    let known = host
        .store
        .read(|conn| secrets::sealing_key(conn, tenant, machine))?;
    if key.is_empty() || key.len() > LONGEST_SEALING_KEY || known.as_ref() == Some(&key) {
        return Ok(());
    }
    host.store
        .write(move |conn| {
            secrets::set_sealing_key(conn, machine, &key)?;
            // A job with secrets can take it from here on.
            later::note(conn, tenant, machine).map(|_| ())
        })
        .await?;
    host.later.wake();
    Ok(())
}

async fn remember(host: &SharedHost, machine: &Machine, hello: &Hello) -> Result<(), StoreError> {
    let (id, now) = (machine.id, host.clock.now());
    let software = short_line(&hello.software, SOFTWARE);
    let facts = fleet::bound_facts(hello.facts.clone());
    let (tenant, woken) = (machine.tenant.id, host.clone());
    host.store
        .write_lazily(
            move |conn| {
                let known = machines::find(conn, tenant, id)?;
                let has_changed = known
                    .as_ref()
                    .is_some_and(|known| have_changed(known, &facts));
                let is_new = known.is_some_and(|known| are_new(&known, &facts));
                machines::set_hello(conn, id, &software, &facts, now)?;
                let mut noted = schedules::note(conn, tenant, id, MachineEvent::Online, now)?;
                if has_changed {
                    noted |= schedules::note(conn, tenant, id, MachineEvent::FactsChanged, now)?;
                }
                Ok(Noted {
                    schedule: noted,
                    job: is_new && later::note(conn, tenant, id)?,
                })
            },
            move |stored| settled(&woken, stored),
        )
        .await
}

/// Whether a machine says other facts than before. What it says when it connects first is no change.
fn have_changed(known: &MachineRow, facts: &[Fact]) -> bool {
    // What an agent learns of its own gates, a moment after it has connected, is nothing about the machine.
    let sorted = |facts: &[Fact]| {
        let mut facts = facts.to_vec();
        facts.retain(|fact| !fact.key.starts_with("gates."));
        facts.sort_by(|one, other| one.key.cmp(&other.key));
        facts
    };
    known.last_seen.is_some() && sorted(&known.facts) != sorted(facts)
}

/// Whether a machine says anything that it has not said before, in whatever order: a selector may look at all of it.
fn are_new(known: &MachineRow, facts: &[Fact]) -> bool {
    known.facts.len() != facts.len() || !facts.iter().all(|fact| known.facts.contains(fact))
}

/// For what it was noted that a machine says something else.
#[derive(Debug, Default)]
struct Noted {
    schedule: bool,
    job: bool,
}

/// After what a machine says about itself was stored: a schedule may run for it, or it may match a job.
fn settled(host: &SharedHost, stored: Result<Noted, StoreError>) {
    match stored {
        Ok(noted) => {
            if noted.schedule {
                host.schedules.wake();
            }
            if noted.job {
                host.later.wake();
            }
        }
        Err(error) => {
            tracing::error!(%error, "what a machine says about itself could not be stored");
        }
    }
}

/// Sends what the machine is owed; where the store cannot say what that is, the connection is closed and comes back.
async fn owed(host: &SharedHost, session: &Session, open: &[OperationId]) {
    if let Err(error) = jobs::deliver_pending(host, session, open).await {
        tracing::error!(machine = %session.machine, %error, "a machine's operations cannot be delivered");
        session.close(CloseCode::Busy, "the host has a problem with its database");
    }
}

/// What the rest of the host has to say on the control stream. Operations are sent beside it, so that it never waits for a
/// machine that is slow to take them.
async fn control_out(
    host: &SharedHost,
    mut commands: mpsc::Receiver<Command>,
    control: &mut ControlSender<FromHost>,
) -> Result<(), SessionError> {
    while let Some(command) = commands.recv().await {
        let message = match command {
            Command::Gates(gates) => FromHost::Gates(gates),
            Command::Identity(identity) => FromHost::Identity(identity),
            Command::Cancel { operation, by } => FromHost::Cancel { operation, by },
            // Read now: of two commands that overtook each other, the later one says what is so after both.
            Command::Lockdown => FromHost::Lockdown(host.store.read(lockdown_now)?),
            Command::Acknowledge {
                operation,
                audit_head,
            } => FromHost::Acknowledge {
                operation,
                audit_head,
            },
            Command::Renewed { chain } => FromHost::Renewed { chain },
        };
        control.send(&message).await?;
    }
    Ok(())
}

/// Operations for the machine, a few at a time.
async fn operations_out(
    host: &SharedHost,
    connection: &HostConnection,
    mut operations: mpsc::Receiver<Box<Operation>>,
) -> Result<(), SessionError> {
    let mut under_way = JoinSet::new();
    while let Some(operation) = operations.recv().await {
        while under_way.len() >= DELIVERIES {
            under_way.join_next().await;
        }
        while under_way.try_join_next().is_some() {}
        let (host, connection) = (host.clone(), connection.clone());
        under_way.spawn(async move { deliver(&host, &connection, &operation).await });
    }
    Ok(())
}

async fn deliver(host: &SharedHost, connection: &HostConnection, operation: &Operation) {
    match host.store.read(lockdown::current) {
        Ok(None) => {}
        // It counts as delivered and is not. With its next `Hello` the machine says that it has not got it, and it is held
        // again, or ended where somebody canceled it.
        Ok(Some(_)) => return connection.close(CloseCode::Busy, "a lockdown has begun; come back"),
        Err(error) => {
            tracing::error!(operation = %operation.operation, error = %Causes(&error), "an operation is not sent, because it is not known whether there is a lockdown");
            return connection.close(CloseCode::Busy, "the host has a problem with its database");
        }
    }
    match connection.deliver(operation).await {
        Ok(()) => host.events.notify(operation.job),
        // It counts as delivered, and the machine gets it when it is back.
        Err(DeliverError::NotSent(error) | DeliverError::Unknown(error)) => {
            tracing::info!(operation = %operation.operation, %error, "an operation did not arrive; it is sent again");
        }
    }
}

/// What the machine says on the control stream.
async fn control_in(
    link: &Link,
    machine: &Machine,
    session: &Session,
    control: &mut ControlReceiver<FromAgent>,
) -> Result<(), SessionError> {
    let host = &link.host;
    let mut allowance = Allowance::default();
    loop {
        match control.receive().await? {
            // The transport lets no second one through.
            FromAgent::Hello(_) => {}
            // It was asked once; and nobody is pinged who is served.
            FromAgent::History(_) | FromAgent::Pong { .. } => {}
            FromAgent::Facts(facts) => {
                if allowance.facts.take(Instant::now()) {
                    store_facts(host, machine, facts).await?;
                } else {
                    tracing::warn!(
                        machine = machine.name,
                        "a machine tells facts too often; these are not looked at"
                    );
                }
            }
            FromAgent::GatesReady { revision, problems } => {
                let may_be_recorded = problems.is_empty() || allowance.problems > 0;
                if !may_be_recorded {
                    tracing::warn!(
                        machine = machine.name,
                        revision,
                        "a machine reports problems with its gates without end; they are not recorded on this link any more"
                    );
                    continue;
                }
                allowance.problems -= u32::from(!problems.is_empty());
                store_problems(host, machine, revision, problems).await?
            }
            FromAgent::Renew { .. } if allowance.renewals == 0 => {
                tracing::warn!(
                    machine = machine.name,
                    "a machine asks for certificates without end; it gets no more on this link"
                );
            }
            FromAgent::Renew { request } => {
                allowance.renewals -= 1;
                let issued = link.authority.issue_machine(
                    machine.tenant.id,
                    machine.id,
                    &request,
                    SystemTime::now(),
                );
                match issued {
                    Ok(issued) => {
                        let (tenant, now) = (machine.tenant.clone(), host.clock.now());
                        let event =
                            Event::by_agent(EventKind::MachineCertificateRenewed, &machine.name)
                                .detail(
                                    "expires",
                                    jiff::Timestamp::try_from(issued.expires)
                                        .map(|at| at.to_string())
                                        .unwrap_or_default(),
                                );
                        host.store
                            .write(move |conn| {
                                audit::append(conn, &tenant, now, [event]).map(|_| ())
                            })
                            .await?;
                        let chain = issued.chain.into_iter().map(Into::into).collect();
                        session.send_wait(Command::Renewed { chain }).await;
                    }
                    Err(error) => {
                        tracing::warn!(machine = machine.name, %error, "a machine's certificate was not renewed")
                    }
                }
            }
        }
    }
}

/// What a machine may put on the record on one link, beside operations: the log has no end, and a link has some.
struct Allowance {
    /// Certificates. A machine asks once an hour for as long as it has none, and has one afterwards.
    renewals: u32,
    /// Problems with gates.
    problems: u32,
    /// Facts, each of which may make a schedule run.
    facts: Trickle,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            renewals: 100,
            problems: 100,
            facts: Trickle::full(Instant::now()),
        }
    }
}

/// So many at once, and one more after each while. An agent looks at its facts every few minutes and tells changes alone.
struct Trickle {
    left: u32,
    /// When the last one was added.
    since: Instant,
}

impl Trickle {
    const MOST: u32 = 10;
    const WHILE: Duration = Duration::from_secs(5);

    const fn full(now: Instant) -> Self {
        Self {
            left: Self::MOST,
            since: now,
        }
    }

    /// Takes one; no where there is none.
    fn take(&mut self, now: Instant) -> bool {
        while self.left < Self::MOST && now.duration_since(self.since) >= Self::WHILE {
            self.left += 1;
            self.since += Self::WHILE;
        }
        if self.left == Self::MOST {
            self.since = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

async fn store_facts(
    host: &SharedHost,
    machine: &Machine,
    facts: Vec<Fact>,
) -> Result<(), StoreError> {
    let (id, facts) = (machine.id, fleet::bound_facts(facts));
    let (tenant, now, woken) = (machine.tenant.id, host.clock.now(), host.clone());
    host.store
        .write_lazily(
            move |conn| {
                let known = machines::find(conn, tenant, id)?;
                let Some(known) = known.filter(|known| known.facts != facts) else {
                    return Ok(Noted::default());
                };
                machines::set_facts(conn, id, &facts)?;
                Ok(Noted {
                    schedule: have_changed(&known, &facts)
                        && schedules::note(conn, tenant, id, MachineEvent::FactsChanged, now)?,
                    job: are_new(&known, &facts) && later::note(conn, tenant, id)?,
                })
            },
            move |stored| settled(&woken, stored),
        )
        .await
}

async fn store_problems(
    host: &SharedHost,
    machine: &Machine,
    revision: u64,
    mut problems: Vec<String>,
) -> Result<(), StoreError> {
    problems.truncate(PROBLEMS);
    let problems: Vec<String> = problems
        .iter()
        .map(|problem| short_line(problem, PROBLEM))
        .collect();
    let (machine, now) = (machine.clone(), host.clock.now());
    host.store
        .write_lazily(
            move |conn| {
                machines::set_gates(conn, machine.id, revision, &problems)?;
                if !problems.is_empty() {
                    let event = Event::by_agent(EventKind::MachineGateProblems, &machine.name)
                        .detail("gates_revision", revision)
                        .detail("problems", problems);
                    audit::append(conn, &machine.tenant, now, [event])?;
                }
                Ok(())
            },
            |stored| {
                if let Err(error) = stored {
                    tracing::error!(%error, "a machine's problems with its gates could not be stored");
                }
            },
        )
        .await
}

/// The streams that the machine opens. Each has a task of its own, which ends with the connection.
async fn streams_in(
    link: &Link,
    machine: &Machine,
    session: &Session,
    connection: &HostConnection,
) -> Result<(), SessionError> {
    loop {
        let stream = connection.next().await?;
        let (link, machine, session, connection) = (
            link.clone(),
            machine.clone(),
            session.clone(),
            connection.clone(),
        );
        let tasks = link.tasks.clone();
        match stream {
            FromMachine::Progress(stream) => {
                tasks.spawn(async move {
                    progress::serve(&link, &machine, &session, &connection, stream).await
                });
            }
            FromMachine::Blob(responder) => {
                tasks.spawn(async move { blob::serve(&link, &machine, responder).await });
            }
        }
    }
}

async fn certificate_ends(connection: &HostConnection) {
    let left = connection
        .certificate_expires()
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    tokio::time::sleep(left).await;
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("{0}")]
    NotServed(&'static str),
    #[error("the machine waits for approval")]
    Waits,
    #[error("the machine is quarantined")]
    Quarantined,
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_may_be_told_a_few_times_at_once_and_then_now_and_then() {
        let start = Instant::now();
        let mut trickle = Trickle::full(start);
        let mut taken = |seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            (0..100).filter(|_| trickle.take(now)).count()
        };
        assert_eq!([taken(0), taken(4), taken(5), taken(9)], [10, 0, 1, 0]);
        assert_eq!([taken(20), taken(3600), taken(3604)], [3, 10, 0]);
    }
}
