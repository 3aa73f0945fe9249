//! What tests say that they left out, from all their processes: a test that cannot run on a machine prints
//! `LEFT OUT: <why>` and passes, and whoever reads that everything passed has to know what did not run.

use std::collections::BTreeSet;

use crate::steps::headline;

/// How the line of a test begins that leaves something out.
const MARK: &str = "LEFT OUT: ";

/// Which test left something out, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeftOut {
    test: String,
    why: String,
}

/// From the report of nextest, which has what each test printed: <https://nexte.st/docs/machine-readable/junit/>.
pub(crate) fn of_report(report: &str) -> BTreeSet<LeftOut> {
    let name = |line: &str| {
        let (_, rest) = line.split_once("<testcase name=\"")?;
        Some(plain(rest.split('"').next()?))
    };
    collect(report, name, |why| {
        plain(why.split("</system-").next().unwrap_or(why))
    })
}

/// From what `cargo test` or a test program prints with `--show-output`.
pub(crate) fn of_output(output: &str) -> BTreeSet<LeftOut> {
    let name = |line: &str| {
        let name = line.strip_prefix("---- ")?.strip_suffix(" stdout ----")?;
        Some(name.to_owned())
    };
    collect(output, name, str::to_owned)
}

fn collect(
    text: &str,
    name: impl Fn(&str) -> Option<String>,
    clean: impl Fn(&str) -> String,
) -> BTreeSet<LeftOut> {
    let mut test = String::new();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = name(line) {
            test = name;
        }
        if let Some((_, why)) = line.split_once(MARK) {
            found.insert(LeftOut {
                test: test.clone(),
                why: clean(why),
            });
        }
    }
    found
}

/// Text of XML as it was.
fn plain(text: &str) -> String {
    [
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (escaped, character)| {
        text.replace(escaped, character)
    })
}

/// Prints all of it.
pub(crate) fn show(left_out: &BTreeSet<LeftOut>) {
    headline("Left out on this machine");
    if left_out.is_empty() {
        println!("   nothing");
    }
    for LeftOut { test, why } in left_out {
        println!("   {test}: {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(found: &BTreeSet<LeftOut>) -> Vec<(&str, &str)> {
        let pairs = found.iter();
        pairs
            .map(|left_out| (left_out.test.as_str(), left_out.why.as_str()))
            .collect()
    }

    #[test]
    fn every_test_of_a_report_is_named_with_every_reason() {
        let report = r#"<testsuite name="sluice-shim::shim" tests="3">
        <testcase name="cleaning::a" classname="sluice-shim::shim" time="0.1">
            <system-out>
running 1 test
test cleaning::a ... ok
</system-out>
            <system-err>LEFT OUT: &quot;strace&quot; &amp; co. are not installed
LEFT OUT: mounts: &lt;none&gt;</system-err>
        </testcase>
        <testcase name="cleaning::b" classname="sluice-shim::shim" time="0.1">
            <system-err>all is well</system-err>
        </testcase>
        <testcase name="context::c" classname="sluice-shim::shim" time="0.1">
            <system-err>LEFT OUT: needs root</system-err>
        </testcase>
"#;
        assert_eq!(
            pairs(&of_report(report)),
            [
                ("cleaning::a", "\"strace\" & co. are not installed"),
                ("cleaning::a", "mounts: <none>"),
                ("context::c", "needs root"),
            ]
        );
    }

    #[test]
    fn what_cargo_test_shows_is_found_as_well() {
        let output = "test users::a ... ok\n\nsuccesses:\n\n---- users::a stdout ----\nLEFT OUT: needs root\n\n---- users::b stdout ----\nfine\n";
        assert_eq!(pairs(&of_output(output)), [("users::a", "needs root")]);
    }
}
