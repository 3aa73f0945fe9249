//! Who gives way to whom for the processors: what nobody waits for, to what somebody does.

use std::sync::OnceLock;

use sluice_shim::spec;

/// How nice a process or thread of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Niceness {
    /// As the agent was when it started.
    Own,
    /// Of what is done ahead, or afterwards.
    Aside,
}

/// Gives a process of ours a niceness. An agent that could not take it back gives none.
#[allow(unsafe_code, reason = "nix has no setpriority")]
pub(crate) fn of_process(id: u32, niceness: Niceness) {
    static OWN: OnceLock<Option<libc::c_int>> = OnceLock::new();
    let own = *OWN.get_or_init(|| {
        may_be_nicer().then(|| {
            // SAFETY: plain integers; 0 is this thread.
            unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
        })
    });
    if let Some(own) = own {
        let niceness = match niceness {
            Niceness::Own => own,
            Niceness::Aside => own.saturating_add(spec::NICE_AHEAD),
        };
        // SAFETY: plain integers. All callers have a process that was alive a moment ago, or mean themselves; should another
        // process have got its id since, that one gets the agent's own niceness or some more, and no harm.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, id, niceness) };
    }
}

/// Does something for which nobody waits, on this thread.
pub(crate) fn aside(work: impl FnOnce()) {
    of_process(THIS_THREAD, Niceness::Aside);
    work();
    of_process(THIS_THREAD, Niceness::Own);
}

/// What setpriority(2) means by it on Linux, where each thread has its own.
const THIS_THREAD: u32 = 0;

/// Whether this process has CAP_SYS_NICE (number 23 in capabilities(7)) in effect.
fn may_be_nicer() -> bool {
    const SYS_NICE: u32 = 23;
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .is_some_and(|effective| effective & (1 << SYS_NICE) != 0)
}
