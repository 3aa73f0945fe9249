//! A place to try a plugin in: the runner with the walls and limits of production, and nothing that stays.

use std::io;
use std::path::{Path, PathBuf};

use sluice_gate_client::{BindError, BindRequest, BoundGate, Component, DomainOptions, GateDomain};
use sluice_gate_types::admission::Admitted;
use sluice_gate_types::input::Value;
use sluice_plugin_build::plugin::{self, Built};
use sluice_protocol::report::Mode;
use tempfile::TempDir;

use super::install::{MAX_COMPONENT, read_at_most};
use crate::error::Error;

/// Keeps the runner's unassigned user, where the author is root, apart from those of a host and an agent.
const SLOT: u32 = 99;

/// A trust domain of its own, for as long as the command runs.
pub(super) struct Workbench {
    domain: GateDomain,
    /// Compiled components; removed in the end.
    _cache: TempDir,
}

impl Workbench {
    pub(super) fn new() -> Result<Self, WorkbenchError> {
        let cache = tempfile::tempdir().map_err(WorkbenchError::Runner)?;
        let options = DomainOptions {
            name: "author".to_owned(),
            slot: SLOT,
            cache: cache.path().join("gates"),
            runner: None,
            idle: sluice_gate_client::IDLE,
        };
        let domain = GateDomain::new(options).map_err(WorkbenchError::Runner)?;
        Ok(Self {
            domain,
            _cache: cache,
        })
    }

    /// What the bytes show, and why they could not be snapshotted where that shows.
    pub(super) async fn examine(
        &self,
        component: &[u8],
    ) -> Result<(Admitted, Option<String>), BindError> {
        self.domain.examine(&in_memory(component)?).await
    }

    pub(super) async fn bind(
        &self,
        component: &[u8],
        settings: Vec<(String, Value)>,
    ) -> Result<BoundGate, BindError> {
        let request = BindRequest {
            component: in_memory(component)?,
            settings,
            mode: Mode::Enforce,
            owner: false,
        };
        self.domain.bind(request).await
    }
}

/// The component as the runner gets it.
fn in_memory(component: &[u8]) -> Result<Component, BindError> {
    Component::read(component).map_err(BindError::Runner)
}

/// A component, and where its cases are unless something else is said.
pub(super) struct Subject {
    pub(super) component: Vec<u8>,
    pub(super) cases: PathBuf,
}

impl Subject {
    /// The component in a file; or that of a folder, which is built, so that nobody tries yesterday's.
    pub(super) fn of(path: &Path, cases: Option<&Path>) -> Result<Self, Error> {
        let (component, folder) = if path.is_dir() {
            let Built { component, .. } = plugin::build(path)?;
            (component, path)
        } else {
            let component = read_at_most(path, MAX_COMPONENT)?;
            (component, path.parent().unwrap_or(Path::new("")))
        };
        let cases = cases.map_or_else(|| folder.join("cases"), Path::to_owned);
        Ok(Self { component, cases })
    }
}

/// The plugin cannot be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkbenchError {
    /// No runner.
    #[error(
        "the gate runner cannot be used, so nothing was run; sluice-gate-runner belongs beside sluice"
    )]
    Runner(#[source] io::Error),
    /// It would not be bound either.
    #[error("{0}; a host would not install it")]
    Refused(BindError),
}
