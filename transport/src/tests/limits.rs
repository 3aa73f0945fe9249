//! The numbers of `limits.rs`, as a peer that does not keep to them meets them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, ConnectionError, Endpoint, SendStream};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::{FromAgent, FromHost};
use sluice_protocol::message::enroll::Answer;
use sluice_protocol::message::operation::Progress;
use sluice_protocol::message::{ALPN, ALPN_ENROLL, CloseCode, StreamKind, blob};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::fixture::{Fixture, Pair, new_authority, new_identity, soon};
use super::messages;
use super::raw::{self, Shown, accept, closed_with, frame, open_bi, open_uni, own_address};
use super::streams::hostile_host;
use crate::agent::connect;
use crate::error::LinkError;
use crate::host::{Arrival, EnrollConnection, FromMachine, HostConnection};
use crate::identity::HOST_SERVER_NAME;
use crate::limits;

/// What has not happened within this does not happen by itself.
const A_WHILE: Duration = Duration::from_millis(200);

/// A raw agent that has said `Hello`, and the host's end of its connection.
struct Greeted {
    connection: Connection,
    machine: HostConnection,
    /// Held: what is dropped is given up.
    _kept: (Endpoint, SendStream, quinn::RecvStream),
}

async fn greeted(fixture: &Fixture, config: quinn::ClientConfig) -> Greeted {
    let address = fixture.endpoint.local_addr();
    let (endpoint, connection) = raw::connect(own_address(), config, address)
        .await
        .expect("connects");
    let hello = FromAgent::Hello(Box::new(messages::hello()));
    let bytes = [&[StreamKind::Control as u8], frame(&hello).as_slice()].concat();
    let (send, receive) = open_bi(&connection, &bytes).await;
    let machine = fixture.machine().await;
    soon("hello", machine.accept_control())
        .await
        .expect("says hello");
    Greeted {
        connection,
        machine,
        _kept: (endpoint, send, receive),
    }
}

fn machine_config(fixture: &Fixture) -> quinn::ClientConfig {
    let shown = Shown::of(&new_identity(&fixture.authority));
    raw::client_config(&fixture.authority, ALPN, Some(shown))
}

/// Opens streams until there is no more leave to.
async fn open_all<S, E, F>(mut open: impl FnMut() -> F) -> Vec<S>
where
    F: Future<Output = Result<S, E>>,
    E: std::fmt::Debug,
{
    let mut opened = Vec::new();
    while let Ok(stream) = timeout(A_WHILE, open()).await {
        opened.push(stream.expect("the connection is up"));
    }
    opened
}

#[tokio::test]
async fn an_agent_opens_so_many_streams_and_another_one_when_one_has_ended() {
    let fixture = Fixture::new();
    let peer = greeted(&fixture, machine_config(&fixture)).await;
    let both_ways = open_all(|| peer.connection.open_bi()).await;
    assert_eq!(both_ways.len(), 7, "and the control stream");
    let mut one_way = open_all(|| peer.connection.open_uni()).await;
    assert_eq!(one_way.len(), 64);

    // Leave is given anew in steps of an eighth.
    let of = frame(&Progress::Of(OperationId::generate()));
    let bytes = [&[StreamKind::Progress as u8], of.as_slice()].concat();
    for mut ending in one_way.drain(..16) {
        ending.write_all(&bytes).await.expect("sends");
        ending.finish().expect("finishes");
        let Ok(FromMachine::Progress(mut progress)) = soon("progress", peer.machine.next()).await
        else {
            panic!("no progress came");
        };
        assert_eq!(soon("its end", progress.recv()).await, Ok(None));
    }
    let more = open_all(|| peer.connection.open_uni()).await;
    assert!((1..=16).contains(&more.len()), "{}", more.len());
    assert_eq!(peer.connection.close_reason(), None);
}

#[tokio::test]
async fn a_host_opens_so_many_streams() {
    let authority = new_authority();
    let identity = new_identity(&authority);
    let (endpoint, address) = hostile_host(&authority);
    let addresses = [address.to_string()];
    let (agent, host) = tokio::join!(connect(&addresses, &identity, None), accept(&endpoint));
    let _agent = agent.expect("connects");
    // One that is not allowed, so that it is answered and not only never heard of.
    let both_ways = open_all(|| host.open_bi()).await;
    let one_way = open_all(|| host.open_uni()).await;
    assert_eq!((both_ways.len(), one_way.len()), (1, 4));
    assert_eq!(host.close_reason(), None);
}

/// Writes to a stream until nothing more is taken, and says how much was.
async fn fill(stream: &mut SendStream) -> usize {
    let (piece, mut written) = (vec![0; 64 << 10], 0);
    while let Ok(taken) = timeout(A_WHILE, stream.write(&piece)).await {
        written += taken.expect("the stream is open");
    }
    written
}

