//! What a hundred thousand schedules cost a host while none of them is due.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sluice_database::rusqlite::Connection;

use crate::fleet::Site;
use crate::floor::SCRIPT;

const SCHEDULES: u32 = 100_000;
const FOR: Duration = Duration::from_secs(60);

pub(crate) fn run() -> Result<()> {
    let mut site = Site::start(0)?;
    let none = share(site.fleet.host.pid())?;
    let schedule = json!({
        "name": "yearly",
        "cron": "0 3 1 1 *",
        "job": { "script": STANDARD.encode(SCRIPT), "all": true },
    });
    site.post("/v1/schedules", &schedule)?;
    site.fleet.host.kill();
    copies(&site)?;
    site.fleet.host.kill_and_restart();
    // What a start costs is not what a rest costs.
    std::thread::sleep(Duration::from_secs(2));
    let many = share(site.fleet.host.pid())?;
    println!(
        "   a host at rest, of one core: without schedules {:.3} %",
        none * 100.0
    );
    println!("   with {SCHEDULES}: {:.3} %", many * 100.0);
    println!("   the difference by 1 %: {:.2}", (many - none) * 100.0);
    Ok(())
}

/// The same schedule under other names, each due at a minute of its own.
fn copies(site: &Site) -> Result<()> {
    let database = Connection::open(site.fleet.host.data().join("host.db"))?;
    let mut columns = Vec::new();
    let mut list = database.prepare("SELECT name FROM pragma_table_info('schedules')")?;
    for name in list.query_map([], |row| row.get::<_, String>(0))? {
        columns.push(name?);
    }
    let values = columns.iter().map(|column| match column.as_str() {
        "id" => "printf('%08x%s', n, substr(id, 9))".to_owned(),
        "name" => "name || n".to_owned(),
        "next_due" => "next_due + n * 60000".to_owned(),
        other => other.to_owned(),
    });
    let statement = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < {SCHEDULES})
         INSERT INTO schedules ({}) SELECT {} FROM schedules, numbers",
        columns.join(", "),
        values.collect::<Vec<_>>().join(", ")
    );
    database.execute_batch(&statement)?;
    Ok(())
}

/// The share of a core that a process uses for a while.
fn share(pid: u32) -> Result<f64> {
    let before = ticks(pid)?;
    std::thread::sleep(FOR);
    let used = ticks(pid)? - before;
    let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no ticks")?;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand ticks")]
    Ok(used as f64 / second as f64 / FOR.as_secs_f64())
}

/// User and system time (proc_pid_stat(5), fields 14 and 15).
fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').context("no name in it")?.1;
    let mut fields = after.split_whitespace().skip(11);
    let mut next = || -> Result<u64> { Ok(fields.next().context("too short")?.parse()?) };
    Ok(next()? + next()?)
}
