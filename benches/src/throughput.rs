//! One agent with as many operations at once as it runs by default, against as many threads that start bash: what a
//! machine gets done in a second, through Sluice and without it.

use std::time::{Duration, Instant};

use anyhow::Result;
use sluice_tests::Fleet;

use crate::floor::job_floor;
use crate::operation::{operation, start};

/// `limits.parallel`, unless the owner says otherwise.
const AT_ONCE: usize = 4;
const ROUNDS: usize = 5;
const FOR: Duration = Duration::from_secs(2);

pub(crate) fn run() -> Result<()> {
    let Some((fleet, runtime, client)) = start()? else {
        return Ok(());
    };
    runtime.block_on(operations(&client, &fleet))?;
    let (mut raw, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.push(spawned()?);
        whole.push(runtime.block_on(operations(&client, &fleet))?);
    }
    let (raw, whole) = (median(raw), median(whole));
    println!("   job floor, {AT_ONCE} threads: {raw:.0} per second");
    println!("   operations, {AT_ONCE} at once: {whole:.0} per second");
    println!("   ratio of the medians: {:.2}", whole / raw);
    Ok(())
}

/// Operations a second.
async fn operations(client: &reqwest::Client, fleet: &Fleet) -> Result<f64> {
    let started = Instant::now();
    let lane = || async {
        let mut done = 0_u32;
        while started.elapsed() < FOR {
            operation(client, fleet).await?;
            done += 1;
        }
        anyhow::Ok(done)
    };
    let (a, b, c, d) = tokio::try_join!(lane(), lane(), lane(), lane())?;
    Ok(f64::from(a + b + c + d) / started.elapsed().as_secs_f64())
}

/// Scripts a second without Sluice.
fn spawned() -> Result<f64> {
    let started = Instant::now();
    let lane = || {
        let mut done = 0_u32;
        while started.elapsed() < FOR {
            job_floor()?;
            done += 1;
        }
        anyhow::Ok(done)
    };
    let done = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(lane)).collect();
        lanes
            .into_iter()
            .map(|lane| {
                lane.join()
                    .unwrap_or_else(|_| anyhow::bail!("a thread panicked"))
            })
            .sum::<Result<u32>>()
    })?;
    Ok(f64::from(done) / started.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
