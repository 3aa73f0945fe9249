//! What a host does with a machine that is enrolled and keeps to no rule.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::{FromAgent, Hardware, Hello};
use sluice_protocol::message::operation::Progress;
use sluice_protocol::message::{CloseCode, Direction, StreamKind};
use sluice_protocol::report::Report;
use sluice_tests::fake::{FakeConnection, FakeMachine, frame, raw_frame, stream};
use sluice_tests::{Fleet, eventually, script};

/// A machine called `m1` that nobody has taught manners.
fn fake(fleet: &Fleet) -> FakeMachine {
    let token = fleet.sluice(&["machine", "enroll-token"]);
    assert_eq!(token.code, 0, "{token:?}");
    FakeMachine::enroll(&token.stdout, "m1")
}

/// How many violations of the protocol the host has counted.
fn counted(fleet: &Fleet) -> usize {
    let address = fleet.host.api.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("connects");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sends");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("reads");
    let count = page
        .lines()
        .find_map(|line| line.strip_prefix("sluice_protocol_violations_total "));
    count.expect("is counted").parse().expect("is a number")
}

fn violations(fleet: &Fleet) -> Vec<Value> {
    let mut entries = fleet.list(&["audit", "list"]);
    entries.retain(|entry| entry["event"] == "machine_protocol_violation");
    entries
}

/// What a machine does, and what the host should find fault with.
type Misdeed = (&'static str, fn(&FakeConnection<'_>));

const MISDEEDS: &[Misdeed] = &[
    ("malformed message", |connection| {
        connection.open_stream(
            Direction::Bidirectional,
            &stream(StreamKind::Control, &[raw_frame(b"hello")]),
        );
    }),
    ("a Blob stream before `Hello`", |connection| {
        connection.open_stream(Direction::Bidirectional, &[StreamKind::Blob as u8]);
    }),
    ("malformed message", |connection| {
        connection.greet(&[], &raw_frame(b"\xff\xff"));
    }),
    ("a control message out of turn", |connection| {
        let hello = FromAgent::Hello(Box::new(Hello {
            versions: vec![1],
            software: String::new(),
            facts: Vec::new(),
            open: Vec::new(),
            hardware: Hardware::default(),
            sealing_key: Vec::new(),
        }));
        connection.greet(&[], &frame(&hello));
    }),
    ("a frame of 4294967295 bytes", |connection| {
        connection.greet(&[], &[0xff; 4]);
    }),
    ("is not allowed here", |connection| {
        connection.greet(&[], &[]);
        let bytes = stream(StreamKind::Operation, &[frame(&"run this")]);
        connection.open_stream(Direction::Unidirectional, &bytes);
    }),
    (
        "a machine reported what only a host can know",
        |connection| {
            connection.greet(&[], &[]);
            let report = Report::without_process(Ending::MachineNotFound, 1);
            let bytes = stream(
                StreamKind::Progress,
                &[
                    frame(&Progress::Of(OperationId::generate())),
                    frame(&Progress::Finished(Box::new(report))),
                ],
            );
            connection.open_stream(Direction::Unidirectional, &bytes);
        },
    ),
];

#[test]
fn whatever_a_machine_does_against_the_protocol_is_counted_and_on_the_record() {
    // Each with a host of its own, since one machine has one entry a minute.
    for (reason, misdeed) in MISDEEDS {
        let fleet = Fleet::builder().agents(0).without_gates().start();
        let machine = fake(&fleet);
        assert_eq!((violations(&fleet).len(), counted(&fleet)), (0, 0));
        let connection = machine.connect();
        misdeed(&connection);
        let (code, said) = connection.ended();
        assert_eq!(code, CloseCode::Protocol as u64, "{reason}: {said}");
        let entry = eventually("it is on the record", || violations(&fleet).pop());
        let found = entry["details"]["reason"].as_str().expect("is a text");
        assert!(found.contains(reason), "{reason} is not in {entry:#}");
        assert_eq!(
            (
                &entry["machine"],
                &entry["source"],
                &entry["details"]["count"]
            ),
            (&"m1".into(), &"agent".into(), &1.into()),
            "{entry:#}"
        );
        assert_eq!(counted(&fleet), 1, "{reason}");
        assert_eq!(fleet.sluice(&["audit", "verify"]).code, 0);
    }
}

#[test]
fn a_machine_that_does_it_again_and_again_fills_no_log() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let machine = fake(&fleet);
    for _ in 0..20 {
        let connection = machine.connect();
        connection.greet(&[], &raw_frame(b"\xff"));
        assert_eq!(connection.ended().0, CloseCode::Protocol as u64);
    }
    eventually("all are counted", || (counted(&fleet) == 20).then_some(()));
    assert_eq!(violations(&fleet).len(), 1);
}

#[test]
fn a_revoked_machine_says_what_it_likes_and_nothing_is_taken() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let machine = fake(&fleet);
    let connection = machine.connect();
    connection.greet(&[], &[]);
    eventually("it is connected", || {
        let shown = fleet.list(&["machine", "show", "m1"]).swap_remove(0);
        (shown["connected"] == true).then_some(())
    });
    let job = fleet.detach(&script("#!/bin/sh\n:\n"));
    let operation: OperationId = fleet
        .until(&job, "delivered")
        .text("operation")
        .parse()
        .expect("is an id");
    assert_eq!(fleet.sluice(&["machine", "revoke", "m1"]).code, 0);
    assert_eq!(connection.ended().0, CloseCode::Revoked as u64);
    let before = fleet.show(&job).json;

    let report = Report::without_process(Ending::Succeeded, 1);
    let progress = stream(
        StreamKind::Progress,
        &[
            frame(&Progress::Of(operation)),
            frame(&Progress::Finished(Box::new(report))),
        ],
    );
    let facts = frame(&FromAgent::Facts(Vec::new()));
    for _ in 0..3 {
        let connection = machine.connect();
        connection.greet(&[operation], &facts);
        connection.open_stream(Direction::Unidirectional, &progress);
        let (code, reason) = connection.ended();
        assert_eq!(code, CloseCode::Revoked as u64, "{reason}");
    }
    assert_eq!(fleet.show(&job).json, before);
    assert_eq!((violations(&fleet).len(), counted(&fleet)), (0, 0));
}
