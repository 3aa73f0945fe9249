//! The allow-list of system calls: memory, threads, time, and reading and writing what is open. Nothing that opens,
//! connects, starts, signals another process, or looks at one.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::WallError;

/// Calls that are allowed with any arguments.
const ALLOWED: &[libc::c_long] = &[
    // the socket and stderr
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_ppoll,
    // memory; images of instances are memory files
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fcntl,
    // threads and time
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_membarrier,
    // signals to itself: guests trap through SIGSEGV, SIGILL and SIGFPE
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Installs the filter. Everything else fails with EPERM, and `clone3` with ENOSYS, so that the C library starts threads
/// with `clone`, whose flags a filter can see.
pub(super) fn install() -> Result<(), WallError> {
    let failed = |error: &dyn std::fmt::Display| WallError::Seccomp(error.to_string());
    let arch: TargetArch = std::env::consts::ARCH
        .try_into()
        .map_err(|error: seccompiler::BackendError| failed(&error))?;

    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let thread = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;
    let flags = u64::from(thread.unsigned_abs());
    rules.insert(
        libc::SYS_clone,
        vec![when(0, SeccompCmpOp::MaskedEq(flags), flags)?],
    );
    // answered with ENOSYS by the filter below
    rules.insert(libc::SYS_clone3, Vec::new());
    // abort() signals its own thread
    rules.insert(
        libc::SYS_tgkill,
        vec![when(0, SeccompCmpOp::Eq, u64::from(std::process::id()))?],
    );
    // names of threads and of memory areas
    rules.insert(
        libc::SYS_prctl,
        vec![
            when(
                0,
                SeccompCmpOp::Eq,
                u64::from(libc::PR_SET_NAME.unsigned_abs()),
            )?,
            when(
                0,
                SeccompCmpOp::Eq,
                u64::from(libc::PR_SET_VMA.unsigned_abs()),
            )?,
        ],
    );
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, arch)
        .map_err(|error| failed(&error))?;
    let program: BpfProgram = filter
        .try_into()
        .map_err(|error: seccompiler::BackendError| failed(&error))?;

    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let no_such_call = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let first = SeccompFilter::new(clone3, SeccompAction::Allow, no_such_call, arch)
        .map_err(|error| failed(&error))?;
    let first: BpfProgram = first
        .try_into()
        .map_err(|error: seccompiler::BackendError| failed(&error))?;

    // Of two filters the more restrictive answer counts: the first one's ENOSYS, where the second one allows clone3.
    seccompiler::apply_filter_all_threads(&first).map_err(|error| failed(&error))?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| failed(&error))?;
    Ok(())
}

fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, WallError> {
    let failed = |error: seccompiler::BackendError| WallError::Seccomp(error.to_string());
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)
        .map_err(failed)?;
    SeccompRule::new(vec![condition]).map_err(failed)
}
