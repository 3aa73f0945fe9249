//! What the decisions of all policies come to, and which of them an approval answers.
//!
//! An approval answers `require-approval` alone, and that for one bundle. What a policy blocks stays blocked.

use sluice_gate_types::answer::{Decision, Verdict};
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Block, Ending};

use crate::evaluate::reasons;

/// The code of an operation that was blocked because nobody has approved it.
pub const APPROVAL_REQUIRED: &str = "approval-required";
/// The code of one that somebody approved on the host, where the machine's owner does not take the host's word for it.
/// It is another one, because approving it again would change nothing.
pub const APPROVAL_NOT_ACCEPTED: &str = "approval-not-accepted";

/// That an operator lets a bundle pass where a policy asks for an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Which bundle; it means nothing for another.
    pub bundle_sha256: Digest,
    /// The operator's name.
    pub by: String,
    /// For which gates it counts.
    pub counts: Counts,
}

/// For which gates an approval counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// For those that the host binds, and not for those that the machine's owner requires.
    ForGatesOfTheHost,
    /// For all.
    ForAllGates,
}

/// Whose word a gate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The host binds it.
    Host,
    /// The machine's owner requires it.
    Owner,
}

/// What an enforcing policy decided.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    /// Its id.
    pub(crate) gate: String,
    /// Whose it is.
    pub(crate) whose: Whose,
    /// Its answer.
    pub(crate) decision: Decision,
}

/// The most restrictive decision wins, where no approval answers it. What lets pass is noted.
pub(crate) fn decide(
    decisions: Vec<Decided>,
    approval: Option<&Approval>,
    bundle_sha256: Digest,
    notes: &mut Vec<String>,
) -> Result<(), Ending> {
    let approval = approval.filter(|approval| approval.bundle_sha256 == bundle_sha256);
    let mut worst: Option<Decided> = None;
    for decided in decisions {
        if let Some(approval) = approval
            && decided.decision.verdict == Verdict::RequireApproval
            && approval.answers(&decided)
        {
            notes.push(format!(
                "{} asks for an approval, and {} approved it: {}",
                decided.gate,
                approval.by,
                reasons(&decided.decision)
            ));
            continue;
        }
        if worst
            .as_ref()
            .is_none_or(|other| decided.decision.verdict > other.decision.verdict)
        {
            worst = Some(decided);
        }
    }
    worst.map_or(Ok(()), |worst| settle(worst, approval, notes))
}

impl Approval {
    fn answers(&self, decided: &Decided) -> bool {
        match self.counts {
            Counts::ForAllGates => true,
            Counts::ForGatesOfTheHost => decided.whose == Whose::Host,
        }
    }
}

fn settle(
    worst: Decided,
    approval: Option<&Approval>,
    notes: &mut Vec<String>,
) -> Result<(), Ending> {
    let Decided { gate, decision, .. } = worst;
    let blocked = |reason: String, code: Option<&str>| {
        Err(Ending::Blocked(Block {
            by: gate.clone(),
            reason,
            code: code.map(str::to_owned),
        }))
    };
    match decision.verdict {
        Verdict::Allow => Ok(()),
        Verdict::AllowWithWarnings => {
            notes.extend(
                decision
                    .reasons
                    .iter()
                    .map(|reason| format!("{gate}: {}", reason.message)),
            );
            Ok(())
        }
        Verdict::RequireApproval => match approval {
            None => {
                notes.push(
                    "another operator can approve exactly this within a day: sluice job approve"
                        .to_owned(),
                );
                blocked(reasons(&decision), Some(APPROVAL_REQUIRED))
            }
            Some(approval) => {
                notes.push(format!(
                    "{} approved it on the host; for a gate that this machine's owner requires that counts only where agent.toml says so ([trust] host_approvals)",
                    approval.by
                ));
                blocked(reasons(&decision), Some(APPROVAL_NOT_ACCEPTED))
            }
        },
        Verdict::Block
            if !decision.reasons.is_empty()
                && decision
                    .reasons
                    .iter()
                    .all(|reason| reason.code == "finding") =>
        {
            Err(Ending::ThreatFound(reasons(&decision)))
        }
        Verdict::Block => blocked(reasons(&decision), None),
    }
}

#[cfg(test)]
mod tests {
    use sluice_gate_types::answer::Reason;

    use super::*;

    fn decided(whose: Whose, verdict: Verdict) -> Decided {
        Decided {
            gate: "policy".to_owned(),
            whose,
            decision: Decision {
                verdict,
                reasons: vec![Reason {
                    code: "targets".to_owned(),
                    message: "many machines".to_owned(),
                }],
            },
        }
    }

    fn approval(of: &[u8], counts: Counts) -> Approval {
        Approval {
            bundle_sha256: Digest::of(of),
            by: "carol".to_owned(),
            counts,
        }
    }

    /// How a bundle `b` ends: the code where it is blocked, and none where it passes.
    fn asked(decisions: &[Decided], approval: Option<&Approval>) -> (Option<String>, Vec<String>) {
        let mut notes = Vec::new();
        let ended = decide(decisions.to_vec(), approval, Digest::of(b"b"), &mut notes);
        let code = match ended {
            Ok(()) => None,
            Err(Ending::Blocked(block)) => Some(block.code.unwrap_or_default()),
            Err(other) => panic!("{other:?}"),
        };
        (code, notes)
    }

    #[test]
    fn an_approval_lets_its_own_bundle_pass_and_no_other_one() {
        let asks = [decided(Whose::Host, Verdict::RequireApproval)];
        let required = Some(APPROVAL_REQUIRED.to_owned());
        assert_eq!(asked(&asks, None).0, required);
        let other = approval(b"another", Counts::ForAllGates);
        assert_eq!(asked(&asks, Some(&other)).0, required);
        for counts in [Counts::ForAllGates, Counts::ForGatesOfTheHost] {
            let (code, notes) = asked(&asks, Some(&approval(b"b", counts)));
            assert_eq!(code, None);
            assert!(notes[0].contains("carol approved it"), "{notes:?}");
        }
    }

    #[test]
    fn what_a_policy_blocks_stays_blocked_whoever_approves_it() {
        let approval = approval(b"b", Counts::ForAllGates);
        for first in [Verdict::Allow, Verdict::RequireApproval, Verdict::Block] {
            let both = [
                decided(Whose::Host, first),
                decided(Whose::Host, Verdict::Block),
            ];
            assert_eq!(asked(&both, Some(&approval)).0, Some(String::new()));
        }
    }

    #[test]
    fn the_hosts_word_does_not_answer_a_gate_of_the_owner_unless_the_owner_says_so() {
        let both = [
            decided(Whose::Host, Verdict::RequireApproval),
            decided(Whose::Owner, Verdict::RequireApproval),
        ];
        let (code, notes) = asked(&both, Some(&approval(b"b", Counts::ForGatesOfTheHost)));
        assert_eq!(code.as_deref(), Some(APPROVAL_NOT_ACCEPTED));
        assert!(
            notes.iter().any(|note| note.contains("host_approvals")),
            "{notes:?}"
        );
        assert_eq!(
            asked(&both, Some(&approval(b"b", Counts::ForAllGates))).0,
            None
        );
    }
}
