//! A core module becomes a component, with its manifest inside.

use sluice_gate_types::MANIFEST_SECTION;
use wasm_encoder::ComponentSection as _;

/// The component of a core module that was made with the SDK, with `manifest` (the text of `plugin.toml`) as a custom
/// section.
///
/// # Errors
///
/// Where the module does not say which world it implements, or is not valid.
pub fn componentize(module: &[u8], manifest: &str) -> Result<Vec<u8>, ComponentError> {
    let mut component = encode(module).map_err(|error| ComponentError(error.into()))?;
    wasm_encoder::CustomSection {
        name: MANIFEST_SECTION.into(),
        data: manifest.as_bytes().into(),
    }
    .append_to_component(&mut component);
    Ok(component)
}

fn encode(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)?
        .encode()
}

/// The module makes no component.
#[derive(Debug, thiserror::Error)]
#[error("the compiled module makes no component (is one of the SDK's export macros called, once?)")]
pub struct ComponentError(#[source] Box<dyn std::error::Error + Send + Sync>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_module_of_the_kit_is_refused() {
        for bytes in [&b""[..], b"\x7fELF", b"\0asm\x01\0\0\0\x07"] {
            assert!(componentize(bytes, "id = 1").is_err(), "{bytes:?}");
        }
    }
}
