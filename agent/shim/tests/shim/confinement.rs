//! What a script does not reach: under a profile, and as root.

use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use seccompiler::{SeccompAction, SeccompFilter};
use sluice_shim::event::Stage;
use sluice_shim::spec::{Profile, Spec};

use crate::harness::{Machine, Report, installed, nobody, root, run};

const NONE: Option<&str> = None;

/// A script for perl, whose `syscall` calls the kernel by number.
pub(crate) fn perl(machine: &Machine, profile: Profile, text: &str) -> Option<Spec> {
    installed("/usr/bin/perl").then(|| Spec {
        interpreter: "/usr/bin/perl".into(),
        profile,
        ..machine.script(text)
    })
}

pub(crate) fn under(machine: &Machine, profile: Profile, text: &str) -> Spec {
    Spec {
        profile,
        ..machine.script(text)
    }
}

/// A directory that is not below a temporary one, wherever the tests were built.
pub(crate) fn elsewhere() -> tempfile::TempDir {
    let temporary = ["/tmp", "/var/tmp", "/dev/shm"];
    let directory = [env!("CARGO_TARGET_TMPDIR"), "/var/lib", "/root", "/home"]
        .into_iter()
        .filter(|place| !temporary.iter().any(|of| Path::new(place).starts_with(of)))
        .find_map(|place| tempfile::tempdir_in(place).ok())
        .expect("a place that is not temporary");
    std::fs::write(directory.path().join("secret"), "hunter2").unwrap();
    directory
}

/// Runs it where the kernel has none of these calls.
pub(crate) fn without(calls: &[libc::c_long], errno: libc::c_int, spec: &Spec) -> Report {
    without_while(calls, errno, || run(spec))
}

