//! Hostile guests in this very process: each is stopped with the error that is expected of it, and an honest gate that is
//! called afterwards, on the same engine, is right.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sluice_gate_types::answer::{Answer, CallError, Confidence, Finding, Severity, Span};
use sluice_gate_types::contract::Contract;
use sluice_gate_types::input::Question;
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::World;
use sluice_guests::expected::{EXPECTED, Limits, Outcome, Stop};
use sluice_guests::{Guest, StringEncoding};
use sluice_plugin_runtime::engine::{Allocation, Effort, GateEngine};
use sluice_plugin_runtime::gate::{Called, Gate};

const SCRIPT: &str = "#!/bin/sh\necho \u{e9}\n";

fn engine(allocation: Allocation) -> GateEngine {
    GateEngine::new(allocation, Effort::Full).expect("has address space")
}

fn limits(limits: Limits) -> CallLimits {
    match limits {
        Limits::Fuel => CallLimits {
            fuel: 200_000_000,
            time_ms: 60_000,
            ..CallLimits::DEFAULT
        },
        // So much fuel that it is not what stops anything.
        Limits::Time => CallLimits {
            fuel: u64::MAX / 4,
            time_ms: 100,
            ..CallLimits::DEFAULT
        },
    }
}

fn load(engine: &GateEngine, guest: &Guest, limits: CallLimits) -> Result<Gate, CallError> {
    let artifact = engine
        .compile(&guest.build())
        .map_err(|error| CallError::Instantiation(format!("{error:#}")))?;
    let configure = Some((Vec::new(), Vec::new()));
    Gate::load(
        engine,
        Contract::V0_1,
        World::ScannerPlugin,
        &artifact,
        limits,
        configure,
    )
}

fn question() -> Question {
    sluice_guests::question(SCRIPT)
}

fn right() -> Answer {
    Answer::Findings(vec![Finding {
        rule: "r1".to_owned(),
        severity: Severity::Low,
        confidence: Confidence::High,
        message: "honest".to_owned(),
        primary: Some(Span {
            start: 0,
            end: SCRIPT.len() as u64,
        }),
        related: Vec::new(),
        subject: "script".to_owned(),
        remediation: None,
        attributes: Vec::new(),
    }])
}

/// Whether what came of a call is what was expected, as far as the runtime alone decides it.
fn is_expected(answer: &Result<Answer, CallError>, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Stopped(stop) => match answer {
            Err(CallError::Fuel(_)) => stop == Stop::Fuel,
            Err(CallError::Deadline(_)) => stop == Stop::Deadline,
            Err(CallError::Memory(_)) => matches!(stop, Stop::Memory | Stop::NeverStarts),
            Err(CallError::Trap(_)) => stop == Stop::Trap,
            Err(CallError::TooLarge(_)) => stop == Stop::TooLarge,
            Err(CallError::Instantiation(_)) => stop == Stop::NeverStarts,
            Err(CallError::Internal(_)) => stop == Stop::Internal,
            Err(CallError::InvalidSettings(_)) => stop == Stop::Settings,
            _ => false,
        },
        // The parent refuses it: see the tests of the runner.
        Outcome::Refused(_) => answer.is_ok(),
        Outcome::Honest => matches!(answer, Ok(Answer::Findings(findings)) if findings.len() == 1),
    }
}

fn each_guest_is_stopped(allocation: Allocation) {
    let engine = engine(allocation);
    let honest = load(&engine, &Guest::honest(), CallLimits::DEFAULT).expect("loads");
    let mut wrong = Vec::new();
    for (name, asked, outcome) in EXPECTED {
        let started = Instant::now();
        let called = load(&engine, &Guest::named(name), limits(*asked))
            .map(|gate| gate.call(&engine, &question()));
        let answer = match &called {
            Ok(called) => &called.answer,
            Err(error) => &Err(error.clone()),
        };
        if !is_expected(answer, *outcome) {
            wrong.push(format!("{name} ({asked:?}): {answer:?}"));
        }
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{name} took {:?}",
            started.elapsed()
        );
        assert_eq!(
            honest.call(&engine, &question()).answer,
            Ok(right()),
            "after {name}"
        );
    }
    assert!(wrong.is_empty(), "{allocation:?}: {wrong:#?}");
}

#[test]
fn each_hostile_guest_is_stopped_in_a_pool_and_the_next_call_is_right() {
    each_guest_is_stopped(Allocation::Pool);
}

