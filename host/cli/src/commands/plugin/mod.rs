//! `sluice plugin`: gates.

mod binding;
mod command;
mod install;
mod publisher;
mod section;
mod sign;

pub(crate) use command::{PluginCommand, run};
