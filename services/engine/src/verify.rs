//! Verifying a shard from outside: its journal is replayed by the code that recovers, and everything that was written about it on the
//! way is compared with what the replay comes to.
//!
//! Hashes and chain of every row, every event's ledger lines, balances against the ledger, every snapshot, and the head. What differs is
//! told with its row; nothing is changed. What the recorder made of the journal is compared by the recorder.

use std::collections::BTreeMap;

use contracts::bus::{JournalBatch, JournalEvent, JournalLine, LedgerAccountKind};
use engine_core::{Entity, LedgerAccount, State};
use prost::Message as _;
use rust_decimal::Decimal;

use crate::journal::{Head, Journal, JournalError, Row, SnapshotHead, chain};
use crate::recover::{RecoverError, Replica, load};
use crate::shard::Corrupt;
use crate::window::Limits;

/// Most rows read at once.
const ROWS_MAX: u32 = 512;

/// What is owned: kind of ledger account as in `fulcrum.bus.v1.LedgerAccountKind`, owner (empty: the house), currency.
pub type Owned = (i32, String, String);
/// Balances that are not zero.
pub type Balances = BTreeMap<Owned, Decimal>;

/// How a shard is to be verified.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// From its first entry instead of from the oldest snapshot.
    pub from_genesis: bool,
    /// Tells the balances as of this sequence too.
    pub balances_at: Option<u64>,
    /// The repeat window that the journal was written under.
    pub window: Limits,
}

/// What was found out about a shard.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which.
    pub shard: u32,
    /// Last entry that was replayed.
    pub sequence: u64,
    /// State hash there.
    pub state_hash: u128,
    /// Entry after which the replay began; 0 for genesis.
    pub began_after: u64,
    /// The beginning was asked for, but the journal does not reach back to it any more.
    pub genesis_gone: bool,
    /// The balances asked for, when the replay came by there.
    pub balances: Option<Balances>,
    /// What is wrong, row by row; empty when nothing is.
    pub findings: Vec<String>,
}

/// Verifies one shard, as far as `head`. The journal must stand still meanwhile: see [`crate::journal::PgJournal::as_of_now`].
///
/// # Errors
/// When the journal is away. What is wrong with it is in the report.
pub async fn shard<J: Journal>(journal: &J, head: &Head, wanted: Wanted) -> Result<Report, JournalError> {
    let mut findings = Vec::new();
    let mut snapshots = journal.snapshots(head.shard).await?;
    snapshots.reverse();
    let first = journal.rows(head.shard, 0, 1).await?.first().map(|row| row.first);
    let has_genesis = first.is_none_or(|first| first == 1) && (first.is_some() || head.sequence == 0);
    let mut oldest = None;
    for snapshot in &snapshots {
        match load(journal, head.shard, wanted.window, snapshot).await {
            Ok(replica) if oldest.is_none() => oldest = Some(replica),
            Ok(_) => {}
            Err(RecoverError::Journal(error)) => return Err(error),
            Err(RecoverError::Corrupt(cause)) => findings.push(format!("snapshot_head and its chunks: {cause}")),
        }
    }
    let replica = match oldest {
        Some(snapshot) if !(wanted.from_genesis && has_genesis) => snapshot,
        _ => Replica::genesis(head.shard, wanted.window),
    };
    let began_after = replica.shard.sequence();
    let mut replay = Replay {
        sums: balances_of(replica.shard.state()),
        replica,
        snapshots,
        wanted,
        balances: None,
        findings,
    };
    replay.come_by();
    loop {
        let rows = journal
            .rows(head.shard, replay.replica.shard.sequence(), ROWS_MAX)
            .await?;
        if rows.is_empty() {
            replay.end(head);
            break;
        }
        let damage = rows.iter().enumerate().find_map(|(n, row)| {
            let after = match rows.get(n + 1) {
                Some(next) => After::Row(next),
                None if row.last == head.sequence => After::Head(head.chain),
                None => After::Unread,
            };
            replay.take(row, after).err()
        });
        if let Some(damage) = damage {
            // What comes after cannot be told from what came of this.
            replay.findings.push(damage);
            break;
        }
    }
    Ok(Report {
        shard: head.shard,
        sequence: replay.replica.shard.sequence(),
        state_hash: replay.replica.shard.hash(),
        began_after,
        genesis_gone: wanted.from_genesis && !has_genesis,
        balances: replay.balances,
        findings: replay.findings,
    })
}

