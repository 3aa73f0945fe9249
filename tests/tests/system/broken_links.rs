//! Links that break, and a host that gives up half-way: nothing ends that could go on, and nobody comes back without a
//! pause.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant, SystemTime};

use serde_bytes::ByteBuf;
use sluice_protocol::bundle::Attachment;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::MachineId;
use sluice_protocol::message::CloseCode;
use sluice_protocol::message::control::{Fact, FactValue, FromAgent, FromHost};
use sluice_protocol::message::operation::Operation;
use sluice_tests::fake::{BlobFault, FakeHost, operation, sealed, shipped_gates};
use sluice_tests::{Machine, binaries, eventually};
use sluice_transport::identity::machine_of;

use crate::hostile_host::{HARMLESS, SUCCEEDED, expect_unharmed, run};

#[test]
fn a_machine_whose_links_all_fail_comes_back_less_and_less_often() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let since = Instant::now();
    let mut links = 0;
    while since.elapsed() < Duration::from_secs(6) {
        let link = host.serve();
        // The machine was welcome: it is not the handshake that fails.
        link.gates_ready(1);
        link.close(CloseCode::Busy);
        links += 1;
    }
    // With full jitter over 250 ms, 500 ms, 1 s ... it is about six, and twelve once in ten million runs; where the pause
    // does not grow, it is more than twenty.
    assert!((2..12).contains(&links), "{links} links");
}

/// An operation that prints the digest of its one attachment.
pub(crate) fn with_attachment(bytes: &[u8]) -> Operation {
    let mut operation =
        operation("#!/bin/sh\nsha256sum < \"$SLUICE_ATTACHMENTS/data\" | cut -c1-64\n");
    operation.submission.attachments = vec![Attachment {
        name: "data".to_owned(),
        size: bytes.len() as u64,
        sha256: Digest::of(bytes),
    }];
    sealed(operation)
}

/// Bytes that no other test has.
pub(crate) fn data(seed: u8) -> Vec<u8> {
    (0..2_u32 << 20).map(|n| (n % 251) as u8 ^ seed).collect()
}

/// The machine's files of this blob, whole or not.
pub(crate) fn kept(machine: &Machine, sha256: Digest) -> Vec<String> {
    let names = fs::read_dir(machine.state.join("blobs")).expect("reads");
    let names = names.map(|entry| {
        entry
            .expect("reads")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    names
        .filter(|name| name.starts_with("partial-") || *name == sha256.to_string())
        .collect()
}

#[test]
fn what_the_owner_tightens_holds_for_an_operation_that_waits_for_its_attachment() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let agent = machine.start();
    let link = host.serve();
    assert_eq!(link.gates_ready(1), [""; 0]);
    let bytes = data(7);
    let digest = host.hold(bytes.clone());
    host.let_blob_fail(BlobFault::LinkBreaksAfter(1 << 20));
    let operation = with_attachment(&bytes);
    link.deliver(&operation);
    eventually("the link breaks", || (!link.is_up()).then_some(()));
    machine.configure("[interpreters]\nallowed = [\"python3\"]\n");
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("it was read", || {
        let mut events = machine.events().into_iter();
        events
            .any(|entry| entry["event"] == "config_reloaded")
            .then_some(())
    });
    let answer = host.serve().answered(operation.operation, 1);
    let (state, message) = answer.ending();
    assert!(
        state == "blocked" && message.contains("machine policy"),
        "{state} {message}"
    );
    assert_eq!(host.asked_for(digest), 2);
}

#[test]
fn an_attachment_that_breaks_off_is_fetched_again_and_its_operation_runs() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    assert_eq!(link.gates_ready(1), [""; 0]);
    let bytes = data(1);
    let digest = host.hold(bytes.clone());
    for fault in [
        BlobFault::LinkBreaksAfter(1 << 20),
        BlobFault::LinkBreaksAfter(0),
        BlobFault::GivenUpAfter(1 << 20),
        BlobFault::GivenUpAfter(0),
    ] {
        host.let_blob_fail(fault);
    }
    let operation = with_attachment(&bytes);
    link.deliver(&operation);
    eventually("the first link breaks", || (!link.is_up()).then_some(()));
    let link = host.serve();
    eventually("the second link breaks", || (!link.is_up()).then_some(()));
    let link = host.serve();
    let answer = link.answered(operation.operation, 1);
    answer.expect(SUCCEEDED.0, SUCCEEDED.1);
    assert_eq!(
        String::from_utf8_lossy(&answer.stdout).trim(),
        digest.to_string()
    );
    assert_eq!(host.asked_for(digest), 5);
    assert!(link.is_up());
    link.acknowledge(operation.operation);
    eventually("the attachment is gone", || {
        kept(&machine, digest).is_empty().then_some(())
    });
}

