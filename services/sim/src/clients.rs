//! Clients: they want things, lose patience, try again with the same id, and send old and odd things.

use std::time::Duration;

use bus::NotAccepted;
use bytes::Bytes;
use contracts::bus::request::Command;
use contracts::bus::{Failure, reply};
use contracts::shard::of_account;
use contracts::v1::{self, ErrorReason, operation};
use engine::window::Limits;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use crate::commands;
use crate::coverage::Corner;
use crate::gateways::{GATEWAYS, Gateways};
use crate::history::{ReadSeen, Told};
use crate::journal::wait;
use crate::talk::{self, Call, Response};
use crate::tokens::{self, Flaw};
use crate::world::{Inner, World};

/// Who calls.
pub const PRINCIPALS: [&str; 3] = ["alice", "bob", "carol"];
/// How many accounts each has.
const ACCOUNTS: usize = 3;
/// How many old operations are sent again after a take-over.
const SENT_AGAIN: usize = 6;
/// How long after its deadline a call must have ended: a gateway that lives never leaves a client without a word. Milliseconds.
const LAST_WORD_MS: u64 = 300;

/// Everything a client needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    pub world: World,
    pub gateways: Gateways,
    pub window: Limits,
}

/// The accounts of a principal.
pub fn accounts_of(principal: &str) -> impl Iterator<Item = String> {
    let principal = principal.to_owned();
    (0..ACCOUNTS).map(move |n| format!("{principal}-{n}"))
}

impl Client {
    /// Lives as a principal until told to end.
    pub async fn live(self, principal: &'static str, over: CancellationToken) {
        let accounts: Vec<String> = accounts_of(principal).collect();
        for account in &accounts {
            let command = Command::InitializeWallet(v1::InitializeWalletRequest::default());
            let first = self.world.with(|inner| self.want(inner, principal, account, command));
            self.insist(first, 3).await;
        }
        while !over.is_cancelled() {
            let pause = self.world.with(|inner| inner.dice.between(10, 250));
            wait(pause).await;
            let (account, what) = self
                .world
                .with(|inner| (inner.dice.pick(&accounts).clone(), inner.dice.between(0, 99)));
            match what {
                0..=59 => {
                    let (wanted, tries) = self.world.with(|inner| {
                        let command = self.command(inner, &account);
                        let tries = if inner.dice.chance(300) {
                            1
                        } else {
                            inner.dice.between(2, 5)
                        };
                        (self.want(inner, principal, &account, command), tries)
                    });
                    self.insist(wanted, tries).await;
                }
                60..=79 => self.read(principal, &account).await,
                80..=89 => self.send_old_again(1, None).await,
                90..=93 => self.reuse().await,
                94..=95 => self.share(principal).await,
                96 => self.intrude(principal, &account).await,
                _ => self.odd_id(principal, &account).await,
            }
        }
    }

    fn shard(&self, account: &str) -> u32 {
        let shards = self.world.with(|inner| inner.options.shards);
        of_account(account, shards)
    }

    fn command(&self, inner: &mut Inner, account: &str) -> Command {
        let shard = of_account(account, inner.options.shards);
        let trades = inner.trades.get(account).cloned().unwrap_or_default();
        commands::mutation(&mut inner.dice, &trades, shard)
    }

    fn want(&self, inner: &mut Inner, principal: &str, account: &str, command: Command) -> usize {
        let id = inner.fresh_request_id();
        let shard = of_account(account, inner.options.shards);
        inner.history.want((shard, principal.to_owned(), id), account, command)
    }

    /// Tries until there is an answer, or so many times.
    async fn insist(&self, wanted: usize, tries: u64) {
        for _ in 0..tries {
            match self.attempt(wanted).await {
                Told::Answer | Told::Reused | Told::TooOld => return,
                Told::Nothing | Told::Unknown => {
                    let pause = self.world.with(|inner| inner.dice.between(20, 400));
                    wait(pause).await;
                }
            }
        }
    }

    /// Sends an operation once. What its sender is told.
    pub async fn attempt(&self, wanted: usize) -> Told {
        let patience_ms = self.world.with(|inner| {
            if inner.dice.chance(300) {
                inner.dice.between(5, 300)
            } else {
                inner.dice.between(300, 5_000)
            }
        });
        self.attempt_within(wanted, patience_ms).await
    }

    /// The same with a deadline so far away. Milliseconds.
    pub async fn attempt_within(&self, wanted: usize, patience_ms: u64) -> Told {
        self.attempt_as(wanted, patience_ms, None).await
    }

