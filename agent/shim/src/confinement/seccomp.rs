//! The deny-list of system calls. What is refused fails with EPERM, so that a script sees an error and can say so.
//!
//! `clone3` fails with ENOSYS: its flags lie in memory, where a filter does not see them, and the C library then takes
//! `clone`. Calls of another architecture than the shim's (32-bit programs; x32 on `x86_64`) have other numbers, so none of
//! them is let through.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use crate::spec::{Opened, Profile};

/// Refused with any arguments.
const DENIED: &[libc::c_long] = &[
    // another kernel, or code in this one
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    // other processes' memory and descriptors
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // mounts, with which covers could be taken away
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    OPEN_TREE_ATTR,
    // namespaces of others; new ones are below
    libc::SYS_setns,
    // files past their paths
    libc::SYS_open_by_handle_at,
    // what most holes of kernels were reached through
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // the whole machine
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_vhangup,
];
/// Of this architecture alone.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[libc::c_long] = &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_uselib];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[libc::c_long] = &[];
/// libc does not have it for every architecture (`asm-generic/unistd.h`).
#[cfg(target_arch = "x86_64")]
const KEXEC_FILE_LOAD: libc::c_long = libc::SYS_kexec_file_load;
#[cfg(not(target_arch = "x86_64"))]
const KEXEC_FILE_LOAD: libc::c_long = 294;
/// Linux 6.15; libc does not have it. New calls have one number everywhere.
const OPEN_TREE_ATTR: libc::c_long = 467;

/// Flags of `clone` and `unshare` that make a namespace. (A new user's makes its owner root in it.)
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// In `clone` its bit is one of the signal at the end of the child.
const CLONE_NEWTIME: libc::c_int = 0x80;

/// Typing for whoever sits at the terminal: `TIOCSTI`, and pasting by `TIOCLINUX`.
const TYPING: [u64; 2] = [0x5412, 0x541C];

/// How much of TCP is left to Landlock, which then holds all ports but the owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tcp {
    /// Nothing: where the profile is strict there is none, where it is another one all of it.
    Kept,
    /// Connecting to ports.
    Connect,
    /// That, and listening on ports. (`listen` alone would take a port that the kernel picks, and no filter sees whose
    /// socket it is for: where no port may be bound nothing listens, not even for this machine.)
    Listen,
}

