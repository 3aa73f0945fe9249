//! Every kind of stream with every message first on it, in either direction, opened by either side, on every ALPN and in
//! every state of a connection. What `StreamKind::allowed` lists, and the state too, is taken in; everything else closes
//! the connection with `CloseCode::Protocol`.

use std::sync::Arc;

use quinn::Connection;
use sluice_protocol::ids::{HostId, TokenId};
use sluice_protocol::message::control::{FromAgent, FromHost};
use sluice_protocol::message::enroll::{Answer, Token};
use sluice_protocol::message::{ALPN, ALPN_ENROLL, CloseCode, Direction, Side, StreamKind};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::fixture::{Fixture, LOOPBACK, new_authority, new_identity, soon};
use super::messages::{self, Sample};
use super::raw::{self, Shown, accept, closed_with, frame, open_bi, open_uni};
use crate::agent::{Delivered, connect, enroll};
use crate::host::{Arrival, FromMachine, server_config};
use crate::identity::Authority;

/// Every first byte that means something, and two that do not.
fn first_bytes() -> Vec<u8> {
    StreamKind::ALL
        .iter()
        .map(|kind| *kind as u8)
        .chain([0, 255])
        .collect()
}

/// Every first byte with every message: a byte that is not allowed must not get through with the message of one that is,
/// nor the other way around.
fn openings() -> Vec<(u8, Sample)> {
    let samples = messages::all();
    first_bytes()
        .into_iter()
        .flat_map(|byte| samples.iter().map(move |sample| (byte, sample.clone())))
        .collect()
}

/// The kind of stream that this is a whole beginning of.
fn beginning(byte: u8, sample: &Sample) -> Option<StreamKind> {
    StreamKind::from_byte(byte).filter(|kind| *kind == sample.kind && sample.opens_stream())
}