/// What stands behind a row, and holds its chain too.
#[derive(Clone, Copy)]
enum After<'a> {
    Row(&'a Row),
    Head([u8; 32]),
    Unread,
}

impl After<'_> {
    /// Whether it was written after this chain.
    fn follows(self, before: &[u8; 32]) -> bool {
        match self {
            Self::Row(row) => chain(before, row.last, row.state_hash, &row.body) == row.chain,
            Self::Head(head) => head == *before,
            Self::Unread => false,
        }
    }
}

struct Replay {
    replica: Replica,
    /// What the ledger lines add up to, from the balances it began with.
    sums: Balances,
    /// Those not come by yet, the oldest first.
    snapshots: Vec<SnapshotHead>,
    wanted: Wanted,
    balances: Option<Balances>,
    findings: Vec<String>,
}

impl Replay {
    /// Folds one row in; an error is what is wrong with it.
    fn take(&mut self, row: &Row, after: After<'_>) -> Result<(), String> {
        let (shard, before) = (self.replica.shard.number(), self.replica.shard.sequence());
        let name = format!(
            "journal row of shard {shard}, first_seq {}, last_seq {}",
            row.first, row.last
        );
        if row.first != before + 1 {
            return Err(format!("{name}: first_seq differs, the row before ends at {before}"));
        }
        self.replica.fold(row).map_err(|cause| match cause {
            Corrupt::Digest { .. } => format!("{name}: {}", self.what_differs(row, after)),
            other => format!("{name}: body differs: {other}"),
        })?;
        let batch = JournalBatch::decode(row.body.clone()).map_err(|cause| format!("{name}: body differs: {cause}"))?;
        for entry in &batch.entries {
            for (number, event) in entry.events.iter().enumerate() {
                self.book(event)
                    .map_err(|what| format!("{name}, sequence {}, event {number}: {what}", entry.sequence))?;
            }
        }
        self.come_by();
        Ok(())
    }

    /// A row whose chain does not fit: finds out which of its columns was changed.
    fn what_differs(&mut self, row: &Row, after: After<'_>) -> String {
        if let Err(cause) = self.replica.shard.replay(&row.body) {
            return format!("body differs: {cause}");
        }
        let ours = self.replica.shard.hash();
        let with_ours = chain(&self.replica.chain, row.last, ours, &row.body);
        if with_ours == row.chain {
            return format!(
                "state_hash differs: stored {:032x}, the replay comes to {ours:032x}",
                row.state_hash
            );
        }
        if ours != row.state_hash {
            return format!(
                "body differs: it replays to state hash {ours:032x}, stored {:032x}",
                row.state_hash
            );
        }
        // The body says the same about the state, so what was written next must tell which of the two is as it was.
        if after.follows(&row.chain) {
            "body differs in something that the state does not hold".to_owned()
        } else {
            let which = if after.follows(&with_ours) {
                "chain"
            } else {
                "chain or body"
            };
            format!(
                "{which} differs: stored {}, the body comes to {}",
                hex(&row.chain),
                hex(&with_ours)
            )
        }
    }

    /// Adds an event's lines up.
    fn book(&mut self, event: &JournalEvent) -> Result<(), String> {
        let mut zero: BTreeMap<&str, Decimal> = BTreeMap::new();
        for line in &event.lines {
            let amount = amount(line)?;
            add(zero.entry(&line.currency_code).or_default(), amount)?;
            let owned = (line.ledger_account, line.account_id.clone(), line.currency_code.clone());
            add(self.sums.entry(owned).or_default(), amount)?;
        }
        match zero.iter().find(|(_, sum)| !sum.is_zero()) {
            None => Ok(()),
            Some((currency, sum)) => Err(format!("its lines sum to {sum} {currency} and not to zero")),
        }
    }

