//! Who the script is and what it sees.

use std::collections::HashMap;
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_bytes::ByteBuf;
use sluice_shim::event::{End, Event, Stage};
use sluice_shim::spec::{Attachment, Content, Secret, User, Variable};
use sluice_shim::{FIRST_UID, LAST_UID, spool};

use crate::harness::{
    Machine, blob, collect, eventually, installed, nobody, root, run, spawn, spawn_from, spooled,
};

fn status(text: &str) -> HashMap<String, String> {
    text.lines()
        .filter_map(|l| l.split_once(":\t"))
        .map(|(k, v)| {
            (
                k.to_owned(),
                v.split_whitespace().collect::<Vec<_>>().join(" "),
            )
        })
        .collect()
}

#[test]
fn another_user_has_its_ids_and_no_capability_at_all() {
    if !root("running as nobody") {
        return;
    }
    let machine = Machine::new();
    let mut spec = machine.script("exec cat /proc/self/status");
    spec.user = nobody();
    let User::Named { uid, gid, .. } = spec.user else {
        unreachable!()
    };
    let report = run(&spec);
    let status = status(&report.stdout());
    assert_eq!(status["Uid"], [uid.to_string().as_str(); 4].join(" "));
    assert_eq!(status["Gid"], [gid.to_string().as_str(); 4].join(" "));
    assert_eq!(status["Groups"], format!("1 {gid}"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["SigIgn"], "0000000000000000");
    assert_eq!(status["SigBlk"], "0000000000000000");
    assert_eq!(report.started().uid, uid);
    assert_eq!(report.started().gids, [gid, 1]);
}

#[test]
fn an_ephemeral_user_is_fresh_and_has_temporary_directories_of_its_own() {
    if !root("ephemeral users") {
        return;
    }
    let machine = Machine::new();
    let mut spec = machine.ephemeral("id -u; id -G; echo $USER $LOGNAME; pwd; ls -A /tmp /dev/shm; echo x > /tmp/sluice-shim-test; stat -c %U.%u /tmp/sluice-shim-test");
    spec.operation = "first".into();
    let report = run(&spec);
    let uid = report.started().uid;
    assert!((FIRST_UID..=LAST_UID).contains(&uid));
    let first = machine.path().file_name().unwrap().to_str().unwrap();
    let expected = format!(
        "{uid}\n{uid}\nsluice-{uid} sluice-{uid}\n/\n/dev/shm:\n\n/tmp:\n{first}\nUNKNOWN.{uid}\n"
    );
    assert_eq!(report.stdout(), expected, "{}", report.stderr());
    assert!(report.started().confinement.private_tmp && report.started().confinement.private_ipc);
    assert!(!std::path::Path::new("/tmp/sluice-shim-test").exists());
    assert_eq!(
        std::fs::read_dir(machine.path().join("uids"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn two_ephemeral_users_at_a_time_are_two() {
    if !root("ephemeral users") {
        return;
    }
    let machine = Machine::new();
    let specs: Vec<_> = (0..8)
        .map(|i| {
            let mut spec = machine.ephemeral("id -u; sleep 0.3");
            spec.operation = format!("op-{i}");
            spec.spool = machine.path().join(format!("spool-{i}"));
            spec
        })
        .collect();
    let running: Vec<_> = specs.iter().map(crate::harness::spawn).collect();
    let mut uids: Vec<u32> = running
        .into_iter()
        .map(|child| crate::harness::collect(child).started().uid)
        .collect();
    uids.sort_unstable();
    uids.dedup();
    assert_eq!(uids.len(), 8);
}

#[test]
fn a_base_that_another_shim_makes_at_the_same_time_is_as_it_should_be() {
    if !root("other users") || !installed("/usr/bin/strace") {
        return;
    }
    let machine = Machine::new();
    let [mut first, mut second] = ["first", "second"].map(|name| {
        let mut spec = machine.script("echo ran");
        (spec.operation, spec.spool) = (name.into(), machine.path().join(name));
        spec
    });
    (first.user, second.user) = (nobody(), nobody());
    // Whatever the first one would still do to the base, it does half a second later.
    let slowly = "exec /usr/bin/strace -qq -o /dev/null -e trace=?chmod,fchmodat \
                  -e inject=?chmod,fchmodat:delay_enter=500000 \"$0\"";
    let running = spawn_from(slowly, &first);
    eventually("the first one makes the base", || {
        machine.workspaces().exists()
    });
    assert_eq!(run(&second).stdout(), "ran\n");
    assert_eq!(collect(running).stdout(), "ran\n");
}

#[test]
fn descriptors_session_umask_and_input_are_its_own() {
    let machine = Machine::new();
    let report = machine.run("umask; ls -m /proc/$$/fd; readlink /proc/$$/fd/0; ps -o sid= -p $$ | tr -d ' '; echo $$; read -r x || echo end");
    let out = report.stdout();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "0022");
    // 255 is bash's own descriptor of the script.
    assert_eq!(lines[1], "0, 1, 2, 255");
    assert_eq!(lines[2], "/dev/null");
    assert_eq!(lines[3], lines[4]);
    assert_eq!(lines[5], "end");
}

#[test]
fn a_script_of_any_user_opens_its_output_by_name() {
    let machine = Machine::new();
    let mut spec = machine.script("echo out >/dev/stdout; echo err >/dev/stderr");
    if root("writing as another user") {
        spec.user = nobody();
    }
    let report = run(&spec);
    assert_eq!(report.outcome().end, End::Code(0), "{report:?}");
    assert_eq!(
        (report.stdout().as_str(), report.stderr().as_str()),
        ("out\n", "err\n")
    );
}

#[test]
fn the_environment_is_what_was_given_and_nothing_else() {
    let machine = Machine::new();
    let mut spec = machine.script("exec env -0");
    spec.environment.push(Variable {
        name: "NAME".into(),
        value: "zwölf\n 'x' \"$HOME\"".into(),
    });
    let out = run(&spec).stdout();
    let mut variables: Vec<&str> = out
        .trim_end_matches('\0')
        .split('\0')
        .filter(|v| !v.starts_with("_=") && !v.starts_with("SHLVL=") && !v.starts_with("PWD="))
        .collect();
    variables.sort_unstable();
    assert_eq!(
        variables,
        [
            "NAME=zwölf\n 'x' \"$HOME\"",
            "PATH=/usr/local/bin:/usr/bin:/bin"
        ]
    );
}

#[test]
fn arguments_and_flags_arrive_as_they_are() {
    let machine = Machine::new();
    let mut spec = machine.script("printf '%s|' \"$@\"; echo $-");
    spec.flags = vec!["-u".into()];
    spec.arguments = vec!["$(id)".into(), String::new(), "a b\n".into(), "-c".into()];
    let out = run(&spec).stdout();
    assert!(
        out.starts_with("$(id)||a b\n|-c|") && out.contains('u'),
        "{out}"
    );
}

#[test]
fn files_have_their_modes_and_are_named_by_variables() {
    let machine = Machine::new();
    std::fs::write(machine.path().join("blob"), "from the store").unwrap();
    let mut spec = machine.script(
        "d=${0%/*}; stat -c '%a %u' $d $0 $A $A/one $A/two $SLUICE_SECRET_T; ls -A $d; cat $A/one $A/two; tr h H < $SLUICE_SECRET_T",
    );
    spec.attachments.variables = vec!["A".into(), "B".into()];
    spec.attachments.files = vec![
        Attachment {
            name: "one".into(),
            content: Content::Bytes(ByteBuf::from(b"1;".to_vec())),
        },
        Attachment {
            name: "two".into(),
            content: blob(&machine),
        },
    ];
    spec.secrets = vec![Secret {
        variable: "SLUICE_SECRET_T".into(),
        name: "t".into(),
        value: ByteBuf::from(b";hunter2".to_vec()),
    }];
    let mut uid = nix::unistd::Uid::effective().as_raw();
    if root("files of another user") {
        spec.user = nobody();
        uid = 65534;
    }
    let out = run(&spec).stdout();
    let modes: Vec<String> = ["700", "700", "700", "600", "600", "400"]
        .iter()
        .map(|m| format!("{m} {uid}"))
        .collect();
    assert_eq!(
        out,
        format!("{}\nscript\n1;from the store;Hunter2", modes.join("\n"))
    );
}

#[test]
fn an_attachment_that_was_changed_since_the_gates_saw_it_stops_the_start() {
    for (change, text) in [
        ("other bytes", "from the stork"),
        ("longer", "from the store."),
        ("shorter", "from"),
    ] {
        let machine = Machine::new();
        std::fs::write(machine.path().join("blob"), "from the store").unwrap();
        let mut spec = machine.script("echo ran");
        spec.attachments.files = vec![Attachment {
            name: "one".into(),
            content: blob(&machine),
        }];
        std::fs::write(machine.path().join("blob"), text).unwrap();
        let report = run(&spec);
        let (stage, reason) = report.failure();
        assert_eq!(stage, Stage::Workspace, "{change}");
        assert!(
            reason.contains("not what the gates saw"),
            "{change}: {reason}"
        );
        assert_eq!(std::fs::read_dir(machine.workspaces()).unwrap().count(), 0);
    }
}

#[test]
fn a_variable_that_names_a_folder_of_ours_is_there_once() {
    let machine = Machine::new();
    std::fs::write(machine.path().join("blob"), "").unwrap();
    let mut spec = machine.script("tr '\\0' '\\n' < /proc/$$/environ | grep -c ^A=; echo ${A##*/}");
    spec.environment.push(Variable {
        name: "A".into(),
        value: "/elsewhere".into(),
    });
    spec.attachments.variables = vec!["A".into()];
    spec.attachments.files = vec![Attachment {
        name: "one".into(),
        content: blob(&machine),
    }];
    assert_eq!(run(&spec).stdout(), "1\nattachments\n");
}

#[test]
fn a_home_that_cannot_be_entered_is_a_note_and_not_a_failure() {
    let machine = Machine::new();
    let mut spec = machine.script("pwd");
    let User::Named { home, .. } = &mut spec.user else {
        unreachable!()
    };
    *home = "/no/such/home".into();
    let report = run(&spec);
    assert_eq!(report.stdout(), "/\n");
    assert_eq!(report.started().cwd.to_str(), Some("/"));
    assert!(
        report.notes()[0].contains("/no/such/home"),
        "{:?}",
        report.notes()
    );
}

#[test]
fn a_base_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new();
    std::fs::create_dir(machine.workspaces()).unwrap();
    std::fs::set_permissions(machine.workspaces(), PermissionsExt::from_mode(0o777)).unwrap();
    let report = machine.run("echo ran");
    let (stage, reason) = report.failure();
    assert_eq!(stage, Stage::Workspace);
    assert!(
        reason.contains("could be changed by other users"),
        "{reason}"
    );
}

#[test]
fn a_descriptor_that_the_shim_was_started_with_does_not_reach_the_script() {
    let machine = Machine::new();
    let spec = machine.script("ls -m /proc/$$/fd");
    let report = collect(spawn_from("exec \"$0\" 7</etc/passwd", &spec));
    // 255 is bash's own descriptor of the script.
    assert_eq!(report.stdout(), "0, 1, 2, 255\n");
}

#[test]
fn a_shim_without_any_argument_takes_nothing_of_its_environment_for_one() {
    if !installed("/usr/bin/perl") {
        return;
    }
    let machine = Machine::new();
    let elsewhere = machine.path().join("elsewhere");
    // execve(2) with an empty list, which Linux 5.18 and later fill with one empty text. What follows it in memory is the
    // environment: a list of arguments that was read too far would say `serve` and a directory.
    let bare = format!(
        "exec /usr/bin/perl -e '($shim, $at) = @ARGV; @words = (\"serve\", $at); \
         $none = pack(\"J\", 0); $environment = pack(\"ppJ\", @words, 0); \
         syscall({}, $shim, $none, $environment); die' \"$0\" {}",
        nix::libc::SYS_execve,
        elsewhere.display()
    );
    let spec = machine.script("env | grep -c serve; echo ran");
    let report = collect(spawn_from(&bare, &spec));
    assert_eq!(report.stdout(), "0\nran\n");
    assert!(!elsewhere.exists(), "it made ready in its environment");
}

#[test]
fn a_secret_is_in_no_command_line_and_in_no_environment() {
    let machine = Machine::new();
    let secret = format!("hunter-{}", std::process::id());
    let mut spec = machine.script("cat $SLUICE_SECRET_T; while :; do sleep 0.05; done");
    spec.secrets = vec![Secret {
        variable: "SLUICE_SECRET_T".into(),
        name: "t".into(),
        value: ByteBuf::from(secret.clone().into_bytes()),
    }];
    let child = spawn(&spec);
    eventually("the script has it", || {
        let events = spooled(&spec.spool);
        events
            .iter()
            .any(|e| matches!(e, Event::Output { bytes, .. } if bytes.as_slice() == b"***"))
    });
    let mut seen = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"].map(|name| process.path().join(name)) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            if String::from_utf8_lossy(&bytes).contains(&secret) {
                seen.push(file);
            }
        }
    }
    assert!(spool::cancel(&spec.spool).unwrap());
    assert_eq!(collect(child).stdout(), "***");
    assert_eq!(seen, Vec::<PathBuf>::new());
}

