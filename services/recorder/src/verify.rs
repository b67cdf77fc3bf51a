//! Holding the tables against the journal they were made from: every row is made again and compared with the one that is stored.
//!
//! One transaction that only reads, as of one moment: it can be done beside a running recorder. What differs is told with its row and
//! column; nothing is mended here, that is what [`rebuild`](crate::rebuild) is for.

use std::collections::{BTreeMap, HashMap, HashSet};

use rust_decimal::Decimal;
use sqlx::postgres::PgPool;
use sqlx::{Postgres, Transaction};

use crate::error::RecorderError;
use crate::expand::expand;
use crate::rows::{Expansion, LedgerRow, OperationRow, PriceRow, TradeRow};
use crate::store;

/// Balances that are not zero, by kind of ledger account, owner (empty: the house) and currency.
pub type Balances = BTreeMap<(i32, String, String), Decimal>;
/// Most differences told of one shard: where there are more, the first say enough.
const FINDINGS_MAX: usize = 20;

/// The tables of one shard as of one moment.
#[derive(Debug)]
pub struct Tables {
    transaction: Transaction<'static, Postgres>,
    shard: i32,
    cursor: i64,
}

impl Tables {
    /// Looks at a shard as it is now.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn now(pool: &PgPool, shard: u32) -> Result<Self, RecorderError> {
        let shard = i32::try_from(shard).expect("shards are few");
        let mut transaction = pool.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut *transaction)
            .await?;
        let cursor = store::cursor(&mut *transaction, shard).await?;
        Ok(Self {
            transaction,
            shard,
            cursor,
        })
    }

    /// How far the journal was recorded.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        u64::try_from(self.cursor).unwrap_or_default()
    }

    /// Compares what was recorded of the journal after `after`; and, where they are known, the balances at the cursor. Gives what
    /// differs; nothing when nothing does.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn compare(mut self, after: u64, balances: Option<&Balances>) -> Result<Vec<String>, RecorderError> {
        let mut compared = Compared {
            shard: self.shard,
            ..Compared::default()
        };
        let begin = i64::try_from(after).unwrap_or(i64::MAX);
        let mut at = begin;
        while at < self.cursor && compared.findings.len() < FINDINGS_MAX {
            let position = store::Position {
                shard: self.shard,
                head: self.cursor,
                cursor: at,
            };
            let mut rows = store::journal_after(&mut *self.transaction, &[position]).await?;
            rows.retain(|row| row.last_seq <= self.cursor);
            let expansion = match expand(self.shard, at, &rows) {
                Ok(expansion) if expansion.last_seq > at => expansion,
                Ok(_) => {
                    compared.say(format!(
                        "recorder_cursor of shard {}: seq is {}, and no journal row ends there",
                        self.shard, self.cursor
                    ));
                    break;
                }
                Err(error) => {
                    compared.say(error.to_string());
                    break;
                }
            };
            self.stretch(at, &expansion, &mut compared).await?;
            at = expansion.last_seq;
        }
        if compared.findings.is_empty() {
            self.whole(begin, &mut compared).await?;
            if let Some(balances) = balances {
                self.balances(balances, &mut compared).await?;
            }
        }
        compared.findings.truncate(FINDINGS_MAX);
        Ok(compared.findings)
    }

    /// Compares what one stretch of journal makes.
    async fn stretch(&mut self, after: i64, of: &Expansion, compared: &mut Compared) -> Result<(), RecorderError> {
        let sql = "SELECT ARRAY[seq::text, line::text, event::text, kind, account_id, ledger_account::text, currency_code, amount::text,
                       (extract(epoch FROM booked_at) * 1000000)::bigint::text, trade_number::text, request_id::text]
                   FROM ledger_entries WHERE shard = $1 AND seq > $2 AND seq <= $3";
        let found = sqlx::query_scalar(sql).bind(self.shard).bind(after).bind(of.last_seq);
        let found: Vec<Cells> = found.fetch_all(&mut *self.transaction).await?;
        compared.rows(&LEDGER, of.ledger.iter().map(ledger_cells).collect(), found);

        let sql = "SELECT ARRAY[o.principal, o.request_id::text, o.account_id, o.seq::text, o.kind::text, o.epoch::text, o.refusal,
                       (extract(epoch FROM o.done_at) * 1000000)::bigint::text, encode(o.operation_result, 'hex'), encode(o.record, 'hex')]
                   FROM operations o JOIN unnest($2::text[], $3::uuid[]) AS made (principal, request_id) USING (principal, request_id)
                   WHERE o.shard = $1";
        let principals: Vec<&str> = of.operations.iter().map(|row| row.principal.as_str()).collect();
        let ids: Vec<_> = of.operations.iter().map(|row| row.request_id).collect();
        let found = sqlx::query_scalar(sql).bind(self.shard).bind(principals).bind(ids);
        let found: Vec<Cells> = found.fetch_all(&mut *self.transaction).await?;
        compared.operations += of.operations.len();
        compared.rows(&OPERATIONS, of.operations.iter().map(operation_cells).collect(), found);

        let made = of.trades.all();
        let sql = "SELECT ARRAY[number::text, seq::text, account_id, symbol, side::text, status::text, quantity::text,
                       opened_quantity::text, entry_price::text, leverage::text, currency_code, margin::text, stop_loss_price::text,
                       take_profit_price::text, liquidation_price::text, realised_profit::text, commission::text,
                       (extract(epoch FROM opened_at) * 1000000)::bigint::text, opened_seq::text, close_price::text,
                       close_reason::text, (extract(epoch FROM closed_at) * 1000000)::bigint::text, encode(quote, 'hex')]
                   FROM trades JOIN unnest($2::text[], $3::bigint[]) AS made (account_id, number) USING (account_id, number)
                   WHERE shard = $1";
        let accounts: Vec<&str> = made.iter().map(|row| row.account_id.as_str()).collect();
        let numbers: Vec<i64> = made.iter().map(|row| row.number).collect();
        let found = sqlx::query_scalar(sql).bind(self.shard).bind(accounts).bind(numbers);
        let found: Vec<Cells> = found.fetch_all(&mut *self.transaction).await?;
        compared.trades(made, found);

        let sql = "SELECT ARRAY[seq::text, event::text, trade_number::text, kind, symbol, price::text, bid::text, ask::text,
                       venue_bid::text, venue_ask::text, (extract(epoch FROM venue_time) * 1000000)::bigint::text, update_id::text]
                   FROM prices_used WHERE shard = $1 AND seq > $2 AND seq <= $3";
        let found = sqlx::query_scalar(sql).bind(self.shard).bind(after).bind(of.last_seq);
        let found: Vec<Cells> = found.fetch_all(&mut *self.transaction).await?;
        compared.rows(&PRICES, of.prices.iter().map(price_cells).collect(), found);
        Ok(())
    }

    /// Looks for rows that no journal made: past the cursor, or more of them than there are operations and trades.
    async fn whole(&mut self, begin: i64, compared: &mut Compared) -> Result<(), RecorderError> {
        for (table, sql) in [
            (
                "ledger_entries",
                "SELECT count(*) FROM ledger_entries WHERE shard = $1 AND seq > $2",
            ),
            (
                "operations",
                "SELECT count(*) FROM operations WHERE shard = $1 AND seq > $2",
            ),
            ("trades", "SELECT count(*) FROM trades WHERE shard = $1 AND seq > $2"),
            (
                "prices_used",
                "SELECT count(*) FROM prices_used WHERE shard = $1 AND seq > $2",
            ),
        ] {
            let beyond: i64 = sqlx::query_scalar(sql)
                .bind(self.shard)
                .bind(self.cursor)
                .fetch_one(&mut *self.transaction)
                .await?;
            if beyond > 0 {
                compared.say(format!(
                    "{table} of shard {}: {beyond} rows past the cursor, which is at {}",
                    self.shard, self.cursor
                ));
            }
        }
        for number in std::mem::take(&mut compared.later) {
            compared.say(format!(
                "trades of shard {}, number {number}: seq is past its last change in the journal",
                self.shard
            ));
        }
        if begin > 0 {
            return Ok(());
        }
        let made = [
            (
                "operations",
                compared.operations,
                "SELECT count(*) FROM operations WHERE shard = $1",
            ),
            (
                "trades",
                compared.opened,
                "SELECT count(*) FROM trades WHERE shard = $1",
            ),
        ];
        for (table, made, sql) in made {
            let found: i64 = sqlx::query_scalar(sql)
                .bind(self.shard)
                .fetch_one(&mut *self.transaction)
                .await?;
            if i64::try_from(made) != Ok(found) {
                compared.say(format!(
                    "{table} of shard {}: {found} rows, the journal makes {made}",
                    self.shard
                ));
            }
        }
        Ok(())
    }

    /// Adds the ledger up and compares it with balances as of the cursor.
    async fn balances(&mut self, balances: &Balances, compared: &mut Compared) -> Result<(), RecorderError> {
        let sql = "SELECT ledger_account::integer, CASE WHEN ledger_account IN (1, 2) THEN account_id ELSE '' END, currency_code,
                       sum(amount)::text
                   FROM ledger_entries WHERE shard = $1 AND seq <= $2 GROUP BY 1, 2, 3 HAVING sum(amount) <> 0";
        let sums: Vec<(i32, String, String, String)> = sqlx::query_as(sql)
            .bind(self.shard)
            .bind(self.cursor)
            .fetch_all(&mut *self.transaction)
            .await?;
        let mut booked = Balances::new();
        for (kind, owner, currency, sum) in sums {
            // Past what a Decimal holds it is wrong in any case.
            booked.insert((kind, owner, currency), sum.parse().unwrap_or(Decimal::MAX));
        }
        let mut owned: Vec<_> = booked.keys().chain(balances.keys()).collect();
        owned.sort_unstable();
        owned.dedup();
        for owned in owned {
            let (booked, state) = (booked.get(owned), balances.get(owned));
            if booked != state {
                let (kind, owner, currency) = owned;
                compared.say(format!(
                    "ledger_entries of shard {}: account kind {kind} of {owner:?} in {currency} adds up to {}, the state at sequence {} has {}",
                    self.shard,
                    booked.copied().unwrap_or_default(),
                    self.cursor,
                    state.copied().unwrap_or_default(),
                ));
            }
        }
        Ok(())
    }
}

