//! An agent's end: connect to a host, or enroll with one.

mod connect;
mod connection;
mod enroll;

pub use connect::{connect, connect_on};
pub use connection::{AgentConnection, Delivered};
pub use enroll::{EnrollError, Enrollment, enroll};
