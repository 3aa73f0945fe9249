//! `sluice plugin sign`: a publisher's statement about a component.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use sluice_gate_types::MANIFEST_SECTION;
use sluice_gate_types::manifest::{Manifest, Version};
use sluice_gate_types::signature::{SigningKey, Statement};
use sluice_protocol::units::Span;

use super::install::{MAX_COMPONENT, read_at_most, signature_of};
use super::section;
use crate::error::Error;
use crate::{exit, output};

/// The longest key file, in bytes.
const MAX_KEY: u64 = 4 << 10;
/// What stands before the seed in a PKCS#8 document of an Ed25519 key (RFC 8410, section 7).
const PKCS8_OF_SEED: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

pub(super) fn sign(
    json: bool,
    file: &Path,
    key: &Path,
    out: Option<PathBuf>,
    expires: Span,
    minimum_version: Option<Version>,
) -> Result<u8, Error> {
    let component = read_at_most(file, MAX_COMPONENT)?;
    let manifest = read_manifest(file, &component)?;
    let key = read_key(key, &read_at_most(key, MAX_KEY)?)?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let statement = Statement {
        id: manifest.id,
        version: manifest.version,
        world: manifest.world,
        sha256: Sha256::digest(&component).into(),
        not_after: u64::try_from(now.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(expires.0),
        minimum_version: minimum_version.unwrap_or(manifest.version),
    };
    let signature = key.sign(&statement).map_err(|error| Error::Content {
        path: file.to_owned(),
        problem: error.to_string(),
    })?;
    let out = out.unwrap_or_else(|| signature_of(file));
    write(&out, &signature)?;
    let publisher = key.public().to_string();
    if json {
        output::json_line(&serde_json::json!({
            "file": out,
            "publisher": publisher,
            "id": statement.id,
            "version": statement.version.to_string(),
            "sha256": hex::encode(statement.sha256),
            "not_after_ms": statement.not_after,
        }))?;
    } else {
        output::print(&format!(
            "signed {} {} as {publisher} into {}\n",
            statement.id,
            statement.version,
            out.display()
        ))?;
    }
    Ok(exit::SUCCESS)
}

fn read_manifest(file: &Path, component: &[u8]) -> Result<Manifest, Error> {
    let wrong = |problem: String| Error::Content {
        path: file.to_owned(),
        problem: format!("{problem}; nothing was signed"),
    };
    let section =
        section::custom(component, MANIFEST_SECTION).map_err(|error| wrong(error.to_string()))?;
    let text =
        str::from_utf8(section).map_err(|_| wrong("its manifest is not UTF-8".to_owned()))?;
    Manifest::parse(text).map_err(|error| wrong(error.to_string()))
}

fn read_key(path: &Path, bytes: &[u8]) -> Result<SigningKey, Error> {
    let der = pem(bytes).unwrap_or_else(|| bytes.to_vec());
    let der = if der.len() == 32 {
        [PKCS8_OF_SEED.as_slice(), &der].concat()
    } else {
        der
    };
    SigningKey::from_pkcs8(&der).map_err(|error| Error::Content {
        path: path.to_owned(),
        problem: format!("{error}; nothing was signed"),
    })
}

/// The content of a `PRIVATE KEY` block (RFC 7468).
fn pem(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(bytes).ok()?;
    let (_, text) = text.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = text.split_once("-----END PRIVATE KEY-----")?;
    STANDARD
        .decode(body.split_whitespace().collect::<String>())
        .ok()
}

/// Replaces the file in one step, so that there is never half a signature.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        temporary.permissions(std::fs::Permissions::from_mode(0o644));
    }
    let mut file = temporary
        .tempfile_in(directory)
        .map_err(Error::write(directory))?;
    file.write_all(bytes).map_err(Error::write(path))?;
    file.persist(path)
        .map_err(|error| Error::write(path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sluice_gate_types::signature::verify;

    use super::*;

    #[test]
    fn a_key_is_the_same_as_document_as_pem_and_as_seed() {
        // RFC 8410, section 10.3
        const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        let der = pem(PEM.as_bytes()).expect("is PEM");
        let public = |bytes: &[u8]| {
            read_key(Path::new("key"), bytes)
                .expect("is a key")
                .public()
                .to_string()
        };
        let expected = "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        assert_eq!(public(PEM.as_bytes()), expected);
        assert_eq!(public(&der), expected);
        assert_eq!(public(&der[16..]), expected);
        assert!(read_key(Path::new("key"), b"not a key").is_err());
    }

    #[test]
    fn what_is_no_component_is_not_signed() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let (file, key) = (
            directory.path().join("a.wasm"),
            directory.path().join("key"),
        );
        std::fs::write(&file, b"\x7fELF").expect("writes");
        std::fs::write(&key, [1; 32]).expect("writes");
        let error = sign(false, &file, &key, None, Span::seconds(1), None)
            .expect_err("is refused")
            .to_string();
        assert!(
            error.contains("not a WebAssembly component") && error.ends_with("nothing was signed"),
            "{error}"
        );
        assert!(!signature_of(&file).exists());
    }

    #[test]
    fn a_signature_is_believed_by_whoever_trusts_the_key() {
        let manifest = "id = \"scanner\"\nversion = \"0.2.0\"\nvendor = \"Acme\"\nworld = \"scanner-plugin\"\n\
            minimum_runtime = \"0.1.0\"\n";
        let content = [
            &[MANIFEST_SECTION.len() as u8],
            MANIFEST_SECTION.as_bytes(),
            manifest.as_bytes(),
        ]
        .concat();
        let length = [
            (content.len() & 0x7f) as u8 | 0x80,
            (content.len() >> 7) as u8,
        ];
        let component = [b"\0asm\x0d\0\x01\0\0".as_slice(), &length, &content].concat();
        let directory = tempfile::tempdir().expect("makes a directory");
        let (file, key) = (
            directory.path().join("a.wasm"),
            directory.path().join("key"),
        );
        std::fs::write(&file, &component).expect("writes");
        std::fs::write(&key, [1; 32]).expect("writes");
        assert_eq!(
            sign(false, &file, &key, None, Span::seconds(60), None).expect("signs"),
            0
        );
        let signature = std::fs::read(signature_of(&file)).expect("is there");
        let publisher = read_key(&key, &[1; 32]).expect("is a key").public();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("is later")
            .as_millis() as u64;
        let check = |now| {
            verify(
                &signature,
                Sha256::digest(&component).into(),
                &[publisher],
                now,
            )
        };
        let statement = check(now).expect("is believed").statement;
        assert_eq!(
            (
                statement.id.as_str(),
                statement.version.to_string().as_str()
            ),
            ("scanner", "0.2.0")
        );
        assert_eq!(statement.minimum_version, statement.version);
        assert!(
            check(now + 61_000).is_err(),
            "it is good for longer than asked"
        );
    }
}
