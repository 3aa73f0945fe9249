//! One of everything. A message without a sample does not compile.

use serde::Serialize;
use serde_bytes::ByteBuf;
use sluice_protocol::bundle::Submission;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::Ending;
use sluice_protocol::gates::GateSet;
use sluice_protocol::ids::{JobId, OperationId, TokenId};
use sluice_protocol::message::control::{
    Fact, FactValue, FromAgent, FromHost, Hello, Identity, Lockdown, StoredOutput, Welcome,
};
use sluice_protocol::message::control::{Hardware, History, LedgerMark, Verdict};
use sluice_protocol::message::enroll::{Answer, Enroll, Enrolled, Request};
use sluice_protocol::message::operation::{Chunk, MAX_CHUNK, Operation, OutputStream, Progress};
use sluice_protocol::message::{Side, StreamKind, blob};
use sluice_protocol::receipt::{Attestation, Attested};
use sluice_protocol::report::{Report, StreamEnd};

use super::raw::frame;

/// A message as it stands on the wire, and where it belongs.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) kind: StreamKind,
    pub(super) from: Side,
    /// Of its variant.
    pub(super) name: &'static str,
    pub(super) frame: Vec<u8>,
}

impl Sample {
    fn new(kind: StreamKind, from: Side, (name, message): (&'static str, impl Serialize)) -> Self {
        Self {
            kind,
            from,
            name,
            frame: frame(&message),
        }
    }

    /// Whether it is the first on a stream of its kind, from the side that opens those.
    pub(super) fn opens_stream(&self) -> bool {
        match self.kind {
            StreamKind::Control => self.name == "Hello",
            StreamKind::Operation => true,
            StreamKind::Progress => self.name == "Of",
            StreamKind::Blob | StreamKind::Enroll => self.from == Side::Agent,
        }
    }
}

/// Every message of the protocol.
pub(super) fn all() -> Vec<Sample> {
    use {Side::Agent, Side::Host, StreamKind as Kind};
    fn samples<T: Serialize>(
        kind: StreamKind,
        from: Side,
        messages: Vec<(&'static str, T)>,
    ) -> impl Iterator<Item = Sample> {
        let sample = move |message| Sample::new(kind, from, message);
        messages.into_iter().map(sample)
    }
    samples(Kind::Control, Agent, every_from_agent())
        .chain(samples(Kind::Control, Host, every_from_host()))
        .chain(samples(
            Kind::Operation,
            Host,
            vec![("Operation", operation(b"true".to_vec()))],
        ))
        .chain(samples(Kind::Progress, Agent, every_progress()))
        .chain(samples(
            Kind::Blob,
            Agent,
            vec![("Request", blob_request())],
        ))
        .chain(samples(Kind::Blob, Host, every_blob_answer()))
        .chain(samples(Kind::Enroll, Agent, every_enroll_request()))
        .chain(samples(Kind::Enroll, Host, every_enroll_answer()))
        .collect()
}

/// A function that gives one sample of each variant, with its name. Where a variant has no line here, the match does not
/// cover it and nothing compiles.
macro_rules! one_of_each {
    ($function:ident: $type:ty { $($variant:ident: $sample:expr,)+ }) => {
        fn $function() -> Vec<(&'static str, $type)> {
            type Message = $type;
            let name = |message: &Message| match message {
                $(Message::$variant { .. } => stringify!($variant),)+
            };
            let samples = vec![$((stringify!($variant), $sample)),+];
            for (line, sample) in &samples {
                assert_eq!(name(sample), *line, "a sample of another variant");
            }
            samples
        }
    };
}

one_of_each!(every_from_agent: FromAgent {
    Hello: FromAgent::Hello(Box::new(hello())),
    Facts: FromAgent::Facts(facts()),
    GatesReady: FromAgent::GatesReady { revision: 3, problems: vec!["no".to_owned()] },
    History: FromAgent::History(History {
        at_acknowledged: Some(Digest::of(b"entry")),
        head: ledger_mark(),
    }),
    Pong: FromAgent::Pong { nonce: u64::MAX },
    Renew: FromAgent::Renew { request: vec![1, 2, 3] },
});

one_of_each!(every_from_host: FromHost {
    Welcome: FromHost::Welcome(Box::new(welcome())),
    History: FromHost::History(Verdict::Lost),
    Ping: FromHost::Ping { nonce: 7 },
    Gates: FromHost::Gates(Box::new(GateSet {
        revision: 3,
        publishers: vec![],
        bindings: vec![],
    })),
    Identity: FromHost::Identity(identity()),
    Cancel: FromHost::Cancel { operation: OperationId::generate(), by: "admin".to_owned() },
    Lockdown: FromHost::Lockdown(Lockdown::Off),
    Acknowledge: FromHost::Acknowledge {
        operation: OperationId::generate(),
        audit_head: Digest::of(b"audit"),
    },
    Renewed: FromHost::Renewed { chain: vec![ByteBuf::from([1]), ByteBuf::from([2])] },
});

one_of_each!(every_progress: Progress {
    Of: Progress::Of(OperationId::generate()),
    Accepted: Progress::Accepted,
    Checking: Progress::Checking,
    Running: Progress::Running { started_at: 1_795_000_000_000 },
    Output: Progress::Output(Chunk {
        stream: OutputStream::Stderr,
        offset: 9,
        bytes: vec![],
    }),
    Ledger: Progress::Ledger(ledger_mark()),
    Receipts: Progress::Receipts(Box::new(attested())),
    Finished: Progress::Finished(Box::new(report())),
});

one_of_each!(every_blob_answer: blob::Answer {
    Found: blob::Answer::Found { size: 3 },
    NotFound: blob::Answer::NotFound,
});

one_of_each!(every_enroll_request: Request {
    Enroll: enroll_request(vec![1]),
    Reenroll: Request::Reenroll { request: vec![1] },
});

one_of_each!(every_enroll_answer: Answer {
    Enrolled: Answer::Enrolled(Box::new(enrolled(vec![vec![1]]))),
    Refused: Answer::Refused { reason: "no".to_owned() },
});

pub(super) fn blob_request() -> blob::Request {
    blob::Request {
        sha256: Digest::of(b""),
        offset: 0,
    }
}

pub(super) fn hello() -> Hello {
    Hello {
        versions: vec![sluice_protocol::VERSION],
        software: "0.1.0".to_owned(),
        facts: facts(),
        open: vec![OperationId::generate()],
        hardware: Hardware {
            system: Some(Digest::of(b"system")),
            board: None,
        },
        sealing_key: vec![7; 32],
    }
}

pub(super) fn welcome() -> Welcome {
    Welcome {
        version: sluice_protocol::VERSION,
        time: 1_795_000_000_000,
        identity: identity(),
        epoch: 5,
        acknowledged: Some(9),
        audit_head: Digest::of(b"audit"),
        stored: vec![StoredOutput {
            operation: "01a1fe67-495c-73cb-8c37-7177ccd52adb"
                .parse()
                .expect("is an id"),
            stdout: u64::MAX,
            stderr: 0,
        }],
        lockdown: Lockdown::On,
    }
}

fn ledger_mark() -> LedgerMark {
    LedgerMark {
        seq: 12,
        hash: Digest::of(b"ledger"),
    }
}

fn identity() -> Identity {
    Identity {
        tenant: "default".to_owned(),
        name: "db1".to_owned(),
        tags: vec!["role=db".to_owned()],
        url: "https://sluice.example.com".to_owned(),
    }
}

fn facts() -> Vec<Fact> {
    let fact = |key: &str, value| Fact {
        key: key.to_owned(),
        value,
    };
    vec![
        fact("os.family", FactValue::Text("Linux".to_owned())),
        fact("os.containers", FactValue::Boolean(false)),
        fact("memory.bytes", FactValue::Integer(-1)),
        fact("load", FactValue::Decimal(0.5)),
        fact("commands", FactValue::Texts(vec!["bash".to_owned()])),
    ]
}

/// What an agent may say after `Hello`.
pub(super) fn from_agent() -> Vec<FromAgent> {
    every_from_agent()
        .into_iter()
        .filter(|(name, _)| *name != "Hello")
        .map(|(_, message)| message)
        .collect()
}

/// What a host may say after `Welcome`.
pub(super) fn from_host() -> Vec<FromHost> {
    every_from_host()
        .into_iter()
        .filter(|(name, _)| *name != "Welcome")
        .map(|(_, message)| message)
        .collect()
}

pub(super) fn operation(script: Vec<u8>) -> Operation {
    Operation {
        operation: OperationId::generate(),
        job: JobId::generate(),
        submission: Submission::of(script).into(),
        bundle_sha256: Digest::of(b"bundle"),
        not_after: 1_795_000_000_000,
        gates_revision: 3,
        skip_security_scan: false,
        targets: 1,
        operator: "admin".to_owned(),
        submitted_at: "2026-11-21T06:00:00Z".to_owned(),
        authorizations: vec![],
        secrets: Vec::new(),
        approval: None,
    }
}

/// Everything that may come after `Of`, the longest piece of output before the end.
pub(super) fn progress() -> Vec<Progress> {
    let longest = Progress::Output(Chunk {
        stream: OutputStream::Stdout,
        offset: 0,
        bytes: vec![7; MAX_CHUNK],
    });
    let mut progress = vec![longest];
    progress.extend(
        every_progress()
            .into_iter()
            .filter(|(name, _)| *name != "Of")
            .map(|(_, message)| message),
    );
    progress
}

fn attested() -> Attested {
    Attested {
        receipts: vec![],
        attestation: Attestation {
            signature: vec![1, 2],
            inputs: None,
        },
    }
}

fn report() -> Report {
    Report {
        ending: Ending::Succeeded,
        exit: None,
        bundle_sha256: None,
        limit_hit: None,
        survivors_killed: 0,
        stdout: StreamEnd::default(),
        stderr: StreamEnd::default(),
        started_at: None,
        finished_at: 1_795_000_000_000,
        duration_ms: None,
        run_as: None,
        context: None,
        containment: None,
        confinement: None,
        findings: vec![],
        checks: vec![],
        receipts: vec![],
        attestation: None,
        notes: vec![],
    }
}

pub(super) fn enroll_request(request: Vec<u8>) -> Request {
    Request::Enroll(Box::new(Enroll {
        token: TokenId::generate(),
        secret: vec![9; 32],
        request,
        name: "db1".to_owned(),
        facts: facts(),
    }))
}

pub(super) fn enrolled(chain: Vec<Vec<u8>>) -> Enrolled {
    Enrolled {
        chain: chain.into_iter().map(ByteBuf::from).collect(),
        name: "db1".to_owned(),
        tenant: "default".to_owned(),
    }
}

#[test]
fn every_kind_of_stream_has_messages() {
    let all = all();
    for kind in StreamKind::ALL {
        assert!(all.iter().any(|sample| sample.kind == *kind), "{kind:?}");
        assert!(
            all.iter()
                .any(|sample| sample.kind == *kind && sample.opens_stream()),
            "{kind:?}"
        );
    }
    let names: std::collections::BTreeSet<_> = all
        .iter()
        .map(|sample| (sample.kind as u8, sample.from as u8, sample.name))
        .collect();
    assert_eq!(names.len(), all.len());
}
