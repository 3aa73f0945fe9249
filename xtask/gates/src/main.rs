//! The shipped gates: built from source as pure components, with their manifest embedded, and signed. `cargo xtask plugins`
//! runs this; it is a program of its own because what it needs takes minutes to compile, beside everything else that does.

#![allow(
    clippy::disallowed_methods,
    reason = "starting tools is what this is for"
)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use sluice_gate_types::manifest::Manifest;
use sluice_gate_types::signature::{SigningKey, Statement};
use sluice_plugin_build::component::componentize;
use sluice_plugin_build::module::compile;
use sluice_plugin_build::toolchain::{TARGET, Toolchain, ToolchainError};

/// How long a signature of a development key is good for.
const VALID_MS: u64 = 365 * 24 * 3600 * 1000;

/// `xtask-gates OUT NAME...`, in the workspace's root: `plugins/NAME` becomes `OUT/NAME.wasm`, with its signature beside it.
fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let out = PathBuf::from(arguments.next().context("xtask-gates OUT NAME...")?);
    let names: Vec<_> = arguments.collect();
    ensure!(!names.is_empty(), "no gate is named");
    fs::create_dir_all(&out)?;
    let modules = compile_all(&names)?;
    let key = publisher(&out)?;
    for (name, module) in names.iter().zip(modules) {
        make(&out, name, &module, &key)?;
    }
    Ok(())
}

/// The module of each, in order.
fn compile_all(names: &[String]) -> Result<Vec<Vec<u8>>> {
    let packages: Vec<_> = names
        .iter()
        .map(|name| format!("--package=sluice-plugin-{name}"))
        .collect();
    let options: Vec<_> = ["--profile=plugin"]
        .into_iter()
        .chain(packages.iter().map(String::as_str))
        .collect();
    let modules = compile(&toolchain()?, Path::new("."), &options)?;
    let module = |name: &String| {
        let crate_name = format!("sluice_plugin_{name}");
        let module = modules.iter().find(|module| module.name == crate_name);
        let module = module.with_context(|| format!("cargo made no module of {name}"))?;
        Ok(fs::read(&module.file)?)
    };
    names.iter().map(module).collect()
}

/// Makes the component and signs it.
fn make(out: &Path, name: &str, module: &[u8], key: &SigningKey) -> Result<()> {
    let manifest_path = Path::new("plugins").join(name).join("plugin.toml");
    let text =
        fs::read_to_string(&manifest_path).with_context(|| manifest_path.display().to_string())?;
    let manifest = Manifest::parse(&text).with_context(|| manifest_path.display().to_string())?;
    let component =
        componentize(module, &text).with_context(|| format!("componentizing {name}"))?;
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let statement = Statement {
        id: manifest.id,
        version: manifest.version,
        world: manifest.world,
        sha256: Sha256::digest(&component).into(),
        not_after: now + VALID_MS,
        minimum_version: manifest.version,
    };
    let file = out.join(format!("{name}.wasm"));
    fs::write(&file, &component)?;
    fs::write(out.join(format!("{name}.wasm.sig")), key.sign(&statement)?)?;
    println!("{name}: {} KiB, {}", component.len() / 1024, file.display());
    Ok(())
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
    let here = Path::new(".");
    let forced = std::env::var("SLUICE_WASM_TOOLCHAIN").unwrap_or_default();
    if forced != "debian" && (Toolchain::installed(here)? || add_with_rustup()) {
        return Ok(Toolchain::Installed);
    }
    if Toolchain::debian_is_there() || add_with_apt() {
        return Ok(Toolchain::debian(here)?);
    }
    Err(ToolchainError::Missing.into())
}

fn add_with_rustup() -> bool {
    println!("the target {TARGET} is not installed; trying rustup target add {TARGET}");
    let status = Command::new("rustup")
        .args(["target", "add", TARGET])
        .status();
    status.is_ok_and(|status| status.success())
        && Toolchain::installed(Path::new(".")).is_ok_and(|installed| installed)
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
    apt.status().is_ok_and(|status| status.success()) && Toolchain::debian_is_there()
}
