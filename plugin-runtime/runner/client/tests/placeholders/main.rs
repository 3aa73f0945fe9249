//! Values at placeholders arrive as they are and never become code: scripts are rendered, and run by the real
//! interpreters.

mod injection;
mod interpreter;
mod languages;
mod random;
mod shells;
mod structure;
mod template;
mod values;