impl Tcp {
    pub(super) fn of(profile: Profile, opened: &Opened) -> Self {
        match profile {
            Profile::None | Profile::Standard => Self::Kept,
            Profile::Strict if !opened.tcp_bind.is_empty() => Self::Listen,
            Profile::Strict if !opened.tcp_connect.is_empty() => Self::Connect,
            Profile::Strict => Self::Kept,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SeccompError {
    #[error("the filter of system calls cannot be made: {0}")]
    Compile(#[from] seccompiler::BackendError),
    #[error("the kernel does not take a filter of system calls: {0}")]
    Install(#[from] seccompiler::Error),
}

/// Installs the filter, for this process and all that it starts.
pub(super) fn install(profile: Profile, tcp: Tcp) -> Result<(), SeccompError> {
    seccompiler::apply_filter(&program(profile, tcp)?)?;
    Ok(())
}

fn program(profile: Profile, tcp: Tcp) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules(profile, tcp)?, SeccompAction::Allow, denied, arch)?;
    let rest: BpfProgram = filter.try_into()?;
    // The library's own program kills where the architecture is another; it comes second, and does not get there. Its
    // jumps are relative, so it can be put behind another one.
    let mut program = prologue(arch);
    program.extend(rest);
    Ok(program)
}

fn rules(
    profile: Profile,
    tcp: Tcp,
) -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = DENIED
        .iter()
        .chain(DENIED_HERE)
        .map(|call| (*call, Vec::new()))
        .collect();
    let making = |flags: &[libc::c_int]| {
        flags
            .iter()
            .map(|flag| has(0, u64::from(flag.unsigned_abs())))
            .collect::<Result<Vec<_>, _>>()
    };
    rules.insert(libc::SYS_clone, making(&NAMESPACES)?);
    let mut unsharing = making(&NAMESPACES)?;
    unsharing.extend(making(&[CLONE_NEWTIME])?);
    rules.insert(libc::SYS_unshare, unsharing);
    // Whoever may make files that are devices reads the disk past every path.
    let devices = |argument: u8| {
        [libc::S_IFBLK, libc::S_IFCHR]
            .map(|kind| {
                let operator = SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT));
                all(&[(argument, operator, u64::from(kind))])
            })
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
    };
    rules.insert(libc::SYS_mknodat, devices(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, devices(1)?);
    let typing = TYPING.map(|request| all(&[(1, SeccompCmpOp::Eq, request)]));
    rules.insert(
        libc::SYS_ioctl,
        typing.into_iter().collect::<Result<_, _>>()?,
    );
    if profile == Profile::Strict {
        rules.insert(libc::SYS_socket, sockets(tcp)?);
        if tcp != Tcp::Kept {
            rules.extend(past_landlock(tcp)?);
        }
    }
    Ok(rules)
}

/// Ways of TCP that Landlock does not see.
fn past_landlock(tcp: Tcp) -> Result<Vec<(i64, Vec<SeccompRule>)>, seccompiler::BackendError> {
    /// Connects without `connect`.
    const FAST_OPEN: u64 = libc::MSG_FASTOPEN as u64;
    use SeccompCmpOp::Eq;
    let becomes_another = all(&[
        (1, Eq, libc::IPPROTO_TCP as u64),
        // Makes another kind of socket of it, such as SMC, whose ports nobody asks for.
        (2, Eq, libc::TCP_ULP as u64),
    ])?;
    let mut rules = vec![
        (libc::SYS_sendto, vec![has(3, FAST_OPEN)?]),
        (libc::SYS_sendmsg, vec![has(2, FAST_OPEN)?]),
        (libc::SYS_sendmmsg, vec![has(3, FAST_OPEN)?]),
        (libc::SYS_setsockopt, vec![becomes_another]),
    ];
    if tcp == Tcp::Connect {
        rules.push((libc::SYS_listen, Vec::new()));
    }
    Ok(rules)
}

/// Under strict: sockets of this machine, of netlink, and UDP; where the owner names ports, TCP itself too. Landlock alone
/// would leave MPTCP, SCTP, fast open and listening on a port that the kernel picks.
fn sockets(tcp: Tcp) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    const LOCAL: u64 = libc::AF_UNIX as u64;
    const INTERNET: [u64; 2] = [libc::AF_INET as u64, libc::AF_INET6 as u64];
    const NETLINK: u64 = libc::AF_NETLINK as u64;
    const TCP: u64 = libc::IPPROTO_TCP as u64;
    use SeccompCmpOp::{Eq, Gt, Lt, MaskedEq};
    let mut rules = vec![
        all(&[(0, Gt, LOCAL), (0, Lt, INTERNET[0])])?,
        all(&[(0, Gt, INTERNET[0]), (0, Lt, INTERNET[1])])?,
        all(&[(0, Gt, INTERNET[1]), (0, Lt, NETLINK)])?,
        all(&[(0, Gt, NETLINK)])?,
    ];
    // Of the types 1 to 10 only SOCK_DGRAM, 2, has none of these bits; flags are above them. SOCK_STREAM is 1, SOCK_RAW 3.
    let stream: &[&[(u8, SeccompCmpOp, u64)]] = match tcp {
        Tcp::Kept => &[&[(1, MaskedEq(1), 1)]],
        Tcp::Connect | Tcp::Listen => &[
            &[(1, MaskedEq(3), 3)],
            &[(1, MaskedEq(1), 1), (2, Gt, 0), (2, Lt, TCP)],
            &[(1, MaskedEq(1), 1), (2, Gt, TCP)],
        ],
    };
    for family in INTERNET {
        for bit in [4, 8] {
            rules.push(all(&[(0, Eq, family), (1, MaskedEq(bit), bit)])?);
        }
        for conditions in stream {
            let family = [(0, Eq, family)].into_iter();
            rules.push(all(&family
                .chain(conditions.iter().cloned())
                .collect::<Vec<_>>())?);
        }
    }
    Ok(rules)
}

