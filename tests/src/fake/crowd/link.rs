//! The link of a simulated machine: made, kept, and made again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use sluice_protocol::message::control::{
    FromAgent, FromHost, Hardware, Hello, History, Lockdown, Verdict, Welcome,
};
use sluice_protocol::message::operation::Operation;
use sluice_protocol::message::{ALPN, StreamKind};
use tokio::sync::{Semaphore, watch};

use super::member::Member;
use crate::fake::wire::{connect_over, frame, read_frame, stream};

/// Handshakes at a time: a host refuses a source that has more under way than twice as many.
const HANDSHAKES: usize = 16;
/// How long one attempt may take, as on agents.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Between two links: a small part of what agents wait.
const PAUSE: Duration = Duration::from_millis(50);

/// How machines get to their host.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) endpoint: Endpoint,
    host: SocketAddr,
    handshakes: Semaphore,
    /// Counts how often all were told to set up their links anew.
    pub(super) turn: watch::Sender<u64>,
}

impl Site {
    pub(super) fn new(endpoint: Endpoint, host: SocketAddr) -> Self {
        Self {
            endpoint,
            host,
            handshakes: Semaphore::new(HANDSHAKES),
            turn: watch::Sender::default(),
        }
    }
}

/// Keeps a machine linked while it is not to be away.
pub(super) async fn keep(member: Arc<Member>, site: Arc<Site>) {
    let (mut turn, mut away) = (site.turn.subscribe(), member.away.subscribe());
    loop {
        until(&mut away, false).await;
        turn.mark_unchanged();
        tokio::select! {
            _ended = serve(&member, &site) => {}
            _ = turn.changed() => {}
            () = until(&mut away, true) => {}
        }
        member.hang_up();
        tokio::time::sleep(PAUSE).await;
    }
}

async fn until(away: &mut watch::Receiver<bool>, wanted: bool) {
    if away.wait_for(|is| *is == wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Sets a link up and serves it to its end.
async fn serve(member: &Arc<Member>, site: &Site) -> Option<()> {
    let (connection, streams, welcome) = {
        let _place = site.handshakes.acquire().await.ok()?;
        let attempt = greet(member, site);
        tokio::time::timeout(ATTEMPT, attempt)
            .await
            .ok()
            .flatten()?
    };
    member.connected(&connection, welcome.stored);
    let (control, operations) = (Arc::clone(member), Arc::clone(member));
    tokio::spawn(listen(control, streams));
    tokio::spawn(work(operations, connection.clone()));
    connection.closed().await;
    None
}

/// Connects, says who is there and what the ledger has, and waits until the host lets the machine go on.
async fn greet(
    member: &Member,
    site: &Site,
) -> Option<(Connection, (SendStream, RecvStream), Box<Welcome>)> {
    let connection = connect_over(&site.endpoint, site.host, ALPN, Some(&member.identity));
    let connection = connection.await.ok()?;
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    let hello = FromAgent::Hello(Box::new(Hello {
        versions: vec![sluice_protocol::VERSION],
        software: "simulated".to_owned(),
        facts: Vec::new(),
        open: member.ledger().open_ids(),
        hardware: Hardware::default(),
        sealing_key: Vec::new(),
    }));
    let hello = stream(StreamKind::Control, &[frame(&hello)]);
    send.write_all(&hello).await.ok()?;
    let FromHost::Welcome(welcome) = read_frame(&mut receive).await? else {
        return None;
    };
    member.lockdown.send_replace(welcome.lockdown);
    let history = {
        let ledger = member.ledger();
        FromAgent::History(History {
            at_acknowledged: welcome.acknowledged.and_then(|seq| ledger.at(seq)),
            head: ledger.head(),
        })
    };
    send.write_all(&frame(&history)).await.ok()?;
    let FromHost::History(verdict) = read_frame(&mut receive).await? else {
        return None;
    };
    if verdict == Verdict::Lost {
        let name = &member.name;
        member
            .seen
            .fault(format!("the host takes {name} for one without its history"));
    }
    Some((connection, (send, receive), welcome))
}

/// Hears what the host says on the control stream.
async fn listen(member: Arc<Member>, (send, mut receive): (SendStream, RecvStream)) {
    // Its own direction stays open as long as the host's.
    let _open = send;
    while let Some(message) = read_frame(&mut receive).await {
        match message {
            FromHost::Cancel { operation, by } => member.cancel(operation, by),
            FromHost::Lockdown(lockdown) => {
                if lockdown == Lockdown::On {
                    member.seen.lockdowns.fetch_add(1, Ordering::Relaxed);
                }
                member.lockdown.send_replace(lockdown);
            }
            FromHost::Acknowledge { operation, .. } => member.acknowledged(operation),
            _ => {}
        }
    }
}

/// Takes operations as they come.
async fn work(member: Arc<Member>, connection: Connection) {
    while let Ok(mut receive) = connection.accept_uni().await {
        let member = Arc::clone(&member);
        tokio::spawn(async move {
            receive.read_exact(&mut [0]).await.ok()?;
            let operation: Operation = read_frame(&mut receive).await?;
            member.arrived(&operation);
            Some(())
        });
    }
}
