//! Every kind of stream, in either direction, opened by either side, on every ALPN and in every state of a connection.
//! What `StreamKind::allowed` lists, and the state too, is taken in; everything else closes the connection with
//! `CloseCode::Protocol`.

use std::sync::Arc;

use quinn::Connection;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{HostId, OperationId, TokenId};
use sluice_protocol::message::blob;
use sluice_protocol::message::control::{FromAgent, FromHost};
use sluice_protocol::message::enroll::{Answer, Token};
use sluice_protocol::message::operation::Progress;
use sluice_protocol::message::{ALPN, ALPN_ENROLL, CloseCode, Direction, Side, StreamKind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fixture::{Fixture, LOOPBACK, new_authority, new_identity, soon};
use super::messages;
use super::raw::{self, Shown, accept, closed_with, frame, open_bi, open_uni};
use crate::agent::{connect, enroll};
use crate::host::{Arrival, FromMachine, server_config};

/// Every first byte that means something, and two that do not.
fn first_bytes() -> Vec<u8> {
    StreamKind::ALL
        .iter()
        .map(|kind| *kind as u8)
        .chain([0, 255])
        .collect()
}

/// A good first message for this kind of stream from this side.
fn first_message(kind: StreamKind, opener: Side) -> Vec<u8> {
    match (kind, opener) {
        (StreamKind::Control, Side::Agent) => frame(&FromAgent::Hello(Box::new(messages::hello()))),
        (StreamKind::Control, Side::Host) => {
            frame(&FromHost::Welcome(Box::new(messages::welcome())))
        }
        (StreamKind::Operation, _) => frame(&messages::operation(b"true".to_vec())),
        (StreamKind::Progress, _) => frame(&Progress::Of(OperationId::generate())),
        (StreamKind::Blob, _) => frame(&blob::Request {
            sha256: Digest::of(b""),
            offset: 0,
        }),
        (StreamKind::Enroll, _) => frame(&messages::enroll_request(vec![1])),
    }
}

/// Every first byte with every message: a byte that is not allowed must not get through with the message of one that is,
/// nor the other way around.
fn openings() -> impl Iterator<Item = (u8, StreamKind)> {
    first_bytes()
        .into_iter()
        .flat_map(|byte| StreamKind::ALL.iter().map(move |message| (byte, *message)))
}

/// Opens a stream, whole: first byte, message, end.
async fn open(
    connection: &Connection,
    byte: u8,
    message: StreamKind,
    direction: Direction,
    opener: Side,
) {
    let bytes = [&[byte], first_message(message, opener).as_slice()].concat();
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
    let (mut closed, mut taken) = (0, 0);
    for alpn in [ALPN, ALPN_ENROLL] {
        for state in [State::Before, State::After] {
            for direction in [Direction::Unidirectional, Direction::Bidirectional] {
                for (byte, message) in openings() {
                    let case = format!(
                        "{} {state:?} {direction:?} {byte} {message:?}",
                        String::from_utf8_lossy(alpn)
                    );
                    let shown = (alpn == ALPN).then(|| Shown::of(&identity));
                    let address = fixture.endpoint.local_addr();
                    let (_endpoint, connection) =
                        raw::client(&fixture.authority, address, alpn, shown)
                            .await
                            .expect("connects");
                    let first = if alpn == ALPN {
                        StreamKind::Control
                    } else {
                        StreamKind::Enroll
                    };
                    if state == State::After {
                        open(
                            &connection,
                            first as u8,
                            first,
                            Direction::Bidirectional,
                            Side::Agent,
                        )
                        .await;
                        assert_eq!(
                            soon("the opening", seen.recv()).await,
                            Some(first),
                            "{case}"
                        );
                    }
                    open(&connection, byte, message, direction, Side::Agent).await;

                    let kind = StreamKind::from_byte(byte)
                        .filter(|kind| kind.allowed(alpn, Side::Agent, direction));
                    let expected = kind
                        .filter(|kind| *kind == message)
                        .filter(|kind| (*kind == first) == (state == State::Before));
                    tokio::select! {
                        kind = soon(&case, seen.recv()) => {
                            assert_eq!(kind, expected, "{case}: was taken in");
                            assert_eq!(connection.close_reason(), None, "{case}");
                            taken += 1;
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
    assert_eq!(
        (taken, closed),
        (4, 2 * 2 * 2 * 7 * 5 - 4),
        "control, progress, blob, enroll; and all the rest"
    );
    assert!(seen.try_recv().is_err(), "something was taken in after all");
    serving.abort();
}

/// A host that keeps to no rule, with a certificate that agents take.
fn hostile_host(fixture: &crate::identity::Authority) -> (quinn::Endpoint, std::net::SocketAddr) {
    let config = server_config(fixture, HostId::generate()).expect("a configuration");
    let endpoint = quinn::Endpoint::server(config, LOOPBACK).expect("binds");
    let address = endpoint.local_addr().expect("is bound");
    (endpoint, address)
}

#[tokio::test]
async fn what_a_host_may_not_open_closes_the_connection() {
    let authority = new_authority();
    let identity = new_identity(&authority);
    let (endpoint, address) = hostile_host(&authority);
    let (mut closed, mut taken) = (0, 0);
    for state in [State::Before, State::After] {
        for direction in [Direction::Unidirectional, Direction::Bidirectional] {
            for (byte, message) in openings() {
                let case = format!("{state:?} {direction:?} {byte} {message:?}");
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
                open(&host, byte, message, direction, Side::Host).await;
                let expected = StreamKind::from_byte(byte)
                    .is_some_and(|kind| kind.allowed(ALPN, Side::Host, direction))
                    && byte == message as u8;
                tokio::select! {
                    operation = soon(&case, agent.next_operation()), if expected => {
                        operation.expect("arrives");
                        assert_eq!(host.close_reason(), None, "{case}");
                        taken += 1;
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
        (taken, closed),
        (2, 2 * 2 * 7 * 5 - 2),
        "an operation in either state; and all the rest"
    );
}

#[tokio::test]
async fn a_host_may_open_nothing_while_a_machine_enrolls() {
    let authority = new_authority();
    let (endpoint, address) = hostile_host(&authority);
    let token = Token {
        addresses: vec![address.to_string()],
        authority: authority.root_fingerprint(),
        id: TokenId::generate(),
        secret: vec![9; 32],
    };
    for direction in [Direction::Unidirectional, Direction::Bidirectional] {
        for (byte, message) in openings() {
            let case = format!("{direction:?} {byte} {message:?}");
            let request = messages::enroll_request(vec![1]);
            let host = async {
                let host = accept(&endpoint).await;
                open(&host, byte, message, direction, Side::Host).await;
                let error = soon(&case, host.closed()).await;
                assert!(closed_with(&error, CloseCode::Protocol), "{case}: {error}");
            };
            let (enrolled, ()) = tokio::join!(enroll(&token, &request), host);
            assert!(enrolled.is_err(), "{case}");
        }
    }
}
