//! A gateway that runs, tokens for it, a played engine behind it, and clients in front.

mod client;
mod engine;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway::token::{self, Claims};
use gateway::{Config, Gateway, TokenConfig, TokenKey};
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use client::*;
pub use engine::*;

pub const SHARDS: u32 = 4;
pub const ISSUER: &str = "https://issuer.test";
pub const AUDIENCE: &str = "fulcrum";
pub const ORIGIN: &str = "https://trade.test";
// Keys of tests alone.
pub const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIH9NoQP0JC8PBwCPruZtMqnGEPfFLKPY3pMlRbM7woyU
-----END PRIVATE KEY-----
";
pub const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAdAfSPLFHdjLkNBO9x/4y+1aDkNy9q0fMhgD34LzuV1I=
-----END PUBLIC KEY-----
";
pub const STRANGER: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIFEiDvmx3EJ0ihvsHMu60Cg6QZMsZWcQ2tMfasuGakSW
-----END PRIVATE KEY-----
";

/// A gateway that runs.
pub struct Running {
    pub address: SocketAddr,
    pub engine: Played,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<Result<(), gateway::GatewayError>>,
}

/// Starts one without stores: history cannot be read, and no quotes come.
pub async fn start() -> Running {
    start_with(nowhere(), |_| {}).await
}

/// A database that is not there.
pub fn nowhere() -> sqlx::PgPool {
    let options = PgPoolOptions::new().acquire_timeout(Duration::from_millis(200));
    options.connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap()
}

/// Starts one with this database and changed settings.
pub async fn start_with(database: sqlx::PgPool, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = config(database);
    change(&mut config);
    let engine = Played::default();
    let gateway = Gateway::bind_with(config, SHARDS, engine.clone()).await.unwrap();
    let (address, shutdown) = (gateway.local_addr(), CancellationToken::new());
    let served = tokio::spawn(gateway.serve(shutdown.clone()));
    Running {
        address,
        engine,
        shutdown,
        served,
    }
}

/// How one is configured that believes our tokens.
pub fn config(database: sqlx::PgPool) -> Config {
    let keys = vec![TokenKey {
        id: Some("k1".into()),
        public_pem: PUBLIC.into(),
    }];
    let tokens = TokenConfig {
        keys,
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
    };
    let redis = bus::Redis::open("redis://127.0.0.1:1").unwrap();
    let mut config = Config::new("127.0.0.1:0".parse().unwrap(), redis, database, tokens);
    config.cors_origins = vec![ORIGIN.into()];
    config
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of a good token.
pub fn claims(accounts: &[&str], scope: &str) -> Claims {
    Claims {
        iss: ISSUER.into(),
        aud: AUDIENCE.into(),
        sub: "alice".into(),
        exp: now_s() + 300,
        nbf: now_s() - 1,
        accounts: accounts.iter().map(|&it| it.into()).collect(),
        scope: scope.into(),
    }
}

pub fn signed(claims: &Claims) -> String {
    token::sign(claims, Some("k1"), PRIVATE.as_bytes()).unwrap()
}

/// A token for everything on these accounts.
pub fn token(accounts: &[&str]) -> String {
    signed(&claims(accounts, "view trade fund"))
}
