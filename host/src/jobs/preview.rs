//! Which machines a request would run on and what it would wait for, before anybody makes a job of it.

use std::collections::BTreeMap;

use sluice_api_types::job::{JobPreview, PreviewedMachine, PreviewedWindow, SubmitJob};
use sluice_protocol::ids::{MachineId, TenantId};

use super::submit::{SubmitError, meant_now};
use super::targets::Target;
use super::{Order, hold};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::store::Extent;
use crate::windows::{Closed, Look, Standing};

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
    now: UnixMillis,
) -> Result<JobPreview, SubmitError> {
    let (order, targets) = meant_now(host, actor, request, now).await?;
    let foreseen = hold::foresee(host, actor, &order, &targets, now).await?;
    let mut preview = JobPreview {
        count: 0,
        connected: 0,
        machines: Vec::new(),
        not_found: Vec::new(),
        approval: foreseen.approval,
        approval_if_found: foreseen.if_found,
        windows: windows(host, actor.tenant.id, &order, &targets, now).await?,
    };
    for target in targets {
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

/// The windows that are closed now for machines of a job, the first to open first, and those that never do at the end.
async fn windows(
    host: &SharedHost,
    tenant: TenantId,
    order: &Order,
    targets: &[Target],
    now: UnixMillis,
) -> Result<Vec<PreviewedWindow>, SubmitError> {
    let there = targets.iter().filter_map(|target| match target {
        Target::Machine(machine) => Some(machine.id),
        Target::NotFound(_) => None,
    });
    let (asked, there): (_, Vec<MachineId>) = (order.windows.clone(), there.collect());
    let closed = host
        .store
        .look(Extent::of_rows(there.len()), move |conn| {
            let mut look = Look::ahead(conn, tenant, &asked, now)?;
            let mut closed = Vec::new();
            for machine in there {
                if let Standing::Closed(one) = look.standing(conn, Some(machine))? {
                    closed.push(one);
                }
            }
            Ok::<_, SubmitError>(closed)
        })
        .await?;
    Ok(counted(closed))
}

/// For each window and time how many machines wait for it.
fn counted(closed: Vec<Closed>) -> Vec<PreviewedWindow> {
    let mut counts = BTreeMap::new();
    for Closed { window, opens } in closed {
        // What never opens is the last.
        *counts.entry((opens.is_none(), opens, window)).or_insert(0) += 1;
    }
    let windows = counts.into_iter();
    windows
        .map(|((_, opens, name), machines)| PreviewedWindow {
            name,
            opens_at: opens.map(|at| at.to_string()),
            machines,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::NOW;

    #[test]
    fn machines_are_counted_by_what_they_wait_for_and_the_first_to_open_is_the_first() {
        let closed = |window: &str, opens| Closed {
            window: window.to_owned(),
            opens,
        };
        let later = NOW.plus(sluice_protocol::units::Span::seconds(60));
        let windows = counted(vec![
            closed("never", None),
            closed("a", Some(later)),
            closed("b", Some(NOW)),
            closed("a", Some(later)),
        ]);
        let shown: Vec<_> = windows
            .iter()
            .map(|one| (one.name.as_str(), one.opens_at.clone(), one.machines))
            .collect();
        assert_eq!(
            shown,
            [
                ("b", Some(NOW.to_string()), 1),
                ("a", Some(later.to_string()), 2),
                ("never", None, 1)
            ]
        );
    }
}
