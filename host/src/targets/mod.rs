//! Machines by what is known of them: `os == "linux" and memory.total >= "2GiB" and tag.role == "web"`.
//!
//! An expression is read once, with bounds, and then asked of one machine after the other. Facts are the machine's claims:
//! an expression chooses among machines that the operator may use anyway, and gives nobody a right.

mod expression;
mod parse;

pub use expression::{Expression, Known};
pub use parse::{ExpressionError, LONGEST};
