//! What depends on how many machines there are: accepting a job for all of them, reaching all of them, and going on from
//! batch to batch. The machines are simulated: they have a certificate and a connection, and run nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sluice_database::rusqlite::{Connection, params};
use sluice_protocol::ids::MachineId;
use sluice_tests::fake::{Behavior, Crowd, Manner};
use sluice_tests::{Fleet, kib};

use crate::floor::SCRIPT;
use crate::operation::client;
use crate::samples::{Samples, ratio};

/// How long it is waited for something that must come.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(2);

/// An operator of a host that has gates and simulated machines.
pub(crate) struct Site {
    pub(crate) fleet: Fleet,
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

impl Site {
    pub(crate) fn start(agents: usize) -> Result<Self> {
        let fleet = Fleet::builder().agents(agents).start();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = client(&fleet)?;
        Ok(Self {
            fleet,
            runtime,
            client,
        })
    }

    /// Machines that are connected.
    fn crowd(&self, count: usize, behavior: &Behavior) -> Result<Crowd> {
        let uses = count.to_string();
        let token = self
            .fleet
            .sluice(&["machine", "enroll-token", "--uses", &uses]);
        ensure!(token.code == 0, "there is no token: {token:?}");
        let started = Instant::now();
        let before = kib(self.fleet.host.pid(), "VmRSS:");
        let crowd = Crowd::enroll(&token.stdout, count, behavior);
        let grown = kib(self.fleet.host.pid(), "VmRSS:").saturating_sub(before);
        println!(
            "   {count} machines enrolled and connected in {:.1?}; the host grew by {} KiB for each",
            started.elapsed(),
            grown / count as u64
        );
        Ok(crowd)
    }

    /// So many more machines that are enrolled and away. Each says of itself what a real one does, and something of its own.
    fn absent(&mut self, count: usize) -> Result<()> {
        self.fleet.agents.clear();
        self.fleet.host.kill();
        let mut database = Connection::open(self.fleet.host.data().join("host.db"))?;
        let changes = database.transaction()?;
        {
            let model: String =
                changes.query_row("SELECT id FROM machines WHERE name = 'm1'", [], |row| {
                    row.get(0)
                })?;
            let mut insert = changes.prepare(
                "INSERT INTO machines (id, tenant, name, enrolled, facts)
                 SELECT ?1, tenant, ?1, enrolled, json_insert(facts, '$[#]',
                     json_object('key', 'bench.number', 'value', json_object('integer', ?2)))
                 FROM machines WHERE id = ?3",
            )?;
            for number in 0..count {
                let id = MachineId::generate().to_string();
                insert.execute(params![id, u32::try_from(number)?, model])?;
            }
        }
        changes.commit()?;
        drop(database);
        self.fleet.host.kill_and_restart();
        self.client = client(&self.fleet)?;
        Ok(())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.runtime.block_on(async {
            let url = format!("{}{path}", self.fleet.host.api);
            let answer = self.client.post(url).json(body).send().await?;
            let (status, text) = (answer.status(), answer.text().await?);
            ensure!(status.is_success(), "{path}: {status} {text}");
            serde_json::from_str(&text).context("is no JSON")
        })
    }

    fn get(&self, path: &str) -> Result<Value> {
        self.runtime.block_on(async {
            let url = format!("{}{path}", self.fleet.host.api);
            let text = self.client.get(url).send().await?.text().await?;
            serde_json::from_str(&text).context("is no JSON")
        })
    }

