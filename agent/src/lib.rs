//! placeholder

pub mod exec;
