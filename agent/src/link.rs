//! The link to the host: connects, comes back, and carries messages between it and the supervisor.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sluice_protocol::causes::Causes;
use sluice_protocol::gates::GateSet;
use sluice_protocol::message::CloseCode;
use sluice_protocol::message::control::{Fact, FromAgent, FromHost, Hello, Verdict};
use sluice_transport::agent::{AgentConnection, Delivered, connect_on};
use sluice_transport::backoff::{Backoff, CAP};
use sluice_transport::control::{ControlReceiver, ControlSender};
use sluice_transport::error::LinkError;
use sluice_transport::identity::{AgentIdentity, MachineKey};
use sluice_transport::surroundings::jitter;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::audit::{Event, quoted};
use crate::clock::now;
use crate::exec::containment;
use crate::facts;
use crate::gates::TakeError;
use crate::hardware;
use crate::supervisor::Agent;

/// How often the certificate's age is looked at.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);
/// Half of the life of a machine's certificate.
const HALF_LIFE: Duration = Duration::from_secs(15 * 24 * 3600);
/// A link that has held for so long was a good one: the next attempt is as if it were the first. Whatever ends links sooner
/// must not have them come back without a pause.
const HELD: Duration = Duration::from_secs(10);

/// What one link leaves to the next.
struct Kept {
    identity: AgentIdentity,
    /// The walls of the host's gate runner, once it has shown them.
    walls: Option<Fact>,
    /// The host sent the machine away as quarantined, the last time that it was asked.
    quarantined: bool,
}

/// Keeps a link up until the machine is revoked.
///
/// # Errors
///
/// Where coming back does not help: the machine is revoked.
pub async fn keep(
    agent: &Arc<Agent>,
    identity: AgentIdentity,
    addresses: &[String],
) -> Result<(), LinkError> {
    let mut kept = Kept {
        identity,
        walls: None,
        quarantined: false,
    };
    let mut backoff = Backoff::new();
    loop {
        let error = match connect_on(&agent.carrier, addresses, &kept.identity, None).await {
            Ok(connection) => match serve(agent, &connection, &mut kept, &mut backoff).await {
                Ok(()) => LinkError::Closed,
                Err(error) => error,
            },
            Err(error) => error,
        };
        agent.disconnected();
        if error == LinkError::Quarantined {
            // Whatever waits here may be under way where the other one is.
            agent.history.told(Verdict::Lost);
        }
        record(agent, &error, &mut kept).await;
        match error {
            LinkError::Revoked => return Err(error),
            ref error => tracing::warn!(%error, "no link to the host; trying again"),
        }
        tokio::time::sleep(wait_after(&error, &mut backoff, jitter())).await;
    }
}

/// How long to wait for the next attempt, for 64 random bits.
fn wait_after(error: &LinkError, backoff: &mut Backoff, random: u64) -> Duration {
    match error {
        // An operator looks at it, which takes longer than that.
        LinkError::Quarantined => CAP + Backoff::longest().next(random),
        // The host has a newer one and heard nothing on this one in time. Where both answer, the machine is quarantined.
        LinkError::Replaced => CAP / 2 + Backoff::longest().next(random) / 2,
        _ => backoff.next(random),
    }
}

/// Puts on the machine's own record what its owner should know of the host.
async fn record(agent: &Agent, error: &LinkError, kept: &mut Kept) {
    let is_known = std::mem::replace(&mut kept.quarantined, *error == LinkError::Quarantined);
    let event = match error {
        LinkError::Violation { reason } => {
            Event::new("host_protocol_violation", None).with("reason", quoted(reason))
        }
        LinkError::Replaced => Event::new("identity_used_elsewhere", None),
        // It comes back every minute or two, and finds it so.
        LinkError::Quarantined if !is_known => Event::new("machine_quarantined", None),
        _ => return,
    };
    if let Err(error) = agent.ledger.record(event, now()).await {
        tracing::error!(error = %Causes(&error), "what the host did is not on the record");
    }
}

