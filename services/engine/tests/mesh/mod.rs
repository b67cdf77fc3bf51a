//! An engine with real stores and a caller, for tests.
#![allow(dead_code, reason = "each suite uses its part")]

use std::time::Duration;

use bus::{CallError, Caller, CallerOptions, Calls as _, PricePublisher, Redis};
use contracts::bus::request::Command;
use contracts::bus::{Failure, PriceBatch, Reply, Request, VenueQuote, reply};
use contracts::v1;
use engine::{EngineError, Snapshots};
use prost::Message;
use sqlx::PgPool;
use testkit::{PrivatePostgres, PrivateRedis};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Stores, a caller and a publisher of prices.
pub struct Mesh {
    pub postgres: PrivatePostgres,
    pub redis: PrivateRedis,
    pub bus: Redis,
    pub pool: PgPool,
    pub caller: Caller,
    pub prices: PricePublisher,
    /// For the engines that are started from now on.
    pub journal_kept: Option<Duration>,
    update_id: u64,
}

/// An engine in a task of this test.
pub struct Running {
    pub status: watch::Receiver<engine::Status>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), EngineError>>,
}

impl Running {
    /// Waits until it leads every shard.
    pub async fn leads_all(mut self, shards: usize) -> Self {
        let led = self.status.wait_for(|status| status.leads.len() == shards);
        tokio::time::timeout(Duration::from_secs(30), led)
            .await
            .expect("leads in time")
            .expect("still runs");
        self
    }

    /// Stops it in order.
    pub async fn stop(self) -> Result<(), EngineError> {
        self.stop.cancel();
        self.task.await.expect("does not panic")
    }

    /// Ends it at once, wherever it is.
    pub async fn kill(self) {
        self.task.abort();
        let _ended = self.task.await;
    }

    /// Waits until it ends by itself.
    pub async fn ended(self) -> Result<(), EngineError> {
        tokio::time::timeout(Duration::from_secs(30), self.task)
            .await
            .expect("ends")
            .expect("does not panic")
    }
}

impl Mesh {
    pub async fn start(shards: i32) -> Self {
        Self::start_with(shards, &[("fsync", "on"), ("full_page_writes", "on")]).await
    }

    pub async fn start_with(shards: i32, settings: &[(&str, &str)]) -> Self {
        let postgres = PrivatePostgres::start_with(settings).await;
        let redis = PrivateRedis::start().await;
        let pool = postgres.pool();
        sqlx::migrate!("../../migrations").run(&pool).await.expect("migrates");
        sqlx::query("INSERT INTO cluster (shards) VALUES ($1)")
            .bind(shards)
            .execute(&pool)
            .await
            .expect("inserts");
        sqlx::query("INSERT INTO shard_head (shard) SELECT generate_series(0, $1 - 1)")
            .bind(shards)
            .execute(&pool)
            .await
            .expect("inserts");
        let bus = Redis::open(&redis.url()).expect("an address");
        let caller = Caller::start(&bus, CallerOptions::default(), CancellationToken::new());
        let prices = PricePublisher::connect(&bus).await.expect("connects");
        Self {
            postgres,
            redis,
            bus,
            pool,
            caller,
            prices,
            journal_kept: None,
            update_id: 0,
        }
    }

    pub fn engine(&self, name: &str) -> Running {
        let config = engine::Config {
            redis: self.bus.clone(),
            database: self.postgres.url(),
            name: name.to_owned(),
            instruments: engine::default_instruments(),
            snapshots: Snapshots {
                every: Duration::from_millis(200),
                every_entries: 50,
                journal_kept: self.journal_kept,
            },
        };
        let (tell, status) = watch::channel(engine::Status::default());
        let stop = CancellationToken::new();
        let task = tokio::spawn(engine::run(config, tell, stop.clone()));
        Running { status, stop, task }
    }