/// A rule for one argument: all of these bits are set.
fn has(argument: u8, bits: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    all(&[(argument, SeccompCmpOp::MaskedEq(bits), bits)])
}

/// A rule for several arguments. The lower half of each is compared, as the kernel takes no more of these; a comparison of
/// all of it is passed by with a bit in the upper half (CVE-2019-10063).
fn all(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = conditions.iter().map(|(argument, operator, value)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

/// Refuses foreign architectures, x32 and `clone3`, and leaves the rest to what comes behind it.
fn prologue(arch: TargetArch) -> BpfProgram {
    /// Offsets in `struct seccomp_data`.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// `__X32_SYSCALL_BIT`; no native call has so high a number anywhere.
    const X32: u32 = 0x4000_0000;
    /// `linux/audit.h`: 64 bits, the least significant byte first.
    const LITTLE_64: u32 = 0xC000_0000;
    let own = match arch {
        TargetArch::x86_64 => LITTLE_64 | u32::from(libc::EM_X86_64),
        TargetArch::aarch64 => LITTLE_64 | u32::from(libc::EM_AARCH64),
        TargetArch::riscv64 => LITTLE_64 | u32::from(libc::EM_RISCV),
    };
    let errno = |number: libc::c_int| libc::SECCOMP_RET_ERRNO | number.unsigned_abs();
    let step = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    let clone3 = u32::try_from(libc::SYS_clone3).unwrap_or(u32::MAX);
    vec![
        step(LOAD, ARCHITECTURE, 0, 0),
        step(EQUAL, own, 1, 0),
        step(RETURN, errno(libc::EPERM), 0, 0),
        step(LOAD, NUMBER, 0, 0),
        step(AT_LEAST, X32, 1, 0),
        step(EQUAL, clone3, 0, 1),
        step(RETURN, errno(libc::ENOSYS), 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const NATIVE: u32 = 0xC000_0000;

    /// What the kernel would make of a call (`linux/seccomp.h`, the instructions that filters here are made of).
    fn answer<const COUNT: usize>(
        profile: Profile,
        arch: u32,
        number: u32,
        arguments: [u64; COUNT],
    ) -> u32 {
        answer_of(
            &program(profile, Tcp::Kept).unwrap(),
            arch,
            number,
            arguments,
        )
    }

    /// The same of any program.
    fn answer_of<const COUNT: usize>(
        program: &BpfProgram,
        arch: u32,
        number: u32,
        arguments: [u64; COUNT],
    ) -> u32 {
        let mut data = [0_u32; 16];
        (data[0], data[1]) = (number, arch);
        for (index, argument) in arguments.into_iter().enumerate() {
            data[4 + 2 * index] = u32::try_from(argument & 0xFFFF_FFFF).unwrap();
            data[5 + 2 * index] = u32::try_from(argument >> 32).unwrap();
        }
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = &program[at];
            let jump = |holds| usize::from(if holds { step.jt } else { step.jf });
            at += 1 + match u32::from(step.code) {
                0x20 => {
                    accumulator = data[usize::try_from(step.k).unwrap() / 4];
                    0
                }
                0x54 => {
                    accumulator &= step.k;
                    0
                }
                0x05 => usize::try_from(step.k).unwrap(),
                0x15 => jump(accumulator == step.k),
                0x25 => jump(accumulator > step.k),
                0x35 => jump(accumulator >= step.k),
                0x06 => return step.k,
                other => panic!("the instruction {other:#x} is not known here"),
            };
        }
    }

    fn own() -> u32 {
        let machine = match std::env::consts::ARCH {
            "x86_64" => libc::EM_X86_64,
            "aarch64" => libc::EM_AARCH64,
            _ => libc::EM_RISCV,
        };
        NATIVE | u32::from(machine)
    }

    fn number(call: libc::c_long) -> u32 {
        u32::try_from(call).unwrap()
    }

    fn refused(errno: libc::c_int) -> u32 {
        libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()
    }

    #[test]
    fn calls_of_another_architecture_are_refused_and_nobody_is_killed() {
        for profile in [Profile::Standard, Profile::Strict] {
            // i386, ARM, and a number that is nobody's; 20 is a call that does no harm.
            for arch in [0x4000_0003, 0x4000_0028, 1] {
                let found = answer(profile, arch, 20, [0, 0]);
                assert_eq!(found, refused(libc::EPERM), "{arch:#x}");
            }
            for call in [libc::SYS_mount, libc::SYS_getpid] {
                let found = answer(profile, own(), number(call) | 0x4000_0000, [0, 0]);
                assert_eq!(found, refused(libc::ENOSYS), "x32: {call}");
            }
            let every = DENIED.iter().chain(DENIED_HERE);
            for call in every {
                let found = answer(profile, own(), number(*call), [u64::MAX; 2]);
                assert_eq!(found, refused(libc::EPERM), "{call}");
            }
        }
    }

    #[test]
    fn files_that_are_devices_are_not_made_and_pipes_are() {
        for profile in [Profile::Standard, Profile::Strict] {
            for (kind, expected) in [
                (libc::S_IFBLK, refused(libc::EPERM)),
                (libc::S_IFCHR, refused(libc::EPERM)),
                (libc::S_IFIFO, ALLOW),
                (libc::S_IFREG, ALLOW),
            ] {
                let mode = u64::from(kind | 0o600);
                let made = answer(profile, own(), number(libc::SYS_mknodat), [0, 0, mode]);
                assert_eq!(made, expected, "{kind:o}");
                #[cfg(target_arch = "x86_64")]
                {
                    let made = answer(profile, own(), number(libc::SYS_mknod), [0, mode]);
                    assert_eq!(made, expected, "{kind:o}");
                }
            }
        }
    }

    #[test]
    fn what_ordinary_programs_do_is_let_through() {
        let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND).unsigned_abs();
        let forked = libc::SIGCHLD.unsigned_abs();
        let terminal = libc::TCGETS;
        let calls = [
            (libc::SYS_read, 0),
            (libc::SYS_openat, 0),
            (libc::SYS_execve, 0),
            (libc::SYS_kill, 0),
            (libc::SYS_prctl, 0),
            (libc::SYS_seccomp, 0),
            (libc::SYS_socket, 1),
            (libc::SYS_clone, u64::from(thread)),
            (libc::SYS_clone, u64::from(forked)),
            (libc::SYS_unshare, u64::from(libc::CLONE_FS.unsigned_abs())),
        ];
        for profile in [Profile::Standard, Profile::Strict] {
            for (call, argument) in calls {
                let found = answer(profile, own(), number(call), [argument, 0]);
                assert_eq!(found, ALLOW, "{call}");
            }
            let found = answer(profile, own(), number(libc::SYS_ioctl), [0, terminal]);
            assert_eq!(found, ALLOW);
        }
    }

    #[test]
    fn a_bit_that_the_kernel_does_not_look_at_passes_nothing_by() {
        let standard = |call, arguments| answer(Profile::Standard, own(), number(call), arguments);
        for high in [0, 1 << 32] {
            for flag in NAMESPACES.map(|flag| u64::from(flag.unsigned_abs())) {
                for call in [libc::SYS_clone, libc::SYS_unshare] {
                    assert_eq!(standard(call, [flag | high, 0]), refused(libc::EPERM));
                }
            }
            for request in TYPING {
                let found = standard(libc::SYS_ioctl, [0, request | high]);
                assert_eq!(found, refused(libc::EPERM));
            }
        }
        let clone3 = standard(libc::SYS_clone3, [0, 0]);
        assert_eq!(clone3, refused(libc::ENOSYS));
    }

    #[test]
    fn strict_leaves_sockets_of_this_machine_and_udp() {
        const MORE: u64 = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64;
        for family in 1..=50_u64 {
            for kind in 1..=10_u64 {
                let allowed = match family {
                    1 | 16 => true,
                    2 | 10 => kind == 2,
                    _ => false,
                };
                for flags in [0, MORE, 1 << 32] {
                    let arguments = [family, kind | flags];
                    let found = answer(Profile::Strict, own(), number(libc::SYS_socket), arguments);
                    assert_eq!(found == ALLOW, allowed, "{family} {kind}");
                    let found = answer(
                        Profile::Standard,
                        own(),
                        number(libc::SYS_socket),
                        arguments,
                    );
                    assert_eq!(found, ALLOW);
                }
            }
        }
    }

    #[test]
    fn where_ports_are_let_through_every_way_of_tcp_that_landlock_does_not_see_is_refused() {
        const TCP: u64 = libc::IPPROTO_TCP as u64;
        const FAST_OPEN: u64 = libc::MSG_FASTOPEN as u64;
        const ULP: u64 = libc::TCP_ULP as u64;
        for (tcp, listens) in [(Tcp::Connect, false), (Tcp::Listen, true)] {
            let program = program(Profile::Strict, tcp).unwrap();
            let let_through = |call, arguments: [u64; 4]| {
                let answer = answer_of(&program, own(), number(call), arguments);
                assert!(answer == ALLOW || answer == refused(libc::EPERM));
                answer == ALLOW
            };
            for family in 1..=50_u64 {
                for kind in 1..=10_u64 {
                    // 132: SCTP, 136: UDP-Lite, 256: SMC, 262: MPTCP.
                    for protocol in [0, 1, 5, TCP, 7, 17, 132, 136, 255, 256, 262, 0xFFFF_FFFF] {
                        let allowed = match (family, kind) {
                            (1 | 16, _) | (2 | 10, 2) => true,
                            (2 | 10, 1) => protocol == 0 || protocol == TCP,
                            _ => false,
                        };
                        let flags = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).unsigned_abs();
                        for kind in [kind, kind | u64::from(flags)] {
                            let found = let_through(libc::SYS_socket, [family, kind, protocol, 0]);
                            assert_eq!(found, allowed, "{family} {kind} {protocol}");
                        }
                    }
                }
            }
            assert!(!let_through(libc::SYS_sendto, [3, 0, 0, FAST_OPEN | 1]));
            assert!(!let_through(libc::SYS_sendmsg, [3, 0, FAST_OPEN, 0]));
            assert!(!let_through(libc::SYS_sendmmsg, [3, 0, 1, FAST_OPEN]));
            assert!(!let_through(libc::SYS_setsockopt, [3, TCP, ULP, 0]));
            assert_eq!(let_through(libc::SYS_listen, [3, 1, 0, 0]), listens);
            let nothing = u64::from(libc::MSG_NOSIGNAL.unsigned_abs());
            assert!(let_through(libc::SYS_sendto, [3, 0, 0, nothing]));
            assert!(let_through(libc::SYS_sendmsg, [3, 0, nothing, FAST_OPEN]));
            assert!(let_through(libc::SYS_setsockopt, [3, 1, ULP, 0]));
            assert!(let_through(libc::SYS_setsockopt, [3, TCP, 1, 0]));
        }
    }

    #[test]
    fn ports_are_let_through_by_strict_alone() {
        let ports = |connect: &[u16], bind: &[u16]| {
            let port = |port: &u16| (*port).try_into().unwrap();
            Opened {
                tcp_connect: connect.iter().map(port).collect(),
                tcp_bind: bind.iter().map(port).collect(),
                ..Opened::default()
            }
        };
        for (opened, strict) in [
            (ports(&[], &[]), Tcp::Kept),
            (ports(&[443], &[]), Tcp::Connect),
            (ports(&[], &[8080]), Tcp::Listen),
            (ports(&[443], &[8080]), Tcp::Listen),
        ] {
            assert_eq!(Tcp::of(Profile::Strict, &opened), strict);
            assert_eq!(Tcp::of(Profile::Standard, &opened), Tcp::Kept);
        }
    }
}
