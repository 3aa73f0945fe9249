//! Log lines. They are bounded in number and length by the runtime, and have no effect on the verdict. Off WebAssembly
//! (in tests) they go nowhere.

/// Something only the plugin's author wants to see.
pub fn debug(message: &str) {
    emit(Level::Debug, message);
}

/// Something worth knowing.
pub fn info(message: &str) {
    emit(Level::Info, message);
}

/// Something that looks wrong and that the gate could deal with.
pub fn warn(message: &str) {
    emit(Level::Warn, message);
}

/// Something that the gate could not deal with.
pub fn error(message: &str) {
    emit(Level::Error, message);
}

use crate::bindings::sluice::gate::log::Level;

#[cfg(target_arch = "wasm32")]
fn emit(level: Level, message: &str) {
    crate::bindings::sluice::gate::log::emit(level, message);
}

#[cfg(not(target_arch = "wasm32"))]
const fn emit(_level: Level, _message: &str) {}
