//! The host's word that somebody approved an operation: what it is about, and how far it goes.
//!
//! It is not signed, so it is worth what the host is worth. It answers the gates that the host binds; for those that the
//! machine's owner requires it counts only where the owner says so.

use sluice_gate_client::{Approval, Counts};
use sluice_protocol::ending::{Block, Ending};
use sluice_protocol::ids::MachineId;
use sluice_protocol::message::operation::Operation;

use crate::audit::quoted;
use crate::config::Config;

/// The approval that an operation came with, where it came with one.
///
/// # Errors
///
/// It is for another bundle or another machine: an honest host sends none like that, and nothing is started.
pub(crate) fn of(
    operation: &Operation,
    machine: MachineId,
    config: &Config,
) -> Result<Option<Approval>, Ending> {
    let Some(approval) = &operation.approval else {
        return Ok(None);
    };
    let blocked = |what: &str| {
        Err(Ending::Blocked(Block::machine_policy(format!(
            "the approval that came with this operation is for another {what}"
        ))))
    };
    if approval.bundle_sha256 != operation.bundle_sha256 {
        return blocked("bundle");
    }
    if approval.machine != machine {
        return blocked("machine");
    }
    Ok(Some(Approval {
        bundle_sha256: approval.bundle_sha256,
        by: quoted(&approval.by),
        counts: if config.trust.host_approvals {
            Counts::ForAllGates
        } else {
            Counts::ForGatesOfTheHost
        },
    }))
}

#[cfg(test)]
mod tests {
    use sluice_protocol::digest::Digest;
    use sluice_protocol::message::operation;

    use super::*;
    use crate::testing;

    #[test]
    fn an_approval_for_another_bundle_or_machine_blocks_and_one_for_this_counts_as_the_owner_says()
    {
        let machine = MachineId::generate();
        let mut asked = testing::operation();
        let mut config = Config::default();
        assert_eq!(of(&asked, machine, &config), Ok(None));
        let approval = operation::Approval {
            bundle_sha256: asked.bundle_sha256,
            machine,
            by: "carol\u{1b}[2J".to_owned(),
        };
        asked.approval = Some(approval.clone());
        let taken = of(&asked, machine, &config)
            .expect("is for this")
            .expect("is there");
        assert_eq!(
            (taken.bundle_sha256, taken.counts),
            (asked.bundle_sha256, Counts::ForGatesOfTheHost)
        );
        assert!(!taken.by.contains('\u{1b}'), "{taken:?}");
        config.trust.host_approvals = true;
        let taken = of(&asked, machine, &config)
            .expect("is for this")
            .expect("is there");
        assert_eq!(taken.counts, Counts::ForAllGates);

        let elsewhere = of(&asked, MachineId::generate(), &config);
        assert!(
            matches!(elsewhere, Err(Ending::Blocked(_))),
            "{elsewhere:?}"
        );
        asked.approval = Some(operation::Approval {
            bundle_sha256: Digest::of(b"another"),
            ..approval
        });
        let other = of(&asked, machine, &config);
        assert!(matches!(other, Err(Ending::Blocked(_))), "{other:?}");
    }
}
