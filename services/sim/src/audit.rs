//! The judgement after a run: the journal alone, held against what clients were told.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use contracts::bus::journal_event::Kind;
use contracts::bus::{
    JournalBatch, JournalEntry, JournalEvent, LedgerAccountKind, OperationRecord, operation_record, reply,
};
use contracts::v1::{self, CloseReason};
use engine::journal::chain;
use engine::recover::Replica;
use engine::shard::Shard;
use engine::window::Limits;
use engine_core::{AccountId, Currency, LedgerAccount};
use prost::Message as _;
use rust_decimal::Decimal;

use crate::coverage::Corner;
use crate::history::{History, Key, ReadSeen, Told};
use crate::journal::SimJournal;
use crate::postgres::StoredRow;
use crate::process::Process;
use crate::talk;
use crate::world::{START_US, World};

/// How far engine time may run ahead of true time: what the engine's clock follows of a jump, and the tolerance of the check.
const AHEAD_US_MAX: u64 = 6_000_000;
/// How much older a quote that fires a trade may be than the one it was opened at: one batch that came out of order.
const OLDER_US_MAX: u64 = 1_000_000;

/// Judges everything. Violations go into the world.
pub async fn judge(world: &World, window: Limits) {
    let (shards, rows, history) = world.with(|inner| {
        let history = std::mem::take(&mut inner.history);
        (inner.options.shards, inner.postgres.rows.clone(), history)
    });
    let mut journaled = HashMap::new();
    for (shard, rows) in (0..shards).zip(&rows) {
        let mut audit = Audit::new(world, &history, shard, window);
        audit.replay(rows, &mut journaled);
        let genesis = (audit.replica.sequence(), audit.replica.hash());
        audit.money();
        recovered(world, shard, window, genesis).await;
    }
    told_is_true(world, &history, &journaled);
}

/// An outcome as it is journaled, as a client is told it.
fn as_reply(outcome: operation_record::Outcome) -> reply::Outcome {
    match outcome {
        operation_record::Outcome::Response(response) => reply::Outcome::Response(response),
        operation_record::Outcome::Failure(failure) => reply::Outcome::Failure(talk::sorted(failure)),
    }
}

/// One shard's journal from its first row.
struct Audit<'a> {
    world: &'a World,
    history: &'a History,
    shard: u32,
    window: Limits,
    replica: Shard,
    /// Sums of all ledger lines: kind, account, currency.
    ledger: BTreeMap<(i32, String, String), Decimal>,
    /// Venue time of the last quote that a trade was opened or changed at.
    quoted: HashMap<u64, u64>,
    reads: BTreeMap<u64, Vec<&'a ReadSeen>>,
}

impl<'a> Audit<'a> {
    fn new(world: &'a World, history: &'a History, shard: u32, window: Limits) -> Self {
        let mut reads: BTreeMap<u64, Vec<&ReadSeen>> = BTreeMap::new();
        for read in history.reads.iter().filter(|read| read.shard == shard) {
            reads.entry(read.sequence).or_default().push(read);
        }
        Self {
            world,
            history,
            shard,
            window,
            replica: Shard::with_window(shard, window),
            ledger: BTreeMap::new(),
            quoted: HashMap::new(),
            reads,
        }
    }

    fn wrong(&self, what: &str) {
        self.world
            .with(|inner| inner.violation(format!("journal of shard {}: {what}", self.shard)));
    }

    fn replay(&mut self, rows: &[StoredRow], journaled: &mut HashMap<Key, OperationRecord>) {
        let (mut last, mut chained, mut at_us, mut epoch) = (0, [0; 32], 0, 0);
        for row in rows {
            if row.first != last + 1 || row.last < row.first {
                self.wrong(&format!("a gap: row {} to {} follows on {last}", row.first, row.last));
                return;
            }
            if row.epoch < epoch {
                self.wrong(&format!(
                    "row {} of epoch {} follows on epoch {epoch}",
                    row.first, row.epoch
                ));
            }
            chained = chain(&chained, row.last, row.state_hash, &row.body);
            if chained != row.chain {
                self.wrong(&format!("row {} breaks the chain", row.first));
            }
            let Ok(batch) = JournalBatch::decode(row.body.clone()) else {
                self.wrong(&format!("row {} cannot be read", row.first));
                return;
            };
            for entry in batch.entries {
                last += 1;
                if entry.sequence != last {
                    self.wrong(&format!("entry {} stands where {last} belongs", entry.sequence));
                    return;
                }
                if entry.at_us < at_us {
                    self.wrong(&format!("time falls at {last}"));
                }
                at_us = entry.at_us;
                if at_us > START_US.unsigned_abs() + row.landed_us + AHEAD_US_MAX {
                    self.wrong(&format!("entry {last} is from the future"));
                }
                if !self.entry(&entry, &batch.price_cursor, journaled) {
                    return;
                }
            }
            if last != row.last {
                self.wrong(&format!(
                    "row {} holds entries up to {last}, not {}",
                    row.first, row.last
                ));
                return;
            }
            if self.replica.hash() != row.state_hash {
                self.wrong(&format!("replay comes to another state at {last} than its writer had"));
                return;
            }
            epoch = row.epoch;
        }
    }