#[tokio::test]
async fn what_is_not_read_stops_at_the_windows() {
    let fixture = Fixture::new();
    let peer = greeted(&fixture, machine_config(&fixture)).await;
    let of = frame(&Progress::Of(OperationId::generate()));
    let bytes = [&[StreamKind::Progress as u8], of.as_slice()].concat();
    let mut streams = Vec::new();
    for _ in 0..6 {
        let stream = open_uni(&peer.connection, &bytes).await;
        // Its first message is read, and the rest is the program's to read, which does not.
        let taken = soon("progress", peer.machine.next()).await;
        streams.push((stream, taken));
    }
    let mut written = Vec::new();
    for (stream, _) in &mut streams {
        written.push(bytes.len() + fill(stream).await);
    }
    assert_eq!(written[0], 256 << 10, "of one stream: {written:?}");
    let (all, window) = (written.iter().sum::<usize>(), 1 << 20);
    // What was read before counts no more, or still does: the window is moved in steps.
    assert!(
        all.abs_diff(window) < 8 << 10,
        "of all streams: {written:?}"
    );
    assert_eq!(peer.connection.close_reason(), None);
}

#[tokio::test]
async fn a_blob_that_an_agent_does_not_read_stops_at_the_window() {
    let authority = new_authority();
    let identity = new_identity(&authority);
    let (endpoint, address) = hostile_host(&authority);
    let addresses = [address.to_string()];
    let (agent, host) = tokio::join!(connect(&addresses, &identity, None), accept(&endpoint));
    let agent = agent.expect("connects");
    let welcome = frame(&FromHost::Welcome(Box::new(messages::welcome())));
    let found = frame(&blob::Answer::Found { size: 1 << 30 });
    let said = async {
        let (mut control, receive) = host.accept_bi().await.expect("opens control");
        control.write_all(&welcome).await.expect("sends");
        let (mut send, asked) = host.accept_bi().await.expect("asks");
        send.write_all(&found).await.expect("sends");
        (send, (control, receive, asked))
    };
    let fetched = async {
        let control = agent.open_control(messages::hello()).await;
        let blob = agent.fetch(Digest::of(b""), 0).await;
        (
            control.expect("is welcome"),
            blob.expect("is answered").expect("is found"),
        )
    };
    let (_unread, (mut send, _kept)) = tokio::join!(fetched, said);
    let written = found.len() + fill(&mut send).await;
    assert_eq!(written, 256 << 10);
    assert_eq!(host.close_reason(), None);
}

/// Waits for the end, and says why and after how long. Half a minute is the longest that anything may take here.
async fn ends(connection: &Connection, since: Instant) -> (ConnectionError, Duration) {
    let error = timeout(Duration::from_secs(60), connection.closed())
        .await
        .expect("ends within a minute");
    (error, since.elapsed())
}

#[tokio::test]
async fn whoever_is_silent_or_slow_is_left_in_time_and_is_not_called_a_violator() {
    let fixture = Fixture::new();
    let seconds = |from: u64, to: u64| Duration::from_secs(from)..Duration::from_secs(to);
    // A client that goes on by itself for ever, and one that would keep its connection alive whatever the host does.
    let mut alive = quinn::TransportConfig::default();
    alive.max_idle_timeout(None);
    let mut silent = quinn::TransportConfig::default();
    silent.max_idle_timeout(None);
    alive.keep_alive_interval(Some(Duration::from_secs(1)));
    let (alive, silent) = (Arc::new(alive), Arc::new(silent));
    let with = |mut config: quinn::ClientConfig, transport: &Arc<quinn::TransportConfig>| {
        config.transport_config(Arc::clone(transport));
        config
    };
    let address = fixture.endpoint.local_addr();

    let Pair {
        agent: quiet_agent,
        host: quiet_host,
        agent_control: _agent_control,
        host_control: _host_control,
        ..
    } = fixture.pair().await;
    let gone = greeted(&fixture, with(machine_config(&fixture), &silent)).await;
    let slow_stream = greeted(&fixture, with(machine_config(&fixture), &alive)).await;
    let _stream = open_uni(&slow_stream.connection, &[StreamKind::Progress as u8]).await;
    let config = with(machine_config(&fixture), &alive);
    let (_endpoint, no_hello) = raw::connect(own_address(), config, address)
        .await
        .expect("connects");
    let no_hello_machine = fixture.machine().await;
    let config = raw::client_config(&fixture.authority, ALPN_ENROLL, None);
    let (_endpoint, no_request) = raw::connect(own_address(), with(config, &alive), address)
        .await
        .expect("connects");
    let since = Instant::now();

    let enrollment = async {
        let (error, after) = ends(&no_request, since).await;
        assert!(closed_with(&error, CloseCode::Busy), "{error}");
        assert!(seconds(4, 9).contains(&after), "no request: {after:?}");
    };
    let hello = async {
        let (error, after) = ends(&no_hello, since).await;
        assert!(closed_with(&error, CloseCode::Busy), "{error}");
        assert!(seconds(9, 20).contains(&after), "no Hello: {after:?}");
        let error = no_hello_machine.accept_control().await.err();
        assert!(
            matches!(error, Some(LinkError::Lost { .. })),
            "no Hello: {error:?}"
        );
        assert_eq!(no_hello_machine.violated(), None);
    };
    let first_message = async {
        let (error, after) = ends(&slow_stream.connection, since).await;
        assert!(closed_with(&error, CloseCode::Busy), "{error}");
        assert!(
            seconds(29, 45).contains(&after),
            "no first message: {after:?}"
        );
        assert_eq!(slow_stream.machine.violated(), None);
    };
    let silence = async {
        let error = timeout(Duration::from_secs(60), gone.machine.closed()).await;
        let after = since.elapsed();
        assert!(
            matches!(error, Ok(LinkError::Lost { .. })),
            "silence: {error:?}"
        );
        assert!(seconds(29, 45).contains(&after), "silence: {after:?}");
    };
    tokio::join!(enrollment, hello, first_message, silence);
    // Nothing was said here either, but by the carrier.
    assert!(since.elapsed() > limits::IDLE_TIME_LIMIT - Duration::from_secs(1));
    let error = timeout(Duration::from_millis(1), quiet_host.closed()).await;
    assert!(
        error.is_err(),
        "a quiet agent was taken for gone: {error:?}"
    );
    drop(quiet_agent);
}

