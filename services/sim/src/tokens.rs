//! The tokens that clients show: good ones, and some that must not pass.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use contracts::v1::ErrorReason;
use gateway::token::{Claims, sign};
use gateway::{TokenConfig, TokenKey};

use crate::clients::PRINCIPALS;

/// A key pair for nothing else.
const PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIEnhSz5MolgNQsZjPSQvGAMls7oMFDQZsjYYjOB0WkZq\n-----END PRIVATE KEY-----\n";
const PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAIbYOE5TroanUR215nMca34MPHz15AspGHrc8U95gVcg=\n-----END PUBLIC KEY-----\n";
const ISSUER: &str = "issuer";
const AUDIENCE: &str = "simulation";
/// Tokens are checked by this machine's clock, so they are good for as long as it can tell. Seconds since the epoch.
const FOR_EVER_S: u64 = 32_503_680_000;
/// The one who may do everything on every account.
pub const OPERATOR: &str = "operator";

/// Something wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// It allows looking, not trading.
    Scope,
    /// It is for another account.
    Account,
    /// Its time is over.
    Expired,
    /// It is for another service.
    Audience,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Scope, Self::Account, Self::Expired, Self::Audience];

    /// How a call with such a token is refused.
    pub fn reason(self) -> ErrorReason {
        match self {
            Self::Scope | Self::Account => ErrorReason::NotAllowed,
            Self::Expired | Self::Audience => ErrorReason::TokenInvalid,
        }
    }
}

/// Which tokens are believed.
pub fn config() -> TokenConfig {
    TokenConfig {
        keys: vec![TokenKey {
            id: None,
            public_pem: PUBLIC_PEM.to_owned(),
        }],
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
    }
}

/// The `authorization` of a principal: for every account, so that it is the engine that must keep principals apart.
pub fn of(principal: &str, flaw: Option<Flaw>) -> &'static str {
    static SIGNED: LazyLock<BTreeMap<(String, Option<Flaw>), String>> = LazyLock::new(|| {
        let flaws = || std::iter::once(None).chain(Flaw::ALL.map(Some));
        PRINCIPALS
            .into_iter()
            .chain([OPERATOR])
            .flat_map(|principal| flaws().map(move |flaw| ((principal.to_owned(), flaw), signed(principal, flaw))))
            .collect()
    });
    &SIGNED[&(principal.to_owned(), flaw)]
}

fn signed(principal: &str, flaw: Option<Flaw>) -> String {
    let given = |flawed: Flaw, bad: &str, good: &str| if flaw == Some(flawed) { bad } else { good }.to_owned();
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: given(Flaw::Audience, "elsewhere", AUDIENCE),
        sub: principal.to_owned(),
        exp: if flaw == Some(Flaw::Expired) {
            1_000_000_000
        } else {
            FOR_EVER_S
        },
        nbf: 0,
        accounts: vec![given(Flaw::Account, "nobody", "*")],
        scope: given(Flaw::Scope, "view", "view trade fund"),
    };
    let token = sign(&claims, None, PRIVATE_PEM.as_bytes()).expect("a good key");
    format!("Bearer {token}")
}
