//! Where an agent keeps things, and who it is.
//!
//! ```text
//! <state>/            0700
//!   lock              held by the running agent
//!   identity/         key.der, chain.cbor, root.der, addresses.json, sealing.key, all 0600
//!   ledger.db         operations and the local audit chain
//!   at-work           what is at the gates now
//!   gates/owner/      compiled gates, per trust domain
//!   gates/host/
//!   blobs/            plugins and attachments by digest
//!   spool/            one directory for each operation (see sluice-shim)
//!   run/              private directories of scripts, where the agent is not root
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};
use sluice_protocol::codec;
use sluice_transport::identity::{AgentIdentity, MachineKey};
use sluice_transport::sealing::SealingKey;
use zeroize::Zeroizing;

/// The state directory.
#[derive(Debug, Clone)]
pub struct StateDirectory(PathBuf);

impl StateDirectory {
    /// Opens the directory, making it with mode 0700 where it does not exist.
    ///
    /// # Errors
    ///
    /// Where it cannot be made, is not ours, or is open to others.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let fail = |source| StateError::Io {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(fail)?;
        let path = path.canonicalize().map_err(fail)?;
        let metadata = fs::metadata(&path).map_err(fail)?;
        if metadata.uid() != nix::unistd::geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
            return Err(StateError::Open(path));
        }
        let state = Self(path);
        for name in ["identity", "blobs", "spool", "gates"] {
            let path = state.0.join(name);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|source| StateError::Io { path, source })?;
        }
        Ok(state)
    }

    /// The directory itself, without links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// A path inside.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Keeps a second agent away as long as the result lives.
    ///
    /// # Errors
    ///
    /// Where another agent runs with this state.
    pub fn lock(&self) -> Result<Flock<File>, StateError> {
        let path = self.path("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(|source| StateError::Io { path, source })?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| StateError::Locked(self.0.clone()))
    }

    /// Whether a machine has been enrolled with this state.
    #[must_use]
    pub fn is_enrolled(&self) -> bool {
        self.path("identity/chain.cbor").exists()
    }

    /// Keeps the identity and the host's addresses. The certificate comes last: it is what makes the state enrolled.
    ///
    /// # Errors
    ///
    /// Where a file cannot be written.
    pub fn save_identity(
        &self,
        identity: &AgentIdentity,
        addresses: &[String],
    ) -> Result<(), StateError> {
        self.write("identity/key.der", identity.key().pkcs8())?;
        self.write("identity/root.der", identity.root())?;
        let addresses = serde_json::to_vec(addresses)
            .map_err(|error| self.broken("identity/addresses.json", &error))?;
        self.write("identity/addresses.json", &addresses)?;
        self.save_chain(identity)
    }

    /// Keeps a renewed certificate.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub fn save_chain(&self, identity: &AgentIdentity) -> Result<(), StateError> {
        let chain: Vec<serde_bytes::ByteBuf> =
            identity.chain().map(|der| der.to_vec().into()).collect();
        let chain =
            codec::encode(&chain).map_err(|error| self.broken("identity/chain.cbor", &error))?;
        self.write("identity/chain.cbor", &chain)
    }

    /// Reads the identity and the host's addresses.
    ///
    /// # Errors
    ///
    /// Where the machine is not enrolled, or the files do not belong together.
    pub fn identity(&self) -> Result<(AgentIdentity, Vec<String>), StateError> {
        if !self.is_enrolled() {
            return Err(StateError::NotEnrolled);
        }
        let chain: Vec<serde_bytes::ByteBuf> = codec::decode(&self.read("identity/chain.cbor")?)
            .map_err(|error| self.broken("identity/chain.cbor", &error))?;
        let chain: Vec<Vec<u8>> = chain
            .into_iter()
            .map(serde_bytes::ByteBuf::into_vec)
            .collect();
        let key = MachineKey::from_pkcs8(self.read("identity/key.der")?.into())
            .map_err(|error| self.broken("identity/key.der", &error))?;
        let root = self.read("identity/root.der")?;
        let identity = AgentIdentity::new(key, &chain, &root, SystemTime::now())
            .map_err(|error| self.broken("identity", &error))?;
        let addresses = serde_json::from_slice(&self.read("identity/addresses.json")?)
            .map_err(|error| self.broken("identity/addresses.json", &error))?;
        Ok((identity, addresses))
    }

    /// The key that secrets for this machine are sealed to, made where there is none.
    ///
    /// # Errors
    ///
    /// Where the file cannot be used.
    pub fn sealing_key(&self) -> Result<SealingKey, StateError> {
        const NAME: &str = "identity/sealing.key";
        let broken = |error| self.broken(NAME, &error);
        match self.read(NAME) {
            Ok(bytes) => SealingKey::from_bytes(&Zeroizing::new(bytes)).map_err(broken),
            Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let key = SealingKey::generate().map_err(broken)?;
                self.write(NAME, &key.to_bytes().map_err(broken)?)?;
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, StateError> {
        let path = self.path(name);
        fs::read(&path).map_err(|source| StateError::Io { path, source })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path(name);
        let write = || {
            let directory = path.parent().unwrap_or(&self.0);
            let mut file = tempfile::Builder::new()
                .permissions(fs::Permissions::from_mode(0o600))
                .tempfile_in(directory)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            File::open(directory)?.sync_all()
        };
        write().map_err(|source| StateError::Io {
            path: path.clone(),
            source,
        })
    }

    fn broken(&self, name: &str, error: &dyn std::fmt::Display) -> StateError {
        StateError::Broken {
            path: self.path(name),
            reason: error.to_string(),
        }
    }
}

/// The state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not ours alone.
    #[error("{} must belong to the agent's user and be closed to others (mode 0700), because it holds the machine's key", .0.display())]
    Open(PathBuf),
    /// Another agent is there.
    #[error("another agent is running with the state in {}", .0.display())]
    Locked(PathBuf),
    /// No identity.
    #[error(
        "this machine is not enrolled; get a token with `sluice machine enroll-token` and run `sluice-agent enroll`"
    )]
    NotEnrolled,
    /// Not what was written.
    #[error("{} cannot be used: {reason}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
