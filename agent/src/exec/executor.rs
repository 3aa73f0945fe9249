//! What runs scripts: shims, or what a simulation of delivery has in their place.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use sluice_shim::Found;
use sluice_shim::spec::Spec;

use super::containment;
use super::spawn::{LaunchError, Launcher, Waiting};
use super::spool;
use crate::outcome::Events;

/// What runs scripts. A cheap handle.
#[derive(Debug, Clone)]
pub enum Executor {
    /// Processes of their own.
    Shims(Launcher),
    /// Nothing runs, and a spool is written as if. Nothing of the product makes one.
    StandIn(Arc<dyn StandIn>),
}

/// Writes spools as shims do, without a process.
pub trait StandIn: fmt::Debug + Send + Sync {
    /// A script is started, now; what is in `spool` later is what it did. Called once for each start that the agent makes,
    /// after that is in its ledger.
    fn start(&self, operation: &str, spool: PathBuf);
}

/// An operation that is described and not started.
pub(crate) enum Described {
    Shim(Waiting),
    StandIn(Arc<dyn StandIn>, Box<Spec>),
}

impl Executor {
    /// Finds out how operations will be held together.
    pub(crate) async fn containment(&self) -> Found {
        match self {
            Self::Shims(launcher) => containment::establish(launcher).await,
            Self::StandIn(_) => Found::nothing("nothing runs here".to_owned()),
        }
    }

    /// Has whatever takes the next operation wait ready.
    ///
    /// # Errors
    ///
    /// As [`Launcher::prepare_spare`].
    pub(crate) async fn prepare_spare(&self) -> Result<(), LaunchError> {
        match self {
            Self::Shims(launcher) => launcher.prepare_spare().await,
            Self::StandIn(_) => Ok(()),
        }
    }

    /// As [`Launcher::describe`].
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) async fn describe(&self, spec: &Spec) -> Result<Described, LaunchError> {
        match self {
            Self::Shims(launcher) => launcher.describe(spec).await.map(Described::Shim),
            Self::StandIn(stand_in) => Ok(Described::StandIn(
                Arc::clone(stand_in),
                Box::new(spec.clone()),
            )),
        }
    }
}

impl Described {
    /// As [`Waiting::go`].
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) async fn go(self) -> Result<Events, LaunchError> {
        match self {
            Self::Shim(waiting) => Ok(Events::Live(Box::new(waiting.go().await?))),
            Self::StandIn(stand_in, spec) => {
                stand_in.start(&spec.operation, spec.spool.clone());
                let follower =
                    spool::adopt(&spec.spool, &spec.workspace_base, &spec.operation, false);
                Ok(Events::Adopted(Box::new(follower), spec.spool))
            }
        }
    }
}
