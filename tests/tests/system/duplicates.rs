//! At most one start, always an answer: a real agent, and a host that says things again, or never says them.

use std::fs;
use std::path::Path;

use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::FromHost;
use sluice_protocol::message::operation::{Operation, Progress};
use sluice_tests::fake::{FakeHost, FakeLink, operation, sealed};
use sluice_tests::{Machine, eventually, is_root};

use crate::delivery::{starts, traces_in};

/// As user `nobody`, who may leave traces.
fn as_nobody(mut operation: Operation) -> Operation {
    operation.submission.run_as = Some("nobody".to_owned());
    sealed(operation)
}

/// Leaves a line in `starts`, says something on both streams, runs `wait`, and exits 3.
fn counted(folder: &Path, wait: &str) -> Operation {
    as_nobody(operation(format!(
        "#!/bin/bash\necho started >> {0}/starts\necho out\necho trouble >&2\n{wait}\nexit 3\n",
        folder.display()
    )))
}

fn patient(folder: &Path) -> Operation {
    let wait = format!("until [ -e {}/go ]; do sleep 0.05; done", folder.display());
    counted(folder, &wait)
}

/// Runs something harmless, which shows that everything before it has arrived and hurt nobody, and has it forgotten.
fn run_another(link: &FakeLink, machine: &Machine) {
    let another = operation("#!/bin/sh\n:\n");
    link.deliver(&another);
    link.answered(another.operation, 1)
        .expect("succeeded", "Script executed successfully");
    link.acknowledge(another.operation);
    until_forgotten(machine, another.operation);
}

/// Waits until the machine keeps nothing of an operation but its id.
fn until_forgotten(machine: &Machine, operation: OperationId) {
    let spool = machine.state.join("spool").join(operation.to_string());
    eventually("the operation is forgotten", || {
        (!spool.exists()).then_some(())
    });
}

/// How often the agent, by its own account, started the operation.
fn recorded_starts(machine: &Machine, operation: OperationId) -> usize {
    machine
        .events()
        .iter()
        .filter(|entry| {
            entry["event"] == "script_started" && entry["operation"] == operation.to_string()
        })
        .count()
}

#[test]
fn the_same_operation_delivered_again_and_again_starts_once_and_is_answered_each_time() {
    if !is_root() {
        return;
    }
    let host = FakeHost::start();
    let folder = traces_in(host.folder());
    let machine = host.machine("m1", "");
    let mut agent = machine.start();
    let operation = patient(&folder);
    let id = operation.operation;

    // Before it has started, while it runs, and after it has ended.
    let link = host.serve();
    link.deliver(&operation);
    link.deliver(&operation);
    link.until_told(id, |progress| matches!(progress, Progress::Running { .. }));
    link.deliver(&operation);
    fs::write(folder.join("go"), "").expect("writes");
    let first = link.answered(id, 3);
    first.expect("failed", "Script failed with exit code 3");
    assert_eq!(
        (first.stdout.as_slice(), first.stderr.as_slice()),
        (&b"out\n"[..], &b"trouble\n"[..])
    );
    link.deliver(&operation);
    link.deliver(&operation);
    assert_eq!(link.answered(id, 5), first);

    // On the next link, where it is told once without being asked, and to the next agent.
    link.cut();
    let link = host.serve();
    assert_eq!(link.hello().open, [id]);
    link.deliver(&operation);
    assert_eq!(link.answered(id, 2), first);
    agent.restart();
    let link = host.serve();
    assert_eq!(link.hello().open, [id]);
    link.deliver(&operation);
    assert_eq!(link.answered(id, 2), first);
    assert_eq!((starts(&folder), recorded_starts(&machine, id)), (1, 1));
}

#[test]
fn an_operation_that_is_delivered_again_while_it_runs_is_not_disturbed_by_links_and_agents_that_break()
 {
    if !is_root() {
        return;
    }
    let host = FakeHost::start();
    let folder = traces_in(host.folder());
    let machine = host.machine("m1", "");
    let mut agent = machine.start();
    let operation = patient(&folder);
    let id = operation.operation;
    let mut link = host.serve();
    for round in 0..3 {
        link.deliver(&operation);
        link.until_told(id, |progress| matches!(progress, Progress::Running { .. }));
        if round == 1 {
            agent.restart();
        } else {
            link.cut();
        }
        link = host.serve();
        assert_eq!(link.hello().open, [id]);
    }
    fs::write(folder.join("go"), "").expect("writes");
    let answer = link.answered(id, 1);
    answer.expect("failed", "Script failed with exit code 3");
    assert_eq!(answer.stdout, b"out\n");
    assert_eq!((starts(&folder), recorded_starts(&machine, id)), (1, 1));
}

