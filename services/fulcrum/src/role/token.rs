//! `fulcrum token` and `fulcrum keygen`: access tokens, and the keys that sign them.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use gateway::token::{Claims, TOKEN_TYPE};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use uuid::Uuid;

use crate::failure::Failure;
use crate::keys::{self, PrivateKey};
use crate::settings::duration;
use crate::{say, up};

/// What a token may allow.
const SCOPES: [&str; 4] = ["view", "trade", "fund", "operator"];
/// What it allows unless told otherwise: all that a trader does.
pub(crate) const SCOPE_DEFAULT: &str = "view,trade,fund";

/// Prints an access token, signed with the key that `fulcrum up` made, or with another.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Account the token is for; may be given several times. "*" is every account.
    #[arg(
        long,
        env = "FULCRUM_TOKEN_ACCOUNT",
        value_delimiter = ',',
        default_value = "demo",
        value_name = "ACCOUNT"
    )]
    account: Vec<String>,
    /// How long it is good for.
    #[arg(long, env = "FULCRUM_TOKEN_TTL", default_value = "1h", value_name = "TIME", value_parser = duration)]
    ttl: Duration,
    /// What it allows, separated by commas: view, trade, fund, operator.
    #[arg(long, env = "FULCRUM_TOKEN_SCOPE", value_delimiter = ',', default_value = SCOPE_DEFAULT, value_parser = SCOPES, value_name = "SCOPE")]
    scope: Vec<String>,
    /// Who calls: repeats of a request are recognised per principal. The first account's id unless given.
    #[arg(long, env = "FULCRUM_TOKEN_PRINCIPAL", value_name = "NAME")]
    principal: Option<String>,
    /// The private key, PKCS 8 PEM. The one in the data directory unless given.
    #[arg(long, env = "FULCRUM_TOKEN_PRIVATE_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    data: up::DataSettings,
    #[command(flatten)]
    issue: IssueSettings,
}

/// For whom and by whom tokens are.
#[derive(Args, Clone, Debug)]
pub(crate) struct IssueSettings {
    /// Who issues tokens: their "iss".
    #[arg(long, env = "FULCRUM_TOKEN_ISSUER", default_value = "fulcrum", value_name = "NAME")]
    pub(crate) token_issuer: String,
    /// Whom they are for: their "aud".
    #[arg(long, env = "FULCRUM_TOKEN_AUDIENCE", default_value = "fulcrum", value_name = "NAME")]
    pub(crate) token_audience: String,
}

/// Makes a pair of keys: the private one signs tokens, the public one goes to the gateways.
#[derive(Debug, Args)]
pub(crate) struct KeygenOptions {
    /// Directory for the two files, token.key.pem and token.pub.pem. A pair that is there is kept.
    #[arg(long, env = "FULCRUM_KEYGEN_OUT", default_value = ".", value_name = "DIRECTORY")]
    out: PathBuf,
}

/// The claims that the gateway asks for, and those that tell two tokens apart.
#[derive(Serialize)]
struct Issued {
    #[serde(flatten)]
    claims: Claims,
    /// When it was issued, seconds since the epoch.
    iat: u64,
    /// Which token it is.
    jti: String,
}

/// What a token is to say.
#[derive(Debug)]
pub(crate) struct Grant<'a> {
    pub(crate) principal: &'a str,
    pub(crate) accounts: &'a [String],
    pub(crate) scopes: &'a [String],
    pub(crate) ttl: Duration,
}

/// Signs a token that begins now.
pub(crate) fn sign(key: &PrivateKey, issue: &IssueSettings, grant: &Grant<'_>) -> anyhow::Result<String> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock stands before 1970")?
        .as_secs();
    let claims = Claims {
        iss: issue.token_issuer.clone(),
        aud: issue.token_audience.clone(),
        sub: grant.principal.to_owned(),
        exp: now.saturating_add(grant.ttl.as_secs()),
        nbf: now,
        accounts: grant.accounts.to_vec(),
        scope: grant.scopes.join(" "),
    };
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(TOKEN_TYPE.to_owned());
    header.kid = Some(key.id.clone());
    let signer = EncodingKey::from_ed_pem(key.pem.as_bytes()).context("the key")?;
    jsonwebtoken::encode(
        &header,
        &Issued {
            claims,
            iat: now,
            jti: Uuid::new_v4().to_string(),
        },
        &signer,
    )
    .context("signing")
}

/// Runs `fulcrum token`.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    let path = options
        .key
        .unwrap_or_else(|| options.data.keys().join(keys::PRIVATE_FILE));
    let key = PrivateKey::read(&path).context("`fulcrum up` makes a key for development; --key names another")?;
    let grant = Grant {
        principal: options.principal.as_deref().unwrap_or(&options.account[0]),
        accounts: &options.account,
        scopes: &options.scope,
        ttl: options.ttl,
    };
    say::line(sign(&key, &options.issue, &grant)?);
    Ok(())
}

/// Runs `fulcrum keygen`.
pub(crate) fn keygen(options: KeygenOptions) -> Result<(), Failure> {
    let (private, public) = keys::make(&options.out)?;
    say::line(format!(
        "private, keep it secret: {}\npublic, for --token-key:  {}",
        private.display(),
        public.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_token_verifies_with_the_public_half_and_says_what_was_granted() {
        let directory = tempfile::tempdir().unwrap();
        let (private, public) = keys::make(directory.path()).unwrap();
        assert_eq!(
            keys::make(directory.path()).unwrap(),
            (private.clone(), public.clone()),
            "a pair that is there is kept"
        );
        let key = PrivateKey::read(&private).unwrap();
        let trusted = keys::read_public(&public).unwrap();
        let issue = IssueSettings {
            token_issuer: "us".to_owned(),
            token_audience: "them".to_owned(),
        };
        let grant = Grant {
            principal: "alice",
            accounts: &["demo".to_owned()],
            scopes: &["view".to_owned(), "trade".to_owned()],
            ttl: Duration::from_secs(60),
        };
        let token = sign(&key, &issue, &grant).unwrap();

        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert_eq!(
            (header.alg, header.typ.as_deref(), header.kid),
            (Algorithm::EdDSA, Some("at+jwt"), trusted.id)
        );
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&["us"]);
        validation.set_audience(&["them"]);
        let verifier = DecodingKey::from_ed_pem(trusted.public_pem.as_bytes()).unwrap();
        let claims = jsonwebtoken::decode::<Value>(&token, &verifier, &validation)
            .unwrap()
            .claims;
        assert_eq!(
            (&claims["sub"], &claims["scope"]),
            (&"alice".into(), &"view trade".into())
        );
        assert_eq!(claims["accounts"], serde_json::json!(["demo"]));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
        assert_ne!(sign(&key, &issue, &grant).unwrap(), token, "each has an id of its own");
    }

    #[test]
    fn the_private_half_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let (private, public) = keys::make(directory.path()).unwrap();
        assert_eq!(std::fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(&public).unwrap();
        let id = PrivateKey::read(&private).unwrap().id;
        keys::make(directory.path()).unwrap();
        assert_eq!(
            keys::read_public(&public).unwrap().id,
            Some(id),
            "the other half is made again from it"
        );
    }
}
