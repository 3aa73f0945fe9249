//! The real shim, given real scripts. What needs root says so on standard error when it is left out.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests start the shim as the agent does"
)]

mod harness;

mod backends;
mod cleaning;
mod confinement;
mod containment;
mod context;
mod keeping;
mod kernel;
mod opened;
mod outcome;
mod spooling;
