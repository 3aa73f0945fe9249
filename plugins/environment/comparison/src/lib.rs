//! How facts of machines are compared: by the environment gate with what a script requires, and by the host with what an
//! operator looks for. It depends on nothing, so that the gate stays small.

mod name;
mod version;

pub use name::{is_os, same_arch};
pub use version::{Condition, Version};
