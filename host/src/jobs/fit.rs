//! Whether a script is for a machine's system at all: asked before any gate, of what the machine said last.

use sluice_protocol::bundle::Source;
use sluice_protocol::ending::Ending;
use sluice_protocol::message::control::{Fact, FactValue};

/// The end of an operation whose script is for other systems; none where it fits. Where nobody knows yet, the machine
/// itself is asked, as long as the script's header says what it is for. What the library alone says (`listed`) never gets
/// to the machine, so it is decided here.
#[must_use]
pub(super) fn misfit(source: &Source, listed: &[String], facts: &[Fact]) -> Option<Ending> {
    let declared = source
        .header
        .as_ref()
        .map_or(&[][..], |header| &header.requires.os);
    let wanted = if declared.is_empty() {
        listed
    } else {
        declared
    };
    if wanted.is_empty() {
        return None;
    }
    let family = facts.iter().find_map(|fact| match &fact.value {
        FactValue::Text(text) if fact.key == "os.family" => Some(text.as_str()),
        _ => None,
    });
    let Some(family) = family else {
        return declared
            .is_empty()
            .then(|| Ending::Unsupported(UNKNOWN.to_owned()));
    };
    let fits = wanted.iter().any(|os| os.eq_ignore_ascii_case(family));
    (!fits).then(|| Ending::Unsupported(display_name(family).to_owned()))
}

/// A machine that was never connected.
const UNKNOWN: &str = "the machine has not said yet which system it runs";

/// The name of a system as people write it.
fn display_name(family: &str) -> &str {
    match family {
        "linux" => "Linux",
        "windows" => "Windows",
        "macos" => "macOS",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use sluice_protocol::bundle::Submission;

    use super::*;

    fn source(script: &str) -> Source {
        Source::read(&Submission::of(script)).expect("reads")
    }

    #[test]
    fn a_script_for_another_system_does_not_fit() {
        let linux = [Fact {
            key: "os.family".to_owned(),
            value: FactValue::Text("linux".to_owned()),
        }];
        let windows = source(
            "#!/bin/sh\n# /// sluice\n# [requires]\n# os = [\"windows\", \"macos\"]\n# ///\n",
        );
        let message = misfit(&windows, &[], &linux).map(|ending| ending.message());
        assert_eq!(
            message.as_deref(),
            Some("Script not supported on target environment: Linux")
        );
        assert_eq!(
            misfit(&windows, &[], &[]),
            None,
            "a machine that was never connected is asked itself"
        );
        assert_eq!(misfit(&source("#!/bin/sh\n"), &[], &linux), None);
        assert_eq!(
            misfit(
                &source("#!/bin/sh\n# /// sluice\n# [requires]\n# os = [\"linux\"]\n# ///\n"),
                &[],
                &linux
            ),
            None
        );
    }

    #[test]
    fn what_the_library_says_is_decided_before_anything_is_sent() {
        let plain = source("#!/bin/sh\n");
        let windows = ["windows".to_owned()];
        let linux = [Fact {
            key: "os.family".to_owned(),
            value: FactValue::Text("linux".to_owned()),
        }];
        assert_eq!(
            misfit(&plain, &windows, &linux),
            Some(Ending::Unsupported("Linux".to_owned()))
        );
        assert_eq!(misfit(&plain, &["linux".to_owned()], &linux), None);
        assert!(
            misfit(&plain, &["linux".to_owned()], &[]).is_some(),
            "a machine cannot be asked about what it is not told"
        );
    }
}
