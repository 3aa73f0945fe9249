//! The whole system, from outside: real processes, real scripts, the real command line.

mod audit;
mod bad_input;
mod delivery;
mod gates;
mod gates_stop;
mod isolation;
mod outcomes;
mod parameters;
mod trust;
mod workspace;
