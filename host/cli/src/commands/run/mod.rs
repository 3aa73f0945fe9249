//! `sluice run`: submit a script, follow it, end with its exit code.

mod arguments;
mod attachment;
mod console;
mod follow;
mod interrupt;
mod preview;
mod story;

pub(crate) use arguments::{JobArgs, KeyValue, Prepared, RunArgs, read_script, tag};
pub(crate) use console::Console;
pub(crate) use story::run;
