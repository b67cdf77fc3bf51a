//! The whole mesh in one test process, on stores of its own: engine, recorder, gateway, and a market that the test makes.
//!
//! Nothing here waits by the clock. A test waits until the mesh *is* in a state: until the gateway is ready, until the engine trades at a
//! quote. [`PATIENCE`] only ends a test that would never end.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::{PricePublisher, Redis};
use contracts::bus::{PriceBatch, VenueQuote};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _};
use engine::{EngineError, Snapshots};
use gateway::token::Claims;
use gateway::{Gateway, TokenConfig, TokenKey};
use sqlx::PgPool;
use testkit::{PrivatePostgres, PrivateRedis};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long anything expected may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often the market says its quotes again, as a venue does: well within the age at which they are stale.
const QUOTES_EVERY: Duration = Duration::from_millis(100);
/// Pause between two looks at a state.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits for something.
///
/// # Panics
/// When it does not come.
pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Looks again and again until there is an answer.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    within(what, looking).await
}

/// Microseconds since the epoch.
pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_micros()).expect("before the year 500,000")
}

/// Stores, and the roles that run on them.
pub struct Mesh<R = PrivateRedis> {
    pub postgres: PrivatePostgres,
    pub redis: R,
    /// The Redis of engines and of the recorder, which may know them by different names.
    engines_bus: Redis,
    recorders_bus: Redis,
    pub pool: PgPool,
    pub market: Market,
    pub issuer: Issuer,
    /// Where the gateway is.
    pub address: SocketAddr,
    engine: Option<Engine>,
    engines: usize,
    recorder: Option<Role>,
    ready: watch::Receiver<bool>,
    _gateway: DropGuard,
}

struct Engine {
    status: watch::Receiver<engine::Status>,
    role: Role,
    ended: JoinHandle<Result<(), EngineError>>,
}

/// A task that ends with its value.
struct Role(DropGuard);

impl Mesh {
    /// Starts everything on one Redis and waits until the gateway says that it is ready. There are no prices yet.
    pub async fn start(shards: u32) -> Self {
        Self::start_with(shards, |_| {}).await
    }

    /// The same with a gateway that is told something else.
    pub async fn start_with(shards: u32, change: impl FnOnce(&mut gateway::Config)) -> Self {
        let redis = PrivateRedis::start().await;
        let url = redis.url();
        Self::start_on(redis, |_| url.clone(), shards, change).await
    }
}

impl<R> Mesh<R> {
    /// The same on whatever Redis. `url` is asked for its address as each role knows it: gateway, engine, poller, recorder.
    pub async fn start_on(
        redis: R,
        url: impl Fn(&str) -> String,
        shards: u32,
        change: impl FnOnce(&mut gateway::Config),
    ) -> Self {
        let postgres = PrivatePostgres::start_with(&[("fsync", "on"), ("full_page_writes", "on")]).await;
        postgres.migrate().await;
        let bus_of = |role| Redis::open(&url(role)).expect("our own address");
        let pool = postgres.pool();
        for sql in [
            "INSERT INTO cluster (shards) VALUES ($1)",
            "INSERT INTO shard_head (shard) SELECT generate_series(0, $1 - 1)",
            "INSERT INTO recorder_cursor (shard, seq) SELECT generate_series(0, $1 - 1), 0",
        ] {
            let shards = i32::try_from(shards).expect("few");
            sqlx::query(sql)
                .bind(shards)
                .execute(&pool)
                .await
                .expect("a migrated database");
        }
        let issuer = Issuer::new([7; 32]);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = gateway::Config::new(listen, bus_of("gateway"), postgres.pool(), issuer.trusted());
        change(&mut config);
        let gateway = Gateway::bind(config).await.expect("a gateway that binds");
        let (address, ready) = (gateway.local_addr(), gateway.readiness());
        let stop = CancellationToken::new();
        let stopping = stop.clone().drop_guard();
        tokio::spawn(gateway.serve(stop));

        let mut mesh = Self {
            market: Market::open(&bus_of("poller")).await,
            engines_bus: bus_of("engine"),
            recorders_bus: bus_of("recorder"),
            pool,
            issuer,
            address,
            engine: None,
            engines: 0,
            recorder: None,
            ready,
            _gateway: stopping,
            redis,
            postgres,
        };
        mesh.start_engine(shards as usize).await;
        mesh.start_recorder();
        mesh.until_ready().await;
        mesh
    }

