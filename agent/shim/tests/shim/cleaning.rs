//! What the shim makes, and only that, is gone at the end.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_bytes::ByteBuf;
use sluice_shim::event::{End, Stage};
use sluice_shim::spec::{Attachment, Secret};

use crate::harness::{Machine, blob, collect, installed, nobody, root, rounds, run, spawn_from};

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn the_private_directory_is_gone_whatever_the_script_did_in_it() {
    let machine = Machine::new();
    let mut spec = machine.script("d=${0%/*}; mkdir -p $d/a/b; touch $d/a/b/c; mkdir $d/sticky; chmod 1700 $d/sticky; touch $d/sticky/x; ln -s /etc $d/link; chmod 0 $d/a/b $d/a $d $0; exit 0");
    if root("cleaning after another user") {
        spec.user = nobody();
    }
    let report = run(&spec);
    assert_eq!(
        std::fs::read_dir(machine.workspaces()).unwrap().count(),
        0,
        "{report:?}"
    );
    assert_eq!(report.notes(), Vec::<&str>::new());
}

#[test]
fn a_directory_of_very_many_names_is_emptied_too() {
    let machine = Machine::new();
    let report = machine.run("cd ${0%/*}; mkdir d; touch {1..3000} d/{1..3000}; ln 1 d/link");
    assert_eq!(report.notes(), Vec::<&str>::new());
    assert_eq!(entries(&machine.workspaces()), 0);
}

#[test]
fn what_was_left_of_operations_that_are_over_is_swept_and_nothing_else() {
    let machine = Machine::new();
    let dead = {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    };
    let base = machine.workspaces();
    let names = [
        format!("over.{dead}"),
        format!("over.{dead}.abcdef"),
        format!("open.{dead}"),
        format!("over.{}", std::process::id()),
        "over".to_owned(),
        "over.mine".to_owned(),
    ];
    for name in &names {
        std::fs::create_dir_all(base.join(name).join("run")).unwrap();
        std::fs::write(base.join(name).join("run/script"), "").unwrap();
    }
    assert_eq!(
        sluice_shim::sweep(&base, |operation| operation == "open"),
        Vec::<String>::new()
    );
    for (name, stays) in names.iter().zip([false, false, true, true, true, true]) {
        assert_eq!(base.join(name).exists(), stays, "{name}");
    }
}

#[test]
fn nobody_but_the_scripts_user_gets_at_what_is_in_its_private_directory() {
    if !root("changing the user") {
        return;
    }
    let machine = Machine::new();
    let report = run(&machine.ephemeral("d=${0%/run/*}; stat -c '%a %u %g' $d; id -g"));
    let text = report.stdout();
    let gid = text.lines().nth(1).unwrap();
    assert_eq!(text.lines().next().unwrap(), format!("710 0 {gid}"));
}

#[test]
fn a_script_that_puts_a_link_where_its_directory_was_misleads_nobody() {
    let machine = Machine::new();
    let victim = machine.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("precious"), "x").unwrap();
    // As the shim's own user nothing stops it: it replaces the inner and the outer directory.
    let inner = machine.run(&format!(
        "d=${{0%/*}}; rm -rf $d; ln -s {} $d",
        victim.display()
    ));
    assert_eq!(inner.notes(), Vec::<&str>::new());
    assert!(victim.join("precious").exists());
    assert_eq!(std::fs::read_dir(machine.workspaces()).unwrap().count(), 0);
    std::fs::remove_dir_all(machine.path().join("spool")).unwrap();
    let outer = machine.run(&format!(
        "d=${{0%/run/*}}; rm -rf $d; ln -s {} $d",
        victim.display()
    ));
    assert!(victim.join("precious").exists());
    assert!(
        outer
            .notes()
            .iter()
            .any(|note| note.contains("was replaced by the script")),
        "{:?}",
        outer.notes()
    );
}

#[test]
fn another_user_cannot_replace_its_directory() {
    if !root("running as nobody") {
        return;
    }
    let machine = Machine::new();
    let mut spec = machine.script("d=${0%/*}; rm -rf $d 2>/dev/null; rmdir $d 2>/dev/null; ln -s /etc $d/../evil 2>/dev/null; [ -d $d ] && [ ! -e $d/../evil ] && echo kept");
    spec.user = nobody();
    assert_eq!(run(&spec).stdout(), "kept\n");
}

#[test]
fn what_another_user_made_ahead_is_refused_and_left_as_it_is() {
    if !root("directories of another user") {
        return;
    }
    let places = [
        ("spool", Stage::Spool),
        ("uids", Stage::User),
        ("run", Stage::Workspace),
    ];
    for (place, expected) in places {
        for what in ["their directory", "a link to it", "a file", "a pipe"] {
            let machine = Machine::new();
            let (at, theirs) = (machine.path().join(place), machine.path().join("theirs"));
            std::fs::create_dir(&theirs).unwrap();
            std::fs::write(theirs.join("precious"), "x").unwrap();
            chown(&theirs, Some(65534), Some(65534)).unwrap();
            let kept = match what {
                "their directory" => {
                    std::fs::rename(&theirs, &at).unwrap();
                    &at
                }
                "a link to it" => {
                    symlink(&theirs, &at).unwrap();
                    &theirs
                }
                "a file" => {
                    std::fs::write(&at, "").unwrap();
                    &theirs
                }
                _ => {
                    mkfifo(&at, Mode::from_bits_truncate(0o666)).unwrap();
                    &theirs
                }
            };
            let (stage, reason) = {
                let report = run(&machine.ephemeral("echo ran"));
                let (stage, reason) = report.failure();
                (stage, reason.to_owned())
            };
            assert_eq!(stage, expected, "{what} at {place}: {reason}");
            let meta = std::fs::metadata(kept).unwrap();
            assert_eq!(
                (meta.uid(), entries(kept)),
                (65534, 1),
                "{what} at {place}: {reason}"
            );
        }
    }
}

