//! What stdout and stderr look like.

mod inert;
mod list;
mod prefix;
mod print;

pub(crate) use inert::Inert;
pub(crate) use list::{List, record};
pub(crate) use prefix::LinePrefixer;
pub(crate) use print::{complain, json_line, print};
