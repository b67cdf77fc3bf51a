//! A journal written by hand, recorders to run over it, and the tables they make.

use std::time::Duration;

use contracts::bus::journal_event::Kind;
use contracts::bus::{
    Deposited, JournalBatch, JournalEntry, JournalEvent, JournalLine, LedgerAccountKind, OperationKind,
    OperationRecord, QuoteUsed, TradeClosed, TradeModified, TradeOpened, TradeState,
};
use contracts::v1::{CloseReason, Side};
use prost::Message as _;
use recorder::{Config, RecorderError};
use sqlx::PgPool;
use testkit::PrivatePostgres;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Engine time of sequence 0.
pub const START_US: u64 = 1_700_000_000_000_000;
/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A deployment with a few shards.
pub struct World {
    pub postgres: PrivatePostgres,
    pub pool: PgPool,
    pub redis: bus::Redis,
}

impl World {
    /// Without a Redis: what a recorder does about the journal does not need one.
    pub async fn start() -> Self {
        Self::with_redis("redis+unix:///nonexistent/redis.sock").await
    }

    pub async fn with_redis(url: &str) -> Self {
        let postgres = PrivatePostgres::migrated().await;
        let pool = postgres.pool();
        let sql = "INSERT INTO shard_head (shard) SELECT generate_series(0, 3)";
        sqlx::query(sql).execute(&pool).await.unwrap();
        Self {
            postgres,
            pool,
            redis: bus::Redis::open(url).unwrap(),
        }
    }

    /// Appends entries as the shard's leader would, one journal row.
    pub async fn append(&self, shard: i32, entries: Vec<JournalEntry>) {
        self.append_rows(shard, vec![entries]).await;
    }