/// What is done then, and whoever is started by it, finds none of these calls.
pub(crate) fn without_while<T: Send>(
    calls: &[libc::c_long],
    errno: libc::c_int,
    work: impl FnOnce() -> T + Send,
) -> T {
    let limited = || {
        let filter = SeccompFilter::new(
            calls.iter().map(|call| (*call, vec![])).collect(),
            SeccompAction::Allow,
            SeccompAction::Errno(errno.unsigned_abs()),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
        seccompiler::apply_filter(&program).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(limited).join().unwrap())
}

#[test]
fn under_a_profile_dangerous_calls_fail_with_an_error_even_for_root() {
    let calls = [
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_init_module,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_ptrace,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_keyctl,
        libc::SYS_swapon,
        libc::SYS_reboot,
        libc::SYS_clock_settime,
        libc::SYS_acct,
    ];
    // Arguments with which none of them would do anything.
    let text = format!("for (@{{{calls:?}}}) {{ syscall($_, -1, -1, -1, -1); print $! + 0, ' ' }}");
    for profile in [Profile::Standard, Profile::Strict] {
        let machine = Machine::new();
        let Some(spec) = perl(&machine, profile, &text) else {
            return;
        };
        let report = run(&spec);
        assert_eq!(report.stdout(), "1 ".repeat(calls.len()), "{report:?}");
        assert!(report.started().confinement.seccomp);
    }
}

#[test]
fn under_a_profile_root_makes_no_device_to_read_the_disk_by() {
    if !root("making devices") {
        return;
    }
    let text = "cd ${0%/*}; mknod disk b 8 0 || mknod memory c 1 1 || mkfifo pipe && ls";
    for profile in [Profile::Standard, Profile::Strict] {
        let machine = Machine::new();
        let report = run(&under(&machine, profile, text));
        assert_eq!(report.stdout(), "pipe\nscript\n", "{report:?}");
    }
}

#[test]
fn a_state_below_another_hidden_directory_is_hidden_with_it() {
    if !root("mounting") {
        return;
    }
    let directory = elsewhere();
    let state = directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let machine = Machine::new();
    let mut spec = machine.script("ls -A $1");
    spec.hidden = vec![state, directory.path().to_owned()];
    spec.arguments = vec![directory.path().to_str().unwrap().to_owned()];
    let report = run(&spec);
    if !report.started().confinement.hidden_files {
        return eprintln!(
            "LEFT OUT: nothing can be mounted here: {:?}",
            report.notes()
        );
    }
    assert_eq!(report.stdout(), "", "{report:?}");
    assert_eq!(report.outcome().end, sluice_shim::event::End::Code(0));
}

#[test]
fn programs_that_do_no_harm_run_under_every_profile() {
    let text = "set -e\nx=$(date +%Y | tr 0-9 d); echo $x\nsleep 0 & wait\nid -u > /dev/null\n\
        f=${0%/*}/program; printf '#!/bin/sh\\necho mine\\n' > $f; chmod 700 $f; $f\n\
        echo err > /dev/stderr\nhead -c 3 /dev/zero | wc -c\ncat < /etc/os-release | wc -l > /dev/null\n\
        for p in /usr/bin/python3; do [ -x $p ] || exit 0; done\n\
        python3 -c 'import threading as t; a = t.Thread(target=print, args=(\"thread\",)); a.start(); a.join()'";
    for profile in [Profile::None, Profile::Standard, Profile::Strict] {
        let machine = Machine::new();
        let report = run(&under(&machine, profile, text));
        let expected = "dddd\nmine\n3\nthread\n";
        assert!(
            report.stdout() == expected || !Path::new("/usr/bin/python3").exists(),
            "{report:?}"
        );
        assert_eq!(report.stderr(), "err\n");
        assert_eq!(report.started().confinement.profile, profile);
    }
}

#[test]
fn a_strict_script_reaches_no_file_but_the_systems_and_its_own() {
    let outside = elsewhere();
    let secret = outside.path().join("secret");
    let text = "cat $1; echo x >> $1; : > $1; touch ${1%/*}/new; ln $1 ${0%/*}/link; mv $1 ${0%/*}/moved\n\
        : > /etc/sluice-shim-test; : > /usr/sluice-shim-test; ls /; echo 0 > /proc/self/oom_score_adj\n\
        echo own > ${0%/*}/own && cat ${0%/*}/own";
    let machine = Machine::new();
    let mut spec = under(&machine, Profile::Strict, text);
    spec.arguments = vec![secret.to_str().unwrap().to_owned()];
    let report = run(&spec);
    assert_eq!(report.stdout(), "own\n", "{report:?}");
    assert_eq!(report.stderr().matches("denied").count(), 9, "{report:?}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "hunter2");
    assert!(report.started().confinement.landlock >= Some(3));
    // The same without a profile, so that it is the profile which keeps it out.
    spec.profile = Profile::None;
    (spec.spool, spec.operation) = (machine.path().join("again"), "again".into());
    spec.script.bytes.clear();
    spec.script.bytes.extend(b"cat $1");
    assert_eq!(run(&spec).stdout(), "hunter2");
}

#[test]
fn a_strict_script_has_no_tcp_and_reaches_no_process_outside() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Stream, MPTCP and raw sockets; then one for names, and a signal to the shim.
    let text = format!(
        "use Socket; for ([2, 1, 0], [10, 1, 0], [2, 1, 262], [2, 5, 132], [17, 3, 0], [2, 3, 1]) {{\n\
           print socket(my $s, $$_[0], $$_[1], $$_[2]) ? 'open ' : $! + 0, ' ' }}\n\
         print socket(my $u, 2, 2, 0) ? 'udp ' : 'none ';\n\
         print connect($u, sockaddr_in({port}, INADDR_LOOPBACK)) ? 'ok ' : 'none ';\n\
         print kill(0, getppid) ? 'reached' : $! + 0;"
    );
    let machine = Machine::new();
    let Some(spec) = perl(&machine, Profile::Strict, &text) else {
        return;
    };
    let report = run(&spec);
    if report.started().confinement.landlock < Some(6) {
        return eprintln!("LEFT OUT: Landlock has no scopes before Linux 6.12");
    }
    assert_eq!(report.stdout(), "1 1 1 1 1 1 udp ok 1", "{report:?}");
}

#[test]
fn a_profile_gives_every_user_temporary_directories_of_its_own() {
    if !root("mounting") {
        return;
    }
    let mark = format!("sluice-shim-profile-{}", std::process::id());
    for profile in [Profile::Standard, Profile::Strict] {
        let machine = Machine::new();
        let text = "set -e; for d in /tmp /var/tmp /dev/shm; do echo x > $d/$1; cat $d/$1; done";
        let mut spec = under(&machine, profile, text);
        (spec.user, spec.arguments) = (nobody(), vec![mark.clone()]);
        let report = run(&spec);
        if !report.started().confinement.private_tmp {
            assert!(report.notes().join("").contains("/tmp"), "{report:?}");
            return eprintln!("LEFT OUT: mounts are not allowed here: {report:?}");
        }
        assert_eq!(report.stdout(), "x\nx\nx\n", "{report:?}");
        for directory in ["/tmp", "/var/tmp", "/dev/shm"] {
            assert!(!Path::new(directory).join(&mark).exists());
        }
    }
}

#[test]
fn a_named_user_writes_to_its_home_under_strict_unless_sluice_is_in_it() {
    let home = elsewhere();
    let machine = Machine::new();
    let text = "echo mine > $HOME_DIR/file && cat $HOME_DIR/file; cat $HOME_DIR/state/key";
    let mut spec = under(&machine, Profile::Strict, &text.replace("$HOME_DIR", "$1"));
    spec.arguments = vec![home.path().to_str().unwrap().to_owned()];
    let sluice_shim::spec::User::Named { home: place, .. } = &mut spec.user else {
        unreachable!()
    };
    *place = home.path().to_owned();
    let state = home.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("key"), "the key").unwrap();
    spec.hidden = vec![state];
    // Where the key can be covered the home stays open.
    if root("mounting") {
        assert_eq!(run(&spec).stdout(), "mine\n");
    }
    (spec.spool, spec.operation) = (machine.path().join("other"), "other".into());
    let report = without(&[libc::SYS_mount, libc::SYS_unshare], libc::EPERM, &spec);
    assert_eq!(report.stdout(), "", "{report:?}");
    let notes = report.notes().join("\n");
    assert!(
        notes.contains("not hidden") && notes.contains("home"),
        "{notes}"
    );
}

