//! Whether a history is one that was promised. Pure: it takes a [`History`] and gives what is wrong with it, so that it can be shown
//! wrong histories and must find what is wrong with them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use contracts::bus::operation_record::Outcome;
use contracts::bus::{LedgerAccountKind, OperationRecord};
use contracts::shard::of_account;
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::book::CURRENCY;
use crate::history::{History, Line};
use crate::order::Answer;
use crate::proof::Acknowledged;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An acknowledged operation is not in the journal.
    Lost,
    /// An operation is in the journal more than once.
    Doubled,
    /// An operation has another answer than was given.
    Different,
    /// An operation is in the journal that no client has an answer to.
    Unknown,
    /// A sequence has a gap, or an epoch fell.
    Sequence,
    /// A table does not say what the journal says.
    Table,
    /// The lines of an event do not sum to zero in a currency.
    Unbalanced,
    /// A balance is not what the ledger says, or not what its client computed.
    Balance,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// Where.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

/// Who sent which id to which shard.
type Key<'a> = (u32, &'a str, &'a [u8]);

/// Everything that is wrong with a history.
#[must_use]
pub fn audit(history: &History) -> Vec<Finding> {
    let mut audit = Audit {
        history,
        findings: Vec::new(),
    };
    audit.sequences();
    let journaled = audit.operations();
    audit.answers(&journaled);
    audit.tables(&journaled);
    audit.ledger();
    audit.balances();
    audit.findings
}

struct Audit<'a> {
    history: &'a History,
    findings: Vec<Finding>,
}

impl<'a> Audit<'a> {
    fn find(&mut self, kind: Kind, text: String) {
        self.findings.push(Finding { kind, text });
    }

    /// One sequence a shard, without gaps, up to its head; and no leader writes after its successor.
    fn sequences(&mut self) {
        let history = self.history;
        let mut reached: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for row in &history.journal {
            let (epoch, sequence) = reached.get(&row.shard).copied().unwrap_or_default();
            let place = format!("shard {} sequence {}", row.shard, row.first);
            if row.first != sequence + 1 {
                self.find(Kind::Sequence, format!("{place} follows {sequence}"));
            }
            if row.epoch < epoch {
                self.find(
                    Kind::Sequence,
                    format!("{place} was written under {}, after {epoch}", row.epoch),
                );
            }
            let inside: Vec<u64> = row.batch.entries.iter().map(|entry| entry.sequence).collect();
            if !inside.iter().copied().eq(row.first..=row.last) {
                self.find(Kind::Sequence, format!("{place} to {} holds {inside:?}", row.last));
            }
            reached.insert(row.shard, (row.epoch, row.last));
        }
        for (shard, (epoch, sequence)) in &history.heads {
            let (written, last) = reached.get(shard).copied().unwrap_or_default();
            if last != *sequence || written > *epoch {
                let text =
                    format!("shard {shard} ends at {last} under {written}, its head says {sequence} under {epoch}");
                self.find(Kind::Sequence, text);
            }
        }
    }