#[test]
fn a_secret_that_a_script_prints_is_in_nothing_that_is_kept_of_it() {
    let machine = Machine::new();
    let mut spec = machine.script(
        "printf 'a%s' hunt; sleep 0.1; echo er22; cat $SLUICE_SECRET_T >&2; base64 < $SLUICE_SECRET_T; echo hunter2",
    );
    spec.secrets = vec![Secret {
        variable: "SLUICE_SECRET_T".into(),
        name: "t".into(),
        value: ByteBuf::from(b"hunter22\n".to_vec()),
    }];
    let report = run(&spec);
    assert_eq!(report.stdout(), "a***\n***\nhunter2\n");
    for entry in std::fs::read_dir(&spec.spool).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        for form in ["hunter22", "aHVudGVyMjI"] {
            assert!(
                !bytes
                    .windows(form.len())
                    .any(|part| part == form.as_bytes()),
                "{}",
                entry.path().display()
            );
        }
    }
}

/// A file system from which nothing can be executed, for as long as this lives.
struct Noexec(PathBuf);

impl Drop for Noexec {
    fn drop(&mut self) {
        let _left_to_the_machine = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_script_runs_where_nothing_can_be_executed() {
    if !root("mounting") {
        return;
    }
    let machine = Machine::new();
    let base = machine.workspaces();
    std::fs::create_dir(&base).unwrap();
    let (kind, flags) = (Some("tmpfs"), MsFlags::MS_NOEXEC);
    if let Err(errno) = mount(kind, &base, kind, flags, Some("mode=711")) {
        return eprintln!("LEFT OUT: nothing can be mounted here: {errno}");
    }
    let _mounted = Noexec(base);
    let text = "[ -x $0 ] || echo ran all the same";
    let mut named = machine.script(text);
    named.user = nobody();
    let mut ephemeral = machine.ephemeral(text);
    ephemeral.operation = "ephemeral".into();
    ephemeral.spool = machine.path().join("other");
    for spec in [named, ephemeral] {
        let report = run(&spec);
        assert_eq!(report.stdout(), "ran all the same\n", "{report:?}");
    }
}

#[test]
fn an_agent_that_the_kernel_spares_does_not_hand_that_on() {
    if !root("protecting a process") {
        return;
    }
    let machine = Machine::new();
    let mut spec = machine.script("cat /proc/self/oom_score_adj");
    spec.user = nobody();
    let protect = "echo -500 > /proc/self/oom_score_adj; exec \"$0\"";
    let report = collect(spawn_from(protect, &spec));
    assert_eq!(report.stdout(), "0\n", "{report:?}");
}
