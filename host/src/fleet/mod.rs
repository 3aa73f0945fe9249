//! The machines: what they are called, who is connected, how they join and leave.

mod enroll;
mod name;
mod presence;
mod tag;

pub use enroll::{EnrollError, Joined, MAX_FACTS, NewToken, admit, bound_facts, create_token, refuse};
pub use name::{InvalidName, MachineName};
pub use presence::{Command, Presence, Session};
pub use tag::{InvalidTag, MAX_TAGS, parse as parse_tag};
