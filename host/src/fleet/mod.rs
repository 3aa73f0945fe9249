//! The machines: what they are called, who is connected, how they join and leave.

mod address;
mod change;
mod enroll;
mod history;
mod name;
mod presence;
mod quarantine;
mod tag;

pub use address::{AddressRange, InvalidRange};
pub use change::{ChangeError, approve, deny, identity, patch, revoke};
pub use enroll::{
    Approval, EnrollError, Joined, MAX_FACTS, NewToken, Terms, admit, bound_facts, create_token,
    refuse, revoke_token,
};
pub use history::{Judged, judge};
pub use name::{InvalidName, MachineName};
pub(crate) use name::{LONGEST as LONGEST_NAME, is_plain_name};
pub use presence::{Closing, Command, Fate, Inbox, LinkQuality, Presence, Session};
pub use quarantine::{Reason, is_same_computer, quarantine, release};
pub use tag::{InvalidTag, MAX_TAGS, parse as parse_tag};
