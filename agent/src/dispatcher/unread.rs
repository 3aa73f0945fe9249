//! Operations of which something that the ledger keeps cannot be read: another version of the agent wrote it, or it is
//! damaged.
//!
//! Each is answered, whatever is left of it. One that was not started is not started any more. One that was is followed to its
//! end in its spool, which the shim writes; what the gates said is lost then.

use std::sync::Arc;

use sluice_protocol::bundle::Limits;
use sluice_protocol::causes::Causes;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::operation::Operation;
use sluice_protocol::report::Report;

use crate::clock::now;
use crate::ledger::Passed;
use crate::operation;
use crate::policy::output_limit;
use crate::stored::{Kept, Unreadable};
use crate::supervisor::Agent;

/// Something that the ledger has of an operation and that cannot be read.
pub(super) struct Unread {
    what: Kept,
    problem: Unreadable,
    left: Left,
    /// For the operator.
    note: String,
}

/// What an operation can be taken up from.
pub(super) enum Left {
    /// Nothing was started.
    Nothing,
    /// What is known since it started.
    Passed(Box<Passed>),
    /// Its spool alone.
    Spool,
}

impl Unread {
    pub(super) fn new(what: Kept, problem: Unreadable, left: Left) -> Self {
        let kept = match what {
            Kept::Report => "the report that this machine kept of how it ended",
            Kept::Start => "what this machine kept when it started this",
            Kept::Operation => "what this machine kept of the operation",
        };
        let then = match &left {
            Left::Nothing => "; nothing was started",
            Left::Passed(_) => "",
            Left::Spool => {
                "; what the gates said is lost, and what became of the script is said by its spool alone"
            }
        };
        Self {
            note: format!("{kept} cannot be read: {}{then}", problem.sentence()),
            what,
            problem,
            left,
        }
    }
}

impl Agent {
    /// Starts the task that takes an operation to its report of which something that was kept cannot be read. It starts
    /// nothing; what was started is followed to its end.
    pub(super) fn begin_unread(
        self: &Arc<Self>,
        id: OperationId,
        operation: Option<Operation>,
        of: Unread,
    ) {
        let Some((journal, canceled)) = self.enter(id, operation.as_ref()) else {
            return;
        };
        journal.accepted();
        let asked = operation
            .as_ref()
            .map_or_else(Limits::default, |operation| operation.submission.limits);
        let Unread {
            what,
            problem,
            left,
            note,
        } = of;
        tracing::error!(operation = %id, what = what.as_str(), problem = problem.sentence(), "something that was kept of an operation cannot be read");
        if !matches!(left, Left::Nothing) {
            let output = output_limit(&asked, &self.config().limits);
            self.spools.adopt(id, output);
        }
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            let recorded = agent.ledger.forget_unreadable(id, what, &problem, now());
            if let Err(error) = recorded.await {
                tracing::error!(operation = %id, error = %Causes(&error), "what cannot be read is not on the record");
            }
            let report = match left {
                Left::Nothing => Report::without_process(Ending::Error(note), now()),
                Left::Passed(mut passed) => {
                    passed.notes.push(note);
                    operation::adopt(&agent, id, *passed, &journal, canceled).await
                }
                Left::Spool => {
                    operation::adopt_unread(&agent, id, &asked, note, &journal, canceled).await
                }
            };
            if let Some(operation) = &operation {
                agent.release(operation);
            }
            agent.ended(id, report, &journal).await;
        });
    }
}
