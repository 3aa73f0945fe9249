//! Hostile guests in the real runner: what reaches the parent, and what the parent says of it.

use futures_util::future::join_all;
use sluice_gate_client::trial::TriedAnswer;
use sluice_gate_client::{BindError, Evaluation, GateDomain, Input, evaluate};
use sluice_gate_types::answer::CallError;
use sluice_guests::expected::{EXPECTED, Limits, Outcome, Stop};
use sluice_guests::{Guest, LITTLE_FUEL, LITTLE_TIME};
use sluice_protocol::bundle::{Source, Submission};
use sluice_protocol::ending::Ending;

use crate::domain::{ALONE, SCRIPT, ask, bind, domain, is_right, runners, try_to_bind};

/// What came of a guest: that it answers as the honest one does, or what is said of it.
#[derive(Debug)]
enum Came {
    Honest(String),
    Error(CallError),
    Unbound(BindError),
}

async fn came(domain: &GateDomain, name: &str, limits: Limits) -> Came {
    let limits = match limits {
        Limits::Fuel => LITTLE_FUEL,
        Limits::Time => LITTLE_TIME,
    };
    match try_to_bind(domain, &Guest::named(name).limits(limits)).await {
        Err(BindError::Call(error)) => Came::Error(error),
        Err(error) => Came::Unbound(error),
        Ok(gate) => match ask(&gate).await.answer {
            Err(error) => Came::Error(error),
            Ok(TriedAnswer::Findings(findings)) => Came::Honest(findings[0].message.clone()),
            Ok(other) => panic!("{name}: {other:?}"),
        },
    }
}

fn is_expected(came: &Came, outcome: Outcome) -> bool {
    match (outcome, came) {
        (Outcome::Honest, Came::Honest(_)) => true,
        (
            Outcome::Refused(words),
            Came::Error(CallError::Contract(text) | CallError::TooLarge(text)),
        ) => text.contains(words),
        (Outcome::Stopped(stop), Came::Error(error)) => match error {
            CallError::Fuel(_) => stop == Stop::Fuel,
            CallError::Deadline(_) => stop == Stop::Deadline,
            CallError::Memory(_) => matches!(stop, Stop::Memory | Stop::NeverStarts),
            CallError::Trap(_) => stop == Stop::Trap,
            CallError::TooLarge(_) => stop == Stop::TooLarge,
            CallError::Instantiation(_) => stop == Stop::NeverStarts,
            CallError::Internal(_) => stop == Stop::Internal,
            CallError::InvalidSettings(_) => stop == Stop::Settings,
            _ => false,
        },
        // One that no instance can ever be made of is refused when it is bound.
        (Outcome::Stopped(Stop::NeverStarts), Came::Unbound(BindError::Refused(_))) => true,
        _ => false,
    }
}

/// All that is said of it, to whoever looks.
fn words(came: &Came) -> String {
    match came {
        Came::Honest(message) => message.clone(),
        Came::Error(error) => error.to_string(),
        Came::Unbound(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_hostile_guest_stops_nobody_but_itself_in_the_real_runner() {
    let _alone = ALONE.lock().await;
    let (_folder, domain) = domain(0);
    let honest = bind(&domain, &Guest::honest()).await;
    let before = runners();
    let mut wrong = Vec::new();
    // What runs when a plugin is bound has the time of a binding: twenty seconds.
    let at_once = ["loop_in_start", "loop_in_configure", "loop_in_realloc"];
    let rows = EXPECTED.iter().filter(|(name, ..)| !at_once.contains(name));
    for (name, limits, outcome) in rows {
        let came = came(&domain, name, *limits).await;
        if !is_expected(&came, *outcome) {
            wrong.push(format!("{name} ({limits:?}): {came:?}"));
        }
        let words = words(&came);
        assert!(words.len() < 32 << 10, "{name}: {} bytes", words.len());
        assert_eq!(words, sluice_protocol::ending::one_line(&words), "{name}");
        assert!(is_right(&ask(&honest).await), "after {name}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(runners(), before, "a guest ended the runner");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_at_once_wait_for_one_another_and_none_fails() {
    let _alone = ALONE.lock().await;
    let (_folder, domain) = domain(0);
    let gates = [
        bind(&domain, &Guest::honest()).await,
        bind(&domain, &Guest::named("looks_at_what_was_left")).await,
    ];
    let calls = (0..200).map(|number| ask(&gates[number % 2]));
    for (number, tried) in join_all(calls).await.iter().enumerate() {
        assert!(is_right(tried), "{number}: {tried:?}");
    }
}

async fn evaluated(gates: &[sluice_gate_client::BoundGate]) -> Evaluation {
    let submission = Submission::of(SCRIPT);
    let source = Source::read(&submission).expect("reads");
    let input = Input {
        submission: &submission,
        source: &source,
        facts: vec![],
        job: vec![],
        attachments: vec![],
        skip_security_scan: false,
        approval: None,
        live_facts: true,
    };
    evaluate(gates, &input).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_fails_blocks_and_the_same_question_is_put_to_it_again() {
    let _alone = ALONE.lock().await;
    let (_folder, domain) = domain(0);
    let gates = [
        bind(&domain, &Guest::honest()).await,
        bind(&domain, &Guest::named("trap")).await,
    ];
    for _ in 0..2 {
        let evaluation = evaluated(&gates).await;
        let Some(Ending::Blocked(block)) = evaluation.ended else {
            panic!("{:?}", evaluation.ended);
        };
        assert_eq!(block.code.as_deref(), Some("gate-error"));
        let failed = evaluation
            .receipts
            .iter()
            .find(|receipt| receipt.verdict == "error");
        assert!(
            failed.is_some_and(|receipt| receipt.duration_us > 0),
            "taken from memory"
        );
    }
    assert_eq!(evaluated(&gates[..1]).await.ended, None);
}
