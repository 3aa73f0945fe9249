//! Machines that are enrolled, and what they have of it: to be kept in a file, so that nobody enrolls hundreds anew.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use futures_util::{StreamExt as _, stream as streams};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sluice_protocol::codec;
use sluice_protocol::message::enroll::Token;
use sluice_transport::identity::{AgentIdentity, MachineKey};
use sluice_transport::limits::MAX_ENROLLMENTS_OF_SOURCE;
use tokio::runtime::Runtime;

use crate::fake::machine::enrolled;

/// The names of machines and who they are, in the order of their names.
#[derive(Debug)]
pub(crate) struct Roster(pub(super) Vec<(String, AgentIdentity)>);

/// As it stands in a file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    name: String,
    key: ByteBuf,
    chain: Vec<ByteBuf>,
    root: ByteBuf,
}

impl Roster {
    /// Enrolls so many machines, named `c00001`, `c00002` and so on, with a token that is good for all of them.
    ///
    /// # Panics
    ///
    /// Where the host does not let one of them in.
    pub(crate) fn enroll(runtime: &Runtime, token: &Token, count: usize) -> Self {
        let names: Vec<_> = (1..=count).map(|number| format!("c{number:05}")).collect();
        let enrolling = streams::iter(names)
            .map(|name| async move {
                let identity = enrolled(token, &name).await;
                (name, identity)
            })
            .buffer_unordered(MAX_ENROLLMENTS_OF_SOURCE);
        let mut machines: Vec<_> = runtime.block_on(enrolling.collect());
        machines.sort_by(|one, other| one.0.cmp(&other.0));
        Self(machines)
    }

    /// Keeps them.
    ///
    /// # Panics
    ///
    /// Where the file cannot be written.
    pub(crate) fn save(&self, file: &Path) {
        let lines = self.0.iter().map(|(name, identity)| Line {
            name: name.clone(),
            key: ByteBuf::from(identity.key().pkcs8()),
            chain: identity.chain().map(ByteBuf::from).collect(),
            root: ByteBuf::from(identity.root()),
        });
        let bytes = codec::encode(&lines.collect::<Vec<_>>()).expect("encodes");
        fs::write(file, bytes).expect("writes");
    }

    /// Those that were kept.
    ///
    /// # Panics
    ///
    /// Where the file cannot be read.
    pub(crate) fn load(file: &Path) -> Self {
        let lines: Vec<Line> = codec::decode(&fs::read(file).expect("reads")).expect("decodes");
        let machines = lines.into_iter().map(|line| {
            let key = MachineKey::from_pkcs8(line.key.into_vec().into()).expect("is a key");
            let chain: Vec<_> = line.chain.into_iter().map(ByteBuf::into_vec).collect();
            let identity = AgentIdentity::new(key, &chain, &line.root, SystemTime::now());
            (line.name, identity.expect("fits together"))
        });
        Self(machines.collect())
    }
}
