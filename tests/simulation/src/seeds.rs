//! Which seeds a test runs, and what is said of one that fails.
//!
//! | variable | |
//! |---|---|
//! | `SLUICE_SEED` | this seed alone |
//! | `SLUICE_SEEDS` | so many seeds, counted from `SLUICE_FIRST_SEED` or a fixed one |
//! | `SLUICE_SECONDS` | seeds for so long, whatever else is said but `SLUICE_SEED` |

use std::cell::{Cell, RefCell};
use std::panic::{set_hook, take_hook};
use std::sync::Once;
use std::time::{Duration, Instant};

/// The first seed where nothing else is said: tests that run again run the same.
const FIRST: u64 = 1;

thread_local! {
    /// What this thread is at work on: the test and its seed.
    static AT_WORK: RefCell<Option<(String, u64)>> = const { RefCell::new(None) };
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// From here on the seed is printed where something panics, also in a task whose run time says nothing of it, and where the
/// whole process ends with that.
fn name_seeds() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            usual(panic);
            AT_WORK.with_borrow(|at_work| {
                if let Some((test, seed)) = at_work
                    && !PANICKED.replace(true)
                {
                    eprintln!(
                        "\nSEED {seed} of {test} fails; once more: SLUICE_SEED={seed} cargo xtask test {test}\n"
                    );
                }
            });
        }));
    });
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    let parsed = value.parse();
    Some(parsed.unwrap_or_else(|_| panic!("{name} must be a number, and is {value:?}")))
}

/// Runs `check` with `count` seeds, or as many as the environment says, and no more after `budget` unless it says so. The
/// first that fails is the last. It fails too where something in it panicked and nobody looked.
pub fn each(test: &str, count: u64, budget: Duration, check: impl Fn(u64)) {
    let started = Instant::now();
    let (only, asked) = (variable("SLUICE_SEED"), variable("SLUICE_SEEDS"));
    let time = variable("SLUICE_SECONDS").map(Duration::from_secs);
    let first = only.unwrap_or_else(|| variable("SLUICE_FIRST_SEED").unwrap_or(FIRST));
    let count = match (only, time, asked) {
        (Some(_), ..) => 1,
        (None, Some(_), _) => u64::MAX,
        (None, None, asked) => asked.unwrap_or(count),
    };
    let budget = match (time, asked) {
        (Some(time), _) => time,
        (None, Some(_)) => Duration::MAX,
        (None, None) => budget,
    };
    let mut done = 0;
    name_seeds();
    for seed in (first..=u64::MAX).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        AT_WORK.set(Some((test.to_owned(), seed)));
        check(seed);
        assert!(
            !PANICKED.get(),
            "a part of a program has panicked, see above"
        );
        done += 1;
        // At least one, however slow the machine is.
        if started.elapsed() >= budget {
            break;
        }
    }
    println!(
        "{test}: {done} seeds from {first} in {:.1} s",
        started.elapsed().as_secs_f32()
    );
}
