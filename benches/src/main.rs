//! Promises as numbers. Machines are noisy, so nothing here passes or fails by a time: what counts is the ratio between
//! two things that were measured in turns in one run.

mod exec;
mod fleet;
mod floor;
mod gate;
mod operation;
mod samples;
mod schedules;
mod throughput;

/// Measures and prints.
type Bench = fn() -> anyhow::Result<()>;

fn main() -> anyhow::Result<()> {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let benches: [(&str, Bench); 8] = [
        ("gate", gate::run),
        ("exec", exec::run),
        ("operation", operation::run),
        ("throughput", throughput::run),
        ("accept", fleet::accept),
        ("halt", fleet::halt),
        ("rollout", fleet::rollout),
        ("schedules", schedules::run),
    ];
    for (name, bench) in benches {
        if name.contains(&filter) {
            println!("\n== {name}");
            bench()?;
        }
    }
    Ok(())
}
