//! `sluice plugin`: gates.
//!
//! For operators: `install`, `binding`, `publisher`, `replay`, `backtest`. For authors, who need no host: `new`, `build`, `test`, `bench`,
//! `inspect`, `sign`.

mod backtest;
mod bench;
mod binding;
mod build;
mod case;
mod command;
mod expectation;
mod inspect;
mod install;
mod new;
mod publisher;
mod replay;
mod section;
mod sign;
mod test;
mod workbench;

pub(crate) use case::CaseError;
pub(crate) use command::{PluginCommand, run};
pub(crate) use new::NewError;
pub(crate) use workbench::WorkbenchError;
