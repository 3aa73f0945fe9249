//! What the owner lets a strict script reach besides.

use std::net::TcpListener;
use std::num::NonZeroU16;
use std::path::Path;

use sluice_shim::event::Stage;
use sluice_shim::spec::{Opened, Profile};

use crate::confinement::{elsewhere, perl, under, without};
use crate::harness::{Machine, Report, run};
use crate::kernel::with_landlock;

/// Two listeners with their ports.
fn listeners() -> ([TcpListener; 2], [NonZeroU16; 2]) {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port().try_into().unwrap();
    let ports = [port(&listeners[0]), port(&listeners[1])];
    (listeners, ports)
}

/// Connects to both ports, binds both, which are taken, connects to the second by sending, makes a socket of MPTCP and
/// listens with one of this machine. Says of each `ok` or the error.
fn tries([first, second]: [NonZeroU16; 2]) -> String {
    format!(
        "use Socket; sub said {{ print $_[0] ? 'ok ' : ($! + 0) . ' ' }}\n\
         sub tcp {{ socket(my $s, 2, 1, $_[0]) or print 'none '; $s }}\n\
         sub at {{ sockaddr_in($_[0], INADDR_LOOPBACK) }}\n\
         said(connect(tcp(0), at($_))) for ({first}, {second});\n\
         said(bind(tcp(6), at($_))) for ({first}, {second});\n\
         said(send(tcp(0), 'x', 0x20000000, at({second})));\n\
         said(socket(my $m, 2, 1, 262)); socket(my $u, 1, 1, 0); said(listen($u, 1));"
    )
}

#[test]
fn a_strict_script_reaches_the_owners_paths_as_they_are_opened_and_nothing_beside_them() {
    let outside = elsewhere();
    let base = outside.path().canonicalize().unwrap();
    for part in ["read", "write", "neither"] {
        std::fs::create_dir(base.join(part)).unwrap();
        std::fs::write(base.join(part).join("file"), part).unwrap();
    }
    let program = base.join("read/program");
    std::fs::write(&program, "#!/bin/sh\necho ' ran'\n").unwrap();
    std::fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    // As an earlier script with a right to write there could have left it.
    std::os::unix::fs::symlink(base.join("neither"), base.join("link")).unwrap();
    let machine = Machine::new();
    let text = "cd $1; cat read/file; read/program; echo x > read/new; echo x >> read/file; rm read/file\n\
        cat write/file; echo ' new' > write/new; mv write/new write/moved; cat write/moved; rm write/moved\n\
        cat neither/file; cat link/file; ls; echo x > new; cat single; echo x >> single";
    std::fs::write(base.join("single"), "alone").unwrap();
    let mut spec = under(&machine, Profile::Strict, text);
    spec.arguments = vec![base.to_str().unwrap().to_owned()];
    spec.opened = Opened {
        read: ["read", "link", "missing", "single"]
            .map(|part| base.join(part))
            .into(),
        write: vec![base.join("write")],
        ..Opened::default()
    };
    let report = run(&spec);
    assert_eq!(report.stdout(), "read ran\nwrite new\nalone", "{report:?}");
    assert_eq!(report.stderr().matches("denied").count(), 8, "{report:?}");
    let applied = report.started().confinement;
    assert!(applied.owner_paths && !applied.owner_ports);
    let notes = report.notes().join("\n");
    let note = |path: &str| {
        format!(
            "confinement.read: {} is left out: ",
            base.join(path).display()
        )
    };
    assert!(
        notes.contains(&format!("{}it is a link", note("link"))),
        "{notes}"
    );
    assert!(notes.contains(&note("missing")), "{notes}");
    assert_eq!(
        std::fs::read_to_string(base.join("read/file")).unwrap(),
        "read"
    );
    assert_eq!(
        std::fs::read_to_string(base.join("single")).unwrap(),
        "alone"
    );
}

