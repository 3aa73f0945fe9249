//! Components that are made by hand.

use sluice_gate_types::MANIFEST_SECTION;
use wasm_encoder::{ComponentSection as _, CustomSection};

/// A component as text, with this manifest.
///
/// # Panics
///
/// Where the text is none.
#[must_use]
pub fn with_manifest(text: &str, manifest: &str) -> Vec<u8> {
    let component = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    with_section(&component, MANIFEST_SECTION, manifest.as_bytes())
}

/// A component with one more custom section.
#[must_use]
pub fn with_section(component: &[u8], name: &str, data: &[u8]) -> Vec<u8> {
    let mut component = component.to_vec();
    CustomSection {
        name: name.into(),
        data: data.into(),
    }
    .append_to_component(&mut component);
    component
}
