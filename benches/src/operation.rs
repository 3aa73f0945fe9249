//! An operation end to end on loopback (from REST accepted, and from the request, to the stored result; QUIC, gates, bash
//! under another user, durable on both sides) against the job floor: temporary file, chown, bash under that user, captured
//! output.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sluice_tests::{Fleet, Running, kib};

use crate::floor::{SCRIPT, job_floor};
use crate::samples::{Samples, ratio};

const ROUNDS: usize = 5;
const OPERATIONS: usize = 100;

pub(crate) fn run() -> Result<()> {
    let Some((fleet, runtime, client)) = start()? else {
        return Ok(());
    };
    for _ in 0..20 {
        runtime.block_on(operation(&client, &fleet))?;
    }
    let (mut floor, mut whole, mut accepted) = <(Samples, Samples, Samples)>::default();
    for _ in 0..ROUNDS {
        for _ in 0..OPERATIONS {
            floor.push(job_floor()?);
        }
        for _ in 0..OPERATIONS {
            let took = runtime.block_on(operation(&client, &fleet))?;
            whole.push(took.from_request);
            accepted.push(took.from_accepted);
        }
    }
    floor.show("job floor: file, chown, bash as nobody");
    let tail =
        |samples: &Samples| samples.quantile(0.99).as_secs_f64() / samples.median().as_secs_f64();
    for (what, samples) in [
        ("operation: REST accepted to result stored", &accepted),
        ("operation: request sent to result stored", &whole),
    ] {
        samples.show(what);
        println!("   ratio of the medians: {:.2}", ratio(samples, &floor));
        println!("   p99 of the operation / its median: {:.2}", tail(samples));
    }
    let pid = fleet.agents[0].pid();
    println!("   agent at rest: {} KiB resident", kib(pid, "VmRSS:"));
    // As many as a machine runs at once where its owner says nothing.
    let running = Running::measure(&fleet, 4);
    println!(
        "   each of four operations that run: {} KiB of processes of ours (the agent's growth and all shims)",
        running.in_all() / 4
    );
    Ok(())
}

/// A host with one machine, and an operator; none where this user cannot run scripts as another.
pub(crate) fn start() -> Result<Option<(Fleet, tokio::runtime::Runtime, reqwest::Client)>> {
    if !nix::unistd::Uid::effective().is_root() {
        println!("   left out: running scripts as another user needs root");
        return Ok(None);
    }
    let fleet = Fleet::builder().start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = client(&fleet)?;
    Ok(Some((fleet, runtime, client)))
}

pub(crate) fn client(fleet: &Fleet) -> Result<reqwest::Client> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    // One provider for the whole process; a second call would say that it is there.
    let _ = provider.install_default();
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {}", fleet.token).parse()?);
    Ok(reqwest::Client::builder()
        .default_headers(headers)
        .tcp_nodelay(true)
        .build()?)
}

/// How long an operation took to the event that tells the stored result.
pub(crate) struct Took {
    from_request: Duration,
    /// From the answer that it is accepted.
    from_accepted: Duration,
}

pub(crate) async fn operation(client: &reqwest::Client, fleet: &Fleet) -> Result<Took> {
    let started = Instant::now();
    let body = json!({ "script": STANDARD.encode(SCRIPT), "machines": ["m1"], "run_as": "nobody" });
    let mut events = client
        .post(format!("{}/v1/jobs", fleet.host.api))
        .header("accept", "text/event-stream")
        .json(&body)
        .send()
        .await?
        .error_for_status()?;
    let accepted = Instant::now();
    let mut text = String::new();
    while let Some(chunk) = events.chunk().await? {
        text.push_str(&String::from_utf8_lossy(&chunk));
        if let Some(result) = text
            .split("event: result\n")
            .nth(1)
            .and_then(|rest| rest.split_once("\n\n"))
        {
            let took = Took {
                from_request: started.elapsed(),
                from_accepted: accepted.elapsed(),
            };
            ensure!(
                result.0.contains("\"succeeded\"") && result.0.contains("hello"),
                "another outcome: {}",
                result.0
            );
            return Ok(took);
        }
    }
    anyhow::bail!("no result in {text:?}")
}
