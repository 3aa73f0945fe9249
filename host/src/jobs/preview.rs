//! What would come of a request, before anybody makes a job of it: by the ways of the request itself, so that it cannot say
//! something else.

use std::collections::BTreeMap;

use sluice_api_types::job::SubmitJob;
use sluice_api_types::lockdown::Lockdown;
use sluice_api_types::preview::{
    JobPreview, Obstacle, PreviewedBatch, PreviewedEnd, PreviewedMachine, PreviewedMachines,
    PreviewedObstacle, PreviewedWindow,
};
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::{MachineId, OperationId, TenantId};

use super::submit::{self, For, Foreseen, SubmitError};
use super::targets::Target;
use super::{Order, record};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::rollouts::Batches;
use crate::store::lockdown::LockdownRow;
use crate::store::machines::MachineRow;
use crate::store::{Extent, StoreError, history};
use crate::windows::{Closed, Look, Standing};

/// The most names that are shown, of machines and of what is not there.
const SHOWN: usize = 100;

/// What would come of a request now. Needs what submitting it needs, and asks all that this asks in the same way, but makes
/// nothing of it. Gates answer it, so it is on the record before it is told: nobody tries one text after the other at them unseen.
///
/// # Errors
///
/// The request would be refused; nothing is told of it then.
pub async fn preview(
    host: &SharedHost,
    actor: &Actor,
    request: SubmitJob,
    now: UnixMillis,
) -> Result<JobPreview, SubmitError> {
    let (order, needs) = submit::read(host, actor, request).await?;
    let meant = submit::meant(host, actor.tenant.id, &order, For::Preview).await?;
    let (targets, gates) = (&meant.targets, &meant.gates);
    let foreseen = submit::foresee(host, actor, &order, &needs, targets, gates, now).await?;
    let hold = record::hold(host, actor, &order, targets, now).await?;
    let (planned, threshold) = (foreseen.batches.clone(), &foreseen.threshold);
    let batches = record::held_in(planned, threshold, &hold, targets.len() as u64);
    let ends = ends(host, actor, &order, targets, &foreseen, batches.is_some()).await?;
    let mut preview = JobPreview {
        count: 0,
        connected: 0,
        machines: Vec::new(),
        not_found: Vec::new(),
        lockdown: meant.lockdown.map(shown),
        batches: batches.map_or_else(Vec::new, |batches| in_batches(&batches, targets)),
        ended: by_end(targets, &ends),
        obstacles: obstacles(host, actor.tenant.id, targets, &ends).await?,
        unseen: meant.unseen,
        approval: threshold.previewed(),
        windows: windows(host, actor.tenant.id, &order, targets, now).await?,
        include_later: order.later.is_some(),
    };
    for target in targets {
        match target {
            Target::Machine(machine) => {
                let connected = host.presence.get(machine.id).is_some();
                preview.count += 1;
                preview.connected += u64::from(connected);
                if preview.machines.len() < SHOWN {
                    preview.machines.push(PreviewedMachine {
                        name: machine.name.clone(),
                        connected,
                    });
                }
            }
            Target::NotFound(typed) => {
                if preview.not_found.len() < SHOWN {
                    preview.not_found.push(typed.clone());
                }
            }
        }
    }
    on_the_record(host, actor, &order, &preview, now).await?;
    Ok(preview)
}

/// Records who asked what would come of which script.
async fn on_the_record(
    host: &SharedHost,
    actor: &Actor,
    order: &Order,
    preview: &JobPreview,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let ended: u64 = preview.ended.iter().map(|end| end.on.machines).sum();
    let event = Event::by(EventKind::JobPreviewed, actor)
        .with_script(Digest::of(&order.submission.script))
        .detail("machines", preview.count)
        .detail("ended", ended)
        .detail("run_as", order.submission.run_as.clone())
        .detail("no_security_scan", order.skip_security_scan);
    let event = match &order.script {
        Some(script) => event.detail("script", script.to_string()),
        None => event,
    };
    let tenant = actor.tenant.clone();
    host.store
        .write(move |conn| audit::append(conn, &tenant, now, [event]).map(|_| ()))
        .await
}

fn shown(row: LockdownRow) -> Lockdown {
    Lockdown {
        on: true,
        since: Some(row.since.to_string()),
        operator: Some(row.operator),
        reason: row.reason,
        canceled: 0,
    }
}

