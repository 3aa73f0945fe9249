//! Delivery, whatever happens: real hosts and agents in simulated time, over bad networks, killed at any moment.
//!
//! What must hold is in `Fleet::check` and `Fleet::conclude`. `cargo xtask soak` runs these with new seeds for hours.

use std::time::Duration;

use sluice_host::fleet::Reason;
use sluice_simulation::fleet::Fleet;
use sluice_simulation::network::Weather;
use sluice_simulation::random::Random;
use sluice_simulation::seeds;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// How long a test of many seeds may take here. What is not done by then is left to the soak.
const BUDGET: Duration = Duration::from_secs(4);

/// What may happen to a fleet.
#[derive(Clone, Copy)]
struct Troubles {
    weather: bool,
    kills: bool,
    moves: bool,
    cancels: bool,
}

const ALL: Troubles = Troubles {
    weather: true,
    kills: true,
    moves: true,
    cancels: true,
};

/// So many operations, and trouble meanwhile.
fn trouble(fleet: &mut Fleet, random: &mut Random, mut operations: u64, troubles: Troubles) {
    let mut calm = 0;
    while operations > 0 || calm < 8 {
        fleet.pass(random.time(SECOND / 20..4 * SECOND));
        let number =
            usize::try_from(random.within(0..fleet.machines.len() as u64)).unwrap_or_default();
        if operations == 0 {
            calm += 1;
        } else if fleet.host_is_up() && random.happens(600) {
            operations -= 1;
            let expires = random.one_of(&[5 * SECOND, 30 * SECOND, HOUR]);
            fleet.submit(number, expires);
        }
        if troubles.weather && random.happens(250) {
            let (mut to, mut from) = (Weather::foul(random), Weather::foul(random));
            match random.within(0..6) {
                0 => to = Weather::blocked(),
                1 => from = Weather::blocked(),
                2 => (to, from) = (Weather::blocked(), Weather::blocked()),
                _ => {}
            }
            fleet.set_weather(number, to, from);
        }
        if troubles.moves && random.happens(80) {
            fleet.readdress(number);
        }
        if troubles.kills {
            match random.within(0..12) {
                0 if fleet.host_is_up() => fleet.kill_host(),
                1 if fleet.agent_is_up(number) => fleet.kill_agent(number),
                2 => fleet.scripts.kill_one(),
                _ => {}
            }
            if !fleet.host_is_up() && random.happens(400) {
                fleet.start_host();
            }
            if !fleet.agent_is_up(number) && random.happens(500) {
                fleet.start_agent(number);
            }
        }
        if troubles.cancels
            && fleet.host_is_up()
            && random.happens(60)
            && let Some(job) = fleet.accepted.last().copied()
        {
            fleet.cancel(job);
        }
        if fleet.host_is_up() {
            fleet.check();
        }
    }
}

fn many(test: &str, troubles: Troubles) {
    seeds::each(test, 1_000, BUDGET, |seed| {
        let mut random = Random::new(seed);
        let count = u8::try_from(random.within(1..4)).expect("is small");
        let mut fleet = Fleet::new(&mut random, count);
        let operations = random.within(3..12);
        trouble(&mut fleet, &mut random, operations, troubles);
        fleet.conclude(HOUR / 2);
    });
}

#[test]
fn over_bad_networks_each_operation_starts_once_and_ends_with_all_that_it_wrote() {
    let troubles = Troubles {
        kills: false,
        ..ALL
    };
    many(
        "over_bad_networks_each_operation_starts_once_and_ends_with_all_that_it_wrote",
        troubles,
    );
}

#[test]
fn hosts_and_agents_that_are_killed_lose_nothing_and_start_nothing_twice() {
    many(
        "hosts_and_agents_that_are_killed_lose_nothing_and_start_nothing_twice",
        ALL,
    );
}

