//! The shipped gates: built from source as pure components, with their manifest embedded, and signed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use sluice_gate_types::MANIFEST_SECTION;
use sluice_gate_types::manifest::Manifest;
use sluice_gate_types::signature::{SigningKey, Statement};
use wasm_encoder::ComponentSection as _;

use crate::steps::{cargo, root, run, target};

/// The shipped plugins: folder and name.
pub(crate) const NAMES: &[&str] = &["environment", "parameters", "scanner", "policy"];

const TARGET: &str = "wasm32-unknown-unknown";
/// How long a signature of a development key is good for.
const VALID_MS: u64 = 365 * 24 * 3600 * 1000;

/// Builds all of them and returns the folder with the results.
pub(crate) fn build() -> Result<PathBuf> {
    let modules = compile()?;
    let out = target().join("plugins");
    fs::create_dir_all(&out)?;
    let key = publisher(&out)?;
    for name in NAMES {
        let module = fs::read(modules.join(format!("sluice_plugin_{name}.wasm")))?;
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

/// The component of a core module, with the manifest as a custom section.
fn componentize(module: &[u8], manifest: &str) -> Result<Vec<u8>> {
    let mut component = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)?
        .encode()?;
    wasm_encoder::CustomSection {
        name: MANIFEST_SECTION.into(),
        data: manifest.as_bytes().into(),
    }
    .append_to_component(&mut component);
    Ok(component)
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

/// Compiles the core modules by the first way that works, and returns their folder.
fn compile() -> Result<PathBuf> {
    let forced = std::env::var("SLUICE_WASM_TOOLCHAIN").unwrap_or_default();
    let build = |command: &mut Command| {
        command.args(["build", "--target", TARGET, "--profile", "plugin"]);
        for name in NAMES {
            command.args(["--package", &format!("sluice-plugin-{name}")]);
        }
        run(command)
    };
    if forced != "debian" && (installed() || add_with_rustup()) {
        build(&mut cargo())?;
        return Ok(target().join(TARGET).join("plugin"));
    }
    if debian()? {
        let folder = target().join("debian-web");
        let linker = main_linker()?;
        let mut command = Command::new("/usr/bin/cargo");
        command
            .current_dir(root())
            .env("RUSTC", "/usr/bin/rustc")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", &folder)
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
            .env_remove("RUSTUP_TOOLCHAIN")
            .arg("-Zbuild-std=std,panic_abort");
        build(&mut command)?;
        return Ok(folder.join(TARGET).join("plugin"));
    }
    bail!(
        "the gates need Rust's target {TARGET}, and neither way to it works here:\n  \
         1. rustup target add {TARGET}\n  \
         2. on Debian, as root: apt-get install rustc-web cargo-web rust-web-src"
    )
}

/// Whether the toolchain that runs us has the target.
fn installed() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(root())
        .output();
    output.is_ok_and(|output| {
        let path = String::from_utf8_lossy(&output.stdout);
        output.status.success()
            && fs::read_dir(path.trim()).is_ok_and(|mut entries| entries.next().is_some())
    })
}

fn add_with_rustup() -> bool {
    println!("the target {TARGET} is not installed; trying rustup target add {TARGET}");
    let status = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(root())
        .status();
    status.is_ok_and(|status| status.success()) && installed()
}

/// Whether Debian's packages for WebAssembly are there; installs them where we may.
fn debian() -> Result<bool> {
    let there = || {
        Path::new("/usr/bin/cargo").exists()
            && Path::new("/usr/lib/rustlib/src/rust/library").exists()
    };
    let root_user = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n");
    if !there() && root_user && Path::new("/usr/bin/apt-get").exists() {
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
        if run(&mut apt).is_err() {
            return Ok(false);
        }
    }
    Ok(there())
}

/// `rust-lld` of the main toolchain, for a compiler that comes without one.
fn main_linker() -> Result<PathBuf> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir"])
        .current_dir(root())
        .output()?;
    let libdir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let linker = libdir
        .parent()
        .context("the toolchain has no library folder")?
        .join("bin/rust-lld");
    if linker.exists() {
        Ok(linker)
    } else {
        bail!("{} does not exist", linker.display())
    }
}