    /// Runs a script on all machines, as the request `more` says: how long until it was accepted.
    fn submit(&self, more: &Value) -> Result<(Duration, String)> {
        let mut body = json!({ "script": STANDARD.encode(SCRIPT), "all": true });
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let started = Instant::now();
        let job = self.post("/v1/jobs", &body)?;
        let took = started.elapsed();
        let job = job["job"].as_str().context("the answer names no job")?;
        Ok((took, job.to_owned()))
    }
}

/// A job for many machines that are away: until it is on disk.
pub(crate) fn accept() -> Result<()> {
    const ROUNDS: usize = 5;
    let mut site = Site::start(1)?;
    let mut before = 1;
    let mut one = Samples::default();
    site.absent(0)?;
    for _ in 0..ROUNDS * 4 {
        one.push(site.submit(&json!({}))?.0);
    }
    one.show("accepted: 1 machine");
    for (count, promise) in [(10_000, 1), (40_000, 3)] {
        site.absent(count - before)?;
        before = count;
        let mut many = Samples::default();
        for _ in 0..ROUNDS {
            many.push(site.submit(&json!({}))?.0);
        }
        many.show(&format!("accepted: {count} machines"));
        println!(
            "   by what is accepted for one machine: {:.0}; by {promise} s: {:.2}",
            ratio(&many, &one),
            many.median().as_secs_f64() / f64::from(promise)
        );
    }
    Ok(())
}

/// Every operation of a thousand connected machines is canceled, and every machine is told to start nothing.
pub(crate) fn halt() -> Result<()> {
    const MACHINES: usize = 1000;
    const ROUNDS: usize = 5;
    let site = Site::start(0)?;
    let crowd = site.crowd(MACHINES, &Behavior::default().tells(Manner::Silent))?;
    let (mut halts, mut lockdowns) = (Samples::default(), Samples::default());
    for round in 1..=ROUNDS {
        let _job = site.submit(&json!({}))?;
        until("all operations have come", || {
            crowd.operations() == MACHINES * round
        })?;
        let started = Instant::now();
        site.post("/v1/jobs/halt", &json!({}))?;
        until("all are told to cancel", || {
            crowd.cancels() == MACHINES * round
        })?;
        halts.push(started.elapsed());
        let started = Instant::now();
        site.fleet_locked(true)?;
        until("all are told to start nothing", || {
            crowd.lockdowns() == MACHINES * round
        })?;
        lockdowns.push(started.elapsed());
        site.fleet_locked(false)?;
    }
    halts.show("halt: request to the last machine told");
    lockdowns.show("lockdown: request to the last machine told");
    for (what, samples) in [("halt", &halts), ("lockdown", &lockdowns)] {
        println!(
            "   {what} by 1 s, median: {:.2}, slowest: {:.2}",
            samples.median().as_secs_f64(),
            samples.quantile(1.0).as_secs_f64()
        );
    }
    Ok(())
}

impl Site {
    fn fleet_locked(&self, on: bool) -> Result<()> {
        let word = if on { "on" } else { "off" };
        let said = self.fleet.sluice(&["lockdown", word]);
        ensure!(said.code == 0, "the lockdown is not {word}: {said:?}");
        Ok(())
    }
}

/// Ten thousand machines in batches, against the same at once.
pub(crate) fn rollout() -> Result<()> {
    const MACHINES: usize = 10_000;
    const ROUNDS: usize = 3;
    let site = Site::start(0)?;
    let crowd = site.crowd(MACHINES, &Behavior::default())?;
    let at_once = json!({});
    let in_batches = json!({ "batches": "1, 10%, 50%, 100%" });
    let few = json!({ "max_concurrency": 1000 });
    let mut done = 0;
    let mut whole = |request: &Value| -> Result<Duration> {
        let started = Instant::now();
        let (_, job) = site.submit(request)?;
        done += MACHINES;
        until("every machine has its operation", || {
            crowd.operations() >= done
        })?;
        until("every operation has ended", || {
            site.get(&format!("/v1/jobs/{job}"))
                .is_ok_and(|job| job["state"] == "done")
        })?;
        Ok(started.elapsed())
    };
    whole(&at_once)?;
    let (mut once, mut batches, mut lanes) = <(Samples, Samples, Samples)>::default();
    for _ in 0..ROUNDS {
        once.push(whole(&at_once)?);
        batches.push(whole(&in_batches)?);
        lanes.push(whole(&few)?);
    }
    once.show("all at once");
    batches.show("in batches of 1, 10 %, 50 %, 100 %");
    lanes.show("at most 1000 at a time");
    println!(
        "   in batches by at once: {:.2}; a thousand at a time by at once: {:.2}",
        ratio(&batches, &once),
        ratio(&lanes, &once)
    );
    println!("   machines still connected: {}", crowd.connected());
    Ok(())
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !holds() {
        ensure!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(LOOK);
    }
    Ok(())
}