    /// Waits until the gateway says that calls would be answered.
    pub async fn until_ready(&self) {
        let mut ready = self.ready.clone();
        within("readiness", ready.wait_for(|ready| *ready))
            .await
            .expect("the gateway runs");
    }

    /// Waits until the gateway says that they would not.
    pub async fn until_not_ready(&self) {
        let mut ready = self.ready.clone();
        within("the end of readiness", ready.wait_for(|ready| !*ready))
            .await
            .expect("the gateway runs");
    }

    /// Starts an engine and waits until it leads every shard.
    pub async fn start_engine(&mut self, shards: usize) {
        self.engines += 1;
        let config = engine::Config {
            redis: self.engines_bus.clone(),
            database: self.postgres.url(),
            name: format!("engine-{}", self.engines),
            instruments: engine::default_instruments(),
            snapshots: Snapshots::default(),
        };
        let (tell, mut status) = watch::channel(engine::Status::default());
        let stop = CancellationToken::new();
        let role = Role(stop.clone().drop_guard());
        let ended = tokio::spawn(engine::run(config, tell, stop));
        let leads = status.wait_for(|status| status.leads.len() == shards);
        within("leading", leads).await.expect("the engine runs");
        self.engine = Some(Engine { status, role, ended });
    }

    /// Stops the engine in order: what it decided is committed and answered.
    pub async fn stop_engine(&mut self) {
        let Engine { role, ended, .. } = self.engine.take().expect("an engine that runs");
        drop(role);
        within("the engine's end", ended)
            .await
            .expect("no panic")
            .expect("an end in order");
    }

    /// Ends the engine at once, wherever it is.
    pub async fn kill_engine(&mut self) {
        let Engine { ended, .. } = self.engine.take().expect("an engine that runs");
        ended.abort();
        let _aborted = ended.await;
    }

    /// Whether the engine still runs.
    pub fn engine_runs(&self) -> bool {
        self.engine.as_ref().is_some_and(|it| !it.ended.is_finished())
    }

    /// Starts the recorder.
    pub fn start_recorder(&mut self) {
        let config = recorder::Config {
            redis: self.recorders_bus.clone(),
            pool: self.postgres.pool(),
            poll: Duration::from_millis(20),
        };
        let stop = CancellationToken::new();
        self.recorder = Some(Role(stop.clone().drop_guard()));
        tokio::spawn(async move { recorder::run(config, stop).await.expect("a recorder that runs") });
    }

    /// Stops the recorder.
    pub fn stop_recorder(&mut self) {
        self.recorder = None;
    }

    /// A token for one account that allows all that a trader does.
    pub fn token(&self, account: &str) -> String {
        self.issuer.token(account)
    }

    /// One number from the database.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.expect("a number")
    }
}

/// The venue that the test is: says its quotes again and again, each time with the present's time, until told others.
pub struct Market {
    board: Arc<Mutex<BTreeMap<String, Line>>>,
    bus: Redis,
    _saying: DropGuard,
}

#[derive(Clone, Debug)]
struct Line {
    bid: String,
    ask: String,
    /// How old a quote is when it is said.
    age: Duration,
}

impl Market {
    async fn open(bus: &Redis) -> Self {
        let board: Arc<Mutex<BTreeMap<String, Line>>> = Arc::default();
        let stop = CancellationToken::new();
        let saying = say_again(bus.clone(), Arc::clone(&board));
        tokio::spawn(stop.clone().run_until_cancelled_owned(saying));
        Self {
            board,
            bus: bus.clone(),
            _saying: stop.drop_guard(),
        }
    }

    /// Says this quote from now on.
    pub fn quote(&self, symbol: &str, bid: &str, ask: &str) {
        self.aged(symbol, bid, ask, Duration::ZERO);
    }