/// A mount that passes on what is mounted in it, for as long as this lives.
struct Shared(PathBuf);

impl Shared {
    fn mount(place: &Path) -> Result<Self, nix::Error> {
        let tmpfs = Some("tmpfs");
        mount(tmpfs, place, tmpfs, MsFlags::empty(), Some("mode=711"))?;
        let mounted = Self(place.to_owned());
        mount(NONE, place, NONE, MsFlags::MS_SHARED, NONE)?;
        Ok(mounted)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _left_to_the_machine = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_script_of_root_finds_sluices_files_empty_and_its_own_directory_in_its_place() {
    if !root("mounting") {
        return;
    }
    let directory = elsewhere();
    let _shared = match Shared::mount(directory.path()) {
        Ok(shared) => shared,
        Err(errno) => return eprintln!("LEFT OUT: nothing can be mounted here: {errno}"),
    };
    let (state, config) = (
        directory.path().join("state"),
        directory.path().join("agent.toml"),
    );
    std::fs::create_dir_all(state.join("identity")).unwrap();
    std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    std::fs::write(state.join("identity/key.der"), "the key").unwrap();
    std::fs::write(&config, "the policy").unwrap();
    let machine = Machine::new();
    let text = "ls -A $1; cat $1/identity/key.der; touch $1/new; cat $2; ls ${0%/*}; echo kept > ${0%/*}/kept && cat ${0%/*}/kept";
    let mut spec = machine.script(text);
    spec.workspace_base = state.join("run");
    spec.hidden = vec![state.clone(), config.clone(), "/nonexistent/sluice".into()];
    spec.arguments = [&state, &config]
        .map(|path| path.to_str().unwrap().to_owned())
        .into();
    let report = run(&spec);
    // Of the state only the way to the script's own directory is there.
    assert_eq!(report.stdout(), "run\nscript\nkept\n", "{report:?}");
    assert!(report.started().confinement.hidden_files);
    assert_eq!(report.notes(), Vec::<&str>::new());
    assert!(
        report.stderr().contains("Read-only file system"),
        "{report:?}"
    );
    // For the machine nothing has changed, and nothing is left.
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "the policy");
    assert!(state.join("identity/key.der").exists());
    assert_eq!(std::fs::read_dir(state.join("run")).unwrap().count(), 0);
}

#[test]
fn what_a_script_of_root_mounts_ends_with_it() {
    if !root("mounting") {
        return;
    }
    let directory = elsewhere();
    let machine = Machine::new();
    let mut spec = machine.script("mount -t tmpfs none $1 && echo mounted; ls -A $1");
    spec.arguments = vec![directory.path().to_str().unwrap().to_owned()];
    spec.hidden = vec![machine.path().join("state")];
    let report = run(&spec);
    if !report.started().confinement.hidden_files {
        assert!(report.notes().join("").contains("not hidden"), "{report:?}");
        return eprintln!("LEFT OUT: mounts are not allowed here: {report:?}");
    }
    assert_eq!(report.stdout(), "mounted\n", "{report:?}");
    assert!(directory.path().join("secret").exists());
}

#[test]
fn nothing_starts_where_a_profile_cannot_be_had() {
    let machine = Machine::new();
    let outside = elsewhere();
    let mark = outside.path().join("started");
    let text = format!("touch {}", mark.display());
    let mut spec = under(&machine, Profile::Standard, &text);
    let report = without(&[libc::SYS_seccomp], libc::ENOSYS, &spec);
    let (stage, reason) = report.failure();
    assert_eq!(stage, Stage::Confinement);
    assert!(
        reason.starts_with("confinement.profile: standard cannot be put up on this machine: ")
            && reason.contains("system calls"),
        "{reason}"
    );
    (spec.spool, spec.profile) = (machine.path().join("strict"), Profile::Strict);
    let old = without(&[libc::SYS_landlock_create_ruleset], libc::ENOSYS, &spec);
    let (stage, reason) = old.failure();
    assert_eq!(stage, Stage::Confinement);
    assert!(
        reason.contains("strict") && reason.contains("Linux 6.2"),
        "{reason}"
    );
    assert!(!mark.exists());
    // Standard needs no Landlock.
    (spec.spool, spec.profile) = (machine.path().join("standard"), Profile::Standard);
    let standard = without(&[libc::SYS_landlock_create_ruleset], libc::ENOSYS, &spec);
    assert_eq!(standard.started().confinement.landlock, None);
    assert!(mark.exists(), "{standard:?}");
}

#[test]
fn without_mounts_it_runs_and_says_what_is_not_hidden() {
    let machine = Machine::new();
    let mut spec = under(&machine, Profile::Standard, "echo ran");
    spec.hidden = vec![machine.path().join("state")];
    let report = without(&[libc::SYS_mount], libc::EPERM, &spec);
    assert_eq!(report.stdout(), "ran\n");
    let applied = report.started().confinement;
    assert!(applied.seccomp && !applied.private_tmp && !applied.hidden_files);
    let notes = report.notes().join("\n");
    assert!(
        notes.contains("/tmp") && notes.contains("Sluice's own files are not hidden"),
        "{notes}"
    );
}
