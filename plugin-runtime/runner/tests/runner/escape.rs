//! Whoever got out of a guest, played in the real runner with all of its walls.
//!
//! A gate is compiled as always, and one of its functions is overwritten with machine code that calls the kernel. The runner
//! loads what its parent gives it (the parent's MAC is what keeps others from giving it such a thing, and not at issue here),
//! so that in the end native code of an attacker's choice runs in a thread of the runner, as after an escape from the sandbox.

use std::collections::BTreeSet;
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sluice_gate_client::memory_file::MemoryFile;
use sluice_gate_client::wire::{self, Encoded, FromRunner, Load, Request, Response, ToRunner};
use sluice_gate_types::answer::Answer;
use sluice_gate_types::contract::Contract;
use sluice_gate_types::input::Question;
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::World;
use sluice_guests::Guest;
use sluice_plugin_runtime::engine::{Allocation, Effort, GateEngine};

use crate::domain::{ALONE, RUNNER};

/// Four numbers come in RDX, RCX, R8 and R9, behind two pointers of the runtime, as in the convention of System V. They
/// become a system call with three arguments; the others are 0.
const SYSTEM_CALL: &[u8] = &[
    0x48, 0x89, 0xd0, // mov rax, rdx
    0x48, 0x89, 0xcf, // mov rdi, rcx
    0x4c, 0x89, 0xc6, // mov rsi, r8
    0x4c, 0x89, 0xca, // mov rdx, r9
    0x4d, 0x31, 0xd2, // xor r10, r10
    0x4d, 0x31, 0xc0, // xor r8, r8
    0x4d, 0x31, 0xc9, // xor r9, r9
    0x0f, 0x05, // syscall
    0xc3, // ret
];

/// What a 32-bit program does, whose calls have other numbers: getpid.
const OTHER_DOOR: &[u8] = &[
    0xb8, 0x14, 0x00, 0x00, 0x00, // mov eax, 20
    0xcd, 0x80, // int 0x80
    0xc3, // ret
];

/// How every function begins: push rbp; mov rbp, rsp.
const PROLOGUE: &[u8] = &[0x55, 0x48, 0x89, 0xe5];

/// A number that stands nowhere but in the function to overwrite.
const MARK: i64 = 0x51ce_0ff1_ce5e_a1ed;

/// An attempt: the number of a system call, and what it is called with.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    number: i64,
    arguments: [i64; 3],
}

const fn attempt(number: libc::c_long, arguments: [i64; 3]) -> Attempt {
    Attempt { number, arguments }
}

/// A gate with one finding for each attempt: its span is from the number of the call to what came of it.
fn guest(attempts: &[Attempt]) -> Vec<u8> {
    let calls: String = attempts
        .iter()
        .enumerate()
        .map(|(index, attempt)| {
            let [first, second, third] = attempt.arguments;
            let (at, number) = (65_536 + 88 * index, attempt.number);
            format!(
                "(memory.copy (i32.const {at}) (i32.const 2048) (i32.const 88))
                 (i64.store (i32.const {}) (i64.const {number}))
                 (i64.store (i32.const {}) (call_indirect (type $call)
                   (i64.const {number}) (i64.const {first}) (i64.const {second}) (i64.const {third}) (i32.const 0)))\n",
                at + 32,
                at + 40,
            )
        })
        .collect();
    let forms = format!(
        "(type $call (func (param i64 i64 i64 i64) (result i64)))
         (table $table 1 funcref)
         (elem $calls (i32.const 0) func $native)
         (func $native (type $call)
           (i64.add (i64.mul (local.get 0) (i64.const {MARK}))
             (i64.mul (i64.mul (local.get 1) (local.get 2)) (local.get 3))))
         (func $scan (param $bundle i32) (result i32)
           (if (i32.eq (memory.grow (i32.const 2)) (i32.const -1)) (then (unreachable)))
           (call $find (local.get $bundle))
           {calls}
           (i32.store (i32.const 516) (i32.const 65536))
           (i32.store (i32.const 520) (i32.const {}))
           (i32.const 512))",
        attempts.len()
    );
    Guest::honest().saying(&forms).build()
}

/// Where these bytes stand, from the front.
fn find(bytes: &[u8], what: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(what.len()).enumerate();
    windows
        .filter(|(_, window)| *window == what)
        .map(|(at, _)| at)
        .collect()
}

/// The compiled gate, with other machine code in the place of its marked function.
fn with_native_code(component: &[u8], code: &[u8]) -> Vec<u8> {
    let engine = GateEngine::new(Allocation::OnDemand, Effort::Full).expect("starts");
    let mut artifact = engine.compile(component).expect("compiles");
    let marks = find(&artifact, &MARK.to_le_bytes());
    let [mark] = marks[..] else {
        panic!("the mark stands {} times in the code", marks.len());
    };
    let starts = find(&artifact[..mark], PROLOGUE);
    let start = *starts.last().expect("a function begins before the mark");
    assert!(mark - start < 400, "the function begins somewhere else");
    artifact[start..start + code.len()].copy_from_slice(code);
    artifact
}