/// A handshake that was begun and does not go on. Held, it takes a place at the host.
struct Stalled {
    /// How the host answered the first packet.
    answer: HostsAnswer,
    _kept: (Endpoint, UdpSocket, UdpSocket, quinn::Connecting),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HostsAnswer {
    /// With a handshake of its own.
    Handshake,
    /// With a Retry (RFC 9000, section 17.2.5).
    Retry,
}

/// Begins a handshake from `source`, and, where the host wants to see the address shown, shows it.
async fn stall(fixture: &Fixture, source: SocketAddr) -> Stalled {
    let near = UdpSocket::bind(own_address()).await.expect("binds");
    let far = UdpSocket::bind(source).await.expect("binds");
    far.connect(fixture.endpoint.local_addr())
        .await
        .expect("connects");
    let endpoint = Endpoint::client(own_address()).expect("binds");
    let config = raw::client_config(&fixture.authority, ALPN, None);
    let connecting = endpoint
        .connect_with(
            config,
            near.local_addr().expect("is bound"),
            HOST_SERVER_NAME,
        )
        .expect("starts");
    let mut packet = vec![0; 2048];
    let (length, client) = soon("a first packet", near.recv_from(&mut packet))
        .await
        .expect("receives");
    far.send(&packet[..length]).await.expect("sends");
    let length = soon("the host's answer", far.recv(&mut packet))
        .await
        .expect("receives");
    // A long header of the fourth type (RFC 9000, section 17.2).
    let answer = if packet[0] & 0xf0 == 0xf0 {
        HostsAnswer::Retry
    } else {
        HostsAnswer::Handshake
    };
    if answer == HostsAnswer::Retry {
        near.send_to(&packet[..length], client)
            .await
            .expect("sends");
        let (length, _) = soon("a second packet", near.recv_from(&mut packet))
            .await
            .expect("receives");
        far.send(&packet[..length]).await.expect("sends");
        let length = soon("the host's answer", far.recv(&mut packet))
            .await
            .expect("receives");
        assert!(length > 0 && packet[0] & 0xf0 != 0xf0, "a second Retry");
    }
    Stalled {
        answer,
        _kept: (endpoint, near, far, connecting),
    }
}

/// Connects from the address of `source`, as a machine.
async fn machine_from(
    fixture: &Fixture,
    source: SocketAddr,
) -> Result<(Endpoint, Connection), ConnectionError> {
    let source = SocketAddr::new(source.ip(), 0);
    let address = fixture.endpoint.local_addr();
    raw::connect(source, machine_config(fixture), address).await
}

#[tokio::test]
async fn a_source_that_ends_no_handshake_keeps_itself_out_and_nobody_else() {
    let fixture = Fixture::new();
    let (one, other) = (own_address(), own_address());
    let mut stalled = Vec::new();
    for n in 0..32 {
        let handshake = stall(&fixture, one).await;
        let expected = if n < 8 {
            HostsAnswer::Handshake
        } else {
            HostsAnswer::Retry
        };
        assert_eq!(handshake.answer, expected, "number {n}");
        stalled.push(handshake);
        if n == 20 {
            // Whoever shows its address gets in, however many forge it.
            machine_from(&fixture, one).await.expect("connects");
            fixture.machine().await;
        }
    }
    let refused = machine_from(&fixture, one).await.err();
    assert!(
        matches!(&refused, Some(ConnectionError::ConnectionClosed(close)) if u64::from(close.error_code) == 2),
        "{refused:?}"
    );
    assert_eq!(stall(&fixture, other).await.answer, HostsAnswer::Handshake);
    machine_from(&fixture, other).await.expect("connects");
    fixture.machine().await;
}

#[tokio::test]
async fn under_many_handshakes_everybody_has_to_show_an_address_and_gets_in() {
    let fixture = Fixture::new();
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let source = own_address();
        for _ in 0..8 {
            let handshake = stall(&fixture, source).await;
            assert_eq!(handshake.answer, HostsAnswer::Handshake);
            stalled.push(handshake);
        }
    }
    let newcomer = own_address();
    assert_eq!(stall(&fixture, newcomer).await.answer, HostsAnswer::Retry);
    machine_from(&fixture, newcomer).await.expect("connects");
    fixture.machine().await;
}

