//! What a request needs, and whether its operator has it: before anything is looked up in general, and for each machine once
//! those are known.
//!
//! A script of the library as it is there needs `RunStoredScripts`, for its user, on each machine; anything else needs
//! `RemoteExecution`. So does a version that the operator stored themselves: whoever writes what they run, runs free text.

use std::collections::BTreeSet;

use sluice_api_types::job::SubmitJob;

use super::request::is_as_stored;
use super::targets::Target;
use super::{Order, SubmitError};
use crate::host::SharedHost;
use crate::library::Chosen;
use crate::operators::{About, Actor, Denied, Permission, Run};
use crate::store::jobs::JobRow;
use crate::store::{Extent, StoreError, machines};

/// The permissions that a request needs on each of its machines. Each secret needs one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needs {
    permissions: Vec<Permission>,
    /// Whether a script of the library is what runs, by somebody else's hand. Only then conditions may know it by its name.
    is_stored: bool,
}

impl Needs {
    /// Those of a request, where `chosen` is what it names in the library.
    pub(super) fn of(actor: &Actor, request: &SubmitJob, chosen: Option<&Chosen>) -> Self {
        let wrote_it = chosen.is_some_and(|chosen| chosen.created_by == actor.name);
        Self::with(
            is_as_stored(request) && !wrote_it,
            request.no_security_scan,
            !request.secrets.is_empty(),
        )
        .and(request.ignore_windows.then_some(Permission::IgnoreWindows))
    }

    /// Those of a job that was submitted before, whose script the operator of this name stored in the library, if anybody.
    pub(super) fn of_job(job: &JobRow, stored_by: Option<&str>) -> Self {
        let is_stored = job.as_stored && stored_by.is_some_and(|name| name != job.operator);
        let has_secrets = !job.submission.secrets.is_empty();
        Self::with(is_stored, job.skip_security_scan, has_secrets)
    }

    /// Those of an approval of this order.
    pub(super) fn of_approval(order: &Order) -> Self {
        Self {
            permissions: vec![Permission::ApproveJobs],
            is_stored: order.as_stored,
        }
    }

    /// And this one.
    pub(super) fn and(mut self, permission: Option<Permission>) -> Self {
        self.permissions.extend(permission);
        self
    }

    fn with(is_stored: bool, skips_scan: bool, has_secrets: bool) -> Self {
        let mut needed = vec![if is_stored && !has_secrets {
            Permission::RunStoredScripts
        } else {
            Permission::RemoteExecution
        }];
        if skips_scan {
            needed.push(Permission::SkipSecurityScan);
        }
        if has_secrets {
            needed.push(Permission::UseSecret);
        }
        Self {
            permissions: needed,
            is_stored,
        }
    }

    /// Whether the operator has them at all. Costs no look at anything.
    ///
    /// # Errors
    ///
    /// The first that is missing.
    pub(super) fn in_general(&self, actor: &Actor) -> Result<(), Denied> {
        self.permissions
            .iter()
            .try_for_each(|permission| actor.require(*permission))
    }

    /// Whether the operator has them for what an order does on its machines. What is not there needs nothing: nothing runs.
    ///
    /// # Errors
    ///
    /// The first that is missing, with the machine.
    pub(super) async fn on(
        &self,
        host: &SharedHost,
        actor: &Actor,
        order: &Order,
        targets: &[Target],
    ) -> Result<(), SubmitError> {
        let of = targets.len() as u64;
        self.on_some(host, actor, order, targets, of).await
    }

    /// As [`Self::on`], where the job has `of` machines in all and these are some of them.
    pub(super) async fn on_some(
        &self,
        host: &SharedHost,
        actor: &Actor,
        order: &Order,
        targets: &[Target],
        of: u64,
    ) -> Result<(), SubmitError> {
        let script = order.script.as_ref().filter(|_| self.is_stored);
        let script = script.map(|id| id.name.to_string());
        let run = Run {
            script: script.as_deref(),
            run_as: order.submission.run_as.as_deref(),
            targets: of,
        };
        let there = targets.iter().filter_map(|target| match target {
            Target::Machine(machine) => Some((machine.id, machine.name.as_str())),
            Target::NotFound(_) => None,
        });
        let user = run
            .run_as
            .map(|user| format!(" as {}", user.escape_debug()));
        let user = user.unwrap_or_default();
        let of_all = match of {
            1 => String::new(),
            count => format!(" (of {count} machines)"),
        };
        let asked = |tags: &[String], machine: &str| -> Result<(), Denied> {
            let place = format!("{machine}{user}{of_all}");
            for permission in &self.permissions {
                if *permission != Permission::UseSecret {
                    actor.require_on(*permission, About::Run { tags, run }, &place)?;
                    continue;
                }
                for secret in &order.submission.secrets {
                    let place = format!("the secret {} on {place}", secret.escape_debug());
                    let about = About::Secret { tags, run, secret };
                    actor.require_on(*permission, about, &place)?;
                }
            }
            Ok(())
        };
        // Where no condition can come in, no machine's tags do, and one answer is that for all.
        let always = |permission: &Permission| actor.rights.may_always(*permission);
        if self.permissions.iter().all(always) {
            let mut there = there;
            return there
                .next()
                .map_or(Ok(()), |(_, name)| Ok(asked(&[], name)?));
        }
        let there: Vec<_> = there.map(|(id, name)| (id, name.to_owned())).collect();
        let tagged = host
            .store
            .look(Extent::of_rows(there.len()), move |conn| {
                let with_tags = |(id, name)| Ok((machines::words_of_tags(conn, id)?, name));
                there
                    .into_iter()
                    .map(with_tags)
                    .collect::<Result<Vec<_>, StoreError>>()
            })
            .await?;
        // A fleet has many machines and few ways to be tagged.
        let mut seen = BTreeSet::new();
        for (tags, name) in &tagged {
            if seen.insert(tags) {
                asked(tags, name)?;
            }
        }
        Ok(())
    }
}