    /// The same with a token that may have something wrong with it.
    async fn attempt_as(&self, wanted: usize, patience_ms: u64, flaw: Option<Flaw>) -> Told {
        let (call, attempt, slot) = self.world.with(|inner| {
            let slot = inner.dice.index(GATEWAYS);
            let expires_at_us = (inner.true_ms() + patience_ms) * 1_000;
            let operation = &mut inner.history.operations[wanted];
            operation.attempts.push((expires_at_us, None));
            let attempt = operation.attempts.len() - 1;
            let call = Call {
                token: tokens::of(&operation.key.1, flaw),
                name: format!("{wanted}.{attempt}"),
                account: operation.account.clone(),
                request_id: Some(operation.key.2),
                command: operation.command.clone(),
                patience: Duration::from_millis(patience_ms),
            };
            (call, attempt, slot)
        });
        let (name, ended) = self.call(slot, call).await;
        self.world.with(|inner| {
            let told = match ended {
                // Nobody is there any more who could say anything.
                None => Told::Unknown,
                Some(Ok(response)) => answered(inner, wanted, attempt, response),
                Some(Err(status)) => refused(inner, wanted, attempt, &status, &name, flaw),
            };
            inner.history.operations[wanted].attempts[attempt].1 = Some(told);
            told
        })
    }

    /// Makes a call; `None` when its gateway dies before it answers. A gateway that lives answers in time.
    async fn call(&self, slot: usize, call: Call) -> (String, Option<Result<Response, Status>>) {
        let name = call.name.clone();
        let in_time = call.patience + Duration::from_millis(LAST_WORD_MS);
        let ended = self.gateways.call(slot, |gateway| call.make(gateway));
        match tokio::time::timeout(in_time, ended).await {
            Ok(ended) => (name, ended),
            Err(_) => {
                self.world
                    .with(|inner| inner.violation(format!("the call {name} was never answered")));
                (name, None)
            }
        }
    }

    /// Sends operations again that were answered before; of one shard, or of any.
    pub async fn send_old_again(&self, count: usize, shard: Option<u32>) {
        for _ in 0..count {
            let old = self.world.with(|inner| {
                let answered: Vec<usize> = inner
                    .history
                    .operations
                    .iter()
                    .enumerate()
                    .filter(|(_, operation)| operation.answer.is_some())
                    .filter(|(_, operation)| shard.is_none_or(|shard| shard == operation.key.0))
                    .map(|(index, _)| index)
                    .collect();
                (!answered.is_empty()).then(|| *inner.dice.pick(&answered))
            });
            let Some(old) = old else { return };
            self.attempt(old).await;
        }
    }

    /// After each take-over, sends old operations of that shard again: what a new leader forgot shows here.
    pub async fn test_new_leaders(self, over: CancellationToken) {
        let mut known = self.world.with(|inner| inner.take_overs.clone());
        while !over.is_cancelled() {
            wait(150).await;
            let now = self.world.with(|inner| inner.take_overs.clone());
            for (shard, (before, after)) in (0..).zip(known.iter().zip(&now)) {
                if after > before {
                    self.send_old_again(SENT_AGAIN, Some(shard)).await;
                }
            }
            known = now;
        }
    }

    /// Uses a known id for another command.
    async fn reuse(&self) {
        let wanted = self.world.with(|inner| {
            if inner.history.operations.is_empty() {
                return None;
            }
            let index = inner.dice.index(inner.history.operations.len());
            let known = inner.history.operations[index].clone();
            let command = self.command(inner, &known.account);
            let is_other = inner.history.by_key[&known.key]
                .iter()
                .all(|index| inner.history.operations[*index].command != command);
            is_other.then(|| inner.history.want(known.key, &known.account, command))
        });
        if let Some(wanted) = wanted {
            self.attempt(wanted).await;
        }
    }

    /// Uses an id that somebody else used too: for the same account as an operator would, or for one of its own on that shard.
    async fn share(&self, principal: &str) {
        let own: Vec<String> = accounts_of(principal).collect();
        let wanted = self.world.with(|inner| {
            let others: Vec<usize> = (0..inner.history.operations.len())
                .filter(|index| inner.history.operations[*index].key.1 != principal)
                .collect();
            if others.is_empty() {
                return None;
            }
            let other = *inner.dice.pick(&others);
            let known = inner.history.operations[other].clone();
            let shard = known.key.0;
            let account = own
                .iter()
                .find(|account| of_account(account, inner.options.shards) == shard)
                .filter(|_| inner.dice.chance(500))
                .unwrap_or(&known.account)
                .clone();
            let key = (shard, principal.to_owned(), known.key.2);
            if inner.history.by_key.contains_key(&key) {
                return None;
            }
            inner.coverage.visit(Corner::SharedId);
            Some(inner.history.want(key, &account, known.command))
        });
        if let Some(wanted) = wanted {
            self.insist(wanted, 2).await;
        }
    }

