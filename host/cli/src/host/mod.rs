//! The connection to the host.

mod client;
mod events;
mod settings;

pub(crate) use client::{Answered, Client, Request};
pub(crate) use events::{Event, EventStream};
pub(crate) use settings::{ConfigFile, Environment, Settings, SettingsError, config_path};