async fn serve(
    agent: &Arc<Agent>,
    connection: &AgentConnection,
    kept: &mut Kept,
    backoff: &mut Backoff,
) -> Result<(), LinkError> {
    let hello = hello(agent, kept.walls.clone());
    let told = hello.facts.clone();
    let (welcome, control) = connection.open_control(hello).await?;
    let since = Instant::now();
    tracing::info!(host = %connection.remote(), tenant = welcome.identity.tenant, name = welcome.identity.name, "connected");
    // Before anything else: what waits here must not go on because the link was away.
    agent.lockdown.told(welcome.lockdown, &agent.ledger).await;
    let history = agent.ledger.history(welcome.acknowledged);
    let history = history.map_err(|error| LinkError::Local(Causes(&error).to_string()))?;
    let epoch = agent.ledger.host_has_epoch(welcome.epoch, now()).await;
    match epoch {
        Ok(false) => {}
        Ok(true) => tracing::warn!(
            "the host was restored from a backup; what this machine knows as ended does not start again"
        ),
        Err(error) => tracing::error!(error = %Causes(&error), "the host's epoch is not kept"),
    }
    let (mut sender, receiver) = control.split();
    sender.send(&FromAgent::History(history)).await?;
    agent.connected(connection.clone(), welcome);
    let (outgoing, queue) = mpsc::channel(16);
    let Kept {
        identity, walls, ..
    } = kept;
    let request = identity.key().request();
    let request = request
        .inspect_err(|error| tracing::error!(%error, "the certificate cannot be renewed"))
        .ok();
    let (renewals, expires) = watch::channel(identity.expires());
    let (sets, arriving) = watch::channel(None);
    // Compiling takes seconds; the link goes on meanwhile.
    drop(tokio::spawn(take_gates(
        Arc::clone(agent),
        connection.clone(),
        outgoing.clone(),
        arriving,
    )));
    let result = tokio::select! {
        result = send(sender, queue) => result,
        result = receive(agent, receiver, &outgoing, &sets, identity, &renewals) => result,
        result = operations(agent, connection) => result,
        result = renew(&outgoing, expires, request, RENEWAL_CHECK) => result,
        () = tell_facts(agent, &outgoing, walls, told) => Ok(()),
        error = connection.closed() => Err(error),
    };
    if since.elapsed() >= HELD {
        backoff.reset();
    }
    connection
        .close(CloseCode::Stopping, "the link is set up anew")
        .await;
    result
}