/// A row, each column as text; nothing for NULL.
type Cells = Vec<Option<String>>;

/// A table as it is compared: the columns in their order, those of the key first.
struct Table {
    name: &'static str,
    key: usize,
    columns: &'static [&'static str],
}

const LEDGER: Table = Table {
    name: "ledger_entries",
    key: 2,
    columns: &[
        "seq",
        "line",
        "event",
        "kind",
        "account_id",
        "ledger_account",
        "currency_code",
        "amount",
        "booked_at",
        "trade_number",
        "request_id",
    ],
};
const OPERATIONS: Table = Table {
    name: "operations",
    key: 2,
    columns: &[
        "principal",
        "request_id",
        "account_id",
        "seq",
        "kind",
        "epoch",
        "refusal",
        "done_at",
        "result",
        "record",
    ],
};
const PRICES: Table = Table {
    name: "prices_used",
    key: 2,
    columns: &[
        "seq",
        "event",
        "trade_number",
        "kind",
        "symbol",
        "price",
        "bid",
        "ask",
        "venue_bid",
        "venue_ask",
        "venue_time",
        "update_id",
    ],
};
const TRADES: Table = Table {
    name: "trades",
    key: 1,
    columns: &[
        "number",
        "seq",
        "account_id",
        "symbol",
        "side",
        "status",
        "quantity",
        "opened_quantity",
        "entry_price",
        "leverage",
        "currency_code",
        "margin",
        "stop_loss_price",
        "take_profit_price",
        "liquidation_price",
        "realised_profit",
        "commission",
        "opened_at",
        "opened_seq",
        "close_price",
        "close_reason",
        "closed_at",
        "quote",
    ],
};
/// Where a trade's columns begin that a stretch need not tell.
const TRADE_UNTOLD: usize = 18;

