//! Attachments that come in pieces: what is here is gone on with, and what is wrong with it reaches no script.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use sluice_protocol::bundle::Attachment;
use sluice_protocol::digest::Digest;
use sluice_protocol::message::operation::{Operation, Progress};
use sluice_tests::fake::{BlobFault, FakeHost, FakeLink, operation, sealed};
use sluice_tests::{Machine, eventually};

use crate::broken_links::{data, kept, with_attachment};
use crate::hostile_host::{SUCCEEDED, expect_unharmed};

/// Where what has come of an attachment is.
fn partial(machine: &Machine, sha256: Digest) -> PathBuf {
    machine.state.join(format!("blobs/partial-{sha256}"))
}

/// Waits until that many bytes of an attachment have come.
fn until_here(machine: &Machine, sha256: Digest, length: u64) {
    let path = partial(machine, sha256);
    eventually("the bytes are here", || {
        let metadata = fs::metadata(&path);
        metadata
            .is_ok_and(|metadata| metadata.len() == length)
            .then_some(())
    });
}

/// A link on which the host's gates are in force.
fn served(host: &FakeHost) -> FakeLink {
    let link = host.serve();
    assert_eq!(link.gates_ready(1), [""; 0]);
    link
}

#[test]
fn an_attachment_that_broken_links_cut_goes_on_each_time_where_it_stopped() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = served(&host);
    let bytes = data(11);
    let digest = host.hold(bytes.clone());
    let (first, second) = (1_000_000, 300_001);
    host.let_blob_fail(BlobFault::StopsAfter(first));
    host.let_blob_fail(BlobFault::StopsAfter(second));
    let operation = with_attachment(&bytes);
    link.deliver(&operation);
    until_here(&machine, digest, first as u64);
    link.cut();
    let link = served(&host);
    until_here(&machine, digest, (first + second) as u64);
    link.cut();
    let link = served(&host);
    let answer = link.answered(operation.operation, 1);
    answer.expect(SUCCEEDED.0, SUCCEEDED.1);
    assert_eq!(
        String::from_utf8_lossy(&answer.stdout).trim(),
        digest.to_string()
    );
    let offsets = [0, first as u64, (first + second) as u64];
    assert_eq!(host.asked_from(digest), offsets);
    link.acknowledge(operation.operation);
    eventually("the attachment is gone", || {
        kept(&machine, digest).is_empty().then_some(())
    });
}

#[test]
fn an_agent_goes_on_with_what_the_one_before_has_fetched_and_sweeps_what_nobody_needs() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let blobs = machine.state.join("blobs");
    let unwanted = ["partial-4uXq1z".to_owned(), {
        let digest = Digest::of(b"of an operation that was never taken in");
        format!("partial-{digest}")
    }];
    for name in &unwanted {
        fs::write(blobs.join(name), "bytes").expect("writes");
    }
    let mut agent = machine.start();
    let link = served(&host);
    for name in &unwanted {
        assert!(!blobs.join(name).exists(), "{name}");
    }
    let bytes = data(12);
    let digest = host.hold(bytes.clone());
    host.let_blob_fail(BlobFault::StopsAfter(1_000_000));
    let operation = with_attachment(&bytes);
    link.deliver(&operation);
    link.until_told(operation.operation, |progress| {
        matches!(progress, Progress::Accepted)
    });
    until_here(&machine, digest, 1_000_000);
    agent.kill();
    host.send_away();
    let _agent = machine.start();
    let link = served(&host);
    let answer = link.answered(operation.operation, 1);
    answer.expect(SUCCEEDED.0, SUCCEEDED.1);
    assert_eq!(host.asked_from(digest), [0, 1_000_000]);
}

