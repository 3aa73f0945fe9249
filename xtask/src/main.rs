//! `cargo xtask`: everything that building, trying, testing and measuring needs, in one place.

#![allow(
    clippy::disallowed_methods,
    reason = "starting tools and the product's programs is what this is for"
)]

mod as_user;
mod bench;
mod demo;
mod left_out;
mod mutate;
mod plugins;
mod soak;
mod steps;
mod test;
mod times;

use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::test::Run;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, try, test and measure Sluice")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a host and an agent, run real scripts through them, and check every outcome
    Demo {
        /// Leave host and agent running and print commands to try
        #[arg(long)]
        stay: bool,
    },
    /// Do all set-up and run every test that can run on this machine
    Test {
        /// Only tests whose names contain this
        filter: Option<String>,
        /// Only the tests of the whole system, as this user (needs root): an agent without rights
        #[arg(long, value_name = "USER")]
        as_user: Option<String>,
        /// All of them so many times, and no more once one has failed; its log is shown
        #[arg(long, value_name = "N", conflicts_with = "as_user", value_parser = clap::value_parser!(u32).range(1..))]
        times: Option<u32>,
    },
    /// Measure, and print ratios
    Bench {
        /// Only benches whose names contain this
        filter: Option<String>,
    },
    /// Break the code in the places that mutations.toml names, one at a time, and see that the test that guards each fails
    Mutate {
        /// Only rows whose file, test or words contain this
        filter: Option<String>,
        /// Also those that were caught before
        #[arg(long)]
        again: bool,
        /// Begin no other batch of rows after so many minutes
        #[arg(long, value_name = "N")]
        minutes: Option<u64>,
    },
    /// Run the simulations of delivery with new seeds, until one fails or the time is over
    Soak {
        /// The first seed; one that nobody has tried where absent
        #[arg(long)]
        seed: Option<u64>,
        /// For about how long; every test has a share, and one seed at least
        #[arg(long, value_name = "N", default_value_t = 60)]
        minutes: u64,
    },
    /// Build, componentize and sign the shipped gates into target/plugins
    Plugins,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Demo { stay } => demo::run(stay),
        Command::Test {
            filter,
            as_user,
            times,
        } => {
            let run = match (&as_user, times) {
                (Some(user), _) => Run::AsUser(user),
                (None, Some(times)) => Run::Times(times),
                (None, None) => Run::Once,
            };
            test::run_tests(filter.as_deref(), &run)
        }
        Command::Bench { filter } => bench::run(filter.as_deref()),
        Command::Mutate {
            filter,
            again,
            minutes,
        } => {
            let limit = minutes.map(|minutes| Duration::from_secs(60 * minutes));
            mutate::run(filter.as_deref(), again, limit)
        }
        Command::Soak { seed, minutes } => soak::run_tests(seed, minutes),
        Command::Plugins => plugins::make().map(drop),
    }
}