    /// Publishes one quote, fresh as of now.
    pub async fn quote(&mut self, symbol: &str, bid: &str, ask: &str) {
        self.update_id += 1;
        let quote = VenueQuote {
            symbol: symbol.to_owned(),
            bid: bid.to_owned(),
            ask: ask.to_owned(),
            venue_time_us: u64::try_from(engine::inbox::wall_us()).unwrap(),
            update_id: self.update_id,
            ..VenueQuote::default()
        };
        let batch = PriceBatch {
            quotes: vec![quote],
            source: "test".to_owned(),
            ..PriceBatch::default()
        };
        self.prices.publish(&batch).await.expect("publishes");
    }

    /// Sends one command and waits for its reply.
    pub async fn send(&self, account: &str, request_id: Option<Uuid>, command: Command) -> Result<Reply, CallError> {
        let shards: i32 = sqlx::query_scalar("SELECT shards FROM cluster")
            .fetch_one(&self.pool)
            .await
            .expect("reads");
        let request = Request {
            principal: account.to_owned(),
            account_id: account.to_owned(),
            shard: contracts::shard::of_account(account, shards.try_into().unwrap()),
            request_id: request_id.map(|id| id.as_bytes().to_vec()).unwrap_or_default().into(),
            expires_at_us: u64::try_from(engine::inbox::wall_us()).unwrap() + 10_000_000,
            command: Some(command),
            ..Request::default()
        };
        self.caller
            .call(request, Instant::now() + Duration::from_secs(10))
            .await
    }

    /// Sends until it was accepted: an engine may just be coming up.
    pub async fn call<M: Message + Default>(
        &self,
        account: &str,
        request_id: Option<Uuid>,
        command: Command,
    ) -> Result<M, Failure> {
        loop {
            match self.send(account, request_id, command.clone()).await {
                Ok(reply) => {
                    return match reply.outcome.expect("an outcome") {
                        reply::Outcome::Response(bytes) => Ok(M::decode(bytes).expect("the method's response")),
                        reply::Outcome::Failure(failure) => Err(failure),
                    };
                }
                Err(CallError::NotAccepted(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(CallError::UnknownOutcome) => assert!(request_id.is_some(), "only a mutation may be sent again"),
            }
        }
    }

    pub async fn initialize(&self, account: &str) -> v1::InitializeWalletResponse {
        let command = Command::InitializeWallet(v1::InitializeWalletRequest::default());
        self.call(account, Some(Uuid::now_v7()), command)
            .await
            .expect("a wallet")
    }

    pub async fn open(
        &self,
        account: &str,
        id: Uuid,
        margin: &str,
        leverage: &str,
    ) -> Result<v1::OpenTradeResponse, Failure> {
        self.call(account, Some(id), Command::OpenTrade(long(margin, leverage)))
            .await
    }

    pub async fn free(&self, account: &str) -> String {
        let command = Command::GetBalance(v1::GetBalanceRequest {
            currency_code: "USDC".to_owned(),
            ..Default::default()
        });
        let answer: v1::GetBalanceResponse = self.call(account, None, command).await.expect("a balance");
        answer.balance.expect("a balance").free
    }

    /// Waits until the engine has a fresh price.
    pub async fn priced(&mut self, symbol: &str, bid: &str, ask: &str) {
        loop {
            self.quote(symbol, bid, ask).await;
            let command = Command::GetQuote(v1::GetQuoteRequest {
                symbol: symbol.to_owned(),
            });
            let quote: Result<v1::GetQuoteResponse, Failure> = self.call("", None, command).await;
            if quote.is_ok_and(|it| {
                it.quote
                    .is_some_and(|quote| quote.bid == bid && quote.state() == v1::QuoteState::Fresh)
            }) {
                return;
            }
        }
    }
}

/// A long on SOL_USDC.
pub fn long(margin: &str, leverage: &str) -> v1::OpenTradeRequest {
    v1::OpenTradeRequest {
        symbol: "SOL_USDC".to_owned(),
        side: v1::Side::Long.into(),
        size: Some(v1::open_trade_request::Size::Margin(margin.to_owned())),
        leverage: leverage.to_owned(),
        ..Default::default()
    }
}