/// What was compared, and what differs.
#[derive(Debug, Default)]
struct Compared {
    shard: i32,
    findings: Vec<String>,
    operations: usize,
    /// Trades opened.
    opened: usize,
    /// Trades whose rows say that they changed after the stretch that was looked at.
    later: HashSet<i64>,
}

impl Compared {
    fn say(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// Compares rows that must be the same and no others.
    fn rows(&mut self, table: &Table, made: Vec<Cells>, found: Vec<Cells>) {
        let mut rows: HashMap<Cells, Cells> = HashMap::with_capacity(found.len());
        for cells in found {
            // Not every table has a key that keeps a row from standing there again.
            if let Some(other) = rows.insert(cells[..table.key].to_vec(), cells) {
                self.say(format!("{} stands there twice", self.name(table, &other)));
            }
        }
        let mut found = rows;
        for made in made {
            match found.remove(&made[..table.key]) {
                None => self.say(format!("{} is missing", self.name(table, &made))),
                Some(stored) => self.cells(table, &made, &stored, made.len()),
            }
        }
        for stored in found.values() {
            self.say(format!("{} is not in the journal", self.name(table, stored)));
        }
    }

    fn trades(&mut self, made: &[TradeRow], found: Vec<Cells>) {
        let mut found: HashMap<Option<String>, Cells> =
            found.into_iter().map(|cells| (cells[0].clone(), cells)).collect();
        for row in made {
            self.opened += usize::from(row.opened_seq.is_some());
            let made = trade_cells(row);
            let Some(stored) = found.remove(&made[0]) else {
                self.say(format!("{} is missing", self.name(&TRADES, &made)));
                continue;
            };
            let changed: Option<i64> = stored[1].as_ref().and_then(|seq| seq.parse().ok());
            if changed > Some(row.seq) {
                // A later stretch says what it must be.
                self.later.insert(row.number);
                continue;
            }
            self.later.remove(&row.number);
            self.cells(&TRADES, &made, &stored, TRADE_UNTOLD);
        }
    }

    /// Tells the first column that differs. From `told` on, what was not made may be anything.
    fn cells(&mut self, table: &Table, made: &[Option<String>], stored: &[Option<String>], told: usize) {
        let columns = table.columns.iter().zip(made.iter().zip(stored)).enumerate();
        let differing = columns
            .filter(|(number, (_, (made, _)))| *number < told || made.is_some())
            .find(|(_, (_, (made, stored)))| made != stored);
        if let Some((_, (column, (wanted, is)))) = differing {
            let text = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "NULL".to_owned());
            self.say(format!(
                "{}: {column} is {}, the journal says {}",
                self.name(table, made),
                text(is),
                text(wanted)
            ));
        }
    }

