//! `sluice script`: the script library.

mod add;
mod command;
mod end;
mod import;
mod show;
mod version;

pub(crate) use command::{ScriptCommand, run};
pub(crate) use version::StoredScript;