#[test]
fn a_host_that_was_restored_from_a_copy_starts_nothing_twice() {
    let test = "a_host_that_was_restored_from_a_copy_starts_nothing_twice";
    seeds::each(test, 200, BUDGET, |seed| {
        let mut random = Random::new(seed);
        let mut fleet = Fleet::new(&mut random, 2);
        for number in [0, 1, 0, 1] {
            fleet.submit(number, HOUR);
            fleet.pass(random.time(SECOND / 100..SECOND));
        }
        // Of the last one the copy has a part: that it was asked for, that it was sent, or that it has come.
        fleet.submit(0, HOUR);
        let span = 4 * (fleet.world.commit + SECOND / 50);
        fleet.pass(random.time(Duration::ZERO..span));
        fleet.kill_host();
        fleet.back_up();
        fleet.start_host();
        fleet.pass(random.time(SECOND..60 * SECOND));
        fleet.kill_host();
        fleet.restore();
        fleet.start_host();
        fleet.pass(60 * SECOND);
        fleet.conclude(HOUR / 2);
    });
}

/// So many operations are killed over in each world.
const KILLS: u32 = 10;

#[test]
fn whoever_is_killed_around_a_start_or_an_end_it_was_started_once_and_is_reported() {
    let test = "whoever_is_killed_around_a_start_or_an_end_it_was_started_once_and_is_reported";
    seeds::each(test, 500, BUDGET, |seed| {
        let mut random = Random::new(seed);
        let mut fleet = Fleet::new(&mut random, 1);
        // From the request to the report of a script that has nothing to do there are about so many commits, with the
        // network between them.
        let span = 6 * (fleet.world.commit + SECOND / 50);
        for _ in 0..KILLS {
            fleet.submit(0, HOUR);
            fleet.pass(random.time(Duration::ZERO..span));
            if random.happens(700) {
                fleet.kill_agent(0);
                fleet.pass(random.time(Duration::ZERO..span));
                fleet.start_agent(0);
            } else {
                fleet.kill_host();
                fleet.pass(random.time(Duration::ZERO..span));
                fleet.start_host();
            }
            fleet.until(HOUR, "everything ends", Fleet::has_nothing_open);
            fleet.check();
        }
        fleet.conclude(HOUR / 2);
    });
}

#[test]
fn a_machine_that_was_rolled_back_starts_nothing_again_that_its_host_has_heard_of() {
    let test = "a_machine_that_was_rolled_back_starts_nothing_again_that_its_host_has_heard_of";
    seeds::each(test, 200, BUDGET, |seed| {
        let mut random = Random::new(seed);
        let mut fleet = Fleet::new(&mut random, 1);
        // More than run at once: some wait on the machine.
        for _ in 0..random.within(1..6) {
            fleet.submit(0, HOUR);
            fleet.pass(random.time(Duration::ZERO..SECOND));
        }
        fleet.kill_agent(0);
        fleet.take_image(0);
        fleet.start_agent(0);
        for _ in 0..random.within(0..3) {
            fleet.pass(random.time(Duration::ZERO..SECOND));
            fleet.submit(0, HOUR);
        }
        fleet.pass(random.time(SECOND / 100..60 * SECOND));
        fleet.kill_agent(0);
        // What is on its way arrives or is lost.
        fleet.pass(60 * SECOND);
        fleet.put_image_back(0);
        fleet.start_agent(0);
        fleet.submit(0, HOUR);
        fleet.until(HOUR, "it goes on, or is quarantined", |fleet| {
            fleet.has_nothing_open() || fleet.quarantine(0).is_some()
        });
        if let Some(reason) = fleet.quarantine(0) {
            // What it had open has ended before it came to its host, and its ledger went on.
            assert_eq!(reason, Reason::LedgersFork.as_str());
            fleet.release(0);
        }
        fleet.conclude(HOUR / 2);
    });
}

#[test]
fn a_day_without_a_network_delays_what_was_asked_and_changes_nothing_else() {
    let test = "a_day_without_a_network_delays_what_was_asked_and_changes_nothing_else";
    seeds::each(test, 1, Duration::ZERO, |seed| {
        let mut random = Random::new(seed);
        let mut fleet = Fleet::new(&mut random, 1);
        fleet.submit(0, HOUR);
        fleet.submit(0, 48 * HOUR);
        fleet.pass(random.time(SECOND / 100..SECOND));
        fleet.set_weather(0, Weather::blocked(), Weather::blocked());
        fleet.submit(0, HOUR);
        fleet.submit(0, 48 * HOUR);
        fleet.pass(24 * HOUR);
        fleet.conclude(HOUR / 2);
    });
}