/// How each of the operations would end before anything is sent, where it would.
async fn ends(
    host: &SharedHost,
    actor: &Actor,
    order: &Order,
    targets: &[Target],
    foreseen: &Foreseen,
    is_held: bool,
) -> Result<Vec<Option<Ending>>, SubmitError> {
    let ids: Vec<OperationId> = targets.iter().map(|_| OperationId::generate()).collect();
    let confided = record::confided(host, actor, order, targets, &ids).await?;
    let waits = !order.no_queue || is_held;
    let all = targets.iter().zip(&foreseen.plans).zip(ids);
    let ends = all.map(|((target, plan), id)| match (&plan.ended, target) {
        (Some(report), _) => Some(report.ending.clone()),
        (None, Target::Machine(machine)) => {
            let is_present = host.presence.get(machine.id).is_some();
            record::ends_at_once(is_present, waits, &confided, id)
        }
        // The preflight ends what has no machine.
        (None, Target::NotFound(_)) => None,
    });
    Ok(ends.collect())
}

/// The batches, each with its targets.
fn in_batches(batches: &Batches, targets: &[Target]) -> Vec<PreviewedBatch> {
    let mut of = vec![PreviewedMachines::default(); batches.ends.len()];
    for (position, target) in targets.iter().enumerate() {
        let batch = batches.batch_of(position as u64);
        let index = usize::try_from(batch).unwrap_or(usize::MAX);
        if let Some(batch) = of.get_mut(index.saturating_sub(1)) {
            batch.add(target.name());
        }
    }
    let numbered = (1..).zip(of);
    numbered
        .map(|(batch, of)| PreviewedBatch { batch, of })
        .collect()
}

/// What is ended at once, by how it ends, the most machines first.
fn by_end(targets: &[Target], ends: &[Option<Ending>]) -> Vec<PreviewedEnd> {
    let mut groups: BTreeMap<(String, &str), (State, PreviewedMachines)> = BTreeMap::new();
    for (target, end) in targets.iter().zip(ends) {
        if let Some(end) = end {
            let key = (end.message(), end.state().as_str());
            let (_, machines) = groups
                .entry(key)
                .or_insert_with(|| (end.state(), PreviewedMachines::default()));
            machines.add(target.name());
        }
    }
    let ends = groups.into_iter();
    let mut ends: Vec<_> = ends
        .map(|((message, _), (state, on))| PreviewedEnd { state, message, on })
        .collect();
    ends.sort_by_key(|end| std::cmp::Reverse(end.on.machines));
    ends
}

/// What is in the way of the others.
async fn obstacles(
    host: &SharedHost,
    tenant: TenantId,
    targets: &[Target],
    ends: &[Option<Ending>],
) -> Result<Vec<PreviewedObstacle>, StoreError> {
    let there = targets.iter().zip(ends);
    let there: Vec<&MachineRow> = there
        .filter_map(|(target, end)| match (target, end) {
            (Target::Machine(machine), None) => Some(&**machine),
            _ => None,
        })
        .collect();
    let ids: Vec<MachineId> = there.iter().map(|machine| machine.id).collect();
    let quarantined: Vec<bool> = host
        .store
        .look(Extent::of_rows(ids.len()), move |conn| {
            let is_quarantined = |id: MachineId| {
                let known = history::find(conn, tenant, id)?;
                Ok::<_, StoreError>(known.is_some_and(|known| known.quarantine.is_some()))
            };
            ids.into_iter().map(is_quarantined).collect()
        })
        .await?;
    let mut obstacles: BTreeMap<Obstacle, PreviewedMachines> = BTreeMap::new();
    for (machine, is_quarantined) in there.into_iter().zip(quarantined) {
        let is_away = host.presence.get(machine.id).is_none();
        let has = [
            (Obstacle::Quarantined, is_quarantined),
            (Obstacle::GateProblems, !machine.gates_problems.is_empty()),
            (Obstacle::Offline, is_away && !is_quarantined),
        ];
        for (obstacle, _) in has.into_iter().filter(|(_, has)| *has) {
            obstacles.entry(obstacle).or_default().add(&machine.name);
        }
    }
    let obstacles = obstacles.into_iter();
    Ok(obstacles
        .map(|(obstacle, on)| PreviewedObstacle { obstacle, on })
        .collect())
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
