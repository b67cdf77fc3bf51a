//! An engine that is played: canned answers, and a memory of what it was asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bus::{CallError, Calls, NotAccepted};
use contracts::bus::journal_event::Kind;
use contracts::bus::request::Command;
use contracts::bus::{
    Deposited, Fact, Failure, JournalEntry, JournalEvent, OperationFound, OperationRecord, Reply, Request, WindowEntry,
    operation_record, reply,
};
use contracts::v1::{self, ErrorReason};
use prost::Message as _;

use super::SHARDS;

/// An engine that answers at once, as the account's name says: `stuck` never, `away` has no leader, `poor` is refused,
/// `panics` does.
#[derive(Clone, Default)]
pub struct Played {
    pub seen: Arc<Mutex<Vec<Request>>>,
    /// Too many wait for it.
    pub full: Arc<AtomicBool>,
}

impl Played {
    /// The requests that came for an account.
    pub fn of(&self, account_id: &str) -> Vec<Request> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|it| it.account_id == account_id)
            .cloned()
            .collect()
    }
}

impl Calls for Played {
    async fn call(&self, request: Request, deadline: tokio::time::Instant) -> Result<Reply, CallError> {
        self.seen.lock().unwrap().push(request.clone());
        match request.account_id.as_str() {
            "stuck" => {
                tokio::time::sleep_until(deadline).await;
                Err(CallError::UnknownOutcome)
            }
            "away" => Err(CallError::NotAccepted(NotAccepted::NoLeader)),
            "panics" => panic!("the engine is played by a test that panics"),
            "poor" => Ok(refusal(
                ErrorReason::InsufficientMargin,
                "needs 100.00 USDC, 50.00 is free",
                "50.00",
            )),
            _ => Ok(played(request)),
        }
    }

    fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }
}

pub fn refusal(reason: ErrorReason, message: &str, free: &str) -> Reply {
    let facts = vec![Fact {
        name: "free".into(),
        value: free.into(),
    }];
    let failure = Failure {
        reason: reason.into(),
        message: message.into(),
        facts,
        ..Default::default()
    };
    Reply {
        sequence: 7,
        account_sequence: 7,
        outcome: Some(reply::Outcome::Failure(failure)),
        ..Default::default()
    }
}

fn usdc(amount: &str) -> Option<v1::Money> {
    Some(v1::Money {
        currency_code: "USDC".into(),
        amount: amount.into(),
    })
}

/// A trade of `demo`, whose shard is 0 of 4.
pub fn trade(number: u64) -> v1::Trade {
    v1::Trade {
        trade_id: format!("{}-{number}", shard("demo")),
        account_id: "demo".into(),
        symbol: "SOL_USDC".into(),
        side: v1::Side::Long.into(),
        status: v1::TradeStatus::Open.into(),
        quantity: "5.000".into(),
        margin: usdc("100.00"),
        open_time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        unrealised_profit: usdc("1.50"),
        sequence: 7,
        ..Default::default()
    }
}

pub fn shard(account_id: &str) -> u32 {
    contracts::shard::of_account(account_id, SHARDS)
}

pub fn instrument() -> v1::Instrument {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    v1::Instrument {
        symbol: "SOL_USDC".into(),
        tick_size: "0.01".into(),
        stale_soft_age: seconds(5),
        stale_hard_age: seconds(30),
        ..Default::default()
    }
}