    /// Says this quote from now on, always of a time so long ago.
    pub fn aged(&self, symbol: &str, bid: &str, ask: &str, age: Duration) {
        let line = Line {
            bid: bid.to_owned(),
            ask: ask.to_owned(),
            age,
        };
        self.board
            .lock()
            .expect("no panic while held")
            .insert(symbol.to_owned(), line);
    }

    /// Says nothing more about a symbol.
    pub fn silence(&self, symbol: &str) {
        self.board.lock().expect("no panic while held").remove(symbol);
    }

    /// Publishes a quote once, now.
    pub async fn once(&self, symbol: &str, bid: &str, ask: &str) {
        let line = Line {
            bid: bid.to_owned(),
            ask: ask.to_owned(),
            age: Duration::ZERO,
        };
        let mut publisher = PricePublisher::connect(&self.bus).await.expect("a Redis that runs");
        publisher
            .publish(&batch([(symbol, &line)]))
            .await
            .expect("a Redis that runs");
    }
}

async fn say_again(bus: Redis, board: Arc<Mutex<BTreeMap<String, Line>>>) {
    let mut publisher: Option<PricePublisher> = None;
    loop {
        tokio::time::sleep(QUOTES_EVERY).await;
        let lines = board.lock().expect("no panic while held").clone();
        if lines.is_empty() {
            continue;
        }
        // A test may take Redis away; the market goes on when it is back.
        if publisher.is_none() {
            publisher = PricePublisher::connect(&bus).await.ok();
        }
        if let Some(open) = &mut publisher
            && open
                .publish(&batch(lines.iter().map(|(symbol, line)| (symbol.as_str(), line))))
                .await
                .is_err()
        {
            publisher = None;
        }
    }
}

fn batch<'a>(lines: impl IntoIterator<Item = (&'a str, &'a Line)>) -> PriceBatch {
    let now_us = now_us();
    let quote = |(symbol, line): (&str, &Line)| VenueQuote {
        symbol: symbol.to_owned(),
        bid: line.bid.clone(),
        ask: line.ask.clone(),
        bid_quantity: "1".to_owned(),
        ask_quantity: "1".to_owned(),
        venue_time_us: now_us - u64::try_from(line.age.as_micros()).expect("a short time"),
        update_id: now_us,
    };
    PriceBatch {
        quotes: lines.into_iter().map(quote).collect(),
        source: "test".to_owned(),
        published_at_us: now_us,
        ..Default::default()
    }
}

/// Signs tokens, and says which key verifies them.
#[derive(Clone)]
pub struct Issuer {
    key: SigningKey,
}

impl Issuer {
    /// With the key that these bytes are.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            key: SigningKey::from_bytes(&seed),
        }
    }

    /// What a gateway is told to believe.
    pub fn trusted(&self) -> TokenConfig {
        let public_pem = self
            .key
            .verifying_key()
            .to_public_key_pem(LineEnding::LF)
            .expect("a key");
        TokenConfig {
            keys: vec![TokenKey {
                id: Some("test".to_owned()),
                public_pem,
            }],
            issuer: "fulcrum".to_owned(),
            audience: "fulcrum".to_owned(),
        }
    }

    /// For one account, with all that a trader may do.
    pub fn token(&self, account: &str) -> String {
        self.sign(&self.claims(account))
    }

    /// The claims of such a token, to be changed.
    pub fn claims(&self, account: &str) -> Claims {
        let now = now_us() / 1_000_000;
        Claims {
            iss: "fulcrum".to_owned(),
            aud: "fulcrum".to_owned(),
            sub: account.to_owned(),
            exp: now + 3_600,
            nbf: now - 10,
            accounts: vec![account.to_owned()],
            scope: "view trade fund".to_owned(),
        }
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Claims) -> String {
        let pem = self.key.to_pkcs8_pem(LineEnding::LF).expect("a key");
        gateway::token::sign(claims, Some("test"), pem.as_bytes()).expect("a key that signs")
    }
}
