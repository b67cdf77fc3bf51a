//! Clients: they want things, lose patience, try again with the same id, and send old and odd things.

use std::time::Duration;

use bus::{CallError, NotAccepted};
use bytes::Bytes;
use contracts::bus::request::Command;
use contracts::bus::{OperationFound, Request, reply};
use contracts::shard::of_account;
use contracts::v1::{self, ErrorReason};
use engine::window::Limits;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::commands;
use crate::coverage::Corner;
use crate::gateways::{GATEWAYS, Gateways};
use crate::history::{ReadSeen, Told, is};
use crate::journal::wait;
use crate::world::{Inner, World};

/// Who calls.
pub const PRINCIPALS: [&str; 3] = ["alice", "bob", "carol"];
/// How many accounts each has.
const ACCOUNTS: usize = 3;
/// How many old operations are sent again after a take-over.
const SENT_AGAIN: usize = 6;

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
                90..=93 => self.reuse(&account).await,
                94..=96 => self.share(principal).await,
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
        let (request, attempt, slot) = self.world.with(|inner| {
            let expires_at_us = (inner.true_ms() + patience_ms) * 1_000;
            let slot = inner.dice.index(GATEWAYS);
            let operation = &mut inner.history.operations[wanted];
            operation.attempts.push((expires_at_us, None));
            let (shard, principal, id) = operation.key.clone();
            let request = Request {
                principal,
                account_id: operation.account.clone(),
                shard,
                request_id: Bytes::copy_from_slice(&id.to_be_bytes()),
                expires_at_us,
                command: Some(operation.command.clone()),
                ..Request::default()
            };
            (request, operation.attempts.len() - 1, slot)
        });
        let outcome = self
            .gateways
            .call(slot, request, Duration::from_millis(patience_ms))
            .await;
        self.world.with(|inner| match outcome {
            Ok(reply) => told(inner, wanted, attempt, reply),
            Err(error) => {
                let told = turned_away(inner, error);
                inner.history.operations[wanted].attempts[attempt].1 = Some(told);
                told
            }
        })
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
    async fn reuse(&self, account: &str) {
        let wanted = self.world.with(|inner| {
            if inner.history.operations.is_empty() {
                return None;
            }
            let index = inner.dice.index(inner.history.operations.len());
            let known = inner.history.operations[index].clone();
            let command = self.command(inner, account);
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
        let command = match operation {
            None => Command::ListBalances(v1::ListBalancesRequest::default()),
            Some(index) => Command::GetOperation(v1::GetOperationRequest {
                request_id: self
                    .world
                    .with(|inner| uuid::Uuid::from_u128(inner.history.operations[index].key.2).to_string()),
                ..Default::default()
            }),
        };
        let request = Request {
            principal: principal.to_owned(),
            account_id: account.to_owned(),
            shard,
            expires_at_us: self.world.with(|inner| (inner.true_ms() + patience_ms) * 1_000),
            min_sequence: if waits { floor } else { 0 },
            command: Some(command),
            ..Request::default()
        };
        let outcome = self
            .gateways
            .call(slot, request, Duration::from_millis(patience_ms))
            .await;
        self.world.with(|inner| match outcome {
            Err(error) => {
                turned_away(inner, error);
            }
            Ok(reply) => {
                if reply.sequence < floor {
                    inner.violation(format!(
                        "shard {shard}: a read shows sequence {}, {floor} was told before it began",
                        reply.sequence
                    ));
                }
                let last = &mut inner.history.told_sequence[shard as usize];
                *last = (*last).max(reply.sequence);
                if waits && floor > 0 {
                    inner.coverage.visit(Corner::ReadAfterWrite);
                }
                match (reply.outcome, operation) {
                    (Some(outcome), _) if waits && is(&outcome, ErrorReason::InvalidField) => {
                        inner.violation(format!(
                            "shard {shard}: sequence {floor} was told, and is ahead of the journal"
                        ));
                    }
                    (Some(reply::Outcome::Response(bytes)), None) => {
                        if let Ok(list) = v1::ListBalancesResponse::decode(bytes) {
                            inner.history.reads.push(ReadSeen {
                                shard,
                                sequence: list.sequence,
                                account: account.to_owned(),
                                balances: list.balances,
                            });
                        }
                    }
                    (Some(reply::Outcome::Response(bytes)), Some(index)) => compare_found(inner, index, bytes),
                    _ => {}
                }
            }
        });
    }
}

/// An attempt was answered.
fn told(inner: &mut Inner, wanted: usize, attempt: usize, reply: contracts::bus::Reply) -> Told {
    let shard = inner.history.operations[wanted].key.0;
    let last = &mut inner.history.told_sequence[shard as usize];
    *last = (*last).max(reply.sequence);
    let Some(outcome) = reply.outcome else {
        inner.violation("a reply without an outcome".to_owned());
        return Told::Unknown;
    };
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

fn turned_away(inner: &mut Inner, error: CallError) -> Told {
    let (corner, told) = match error {
        CallError::UnknownOutcome => (Corner::UnknownOutcome, Told::Unknown),
        CallError::NotAccepted(NotAccepted::NoLeader) => (Corner::NoLeader, Told::Nothing),
        CallError::NotAccepted(NotAccepted::BusAway) => (Corner::BusAway, Told::Nothing),
        CallError::NotAccepted(NotAccepted::QueueFull | NotAccepted::InFlightFull | NotAccepted::TooLarge) => {
            (Corner::QueueFull, Told::Nothing)
        }
    };
    inner.coverage.visit(corner);
    told
}

/// What the window says about an operation is what its client was told.
fn compare_found(inner: &mut Inner, index: usize, bytes: Bytes) {
    let Ok(found) = OperationFound::decode(bytes) else {
        inner.violation("an unreadable OperationFound".to_owned());
        return;
    };
    let outcome = found.entry.and_then(|entry| entry.operation).and_then(|it| it.outcome);
    let outcome = outcome.map(crate::audit::as_reply);
    if outcome != inner.history.operations[index].answer {
        let told = inner.history.operations[index].answer.clone();
        inner.violation(format!("GetOperation says {outcome:?}, its client was told {told:?}"));
    }
}