    /// All operations of the journal; each once.
    fn operations(&mut self) -> HashMap<Key<'a>, (u64, &'a OperationRecord)> {
        let history = self.history;
        let mut journaled = HashMap::new();
        for row in &history.journal {
            for entry in &row.batch.entries {
                let Some(record) = &entry.operation else { continue };
                let key: Key<'a> = (row.shard, &record.principal, &record.request_id);
                if let Some((first, _)) = journaled.insert(key, (entry.sequence, record)) {
                    let id = name(record);
                    self.find(
                        Kind::Doubled,
                        format!("{id} is at {first} and at {} of shard {}", entry.sequence, row.shard),
                    );
                }
            }
        }
        journaled
    }

    /// Every acknowledgement is in the journal with the answer that was given, and nothing else is.
    fn answers(&mut self, journaled: &HashMap<Key<'a>, (u64, &'a OperationRecord)>) {
        let history = self.history;
        let mut answered: HashSet<(u32, &str, Uuid)> = HashSet::new();
        for acknowledged in &history.acknowledged {
            let Acknowledged { account, order, answer } = acknowledged;
            let shard = of_account(account, history.shards);
            let named = format!("{account} {} {}", order.kind().as_str_name(), order.request_id());
            let Ok(id) = order.request_id().parse::<Uuid>() else {
                self.find(Kind::Lost, format!("{named} has no id"));
                continue;
            };
            answered.insert((shard, account, id));
            let Some((_, record)) = journaled.get(&(shard, account.as_str(), id.as_bytes().as_slice())) else {
                self.find(Kind::Lost, named);
                continue;
            };
            let about = (record.kind(), record.account_id.as_str());
            if about != (order.kind(), account.as_str()) || !same(record, answer) {
                self.find(
                    Kind::Different,
                    format!("{named} was told {answer:?}, the journal has {record:?}"),
                );
            }
        }
        for ((shard, principal, id), (sequence, record)) in journaled {
            let id = Uuid::from_slice(id).unwrap_or_default();
            if !answered.contains(&(*shard, principal, id)) {
                let text = format!("{} at {sequence} of shard {shard} was never answered", name(record));
                self.find(Kind::Unknown, text);
            }
        }
    }

    /// The table of operations says what the journal says.
    fn tables(&mut self, journaled: &HashMap<Key<'a>, (u64, &'a OperationRecord)>) {
        let history = self.history;
        for recorded in &history.operations {
            let record = &recorded.record;
            let key: Key<'a> = (recorded.shard, &record.principal, &record.request_id);
            if journaled.get(&key) != Some(&(recorded.sequence, record)) {
                let text = format!(
                    "operations has {} at {}, the journal has not",
                    name(record),
                    recorded.sequence
                );
                self.find(Kind::Table, text);
            }
        }
        if history.operations.len() != journaled.len() {
            let text = format!(
                "operations has {} rows, the journal {}",
                history.operations.len(),
                journaled.len()
            );
            self.find(Kind::Table, text);
        }
    }

    /// The lines of each event sum to zero in each currency, and they are those of the journal.
    fn ledger(&mut self) {
        let history = self.history;
        let mut sums: BTreeMap<(u32, u64, u32, &str), Decimal> = BTreeMap::new();
        for line in &history.ledger {
            *sums
                .entry((line.shard, line.sequence, line.event, &line.currency))
                .or_default() += line.amount;
        }
        for ((shard, sequence, event, currency), sum) in sums {
            if !sum.is_zero() {
                let text = format!("shard {shard} sequence {sequence} event {event}: {sum} {currency}");
                self.find(Kind::Unbalanced, text);
            }
        }
        // Compared by whose money each line is, which the table names for the other side's lines as well.
        let tabled = totals(
            history
                .ledger
                .iter()
                .map(|line| (line.shard, line.sequence, line.event, line.clone())),
        );
        let journaled = totals(self.journal_lines());
        for (key, sum) in &journaled {
            if tabled.get(key) != Some(sum) {
                self.find(
                    Kind::Table,
                    format!("the ledger has {:?} for {key:?}, the journal {sum}", tabled.get(key)),
                );
            }
        }
        if let Some(key) = tabled.keys().find(|key| !journaled.contains_key(*key)) {
            self.find(Kind::Table, format!("the ledger has {key:?}, the journal has not"));
        }
    }

    fn journal_lines(&self) -> impl Iterator<Item = (u32, u64, u32, Line)> + 'a {
        let rows = self.history.journal.iter();
        rows.flat_map(|row| row.batch.entries.iter().map(move |entry| (row.shard, entry)))
            .flat_map(|(shard, entry)| {
                let events = (0..).zip(&entry.events);
                events.flat_map(move |(event, happened)| {
                    happened.lines.iter().map(move |line| {
                        let line = Line {
                            shard,
                            sequence: entry.sequence,
                            event,
                            ledger_account: line.ledger_account,
                            account: line.account_id.clone(),
                            currency: line.currency_code.clone(),
                            amount: line.amount.parse().unwrap_or_default(),
                        };
                        (shard, entry.sequence, event, line)
                    })
                })
            })
    }

    /// What the API says is what the ledger says, and what clients computed.
    fn balances(&mut self) {
        let history = self.history;
        let mut booked: BTreeMap<(String, String), (Decimal, Decimal)> = BTreeMap::new();
        for line in &history.ledger {
            let (free, locked) = booked.entry((line.account.clone(), line.currency.clone())).or_default();
            match LedgerAccountKind::try_from(line.ledger_account) {
                Ok(LedgerAccountKind::Client) => *free += line.amount,
                Ok(LedgerAccountKind::Margin) => *locked += line.amount,
                _ => {}
            }
        }
        for (of, told) in &history.balances {
            let booked = booked.get(of).copied().unwrap_or_default();
            if booked != *told {
                self.find(Kind::Balance, format!("{of:?} has {told:?}, the ledger {booked:?}"));
            }
        }
        for (account, computed) in &history.computed {
            let told = history.balances.get(&(account.clone(), CURRENCY.to_owned()));
            if told != Some(computed) {
                self.find(
                    Kind::Balance,
                    format!("{account} computed {computed:?}, and has {told:?}"),
                );
            }
        }
    }
}

/// What each shard, event, ledger account and currency moved.
fn totals(lines: impl Iterator<Item = (u32, u64, u32, Line)>) -> BTreeMap<(u32, u64, u32, i32, String), Decimal> {
    let mut totals = BTreeMap::new();
    for (shard, sequence, event, line) in lines {
        *totals
            .entry((shard, sequence, event, line.ledger_account, line.currency))
            .or_insert(Decimal::ZERO) += line.amount;
    }
    totals
}

fn same(record: &OperationRecord, answer: &Answer) -> bool {
    match (&record.outcome, answer) {
        (Some(Outcome::Response(kept)), Answer::Done(given)) => kept.as_ref() == given.as_slice(),
        (Some(Outcome::Failure(kept)), Answer::Refused { reason, message }) => {
            kept.reason().code() == reason && kept.message == *message
        }
        _ => false,
    }
}

fn name(record: &OperationRecord) -> String {
    let id = Uuid::from_slice(&record.request_id).unwrap_or_default();
    format!("{} {} {id}", record.principal, record.kind().as_str_name())
}

#[cfg(test)]
mod tests;