    /// Sends an id whose time is near the end of the window, far before it, or ahead.
    async fn odd_id(&self, principal: &str, account: &str) {
        let wanted = self.world.with(|inner| {
            let now_ms = inner.true_ms();
            let window_ms = self.window.window_ms;
            let time_ms = match inner.dice.between(0, 3) {
                0 => now_ms - window_ms + inner.dice.between(0, 1_500),
                1 => now_ms - window_ms - inner.dice.between(0, 1_500),
                2 => now_ms - 10 * window_ms,
                _ => now_ms + inner.dice.between(0, 2_000),
            };
            let id = inner.request_id_at(time_ms);
            let shard = of_account(account, inner.options.shards);
            let command = self.command(inner, account);
            inner.history.want((shard, principal.to_owned(), id), account, command)
        });
        self.insist(wanted, 2).await;
    }

    /// Wants something with a token that does not allow it.
    async fn intrude(&self, principal: &str, account: &str) {
        let (wanted, flaw, patience_ms) = self.world.with(|inner| {
            let command = Command::Deposit(v1::DepositRequest {
                amount: Some(v1::Money {
                    currency_code: "USDC".to_owned(),
                    amount: "1000000".to_owned(),
                }),
                ..Default::default()
            });
            let flaw = *inner.dice.pick(&Flaw::ALL);
            let wanted = self.want(inner, principal, account, command);
            (wanted, flaw, inner.dice.between(5, 1_000))
        });
        self.attempt_as(wanted, patience_ms, Some(flaw)).await;
    }

    /// Reads balances, or what became of an operation.
    async fn read(&self, principal: &str, account: &str) {
        let shard = self.shard(account);
        let (floor, slot, patience_ms, waits, operation) = self.world.with(|inner| {
            let answered: Vec<usize> = inner
                .history
                .by_key
                .iter()
                .filter(|(key, _)| key.0 == shard && key.1 == principal)
                .flat_map(|(_, indexes)| indexes)
                .copied()
                .filter(|index| {
                    let operation = &inner.history.operations[*index];
                    operation.answer.is_some() && operation.account == account
                })
                .collect();
            // The map has no order of its own.
            let operation = answered.into_iter().max().filter(|_| inner.dice.chance(250));
            (
                inner.history.told_sequence[shard as usize],
                inner.dice.index(GATEWAYS),
                inner.dice.between(200, 4_000),
                inner.dice.chance(400),
                operation,
            )
        });
        let waits = waits && operation.is_none();
        let command = match operation {
            None => Command::ListBalances(v1::ListBalancesRequest {
                min_sequence: if waits { floor } else { 0 },
                ..Default::default()
            }),
            Some(index) => Command::GetOperation(v1::GetOperationRequest {
                request_id: self
                    .world
                    .with(|inner| Uuid::from_u128(inner.history.operations[index].key.2).to_string()),
                ..Default::default()
            }),
        };
        let call = Call {
            token: tokens::of(principal, None),
            name: "read".to_owned(),
            account: account.to_owned(),
            request_id: None,
            command,
            patience: Duration::from_millis(patience_ms),
        };
        let (name, ended) = self.call(slot, call).await;
        self.world.with(|inner| match (ended, operation) {
            (None, _) => {}
            (Some(Err(status)), _) => read_refused(inner, shard, waits.then_some(floor), operation, &status, &name),
            (Some(Ok(response)), Some(index)) => compare_found(inner, index, &response.bytes),
            (Some(Ok(response)), None) => {
                if response.sequence < floor {
                    inner.violation(format!(
                        "shard {shard}: a read shows sequence {}, {floor} was told before it began",
                        response.sequence
                    ));
                }
                inner.history.heard_of(shard, response.sequence);
                if waits && floor > 0 {
                    inner.coverage.visit(Corner::ReadAfterWrite);
                }
                if let Ok(list) = v1::ListBalancesResponse::decode(response.bytes) {
                    inner.history.reads.push(ReadSeen {
                        shard,
                        sequence: list.sequence,
                        account: account.to_owned(),
                        balances: list.balances,
                    });
                }
            }
        });
    }
}

/// An attempt was answered with a response.
fn answered(inner: &mut Inner, wanted: usize, attempt: usize, response: Response) -> Told {
    let shard = inner.history.operations[wanted].key.0;
    inner.history.heard_of(shard, response.sequence);
    told(inner, wanted, attempt, reply::Outcome::Response(response.bytes))
}

