//! Every message at every place of a stream that is open: what has its turn there is taken in, and everything else closes
//! the connection with `CloseCode::Protocol`.

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{OperationId, TokenId};
use sluice_protocol::message::control::{FromAgent, FromHost};
use sluice_protocol::message::enroll::{Answer, Token};
use sluice_protocol::message::operation::Progress;
use sluice_protocol::message::{ALPN, ALPN_ENROLL, CloseCode, Side, StreamKind, blob};

use super::fixture::{Fixture, new_authority, new_identity, soon};
use super::messages::{self, Sample};
use super::raw::{self, Shown, accept, closed_with, frame, open_bi, open_uni};
use super::streams::hostile_host;
use crate::agent::{AgentConnection, EnrollError, connect, enroll};
use crate::error::LinkError;
use crate::host::{Arrival, FromMachine};

/// Takes one message at a place: its frame as it was read, or why not.
type Taken = Result<Vec<u8>, LinkError>;

/// Compares what became of every message with what may stand at this place; `taken` are the names of those.
async fn expect_only<F>(place: &str, taken: &[&str], mut put: impl FnMut(Sample) -> F)
where
    F: Future<Output = (Taken, quinn::ConnectionError)>,
{
    let mut seen = Vec::new();
    for sample in messages::all() {
        let case = format!("{place}: {sample:?}");
        let (result, closed) = soon(&case, put(sample.clone())).await;
        match result {
            Ok(frame) => {
                assert!(frame == sample.frame, "{case}: came as another");
                seen.push(sample.name);
            }
            Err(error) => {
                assert!(
                    matches!(error, LinkError::Violation { .. }),
                    "{case}: {error:?}"
                );
                assert!(
                    closed_with(&closed, CloseCode::Protocol),
                    "{case}: {closed}"
                );
            }
        }
    }
    assert_eq!(seen, taken, "{place}");
}

/// A stream's bytes from its first on.
fn on(kind: StreamKind, frames: &[&[u8]]) -> Vec<u8> {
    [&[kind as u8], frames.concat().as_slice()].concat()
}

/// A raw agent that was welcome, the host's end of its connection, and the control stream of both.
struct Welcome {
    connection: Connection,
    control: (SendStream, RecvStream),
    machine: crate::host::HostConnection,
    received: crate::control::ControlStream<FromAgent, FromHost>,
    _endpoint: Endpoint,
}

async fn welcome(fixture: &Fixture, shown: &Shown) -> Welcome {
    let address = fixture.endpoint.local_addr();
    let (endpoint, connection) =
        raw::client(&fixture.authority, address, ALPN, Some(shown.clone()))
            .await
            .expect("connects");
    let hello = frame(&FromAgent::Hello(Box::new(messages::hello())));
    let control = open_bi(&connection, &on(StreamKind::Control, &[&hello])).await;
    let machine = fixture.machine().await;
    let (_, received) = machine.accept_control().await.expect("says hello");
    Welcome {
        connection,
        control,
        machine,
        received,
        _endpoint: endpoint,
    }
}

