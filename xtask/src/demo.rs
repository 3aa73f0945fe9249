//! The main job, shown: a host, an agent, and real scripts through the real command line, with every outcome checked.

mod processes;
mod scenes;
mod stage;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::plugins;
use crate::steps::headline;
use scenes::Played;
use stage::Stage;

/// Builds everything, starts everything, runs every scene, stops everything.
pub(crate) fn run(stay: bool) -> Result<()> {
    headline("Building (the first time this takes some minutes)");
    let gates = plugins::make_with_binaries()?;

    let started = Instant::now();
    let stage = Stage::set_up(&gates)?;
    let mut unexpected = Vec::new();
    let mut left_out = Vec::new();
    for scene in scenes::all() {
        match scene.play(&stage) {
            Ok(Played::AsExpected) => {}
            Ok(Played::LeftOut(why)) => left_out.push((scene.title, why)),
            Err(error) => {
                println!("   UNEXPECTED: {error:#}");
                unexpected.push(scene.title);
            }
        }
    }
    if let Err(error) = stage.show_record() {
        println!("   UNEXPECTED: {error:#}");
        unexpected.push("The record");
    }
    let took = started.elapsed();
    if stay {
        stage.stay()?;
    }
    headline("Stopping");
    match stage.stop() {
        Ok(()) => println!("   host and agent ended, and nothing is left of them"),
        Err(error) => {
            println!("   UNEXPECTED: {error:#}");
            unexpected.push("The end");
        }
    }
    headline(&format!("Done in {:.1} s", took.as_secs_f64()));
    for (title, why) in left_out {
        println!("   left out: {title} ({why})");
    }
    if !unexpected.is_empty() {
        bail!("unexpected outcomes: {}", unexpected.join(", "));
    }
    if let Some(limit) = limit()?.filter(|limit| took > *limit) {
        bail!("the scenes took longer than {limit:?}, the limit of {LIMIT}");
    }
    println!(
        "Every outcome was the expected one. Host and agent are stopped, their folder is removed."
    );
    Ok(())
}

/// In seconds, for who must know that the demo does not become slow: how long everything after building may take.
const LIMIT: &str = "SLUICE_DEMO_LIMIT";

fn limit() -> Result<Option<Duration>> {
    let Ok(text) = std::env::var(LIMIT) else {
        return Ok(None);
    };
    let seconds = text.parse().with_context(|| format!("{LIMIT}={text}"))?;
    Ok(Some(Duration::from_secs(seconds)))
}
