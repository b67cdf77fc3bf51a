//! A bare gRPC server: the same methods with the same messages as the gateway's, answered at once.
//!
//! No layer, no token, no queue. It has one thread with a runtime of its own, which is the cheapest way to run a server here.

use std::net::SocketAddr;

use anyhow::Context as _;
use contracts::v1;
use contracts::v1::balance_service_server::{BalanceService, BalanceServiceServer};
use contracts::v1::trade_service_server::{TradeService, TradeServiceServer};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};

use crate::cpu::{Subject, Watch, this_thread};
use crate::load::{Target, on_a_thread};

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Echo {
    /// How it is called and watched.
    pub target: Target,
    _stops: DropGuard,
}

impl Echo {
    /// Starts it. `tokens` are sent to it as they are to the gateway, and nobody looks at them.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(tokens: Vec<String>) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let (tell, told) = oneshot::channel();
        let stopped = stop.clone();
        tokio::spawn(on_a_thread("bench-echo", async move || {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("a port")?;
            let _gone = tell.send((listener.local_addr().context("a port")?, this_thread()));
            let served = tonic::transport::Server::builder()
                .tcp_nodelay(true)
                .add_service(TradeServiceServer::new(Bare))
                .add_service(BalanceServiceServer::new(Bare))
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped.cancelled());
            served.await.context("the echo server")
        }));
        let (address, thread): (SocketAddr, u32) = told.await.context("the echo server did not start")?;
        let mut watch = Watch::default();
        watch.add("echo", Subject::Thread(thread));
        Ok(Self {
            target: Target {
                address,
                tokens,
                accounts: 1_024,
                watch,
            },
            _stops: stop.drop_guard(),
        })
    }
}

/// Answers with what a real answer would look like.
#[derive(Clone, Copy, Debug)]
struct Bare;

fn usdc(amount: &str) -> Option<v1::Money> {
    Some(v1::Money {
        currency_code: "USDC".to_owned(),
        amount: amount.to_owned(),
    })
}

fn moment() -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: 1_763_800_000,
        nanos: 123_456_000,
    })
}

/// A trade with every field that the engine fills in on opening.
fn trade(account_id: String) -> v1::Trade {
    v1::Trade {
        trade_id: "7-104200".to_owned(),
        account_id,
        symbol: "SOL_USDC".to_owned(),
        side: v1::Side::Long.into(),
        status: v1::TradeStatus::Open.into(),
        quantity: "0.99".to_owned(),
        opened_quantity: "0.99".to_owned(),
        entry_price: "200.02".to_owned(),
        leverage: "2".to_owned(),
        margin: usdc("99.01"),
        liquidation_price: "101.01".to_owned(),
        open_time: moment(),
        realised_profit: usdc("0.00"),
        unrealised_profit: usdc("-0.02"),
        commission: usdc("0.00"),
        quote: Some(v1::Quote {
            symbol: "SOL_USDC".to_owned(),
            bid: "200.00".to_owned(),
            ask: "200.02".to_owned(),
            ..Default::default()
        }),
        sequence: 104_200,
        ..Default::default()
    }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only a yardstick"))
}

#[tonic::async_trait]
impl TradeService for Bare {
    async fn open_trade(
        &self,
        request: Request<v1::OpenTradeRequest>,
    ) -> Result<Response<v1::OpenTradeResponse>, Status> {
        Ok(Response::new(v1::OpenTradeResponse {
            trade: Some(trade(request.into_inner().account_id)),
            free_balance: usdc("999999900.00"),
            sequence: 104_200,
        }))
    }

    async fn close_trade(
        &self,
        request: Request<v1::CloseTradeRequest>,
    ) -> Result<Response<v1::CloseTradeResponse>, Status> {
        Ok(Response::new(v1::CloseTradeResponse {
            trade: Some(trade(request.into_inner().account_id)),
            realised_profit: usdc("-0.02"),
            closed_quantity: "0.99".to_owned(),
            close_price: "200.00".to_owned(),
            free_balance: usdc("999999999.98"),
            sequence: 104_201,
        }))
    }

    async fn modify_trade(
        &self,
        _: Request<v1::ModifyTradeRequest>,
    ) -> Result<Response<v1::ModifyTradeResponse>, Status> {
        not_here()
    }

    async fn get_trade(&self, _: Request<v1::GetTradeRequest>) -> Result<Response<v1::GetTradeResponse>, Status> {
        not_here()
    }

    async fn list_trades(&self, _: Request<v1::ListTradesRequest>) -> Result<Response<v1::ListTradesResponse>, Status> {
        not_here()
    }

    type StreamAccountEventsStream = tokio_stream::Empty<Result<v1::StreamAccountEventsResponse, Status>>;

    async fn stream_account_events(
        &self,
        _: Request<v1::StreamAccountEventsRequest>,
    ) -> Result<Response<Self::StreamAccountEventsStream>, Status> {
        not_here()
    }
}

#[tonic::async_trait]
impl BalanceService for Bare {
    async fn list_balances(
        &self,
        _: Request<v1::ListBalancesRequest>,
    ) -> Result<Response<v1::ListBalancesResponse>, Status> {
        let balance = |code: &str, free: &str| v1::Balance {
            currency_code: code.to_owned(),
            free: free.to_owned(),
            locked: "0.00".to_owned(),
            total: free.to_owned(),
        };
        Ok(Response::new(v1::ListBalancesResponse {
            balances: vec![
                balance("BTC", "1.00000000"),
                balance("ETH", "10.00000000"),
                balance("SOL", "100.00000000"),
                balance("USDC", "999999900.00"),
            ],
            sequence: 104_200,
        }))
    }

    async fn get_balance(&self, _: Request<v1::GetBalanceRequest>) -> Result<Response<v1::GetBalanceResponse>, Status> {
        not_here()
    }

    async fn get_account_summary(
        &self,
        _: Request<v1::GetAccountSummaryRequest>,
    ) -> Result<Response<v1::GetAccountSummaryResponse>, Status> {
        not_here()
    }
}
