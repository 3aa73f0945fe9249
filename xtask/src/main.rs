//! `cargo xtask`: everything that building, trying, testing and measuring needs, in one place.

#![allow(
    clippy::disallowed_methods,
    reason = "starting tools and the product's programs is what this is for"
)]

mod bench;
mod demo;
mod plugins;
mod steps;
mod test;

use clap::{Parser, Subcommand};

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
    },
    /// Measure, and print ratios
    Bench {
        /// Only benches whose names contain this
        filter: Option<String>,
    },
    /// Build, componentize and sign the shipped gates into target/plugins
    Plugins,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Demo { stay } => demo::run(stay),
        Command::Test { filter } => test::run_tests(filter.as_deref()),
        Command::Bench { filter } => bench::run(filter.as_deref()),
        Command::Plugins => plugins::make().map(drop),
    }
}