/// A serving runner, asked by hand.
struct Runner {
    child: Child,
    socket: UnixStream,
}

impl Runner {
    fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().expect("makes");
        ours.set_read_timeout(Some(Duration::from_secs(60)))
            .expect("sets");
        let mut command = Command::new(RUNNER);
        command
            .arg("serve")
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null());
        if nix::unistd::geteuid().is_root() {
            command.arg("61190");
        }
        let mut runner = Self {
            child: command.spawn().expect("starts"),
            socket: ours,
        };
        assert!(matches!(runner.receive(), Some(Response::Ready(_))));
        runner
    }

    /// The next answer, or none where the runner is gone.
    fn receive(&mut self) -> Option<Response> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).ok()?;
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        self.socket.read_exact(&mut bytes).expect("is a frame");
        let answer: FromRunner = ciborium::from_reader(bytes.as_slice()).expect("is an answer");
        Some(answer.response)
    }

    fn load(&mut self, artifact: &[u8]) {
        let load = Load {
            gate: 1,
            contract: Contract::V0_1,
            world: World::ScannerPlugin,
            limits: CallLimits::DEFAULT,
            configure: None,
        };
        let mut frame = Vec::new();
        let request = Request::Load(Box::new(load));
        wire::write(&mut frame, &ToRunner { id: 1, request }).expect("encodes");
        let file = MemoryFile::holding(artifact).expect("makes");
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let files = [file.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        let sent = sendmsg(
            &self.socket,
            &[IoSlice::new(&frame)],
            &mut control,
            SendFlags::empty(),
        );
        assert_eq!(sent.expect("sends"), frame.len());
        let Some(Response::Loaded(loaded)) = self.receive() else {
            panic!("the runner does not load");
        };
        loaded.expect("is loaded");
    }

    fn call(&mut self) -> Option<Response> {
        let question = sluice_guests::question(":\n");
        let request = Request::Call {
            gate: 1,
            question: question_bytes(&question),
        };
        let mut frame = Vec::new();
        wire::write(&mut frame, &ToRunner { id: 2, request }).expect("encodes");
        self.socket.write_all(&frame).expect("sends");
        self.receive()
    }

    /// What came of each attempt, as the kernel says it: an error is a negative number.
    fn attempts(&mut self, attempts: &[Attempt]) -> Vec<i64> {
        self.load(&with_native_code(&guest(attempts), SYSTEM_CALL));
        let Some(Response::Called(called)) = self.call() else {
            panic!("the runner is gone");
        };
        let Ok(Answer::Findings(findings)) = called.answer else {
            panic!("{:?}", called.answer);
        };
        let spans = findings.iter().zip(attempts).map(|(finding, attempt)| {
            let span = finding.primary.expect("has one");
            assert_eq!(span.start.cast_signed(), attempt.number);
            span.end.cast_signed()
        });
        spans.collect()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn question_bytes(question: &Question) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(question, &mut bytes).expect("encodes");
    assert!(Encoded::read(&bytes).is_ok());
    bytes
}

/// Calls that the runner may make, whatever their arguments: all others are tried below. Who adds one thinks of what whoever
/// got out of a guest could do with it.
const MAY: &[libc::c_long] = &[
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
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
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
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_memfd_create,
];

/// Calls of a kernel's own code in traced programs, which newer kernels answer before any filter is asked. They do nothing
/// where none has been put: `seccomp_uprobe_exception` in the kernel's `kernel/seccomp.c`.
const OF_THE_KERNEL: [libc::c_long; 2] = [335, 336];

/// Numbers of calls that are made with the instructions of a 64-bit program whose pointers have 32 bits.
const X32: i64 = 0x4000_0000;

#[test]
fn whoever_got_out_of_a_guest_makes_no_call_but_those_on_the_list() {
    let _alone = ALONE.blocking_lock();
    let may: BTreeSet<_> = MAY.iter().copied().collect();
    // Every number that a kernel of today knows, and some that it does not.
    let attempts: Vec<Attempt> = (0..600)
        .filter(|number| !may.contains(number) && !OF_THE_KERNEL.contains(number))
        .chain([X32 | libc::SYS_open, X32 | libc::SYS_kill, X32 | 520, -1])
        .map(|number| attempt(number, [0, 0, 0]))
        .collect();
    let mut runner = Runner::start();
    for (attempt, result) in attempts.iter().zip(runner.attempts(&attempts)) {
        let error = if attempt.number == libc::SYS_clone3 {
            libc::ENOSYS
        } else {
            libc::EPERM
        };
        assert_eq!(result, -i64::from(error), "{attempt:?}");
    }
}

#[test]
fn whoever_got_out_of_a_guest_opens_connects_starts_signals_and_traces_nothing() {
    let _alone = ALONE.blocking_lock();
    let parent = i64::from(std::process::id());
    let thread = i64::from(libc::SIGCHLD);
    let denied = [
        attempt(libc::SYS_open, [0, i64::from(libc::O_RDONLY), 0]),
        attempt(libc::SYS_openat, [i64::from(libc::AT_FDCWD), 0, 0]),
        attempt(
            libc::SYS_socket,
            [i64::from(libc::AF_INET), i64::from(libc::SOCK_STREAM), 0],
        ),
        attempt(
            libc::SYS_socket,
            [i64::from(libc::AF_UNIX), i64::from(libc::SOCK_STREAM), 0],
        ),
        attempt(libc::SYS_connect, [0, 0, 16]),
        attempt(libc::SYS_sendmsg, [0, 0, 0]),
        attempt(libc::SYS_execve, [0, 0, 0]),
        attempt(libc::SYS_execveat, [0, 0, 0]),
        attempt(libc::SYS_fork, [0, 0, 0]),
        attempt(libc::SYS_clone, [thread, 0, 0]),
        attempt(
            libc::SYS_clone,
            [i64::from(libc::CLONE_NEWUSER) | thread, 0, 0],
        ),
        // Signal 0 would only ask whether it may.
        attempt(libc::SYS_kill, [parent, 0, 0]),
        attempt(libc::SYS_kill, [-1, 0, 0]),
        attempt(libc::SYS_tgkill, [parent, parent, 0]),
        attempt(libc::SYS_tkill, [parent, 0, 0]),
        attempt(libc::SYS_pidfd_open, [parent, 0, 0]),
        attempt(libc::SYS_ptrace, [i64::from(libc::PTRACE_SEIZE), parent, 0]),
        attempt(libc::SYS_process_vm_readv, [parent, 0, 0]),
        attempt(libc::SYS_setresuid, [0, 0, 0]),
        attempt(libc::SYS_unshare, [i64::from(libc::CLONE_NEWUSER), 0, 0]),
        attempt(libc::SYS_mount, [0, 0, 0]),
        attempt(libc::SYS_prlimit64, [0, 0, 0]),
        attempt(libc::SYS_fcntl, [0, i64::from(libc::F_SETOWN), parent]),
        attempt(libc::SYS_fcntl, [0, i64::from(libc::F_SETFL), 0]),
        attempt(libc::SYS_prctl, [i64::from(libc::PR_SET_DUMPABLE), 1, 0]),
        attempt(
            libc::SYS_prctl,
            [i64::from(libc::PR_SET_PTRACER), parent, 0],
        ),
        attempt(libc::SYS_ftruncate, [0, 0, 0]),
        attempt(libc::SYS_io_uring_setup, [1, 0, 0]),
        attempt(libc::SYS_bpf, [0, 0, 0]),
        attempt(libc::SYS_userfaultfd, [0, 0, 0]),
        attempt(libc::SYS_keyctl, [0, 0, 0]),
    ];
    let own = attempt(libc::SYS_getpid, [0, 0, 0]);
    let attempts: Vec<_> = std::iter::once(own).chain(denied).collect();
    let mut runner = Runner::start();
    let results = runner.attempts(&attempts);
    assert_eq!(
        results[0],
        i64::from(runner.child.id()),
        "the machine code does not call the kernel as it should"
    );
    for (attempt, result) in attempts.iter().zip(results).skip(1) {
        assert_eq!(result, -i64::from(libc::EPERM), "{attempt:?}");
    }
    // It has come to no harm by that.
    assert!(matches!(runner.call(), Some(Response::Called(_))));
}

#[test]
fn whoever_calls_the_kernel_as_a_32_bit_program_is_ended() {
    let _alone = ALONE.blocking_lock();
    let mut runner = Runner::start();
    let attempts = [attempt(0, [0, 0, 0])];
    runner.load(&with_native_code(&guest(&attempts), OTHER_DOOR));
    match runner.call() {
        None => {}
        Some(Response::Called(called)) if called.answer.is_err() => {
            return eprintln!("LEFT OUT: this kernel runs no 32-bit programs");
        }
        other => panic!("it goes on: {other:?}"),
    }
    let status = runner.child.wait().expect("ends");
    assert!(!status.success(), "{status:?}");
}

#[test]
fn nobody_looks_into_a_runner_but_root() {
    let _alone = ALONE.blocking_lock();
    let runner = Runner::start();
    let memory = format!("/proc/{}/mem", runner.child.id());
    // What is not dumpable belongs to root in there, whoever runs it: proc_pid(5).
    let owner = std::fs::metadata(memory).expect("is there").uid();
    assert_eq!(owner, 0);
}