/// What there is to say at once: the host does not wait long for it.
fn hello(agent: &Agent, walls: Option<Fact>) -> Hello {
    Hello {
        versions: sluice_transport::SUPPORTED_VERSIONS.to_vec(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        facts: facts(agent, walls),
        open: agent.open_ids(),
        hardware: hardware::of(agent.machine.machine),
        sealing_key: agent.secrets.public().to_vec(),
    }
}

fn facts(agent: &Agent, walls: Option<Fact>) -> Vec<Fact> {
    let held = containment::facts(&agent.containment);
    let machine = facts::look().into_iter();
    machine.chain(held).chain(walls).collect()
}

/// Finds out which walls the gate runner has, which may take long, tells the host, and goes on telling what has changed. Never
/// done: it is a part of the link that does not end it.
async fn tell_facts(
    agent: &Agent,
    outgoing: &mpsc::Sender<FromAgent>,
    walls: &mut Option<Fact>,
    told: Vec<Fact>,
) {
    if walls.is_none() {
        match agent.gates.walls().await {
            Ok(found) => *walls = Some(facts::text("gates.walls", found.join(","))),
            Err(error) => {
                tracing::error!(%error, "gates cannot run on this machine; every operation will be blocked")
            }
        }
    }
    let look = || facts(agent, walls.clone());
    let pause = || pause(agent.config().facts.every.as_duration(), jitter());
    keep_telling(outgoing, told, look, pause).await
}

/// Tells the host facts whenever they differ from those that it was told last.
async fn keep_telling(
    outgoing: &mpsc::Sender<FromAgent>,
    mut told: Vec<Fact>,
    look: impl Fn() -> Vec<Fact>,
    pause: impl Fn() -> Duration,
) {
    loop {
        let facts = look();
        // Fails where the link is no more; the next `Hello` says it.
        if facts != told && outgoing.send(FromAgent::Facts(facts.clone())).await.is_ok() {
            told = facts;
        }
        tokio::time::sleep(pause()).await;
    }
}

/// From one look at the facts to the next, for 64 random bits: three quarters of `every` to five, so that machines that were
/// started together do not look together.
fn pause(every: Duration, random: u64) -> Duration {
    every * 3 / 4 + (every / 2).mul_f64(random as f64 / u64::MAX as f64)
}

async fn send(
    mut sender: ControlSender<FromAgent>,
    mut queue: mpsc::Receiver<FromAgent>,
) -> Result<(), LinkError> {
    while let Some(message) = queue.recv().await {
        sender.send(&message).await?;
    }
    Ok(())
}

async fn operations(agent: &Arc<Agent>, connection: &AgentConnection) -> Result<(), LinkError> {
    loop {
        agent.room().await;
        match connection.next_operation().await? {
            Delivered::Operation(operation) => agent.arrived(*operation),
            Delivered::Unreadable { operation, reason } => agent.unreadable(operation, &reason),
        }
    }
}

async fn receive(
    agent: &Arc<Agent>,
    mut receiver: ControlReceiver<FromHost>,
    outgoing: &mpsc::Sender<FromAgent>,
    sets: &watch::Sender<Option<Arc<GateSet>>>,
    identity: &mut AgentIdentity,
    expires: &watch::Sender<SystemTime>,
) -> Result<(), LinkError> {
    loop {
        match receiver.receive().await? {
            FromHost::Welcome(_) => {
                return Err(LinkError::Violation {
                    reason: "a second Welcome".to_owned(),
                });
            }
            FromHost::Identity(named) => agent.renamed(named),
            FromHost::History(verdict) => judged(agent, verdict).await,
            FromHost::Ping { nonce } => {
                // Fails where the link is no more.
                let _over = outgoing.send(FromAgent::Pong { nonce }).await;
            }
            FromHost::Cancel { operation, by } => agent.cancel(operation, by),
            FromHost::Lockdown(lockdown) => agent.lockdown.told(lockdown, &agent.ledger).await,
            FromHost::Acknowledge {
                operation,
                audit_head,
            } => agent.acknowledged(operation, audit_head),
            // One that was superseded before its turn came is not kept: a host that sends many costs the machine one.
            FromHost::Gates(set) => drop(sets.send_replace(Some(Arc::from(set)))),
            FromHost::Renewed { chain } => {
                let chain: Vec<Vec<u8>> = chain
                    .into_iter()
                    .map(serde_bytes::ByteBuf::into_vec)
                    .collect();
                let event = match renewed(agent, identity, &chain) {
                    Ok(renewed) => {
                        *identity = renewed;
                        expires.send_replace(identity.expires());
                        Event::new("certificate_renewed", None)
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::error!(
                            error,
                            "the renewed certificate cannot be used; the old one stays"
                        );
                        Event::new("certificate_refused", None).with("error", error)
                    }
                };
                if let Err(error) = agent.ledger.record(event, now()).await {
                    tracing::error!(%error, "a renewal is not on the record");
                }
            }
        }
    }
}

/// The host has looked at this machine's history.
async fn judged(agent: &Agent, verdict: Verdict) {
    agent.history.told(verdict);
    if verdict == Verdict::Held {
        return;
    }
    tracing::error!(
        "this machine's ledger lacks what the host acknowledged: it was rolled back or copied; what had not been started ends as interrupted"
    );
    let event = Event::new("machine_history_lost", None);
    if let Err(error) = agent.ledger.record(event, now()).await {
        tracing::error!(error = %Causes(&error), "that history was lost is not on the record");
    }
}

/// Takes gate sets in, one at a time and always the newest, and tells the host how that went. Where a component breaks off
/// it is asked for again; when the link is no more, the next one brings the set anew.
async fn take_gates(
    agent: Arc<Agent>,
    connection: AgentConnection,
    outgoing: mpsc::Sender<FromAgent>,
    mut sets: watch::Receiver<Option<Arc<GateSet>>>,
) {
    let mut backoff = Backoff::new();
    loop {
        let newest = sets.borrow_and_update().clone();
        if let Some(set) = newest
            && !take(&agent, &connection, &outgoing, &set).await
        {
            tokio::select! {
                _ = connection.closed() => return,
                () = tokio::time::sleep(backoff.next(jitter())) => continue,
                changed = sets.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
        }
        backoff.reset();
        if sets.changed().await.is_err() {
            return;
        }
    }
}

/// Takes one gate set in. Whether that was all, or has to be tried again.
async fn take(
    agent: &Agent,
    connection: &AgentConnection,
    outgoing: &mpsc::Sender<FromAgent>,
    set: &GateSet,
) -> bool {
    let revision = set.revision;
    agent.sweep_blobs(set);
    let taken = agent
        .gates
        .take(set, &agent.ledger, &agent.blobs, connection);
    match taken.await {
        Ok(problems) => {
            for problem in &problems {
                tracing::error!(revision, problem, "a gate cannot be used");
            }
            let _over = outgoing
                .send(FromAgent::GatesReady { revision, problems })
                .await;
            true
        }
        Err(error @ TakeError::BrokenOff { .. }) => {
            tracing::info!(revision, error = %Causes(&error), "the gates are taken in again; operations wait");
            false
        }
        Err(error) => {
            tracing::error!(revision, error = %Causes(&error), "the gates cannot be taken in");
            true
        }
    }
}

fn renewed(
    agent: &Agent,
    identity: &AgentIdentity,
    chain: &[Vec<u8>],
) -> anyhow::Result<AgentIdentity> {
    let key = MachineKey::from_pkcs8(identity.key().pkcs8().to_vec().into())?;
    let renewed = AgentIdentity::new(key, chain, identity.root(), SystemTime::now())?;
    anyhow::ensure!(
        renewed.machine() == identity.machine(),
        "it is for another machine"
    );
    agent.state.save_chain(&renewed)?;
    Ok(renewed)
}

/// Asks for a new certificate when half of this one's life of 30 days is over, and again at every look until there is one,
/// which is for the next connection.
async fn renew(
    outgoing: &mpsc::Sender<FromAgent>,
    expires: watch::Receiver<SystemTime>,
    request: Option<Vec<u8>>,
    every: Duration,
) -> Result<(), LinkError> {
    let Some(request) = request else {
        return std::future::pending().await;
    };
    loop {
        // Read anew each time: by now there may be a new one.
        let left = expires
            .borrow()
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        if left < HALF_LIFE {
            let request = request.clone();
            if outgoing.send(FromAgent::Renew { request }).await.is_err() {
                return Ok(());
            }
        }
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const OFTEN: Duration = Duration::from_millis(5);

    async fn asked(queue: &mut mpsc::Receiver<FromAgent>) -> bool {
        let message = tokio::time::timeout(20 * OFTEN, queue.recv()).await;
        matches!(message, Ok(Some(FromAgent::Renew { .. })))
    }

    #[tokio::test]
    async fn a_certificate_is_asked_for_until_it_comes_and_not_again_afterwards() {
        let day = Duration::from_secs(24 * 3600);
        let (renewed, expires) = watch::channel(SystemTime::now() + 14 * day);
        let (outgoing, mut queue) = mpsc::channel(1);
        let asking =
            tokio::spawn(async move { renew(&outgoing, expires, Some(vec![1]), OFTEN).await });
        for _ in 0..3 {
            let message = tokio::time::timeout(SOON, queue.recv()).await;
            assert!(
                matches!(message, Ok(Some(FromAgent::Renew { .. }))),
                "{message:?}"
            );
        }
        renewed.send_replace(SystemTime::now() + 30 * day);
        // At most one is in the queue, one waits for a place, and one was about to.
        for _ in 0..3 {
            asked(&mut queue).await;
        }
        assert!(!asked(&mut queue).await && !asking.is_finished());
        renewed.send_replace(SystemTime::now() + 14 * day);
        assert!(asked(&mut queue).await, "half of its life is over again");
    }

    #[tokio::test]
    async fn facts_are_told_when_they_have_changed_and_not_again_while_they_stay() {
        let fact = |value: &str| vec![facts::text("os.version", value)];
        let (now, seen) = watch::channel((fact("1"), 0));
        let (outgoing, mut queue) = mpsc::channel(16);
        let telling = tokio::spawn(async move {
            let look = || seen.borrow().0.clone();
            keep_telling(&outgoing, fact("1"), look, || OFTEN).await;
        });
        let mut next = async || tokio::time::timeout(20 * OFTEN, queue.recv()).await;
        assert!(next().await.is_err(), "`Hello` has said it");
        for value in ["2", "1"] {
            now.send_replace((fact(value), 0));
            assert_eq!(next().await, Ok(Some(FromAgent::Facts(fact(value)))));
            assert!(next().await.is_err(), "it was told");
        }
        telling.abort();
    }

    #[test]
    fn looks_at_facts_are_apart_by_about_as_much_as_the_owner_says() {
        let every = Duration::from_secs(300);
        assert_eq!(pause(every, 0), Duration::from_secs(225));
        let longest = pause(every, u64::MAX);
        assert_eq!(longest.as_secs_f64().round(), 375.0);
    }

    #[test]
    fn whoever_was_replaced_stays_away_for_at_least_half_a_minute() {
        let mut backoff = Backoff::new();
        for random in [0, u64::MAX] {
            let wait = wait_after(&LinkError::Replaced, &mut backoff, random);
            assert!((CAP / 2..=CAP).contains(&wait), "{wait:?}");
        }
        assert_eq!(
            wait_after(&LinkError::Busy, &mut backoff, 0),
            Duration::ZERO
        );
        let quarantined = wait_after(&LinkError::Quarantined, &mut backoff, 0);
        assert_eq!(quarantined, CAP, "an operator has to look first");
    }
}
