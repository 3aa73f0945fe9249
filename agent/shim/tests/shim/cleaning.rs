//! What the shim makes, and only that, is gone at the end.

use crate::harness::{Machine, nobody, root, run};

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
