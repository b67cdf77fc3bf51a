//! Ed25519 keys: making them, reading them, and the name that a token gives its key by.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _};
use ed25519_dalek::{SigningKey, VerifyingKey};

/// The files of a pair in its directory.
pub(crate) const PRIVATE_FILE: &str = "token.key.pem";
/// The half that gateways get.
pub(crate) const PUBLIC_FILE: &str = "token.pub.pem";
/// Bytes of the public key that name it; enough to tell the keys of one deployment apart.
const NAME_BYTES: usize = 8;

/// A private key as it stands in its file.
#[derive(Debug)]
pub(crate) struct PrivateKey {
    /// PKCS 8 PEM.
    pub(crate) pem: String,
    /// The name that its tokens carry.
    pub(crate) id: String,
}

impl PrivateKey {
    /// Reads one.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let pem = fs::read_to_string(path).with_context(|| format!("the key {}", path.display()))?;
        let key = SigningKey::from_pkcs8_pem(&pem)
            .map_err(|error| anyhow::anyhow!("{} is no Ed25519 private key in PKCS 8 PEM: {error}", path.display()))?;
        Ok(Self {
            pem,
            id: id(&key.verifying_key()),
        })
    }
}

/// A public key as a gateway takes it.
pub(crate) fn read_public(path: &Path) -> anyhow::Result<gateway::TokenKey> {
    let pem = fs::read_to_string(path).with_context(|| format!("the key {}", path.display()))?;
    let key = VerifyingKey::from_public_key_pem(&pem)
        .map_err(|error| anyhow::anyhow!("{} is no Ed25519 public key in PEM: {error}", path.display()))?;
    Ok(gateway::TokenKey {
        id: Some(id(&key)),
        public_pem: pem,
    })
}

/// Makes a pair in a directory, unless there is one. Says where the halves are.
pub(crate) fn make(directory: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (private, public) = (directory.join(PRIVATE_FILE), directory.join(PUBLIC_FILE));
    if private.exists() && public.exists() {
        return Ok((private, public));
    }
    fs::create_dir_all(directory).with_context(|| format!("the directory {}", directory.display()))?;
    let key = if private.exists() {
        // Made, but killed before the other half was written.
        SigningKey::from_pkcs8_pem(&PrivateKey::read(&private)?.pem).map_err(|error| anyhow::anyhow!("{error}"))?
    } else {
        let key = SigningKey::from_bytes(&rand::random());
        let pem = key
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| anyhow::anyhow!("a new key: {error}"))?;
        write(&private, pem.as_bytes(), 0o600)?;
        key
    };
    let pem = key
        .verifying_key()
        .to_public_key_pem(LineEnding::LF)
        .map_err(|error| anyhow::anyhow!("a new key: {error}"))?;
    write(&public, pem.as_bytes(), 0o644)?;
    Ok((private, public))
}

/// Writes a file that is there whole or not at all.
fn write(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let wrote = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    wrote().with_context(|| format!("writing {}", path.display()))
}

fn id(key: &VerifyingKey) -> String {
    key.as_bytes()[..NAME_BYTES]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
