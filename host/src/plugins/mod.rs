//! Plugins: whose are trusted, which are installed, and which are put to use.
//!
//! ```text
//! trust a publisher -> install (verify the signature, inspect behind walls, store) -> bind (check settings, try) -> machines
//!                                                                                   -> bind again: the next revision
//! ```

mod bind;
mod gate_set;
pub(crate) mod gates;
mod install;
pub(crate) mod judge;
mod settings;
mod trust;

pub(crate) use bind::find;
pub use bind::{BindError, NewBinding, bind, unbind};
pub use gate_set::{announce, applies, interface, of_machine};
pub use gates::{Gates, prepare};
pub use install::{InstallError, Installed, install};
pub(crate) use settings::{checked, from_json, manifest};
pub use trust::{TrustError, trust, untrust};
