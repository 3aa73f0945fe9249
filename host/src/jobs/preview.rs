//! Which machines a request would run on, before anybody makes a job of it.

use sluice_api_types::job::{JobPreview, PreviewedMachine, SubmitJob};

use super::submit::{SubmitError, targets_now};
use super::targets::Target;
use crate::host::SharedHost;
use crate::operators::Actor;

/// The most names that are shown, of machines and of what is not there.
const SHOWN: usize = 100;

/// What a request means now. Needs what submitting it needs.
///
/// # Errors
///
/// The request would be refused.
pub async fn preview(
    host: &SharedHost,
    actor: &Actor,
    request: SubmitJob,
) -> Result<JobPreview, SubmitError> {
    let mut preview = JobPreview {
        count: 0,
        connected: 0,
        machines: Vec::new(),
        not_found: Vec::new(),
    };
    for target in targets_now(host, actor, request).await? {
        match target {
            Target::Machine(machine) => {
                let connected = host.presence.get(machine.id).is_some();
                preview.count += 1;
                preview.connected += u64::from(connected);
                if preview.machines.len() < SHOWN {
                    preview.machines.push(PreviewedMachine {
                        name: machine.name,
                        connected,
                    });
                }
            }
            Target::NotFound(typed) => {
                if preview.not_found.len() < SHOWN {
                    preview.not_found.push(typed);
                }
            }
        }
    }
    Ok(preview)
}
