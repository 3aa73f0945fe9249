//! The parent's side of `sluice-gate-runner`: starts it, speaks with it, and never believes it.
//!
//! A [`GateDomain`] is one trust domain: it has at most one runner process at a time, which holds the domain's plugins and
//! nothing else. [`evaluate()`] is the story of the gates: environment, prepare, scan, policy.
//!
//! - [`wire`]: frames between parent and runner.
//! - [`memory_file`]: sealed files in memory, in which components and compiled gates pass between them.
//! - [`passing`]: how a frame brings such files along.
//! - [`component`]: a component on its way to being bound.
//! - [`cache`]: compiled components on disk, under a MAC whose key the runner never sees.
//! - [`domain`]: binding a plugin: admit, compile, configure, snapshot, cache, load.
//! - [`program`]: the programs beside our own, and whether others could replace them.
//! - [`render`]: what a preparer planned becomes variables, arguments and literals.
//! - [`evaluate`](mod@evaluate): the pipeline.
//! - [`approval`]: what all policies' decisions come to, and which of them an approval answers.
//! - [`hostile`]: what is made of bytes that nobody believes, for fuzzers.
//! - [`circumstances`], [`replay`]: what is kept of a question, and asking it again.
//! - [`trial`]: one question to one gate, with what it cost, for those who write gates.

pub mod approval;
mod cache;
mod check;
pub mod circumstances;
pub mod component;
pub mod domain;
pub mod evaluate;
pub mod hostile;
pub mod memory_file;
pub mod passing;
mod process;
pub mod program;
mod receipt;
pub mod render;
pub mod replay;
mod translate;
pub mod trial;
pub mod wire;

pub use approval::{APPROVAL_REQUIRED, Approval, Counts};
pub use circumstances::Circumstances;
pub use component::Component;
pub use domain::{
    BindError, BindRequest, BoundGate, DomainOptions, GateDomain, IDLE, settings_sha256,
};
pub use evaluate::{Evaluation, Input, evaluate};
pub use process::{GATE_UIDS, GATE_USER};
pub use translate::{call_limits, fact, settings};
