//! Who calls: the only file that reads credentials.
//!
//! A bearer token (EdDSA JWT) becomes an [`Identity`]; what it may do is asked by the handlers, because only they know
//! the account. Only the issuer can make tokens: this side holds public keys. The algorithm is pinned, every claim that
//! matters is required, and a token of another kind (`typ`) does not pass.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use tonic::Status;

use crate::GatewayError;
use crate::config::TokenConfig;
use crate::failure::Failure;
use crate::token::TOKEN_TYPE;

/// How far the issuer's clock may be off. Seconds.
const LEEWAY_S: u64 = 5;
/// Longest token looked at, and longest principal. Bytes.
const TOKEN_BYTES_MAX: usize = 4 * 1024;
pub(crate) const PRINCIPAL_BYTES_MAX: usize = 128;
/// Most verified tokens remembered; past it all are forgotten, which costs one signature check each.
const REMEMBERED_MAX: usize = 10_000;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Reading.
    View,
    /// Trading, and making a wallet.
    Trade,
    /// Money in and out.
    Fund,
    /// The house's books.
    Operator,
}

impl Scope {
    fn word(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Trade => "trade",
            Self::Fund => "fund",
            Self::Operator => "operator",
        }
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The token's subject: scopes `request_id`s and limits.
    pub principal: String,
    accounts: Accounts,
    scopes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Accounts {
    All,
    Some(Vec<String>),
}

impl Identity {
    /// Refuses what the scope does not cover.
    pub fn require(&self, scope: Scope) -> Result<(), Failure> {
        if self.scopes.iter().any(|word| word == scope.word()) {
            Ok(())
        } else {
            Err(Failure::NotAllowed(format!(
                "the token lacks the scope {:?}",
                scope.word()
            )))
        }
    }

    /// Refuses an account that the token is not for.
    pub fn require_account(&self, account_id: &str) -> Result<(), Failure> {
        let covered = match &self.accounts {
            Accounts::All => true,
            Accounts::Some(accounts) => accounts.iter().any(|account| account == account_id),
        };
        if covered {
            Ok(())
        } else {
            Err(Failure::NotAllowed("the token is not for this account".to_owned()))
        }
    }

    /// The account that `me` stands for: the token's, if it has exactly one.
    pub fn only_account(&self) -> Option<&str> {
        match &self.accounts {
            Accounts::Some(accounts) if accounts.len() == 1 => accounts.first().map(String::as_str),
            _ => None,
        }
    }

