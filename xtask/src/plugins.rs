//! The shipped gates: built from source as pure components, with their manifest embedded, and signed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use sluice_gate_types::manifest::Manifest;
use sluice_gate_types::signature::{SigningKey, Statement};
use sluice_plugin_build::component::componentize;
use sluice_plugin_build::module::compile;
use sluice_plugin_build::toolchain::{TARGET, Toolchain, ToolchainError};

use crate::steps::{root, run, target};

/// The shipped plugins: folder and name.
pub(crate) const NAMES: &[&str] = &["environment", "parameters", "scanner", "policy"];

/// How long a signature of a development key is good for.
const VALID_MS: u64 = 365 * 24 * 3600 * 1000;

/// Builds all of them and returns the folder with the results.
pub(crate) fn build() -> Result<PathBuf> {
    let packages: Vec<_> = NAMES
        .iter()
        .map(|name| format!("--package=sluice-plugin-{name}"))
        .collect();
    let options: Vec<_> = ["--profile=plugin"]
        .into_iter()
        .chain(packages.iter().map(String::as_str))
        .collect();
    let modules = compile(&toolchain()?, &root(), &options)?;
    let out = target().join("plugins");
    fs::create_dir_all(&out)?;
    let key = publisher(&out)?;
    for name in NAMES {
        let module = modules
            .iter()
            .find(|module| module.name == format!("sluice_plugin_{name}"))
            .with_context(|| format!("cargo made no module of {name}"))?;
        let module = fs::read(&module.file)?;
        let manifest_path = root().join("plugins").join(name).join("plugin.toml");
        let text = fs::read_to_string(&manifest_path)
            .with_context(|| manifest_path.display().to_string())?;
        let manifest =
            Manifest::parse(&text).with_context(|| manifest_path.display().to_string())?;
        let component =
            componentize(&module, &text).with_context(|| format!("componentizing {name}"))?;
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let statement = Statement {
            id: manifest.id,
            version: manifest.version,
            world: manifest.world,
            sha256: Sha256::digest(&component).into(),
            not_after: now + VALID_MS,
            minimum_version: manifest.version,
        };
        fs::write(out.join(format!("{name}.wasm")), &component)?;
        fs::write(out.join(format!("{name}.wasm.sig")), key.sign(&statement)?)?;
        println!(
            "{name}: {} KiB, {}",
            component.len() / 1024,
            out.join(format!("{name}.wasm")).display()
        );
    }
    Ok(out)
}

/// The development key in `out`, made where there is none, and its public half beside it.
fn publisher(out: &Path) -> Result<SigningKey> {
    let path = out.join("publisher.key");
    let key = match fs::read(&path) {
        Ok(bytes) => SigningKey::from_pkcs8(&bytes).with_context(|| path.display().to_string())?,
        Err(_) => {
            let (key, pkcs8) = SigningKey::generate()?;
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?
                .write_all(&pkcs8)?;
            key
        }
    };
    fs::write(out.join("publisher.pub"), format!("{}\n", key.public()))?;
    Ok(key)
}

/// A way to compile for WebAssembly; one that can be installed here is.
fn toolchain() -> Result<Toolchain> {
    let forced = std::env::var("SLUICE_WASM_TOOLCHAIN").unwrap_or_default();
    if forced != "debian" && (Toolchain::installed(&root())? || add_with_rustup()) {
        return Ok(Toolchain::Installed);
    }
    if Toolchain::debian_is_there() || add_with_apt() {
        return Ok(Toolchain::debian(&root())?);
    }
    Err(ToolchainError::Missing.into())
}

fn add_with_rustup() -> bool {
    println!("the target {TARGET} is not installed; trying rustup target add {TARGET}");
    let status = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(root())
        .status();
    status.is_ok_and(|status| status.success())
        && Toolchain::installed(&root()).is_ok_and(|installed| installed)
}

/// Installs Debian's packages for WebAssembly where we may.
fn add_with_apt() -> bool {
    let root_user = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n");
    if !root_user || !Path::new("/usr/bin/apt-get").exists() {
        return false;
    }
    println!("trying Debian's packages rustc-web, cargo-web and rust-web-src");
    let mut apt = Command::new("apt-get");
    apt.args([
        "install",
        "-y",
        "-qq",
        "rustc-web",
        "cargo-web",
        "rust-web-src",
    ])
    .stdout(Stdio::null());
    run(&mut apt).is_ok() && Toolchain::debian_is_there()
}
