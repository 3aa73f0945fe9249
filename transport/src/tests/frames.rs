//! Bytes that are no message, and messages that have no business where they stand.

use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::{FromAgent, FromHost};
use sluice_protocol::message::operation::{Chunk, MAX_CHUNK, OutputStream, Progress};
use sluice_protocol::message::{ALPN, ALPN_ENROLL, CloseCode, StreamKind, blob};

use super::fixture::{Fixture, new_identity, soon};
use super::messages;
use super::raw::{self, Shown, closed_with, frame, open_bi, open_uni, raw_frame};
use crate::error::LinkError;
use crate::host::FromMachine;

fn on(kind: StreamKind, rest: &[&[u8]]) -> Vec<u8> {
    [&[kind as u8], rest.concat().as_slice()].concat()
}

fn length(n: usize) -> Vec<u8> {
    u32::try_from(n).expect("fits").to_be_bytes().to_vec()
}

/// Rows whose length alone is wrong: the stream stays open, so that nothing else can be found fault with.
fn stays_open(what: &str) -> bool {
    matches!(what, "too long" | "4 GiB" | "a long Of")
}

/// A frame's bytes, changed in ways that say the same or nothing.
fn broken(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let body = &good[4..];
    let mut flipped = body.to_vec();
    flipped[0] ^= 0xff;
    vec![
        ("garbage", raw_frame(&flipped)),
        ("trailing bytes", raw_frame(&[body, b"\0"].concat())),
        ("a body that is cut", raw_frame(&body[..body.len() - 1])),
        ("no body", raw_frame(b"")),
        (
            "another message",
            raw_frame(&codec::encode(&"hello").expect("encodes")),
        ),
        ("a frame that is cut", good[..good.len() - 1].to_vec()),
        ("a length that is cut", good[..3].to_vec()),
    ]
}

#[tokio::test]
async fn a_first_message_that_is_none_closes_the_connection() {
    let fixture = Fixture::new();
    let identity = new_identity(&fixture.authority);
    let hello = frame(&FromAgent::Hello(Box::new(messages::hello())));
    let request = frame(&messages::enroll_request(vec![1]));
    let mut table = Vec::new();
    for (what, bytes) in broken(&hello) {
        table.push((ALPN, what, on(StreamKind::Control, &[&bytes])));
    }
    for (what, bytes) in broken(&request) {
        table.push((ALPN_ENROLL, what, on(StreamKind::Enroll, &[&bytes])));
    }
    table.extend([
        (ALPN, "no first byte", vec![]),
        (ALPN, "no message", on(StreamKind::Control, &[])),
        (
            ALPN,
            "too long",
            on(
                StreamKind::Control,
                &[&length(StreamKind::Control.max_frame() + 1)],
            ),
        ),
        (ALPN, "4 GiB", on(StreamKind::Control, &[&[0xff; 4]])),
        (
            ALPN,
            "not Hello",
            on(StreamKind::Control, &[&frame(&messages::from_agent()[0])]),
        ),
        (ALPN_ENROLL, "no first byte", vec![]),
        (
            ALPN_ENROLL,
            "too long",
            on(
                StreamKind::Enroll,
                &[&length(StreamKind::Enroll.max_frame() + 1)],
            ),
        ),
        (
            ALPN_ENROLL,
            "an answer",
            on(
                StreamKind::Enroll,
                &[&frame(&FromHost::Welcome(Box::new(messages::welcome())))],
            ),
        ),
    ]);
    for (alpn, what, bytes) in table {
        let shown = (alpn == ALPN).then(|| Shown::of(&identity));
        let address = fixture.endpoint.local_addr();
        let (_endpoint, connection) = raw::client(&fixture.authority, address, alpn, shown)
            .await
            .expect("connects");
        let (mut send, _receive) = open_bi(&connection, &bytes).await;
        if !stays_open(what) {
            let _closed = send.finish();
        }
        if alpn == ALPN {
            let machine = fixture.machine().await;
            let accepted = soon(what, machine.accept_control()).await;
            assert!(
                matches!(accepted, Err(LinkError::Violation { .. })),
                "{what}: {accepted:?}"
            );
        }
        let error = soon(what, connection.closed()).await;
        assert!(closed_with(&error, CloseCode::Protocol), "{what}: {error}");
    }
    let nothing = tokio::time::timeout(
        std::time::Duration::from_millis(50),
        fixture.endpoint.accept(),
    )
    .await;
    assert!(nothing.is_err(), "an enrollment that was none came through");
}

