//! A gate call (fresh instance, from a snapshot, the scanner with its full rule set) against the same rules natively.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use sluice_gate_types::contract::Contract;
use sluice_gate_types::input::{Bundle, Job, Question, Script};
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::World;
use sluice_plugin_runtime::engine::{Allocation, Effort, GateEngine};
use sluice_plugin_runtime::gate::Gate;
use sluice_plugin_runtime::snapshot;
use sluice_plugin_scanner::ScannerGate;
use sluice_plugin_sdk::{Scanner as _, Settings, types};

use crate::samples::{Samples, ratio};

const ROUNDS: usize = 400;

pub(crate) fn run() -> Result<()> {
    let path = sluice_tests::plugins().join("scanner.wasm");
    let component = std::fs::read(&path)
        .with_context(|| format!("{}: run cargo xtask plugins", path.display()))?;
    let engine = engine(Allocation::Pool, Effort::Full)?;
    let compiling = engine_for_compiling()?;

    let started = Instant::now();
    let instrumented = snapshot::instrument(&component).map_err(|error| anyhow!(error))?;
    let little = engine_with_little_effort()?;
    let artifact = little
        .compile(&instrumented)
        .map_err(|error| anyhow!("{error:#}"))?;
    let snapshotted = snapshot::take(
        &little,
        Contract::V0_1,
        World::ScannerPlugin,
        &component,
        &artifact,
        &[],
        &[],
    )?;
    let artifact = compiling
        .compile(&snapshotted)
        .map_err(|error| anyhow!("{error:#}"))?;
    println!(
        "   bound in {:.1?}: component {} KiB, snapshot {} KiB, compiled {} KiB",
        started.elapsed(),
        component.len() >> 10,
        snapshotted.len() >> 10,
        artifact.len() >> 10
    );

    let started = Instant::now();
    let gate = Gate::load(
        &engine,
        Contract::V0_1,
        World::ScannerPlugin,
        &artifact,
        CallLimits::CEILING,
        None,
    )?;
    println!("   loaded in {:.1?}", started.elapsed());
    let native =
        ScannerGate::configure(&Settings::default(), &[]).map_err(|error| anyhow!("{error:?}"))?;

    for size in [4 << 10, 256 << 10] {
        let text = script(size);
        let question = Question::Scan {
            bundle: bundle(&text),
            job: Job::default(),
        };
        let seen = types::Bundle::of_script("shell", &*text);
        let job = types::Job {
            attributes: Vec::new(),
        };
        let (mut wasm, mut natively) = (Samples::default(), Samples::default());
        for _ in 0..if size > 10_000 { ROUNDS / 10 } else { ROUNDS } {
            let started = Instant::now();
            let called = black_box(gate.call(&engine, black_box(&question)));
            wasm.push(started.elapsed());
            called.answer?;
            let started = Instant::now();
            black_box(native.scan(black_box(&seen), &job)).map_err(|error| anyhow!("{error:?}"))?;
            natively.push(started.elapsed());
        }
        natively.show(&format!("scan of {} KiB, natively", size >> 10));
        wasm.show(&format!("scan of {} KiB, as a gate call", size >> 10));
        println!("   ratio of the medians: {:.2}", ratio(&wasm, &natively));
    }
    Ok(())
}

fn engine(allocation: Allocation, effort: Effort) -> Result<GateEngine> {
    GateEngine::new(allocation, effort).map_err(|error| anyhow!("{error:#}"))
}

fn engine_for_compiling() -> Result<GateEngine> {
    engine(Allocation::OnDemand, Effort::Full)
}

fn engine_with_little_effort() -> Result<GateEngine> {
    engine(Allocation::OnDemand, Effort::Little)
}

/// An ordinary administration script of this size.
fn script(size: usize) -> String {
    let mut text = String::from("#!/bin/bash\nset -euo pipefail\n");
    let mut number = 0;
    while text.len() < size {
        number += 1;
        text.push_str(&format!(
            "log_{number}() {{ printf '%s %s\\n' \"$(date -Is)\" \"$*\"; }}\nif [ -d \"/srv/data/{number}\" ]; then\n    find \"/srv/data/{number}\" -type f -name '*.log' -mtime +30 -print | sort > \"/tmp/report-{number}.txt\"\n    log_{number} \"checked directory {number}\"\nfi\n"
        ));
    }
    text.truncate(size);
    text
}

fn bundle(text: &str) -> Bundle {
    Bundle {
        script: Script {
            interpreter: "bash".to_owned(),
            flags: Vec::new(),
            language: "shell".to_owned(),
            text: text.to_owned(),
            sha256: vec![0; 32],
        },
        arguments: Vec::new(),
        environment: Vec::new(),
        attachments: Vec::new(),
        secrets: Vec::new(),
        run_as: String::new(),
        limits: Vec::new(),
    }
}