#[tokio::test]
async fn an_agent_says_on_an_open_stream_what_has_its_turn_there() {
    let fixture = Fixture::new();
    let shown = Shown::of(&new_identity(&fixture.authority));
    let (fixture, shown) = (&fixture, &shown);
    let of = frame(&Progress::Of(OperationId::generate()));
    let finished = frame(messages::progress().last().expect("is last"));
    let asked = frame(&messages::blob_request());
    let (of, finished, asked) = (&of, &finished, &asked);

    expect_only(
        "control, after Hello",
        &["Facts", "GatesReady", "History", "Pong", "Renew"],
        async |sample: Sample| {
            let mut peer = welcome(fixture, shown).await;
            let _closed = peer.control.0.write_all(&sample.frame).await;
            let taken = peer.received.receive().await;
            let taken = taken.map(|message| frame(&message));
            let closed = end(&taken, &peer.connection).await;
            (taken, closed)
        },
    )
    .await;

    for (place, before, may) in [
        (
            "progress, after Of",
            vec![of],
            vec![
                "Accepted", "Checking", "Running", "Output", "Ledger", "Receipts", "Finished",
            ],
        ),
        ("progress, after the end", vec![of, finished], vec![]),
    ] {
        let before = &before;
        expect_only(place, &may, async |sample: Sample| {
            let peer = welcome(fixture, shown).await;
            let frames: Vec<&[u8]> = before
                .iter()
                .map(|frame| frame.as_slice())
                .chain([sample.frame.as_slice()])
                .collect();
            let mut stream = open_uni(&peer.connection, &on(StreamKind::Progress, &frames)).await;
            let _closed = stream.finish();
            let Ok(FromMachine::Progress(mut progress)) = peer.machine.next().await else {
                panic!("no progress came");
            };
            let mut taken = Ok(Vec::new());
            for _ in 1..=before.len() {
                taken = progress
                    .recv()
                    .await
                    .map(|message| frame(&message.expect("is not the end")));
            }
            let closed = end(&taken, &peer.connection).await;
            (taken, closed)
        })
        .await;
    }

    expect_only("blob, after a request", &[], async |sample: Sample| {
        let peer = welcome(fixture, shown).await;
        let bytes = on(StreamKind::Blob, &[asked, &sample.frame]);
        let (mut send, _receive) = open_bi(&peer.connection, &bytes).await;
        let _closed = send.finish();
        let taken = peer.machine.next().await.map(|_| Vec::new());
        let closed = end(&taken, &peer.connection).await;
        (taken, closed)
    })
    .await;
}

/// Waits for the end of a connection on which something was found fault with, and ends the others.
async fn end(taken: &Taken, connection: &Connection) -> quinn::ConnectionError {
    if taken.is_ok() {
        assert_eq!(connection.close_reason(), None, "was taken in and closed");
        connection.close(0_u32.into(), b"");
    }
    connection.closed().await
}

#[tokio::test]
async fn whoever_enrolls_says_one_thing() {
    let fixture = Fixture::new();
    let fixture = &fixture;
    let request = frame(&messages::enroll_request(vec![1]));
    let request = &request;
    expect_only("enroll, after a request", &[], async |sample: Sample| {
        let address = fixture.endpoint.local_addr();
        let (_endpoint, connection) = raw::client(&fixture.authority, address, ALPN_ENROLL, None)
            .await
            .expect("connects");
        let bytes = on(StreamKind::Enroll, &[request, &sample.frame]);
        let (mut send, _receive) = open_bi(&connection, &bytes).await;
        let _closed = send.finish();
        tokio::select! {
            arrival = fixture.endpoint.accept() => {
                assert!(matches!(arrival, Some(Arrival::Enrollment(_))));
                connection.close(0_u32.into(), b"");
                (Ok(Vec::new()), connection.closed().await)
            }
            closed = connection.closed() => {
                let reason = "as the peer saw it".to_owned();
                (Err(LinkError::Violation { reason }), closed)
            }
        }
    })
    .await;
}

/// An agent on its way to `Welcome`, and a host that keeps to no rule.
struct Hostile {
    agent: AgentConnection,
    host: Connection,
}