    /// Judges and folds in one entry; false when there is no going on.
    fn entry(&mut self, entry: &JournalEntry, cursor: &str, journaled: &mut HashMap<Key, OperationRecord>) -> bool {
        for event in &entry.events {
            self.event(entry.sequence, event);
        }
        if let Some(operation) = &entry.operation {
            self.operation(entry, operation, journaled);
        }
        let alone = JournalBatch {
            entries: vec![entry.clone()],
            price_cursor: cursor.to_owned(),
        };
        if let Err(corrupt) = self.replica.replay(&alone.encode_to_vec()) {
            self.wrong(&corrupt.to_string());
            return false;
        }
        for read in self.reads.remove(&entry.sequence).unwrap_or_default() {
            self.read(read);
        }
        true
    }

    fn operation(
        &self,
        entry: &JournalEntry,
        operation: &OperationRecord,
        journaled: &mut HashMap<Key, OperationRecord>,
    ) {
        let Ok(id) = <[u8; 16]>::try_from(operation.request_id.as_ref()) else {
            self.wrong("an operation without an id");
            return;
        };
        let id = u128::from_be_bytes(id);
        let key = (self.shard, operation.principal.clone(), id);
        let name = format!("{}/{id:032x}", operation.principal);
        if journaled.insert(key.clone(), operation.clone()).is_some() {
            self.wrong(&format!("{name} stands in it twice"));
        }
        let made_ms = u64::try_from(id >> 80).expect("48 bits");
        if made_ms + self.window.window_ms < entry.at_us / 1_000 {
            self.wrong(&format!("{name} was executed though it is older than the window"));
        }
        let wanted = self.history.by_key.get(&key).map_or(&[][..], Vec::as_slice);
        let expires_at_us = wanted
            .iter()
            .flat_map(|index| &self.history.operations[*index].attempts)
            .map(|(expires_at_us, _)| *expires_at_us)
            .max();
        match expires_at_us {
            None => self.wrong(&format!("{name} was executed, and nobody sent it")),
            Some(expires) if entry.at_us > expires => {
                self.wrong(&format!(
                    "{name} was executed {} µs past its deadline",
                    entry.at_us - expires
                ));
            }
            Some(_) => {}
        }
    }

    fn event(&mut self, sequence: u64, event: &JournalEvent) {
        let mut sums: BTreeMap<&str, Decimal> = BTreeMap::new();
        for line in &event.lines {
            let amount: Decimal = line.amount.parse().unwrap_or(Decimal::MAX);
            *sums.entry(&line.currency_code).or_default() += amount;
            let place = (line.ledger_account, line.account_id.clone(), line.currency_code.clone());
            *self.ledger.entry(place).or_default() += amount;
        }
        if sums.values().any(|sum| !sum.is_zero()) {
            self.wrong(&format!("the lines of an event at {sequence} sum to {sums:?}"));
        }
        let visit = |corner| self.world.with(|inner| inner.coverage.visit(corner));
        match &event.kind {
            Some(Kind::TradeOpened(opened)) => {
                visit(Corner::Opened);
                self.quote_used(opened.trade.as_ref(), opened.quote.as_ref());
            }
            Some(Kind::TradeModified(modified)) => {
                self.quote_used(modified.trade.as_ref(), modified.quote.as_ref());
            }
            Some(Kind::TradeClosed(closed)) => {
                let fired = match closed.reason() {
                    CloseReason::Liquidation => Some(Corner::Liquidated),
                    CloseReason::StopLoss | CloseReason::TakeProfit => Some(Corner::TriggerFired),
                    _ => None,
                };
                let number = closed.trade.as_ref().map_or(0, |trade| trade.number);
                if let Some(corner) = fired {
                    visit(corner);
                    let at = closed.quote.as_ref().map_or(0, |quote| quote.venue_time_us);
                    let before = self.quoted.get(&number).copied().unwrap_or(0);
                    if at + OLDER_US_MAX < before {
                        self.wrong(&format!(
                            "trade {number} was closed at {sequence} by a quote {} ms older than the one it was opened at",
                            (before - at) / 1_000
                        ));
                    }
                }
            }
            _ => {}
        }
    }

    fn quote_used(&mut self, trade: Option<&contracts::bus::TradeState>, quote: Option<&contracts::bus::QuoteUsed>) {
        if let (Some(trade), Some(quote)) = (trade, quote) {
            self.quoted.insert(trade.number, quote.venue_time_us);
        }
    }

    /// A read shows what the journal comes to at its sequence.
    fn read(&self, read: &ReadSeen) {
        let Ok(account) = AccountId::new(&read.account) else {
            return;
        };
        let Some(owner) = self.replica.state().account(&account) else {
            self.wrong(&format!(
                "a read at {} shows an account that is not there",
                read.sequence
            ));
            return;
        };
        let shown = |balance: &v1::Balance| {
            (
                balance.currency_code.clone(),
                balance.free.parse::<Decimal>().ok(),
                balance.locked.parse::<Decimal>().ok(),
            )
        };
        let ours: Vec<_> = owner
            .balances
            .iter()
            .map(|balance| {
                (
                    balance.currency.to_string(),
                    Some(balance.free.get()),
                    Some(balance.locked.get()),
                )
            })
            .collect();
        let theirs: Vec<_> = read.balances.iter().map(shown).collect();
        if ours != theirs {
            self.wrong(&format!(
                "a read of {} at {} shows {theirs:?}, it comes to {ours:?}",
                read.account, read.sequence
            ));
        }
    }

