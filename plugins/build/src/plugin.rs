//! One folder becomes one plugin: `plugin.toml` and a crate go in, `<id>.wasm` comes out beside them.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sluice_gate_types::manifest::{Manifest, ManifestError};

use crate::component::{ComponentError, componentize};
use crate::module::{CompileError, compile};
use crate::toolchain::{Toolchain, ToolchainError};

/// A plugin that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// Where it is.
    pub file: PathBuf,
    /// What it says about itself.
    pub manifest: Manifest,
    /// Its bytes.
    pub component: Vec<u8>,
}

/// Builds the plugin in `folder`.
///
/// # Errors
///
/// Whatever keeps it from being built. A component of an earlier build stays as it was.
pub fn build(folder: &Path) -> Result<Built, BuildError> {
    // Cargo works in it, and is told folders of its own.
    let folder = &std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let path = folder.join("plugin.toml");
    let text = std::fs::read_to_string(&path).map_err(|source| BuildError::Read {
        path: path.clone(),
        source,
    })?;
    // Judged before minutes go into compiling.
    let manifest =
        Manifest::parse(&text).map_err(|source| BuildError::Manifest { path, source })?;
    let toolchain = Toolchain::find(folder)?;
    let module = module(&toolchain, folder)?;
    let bytes = std::fs::read(&module).map_err(|source| BuildError::Read {
        path: module,
        source,
    })?;
    let component = componentize(&bytes, &text)?;
    // An id is lower-case words joined by dashes or dots: it names no other folder.
    let file = folder.join(format!("{}.wasm", manifest.id));
    replace(folder, &file, &component).map_err(|source| BuildError::Write {
        path: file.clone(),
        source,
    })?;
    Ok(Built {
        file,
        manifest,
        component,
    })
}

/// The one module of the crate in `folder`, whatever else its workspace builds.
fn module(toolchain: &Toolchain, folder: &Path) -> Result<PathBuf, BuildError> {
    let path = folder.join("Cargo.toml");
    let own = path.canonicalize().map_err(|source| BuildError::Read {
        path: path.clone(),
        source,
    })?;
    let modules = compile(toolchain, folder, &["--release", "--lib"])?;
    let mut modules = modules
        .into_iter()
        .filter(|module| module.manifest.canonicalize().is_ok_and(|path| path == own));
    modules
        .next()
        .map(|module| module.file)
        .ok_or(BuildError::NoModule(path))
}

/// In one step, so that there is never half a component.
fn replace(folder: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o644));
    }
    let mut new = builder.tempfile_in(folder)?;
    new.write_all(bytes)?;
    new.persist(file)?;
    Ok(())
}

/// There is no new component.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Not a plugin's folder.
    #[error("cannot read {path}; a plugin's folder has a plugin.toml and a Cargo.toml, sluice plugin new makes one", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// What the plugin says about itself makes no sense.
    #[error("{path} is refused; nothing was built", path = path.display())]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// Every reason.
        source: ManifestError,
    },
    /// No compiler for it.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// It does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A crate without a library of the right type.
    #[error("{path} makes no module; its [lib] needs crate-type = [\"cdylib\", \"rlib\"]", path = .0.display())]
    NoModule(PathBuf),
    /// No component.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// The folder cannot be written to.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_is_none_is_said_before_anything_is_compiled() {
        let folder = tempfile::tempdir().expect("makes a folder");
        assert!(matches!(build(folder.path()), Err(BuildError::Read { .. })));
        std::fs::write(folder.path().join("plugin.toml"), "id = \"Words\"\n").expect("writes");
        let error = build(folder.path()).expect_err("is refused");
        assert!(matches!(error, BuildError::Manifest { .. }), "{error}");
        let error = error.to_string();
        assert!(
            error.contains("plugin.toml") && error.ends_with("nothing was built"),
            "{error}"
        );
    }
}
