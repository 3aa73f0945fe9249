//! A host that breaks the protocol is left at once, and the machine comes to no harm.

use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::GateSet;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::{FromHost, Identity, Lockdown};
use sluice_protocol::message::operation::Progress;
use sluice_protocol::message::{CloseCode, Direction, StreamKind};
use sluice_tests::eventually;
use sluice_tests::fake::{FakeHost, FakeLink, frame, operation, raw_frame, stream};

use crate::hostile_host::{HARMLESS, expect_unharmed, started};

/// What a host does on a link, before or after `Welcome`.
type Misdeed = (&'static str, fn(&FakeLink));

const BEFORE_WELCOME: &[Misdeed] = &[
    ("gates", |link| link.say(&one_of_each()[0])),
    ("an identity", |link| link.say(&one_of_each()[1])),
    ("a cancellation", |link| link.say(&one_of_each()[2])),
    ("an acknowledgement", |link| link.say(&one_of_each()[3])),
    ("a certificate", |link| link.say(&one_of_each()[4])),
    ("no message at all", |link| {
        link.say_bytes(&raw_frame(b"hello"))
    }),
    ("the end of the control stream", FakeLink::hang_up),
    ("a stream in both directions", |link| {
        link.open_stream(Direction::Bidirectional, &[StreamKind::Control as u8])
    }),
];

const AFTER_WELCOME: &[Misdeed] = &[
    ("a second welcome", |link| {
        link.say(&FromHost::Welcome(Box::new(link.welcome())))
    }),
    ("no message at all", |link| {
        link.say_bytes(&raw_frame(b"hello"))
    }),
    ("4 GiB", |link| link.say_bytes(&[0xff; 4])),
    ("a message that is longer than it says", |link| {
        let mut body = codec::encode(&one_of_each()[2]).expect("encodes");
        body.push(0);
        link.say_bytes(&raw_frame(&body));
    }),
    ("a stream in both directions", |link| {
        link.open_stream(Direction::Bidirectional, &[StreamKind::Blob as u8])
    }),
    ("a stream for enrolling", |link| {
        link.open_stream(Direction::Unidirectional, &[StreamKind::Enroll as u8])
    }),
    ("a stream of no kind", |link| {
        link.open_stream(Direction::Unidirectional, &[0])
    }),
    ("progress, which is an agent's to tell", |link| {
        let accepted = frame(&Progress::Accepted);
        link.open_stream(
            Direction::Unidirectional,
            &stream(StreamKind::Progress, &[accepted]),
        );
    }),
    ("an operation without an id", |link| {
        link.deliver_bytes(b"\xa0")
    }),
    ("two operations on one stream", |link| {
        let one = frame(&operation(HARMLESS));
        link.open_stream(
            Direction::Unidirectional,
            &stream(StreamKind::Operation, &[one.clone(), one]),
        );
    }),
    ("half of an operation", |link| {
        let mut half = frame(&operation(HARMLESS));
        half.pop();
        link.open_stream(
            Direction::Unidirectional,
            &stream(StreamKind::Operation, &[half]),
        );
    }),
];

/// Everything that a host may say after `Welcome`.
fn one_of_each() -> [FromHost; 6] {
    let operation = OperationId::generate();
    [
        FromHost::Gates(Box::new(GateSet {
            revision: 9,
            publishers: vec![],
            bindings: vec![],
        })),
        FromHost::Identity(Identity {
            tenant: String::new(),
            name: String::new(),
            tags: vec![],
            url: String::new(),
        }),
        FromHost::Cancel {
            operation,
            by: "nobody".to_owned(),
        },
        FromHost::Lockdown(Lockdown::Off),
        FromHost::Acknowledge {
            operation,
            audit_head: Digest::of(b""),
        },
        FromHost::Renewed { chain: vec![] },
    ]
}

#[test]
fn a_host_that_breaks_the_protocol_is_left_and_the_machine_says_so_on_its_record() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let mut agent = machine.start();
    let violations = || {
        let all = machine.events().into_iter();
        all.filter(|entry| entry["event"] == "host_protocol_violation")
            .count()
    };
    let mut expected = 0;
    let mut expect_left = |what: &str, link: &FakeLink| {
        let (code, reason) = link.ended();
        assert_eq!(code, CloseCode::Protocol as u64, "{what}: {reason}");
        expected += 1;
        eventually("it is on the record", || {
            (violations() == expected).then_some(())
        });
    };
    for (what, misdeed) in BEFORE_WELCOME {
        let link = host.greeted();
        misdeed(&link);
        expect_left(&format!("{what}, before welcome"), &link);
        // Its next attempts would come later and later.
        agent.kill();
        host.send_away();
        agent = machine.start();
    }
    for (what, misdeed) in AFTER_WELCOME {
        let link = host.serve();
        misdeed(&link);
        expect_left(what, &link);
        agent.kill();
        host.send_away();
        agent = machine.start();
    }
    let link = host.greeted();
    let mut welcome = link.welcome();
    welcome.version = 99;
    link.say(&FromHost::Welcome(Box::new(welcome)));
    assert_eq!(link.ended().0, CloseCode::Version as u64);

    let link = host.serve();
    expect_unharmed(&link);
    assert_eq!(
        (violations(), started(&machine)),
        (BEFORE_WELCOME.len() + AFTER_WELCOME.len(), 1),
        "{:#?}",
        machine.events()
    );
}