#[test]
fn an_attachment_that_breaks_off_does_not_keep_its_operation_from_being_canceled() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    assert_eq!(link.gates_ready(1), [""; 0]);
    let bytes = data(2);
    let digest = host.hold(bytes.clone());
    for _ in 0..1000 {
        host.let_blob_fail(BlobFault::GivenUpAfter(1));
    }
    let operation = with_attachment(&bytes);
    link.deliver(&operation);
    eventually("it was tried again", || {
        (host.asked_for(digest) > 2).then_some(())
    });
    link.say(&FromHost::Cancel {
        operation: operation.operation,
        by: "somebody".to_owned(),
    });
    let answer = link.answered(operation.operation, 1);
    answer.expect("canceled", "Canceled by somebody");
    assert!(!machine.has_started_something());
    eventually("nothing is left", || {
        kept(&machine, digest).is_empty().then_some(())
    });
}

#[test]
fn an_attachment_that_is_not_what_was_said_ends_its_operation() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    assert_eq!(link.gates_ready(1), [""; 0]);
    let bytes = data(3);
    let digest = host.hold(bytes.clone());
    for (fault, said) in [
        (BlobFault::Changed, "another digest"),
        (BlobFault::OtherSize, "and not 2097152"),
        (BlobFault::NotFound, "does not have"),
    ] {
        host.let_blob_fail(fault);
        let answer = run(&link, &with_attachment(&bytes));
        let (state, message) = answer.ending();
        assert!(
            state == "error" && message.contains(said),
            "{fault:?}: {answer:#?}"
        );
        assert_eq!(kept(&machine, digest), Vec::<String>::new(), "{fault:?}");
    }
    assert!(!machine.has_started_something());
    run(&link, &with_attachment(&bytes)).expect(SUCCEEDED.0, SUCCEEDED.1);
}

#[test]
fn an_attachment_of_another_length_than_was_said_is_a_violation() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let mut link = host.serve();
    assert_eq!(link.gates_ready(1), [""; 0]);
    let bytes = data(4);
    host.hold(bytes.clone());
    host.let_blob_fail(BlobFault::Longer);
    host.let_blob_fail(BlobFault::Shorter);
    let operation = with_attachment(&bytes);
    link.deliver(&operation);
    for said in ["longer", "shorter"] {
        let (code, reason) = link.ended();
        assert!(
            code == CloseCode::Protocol as u64 && reason.contains(said),
            "{code} {reason}"
        );
        link = host.serve();
    }
    link.answered(operation.operation, 1)
        .expect(SUCCEEDED.0, SUCCEEDED.1);
}

#[test]
fn gates_that_break_off_are_fetched_again_and_operations_wait_for_them() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.greeted();
    host.let_blob_fail(BlobFault::LinkBreaksAfter(1000));
    host.let_blob_fail(BlobFault::GivenUpAfter(1000));
    host.let_blob_fail(BlobFault::GivenUpAfter(0));
    link.say(&FromHost::Welcome(Box::new(link.welcome())));
    let operation = operation(HARMLESS);
    link.deliver(&operation);
    link.say(&FromHost::Gates(Box::new(host.gates())));
    eventually("the first link breaks", || (!link.is_up()).then_some(()));
    let link = host.serve();
    assert_eq!(link.gates_ready(1), [""; 0]);
    // The one that never came is delivered as to a machine that does not have it.
    link.deliver(&operation);
    link.answered(operation.operation, 1)
        .expect(SUCCEEDED.0, SUCCEEDED.1);
    assert!(link.is_up());
    assert_eq!(host.asked_for(host.gates().bindings[0].component), 4);
}

