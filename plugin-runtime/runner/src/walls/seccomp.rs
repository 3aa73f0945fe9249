//! The allow-list of system calls: memory, threads, time, and reading and writing what is open. Nothing that opens,
//! connects, starts, signals another process, or looks at one; and nothing that hands a descriptor to the parent.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::WallError;

/// Calls that are allowed with any arguments.
const ALLOWED: &[libc::c_long] = &[
    // the socket, stderr, and the memory files that the parent sends; answers bring none along: there is no sendmsg
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_ppoll,
    // memory
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
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

/// Commands of fcntl: flags of own descriptors, copies, and seals of memory files.
const FCNTL: [libc::c_int; 6] = [
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GET_SEALS,
    libc::F_ADD_SEALS,
];

/// What serving needs on top: images of instances are memory files that wasmtime makes.
pub(super) const IMAGES: &[libc::c_long] = &[libc::SYS_memfd_create];

/// Installs the filter. Everything that is neither in [`ALLOWED`] nor in `more` fails with EPERM, and `clone3` with ENOSYS,
/// so that the C library starts threads with `clone`, whose flags a filter can see.
pub(super) fn install(more: &[libc::c_long]) -> Result<(), WallError> {
    for program in programs(more)? {
        seccompiler::apply_filter_all_threads(&program)
            .map_err(|error| WallError::Seccomp(error.to_string()))?;
    }
    Ok(())
}

/// The filters, in the order that they are installed in.
fn programs(more: &[libc::c_long]) -> Result<[BpfProgram; 2], WallError> {
    let failed = |error: &dyn std::fmt::Display| WallError::Seccomp(error.to_string());
    let arch: TargetArch = std::env::consts::ARCH
        .try_into()
        .map_err(|error: seccompiler::BackendError| failed(&error))?;

    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
        .iter()
        .chain(more)
        .map(|call| (*call, Vec::new()))
        .collect();
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
    // Nothing that makes the kernel signal somebody (F_SETOWN, F_SETSIG), or changes what the parent has open too (F_SETFL).
    let commands =
        FCNTL.map(|command| when(1, SeccompCmpOp::Eq, u64::from(command.unsigned_abs())));
    rules.insert(
        libc::SYS_fcntl,
        commands.into_iter().collect::<Result<_, _>>()?,
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
    Ok([first, program])
}

fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, WallError> {
    let failed = |error: seccompiler::BackendError| WallError::Seccomp(error.to_string());
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)
        .map_err(failed)?;
    SeccompRule::new(vec![condition]).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{IoSlice, Write as _};
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::os::unix::fs::FileExt as _;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::io::Errno;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use sluice_gate_client::memory_file::{MemoryFile, Space};
    use sluice_gate_client::passing;
    use sluice_gate_client::wire::{self, CompileRequest};

    use super::*;

    /// What comes of an attempt behind the filter. It holds for the thread of the attempt alone.
    fn behind<T: Send + 'static>(
        more: &'static [libc::c_long],
        attempt: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let walled = thread::spawn(move || {
            for program in programs(more).expect("can be built") {
                seccompiler::apply_filter(&program).expect("can be installed");
            }
            attempt()
        });
        walled.join().expect("the attempt ends")
    }

    fn send_files(socket: &UnixStream, bytes: &[u8], files: &[OwnedFd]) -> Result<usize, Errno> {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::empty(),
        )
    }

    fn memory_file() -> Result<File, Errno> {
        memfd_create("x", MemfdFlags::ALLOW_SEALING).map(File::from)
    }

    #[test]
    fn who_gets_out_of_a_guest_sends_no_descriptor_and_opens_nothing() {
        for more in [IMAGES, &[]] {
            let (socket, _parents) = UnixStream::pair().expect("makes");
            let sent = behind(more, move || {
                let stderr = std::io::stderr().as_fd().try_clone_to_owned();
                send_files(&socket, b"x", &[stderr.expect("is open")])
            });
            assert_eq!(sent, Err(Errno::PERM));
            let opened = behind(more, || {
                File::open("/dev/null").map_err(|e| e.raw_os_error())
            });
            assert_eq!(opened.err(), Some(Some(libc::EPERM)));
            let connected = behind(more, || UnixStream::pair().map_err(|e| e.raw_os_error()));
            assert_eq!(connected.err(), Some(Some(libc::EPERM)));
        }
    }

    #[test]
    fn who_gets_out_of_the_compiler_makes_no_memory_file() {
        assert_eq!(behind(&[], memory_file).err(), Some(Errno::PERM));
        // Images of instances are made, and no longer than what is written into them.
        let made = behind(IMAGES, || memory_file().map(|file| file.set_len(1 << 30)));
        let longer = made.expect("is made").map_err(|error| error.raw_os_error());
        assert_eq!(longer, Err(Some(libc::EPERM)));
    }

    #[test]
    fn behind_the_filter_files_come_in_and_answers_go_out() {
        let component = MemoryFile::holding(b"a component").expect("makes");
        let answer = memory_file().expect("makes");
        let (parent, runner) = UnixStream::pair().expect("makes");
        let mut frame = Vec::new();
        wire::write(&mut frame, &CompileRequest::Compile).expect("encodes");
        let files = [component.as_fd(), answer.as_fd()].map(|file| file.try_clone_to_owned());
        send_files(&parent, &frame, &files.map(|file| file.expect("clones"))).expect("sends");
        let length = behind(&[], move || {
            let mut socket = runner;
            let (_, files) = passing::receive::<CompileRequest>(&socket)?.expect("is there");
            let [component, space] = passing::files(files)?;
            let bytes = MemoryFile::received(component)?.to_vec()?;
            socket.write_all(b"done")?;
            Space::received(space).fill(&bytes)
        });
        assert_eq!(length.expect("is written"), 11);
        let mut written = [0; 11];
        answer.read_exact_at(&mut written, 0).expect("reads");
        assert_eq!(&written, b"a component");
    }
}
