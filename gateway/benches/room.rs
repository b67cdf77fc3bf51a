//! What the gates and the room cost a call, with an engine that answers at once, without a port: nanoseconds of one thread, alone and with
//! so many calls in flight that what each holds decides. Generated client included. `cargo bench -p gateway --bench room`.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bus::{CallError, Calls, Redis};
use contracts::bus::{Reply, Request, reply};
use contracts::v1;
use contracts::v1::trade_service_client::TradeServiceClient;
use gateway::token::{Claims, sign};
use gateway::{Config, Inside, Rate, TokenConfig, TokenKey};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prost::Message as _;
use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

// Keys of this bench alone.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIH9NoQP0JC8PBwCPruZtMqnGEPfFLKPY3pMlRbM7woyU\n-----END PRIVATE KEY-----\n";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAdAfSPLFHdjLkNBO9x/4y+1aDkNy9q0fMhgD34LzuV1I=\n-----END PUBLIC KEY-----\n";
const ROUND: u32 = 100_000;
const ROUNDS: usize = 5;
const NO_LIMIT: Rate = Rate {
    per_second: u32::MAX,
    burst: u32::MAX,
};

/// An engine that answers at once.
#[derive(Clone)]
struct AtOnce(Reply);

impl Calls for AtOnce {
    async fn call(&self, request: Request, _: tokio::time::Instant) -> Result<Reply, CallError> {
        drop(request);
        // The others come in meanwhile.
        tokio::task::yield_now().await;
        Ok(self.0.clone())
    }

    fn is_full(&self) -> bool {
        false
    }
}

fn main() {
    let registry = prometheus::Registry::new();
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .build()
        .expect("an exporter");
    opentelemetry::global::set_meter_provider(SdkMeterProvider::builder().with_reader(exporter).build());
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(run());
}

async fn run() {
    let tokens = TokenConfig {
        keys: vec![TokenKey {
            id: None,
            public_pem: PUBLIC.to_owned(),
        }],
        issuer: "issuer".to_owned(),
        audience: "bench".to_owned(),
    };
    let claims = Claims {
        iss: "issuer".to_owned(),
        aud: "bench".to_owned(),
        sub: "alice".to_owned(),
        exp: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs()
            + 3_600,
        nbf: 0,
        accounts: vec!["*".to_owned()],
        scope: "view trade fund".to_owned(),
    };
    let token = format!(
        "Bearer {}",
        sign(&claims, None, PRIVATE.as_bytes()).expect("a good key")
    );
    let pool = PgPoolOptions::new()
        .connect_lazy("postgres://nobody@127.0.0.1:1/none")
        .expect("an address");
    let mut config = Config::new(
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        Redis::open("redis://127.0.0.1:1").expect("an address"),
        pool,
        tokens,
    );
    config.limits.principal = NO_LIMIT;
    config.limits.address = NO_LIMIT;
    let response = v1::OpenTradeResponse {
        trade: Some(v1::Trade {
            trade_id: "3-17".to_owned(),
            account_id: "alice".to_owned(),
            symbol: "SOL_USDC".to_owned(),
            leverage: "10".to_owned(),
            quantity: "10".to_owned(),
            entry_price: "150.01".to_owned(),
            ..Default::default()
        }),
        sequence: 17,
        ..Default::default()
    };
    let reply = Reply {
        sequence: 17,
        outcome: Some(reply::Outcome::Response(response.encode_to_vec().into())),
        ..Default::default()
    };
    let stopped = CancellationToken::new();
    let inside = Inside::new(&config, 16, AtOnce(reply), &stopped).expect("a room");
    let asked = v1::OpenTradeRequest {
        account_id: "alice".to_owned(),
        symbol: "SOL_USDC".to_owned(),
        side: v1::Side::Long.into(),
        size: Some(v1::open_trade_request::Size::Margin("10.00".to_owned())),
        leverage: "10".to_owned(),
        ..Default::default()
    };
    for together in [1, 256] {
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..together {
                let (inside, asked, token) = (inside.clone(), asked.clone(), token.clone());
                tasks.spawn(async move {
                    for _ in 0..ROUND / together {
                        let mut request = tonic::Request::new(asked.clone());
                        request.set_timeout(Duration::from_secs(5));
                        request
                            .metadata_mut()
                            .insert("authorization", token.parse().expect("a header"));
                        TradeServiceClient::new(inside.clone())
                            .open_trade(request)
                            .await
                            .expect("an answer");
                    }
                });
            }
            while tasks.join_next().await.is_some() {}
            let each = began.elapsed().as_nanos() / u128::from(ROUND);
            println!("open through the room, {together} at once: {each} ns");
        }
    }
}
