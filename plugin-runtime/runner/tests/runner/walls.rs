//! A runner that lacks a wall that it must have runs no gate.

use std::thread;

use sluice_gate_client::BindError;
use sluice_gate_client::wire::Ready;
use sluice_guests::Guest;

use crate::domain::{ALONE, domain, try_to_bind};

/// Runs this on a thread whose children get EPERM for a system call, where the first argument is this one if there is one.
fn where_refused<T: Send + 'static>(
    call: libc::c_long,
    argument: Option<i32>,
    attempt: impl Future<Output = T> + Send + 'static,
) -> T {
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule,
    };
    let rules = argument.map(|argument| {
        let argument = u64::from(argument.unsigned_abs());
        let condition =
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, argument);
        SeccompRule::new(vec![condition.expect("is one")]).expect("is one")
    });
    let filter = SeccompFilter::new(
        [(call, Vec::from_iter(rules))].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        std::env::consts::ARCH.try_into().expect("is known"),
    );
    let program: BpfProgram = filter
        .expect("is a filter")
        .try_into()
        .expect("is a program");
    let refused = thread::spawn(move || {
        // Of one thread: it starts the runner itself.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("starts");
        seccompiler::apply_filter(&program).expect("is installed");
        runtime.block_on(attempt)
    });
    refused.join().expect("the attempt ends")
}

/// The walls that stand, or why no gate was bound.
async fn walls() -> Result<Ready, BindError> {
    let (_folder, domain) = domain(0);
    try_to_bind(&domain, &Guest::honest()).await?;
    domain.ready().await.map_err(BindError::Runner)
}

#[test]
fn no_gate_runs_where_a_mandatory_wall_cannot_be_put_up() {
    let _alone = ALONE.blocking_lock();
    let mut calls = vec![
        ("descriptors", libc::SYS_close_range, None),
        ("limits", libc::SYS_prlimit64, None),
        (
            "no_new_privs",
            libc::SYS_prctl,
            Some(libc::PR_SET_NO_NEW_PRIVS),
        ),
        ("not dumpable", libc::SYS_prctl, Some(libc::PR_SET_DUMPABLE)),
        ("seccomp", libc::SYS_seccomp, None),
        ("capabilities, looked at", libc::SYS_capget, None),
    ];
    if nix::unistd::geteuid().is_root() {
        calls.extend([
            ("groups", libc::SYS_setgroups, None),
            ("group", libc::SYS_setresgid, None),
            ("user", libc::SYS_setresuid, None),
            (
                "the bounding set",
                libc::SYS_prctl,
                Some(libc::PR_CAPBSET_DROP),
            ),
        ]);
    } else {
        eprintln!("LEFT OUT: only a runner of root has to give up a user and capabilities");
    }
    for (wall, call, argument) in calls {
        let bound = where_refused(call, argument, walls());
        assert!(
            matches!(bound, Err(BindError::Runner(_))),
            "without {wall}: {bound:?}"
        );
    }
}

#[test]
fn without_a_wall_that_is_not_mandatory_gates_run_and_it_is_not_among_those_that_stand() {
    let _alone = ALONE.blocking_lock();
    let all = where_refused(libc::SYS_reboot, None, walls())
        .expect("runs gates")
        .walls;
    for (wall, call) in [
        ("landlock", libc::SYS_landlock_create_ruleset),
        ("namespaces", libc::SYS_unshare),
    ] {
        if !all.iter().any(|stands| stands == wall) {
            eprintln!("LEFT OUT: this machine has no {wall} for a runner");
            continue;
        }
        let mut left = where_refused(call, None, walls())
            .expect("runs gates")
            .walls;
        left.push(wall.to_owned());
        left.sort_unstable();
        let mut all = all.clone();
        all.sort_unstable();
        assert_eq!(left, all);
    }
}

#[test]
fn a_runner_of_root_without_a_user_to_drop_to_ends_before_it_reads() {
    let _alone = ALONE.blocking_lock();
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("LEFT OUT: needs root");
    }
    for arguments in [
        &["serve"][..],
        &["serve", "0"],
        &["serve", "nobody"],
        &["compile"],
    ] {
        let output = std::process::Command::new(crate::domain::RUNNER)
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("starts");
        assert!(!output.status.success(), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("user"), "{arguments:?}: {said}");
    }
}