fn played(request: Request) -> Reply {
    let free_balance = usdc("4900.00");
    let sequence = 7;
    let balance = || v1::Balance {
        currency_code: "USDC".into(),
        free: "4900.00".into(),
        ..Default::default()
    };
    let good = |message: &dyn Fn() -> Vec<u8>| reply::Outcome::Response(message().into());
    let failed = |reason, message: &str| match refusal(reason, message, "").outcome {
        Some(outcome) => outcome,
        None => unreachable!(),
    };
    let outcome = match request.command.unwrap() {
        Command::InitializeWallet(_) => good(&|| {
            let balances = usdc("5000.00").into_iter().collect();
            v1::InitializeWalletResponse {
                balances,
                created: true,
                sequence,
            }
            .encode_to_vec()
        }),
        Command::Deposit(_) => good(&|| {
            v1::DepositResponse {
                free_balance: free_balance.clone(),
                sequence,
            }
            .encode_to_vec()
        }),
        Command::Withdraw(_) => good(&|| {
            v1::WithdrawResponse {
                free_balance: free_balance.clone(),
                sequence,
            }
            .encode_to_vec()
        }),
        Command::OpenTrade(_) => good(&|| {
            v1::OpenTradeResponse {
                trade: Some(trade(2)),
                free_balance: free_balance.clone(),
                sequence,
            }
            .encode_to_vec()
        }),
        Command::CloseTrade(_) => good(&|| {
            v1::CloseTradeResponse {
                trade: Some(trade(2)),
                sequence,
                ..Default::default()
            }
            .encode_to_vec()
        }),
        Command::ModifyTrade(_) => good(&|| {
            v1::ModifyTradeResponse {
                trade: Some(trade(2)),
                sequence,
                ..Default::default()
            }
            .encode_to_vec()
        }),
        Command::ListBalances(_) => good(&|| {
            v1::ListBalancesResponse {
                balances: vec![balance()],
                sequence,
            }
            .encode_to_vec()
        }),
        Command::GetBalance(it) if it.currency_code == "DOGE" => failed(ErrorReason::CurrencyUnknown, "not held here"),
        Command::GetBalance(_) => good(&|| {
            v1::GetBalanceResponse {
                balance: Some(balance()),
                sequence,
            }
            .encode_to_vec()
        }),
        Command::GetAccountSummary(_) => good(&|| {
            v1::GetAccountSummaryResponse {
                equity: usdc("5001.50"),
                open_trades: 1,
                sequence,
                ..Default::default()
            }
            .encode_to_vec()
        }),
        Command::GetTrade(it) if it.trade_id == trade(2).trade_id => good(&|| {
            v1::GetTradeResponse {
                trade: Some(trade(2)),
                sequence,
            }
            .encode_to_vec()
        }),
        Command::GetTrade(it) if it.trade_id == trade(1).trade_id => failed(ErrorReason::TradeClosed, "closed already"),
        Command::GetTrade(_) => failed(ErrorReason::TradeNotFound, "this account has no such trade"),
        Command::ListOpenTrades(_) => panic!("only gateways of before ask this"),
        Command::OpenTrades(it) => good(&|| {
            // The second is open, and stands between those that are not.
            let follows = it
                .after_number
                .is_none_or(|after| if it.descending { after > 2 } else { after < 2 });
            v1::ListTradesResponse {
                trades: vec![trade(2); usize::from(it.limit > 0 && follows)],
                sequence,
                ..Default::default()
            }
            .encode_to_vec()
        }),
        Command::ListInstruments(_) => good(&|| {
            v1::ListInstrumentsResponse {
                instruments: vec![instrument()],
            }
            .encode_to_vec()
        }),
        Command::GetQuote(it) if it.symbol == "SOL_USDC" => good(&|| {
            let quote = v1::Quote {
                symbol: "SOL_USDC".into(),
                bid: "200.00".into(),
                ask: "200.02".into(),
                ..Default::default()
            };
            v1::GetQuoteResponse { quote: Some(quote) }.encode_to_vec()
        }),
        Command::GetQuote(_) => failed(ErrorReason::SymbolUnknown, "not an instrument here"),
        Command::GetOperation(it) if it.request_id.starts_with("01900000") => good(&|| {
            let response = v1::DepositResponse {
                free_balance: free_balance.clone(),
                sequence: 5,
            }
            .encode_to_vec();
            let id = uuid::Uuid::try_parse(&it.request_id).unwrap();
            let operation = OperationRecord {
                request_id: id.as_bytes().to_vec().into(),
                kind: contracts::bus::OperationKind::Deposit.into(),
                outcome: Some(operation_record::Outcome::Response(response.into())),
                ..Default::default()
            };
            let entry = WindowEntry {
                sequence: 5,
                at_us: 1_700_000_000_000_000,
                operation: Some(operation),
            };
            OperationFound {
                entry: Some(entry),
                window_start_ms: 1_600_000_000_000,
            }
            .encode_to_vec()
        }),
        Command::GetOperation(_) => failed(ErrorReason::OperationNotFound, "never executed"),
        Command::GetConservation(_) => good(&|| {
            v1::ShardConservation {
                shard: request.shard,
                sequence: 7,
                state_hash: "00".repeat(16),
                currencies: vec![],
            }
            .encode_to_vec()
        }),
        Command::AccountSnapshot(_) => good(&|| {
            v1::AccountSnapshot {
                as_of_sequence: 7,
                balances: vec![balance()],
                open_trades: vec![trade(2)],
            }
            .encode_to_vec()
        }),
    };
    Reply {
        sequence,
        account_sequence: sequence,
        outcome: Some(outcome),
        ..Default::default()
    }
}

/// An entry: a deposit.
pub fn deposited(sequence: u64, account_id: &str) -> JournalEntry {
    let kind = Kind::Deposited(Deposited {
        account_id: account_id.into(),
        currency_code: "USDC".into(),
        amount: format!("{sequence}.00"),
    });
    let events = vec![JournalEvent {
        kind: Some(kind),
        lines: Vec::new(),
    }];
    JournalEntry {
        sequence,
        at_us: sequence * 1_000_000,
        events,
        ..Default::default()
    }
}