    /// Appends rows, all at once.
    async fn append_rows(&self, shard: i32, rows: Vec<Vec<JournalEntry>>) {
        let sequence = |entry: Option<&JournalEntry>| i64::try_from(entry.expect("entries").sequence).unwrap();
        let firsts: Vec<_> = rows.iter().map(|entries| sequence(entries.first())).collect();
        let lasts: Vec<_> = rows.iter().map(|entries| sequence(entries.last())).collect();
        let body = |entries| {
            JournalBatch {
                entries,
                price_cursor: String::new(),
            }
            .encode_to_vec()
        };
        let bodies: Vec<_> = rows.into_iter().map(body).collect();
        let mut transaction = self.pool.begin().await.unwrap();
        let sql = "INSERT INTO journal (shard, first_seq, last_seq, epoch, batch, body, state_hash, chain)
                   SELECT $1, first, last, 1, gen_random_uuid(), body, '', ''
                   FROM unnest($2::bigint[], $3::bigint[], $4::bytea[]) AS new (first, last, body)";
        let insert = sqlx::query(sql).bind(shard).bind(firsts).bind(&lasts).bind(bodies);
        insert.execute(&mut *transaction).await.unwrap();
        let sql = "UPDATE shard_head SET seq = $2 WHERE shard = $1";
        sqlx::query(sql)
            .bind(shard)
            .bind(lasts.last())
            .execute(&mut *transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    /// Appends `rows` rows to each of the four shards: deposits, and trades that open, change and close rows later.
    pub async fn append_a_busy_day(&self, rows: u64) {
        for shard in 0..4 {
            self.append_rows(shard, (0..rows).map(|row| busy(shard, row)).collect())
                .await;
        }
    }

    pub fn recorder(&self) -> Recorder {
        let shutdown = CancellationToken::new();
        let config = Config {
            redis: self.redis.clone(),
            pool: self.postgres.pool(),
            poll: Duration::from_millis(10),
        };
        let task = tokio::spawn(recorder::run(config, shutdown.clone()));
        Recorder { task, shutdown }
    }

    /// Waits until the query, which gives one boolean, says true.
    pub async fn until(&self, sql: &'static str) {
        let answer = async {
            while !matches!(sqlx::query_scalar::<_, bool>(sql).fetch_one(&self.pool).await, Ok(true)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answer)
            .await
            .unwrap_or_else(|_| panic!("never came: {sql}"));
    }

    /// Waits until every cursor is at its head.
    pub async fn until_recorded(&self) {
        self.until(
            "SELECT bool_and(h.seq = coalesce(c.seq, 0)) FROM shard_head h LEFT JOIN recorder_cursor c USING (shard)",
        )
        .await;
    }

    /// One number.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// One text.
    pub async fn text(&self, sql: &'static str) -> String {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Everything that the journal makes, as text.
    pub async fn tables(&self) -> Vec<String> {
        let sql = "SELECT 'cursor ' || c::text FROM recorder_cursor c UNION ALL SELECT 'operation ' || o::text FROM operations o
                   UNION ALL SELECT 'trade ' || t::text FROM trades t UNION ALL SELECT 'line ' || l::text FROM ledger_entries l ORDER BY 1";
        sqlx::query_scalar(sql).fetch_all(&self.pool).await.unwrap()
    }
}

/// A running recorder.
pub struct Recorder {
    task: JoinHandle<Result<(), RecorderError>>,
    shutdown: CancellationToken,
}

impl Recorder {
    /// Asks it to stop, and waits until it has.
    pub async fn stop(self) -> Result<(), RecorderError> {
        self.shutdown.cancel();
        self.ended().await
    }

    /// Waits until it stops by itself.
    pub async fn ended(self) -> Result<(), RecorderError> {
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("a recorder that ends")
            .expect("no panic")
    }

    /// Drops it where it stands.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// The entries of one row of a busy day.
fn busy(shard: i32, row: u64) -> Vec<JournalEntry> {
    let sequence = row * 3 + 1;
    let trade = TradeState {
        stop_loss_price: "150.5".into(),
        ..trade(row / 4 + 1, Side::Long)
    };
    let left = |quantity: &str| TradeState {
        quantity: quantity.into(),
        ..trade.clone()
    };
    let event = match row % 4 {
        0 => opened(left("5")),
        1 => modified(left("5")),
        2 => closed(left("2"), CloseReason::Client),
        _ => closed(left("0"), CloseReason::StopLoss),
    };
    let id = |n: u64| Some(operation(u128::from(n) << 8 | u128::from(shard.unsigned_abs())));
    vec![
        entry(sequence, id(sequence), vec![deposited("100.25")]),
        entry(sequence + 1, None, vec![event]),
        entry(sequence + 2, id(sequence + 2), vec![]),
    ]
}

pub fn entry(sequence: u64, operation: Option<OperationRecord>, events: Vec<JournalEvent>) -> JournalEntry {
    JournalEntry {
        sequence,
        at_us: START_US + sequence,
        operation,
        events,
        traceparent: String::new(),
    }
}

pub fn operation(request_id: u128) -> OperationRecord {
    OperationRecord {
        principal: "alice".into(),
        request_id: request_id.to_be_bytes().to_vec().into(),
        kind: OperationKind::Deposit.into(),
        account_id: "demo".into(),
        ..OperationRecord::default()
    }
}

fn lines(from: LedgerAccountKind, to: LedgerAccountKind, amount: &str) -> Vec<JournalLine> {
    let line = |kind: LedgerAccountKind, amount: String| JournalLine {
        ledger_account: kind.into(),
        account_id: "demo".into(),
        currency_code: "USDC".into(),
        amount,
    };
    vec![line(from, format!("-{amount}")), line(to, amount.to_owned())]
}

pub fn deposited(amount: &str) -> JournalEvent {
    let kind = Deposited {
        account_id: "demo".into(),
        currency_code: "USDC".into(),
        amount: amount.into(),
    };
    let lines = lines(LedgerAccountKind::Cash, LedgerAccountKind::Client, amount);
    JournalEvent {
        kind: Some(Kind::Deposited(kind)),
        lines,
    }
}

pub fn trade(number: u64, side: Side) -> TradeState {
    TradeState {
        number,
        account_id: "demo".into(),
        symbol: "SOL_USDC".into(),
        side: side.into(),
        quantity: "5".into(),
        opened_quantity: "5".into(),
        entry_price: "200.02".into(),
        leverage: "10".into(),
        margin: "100.00".into(),
        currency_code: "USDC".into(),
        liquidation_price: "180.02".into(),
        opened_at_us: START_US,
        commission: "0.50".into(),
        realised_profit: "0.00".into(),
        ..TradeState::default()
    }
}

fn quote(bid: &str) -> Option<QuoteUsed> {
    Some(QuoteUsed {
        symbol: "SOL_USDC".into(),
        bid: bid.into(),
        ..QuoteUsed::default()
    })
}

pub fn opened(trade: TradeState) -> JournalEvent {
    let kind = TradeOpened {
        trade: Some(trade),
        quote: quote("200"),
    };
    let lines = lines(LedgerAccountKind::Client, LedgerAccountKind::Margin, "100.00");
    JournalEvent {
        kind: Some(Kind::TradeOpened(kind)),
        lines,
    }
}

pub fn modified(trade: TradeState) -> JournalEvent {
    let kind = TradeModified {
        trade: Some(trade),
        ..TradeModified::default()
    };
    JournalEvent {
        kind: Some(Kind::TradeModified(kind)),
        lines: vec![],
    }
}

pub fn closed(trade: TradeState, reason: CloseReason) -> JournalEvent {
    let kind = TradeClosed {
        trade: Some(trade),
        reason: reason.into(),
        close_price: "210.5".into(),
        quote: quote("210.5"),
        ..TradeClosed::default()
    };
    let lines = lines(LedgerAccountKind::Margin, LedgerAccountKind::Client, "40.00");
    JournalEvent {
        kind: Some(Kind::TradeClosed(kind)),
        lines,
    }
}