    /// Names a row by its key.
    fn name(&self, table: &Table, cells: &[Option<String>]) -> String {
        let key = table.columns.iter().zip(cells).take(table.key);
        let key: Vec<String> = key
            .map(|(column, cell)| format!("{column} {}", cell.as_deref().unwrap_or("NULL")))
            .collect();
        format!("{} of shard {}, {}", table.name, self.shard, key.join(", "))
    }
}

/// A column that is never NULL.
fn cell(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

/// One that may be.
fn nullable<T: ToString>(value: Option<&T>) -> Option<String> {
    value.map(T::to_string)
}

fn hex(bytes: &[u8]) -> Option<String> {
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn ledger_cells(row: &LedgerRow) -> Cells {
    vec![
        cell(row.seq),
        cell(row.line),
        cell(row.event),
        cell(row.kind),
        cell(&row.account_id),
        cell(row.ledger_account),
        cell(&row.currency_code),
        cell(row.amount),
        cell(row.booked_at.timestamp_micros()),
        nullable(row.trade_number.as_ref()),
        nullable(row.request_id.as_ref()),
    ]
}

fn operation_cells(row: &OperationRow) -> Cells {
    let result = usize::try_from(row.result_bytes).unwrap_or(usize::MAX);
    let (_, answer) = row.record.split_at(row.record.len().saturating_sub(result));
    vec![
        cell(&row.principal),
        cell(row.request_id),
        cell(&row.account_id),
        cell(row.seq),
        cell(row.kind),
        cell(row.epoch),
        nullable(row.refusal.as_ref()),
        cell(row.done_at.timestamp_micros()),
        hex(answer),
        hex(&row.record),
    ]
}

fn price_cells(row: &PriceRow) -> Cells {
    vec![
        cell(row.seq),
        cell(row.event),
        cell(row.trade_number),
        cell(row.kind),
        cell(&row.symbol),
        nullable(row.price.as_ref()),
        nullable(row.bid.as_ref()),
        nullable(row.ask.as_ref()),
        nullable(row.venue_bid.as_ref()),
        nullable(row.venue_ask.as_ref()),
        cell(row.venue_time.timestamp_micros()),
        cell(row.update_id),
    ]
}

fn trade_cells(row: &TradeRow) -> Cells {
    vec![
        cell(row.number),
        cell(row.seq),
        cell(&row.account_id),
        cell(&row.symbol),
        cell(row.side),
        cell(row.status),
        cell(row.quantity),
        cell(row.opened_quantity),
        cell(row.entry_price),
        cell(row.leverage),
        cell(&row.currency_code),
        cell(row.margin),
        nullable(row.stop_loss_price.as_ref()),
        nullable(row.take_profit_price.as_ref()),
        nullable(row.liquidation_price.as_ref()),
        cell(row.realised_profit),
        cell(row.commission),
        cell(row.opened_at.timestamp_micros()),
        nullable(row.opened_seq.as_ref()),
        nullable(row.close.as_ref().map(|close| close.price).as_ref()),
        nullable(row.close.as_ref().map(|close| close.reason).as_ref()),
        nullable(row.closed_at.map(|at| at.timestamp_micros()).as_ref()),
        row.quote.as_deref().and_then(hex),
    ]
}