#[tokio::test]
async fn a_later_message_that_is_none_closes_the_connection() {
    let fixture = Fixture::new();
    let identity = new_identity(&fixture.authority);
    let of = frame(&Progress::Of(OperationId::generate()));
    let asked = frame(&blob::Request {
        sha256: Digest::of(b""),
        offset: 0,
    });
    let long = Progress::Output(Chunk {
        stream: OutputStream::Stdout,
        offset: 0,
        bytes: vec![0; MAX_CHUNK + 1],
    });
    let finished = frame(messages::progress().last().expect("is last"));
    let hello = FromAgent::Hello(Box::new(messages::hello()));

    let mut progress = vec![
        ("no first byte", vec![]),
        (
            "not Of",
            on(StreamKind::Progress, &[&frame(&Progress::Accepted)]),
        ),
        ("no Of", on(StreamKind::Progress, &[])),
        ("a long Of", on(StreamKind::Progress, &[&length(65)])),
        ("Of twice", on(StreamKind::Progress, &[&of, &of])),
        (
            "a long chunk",
            on(StreamKind::Progress, &[&of, &frame(&long)]),
        ),
        (
            "after the end",
            on(
                StreamKind::Progress,
                &[&of, &finished, &frame(&Progress::Accepted)],
            ),
        ),
        (
            "too long",
            on(
                StreamKind::Progress,
                &[&of, &length(StreamKind::Progress.max_frame() + 1)],
            ),
        ),
    ];
    for (what, bytes) in broken(&frame(&Progress::Running { started_at: 1 })) {
        progress.push((what, on(StreamKind::Progress, &[&of, &bytes])));
    }
    let mut blobs = vec![
        ("two requests", on(StreamKind::Blob, &[&asked, &asked])),
        (
            "too long",
            on(
                StreamKind::Blob,
                &[&length(StreamKind::Blob.max_frame() + 1)],
            ),
        ),
    ];
    for (what, bytes) in broken(&asked) {
        blobs.push((what, on(StreamKind::Blob, &[&bytes])));
    }
    let mut control = vec![
        ("Hello twice", frame(&hello)),
        ("too long", length((1 << 20) + 1)),
    ];
    control.extend(broken(&frame(&messages::from_agent()[0])));

    let tables = [
        (Some(StreamKind::Progress), progress),
        (Some(StreamKind::Blob), blobs),
        (None, control),
    ];
    for (kind, what, bytes) in tables
        .into_iter()
        .flat_map(|(kind, rows)| rows.into_iter().map(move |r| (kind, r.0, r.1)))
    {
        let address = fixture.endpoint.local_addr();
        let shown = Some(Shown::of(&identity));
        let (_endpoint, connection) = raw::client(&fixture.authority, address, ALPN, shown)
            .await
            .expect("connects");
        let (mut send, _receive) =
            open_bi(&connection, &on(StreamKind::Control, &[&frame(&hello)])).await;
        let machine = fixture.machine().await;
        let (_, mut received) = soon("hello", machine.accept_control())
            .await
            .expect("says hello");
        let mut open = Vec::new();
        match kind {
            Some(StreamKind::Progress) => {
                // What is longer than the window is sent while it is read.
                let connection = connection.clone();
                tokio::spawn(async move {
                    let mut send = open_uni(&connection, &bytes).await;
                    if stays_open(what) {
                        connection.closed().await;
                    }
                    send.finish()
                });
            }
            Some(_) => {
                let (mut send, receive) = open_bi(&connection, &bytes).await;
                if !stays_open(what) {
                    let _closed = send.finish();
                }
                open.push((send, receive));
            }
            None => {
                let _closed = send.write_all(&bytes).await;
                if !stays_open(what) {
                    let _closed = send.finish();
                }
            }
        }
        // The program takes what there is, and the carrier stops it at the first thing that is wrong.
        let error = soon(what, async {
            if kind.is_none() {
                return match received.receive().await {
                    Ok(message) => panic!("{what}: took {message:?}"),
                    Err(error) => error,
                };
            }
            match machine.next().await {
                Ok(FromMachine::Progress(mut progress)) => loop {
                    match progress.recv().await {
                        Ok(Some(_)) => {}
                        Ok(None) => panic!("{what}: came to its end"),
                        Err(error) => return error,
                    }
                },
                Ok(FromMachine::Blob(blob)) => panic!("{what}: took {blob:?}"),
                Err(error) => error,
            }
        })
        .await;
        assert!(
            matches!(error, LinkError::Violation { .. }),
            "{kind:?} {what}: {error:?}"
        );
        let closed = soon(what, connection.closed()).await;
        assert!(
            closed_with(&closed, CloseCode::Protocol),
            "{kind:?} {what}: {closed}"
        );
    }
}