/// A process of another user that puts links where directories were, again and again.
struct Racer(Child);

impl Drop for Racer {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

const RACE: &str = r#"
my ($traces, $victim) = @ARGV;
while (1) {
    open(my $now, "<", "$traces/now") or next;
    chomp(my $d = <$now> // "");
    next if $d eq "";
    for (1 .. 20) {
        mkdir "$d/a";
        if (open(my $f, ">", "$d/a/f")) { close $f }
        rename "$d/a", "$d/b";
        symlink $victim, "$d/a";
        unlink "$d/a", "$d/b/f";
        rmdir "$d/b";
    }
}
"#;

#[test]
fn a_user_who_swaps_directories_while_they_are_removed_misleads_nobody() {
    if !root("a race with another user") || !installed("/usr/bin/perl") {
        return;
    }
    let machine = Machine::new();
    let (traces, victim) = (machine.path().join("traces"), machine.path().join("victim"));
    std::fs::create_dir(&traces).unwrap();
    std::fs::set_permissions(&traces, PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::create_dir(&victim).unwrap();
    std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(victim.join("f"), "precious").unwrap();
    let mut perl = Command::new("/usr/bin/perl");
    perl.args(["-e", RACE]).args([&traces, &victim]);
    let _racer = Racer(perl.uid(65534).gid(65534).spawn().unwrap());
    let mut noted = 0;
    for round in 0..rounds(100) {
        let mut spec = machine.script(&format!(
            "d=${{0%/*}}; mkdir -p $d/a; touch $d/a/f; echo $d > {}/now; mkdir -p $d/{{1..20}}/a; touch $d/{{1..20}}/a/f",
            traces.display()
        ));
        spec.user = nobody();
        spec.operation = format!("race-{round}");
        spec.spool = machine.path().join(format!("spool-{round}"));
        let report = run(&spec);
        noted += usize::from(report.notes().iter().any(|n| n.contains("be removed")));
    }
    let meta = std::fs::metadata(&victim).unwrap();
    assert_eq!((meta.uid(), entries(&victim)), (0, 1));
    assert_eq!(
        std::fs::read_to_string(victim.join("f")).unwrap(),
        "precious"
    );
    // What the other user put there meanwhile may keep a directory, but not unsaid.
    assert!(entries(&machine.workspaces()) <= noted);
}

#[test]
fn a_tree_that_is_deeper_than_the_shim_may_have_files_open_is_removed() {
    if !installed("/usr/bin/perl") {
        return;
    }
    let machine = Machine::new();
    let mut spec = machine.script(
        "$0 =~ m{(.*)/}; chdir $1 or die; for (1 .. 3000) { mkdir 'd' or die; chdir 'd' or die }",
    );
    spec.interpreter = "/usr/bin/perl".into();
    if root("cleaning after another user") {
        spec.user = nobody();
    }
    // What a service has that says nothing else.
    let report = collect(spawn_from("ulimit -Sn 1024; exec \"$0\"", &spec));
    let left = entries(&machine.workspaces());
    let mut rm = Command::new("/bin/rm");
    let _removed_with_the_machine = rm.arg("-rf").arg(machine.workspaces()).status();
    assert_eq!(report.outcome().end, End::Code(0), "{}", report.stderr());
    assert_eq!((left, report.notes()), (0, Vec::new()));
}

#[test]
fn no_file_is_open_to_others_for_a_moment_and_each_has_its_owner_before_its_content() {
    if !root("owners of files") || !installed("/usr/bin/strace") {
        return;
    }
    let machine = Machine::new();
    std::fs::write(machine.path().join("blob"), "from the store").unwrap();
    let mut spec = machine.script("exit 0");
    spec.user = nobody();
    spec.attachments.files = vec![Attachment {
        name: "attached".into(),
        content: blob(&machine),
    }];
    spec.secrets = vec![Secret {
        variable: "SLUICE_SECRET_T".into(),
        name: "hidden".into(),
        value: ByteBuf::from(b"hunter2".to_vec()),
    }];
    let trace = machine.path().join("trace");
    let strace = format!(
        "exec /usr/bin/strace -f -y -qq -o {} -e trace=openat,?mkdir,mkdirat,fchown,write,copy_file_range,sendfile,splice \"$0\"",
        trace.display()
    );
    let report = collect(spawn_from(&strace, &spec));
    assert_eq!(report.outcome().end, End::Code(0));
    let text = std::fs::read_to_string(trace).unwrap();
    let calls: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(") = ") && !line.contains("/sys/fs/cgroup"))
        .collect();
    let made = |call: &&&str| call.contains("O_CREAT") || call.contains(" mkdir");
    for call in calls.iter().filter(made) {
        let arguments = call.rsplit_once(") = ").unwrap().0;
        let mode = u32::from_str_radix(arguments.rsplit(", ").next().unwrap(), 8);
        assert_eq!(mode.map(|mode| mode & 0o066), Ok(0), "{call}");
    }
    for name in ["/script>", "/attached>", "/hidden>"] {
        let first = |names: &[&str]| {
            let is =
                |call: &&str| call.contains(name) && names.iter().any(|name| call.contains(name));
            calls.iter().position(is)
        };
        let owner = first(&[" fchown("]);
        let content = first(&[" write(", " copy_file_range(", " sendfile(", " splice("]);
        assert!(
            owner.is_some() && owner < content,
            "{name} {owner:?} {content:?}\n{text}"
        );
    }
}
