//! The simulations with new seeds, for as long as one likes. Programs that are killed for real are tested with `SLUICE_ROUNDS`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use crate::steps::{cargo, headline, run};

/// The tests that take seeds, and the programs that they are in.
const SEEDED: &[(&str, &str)] = &[
    (
        "delivery",
        "over_bad_networks_each_operation_starts_once_and_ends_with_all_that_it_wrote",
    ),
    (
        "delivery",
        "hosts_and_agents_that_are_killed_lose_nothing_and_start_nothing_twice",
    ),
    (
        "delivery",
        "whoever_is_killed_around_a_start_or_an_end_it_was_started_once_and_is_reported",
    ),
    (
        "delivery",
        "a_host_that_was_restored_from_a_copy_starts_nothing_twice",
    ),
    (
        "delivery",
        "a_machine_that_was_rolled_back_starts_nothing_again_that_its_host_has_heard_of",
    ),
    (
        "delivery",
        "a_day_without_a_network_delays_what_was_asked_and_changes_nothing_else",
    ),
    (
        "network",
        "whatever_the_weather_operations_arrive_whole_and_are_reported_whole",
    ),
    ("network", "a_machine_whose_address_changes_keeps_its_link"),
    (
        "decoders",
        "no_bytes_make_a_decoder_panic_or_take_much_time_or_memory",
    ),
];

/// Between two looks at the clock: how long one test goes on, at most.
const ROUND: Duration = Duration::from_secs(10 * 60);

/// Runs each of them for a while, again and again, from `seed` or one of the moment on, for about so long. The first that fails
/// is the last, and says with which seed.
pub(crate) fn run_tests(seed: Option<u64>, minutes: u64) -> Result<()> {
    let time = Duration::from_secs(60 * minutes);
    let ends = Instant::now() + time;
    let mut seed = seed.unwrap_or_else(of_the_moment);
    let share = (time / u32::try_from(SEEDED.len())?).min(ROUND);
    loop {
        for (program, test) in SEEDED {
            headline(&format!("{test}, from seed {seed}"));
            let mut tests = cargo();
            tests
                .args(["test", "--quiet", "--workspace", "--test", program, "--"])
                .args(["--exact", "--nocapture", test])
                .env("SLUICE_FIRST_SEED", seed.to_string())
                .env("SLUICE_SECONDS", share.as_secs().to_string());
            if run(&mut tests).is_err() {
                bail!(
                    "{test} fails; its seed is above, and `cargo xtask soak --seed {seed}` begins with it or before it"
                );
            }
        }
        if Instant::now() >= ends {
            println!("\nno seed has failed");
            return Ok(());
        }
        // Far from those that were tried.
        seed = seed.wrapping_add(1 << 40);
    }
}

/// A seed that nobody has tried.
fn of_the_moment() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // Short enough to be typed.
    since.as_secs() << 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::root;

    #[test]
    fn every_test_that_takes_seeds_is_soaked() {
        let folder = root().join("tests/simulation/tests");
        let mut seeded = 0;
        for entry in std::fs::read_dir(folder).expect("is there") {
            let text = std::fs::read_to_string(entry.expect("is there").path()).expect("reads");
            seeded +=
                text.matches("seeds::each(test").count() + text.matches("    many(\n").count();
            // The one that those with troubles share.
            seeded -= text.matches("fn many(").count();
        }
        assert_eq!(seeded, SEEDED.len());
        for (program, test) in SEEDED {
            let path = root().join(format!("tests/simulation/tests/{program}.rs"));
            let text = std::fs::read_to_string(path).expect("reads");
            assert!(text.contains(&format!("fn {test}()")), "{test}");
        }
    }
}
