//! The link to the host: connects, comes back, and carries messages between it and the supervisor.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sluice_protocol::message::CloseCode;
use sluice_protocol::message::control::{FromAgent, FromHost, Hello};
use sluice_transport::agent::{AgentConnection, connect};
use sluice_transport::backoff::Backoff;
use sluice_transport::control::{ControlReceiver, ControlSender};
use sluice_transport::error::LinkError;
use sluice_transport::identity::{AgentIdentity, MachineKey};
use tokio::sync::mpsc;

use crate::audit::Event;
use crate::clock::now;
use crate::facts;
use crate::supervisor::Agent;

/// How often the certificate's age is looked at.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);
/// Half of the life of a machine's certificate.
const HALF_LIFE: Duration = Duration::from_secs(15 * 24 * 3600);

/// Keeps a link up until the machine is revoked or `stop` is done.
///
/// # Errors
///
/// Where coming back does not help: the machine is revoked, or its identity is not taken.
pub async fn keep(
    agent: &Arc<Agent>,
    mut identity: AgentIdentity,
    addresses: &[String],
) -> Result<(), LinkError> {
    let mut backoff = Backoff::new();
    loop {
        let error = match connect(addresses, &identity, None).await {
            Ok(connection) => match serve(agent, &connection, &mut identity, &mut backoff).await {
                Ok(()) => LinkError::Closed,
                Err(error) => error,
            },
            Err(error) => error,
        };
        agent.disconnected();
        match error {
            LinkError::Revoked => return Err(error),
            error => tracing::warn!(%error, "no link to the host; trying again"),
        }
        tokio::time::sleep(backoff.next(rand())).await;
    }
}

async fn serve(
    agent: &Arc<Agent>,
    connection: &AgentConnection,
    identity: &mut AgentIdentity,
    backoff: &mut Backoff,
) -> Result<(), LinkError> {
    let (welcome, control) = connection.open_control(hello(agent).await).await?;
    backoff.reset();
    tracing::info!(host = %connection.remote(), tenant = welcome.identity.tenant, name = welcome.identity.name, "connected");
    agent.connected(connection.clone(), welcome.identity);
    let (sender, receiver) = control.split();
    let (outgoing, queue) = mpsc::channel(16);
    let (expires, request) = (identity.expires(), identity.key().request());
    let request = request
        .inspect_err(|error| tracing::error!(%error, "the certificate cannot be renewed"))
        .ok();
    let result = tokio::select! {
        result = send(sender, queue) => result,
        result = receive(agent, connection, receiver, &outgoing, identity) => result,
        result = operations(agent, connection) => result,
        result = renew(&outgoing, expires, request) => result,
        error = connection.closed() => Err(error),
    };
    connection
        .close(CloseCode::Stopping, "the link is set up anew")
        .await;
    result
}

async fn hello(agent: &Agent) -> Hello {
    let mut facts = facts::of_machine();
    match agent.gates.walls().await {
        Ok(walls) => facts.push(facts::text("gates.walls", walls.join(","))),
        Err(error) => {
            tracing::error!(%error, "gates cannot run on this machine; every operation will be blocked")
        }
    }
    let ledger_head = match agent.ledger.audit_head() {
        Ok(head) => Some(head),
        Err(error) => {
            tracing::error!(%error, "the ledger cannot be read");
            None
        }
    };
    Hello {
        versions: sluice_transport::SUPPORTED_VERSIONS.to_vec(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        facts,
        open: agent.open_ids(),
        ledger_head,
    }
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
        agent.arrived(connection.next_operation().await?);
    }
}

async fn receive(
    agent: &Arc<Agent>,
    connection: &AgentConnection,
    mut receiver: ControlReceiver<FromHost>,
    outgoing: &mpsc::Sender<FromAgent>,
    identity: &mut AgentIdentity,
) -> Result<(), LinkError> {
    loop {
        match receiver.receive().await? {
            FromHost::Welcome(_) => {
                return Err(LinkError::Violation {
                    reason: "a second Welcome".to_owned(),
                });
            }
            FromHost::Identity(named) => agent.renamed(named),
            FromHost::Cancel { operation, by } => agent.cancel(operation, by),
            FromHost::Acknowledge {
                operation,
                audit_head,
            } => agent.acknowledged(operation, audit_head),
            FromHost::Gates(set) => {
                let (agent, connection, outgoing) =
                    (Arc::clone(agent), connection.clone(), outgoing.clone());
                // Compiling takes seconds; the link goes on meanwhile.
                tokio::spawn(async move {
                    let revision = set.revision;
                    match agent
                        .gates
                        .take(*set, &agent.ledger, &agent.blobs, &connection)
                        .await
                    {
                        Ok(problems) => {
                            problems.iter().for_each(|problem| {
                                tracing::error!(revision, problem, "a gate cannot be used")
                            });
                            let _ = outgoing
                                .send(FromAgent::GatesReady { revision, problems })
                                .await;
                        }
                        Err(error) => tracing::error!(%error, "the gates cannot be taken in"),
                    }
                });
            }
            FromHost::Renewed { chain } => {
                let chain: Vec<Vec<u8>> = chain
                    .into_iter()
                    .map(serde_bytes::ByteBuf::into_vec)
                    .collect();
                let event = match renewed(agent, identity, &chain) {
                    Ok(renewed) => {
                        *identity = renewed;
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

/// Asks for a new certificate when half of this one's life of 30 days is over, and again until there is one: it is for the
/// next connection.
async fn renew(
    outgoing: &mpsc::Sender<FromAgent>,
    expires: SystemTime,
    request: Option<Vec<u8>>,
) -> Result<(), LinkError> {
    let Some(request) = request else {
        return std::future::pending().await;
    };
    loop {
        let left = expires
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        if left < HALF_LIFE {
            let request = request.clone();
            if outgoing.send(FromAgent::Renew { request }).await.is_err() {
                return Ok(());
            }
        }
        tokio::time::sleep(RENEWAL_CHECK).await;
    }
}

fn rand() -> u64 {
    let mut bytes = [0; 8];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => u64::from(std::process::id()),
    }
}
