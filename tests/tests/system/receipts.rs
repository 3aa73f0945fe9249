//! What gates leave behind: receipts that the machine signs.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::operation::Progress;
use sluice_protocol::message::{CloseCode, Direction, StreamKind};
use sluice_protocol::receipt::{
    Attestation, GateLimits, LARGEST_INPUTS, Receipt, Stage, Subject, Whose, statement,
};
use sluice_protocol::report::{Mode, Report};
use sluice_tests::fake::{FakeMachine, frame, stream};
use sluice_tests::{Fleet, Machine, Outcome, binaries, eventually, script};
use sluice_transport::identity::{MachineIdentity, MachineKey, is_signed, machine_of};

/// Parameters, a requirement and an attachment: something for every stage.
const SCRIPT: &str = "#!/bin/sh\n# /// sluice\n# [parameters.who]\n# type = \"text\"\n# as = \"placeholder\"\n# [parameters.times]\n# type = \"integer\"\n# default = 2\n# [requires]\n# os = [\"linux\"]\n# ///\necho \"{{who}}\"\n";

fn receipts(fleet: &Fleet, outcome: &Outcome) -> Value {
    let job = outcome.text("job");
    fleet
        .list(&["job", "show", &job, "--receipts"])
        .swap_remove(0)
}

fn own(machine: &Machine, operation: &str) -> Vec<Value> {
    let output = Command::new(binaries().join("sluice-agent"))
        .args(["receipts", "--operation", operation, "--state"])
        .arg(&machine.state)
        .output()
        .expect("sluice-agent was built");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("is text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("is JSON"))
        .collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("is text");
    STANDARD.decode(text).expect("is base64")
}

#[test]
fn every_call_of_a_gate_leaves_a_receipt_that_the_machine_has_signed() {
    let fleet = Fleet::builder().start();
    let script = script(SCRIPT).param("who", "it's $(me)");
    let first = fleet.run(&script);
    first.expect("succeeded", "Script executed successfully");
    let shown = receipts(&fleet, &first);
    let all = shown["receipts"].as_array().expect("is a list");
    let of = |key: &str| -> Vec<&str> {
        let texts = all.iter().map(|receipt| receipt[key].as_str());
        texts.map(|text| text.expect("is text")).collect()
    };
    assert_eq!(of("stage"), ["environment", "prepare", "scan", "policy"]);
    assert_eq!(of("whose"), ["host"; 4]);
    assert_eq!(of("verdict"), ["pass"; 4]);
    for receipt in all {
        assert_eq!(receipt["cached"], false, "{receipt:#}");
        assert_eq!(receipt["data_sha256"], json!([]));
        for number in ["fuel", "duration_us"] {
            assert!(receipt[number].as_u64() > Some(0), "{receipt:#}");
        }
        assert!(receipt["limits"]["fuel"].as_u64() >= receipt["fuel"].as_u64());
        assert!(
            receipt["runtime"]
                .as_str()
                .expect("is text")
                .contains("+wasmtime-"),
            "{receipt:#}"
        );
    }
    assert_eq!(shown["receipts"], first.json["receipts"]);
    // Anyone can verify it who has the answer alone.
    let proof = &shown["proof"];
    let [statement, signature, certificate] =
        ["statement", "signature", "certificate"].map(|key| bytes(&proof[key]));
    assert!(is_signed(&certificate, &statement, &signature));
    assert!(machine_of(&certificate).is_ok());
    assert!(statement.starts_with(b"sluice receipts 1\n"));
    // The machine's owner has the same, without the host.
    let own = own(&fleet.agents[0].machine, &first.text("operation"));
    assert_eq!(own.len(), 1, "{own:#?}");
    assert_eq!(own[0]["receipts"], shown["receipts"]);
    assert_eq!(own[0]["signature"], proof["signature"]);
    // The same once more: what was asked before has its answer, and its fuel.
    let second = fleet.run(&script);
    let again = receipts(&fleet, &second);
    let scan = |receipts: &Value, key: &str| receipts["receipts"][2][key].clone();
    assert_eq!(scan(&again, "cached"), true);
    for key in ["input_sha256", "verdict_sha256", "fuel", "bundle_sha256"] {
        assert_eq!(scan(&again, key), scan(&shown, key), "{key}");
    }
    assert_ne!(again["proof"]["signature"], proof["signature"]);
    let text = fleet.sluice(&["job", "show", &first.text("job"), "--receipts"]);
    assert!(
        text.stdout.contains("by the machine") && text.stdout.contains("scanner 0."),
        "{text:?}"
    );
}

/// A receipt that no gate has left.
fn invented() -> Receipt {
    Receipt {
        whose: Whose::Host,
        stage: Stage::Scan,
        plugin: "scanner".to_owned(),
        version: "9.9.9".to_owned(),
        component_sha256: Digest::of(b"c"),
        settings_sha256: Digest::of(b"s"),
        data_sha256: Vec::new(),
        contract: "0.1.0".to_owned(),
        runtime: "r".to_owned(),
        limits: GateLimits {
            fuel: 1,
            memory: 1,
            time_ms: 1,
            answer: 1,
        },
        bundle_sha256: None,
        input_sha256: Digest::of(b"q"),
        verdict_sha256: Digest::of(b"v"),
        verdict: "pass".to_owned(),
        fuel: 1,
        duration_us: 1,
        cached: false,
        mode: Mode::Enforce,
    }
}

/// What a machine signs for one of its operations.
fn signed(key: &MachineKey, who: MachineIdentity, operation: OperationId, inputs: &[u8]) -> Report {
    let subject = Subject {
        tenant: who.tenant,
        machine: who.machine,
        operation,
    };
    let statement = statement(subject, &[invented()], Some(Digest::of(inputs)));
    let signature = key.sign(&statement.expect("encodes")).expect("signs");
    Report {
        receipts: vec![invented()],
        attestation: Some(Attestation {
            signature,
            inputs: Some(inputs.to_vec()),
        }),
        ..Report::without_process(Ending::Interrupted, 1)
    }
}

#[test]
fn receipts_that_are_forged_or_of_another_operation_are_refused_and_on_the_record() {
    type Misdeed = fn(&FakeMachine, OperationId) -> Report;
    let table: [(&str, &str, Misdeed); 6] = [
        ("m1", "did not sign", |machine, operation| Report {
            attestation: None,
            ..honest(machine, operation)
        }),
        ("m2", "not what it signed", |machine, operation| {
            let thief = MachineKey::generate().expect("makes a key");
            signed(&thief, machine.identity().machine(), operation, b"")
        }),
        ("m3", "not of this operation", |machine, _| {
            honest(machine, OperationId::generate())
        }),
        ("m4", "not what it signed", |machine, operation| {
            let mut report = honest(machine, operation);
            report.receipts[0].verdict = "findings".to_owned();
            report
        }),
        ("m5", "not what it signed", |machine, operation| {
            let mut report = honest(machine, operation);
            if let Some(attestation) = &mut report.attestation {
                attestation.inputs = Some(b"other".to_vec());
            }
            report
        }),
        ("m6", "more with its receipts", |machine, operation| {
            let identity = machine.identity();
            let inputs = vec![0; LARGEST_INPUTS + 1];
            signed(identity.key(), identity.machine(), operation, &inputs)
        }),
    ];
    fn honest(machine: &FakeMachine, operation: OperationId) -> Report {
        let identity = machine.identity();
        signed(identity.key(), identity.machine(), operation, b"inputs")
    }
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let report = |name: &str, make: Misdeed| {
        let token = fleet.sluice(&["machine", "enroll-token"]);
        let machine = FakeMachine::enroll(&token.stdout, name);
        let operation = OperationId::generate();
        let finished = Progress::Finished(Box::new(make(&machine, operation)));
        let frames = [frame(&Progress::Of(operation)), frame(&finished)];
        let connection = machine.connect();
        connection.greet(&[], &[]);
        connection.open_stream(
            Direction::Unidirectional,
            &stream(StreamKind::Progress, &frames),
        );
        name.starts_with('m').then(|| connection.ended())
    };
    for (name, reason, misdeed) in table {
        let (code, said) = report(name, misdeed).expect("is ended");
        assert_eq!(code, CloseCode::Protocol as u64, "{name}: {said}");
        let entry = eventually("it is on the record", || {
            let entries = fleet.list(&["audit", "list"]);
            entries.into_iter().find(|entry| {
                entry["event"] == "machine_protocol_violation" && entry["machine"] == name
            })
        });
        let found = entry["details"]["reason"].as_str().expect("is text");
        assert!(found.contains(reason), "{reason} is not in {found}");
    }
    // What is its own is taken: the host does not know the operation, and says so on the record.
    assert_eq!(report("honest", honest), None);
    eventually("it is on the record", || {
        let entries = fleet.list(&["audit", "list"]);
        entries
            .into_iter()
            .find(|entry| entry["event"] == "script_late_report" && entry["machine"] == "honest")
    });
    let violations = fleet.events();
    let violations = violations
        .iter()
        .filter(|event| *event == "machine_protocol_violation");
    assert_eq!(violations.count(), 6);
}
