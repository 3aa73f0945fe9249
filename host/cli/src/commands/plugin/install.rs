//! `sluice plugin install` and `list`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use sluice_api_types::plugin::{InstallPlugin, Plugin};
use sluice_gate_types::signature::MAX_SIGNATURE_FILE;

use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// The largest component that any profile takes; the host judges by the plugin's own.
pub(super) const MAX_COMPONENT: u64 = 32 << 20;

pub(super) async fn install(
    global: &Global,
    file: &Path,
    tenant: Option<String>,
) -> Result<u8, Error> {
    if file.to_str().is_some_and(|name| name.starts_with("oci://")) {
        return Err(Error::NotImplemented("sluice plugin install oci://"));
    }
    let component = read_at_most(file, MAX_COMPONENT)?;
    let signature = read_at_most(&signature_of(file), MAX_SIGNATURE_FILE as u64)?;
    let client = Client::new(global)?;
    let request = InstallPlugin {
        component: component.into(),
        signature: signature.into(),
        tenant,
    };
    let plugin: Plugin = client.post(&["plugins"])?.body(&request).json().await?;
    if global.json {
        output::json_line(&plugin)?
    } else {
        output::print(&format!("{}\n", plugin.sha256))?
    }
    Ok(exit::SUCCESS)
}

pub(super) async fn list(global: &Global, tenant: Option<&str>) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let mut list = List::new(
        &["id", "version", "world", "sha256", "installed"],
        global.json,
    );
    let each = |plugins: Vec<Plugin>| {
        list.write(&plugins, |plugin| {
            vec![
                plugin.id.clone(),
                plugin.version.clone(),
                plugin.world.clone(),
                plugin.sha256.to_string(),
                plugin.installed_at.clone(),
            ]
        })?;
        Ok(true)
    };
    client
        .pages(&["plugins"], &[("tenant", tenant)], None, None, each)
        .await?;
    Ok(exit::SUCCESS)
}

/// `FILE.sig` beside `FILE`.
pub(super) fn signature_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}

/// Reads a file that must not be larger than `max` bytes.
pub(super) fn read_at_most(path: &Path, max: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::read(path))?;
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::read(path))?;
    if bytes.len() as u64 > max {
        let problem =
            format!("larger than the {max} bytes that such a file may have; nothing was sent");
        return Err(Error::Content {
            path: path.to_owned(),
            problem,
        });
    }
    Ok(bytes)
}
