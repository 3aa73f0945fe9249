//! `sluice plugin`: gates.
//!
//! For operators: `install`, `binding`, `publisher`. For authors, who need no host: `new`, `build`, `test`, `bench`,
//! `inspect`, `sign`.

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
mod section;
mod sign;
mod test;
mod workbench;

pub(crate) use case::CaseError;
pub(crate) use command::{PluginCommand, run};
pub(crate) use new::NewError;
pub(crate) use workbench::WorkbenchError;
