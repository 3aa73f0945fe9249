//! How operations will be held together on this machine: found out once at the start, by a shim that tries it.

use sluice_protocol::causes::Causes;
use sluice_protocol::message::control::Fact;
use sluice_shim::{Found, Whereabouts};

use crate::exec::spawn::Launcher;
use crate::facts;

/// Finds out what there is. Where shims would be in the agent's own cgroup, the agent makes room for them first: it moves
/// to a leaf of that group, and they go beside it.
pub async fn establish(launcher: &Launcher) -> Found {
    let mut found = try_out(launcher).await;
    if found.shims == Whereabouts::WithAgent {
        // A few writes to files of the kernel's, while the agent does nothing else yet.
        match sluice_shim::settle() {
            Ok(true) => found = try_out(launcher).await,
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "the agent stays in the cgroup it was started in")
            }
        }
    }
    for note in &found.notes {
        tracing::warn!(note, "cgroups are not as they should be");
    }
    tracing::info!(
        containment = %found.kind,
        limits = limits(&found),
        shims = %found.shims,
        "how operations are held together"
    );
    found
}

/// For the inventory and for gates.
#[must_use]
pub fn facts(found: &Found) -> [Fact; 3] {
    [
        facts::text("containment", found.kind.to_string()),
        facts::text("containment.limits", limits(found)),
        facts::text("containment.shims", found.shims.to_string()),
    ]
}

async fn try_out(launcher: &Launcher) -> Found {
    launcher.try_out().await.unwrap_or_else(|error| {
        Found::nothing(format!("no shim could try them: {}", Causes(&error)))
    })
}

/// `memory,processes,cpu`, or `none`.
fn limits(found: &Found) -> String {
    let names: Vec<_> = found.limits.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(",")
    }
}

#[cfg(test)]
mod tests {
    use sluice_protocol::message::control::FactValue;
    use sluice_shim::Controller;
    use sluice_shim::event::ContainmentKind;

    use super::*;

    #[test]
    fn what_was_found_is_told_in_words_that_the_owner_knows() {
        let told = |found: &Found| facts(found).map(|fact| (fact.key, fact.value));
        let text = |text: &str| FactValue::Text(text.to_owned());
        let found = Found {
            kind: ContainmentKind::CgroupV2,
            limits: vec![Controller::Memory, Controller::Processes],
            shims: Whereabouts::Scope,
            notes: Vec::new(),
        };
        assert_eq!(
            told(&found),
            [
                ("containment".to_owned(), text("cgroup-v2")),
                ("containment.limits".to_owned(), text("memory,processes")),
                ("containment.shims".to_owned(), text("scope")),
            ]
        );
        let nothing = told(&Found::nothing("no shim".to_owned()));
        assert_eq!(
            nothing.map(|(_, value)| value),
            [text("none"), text("none"), text("with-agent")]
        );
    }
}
