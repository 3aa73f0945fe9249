//! `sluice plugin build`.

use std::path::Path;

use sluice_plugin_build::plugin::{self, Built};
use sluice_protocol::digest::Digest;

use crate::error::Error;
use crate::{exit, output};

pub(super) fn build(json: bool, folder: &Path) -> Result<u8, Error> {
    let Built {
        file,
        manifest,
        component,
    } = plugin::build(folder)?;
    let sha256 = Digest::of(&component);
    if json {
        output::json_line(&serde_json::json!({
            "file": file, "id": manifest.id, "version": manifest.version, "world": manifest.world,
            "size": component.len(), "sha256": sha256,
        }))?;
    } else {
        let kib = component.len().div_ceil(1024);
        output::print(&format!(
            "built {} {} ({kib} KiB) into {}\n{sha256}\n",
            manifest.id,
            manifest.version,
            file.display()
        ))?;
    }
    Ok(exit::SUCCESS)
}