#[test]
fn what_is_here_and_is_not_of_the_attachment_has_it_fetched_once_more_and_no_more() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let mut link = served(&host);
    for (seed, changed_again) in [(13, false), (14, true)] {
        let bytes = data(seed);
        let digest = host.hold(bytes.clone());
        host.let_blob_fail(BlobFault::StopsAfter(1_000_000));
        let operation = with_attachment(&bytes);
        link.deliver(&operation);
        until_here(&machine, digest, 1_000_000);
        let file = fs::OpenOptions::new()
            .write(true)
            .open(partial(&machine, digest));
        let damaged = file.and_then(|file| file.write_all_at(&[!bytes[0]], 0));
        damaged.expect("writes");
        if changed_again {
            host.let_blob_fail(BlobFault::Changed);
            host.let_blob_fail(BlobFault::Changed);
        }
        link.cut();
        link = served(&host);
        let answer = link.answered(operation.operation, 1);
        let (state, message) = answer.ending();
        if changed_again {
            assert!(
                state == "error" && message.contains("another digest"),
                "{answer:#?}"
            );
            assert_eq!(kept(&machine, digest), Vec::<String>::new());
        } else {
            answer.expect(SUCCEEDED.0, SUCCEEDED.1);
        }
        assert_eq!(host.asked_from(digest), [0, 1_000_000, 0]);
        link.acknowledge(operation.operation);
    }
    expect_unharmed(&link);
}

#[test]
fn an_operation_whose_attachment_does_not_come_in_time_expires_and_leaves_nothing() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = served(&host);
    let bytes = data(15);
    let digest = host.hold(bytes.clone());
    host.let_blob_fail(BlobFault::StopsAfter(1_000_000));
    let mut operation = with_attachment(&bytes);
    let soon = SystemTime::now() + Duration::from_secs(5);
    let soon = soon.duration_since(SystemTime::UNIX_EPOCH).expect("is now");
    operation.not_after = u64::try_from(soon.as_millis()).expect("fits");
    link.deliver(&operation);
    until_here(&machine, digest, 1_000_000);
    link.cut();
    // No link comes up meanwhile that the host answers.
    eventually("nothing is left", || {
        kept(&machine, digest).is_empty().then_some(())
    });
    let link = served(&host);
    let answer = link.answered(operation.operation, 1);
    answer.expect("expired", "Expired before it could start");
    assert!(!machine.has_started_something());
    assert_eq!(host.asked_from(digest), [0]);
    assert_eq!(kept(&machine, digest), Vec::<String>::new());
}

/// An operation with these two attachments that says so when it runs.
fn with_both(first: &[u8], second: &[u8]) -> Operation {
    let mut operation = operation("#!/bin/sh\necho ran\n");
    let attachment = |name: &str, bytes: &[u8]| Attachment {
        name: name.to_owned(),
        size: bytes.len() as u64,
        sha256: Digest::of(bytes),
    };
    operation.submission.attachments = vec![attachment("a", first), attachment("b", second)];
    sealed(operation)
}

#[test]
fn an_attachment_that_is_changed_after_it_was_fetched_reaches_neither_gate_nor_script() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let mut link = served(&host);
    let large = data(16);
    // Gates are shown the smaller one.
    for (first, said) in [
        (&b"#!/bin/sh\n:\n"[..], "was changed after it was fetched"),
        (&large[..], "is not what the gates saw"),
    ] {
        let second = [first, b"2"].concat();
        let digests = [host.hold(first.to_vec()), host.hold(second.clone())];
        let length = first.len();
        host.let_blob_fail(BlobFault::StopsAfter(length));
        host.let_blob_fail(BlobFault::StopsAfter(1));
        let operation = with_both(first, &second);
        link.deliver(&operation);
        until_here(&machine, digests[0], length as u64);
        link.cut();
        link = served(&host);
        until_here(&machine, digests[1], 1);
        let file = machine.state.join(format!("blobs/{}", digests[0]));
        let file = fs::OpenOptions::new().write(true).open(file);
        let changed = file.and_then(|file| file.write_all_at(b"X", 2));
        changed.expect("writes");
        link.cut();
        link = served(&host);
        let answer = link.answered(operation.operation, 1);
        let (state, message) = answer.ending();
        assert!(state == "error" && message.contains(said), "{answer:#?}");
        assert_eq!(answer.stdout, b"");
        // Of the first there was nothing left to ask for.
        assert_eq!(host.asked_from(digests[0]), [0]);
        assert_eq!(host.asked_from(digests[1]), [0, 1]);
        link.acknowledge(operation.operation);
        assert!(machine.left_behind().is_empty());
    }
    expect_unharmed(&link);
}