#[test]
fn a_report_that_nobody_acknowledges_comes_again_on_every_link_and_is_always_the_same() {
    if !is_root() {
        return;
    }
    let host = FakeHost::start();
    let folder = traces_in(host.folder());
    let machine = host.machine("m1", "");
    let mut agent = machine.start();
    let link = host.serve();
    let operation = counted(&folder, "");
    let id = operation.operation;
    link.deliver(&operation);
    let first = link.answered(id, 1);
    assert_eq!(
        (first.stdout.as_slice(), first.stderr.as_slice()),
        (&b"out\n"[..], &b"trouble\n"[..])
    );
    link.cut();
    for round in 0..4 {
        let link = host.serve();
        assert_eq!(link.hello().open, [id], "round {round}");
        assert_eq!(link.answered(id, 1), first, "round {round}");
        run_another(&link, &machine);
        assert_eq!(link.tellings(id), 1, "round {round}: once for each link");
        if round == 1 {
            agent.restart();
        } else {
            link.cut();
        }
    }
    let link = host.serve();
    link.answered(id, 1);
    link.acknowledge(id);
    until_forgotten(&machine, id);
    link.cut();
    let link = host.serve();
    assert_eq!(link.hello().open, []);
    run_another(&link, &machine);
    assert_eq!((link.tellings(id), starts(&folder)), (0, 1));
}

#[test]
fn what_was_acknowledged_does_not_run_when_it_is_delivered_again() {
    if !is_root() {
        return;
    }
    let host = FakeHost::start();
    let folder = traces_in(host.folder());
    let machine = host.machine("m1", "");
    let mut agent = machine.start();
    let mut link = host.serve();
    let operation = counted(&folder, "");
    let id = operation.operation;
    link.deliver(&operation);
    link.answered(id, 1);
    link.acknowledge(id);
    until_forgotten(&machine, id);
    for round in 0..3 {
        link.deliver(&operation);
        link.deliver(&operation);
        run_another(&link, &machine);
        assert!(link.is_up(), "round {round}: {}", machine.log());
        if round == 1 {
            agent.restart();
        } else {
            link.cut();
        }
        link = host.serve();
        assert_eq!(link.hello().open, [], "round {round}");
    }
    assert_eq!((starts(&folder), recorded_starts(&machine, id)), (1, 1));
    // Neither its gates were asked again, nor was it taken in again.
    let attempts = machine
        .events()
        .iter()
        .filter(|entry| entry["operation"] == id.to_string())
        .count();
    assert_eq!(attempts, 3, "attempt, start, end: {:#?}", machine.events());
}

#[test]
fn an_acknowledgement_of_what_was_not_reported_makes_the_machine_forget_nothing() {
    if !is_root() {
        return;
    }
    let host = FakeHost::start();
    let folder = traces_in(host.folder());
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    let operation = patient(&folder);
    let id = operation.operation;
    // Before it is there, and while it runs.
    link.acknowledge(id);
    link.deliver(&operation);
    link.until_told(id, |progress| matches!(progress, Progress::Running { .. }));
    link.acknowledge(id);
    run_another(&link, &machine);
    fs::write(folder.join("go"), "").expect("writes");
    let first = link.answered(id, 1);
    first.expect("failed", "Script failed with exit code 3");
    link.cut();
    let link = host.serve();
    assert_eq!(link.hello().open, [id]);
    assert_eq!(link.answered(id, 1), first);
}

#[test]
fn a_cancellation_that_overtakes_its_operation_ends_it_before_it_starts() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    let operation = operation("#!/bin/sh\necho ran\n");
    let cancel = |operation| FromHost::Cancel {
        operation,
        by: "somebody".to_owned(),
    };
    for unknown in [OperationId::generate(), operation.operation] {
        link.say(&cancel(unknown));
    }
    // Answered on the stream of the cancellations: they have arrived.
    let set = host.bind(host.gates().bindings);
    link.say(&FromHost::Gates(Box::new(set.clone())));
    link.gates_ready(set.revision);
    link.deliver(&operation);
    link.answered(operation.operation, 1)
        .expect("canceled", "Canceled by somebody");
    assert!(link.is_up() && !machine.has_started_something());
    run_another(&link, &machine);
}
