//! What there will be for operations, found out beforehand by doing what they do: the owner shall know it before anything
//! runs.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{By, Controller, Groups};
use crate::child;
use crate::event::ContainmentKind;
use crate::spec::Limits;

/// The argument with which the program tries cgroups, and nothing else.
pub const TRY_OUT: &str = "--try-cgroups";

/// Where shims are, seen from the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whereabouts {
    /// In a scope of their own, which systemd does not end with the agent's service.
    Scope,
    /// In a group beside the agent's: who ends that one ends no shim.
    Beside,
    /// In the agent's own group.
    WithAgent,
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scope => "scope",
            Self::Beside => "beside",
            Self::WithAgent => "with-agent",
        })
    }
}

/// What a shim found that tried it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// How operations are held together.
    pub kind: ContainmentKind,
    /// What is limited for an operation as a whole.
    pub limits: Vec<Controller>,
    /// Where the shim was.
    pub shims: Whereabouts,
    /// What is not as it should be.
    pub notes: Vec<String>,
}

impl Found {
    /// What is assumed where it could not be tried.
    #[must_use]
    pub fn nothing(reason: String) -> Self {
        Self {
            kind: ContainmentKind::None,
            limits: Vec::new(),
            shims: Whereabouts::WithAgent,
            notes: vec![reason],
        }
    }

    /// Reads what [`try_out`] wrote.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ciborium::de::Error<std::io::Error>> {
        ciborium::from_reader(bytes)
    }
}

/// The program with [`TRY_OUT`]: makes groups as a shim does, sees whether a process gets in, writes a [`Found`]
/// to standard output as CBOR, and removes them.
#[must_use]
pub(crate) fn try_out() -> ExitCode {
    let groups = Groups::make();
    let shims = groups.whereabouts;
    let mut notes = Vec::new();
    // Any limits: what counts is whether the kernel takes them.
    let containment = groups.limit(
        &Limits {
            time: Duration::from_secs(1),
            grace: Duration::ZERO,
            output: 0,
            memory: Some(1 << 30),
            processes: Some(64),
            cpu_percent: Some(100),
            file_size: None,
            open_files: None,
        },
        &mut notes,
    );
    let entered = containment.unified.as_deref().is_some_and(child::can_enter);
    let limiting = containment.limiting();
    let limits = Controller::ALL
        .into_iter()
        .filter(|controller| By::limits(&limiting, *controller, entered));
    let found = Found {
        kind: containment.kind(entered),
        limits: limits.collect(),
        shims,
        notes: notes.clone(),
    };
    containment.remove(&mut notes);
    let mut bytes = Vec::new();
    let written = ciborium::into_writer(&found, &mut bytes)
        .is_ok_and(|()| std::io::stdout().write_all(&bytes).is_ok());
    if written {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