#[tokio::test]
async fn a_host_says_on_an_open_stream_what_has_its_turn_there() {
    let authority = new_authority();
    let identity = new_identity(&authority);
    let (endpoint, address) = hostile_host(&authority);
    let (identity, endpoint) = (&identity, &endpoint);
    let meet = async || {
        let addresses = [address.to_string()];
        let (agent, host) = tokio::join!(connect(&addresses, identity, None), accept(endpoint));
        Hostile {
            agent: agent.expect("connects"),
            host,
        }
    };
    let meet = &meet;
    let welcome = frame(&FromHost::Welcome(Box::new(messages::welcome())));
    let welcome = &welcome;

    for (place, before, may) in [
        ("control, first", vec![], vec!["Welcome"]),
        (
            "control, after Welcome",
            vec![welcome],
            vec![
                "History",
                "Ping",
                "Gates",
                "Identity",
                "Cancel",
                "Lockdown",
                "Acknowledge",
                "Renewed",
            ],
        ),
    ] {
        let before = &before;
        expect_only(place, &may, async |sample: Sample| {
            let peer = meet().await;
            let said = async {
                let (mut send, receive) = peer.host.accept_bi().await.expect("opens control");
                for frame in before {
                    send.write_all(frame).await.expect("sends");
                }
                send.write_all(&sample.frame).await.expect("sends");
                (send, receive)
            };
            let (opened, _control) = tokio::join!(peer.agent.open_control(messages::hello()), said);
            let taken = match opened {
                Ok((welcome, _)) if before.is_empty() => {
                    Ok(frame(&FromHost::Welcome(Box::new(welcome))))
                }
                Ok((_, mut control)) => control.receive().await.map(|message| frame(&message)),
                Err(error) => Err(error),
            };
            let closed = end(&taken, &peer.host).await;
            (taken, closed)
        })
        .await;
    }

    let operation = frame(&messages::operation(b"true".to_vec()));
    let operation = &operation;
    expect_only("operation, after it", &[], async |sample: Sample| {
        let peer = meet().await;
        let bytes = on(StreamKind::Operation, &[operation, &sample.frame]);
        let mut stream = open_uni(&peer.host, &bytes).await;
        let _closed = stream.finish();
        let taken = peer.agent.next_operation().await.map(|_| Vec::new());
        let closed = end(&taken, &peer.host).await;
        (taken, closed)
    })
    .await;

    let not_found = frame(&blob::Answer::NotFound);
    let not_found = &not_found;
    for (place, before, may) in [
        ("blob, the answer", vec![], vec!["Found", "NotFound"]),
        ("blob, after the answer", vec![not_found], vec![]),
    ] {
        let before = &before;
        expect_only(place, &may, async |sample: Sample| {
            let peer = meet().await;
            let said = async {
                let (mut send, receive) = peer.host.accept_bi().await.expect("opens control");
                send.write_all(welcome).await.expect("sends");
                let (mut blob, asked) = peer.host.accept_bi().await.expect("asks");
                for frame in before {
                    blob.write_all(frame).await.expect("sends");
                }
                blob.write_all(&sample.frame).await.expect("sends");
                blob.finish().expect("finishes");
                (send, receive, asked)
            };
            let fetched = async {
                let control = peer.agent.open_control(messages::hello()).await;
                let _control = control.expect("is welcome");
                peer.agent.fetch(Digest::of(b""), 0).await
            };
            let (fetched, _streams) = tokio::join!(fetched, said);
            let taken = fetched.map(|found| {
                let answer = found.map_or(blob::Answer::NotFound, |(size, _)| {
                    blob::Answer::Found { size }
                });
                frame(&answer)
            });
            let closed = end(&taken, &peer.host).await;
            (taken, closed)
        })
        .await;
    }

    let token = Token {
        addresses: vec![address.to_string()],
        authority: authority.root_fingerprint(),
        id: TokenId::generate(),
        secret: vec![9; 32],
    };
    let refused = frame(&Answer::Refused {
        reason: "no".to_owned(),
    });
    let (token, refused) = (&token, &refused);
    for (place, before, may) in [
        ("enroll, the answer", vec![], vec!["Enrolled", "Refused"]),
        ("enroll, after the answer", vec![refused], vec![]),
    ] {
        let before = &before;
        expect_only(place, &may, async |sample: Sample| {
            let request = messages::enroll_request(vec![1]);
            let said = async {
                let host = accept(endpoint).await;
                let (mut send, receive) = host.accept_bi().await.expect("opens");
                for frame in before {
                    send.write_all(frame).await.expect("sends");
                }
                send.write_all(&sample.frame).await.expect("sends");
                send.finish().expect("finishes");
                (host.closed().await, receive)
            };
            let (enrolled, (closed, _receive)) = tokio::join!(enroll(token, &request), said);
            let taken = match enrolled {
                Ok(enrollment) => Ok(frame(&Answer::Enrolled(Box::new(enrollment.enrolled)))),
                Err(EnrollError::Refused { reason }) => Ok(frame(&Answer::Refused { reason })),
                Err(EnrollError::Unanswered(error)) => Err(error),
                Err(error) => panic!("{error:?}"),
            };
            (taken, closed)
        })
        .await;
    }
    let opened_by_hosts: Vec<_> = messages::all()
        .into_iter()
        .filter(|sample| sample.from == Side::Host && sample.opens_stream())
        .map(|sample| sample.name)
        .collect();
    assert_eq!(opened_by_hosts, ["Operation"], "another place to test");
}
