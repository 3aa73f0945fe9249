//! The main job, shown: a host, an agent, and real scripts through the real command line, with every outcome checked.

mod scenes;
mod stage;

use std::time::Instant;

use anyhow::{Result, bail};

use crate::plugins;
use crate::steps::headline;
use stage::Stage;

/// Builds everything, starts everything, runs every scene, stops everything.
pub(crate) fn run(stay: bool) -> Result<()> {
    headline("Building (the first time this takes some minutes)");
    let gates = plugins::make_with_binaries()?;

    let started = Instant::now();
    let stage = Stage::set_up(&gates)?;
    let mut unexpected = Vec::new();
    for scene in scenes::all() {
        if let Err(error) = scene.play(&stage) {
            println!("   UNEXPECTED: {error:#}");
            unexpected.push(scene.title);
        }
    }
    if let Err(error) = stage.show_record() {
        println!("   UNEXPECTED: {error:#}");
        unexpected.push("The record");
    }
    headline(&format!("Done in {:.1} s", started.elapsed().as_secs_f64()));
    if stay {
        stage.stay()?;
    }
    drop(stage);
    if unexpected.is_empty() {
        println!(
            "Every outcome was the expected one. Host and agent are stopped, their folder is removed."
        );
        Ok(())
    } else {
        bail!("unexpected outcomes: {}", unexpected.join(", "))
    }
}
