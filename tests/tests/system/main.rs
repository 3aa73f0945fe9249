//! The whole system, from outside: real processes, real scripts, the real command line.

#![allow(
    clippy::disallowed_methods,
    reason = "the product is driven from outside, as processes"
)]

mod approvals;
mod attachments;
mod audit;
mod bad_input;
mod bindings;
mod broken_links;
mod clock;
mod confinement;
mod containment;
mod crashes;
mod delivery;
mod duplicates;
mod enrollment;
mod folding;
mod gates;
mod gates_stop;
mod held;
mod history;
mod hostile;
mod hostile_host;
mod hostile_machine;
mod in_order;
mod interpreters;
mod isolation;
mod kit;
mod landscape;
mod library;
mod lockdown;
mod memory;
mod outcomes;
mod output;
mod parameters;
mod previews;
mod receipts;
mod resumed;
mod roles;
mod rollouts;
mod schedules;
mod secrets;
mod shipped;
mod size;
mod slots;
mod superseded;
mod targets;
mod tenants;
mod trust;
mod unruly_host;
mod users;
mod versions;
mod why;
mod windows;
mod workspace;
