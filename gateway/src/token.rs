//! What an access token says, and how an issuer signs one. Reading them is `auth`'s alone.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};

/// The `typ` in the header of access tokens (RFC 9068): no other kind of token passes for one.
pub const TOKEN_TYPE: &str = "at+jwt";

/// The claims of an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer.
    pub iss: String,
    /// The audience.
    pub aud: String,
    /// The principal: who calls. Repeats of a `request_id` are recognised per principal.
    pub sub: String,
    /// Valid before this, seconds since the epoch.
    pub exp: u64,
    /// Valid from this on, seconds since the epoch.
    pub nbf: u64,
    /// Accounts it is good for; `["*"]` for all.
    pub accounts: Vec<String>,
    /// What it allows, separated by spaces: `view`, `trade`, `fund`, `operator`.
    pub scope: String,
}

/// Why a token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign a token: {0}")]
pub struct SignError(#[from] jsonwebtoken::errors::Error);

/// Signs a token with an Ed25519 private key, PKCS 8 PEM (`-----BEGIN PRIVATE KEY-----`).
///
/// # Errors
/// When the key cannot be read.
pub fn sign(claims: &Claims, key_id: Option<&str>, private_pem: &[u8]) -> Result<String, SignError> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(TOKEN_TYPE.to_owned());
    header.kid = key_id.map(ToOwned::to_owned);
    Ok(jsonwebtoken::encode(
        &header,
        claims,
        &EncodingKey::from_ed_pem(private_pem)?,
    )?)
}
