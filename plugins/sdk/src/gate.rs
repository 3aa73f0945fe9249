//! The four traits, and the place where a configured gate lives between calls.

use std::sync::OnceLock;

use crate::settings::Settings;
use crate::types::{
    Attribute, Bundle, Check, DataPack, Decision, Finding, GateError, Job, Parameter, Prepared,
    Review, Script,
};

/// Checks what a script requires against the facts of a machine.
pub trait Environment: Sized + Send + Sync + 'static {
    /// Makes the gate. Problems with settings are [`GateError::InvalidSettings`].
    ///
    /// # Errors
    /// The plugin is then not bound.
    fn configure(settings: &Settings, data: &[DataPack]) -> Result<Self, GateError>;

    /// One check for each requirement.
    ///
    /// # Errors
    /// Any error blocks the operation.
    fn check(
        &self,
        script: &Script,
        requirements: &[Attribute],
        facts: &[Attribute],
        job: &Job,
    ) -> Result<Vec<Check>, GateError>;
}

/// Turns parameters into typed values and says where they go.
pub trait Preparer: Sized + Send + Sync + 'static {
    /// Makes the gate. Problems with settings are [`GateError::InvalidSettings`].
    ///
    /// # Errors
    /// The plugin is then not bound.
    fn configure(settings: &Settings, data: &[DataPack]) -> Result<Self, GateError>;

    /// A plan, or the reasons why the operation must not run with these parameters.
    ///
    /// # Errors
    /// Any error blocks the operation.
    fn prepare(
        &self,
        script: &Script,
        parameters: &[Parameter],
        job: &Job,
    ) -> Result<Prepared, GateError>;
}

/// Looks for threats in everything that will run.
pub trait Scanner: Sized + Send + Sync + 'static {
    /// Makes the gate. Problems with settings are [`GateError::InvalidSettings`].
    ///
    /// # Errors
    /// The plugin is then not bound.
    fn configure(settings: &Settings, data: &[DataPack]) -> Result<Self, GateError>;

    /// The same payload in any part of the bundle must give the same finding: go through
    /// [`Bundle::texts`](crate::types::Bundle::texts).
    ///
    /// # Errors
    /// Any error blocks the operation.
    fn scan(&self, bundle: &Bundle, job: &Job) -> Result<Vec<Finding>, GateError>;
}

/// Decides, knowing everything.
pub trait Policy: Sized + Send + Sync + 'static {
    /// Makes the gate. Problems with settings are [`GateError::InvalidSettings`].
    ///
    /// # Errors
    /// The plugin is then not bound.
    fn configure(settings: &Settings, data: &[DataPack]) -> Result<Self, GateError>;

    /// The decision. One that is less restrictive than another gate's has no effect.
    ///
    /// # Errors
    /// Any error blocks the operation.
    fn decide(&self, review: &Review) -> Result<Decision, GateError>;
}

#[expect(
    clippy::derivable_impls,
    reason = "the type is generated, so it cannot derive"
)]
impl Default for Job {
    fn default() -> Self {
        Self {
            attributes: Vec::new(),
        }
    }
}

/// Holds the gate that `configure` made; a snapshot of the memory includes it.
#[derive(Debug)]
pub struct Configured<G>(OnceLock<G>);

impl<G> Configured<G> {
    /// Nothing configured yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Runs `make` and keeps what it returns.
    ///
    /// # Errors
    /// Those of `make`; and `internal` where a gate is there already, because a second configuration would have no
    /// effect.
    pub fn configure(
        &self,
        settings: Vec<Attribute>,
        data: &[DataPack],
        make: impl FnOnce(&Settings, &[DataPack]) -> Result<G, GateError>,
    ) -> Result<(), GateError> {
        log_panics();
        let gate = make(&Settings::new(settings), data)?;
        self.0
            .set(gate)
            .map_err(|_| GateError::Internal("configured a second time".to_owned()))
    }

    /// The configured gate.
    ///
    /// # Errors
    /// `internal` where `configure` was not called or failed.
    pub fn get(&self) -> Result<&G, GateError> {
        self.0
            .get()
            .ok_or_else(|| GateError::Internal("called before configure".to_owned()))
    }
}

/// Sends the text of a panic to the log before it becomes a trap, which has no text. The hook is in the snapshot too.
#[cfg(target_arch = "wasm32")]
fn log_panics() {
    std::panic::set_hook(Box::new(|info| crate::log::error(&info.to_string())));
}

#[cfg(not(target_arch = "wasm32"))]
const fn log_panics() {}

impl<G> Default for Configured<G> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_configured_exactly_once() {
        let place = Configured::new();
        assert!(place.get().is_err());
        assert!(
            place
                .configure(Vec::new(), &[], |_, _| Err::<u8, _>(GateError::Internal(
                    "no".into()
                )))
                .is_err()
        );
        assert!(place.configure(Vec::new(), &[], |_, _| Ok(7_u8)).is_ok());
        assert_eq!(place.get().ok(), Some(&7));
        assert!(place.configure(Vec::new(), &[], |_, _| Ok(8)).is_err());
        assert_eq!(place.get().ok(), Some(&7));
    }
}
