//! The whole system, from outside: real processes, real scripts, the real command line.

#![allow(
    clippy::disallowed_methods,
    reason = "the product is driven from outside, as processes"
)]

mod attachments;
mod audit;
mod bad_input;
mod confinement;
mod delivery;
mod gates;
mod gates_stop;
mod hostile;
mod interpreters;
mod isolation;
mod kit;
mod landscape;
mod library;
mod memory;
mod outcomes;
mod parameters;
mod schedules;
mod shipped;
mod trust;
mod users;
mod workspace;
