//! Everything a gateway is told before it binds its port. Plain data with defaults; nothing here acts.

use std::net::SocketAddr;
use std::time::Duration;

use crate::tls::TlsConfig;

/// What a gateway needs to know. [`Config::new`] fills in defaults for all but the four things that have none.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the one port is; port 0 lets the system choose, see [`Gateway::local_addr`](crate::Gateway::local_addr).
    pub listen: SocketAddr,
    /// Where the queues and streams are. Need not be reachable at start.
    pub redis: bus::Redis,
    /// Where the journal and the history tables are. Only read.
    pub database: sqlx::PgPool,
    /// Which tokens are believed.
    pub tokens: TokenConfig,
    /// Certificates for TLS on the port. Without them it is plaintext, for TLS that ends in front of it.
    pub tls: Option<TlsConfig>,
    /// Origins that browsers may call from, exactly, for example `https://trade.example.com`. Empty: same origin only.
    pub cors_origins: Vec<String>,
    /// Whether clients may ask for the interface definitions: gRPC reflection, `/openapi.json` and `/docs`. The default is yes: they are
    /// public.
    pub reflection: bool,
    /// How long calls may take.
    pub deadlines: Deadlines,
    /// How much one caller may ask for.
    pub limits: Limits,
    /// How the port treats connections.
    pub connections: Connections,
    /// How streams behave.
    pub streams: Streams,
    /// How many calls may wait for engines, and how long their queues may be.
    pub calls: bus::CallerOptions,
    /// How long running calls have to finish after shutdown was asked for; then their connections are cut.
    pub drain: Duration,
}

impl Config {
    /// A configuration with defaults.
    #[must_use]
    pub fn new(listen: SocketAddr, redis: bus::Redis, database: sqlx::PgPool, tokens: TokenConfig) -> Self {
        Self {
            listen,
            redis,
            database,
            tokens,
            tls: None,
            cors_origins: Vec::new(),
            reflection: true,
            deadlines: Deadlines::default(),
            limits: Limits::default(),
            connections: Connections::default(),
            streams: Streams::default(),
            calls: bus::CallerOptions::default(),
            drain: Duration::from_secs(10),
        }
    }
}

/// Which tokens are believed: EdDSA signatures by one of these keys, for this audience, by this issuer.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// Public keys. More than one while a key is being replaced; each then has an id.
    pub keys: Vec<TokenKey>,
    /// The `iss` that tokens must carry.
    pub issuer: String,
    /// The `aud` that tokens must carry.
    pub audience: String,
}

/// One public key.
#[derive(Clone, Debug)]
pub struct TokenKey {
    /// The `kid` of the tokens it verifies. `None` verifies tokens without a `kid`.
    pub id: Option<String>,
    /// An Ed25519 public key, PEM (`-----BEGIN PUBLIC KEY-----`).
    pub public_pem: String,
}

/// How long unary calls may take. Streams have no deadline but the one their client sets.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// When the client sets none. The default is 5 s.
    pub default: Duration,
    /// The most that a client gets. The default is 30 s.
    pub max: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            default: Duration::from_secs(5),
            max: Duration::from_secs(30),
        }
    }
}

/// How much one caller may ask for: a steady rate with a burst on top.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls of one principal. The default is 1,000 a second with bursts of 2,000.
    pub principal: Rate,
    /// Calls from one address, valid token or not. The default is 2,000 a second with bursts of 4,000.
    pub address: Rate,
    /// Proxies in front whose `X-Forwarded-For` entry is believed, counted from the right. 0 believes the socket alone.
    pub forwarded_hops: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            principal: Rate {
                per_second: 1_000,
                burst: 2_000,
            },
            address: Rate {
                per_second: 2_000,
                burst: 4_000,
            },
            forwarded_hops: 0,
        }
    }
}

/// A steady rate with a burst on top. Zeroes count as one.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Calls a second that go on for ever.
    pub per_second: u32,
    /// Calls that may come at once after a pause.
    pub burst: u32,
}

impl Rate {
    /// With at least one of each.
    pub(crate) fn sane(self) -> Self {
        Self {
            per_second: self.per_second.max(1),
            burst: self.burst.max(1),
        }
    }

    /// How long until the whole burst is there again.
    pub(crate) fn reset(self, remaining: u32) -> Duration {
        Duration::from_secs(self.burst.saturating_sub(remaining).into()) / self.per_second
    }

    /// What remains some time after so much remained, if nothing was taken.
    pub(crate) fn after(self, remaining: u32, time: Duration) -> u32 {
        let more = time.as_micros().saturating_mul(self.per_second.into()) / 1_000_000;
        u32::try_from(more).map_or(self.burst, |more| remaining.saturating_add(more).min(self.burst))
    }
}

/// How the port treats connections.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Most at once; further ones wait in the listen queue. The default is 10,000.
    pub count_max: usize,
    /// Most at once from one address; further ones are closed. It does not count behind proxies that are believed
    /// ([`Limits::forwarded_hops`]): all come from those then. The default is 2,500.
    pub address_max: usize,
    /// How long a new connection may take to send its first request. The default is 10 s.
    pub first_request: Duration,
    /// How long HTTP/1.1 may take from the end of one request to the end of the next one's headers. It is the time that
    /// an idle connection is kept, too: shorter, and clients would find their pooled connections closed under an order.
    /// The default is 60 s.
    pub idle: Duration,
    /// How long an HTTP/2 connection may be silent before it is asked for a sign of life. The default is 20 s.
    pub ping_every: Duration,
    /// How long it may take to give one. The default is 10 s.
    pub ping_timeout: Duration,
    /// How long what was sent may stay unread, on HTTP/1.1, where nobody asks for a sign of life. The default is 60 s.
    pub unread: Duration,
    /// After this the client is asked to come back on a new one, so that load spreads over new replicas. The default
    /// is 30 min.
    pub age_max: Duration,
    /// How long after that calls and streams may go on. Then its streams end with `UNAVAILABLE`, and soon after what is
    /// left of it is cut. The default is 5 min.
    pub age_grace: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            count_max: 10_000,
            address_max: 2_500,
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            ping_every: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(10),
            unread: Duration::from_secs(60),
            age_max: Duration::from_secs(30 * 60),
            age_grace: Duration::from_secs(5 * 60),
        }
    }
}

/// How streams behave.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// Most streams of this process at once. The default is 10,000.
    pub count_max: usize,
    /// Most streams of one principal at once, so that nobody takes all places. The default is 2,500.
    pub principal_max: usize,
    /// Entries that may wait for one reader of account events before it gets a `GAP`. The default is 256.
    pub queue_max: usize,
    /// How many sequences back from the journal's end a stream may resume. The default is 100,000.
    pub replay_max: u64,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            count_max: 10_000,
            principal_max: 2_500,
            queue_max: 256,
            replay_max: 100_000,
        }
    }
}
