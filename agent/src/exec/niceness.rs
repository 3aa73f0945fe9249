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
pub(crate) fn of_process(id: u32, niceness: Niceness) {
    static OWN: OnceLock<Option<libc::c_int>> = OnceLock::new();
    let own = *OWN.get_or_init(|| Some(own()).filter(|own| may_be_nicer(*own)));
    if let Some(own) = own {
        let niceness = match niceness {
            Niceness::Own => own,
            Niceness::Aside => own.saturating_add(spec::NICE_AHEAD),
        };
        // One that has ended needs none.
        let _is_there = set(id, niceness);
    }
}

#[allow(unsafe_code, reason = "nix has no getpriority")]
fn own() -> libc::c_int {
    // SAFETY: plain integers; 0 is this thread.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Does something for which nobody waits, on this thread.
pub(crate) fn aside(work: impl FnOnce()) {
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            of_process(THIS_THREAD, Niceness::Own);
        }
    }
    of_process(THIS_THREAD, Niceness::Aside);
    let _again = Again;
    work();
}

/// What setpriority(2) means by it on Linux, where each thread has its own.
const THIS_THREAD: u32 = 0;

/// Whether niceness can be taken back, here and by the shims. In a user namespace a process has every capability and may not
/// (sched_setscheduler asks for CAP_SYS_NICE in the first one), so it is tried on a thread that ends; who has the capability
/// by a file, and is not root, does not hand it on.
fn may_be_nicer(own: libc::c_int) -> bool {
    let tried = std::thread::Builder::new()
        .spawn(move || set(THIS_THREAD, own.saturating_add(1)) && set(THIS_THREAD, own));
    nix::unistd::Uid::effective().is_root()
        && tried.is_ok_and(|thread| thread.join().is_ok_and(|may| may))
}

#[allow(unsafe_code, reason = "nix has no setpriority")]
fn set(id: u32, niceness: libc::c_int) -> bool {
    // SAFETY: plain integers. All callers have a process that was alive a moment ago, or mean themselves; should another
    // process have got its id since, that one gets the agent's own niceness or some more, and no harm.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, id, niceness) == 0 }
}