#[test]
fn each_hostile_guest_is_stopped_in_the_same_way_where_there_is_no_room_for_a_pool() {
    each_guest_is_stopped(Allocation::OnDemand);
}

#[test]
fn no_guest_sees_what_another_call_left_in_memory_or_tables() {
    let engine = engine(Allocation::Pool);
    let looking = Guest::named("looks_at_what_was_left");
    let gates = [looking, Guest::honest()]
        .map(|guest| load(&engine, &guest, CallLimits::DEFAULT).expect("loads"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..100 {
                    for gate in &gates {
                        let answer = gate.call(&engine, &question()).answer;
                        assert_eq!(answer, Ok(right()), "round {round}");
                    }
                }
            });
        }
    });
}

#[test]
fn a_call_costs_the_same_fuel_each_time_and_on_every_engine() {
    let fuel: BTreeSet<u64> = [Allocation::Pool, Allocation::OnDemand, Allocation::Pool]
        .map(engine)
        .iter()
        .flat_map(|engine| {
            let gate = load(engine, &Guest::honest(), CallLimits::DEFAULT).expect("loads");
            [(); 3].map(|()| gate.call(engine, &question()).fuel)
        })
        .collect();
    assert_eq!(fuel.len(), 1, "{fuel:?}");
    assert!(fuel.iter().all(|fuel| *fuel > 0));
}

#[test]
fn texts_in_other_encodings_are_read_or_refused_and_the_next_call_is_right() {
    let engine = engine(Allocation::Pool);
    let honest = load(&engine, &Guest::honest(), CallLimits::DEFAULT).expect("loads");
    for encoding in [StringEncoding::UTF16, StringEncoding::CompactUTF16] {
        // Halves of characters; text; and a length with the bit that says which of two encodings it is.
        for (words, length) in [
            ("\\00\\d8", 6),
            ("a\\00", 6),
            ("\\ff", 6),
            ("a\\00", 0x8000_0003_u32),
        ] {
            let words = words.repeat(40);
            let forms = format!(
                "(data $words (i32.const 1024) \"{words}\")
                 (func $scan (param $bundle i32) (result i32)
                   (call $find (local.get $bundle))
                   (i32.store (i32.const 2060) (i32.const 1024))
                   (i32.store (i32.const 2064) (i32.const {length}))
                   (i32.const 512))"
            );
            let guest = Guest::honest().encoding(encoding).saying(&forms);
            let called = load(&engine, &guest, limits(Limits::Fuel))
                .expect("loads")
                .call(&engine, &question());
            let refused = matches!(called.answer, Err(CallError::Trap(_)));
            assert!(called.answer.is_ok() || refused, "{:?}", called.answer);
            assert_eq!(honest.call(&engine, &question()).answer, Ok(right()));
        }
    }
}

/// What came of the guest of this name, in a pool.
fn called(name: &str) -> Called {
    let engine = engine(Allocation::Pool);
    let gate = load(&engine, &Guest::named(name), limits(Limits::Fuel)).expect("loads");
    gate.call(&engine, &question())
}

#[test]
fn of_a_flood_of_lines_no_more_than_a_hundred_short_ones_are_kept() {
    let called = called("log_flood");
    assert_eq!(called.log.len(), 100);
    assert!(called.log.iter().all(|line| line.len() <= 1100));
}

#[test]
fn what_is_said_of_a_call_is_no_longer_than_what_the_guest_may_hand_over() {
    for (name, ..) in EXPECTED.iter().filter(|(_, limits, outcome)| {
        *limits == Limits::Fuel
            && matches!(outcome, Outcome::Stopped(stop) if *stop != Stop::NeverStarts)
    }) {
        let called = called(name);
        let text = called.answer.expect_err("is stopped").to_string();
        assert!(text.len() < 2 << 20, "{name}: {} bytes", text.len());
    }
}

#[test]
fn memory_is_counted_over_all_memories_and_tables() {
    let taken = called("looks_at_what_was_left").memory;
    // The page that it begins with and those that it grows by, and elements of the table.
    assert!(taken >= (257 << 16) + 8000 * 8, "{taken}");
    let Err(CallError::Memory(limit)) = called("memory_bomb").answer else {
        panic!("it is not stopped");
    };
    assert_eq!(limit, CallLimits::DEFAULT.memory);
}