/// An attempt was answered with a status.
fn refused(inner: &mut Inner, wanted: usize, attempt: usize, status: &Status, name: &str, flaw: Option<Flaw>) -> Told {
    let failure = match talk::refusal(status, name) {
        Ok(failure) => failure,
        Err(what) => {
            inner.violation(what);
            return Told::Unknown;
        }
    };
    let reason = failure.reason();
    if let Some(flaw) = flaw {
        inner.coverage.visit(Corner::TokenRefused);
        if reason != flaw.reason() {
            inner.violation(format!("a token with a flaw in its {flaw:?} came to {reason:?}"));
        }
        return Told::Nothing;
    }
    match reason {
        ErrorReason::NotAccepted => {
            turned_away(inner, &failure);
            Told::Nothing
        }
        ErrorReason::UnknownOutcome => {
            inner.coverage.visit(Corner::UnknownOutcome);
            let id = Uuid::from_u128(inner.history.operations[wanted].key.2).to_string();
            if failure
                .facts
                .iter()
                .any(|fact| fact.name == "request_id" && fact.value != id)
            {
                inner.violation(format!(
                    "the call {name} is told to ask for another operation: {failure:?}"
                ));
            }
            Told::Unknown
        }
        _ => told(inner, wanted, attempt, reply::Outcome::Failure(failure)),
    }
}

/// What an attempt was told is compared with what was told before.
fn told(inner: &mut Inner, wanted: usize, attempt: usize, outcome: reply::Outcome) -> Told {
    let shard = inner.history.operations[wanted].key.0;
    let was_answered = inner.history.operations[wanted].answer.is_some();
    match inner.history.told(wanted, attempt, &outcome) {
        Err(what) => {
            inner.violation(what);
            Told::TooOld
        }
        Ok(told) => {
            match (told, was_answered) {
                (Told::Answer, false) => {
                    inner.coverage.visit(Corner::Acknowledged);
                    remember_trade(inner, wanted, &outcome);
                }
                (Told::Answer, true) => inner.coverage.visit(Corner::DedupeHit),
                (Told::TooOld, true) => inner.coverage.visit(Corner::WindowForgot),
                _ => {}
            }
            inner.note("told", shard.into(), wanted as u64, || format!("{told:?}"));
            told
        }
    }
}

fn remember_trade(inner: &mut Inner, wanted: usize, outcome: &reply::Outcome) {
    let operation = &inner.history.operations[wanted];
    if let (Command::OpenTrade(_), reply::Outcome::Response(bytes)) = (&operation.command, outcome)
        && let Ok(opened) = v1::OpenTradeResponse::decode(bytes.clone())
        && let Some(trade) = opened.trade
    {
        let account = operation.account.clone();
        inner.trades.entry(account).or_default().push(trade.trade_id);
    }
}

fn turned_away(inner: &mut Inner, failure: &Failure) {
    let says = |why: NotAccepted| failure.message.contains(&why.to_string());
    let corner = if says(NotAccepted::NoLeader) {
        Corner::NoLeader
    } else if says(NotAccepted::BusAway) {
        Corner::BusAway
    } else {
        Corner::QueueFull
    };
    inner.coverage.visit(corner);
}

/// A read was not carried out.
fn read_refused(
    inner: &mut Inner,
    shard: u32,
    waited_for: Option<u64>,
    operation: Option<usize>,
    status: &Status,
    name: &str,
) {
    let failure = match talk::refusal(status, name) {
        Ok(failure) => failure,
        Err(what) => return inner.violation(what),
    };
    match (failure.reason(), operation) {
        (ErrorReason::NotAccepted, _) => turned_away(inner, &failure),
        // Nothing changed, so nothing is unknown.
        (ErrorReason::UnknownOutcome, _) => inner.violation(format!("a read is told {failure:?}")),
        (ErrorReason::HistoryBehind, Some(_)) => inner.coverage.visit(Corner::HistoryBehind),
        (ErrorReason::OperationNotFound, Some(index)) => {
            let answer = inner.history.operations[index].answer.clone();
            inner.violation(format!("GetOperation does not know what was answered with {answer:?}"));
        }
        (ErrorReason::InvalidField, _) if waited_for.is_some() => inner.violation(format!(
            "shard {shard}: sequence {waited_for:?} was told, and a read that waits for it is told {failure:?}"
        )),
        _ => {}
    }
}

/// What the window says about an operation is what its client was told.
fn compare_found(inner: &mut Inner, index: usize, bytes: &Bytes) {
    let found = v1::GetOperationResponse::decode(bytes.clone())
        .ok()
        .and_then(|it| it.operation)
        .and_then(|it| it.result);
    let outcome = match found {
        Some(operation::Result::Response(any)) => Some(reply::Outcome::Response(any.value.into())),
        Some(operation::Result::Error(status)) => match talk::kept(&status) {
            Ok(failure) => Some(reply::Outcome::Failure(failure)),
            Err(what) => return inner.violation(what),
        },
        None => None,
    };
    if outcome != inner.history.operations[index].answer {
        let told = inner.history.operations[index].answer.clone();
        inner.violation(format!("GetOperation says {outcome:?}, its client was told {told:?}"));
    }
}