    /// Balances equal the ledger, and all of it sums to zero.
    fn money(&self) {
        let mut sums: BTreeMap<&str, Decimal> = BTreeMap::new();
        for ((kind, account, code), sum) in &self.ledger {
            *sums.entry(code).or_default() += *sum;
            let place = match (LedgerAccountKind::try_from(*kind), AccountId::new(account)) {
                (Ok(LedgerAccountKind::Client), Ok(account)) => LedgerAccount::Client(account),
                (Ok(LedgerAccountKind::Margin), Ok(account)) => LedgerAccount::Margin(account),
                (Ok(LedgerAccountKind::House), _) => LedgerAccount::House,
                (Ok(LedgerAccountKind::Fee), _) => LedgerAccount::Fee,
                (Ok(LedgerAccountKind::Cash), _) => LedgerAccount::Cash,
                _ => {
                    self.wrong(&format!("a line on an account of kind {kind} of {account:?}"));
                    continue;
                }
            };
            let Ok(currency) = Currency::new(code) else { continue };
            let balance = self.replica.state().ledger_balance(&place, &currency).get();
            if balance != *sum {
                self.wrong(&format!(
                    "{place:?} has {balance} {code}, its ledger lines sum to {sum}"
                ));
            }
        }
        if sums.values().any(|sum| !sum.is_zero()) {
            self.wrong(&format!("the ledger sums to {sums:?}"));
        }
    }
}

/// The newest snapshot and the rows after it come to the same as the rows alone.
async fn recovered(world: &World, shard: u32, window: Limits, genesis: (u64, u128)) {
    let journal = SimJournal::new(world.clone(), Process::new(0));
    let recovered = match Replica::from_snapshot(&journal, shard, window).await {
        Ok(mut replica) => match replica.catch_up(&journal).await {
            Ok(()) => Ok((replica.shard.sequence(), replica.shard.hash())),
            Err(error) => Err(error.to_string()),
        },
        Err(error) => Err(error.to_string()),
    };
    if recovered.as_ref() != Ok(&genesis) {
        world.with(|inner| {
            inner.violation(format!(
                "shard {shard}: the snapshot and what follows come to {recovered:?}, the whole journal to {genesis:?}"
            ));
        });
    }
}

/// Whatever a client was told stands in the journal, and nothing else does.
fn told_is_true(world: &World, history: &History, journaled: &HashMap<Key, OperationRecord>) {
    let wrong = |what: String| world.with(|inner| inner.violation(what));
    for (index, operation) in history.operations.iter().enumerate() {
        let key = &operation.key;
        let name = format!("{}/{:032x} on shard {}", key.1, key.2, key.0);
        let record = journaled.get(key);
        if let Some(told) = &operation.answer {
            match record.and_then(|record| record.outcome.clone()).map(as_reply) {
                None => wrong(format!("{name} was acknowledged and is not in the journal")),
                Some(kept) if kept != *told => {
                    wrong(format!("{name} was answered with {told:?}, the journal says {kept:?}"));
                }
                Some(_) => {}
            }
            if record.is_some_and(|record| record.account_id != operation.account) {
                wrong(format!("{name} was answered for another account"));
            }
        }
        let others = &history.by_key[key];
        let was_told_reused = operation.attempts.iter().any(|(_, told)| *told == Some(Told::Reused));
        if was_told_reused && others.len() == 1 {
            wrong(format!(
                "{name} was refused as used for something else, and nobody used it"
            ));
        }
        if others.first() == Some(&index) {
            never_told_nothing(world, history, key, others);
        }
    }
}

/// When every attempt was told that nothing happened, nothing did; unless a message of it came again after that.
fn never_told_nothing(world: &World, history: &History, key: &Key, wanted: &[usize]) {
    let mut attempts = wanted.iter().flat_map(|index| &history.operations[*index].attempts);
    if !attempts.all(|(_, told)| *told == Some(Told::Nothing)) {
        return;
    }
    let Some(executed_us) = history.executed.get(key) else {
        return;
    };
    let came_again = history
        .delivered_again
        .get(key)
        .is_some_and(|again_us| again_us <= executed_us);
    if !came_again {
        world.with(|inner| {
            inner.violation(format!(
                "{}/{:032x} was executed, and its client was told every time that nothing happened",
                key.1, key.2
            ));
        });
    }
}

/// The journal's rows as bytes: for comparing two runs.
pub fn digest(world: &World) -> u64 {
    world.with(|inner| {
        let mut hash = 0;
        for row in inner.postgres.rows.iter().flatten() {
            let bytes: &Bytes = &row.body;
            hash = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, hash);
        }
        hash
    })
}
