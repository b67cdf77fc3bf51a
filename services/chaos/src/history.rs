//! What happened, from everybody who can say: the clients' own files, the journal and the tables made from it, by SQL, and the balances,
//! by the API. Gathered whole, so that judging it needs nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use contracts::bus::{JournalBatch, OperationRecord};
use prost::Message as _;
use rust_decimal::Decimal;
use sqlx::PgPool;

use crate::client::Holdings;
use crate::mesh::{LOOK_EVERY, PATIENCE};
use crate::order::Door;
use crate::proof::{self, Acknowledged};

/// All there is to judge by.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Number of shards.
    pub shards: u32,
    /// What clients have on disk.
    pub acknowledged: Vec<Acknowledged>,
    /// The journal, by shard, in order.
    pub journal: Vec<Row>,
    /// Heads of shards: epoch and sequence.
    pub heads: BTreeMap<u32, (u64, u64)>,
    /// The table of operations.
    pub operations: Vec<Recorded>,
    /// The table of ledger lines.
    pub ledger: Vec<Line>,
    /// Free and locked by account and currency, as the API says.
    pub balances: BTreeMap<(String, String), (Decimal, Decimal)>,
    /// Free and locked by account, in the currency that is traded in, as clients computed it.
    pub computed: BTreeMap<String, (Decimal, Decimal)>,
}

/// A row of the journal.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its shard.
    pub shard: u32,
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
    /// Who wrote it.
    pub epoch: u64,
    /// What it holds.
    pub batch: JournalBatch,
}

/// A row of the table of operations.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its shard.
    pub shard: u32,
    /// Its sequence.
    pub sequence: u64,
    /// The operation.
    pub record: OperationRecord,
}

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Its shard.
    pub shard: u32,
    /// Its sequence.
    pub sequence: u64,
    /// Its event in the sequence.
    pub event: u32,
    /// `fulcrum.bus.v1.LedgerAccountKind`.
    pub ledger_account: i32,
    /// Whose money it is about.
    pub account: String,
    /// Currency code.
    pub currency: String,
    /// Signed.
    pub amount: Decimal,
}

impl History {
    /// Gathers everything. Nothing may be under way, and the recorder must have caught up.
    ///
    /// # Errors
    /// When something cannot be read.
    pub async fn gather(
        shards: u32,
        pool: &PgPool,
        files: &[PathBuf],
        holdings: &[Holdings],
        doors: &BTreeMap<String, Door>,
    ) -> anyhow::Result<Self> {
        let mut history = Self {
            shards,
            ..Self::default()
        };
        for file in files {
            history.acknowledged.extend(proof::read(file)?);
        }
        for Holdings { account, free, locked } in holdings {
            history.computed.insert(account.clone(), (*free, *locked));
        }
        for (account, door) in doors {
            for balance in balances(door, account).await? {
                let of = (account.clone(), balance.currency_code.clone());
                let (free, locked) = (balance.free.parse()?, balance.locked.parse()?);
                history.balances.insert(of, (free, locked));
            }
        }
        history.read_tables(pool).await?;
        Ok(history)
    }

    async fn read_tables(&mut self, pool: &PgPool) -> anyhow::Result<()> {
        let heads = sqlx::query_as::<_, (i32, i64, i64)>("SELECT shard, epoch, seq FROM shard_head");
        for (shard, epoch, sequence) in heads.fetch_all(pool).await? {
            let head = (epoch.cast_unsigned(), sequence.cast_unsigned());
            self.heads.insert(shard.cast_unsigned(), head);
        }
        let journal = sqlx::query_as::<_, (i32, i64, i64, i64, Vec<u8>)>(
            "SELECT shard, first_seq, last_seq, epoch, body FROM journal ORDER BY shard, first_seq",
        );
        for (shard, first, last, epoch, body) in journal.fetch_all(pool).await? {
            self.journal.push(Row {
                shard: shard.cast_unsigned(),
                first: first.cast_unsigned(),
                last: last.cast_unsigned(),
                epoch: epoch.cast_unsigned(),
                batch: JournalBatch::decode(body.as_slice())
                    .with_context(|| format!("the journal at {shard}/{first}"))?,
            });
        }
        let operations = sqlx::query_as::<_, (i32, i64, Vec<u8>)>("SELECT shard, seq, record FROM operations");
        for (shard, sequence, record) in operations.fetch_all(pool).await? {
            self.operations.push(Recorded {
                shard: shard.cast_unsigned(),
                sequence: sequence.cast_unsigned(),
                record: OperationRecord::decode(record.as_slice())
                    .with_context(|| format!("the operation at {shard}/{sequence}"))?,
            });
        }
        let ledger = sqlx::query_as::<_, (i32, i64, i32, i16, String, String, Decimal)>(
            "SELECT shard, seq, event, ledger_account, account_id, currency_code, amount FROM ledger_entries",
        );
        for (shard, sequence, event, ledger_account, account, currency, amount) in ledger.fetch_all(pool).await? {
            self.ledger.push(Line {
                shard: shard.cast_unsigned(),
                sequence: sequence.cast_unsigned(),
                event: event.cast_unsigned(),
                ledger_account: ledger_account.into(),
                account,
                currency,
                amount,
            });
        }
        Ok(())
    }
}

/// Asks until it is answered: a take-over may be under way.
async fn balances(door: &Door, account: &str) -> anyhow::Result<Vec<contracts::v1::Balance>> {
    let begun = std::time::Instant::now();
    loop {
        match door.balances(account, std::time::Duration::from_secs(5)).await {
            Ok(balances) => return Ok(balances),
            Err(status) if begun.elapsed() > PATIENCE => bail!("the balances of {account}: {status}"),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
