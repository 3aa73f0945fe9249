//! The functions of `fuzz/`, fed with its corpus and with mutations of what is known to be right: the same ones each time.

#[path = "../../../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "it is a package of its own")]
mod fuzz;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sluice_gate_client::wire::{Called, CompileResponse, FromRunner, Response};
use sluice_gate_types::answer::{
    Answer, CallError, Check, CheckStatus, Confidence, Decision, Finding, Reason, SettingsProblem,
    Severity, Span, Verdict,
};
use sluice_gate_types::input::{Attribute, Origin, Value};
use sluice_guests::Guest;

/// How long each test goes on at most, on a machine that is slow.
const ENOUGH: Duration = Duration::from_secs(20);

/// Numbers that look random: xorshift64*, <https://doi.org/10.1145/2845077>.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).expect("has 31 bits") % end.max(1)
    }

    /// A few changes: bytes that are others, taken out, put in, or repeated, and numbers that are edges.
    fn mutated(&mut self, seed: &[u8]) -> Vec<u8> {
        const EDGES: &[u8] = &[0, 1, 0x7f, 0x80, 0xff, 0x1b, b'\n', 0x9b, 0xbb, 0x5b];
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let length = self.below(9).min(bytes.len() - at);
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] = EDGES[self.below(EDGES.len())],
                1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                2 => drop(bytes.drain(at..at + length)),
                3 => {
                    let again = bytes[at..at + length].to_vec();
                    bytes.splice(at..at, again);
                }
                _ => bytes.insert(at, EDGES[self.below(EDGES.len())]),
            }
        }
        bytes
    }
}

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let entries = std::fs::read_dir(folder.join(target)).expect("is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("reads").path()).collect();
    files.sort_unstable();
    assert!(!files.is_empty(), "{target} has no corpus");
    files
}

/// Feeds `target` with its corpus, with `seeds`, and with so many mutations of both. What it is fed with when it fails is
/// kept, and where is printed.
fn feed(name: &str, target: fn(&[u8]), seeds: Vec<Vec<u8>>, mutations: usize) {
    let feed = |bytes: &[u8], what: &str| {
        let fed = std::panic::catch_unwind(|| target(bytes));
        if let Err(panic) = fed {
            let kept =
                std::env::temp_dir().join(format!("sluice-fuzz-{name}-{}", std::process::id()));
            std::fs::write(&kept, bytes).expect("writes");
            eprintln!("{what} of {name} is in {}", kept.display());
            std::panic::resume_unwind(panic);
        }
    };
    let mut seeds = seeds;
    for file in corpus(name) {
        let bytes = std::fs::read(&file).expect("reads");
        feed(&bytes, &file.display().to_string());
        seeds.push(bytes);
    }
    for seed in &seeds {
        feed(seed, "a seed");
    }
    let (started, mut random) = (Instant::now(), Random(0x5_1ce));
    for number in 0..mutations {
        if started.elapsed() > ENOUGH {
            println!("{name}: {number} of {mutations} mutations in {ENOUGH:?}");
            return;
        }
        let seed = random.below(seeds.len());
        let mut bytes = random.mutated(&seeds[seed]);
        if random.below(10) == 0 {
            bytes = random.mutated(&bytes);
        }
        feed(&bytes, &format!("mutation {number}"));
    }
    println!("{name}: {mutations} mutations in {:?}", started.elapsed());
}

fn called(answer: Result<Answer, CallError>) -> Vec<u8> {
    let response = Response::Called(Box::new(Called {
        answer,
        fuel: 1,
        memory: 2,
        duration_us: 3,
        log: vec!["a line".to_owned()],
    }));
    encoded(&FromRunner { id: 1, response })
}

fn encoded(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("encodes");
    bytes
}

/// Frames that a hostile runner could begin with.
fn answers() -> Vec<Vec<u8>> {
    let words = || "a\u{1b}[2Jb\nc\u{202e}d".to_owned();
    let finding = |start, end| Finding {
        rule: "r1".to_owned(),
        severity: Severity::High,
        confidence: Confidence::Low,
        message: words(),
        primary: Some(Span { start, end }),
        related: vec![Span { start: 0, end: 1 }],
        subject: "script".to_owned(),
        remediation: Some(words()),
        attributes: vec![Attribute::new("key", Value::Text(words()), Origin::Owner)],
    };
    let check = Check {
        id: words(),
        status: CheckStatus::Unknown,
        message: words(),
    };
    let reason = Reason {
        code: words(),
        message: words(),
    };
    let problem = SettingsProblem {
        key: words(),
        message: words(),
    };
    let admitted = sluice_plugin_runtime::admission::admit(&Guest::honest().build());
    vec![
        called(Ok(Answer::Findings(vec![finding(0, 9); 3]))),
        called(Ok(Answer::Findings(vec![finding(1, u64::MAX)]))),
        called(Ok(Answer::Checks(vec![check; 3]))),
        called(Ok(Answer::Decision(Decision {
            verdict: Verdict::Block,
            reasons: vec![reason; 3],
        }))),
        called(Err(CallError::Internal(words()))),
        called(Err(CallError::Trap(words()))),
        called(Err(CallError::InvalidSettings(vec![problem; 30]))),
        encoded(&CompileResponse::Inspected(Box::new(admitted))),
    ]
}

#[test]
fn whatever_a_runner_sends_is_an_answer_that_keeps_the_contract_or_an_error_that_can_be_shown() {
    feed("answer", fuzz::answer, answers(), 30_000);
}

fn guests() -> Vec<Vec<u8>> {
    let names = [
        "honest",
        "beside/handles",
        "log_flood",
        "hidden_words_in_an_error",
    ];
    names.map(|name| Guest::named(name).build()).into()
}

#[test]
fn any_bytes_are_admitted_or_refused_with_reasons_that_can_be_shown() {
    feed("admission", fuzz::admission, guests(), 6_000);
}

#[test]
fn any_bytes_that_are_admitted_end_when_they_are_called() {
    feed("component", fuzz::component, guests(), 3_000);
}