/// Opens a stream, whole: first byte, message, end.
async fn open(connection: &Connection, byte: u8, frame: &[u8], direction: Direction) {
    let bytes = [&[byte], frame].concat();
    match direction {
        Direction::Bidirectional => {
            let (mut send, receive) = open_bi(connection, &bytes).await;
            let _closed = send.finish();
            // Dropped, it would ask the peer to stop, which is not what is tested here.
            std::mem::forget(receive);
        }
        Direction::Unidirectional => {
            let _closed = open_uni(connection, &bytes).await.finish();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Right after the handshake.
    Before,
    /// After `Hello` and `Welcome`, or after an enrollment's request.
    After,
}

/// Takes in whatever a host gets, and tells what it was.
fn serve(fixture: &Arc<Fixture>) -> (mpsc::UnboundedReceiver<StreamKind>, JoinHandle<()>) {
    let (taken, seen) = mpsc::unbounded_channel();
    let fixture = Arc::clone(fixture);
    let serving = tokio::spawn(async move {
        while let Some(arrival) = fixture.endpoint.accept().await {
            let taken = taken.clone();
            tokio::spawn(async move {
                match arrival {
                    Arrival::Enrollment(enrollment) => {
                        taken.send(StreamKind::Enroll).expect("the test looks");
                        // Waits for the close.
                        let _closed = enrollment
                            .answer(&Answer::Refused {
                                reason: String::new(),
                            })
                            .await;
                    }
                    Arrival::Machine(machine) => {
                        let Ok((_, mut control)) = machine.accept_control().await else {
                            return;
                        };
                        let _lost = control
                            .send(&FromHost::Welcome(Box::new(messages::welcome())))
                            .await;
                        taken.send(StreamKind::Control).expect("the test looks");
                        while let Ok(stream) = machine.next().await {
                            let kind = match &stream {
                                FromMachine::Progress(_) => StreamKind::Progress,
                                FromMachine::Blob(_) => StreamKind::Blob,
                            };
                            taken.send(kind).expect("the test looks");
                            // An answer, or a reset, is not what is tested here.
                            std::mem::forget(stream);
                        }
                    }
                }
            });
        }
    });
    (seen, serving)
}

#[tokio::test]
async fn what_an_agent_may_not_open_closes_the_connection() {
    let fixture = Arc::new(Fixture::new());
    let identity = new_identity(&fixture.authority);
    let (mut seen, serving) = serve(&fixture);
    let openings = openings();
    let hello = frame(&FromAgent::Hello(Box::new(messages::hello())));
    let request = frame(&messages::enroll_request(vec![1]));
    let (mut closed, mut taken) = (0, Vec::new());
    for (alpn, first, opening) in [
        (ALPN, StreamKind::Control, &hello),
        (ALPN_ENROLL, StreamKind::Enroll, &request),
    ] {
        for state in [State::Before, State::After] {
            for direction in [Direction::Unidirectional, Direction::Bidirectional] {
                for (byte, sample) in &openings {
                    let case = format!("{first:?} {state:?} {direction:?} {byte} {sample:?}");
                    let shown = (alpn == ALPN).then(|| Shown::of(&identity));
                    let address = fixture.endpoint.local_addr();
                    let (_endpoint, connection) =
                        raw::client(&fixture.authority, address, alpn, shown)
                            .await
                            .expect("connects");
                    if state == State::After {
                        open(&connection, first as u8, opening, Direction::Bidirectional).await;
                        assert_eq!(
                            soon("the opening", seen.recv()).await,
                            Some(first),
                            "{case}"
                        );
                    }
                    open(&connection, *byte, &sample.frame, direction).await;

                    let expected = beginning(*byte, sample)
                        .filter(|kind| kind.allowed(alpn, Side::Agent, direction))
                        .filter(|kind| (*kind == first) == (state == State::Before));
                    tokio::select! {
                        kind = soon(&case, seen.recv()) => {
                            assert_eq!(kind, expected, "{case}: was taken in");
                            assert_eq!(connection.close_reason(), None, "{case}");
                            taken.push(sample.name);
                        }
                        error = connection.closed() => {
                            assert!(closed_with(&error, CloseCode::Protocol), "{case}: {error}");
                            assert_eq!(expected, None, "{case}: was refused");
                            closed += 1;
                        }
                    }
                    connection.close(0_u32.into(), b"");
                }
            }
        }
    }
    assert_eq!(taken, ["Hello", "Of", "Request", "Enroll", "Reenroll"]);
    assert_eq!(closed, 2 * 2 * 2 * openings.len() - taken.len());
    assert!(seen.try_recv().is_err(), "something was taken in after all");
    serving.abort();
}

/// A host that keeps to no rule, with a certificate that agents take.
pub(super) fn hostile_host(authority: &Authority) -> (quinn::Endpoint, std::net::SocketAddr) {
    let config = server_config(authority, HostId::generate()).expect("a configuration");
    let endpoint = quinn::Endpoint::server(config, LOOPBACK).expect("binds");
    let address = endpoint.local_addr().expect("is bound");
    (endpoint, address)
}

#[tokio::test]
async fn what_a_host_may_not_open_closes_the_connection() {
    let authority = new_authority();
    let identity = new_identity(&authority);
    let (endpoint, address) = hostile_host(&authority);
    let openings = openings();
    let (mut closed, mut taken) = (0, Vec::new());
    for state in [State::Before, State::After] {
        for direction in [Direction::Unidirectional, Direction::Bidirectional] {
            for (byte, sample) in &openings {
                let case = format!("{state:?} {direction:?} {byte} {sample:?}");
                let addresses = [address.to_string()];
                let (agent, host) =
                    tokio::join!(connect(&addresses, &identity, None), accept(&endpoint));
                let agent = agent.expect("connects");
                let mut control = None;
                if state == State::After {
                    let welcome = async {
                        let (mut send, receive) =
                            soon("control", host.accept_bi()).await.expect("opens");
                        let welcome = frame(&FromHost::Welcome(Box::new(messages::welcome())));
                        send.write_all(&welcome).await.expect("sends");
                        (send, receive)
                    };
                    let (opened, raw) =
                        tokio::join!(agent.open_control(messages::hello()), welcome);
                    control = Some((opened.expect("is welcome"), raw));
                }
                open(&host, *byte, &sample.frame, direction).await;
                let expected = beginning(*byte, sample)
                    .is_some_and(|kind| kind.allowed(ALPN, Side::Host, direction));
                tokio::select! {
                    delivered = soon(&case, agent.next_operation()), if expected => {
                        assert!(
                            matches!(delivered, Ok(Delivered::Operation(_))),
                            "{case}: {delivered:?}"
                        );
                        assert_eq!(host.close_reason(), None, "{case}");
                        taken.push((state, sample.name));
                    }
                    error = soon(&case, host.closed()) => {
                        assert!(closed_with(&error, CloseCode::Protocol), "{case}: {error}");
                        assert!(!expected, "{case}: was refused");
                        closed += 1;
                    }
                }
                drop(control);
            }
        }
    }
    assert_eq!(
        taken,
        [(State::Before, "Operation"), (State::After, "Operation")]
    );
    assert_eq!(closed, 2 * 2 * openings.len() - taken.len());
}

#[tokio::test]
async fn a_host_may_open_nothing_while_a_machine_enrolls() {
    // Side by side, since an agent that has enrolled waits until its close has arrived.
    const HOSTS: usize = 16;
    let mut rows = Vec::new();
    for direction in [Direction::Unidirectional, Direction::Bidirectional] {
        rows.extend(openings().into_iter().map(|opening| (direction, opening)));
    }
    let mut hosts = JoinSet::new();
    for rows in rows.chunks(rows.len().div_ceil(HOSTS)) {
        let rows = rows.to_vec();
        hosts.spawn(async move {
            let count = rows.len();
            let authority = new_authority();
            let (endpoint, address) = hostile_host(&authority);
            let token = Token {
                addresses: vec![address.to_string()],
                authority: authority.root_fingerprint(),
                id: TokenId::generate(),
                secret: vec![9; 32],
            };
            for (direction, (byte, sample)) in rows {
                let case = format!("{direction:?} {byte} {sample:?}");
                let request = messages::enroll_request(vec![1]);
                let host = async {
                    let host = accept(&endpoint).await;
                    open(&host, byte, &sample.frame, direction).await;
                    let error = soon(&case, host.closed()).await;
                    assert!(closed_with(&error, CloseCode::Protocol), "{case}: {error}");
                };
                let (enrolled, ()) = tokio::join!(enroll(&token, &request), host);
                assert!(enrolled.is_err(), "{case}");
            }
            count
        });
    }
    let counts = hosts.join_all().await;
    assert_eq!(counts.iter().sum::<usize>(), rows.len());
}
