//! The connection to the host.

mod client;
mod events;
mod settings;

pub(crate) use client::Client;
pub(crate) use events::{Event, EventParser};
pub(crate) use settings::{ConfigFile, Environment, Settings, SettingsError, config_path};
