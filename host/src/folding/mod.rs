//! What a job came to, with machines of the same result folded into one group.
//!
//! Outputs are read one operation after the other and hashed while they are read; of each group only an example is read
//! again, up to a bound, for people and for its difference from the largest group.

mod difference;
mod group;
mod normalize;
mod read;

pub use group::{STEP, group_of, groups};