#[test]
fn a_gate_runner_that_does_not_answer_keeps_no_machine_from_its_host() {
    let host = FakeHost::start();
    // Each gate waits for a runner, and one is enough to see that.
    let scanner = shipped_gates()
        .into_iter()
        .filter(|gate| gate.plugin == "scanner");
    host.bind(scanner.collect());
    let machine = host.machine("m1", "[gates]\nstages = [\"scan\"]\n");
    let programs = host.folder().join("programs");
    fs::create_dir(&programs).expect("makes a folder");
    for program in ["sluice-agent", "sluice-shim"] {
        fs::copy(binaries().join(program), programs.join(program)).expect("copies");
    }
    let runner = programs.join("sluice-gate-runner");
    // It ends by itself: whoever starts it has only ten seconds of patience.
    fs::write(&runner, "#!/bin/sh\nexec sleep 20\n").expect("writes");
    fs::set_permissions(&runner, fs::Permissions::from_mode(0o755)).expect("changes the mode");
    let _agent = machine.start_from(&programs);
    let link = host.serve();
    assert!(
        link.hello_after() < Duration::from_secs(5),
        "{:?}: a host waits ten seconds",
        link.hello_after()
    );
    let blocked = run(&link, &operation(HARMLESS));
    let (state, message) = blocked.ending();
    assert!(
        state == "blocked" && message.contains("runner"),
        "{state} {message}"
    );
}

#[test]
fn the_walls_of_the_gate_runner_are_told_when_they_stand_and_on_the_next_link_at_once() {
    let walls = |facts: &[Fact]| {
        facts.iter().find_map(|fact| match &fact.value {
            FactValue::Text(text) if fact.key == "gates.walls" => Some(text.clone()),
            _ => None,
        })
    };
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    let told = eventually("the walls are told", || {
        link.heard().iter().find_map(|said| match said {
            FromAgent::Facts(facts) => walls(facts),
            _ => None,
        })
    });
    assert!(told.contains("seccomp"), "{told}");
    link.cut();
    assert_eq!(walls(&host.serve().hello().facts), Some(told));
}

#[test]
fn a_certificate_is_renewed_at_half_of_its_life_once_and_for_this_machine_alone() {
    let host = FakeHost::start();
    let day = Duration::from_secs(24 * 3600);
    host.issue_as_of(SystemTime::now() - 16 * day);
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    let old = link.certificate().to_vec();
    let identity = machine_of(&old).expect("is a machine's");
    let request = eventually("it asks for a new certificate", || {
        link.heard().into_iter().find_map(|said| match said {
            FromAgent::Renew { request } => Some(request),
            _ => None,
        })
    });
    let issue = |machine, chain: &mut Vec<ByteBuf>| {
        let issued = host
            .authority()
            .issue_machine(identity.tenant, machine, &request, SystemTime::now())
            .expect("issues");
        chain.extend(issued.chain.into_iter().map(ByteBuf::from));
    };
    let recorded = |name: &str| {
        let events = machine.events();
        events.iter().filter(|entry| entry["event"] == name).count()
    };
    let mut foreign = Vec::new();
    issue(MachineId::generate(), &mut foreign);
    for (count, chain) in [foreign, Vec::new(), vec![b"no certificate".to_vec().into()]]
        .into_iter()
        .enumerate()
    {
        link.say(&FromHost::Renewed { chain });
        eventually("it is refused", || {
            (recorded("certificate_refused") == count + 1).then_some(())
        });
    }
    link.cut();
    let link = host.serve();
    assert_eq!(link.certificate(), old, "the old one stays");
    let mut chain = Vec::new();
    issue(identity.machine, &mut chain);
    link.say(&FromHost::Renewed {
        chain: chain.clone(),
    });
    eventually("it is renewed", || {
        (recorded("certificate_renewed") == 1).then_some(())
    });
    link.cut();
    let link = host.serve();
    assert_eq!(link.certificate(), chain[0].as_slice());
    expect_unharmed(&link);
    assert!(
        !link
            .heard()
            .iter()
            .any(|said| matches!(said, FromAgent::Renew { .. })),
        "{:?}",
        link.heard()
    );
}
