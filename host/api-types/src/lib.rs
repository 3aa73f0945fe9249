//! The words of the REST API: requests, answers and events, as JSON.
//!
//! The host serves them, the `sluice` command reads them, and `/v1/openapi.json` is made from them. Requests refuse
//! fields that they do not know, so that a misspelled option is never silently left out. Answers take unknown fields:
//! keys are only ever added. In reading order, one file for each resource:
//!
//! - [`problem`], [`page`], [`bytes`]: what every route shares.
//! - [`whoami`]: who is asking.
//! - [`job`], [`preview`], [`operation`], [`group`], [`event`], [`blob`]: running scripts.
//! - [`rollout`], [`why`]: many machines one after the other, and what an operation waits for.
//! - [`approval`]: jobs that wait for other operators, and what was approved in advance.
//! - [`script`]: the script library.
//! - [`schedule`], [`lockdown`]: running them by themselves, and not at all.
//! - [`machine`], [`enroll_token`]: the fleet.
//! - [`plugin`], [`publisher`], [`binding`]: the gates; [`receipt`]: what they said.
//! - [`secret`]: what scripts get in confidence.
//! - [`operator`], [`role`], [`token`]: who may do what.
//! - [`tenant`], [`grant`], [`offer`]: the provider, its customers, who works for whom, and what is offered to them.
//! - [`audit`]: the record, and how anyone verifies it.

pub mod approval;
pub mod audit;
pub mod binding;
pub mod blob;
pub mod bytes;
pub mod enroll_token;
pub mod event;
pub mod grant;
pub mod group;
pub mod job;
pub mod later;
pub mod lockdown;
pub mod machine;
pub mod offer;
pub mod operation;
pub mod operator;
pub mod page;
pub mod plugin;
pub mod preview;
pub mod problem;
pub mod publisher;
pub mod receipt;
pub mod role;
pub mod rollout;
pub mod schedule;
pub mod script;
pub mod secret;
pub mod tenant;
pub mod token;
pub mod whoami;
pub mod why;
pub mod window;
