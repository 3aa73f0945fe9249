//! A host's end: an endpoint, the machines that connect to it, and those that want to become one.

mod certificate;
mod connection;
mod endpoint;
mod enrollment;
mod sources;
mod streams;

pub use connection::{DeliverError, FromMachine, HostConnection};
pub use endpoint::{Arrival, BindError, HostEndpoint};
pub use enrollment::EnrollConnection;

#[cfg(test)]
pub(crate) use endpoint::server_config;
