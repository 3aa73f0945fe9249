//! One file for each command; `run`, `plugin` and `script` have folders.

mod dispatch;

pub(crate) mod approval;
pub(crate) mod audit;
pub(crate) mod completion;
pub(crate) mod doctor;
pub(crate) mod grant;
pub(crate) mod job;
pub(crate) mod lockdown;
pub(crate) mod login;
pub(crate) mod machine;
pub(crate) mod man;
pub(crate) mod offer;
pub(crate) mod operator;
pub(crate) mod plugin;
pub(crate) mod role;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod script;
pub(crate) mod secret;
pub(crate) mod tenant;
pub(crate) mod token;
pub(crate) mod window;

pub(crate) use dispatch::run;