/// Somebody from `source` who enrolls, or wants to.
async fn enrolling(fixture: &Fixture, source: SocketAddr) -> (Endpoint, Connection) {
    let config = raw::client_config(&fixture.authority, ALPN_ENROLL, None);
    let address = fixture.endpoint.local_addr();
    raw::connect(source, config, address)
        .await
        .expect("connects")
}

/// The same with a request, and how the host sees it, or why it was sent away.
async fn asking(
    fixture: &Fixture,
    source: SocketAddr,
) -> Result<(EnrollConnection, (Endpoint, Connection)), ConnectionError> {
    let (endpoint, connection) = enrolling(fixture, source).await;
    let request = frame(&messages::enroll_request(vec![1]));
    let bytes = [&[StreamKind::Enroll as u8], request.as_slice()].concat();
    let (mut send, receive) = open_bi(&connection, &bytes).await;
    let _closed = send.finish();
    std::mem::forget(receive);
    tokio::select! {
        arrival = soon("an enrollment", fixture.endpoint.accept()) => match arrival {
            Some(Arrival::Enrollment(enrollment)) => Ok((*enrollment, (endpoint, connection))),
            other => panic!("expected an enrollment, got {other:?}"),
        },
        error = connection.closed() => Err(error),
    }
}

#[tokio::test]
async fn one_source_takes_few_of_the_places_to_enroll() {
    let fixture = Fixture::new();
    let mut kept = Vec::new();
    let greedy = own_address();
    for _ in 0..4 {
        kept.push(enrolling(&fixture, greedy).await);
    }
    let (_endpoint, fifth) = enrolling(&fixture, greedy).await;
    let error = soon("the close", fifth.closed()).await;
    assert!(closed_with(&error, CloseCode::Busy), "{error}");
    // It takes eight of them to take all.
    let mut enrollments = Vec::new();
    for _ in 0..7 {
        let source = own_address();
        for _ in 0..4 {
            let (enrollment, asked) = asking(&fixture, source).await.expect("has a place");
            enrollments.push(enrollment);
            kept.push(asked);
        }
    }
    for (_, connection) in &kept {
        assert_eq!(connection.close_reason(), None);
    }
    let late = own_address();
    let error = asking(&fixture, late).await.expect_err("has none");
    assert!(closed_with(&error, CloseCode::Busy), "{error}");
    drop(enrollments);
    asking(&fixture, late).await.expect("has a place");
}

#[tokio::test]
async fn whoever_enrolls_in_vain_again_and_again_has_to_wait_and_whoever_is_let_in_has_not() {
    let fixture = Fixture::new();
    let (guessing, site) = (own_address(), own_address());
    let answered = async |source, answer: &Answer| -> Result<(), ConnectionError> {
        let (enrollment, (_endpoint, connection)) = asking(&fixture, source).await?;
        // As an agent does when it has the answer.
        connection.close((CloseCode::Done as u32).into(), b"");
        let _done = enrollment.answer(answer).await;
        Ok(())
    };
    let refused = Answer::Refused {
        reason: "no".to_owned(),
    };
    let enrolled = Answer::Enrolled(Box::new(messages::enrolled(vec![])));
    for _ in 0..10 {
        answered(guessing, &refused).await.expect("has a try");
    }
    let error = answered(guessing, &refused)
        .await
        .expect_err("is sent away");
    assert!(closed_with(&error, CloseCode::Busy), "{error}");
    for _ in 0..25 {
        answered(site, &enrolled).await.expect("is let in");
    }
}
