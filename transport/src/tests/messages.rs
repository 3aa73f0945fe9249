//! One of everything.

use serde_bytes::ByteBuf;
use sluice_protocol::bundle::{Compatibility, Limits, Submission};
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::Ending;
use sluice_protocol::gates::GateSet;
use sluice_protocol::ids::{JobId, OperationId, TokenId};
use sluice_protocol::message::control::{
    Fact, FactValue, FromAgent, FromHost, Hello, Identity, Welcome,
};
use sluice_protocol::message::enroll::{Enroll, Enrolled, Request};
use sluice_protocol::message::operation::{Chunk, MAX_CHUNK, Operation, OutputStream, Progress};
use sluice_protocol::report::{Report, StreamEnd};

pub(super) fn hello() -> Hello {
    Hello {
        versions: vec![sluice_protocol::VERSION],
        software: "0.1.0".to_owned(),
        facts: facts(),
        open: vec![OperationId::generate()],
        ledger_head: Some(Digest::of(b"ledger")),
    }
}

pub(super) fn welcome() -> Welcome {
    Welcome {
        version: sluice_protocol::VERSION,
        time: 1_795_000_000_000,
        identity: identity(),
        audit_head: Digest::of(b"audit"),
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
    vec![
        FromAgent::Facts(facts()),
        FromAgent::GatesReady {
            revision: 3,
            problems: vec!["no".to_owned()],
        },
        FromAgent::Renew {
            request: vec![1, 2, 3],
        },
    ]
}

/// What a host may say after `Welcome`.
pub(super) fn from_host() -> Vec<FromHost> {
    let operation = OperationId::generate();
    vec![
        FromHost::Gates(Box::new(GateSet {
            revision: 3,
            publishers: vec![],
            bindings: vec![],
        })),
        FromHost::Identity(identity()),
        FromHost::Cancel {
            operation,
            by: "admin".to_owned(),
        },
        FromHost::Acknowledge {
            operation,
            audit_head: Digest::of(b"audit"),
        },
        FromHost::Renewed {
            chain: vec![ByteBuf::from([1]), ByteBuf::from([2])],
        },
    ]
}

pub(super) fn operation(script: Vec<u8>) -> Operation {
    Operation {
        operation: OperationId::generate(),
        job: JobId::generate(),
        submission: Submission {
            script,
            declared: None,
            interpreter: None,
            parameters: vec![],
            environment: vec![],
            attachments: vec![],
            secrets: vec![],
            run_as: None,
            limits: Limits::default(),
            compatibility: Compatibility::default(),
        },
        bundle_sha256: Digest::of(b"bundle"),
        not_after: 1_795_000_000_000,
        gates_revision: 3,
        skip_security_scan: false,
        targets: 1,
        operator: "admin".to_owned(),
        submitted_at: "2026-11-21T06:00:00Z".to_owned(),
        authorizations: vec![],
    }
}

/// Everything that may come after `Of`, the longest piece of output too.
pub(super) fn progress() -> Vec<Progress> {
    vec![
        Progress::Accepted,
        Progress::Checking,
        Progress::Running {
            started_at: 1_795_000_000_000,
        },
        Progress::Output(Chunk {
            stream: OutputStream::Stdout,
            offset: 0,
            bytes: vec![7; MAX_CHUNK],
        }),
        Progress::Output(Chunk {
            stream: OutputStream::Stderr,
            offset: 9,
            bytes: vec![],
        }),
        Progress::Finished(Box::new(report())),
    ]
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
