//! What is known about the machine. What cannot be found out is left out: a gate sees it as unknown.

use std::fs;
use std::path::Path;
use std::sync::{OnceLock, PoisonError, RwLock};

use sluice_protocol::message::control::{Fact, FactValue};
use sluice_protocol::script::Requirements;

use crate::exec::interpreter::SEARCH;

/// The step of sizes that change all the time, in bytes.
const STEP: u64 = 64 << 20;

/// What was read last.
static LAST: RwLock<Vec<Fact>> = RwLock::new(Vec::new());

/// Facts that seldom change, as they were when somebody looked last: for every operation, which is not to wait for files.
#[must_use]
pub fn of_machine() -> Vec<Fact> {
    let last = LAST.read().unwrap_or_else(PoisonError::into_inner).clone();
    // Never none of all: what the system is, is known without looking.
    if last.is_empty() { look() } else { last }
}

/// The same as they are now: for the inventory.
#[must_use]
pub fn look() -> Vec<Fact> {
    let facts = read_machine();
    LAST.write()
        .unwrap_or_else(PoisonError::into_inner)
        .clone_from(&facts);
    facts
}

fn read_machine() -> Vec<Fact> {
    let mut facts = vec![
        text("os.family", "linux"),
        text("arch", std::env::consts::ARCH),
        text("hostname", host_name()),
    ];
    if let Ok(release) = fs::read_to_string("/etc/os-release") {
        let field = |name: &str| {
            release
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .map(|value| value.trim_matches('"').to_owned())
        };
        facts.extend(field("ID").map(|value| text("os.distribution", value)));
        facts.extend(field("VERSION_ID").map(|value| text("os.version", value)));
    }
    if let Ok(name) = nix::sys::utsname::uname() {
        facts.push(text("kernel", name.release().to_string_lossy()));
    }
    if let Some(bytes) = memory("MemTotal") {
        facts.push(integer("memory.total", bytes));
    }
    if let Ok(count) = std::thread::available_parallelism() {
        facts.push(integer("cpu.count", count.get() as u64));
    }
    facts
}

/// Facts as they are now, and what a script's requirements ask about. Those that never stand still are given in steps,
/// rounded down, so that a gate that is asked again about the same machine is asked the same question.
#[must_use]
pub fn live(requires: Option<&Requirements>, workspace: &Path) -> Vec<Fact> {
    let mut facts = of_machine();
    if let Some(bytes) = memory("MemAvailable") {
        facts.push(integer("memory.available", bytes - bytes % STEP));
    }
    if let Some(free) =
        existing_ancestor(workspace).and_then(|path| nix::sys::statvfs::statvfs(path).ok())
    {
        let bytes = free.blocks_available() * free.fragment_size();
        facts.push(integer("disk.free", bytes - bytes % STEP));
    }
    if let Some(load) = fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
    {
        facts.push(Fact {
            key: "load".to_owned(),
            value: FactValue::Decimal((load * 2.0).floor() / 2.0),
        });
    }
    if let Some(uptime) = fs::read_to_string("/proc/uptime")
        .ok()
        .and_then(|text| text.split('.').next()?.parse::<u64>().ok())
    {
        facts.push(integer("uptime", uptime - uptime % 60));
    }
    let Some(requires) = requires else {
        return facts;
    };
    if !requires.commands.is_empty() {
        let found = requires
            .commands
            .iter()
            .filter(|name| command_exists(name))
            .cloned()
            .collect();
        facts.push(Fact {
            key: "commands".to_owned(),
            value: FactValue::Texts(found),
        });
    }
    if let Some(user) = &requires.user {
        let found = nix::unistd::User::from_name(user)
            .ok()
            .flatten()
            .map(|found| found.name);
        facts.push(Fact {
            key: "users".to_owned(),
            value: FactValue::Texts(found.into_iter().collect()),
        });
    }
    facts
}

/// What tells one run of the machine from the next (Linux: proc(5), `random/boot_id`).
#[must_use]
pub fn boot() -> String {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default())
        .clone()
}

/// A fact that is a text.
#[must_use]
pub fn text(key: &str, value: impl Into<String>) -> Fact {
    Fact {
        key: key.to_owned(),
        value: FactValue::Text(value.into()),
    }
}

/// The machine's host name.
#[must_use]
pub fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "machine".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn integer(key: &str, value: u64) -> Fact {
    Fact {
        key: key.to_owned(),
        value: FactValue::Integer(i64::try_from(value).unwrap_or(i64::MAX)),
    }
}

/// A line of /proc/meminfo, in bytes.
fn memory(name: &str) -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()
        .map(|kib| kib << 10)
}

/// Names only: a path from a script's header is not looked at.
fn command_exists(name: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    !name.is_empty()
        && !name.contains(['/', '\0'])
        && SEARCH.iter().any(|folder| {
            fs::metadata(Path::new(folder).join(name))
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

fn existing_ancestor(path: &Path) -> Option<&Path> {
    path.ancestors().find(|path| path.exists())
}