    /// What is to be looked at where the replay is now: a snapshot, the balances asked for.
    fn come_by(&mut self) {
        let (shard, sequence) = (self.replica.shard.number(), self.replica.shard.sequence());
        while let Some(snapshot) = self.snapshots.first()
            && snapshot.sequence <= sequence
        {
            let name = format!("snapshot_head of shard {shard}, seq {}", snapshot.sequence);
            if snapshot.sequence < sequence {
                self.findings
                    .push(format!("{name}: seq differs, no journal row ends there"));
            } else if snapshot.state_hash != self.replica.shard.hash() {
                self.findings.push(format!(
                    "{name}: state_hash differs: stored {:032x}, the replay comes to {:032x}",
                    snapshot.state_hash,
                    self.replica.shard.hash()
                ));
            } else if snapshot.chain != self.replica.chain {
                self.findings.push(format!("{name}: chain differs from the journal's"));
            }
            self.snapshots.remove(0);
        }
        if self.wanted.balances_at == Some(sequence) {
            self.balances = Some(balances_of(self.replica.shard.state()));
        }
    }

    /// The end of the journal was reached.
    fn end(&mut self, head: &Head) {
        let (shard, sequence) = (head.shard, self.replica.shard.sequence());
        if sequence != head.sequence {
            self.findings.push(format!(
                "shard_head of shard {shard}: seq is {}, the journal ends at {sequence}",
                head.sequence
            ));
        } else if self.replica.chain != head.chain {
            self.findings.push(format!(
                "shard_head of shard {shard}: chain differs from that of the last journal row"
            ));
        }
        for snapshot in &self.snapshots {
            self.findings.push(format!(
                "snapshot_head of shard {shard}, seq {}: it is ahead of the journal",
                snapshot.sequence
            ));
        }
        self.sums.retain(|_, sum| !sum.is_zero());
        let balances = balances_of(self.replica.shard.state());
        for owned in differences(&self.sums, &balances) {
            self.findings.push(format!(
                "balance of {} on shard {shard} at sequence {sequence}: {} in the state, {} by the ledger",
                name_of(owned),
                balances.get(owned).copied().unwrap_or_default(),
                self.sums.get(owned).copied().unwrap_or_default(),
            ));
        }
    }
}

/// Whatever two sets of balances do not agree on.
pub fn differences<'a>(one: &'a Balances, other: &'a Balances) -> impl Iterator<Item = &'a Owned> {
    let mut all: Vec<&Owned> = one.keys().chain(other.keys()).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().filter(|owned| one.get(*owned) != other.get(*owned))
}

/// A balance as people call it.
#[must_use]
pub fn name_of((kind, owner, currency): &Owned) -> String {
    let kind = LedgerAccountKind::try_from(*kind).map_or("UNKNOWN", |kind| {
        let name = kind.as_str_name();
        name.strip_prefix("LEDGER_ACCOUNT_KIND_").unwrap_or(name)
    });
    let owner = if owner.is_empty() {
        String::new()
    } else {
        format!(" {owner}")
    };
    format!("{kind}{owner} {currency}")
}

/// Every balance of a state that is not zero.
#[must_use]
pub fn balances_of(state: &State) -> Balances {
    let mut balances = Balances::new();
    let mut put = |kind: LedgerAccountKind, owner: &str, currency: &str, amount: Decimal| {
        if !amount.is_zero() {
            balances.insert((kind.into(), owner.to_owned(), currency.to_owned()), amount);
        }
    };
    for account in state.accounts() {
        for balance in &account.balances {
            let (owner, currency) = (account.id.as_str(), balance.currency.as_str());
            put(LedgerAccountKind::Client, owner, currency, balance.free.get());
            put(LedgerAccountKind::Margin, owner, currency, balance.locked.get());
        }
    }
    for entity in state.entities() {
        if let Entity::Ledger(entry) = entity {
            let kind = match &entry.account {
                LedgerAccount::House => LedgerAccountKind::House,
                LedgerAccount::Fee => LedgerAccountKind::Fee,
                LedgerAccount::Cash => LedgerAccountKind::Cash,
                // Kept with their account, seen above.
                LedgerAccount::Client(_) | LedgerAccount::Margin(_) => continue,
            };
            put(kind, "", entry.currency.as_str(), entry.balance.get());
        }
    }
    balances
}

fn amount(line: &JournalLine) -> Result<Decimal, String> {
    Decimal::from_str_exact(&line.amount).map_err(|_| format!("{:?} is no amount", line.amount))
}

fn add(sum: &mut Decimal, amount: Decimal) -> Result<(), String> {
    *sum = sum
        .checked_add(amount)
        .ok_or_else(|| "its lines add up to more than can be counted".to_owned())?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