#[test]
fn a_directory_with_sluices_files_is_opened_only_where_these_are_hidden() {
    let outside = elsewhere();
    let base = outside.path().canonicalize().unwrap();
    let state = base.join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("key"), "the key").unwrap();
    let machine = Machine::new();
    let mut spec = under(&machine, Profile::Strict, "cat $1/state/key $1/secret");
    spec.arguments = vec![base.to_str().unwrap().to_owned()];
    spec.opened.write = vec![base];
    spec.hidden = vec![state];
    let hidden = run(&spec);
    if hidden.started().confinement.hidden_files {
        assert_eq!(hidden.stdout(), "hunter2", "{hidden:?}");
    } else {
        eprintln!("LEFT OUT: mounts are not allowed here: {hidden:?}");
    }
    spec.spool = machine.path().join("other");
    let report = without(&[libc::SYS_mount, libc::SYS_unshare], libc::EPERM, &spec);
    assert_eq!(report.stdout(), "", "{report:?}");
    assert!(!report.started().confinement.owner_paths);
    let notes = report.notes().join("\n");
    assert!(
        notes.contains("confinement.write: ") && notes.contains("cannot be hidden"),
        "{notes}"
    );
}

#[test]
fn a_strict_script_uses_the_owners_ports_as_they_are_opened_and_no_others() {
    let (_listeners, ports) = listeners();
    let run_with = |profile, opened: Opened| {
        let machine = Machine::new();
        let spec = perl(&machine, profile, &tries(ports))?;
        let report = run(&sluice_shim::spec::Spec { opened, ..spec });
        Some((report.stdout(), report.started().confinement.owner_ports))
    };
    let opened = |connect: &[NonZeroU16], bind: &[NonZeroU16]| Opened {
        tcp_connect: connect.to_vec(),
        tcp_bind: bind.to_vec(),
        ..Opened::default()
    };
    let first = &ports[..1];
    // 1: EPERM of the filter, 13: EACCES of Landlock, 22: nothing that listens is bound, 98: somebody listens there.
    for (opened, expected) in [
        (opened(first, &[]), "ok 13 13 13 1 1 1 "),
        (opened(&[], first), "13 13 98 13 1 1 22 "),
        (opened(&ports, first), "ok ok 98 13 1 1 22 "),
    ] {
        let Some(found) = run_with(Profile::Strict, opened) else {
            return;
        };
        assert_eq!(found, (expected.to_owned(), true));
    }
    let (standard, let_through) = run_with(Profile::Standard, opened(first, &[])).unwrap();
    assert!(
        standard.starts_with("ok ok 98 98 ") && !let_through,
        "{standard}"
    );
}

#[test]
fn nothing_starts_where_landlock_cannot_keep_the_other_ports_from_the_script() {
    let (_listeners, ports) = listeners();
    let machine = Machine::new();
    let outside = elsewhere();
    let mark = outside.path().join("started");
    let mut spec = under(
        &machine,
        Profile::Strict,
        &format!("echo ran; touch {}", mark.display()),
    );
    // Linux 6.2 knows files, and no ports.
    let Some(plain) = with_landlock(3, || run(&spec)) else {
        return;
    };
    assert_eq!(plain.stdout(), "ran\n", "{plain:?}");
    assert_eq!(plain.started().confinement.landlock, Some(3));
    let opens: [fn(&mut Opened, NonZeroU16); 2] = [
        |opened, port| opened.tcp_connect.push(port),
        |opened, port| opened.tcp_bind.push(port),
    ];
    for (number, open) in opens.into_iter().enumerate() {
        spec.opened = Opened {
            write: vec![outside.path().to_owned()],
            ..Opened::default()
        };
        open(&mut spec.opened, ports[0]);
        spec.spool = machine.path().join(format!("spool-{number}"));
        let report: Report = with_landlock(3, || run(&spec)).unwrap();
        let (stage, reason) = report.failure();
        assert_eq!(stage, Stage::Confinement);
        assert!(
            reason.starts_with("confinement.profile: strict cannot be put up on this machine: ")
                && reason.contains("confinement.tcp_connect and tcp_bind")
                && reason.contains("Linux 6.7"),
            "{reason}"
        );
        assert!(!Path::new(&mark).exists());
    }
}