    #[cfg(test)]
    pub fn sample(accounts: &[&str], scope: &str) -> Self {
        let words = Words {
            sub: "tester".into(),
            accounts: accounts.iter().map(|&it| it.into()).collect(),
            scope: scope.into(),
            exp: 0,
        };
        Self::from(words)
    }
}

/// The claims that matter past validation.
#[derive(Deserialize)]
struct Words {
    sub: String,
    #[serde(default)]
    accounts: Vec<String>,
    #[serde(default)]
    scope: String,
    exp: u64,
}

impl From<Words> for Identity {
    fn from(words: Words) -> Self {
        let all = words.accounts.iter().any(|account| account == "*");
        Self {
            principal: words.sub,
            accounts: if all {
                Accounts::All
            } else {
                Accounts::Some(words.accounts)
            },
            scopes: words.scope.split_ascii_whitespace().map(ToOwned::to_owned).collect(),
        }
    }
}

/// Whose token an `authorization` header carries, read as the doors read it.
///
/// # Errors
/// The status that a call with it is refused with; `UNAVAILABLE` when the configuration has no good key.
pub fn principal(config: &TokenConfig, authorization: &HeaderValue) -> Result<String, Status> {
    let verifier = Verifier::new(config).map_err(|error| Status::unavailable(error.to_string()))?;
    let headers = HeaderMap::from_iter([(AUTHORIZATION, authorization.clone())]);
    Ok(verifier.identify(&headers)?.principal.clone())
}

/// Turns tokens into identities.
pub(crate) struct Verifier {
    keys: HashMap<Option<String>, DecodingKey>,
    validation: Validation,
    /// Tokens whose signature was checked, with the second they expire: a client sends the same one a thousand times.
    remembered: Mutex<HashMap<String, (Arc<Identity>, u64)>>,
}

impl Verifier {
    /// Reads the keys.
    pub fn new(config: &TokenConfig) -> Result<Self, GatewayError> {
        let mut keys = HashMap::new();
        for key in &config.keys {
            let decoding = DecodingKey::from_ed_pem(key.public_pem.as_bytes()).map_err(|cause| {
                GatewayError::Config(format!("token key {:?}: {cause}", key.id.as_deref().unwrap_or("")))
            })?;
            if keys.insert(key.id.clone(), decoding).is_some() {
                return Err(GatewayError::Config(format!(
                    "token key {:?} is there twice",
                    key.id.as_deref().unwrap_or("")
                )));
            }
        }
        if keys.is_empty() || config.issuer.is_empty() || config.audience.is_empty() {
            return Err(GatewayError::Config(
                "tokens need a key, an issuer and an audience".to_owned(),
            ));
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        Ok(Self {
            keys,
            validation,
            remembered: Mutex::default(),
        })
    }

    /// Reads the one bearer token.
    pub fn identify(&self, headers: &HeaderMap) -> Result<Arc<Identity>, Failure> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values
            .next()
            .ok_or(Failure::TokenInvalid("a bearer token is required"))?;
        if values.next().is_some() {
            return Err(Failure::TokenInvalid("more than one authorization header"));
        }
        let text = value
            .to_str()
            .map_err(|_| Failure::TokenInvalid("the token is malformed"))?;
        let token = match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => {
                return Err(Failure::TokenInvalid(
                    "the authorization must be \"Bearer\" and a token",
                ));
            }
        };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Failure::TokenInvalid("the token is malformed"));
        }
        if let Some(known) = self.recall(token) {
            return Ok(known);
        }
        let (identity, expires) = self.verify(token)?;
        let identity = Arc::new(identity);
        let mut remembered = self.remembered.lock().expect("nothing panics while it holds this lock");
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(token.to_owned(), (Arc::clone(&identity), expires));
        Ok(identity)
    }

    fn recall(&self, token: &str) -> Option<Arc<Identity>> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let mut remembered = self.remembered.lock().expect("nothing panics while it holds this lock");
        let (identity, expires) = remembered.get(token)?;
        if now < expires.saturating_add(LEEWAY_S) {
            return Some(Arc::clone(identity));
        }
        remembered.remove(token);
        None
    }

    fn verify(&self, token: &str) -> Result<(Identity, u64), Failure> {
        let malformed = Failure::TokenInvalid("the token is malformed");
        let header = jsonwebtoken::decode_header(token).map_err(|_| malformed.clone())?;
        let kind = header.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
        if kind.strip_prefix("application/").unwrap_or(&kind) != TOKEN_TYPE || header.crit.is_some() {
            return Err(Failure::TokenInvalid("the token is not an access token"));
        }
        let key = self
            .keys
            .get(&header.kid)
            .ok_or(Failure::TokenInvalid("the token's key is not known"))?;
        let words = jsonwebtoken::decode::<Words>(token, key, &self.validation)
            .map_err(|error| Failure::TokenInvalid(advice(error.kind())))?
            .claims;
        if words.sub.is_empty() || words.sub.len() > PRINCIPAL_BYTES_MAX || words.sub.chars().any(char::is_control) {
            return Err(malformed);
        }
        let expires = words.exp;
        Ok((words.into(), expires))
    }
}

/// What a client may know: enough to get a better token, nothing about how the check went.
fn advice(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidAudience | ErrorKind::InvalidIssuer => "the token is for another service",
        _ => "the token is not valid",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_covers_its_scopes_and_accounts_and_no_others() {
        let one = Identity::sample(&["demo"], "view trade");
        assert!(one.require(Scope::View).is_ok() && one.require(Scope::Trade).is_ok());
        assert!(one.require(Scope::Fund).is_err());
        assert!(one.require_account("demo").is_ok());
        assert!(one.require_account("demo2").is_err() && one.require_account("*").is_err());
        assert_eq!(one.only_account(), Some("demo"));

        let operator = Identity::sample(&["*"], "operator");
        assert!(operator.require_account("anybody").is_ok());
        assert_eq!(operator.only_account(), None);
        assert!(operator.require(Scope::View).is_err(), "scopes are what they say");

        assert_eq!(Identity::sample(&["a", "b"], "").only_account(), None);
        assert_eq!(Identity::sample(&[], "").only_account(), None);
    }
}
