//! Totals for whoever watches, told as metrics: what the ledger adds up to, which is zero for ever, and what the house stands against.
//!
//! The numbers are kept by the database itself, in the transaction that moves a line or a trade, so they also see what somebody else
//! wrote into a table, or took out. This only reads them, and decides nothing.

use std::time::Duration;

use rust_decimal::Decimal;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::error::RecorderError;
use crate::metrics::Metrics;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// One instrument in one settlement currency.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Books {
    pub(crate) symbol: String,
    pub(crate) currency_code: String,
    pub(crate) long_trades: i64,
    pub(crate) long_quantity: Decimal,
    pub(crate) long_notional: Decimal,
    pub(crate) short_trades: i64,
    pub(crate) short_quantity: Decimal,
    pub(crate) short_notional: Decimal,
    pub(crate) realised_profit: Decimal,
    /// The house's side at the newest price; nothing without one.
    pub(crate) net_notional: Option<Decimal>,
    pub(crate) unrealised_profit: Option<Decimal>,
}

/// All of them, by symbol and currency.
pub(crate) async fn books(pool: &PgPool) -> sqlx::Result<Vec<Books>> {
    // Rounded far below what anybody watches: a product of decimals may have more digits than a decimal of ours holds.
    let sql = "SELECT symbol, currency_code, long_trades, long_quantity, round(long_notional, 8) AS long_notional, short_trades,
                   short_quantity, round(short_notional, 8) AS short_notional, realised_profit, round(net_notional, 8) AS net_notional,
                   round(unrealised_profit, 8) AS unrealised_profit
               FROM house_books ORDER BY symbol, currency_code";
    sqlx::query_as(sql).fetch_all(pool).await
}

/// What the ledger adds up to, by currency.
pub(crate) async fn ledger(pool: &PgPool) -> sqlx::Result<Vec<(String, Decimal)>> {
    let sql = "SELECT currency_code, sum(sum) FROM ledger_sums GROUP BY currency_code ORDER BY currency_code";
    sqlx::query_as(sql).fetch_all(pool).await
}

/// Looks until told to stop.
pub(crate) async fn follow(
    pool: &PgPool,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<(), RecorderError> {
    let work = async {
        loop {
            match ledger(pool).await {
                Ok(sums) => tell(&sums, metrics),
                Err(error) => tracing::debug!(%error, "the sums of the ledger are not read now"),
            }
            match books(pool).await {
                Ok(books) => books.iter().for_each(|one| metrics.house(one)),
                Err(error) => tracing::debug!(%error, "the house's books are not read now"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    shutdown.run_until_cancelled(work).await;
    Ok(())
}

fn tell(sums: &[(String, Decimal)], metrics: &Metrics) {
    for (currency, sum) in sums {
        metrics.imbalance(currency, *sum);
        if !sum.is_zero() {
            tracing::error!(currency, %sum, "the ledger does not sum to zero");
        }
    }
}

#[cfg(test)]
mod tests {
    use testkit::PrivatePostgres;

    use super::*;

    #[tokio::test]
    async fn the_ledger_adds_up_whoever_writes_and_whatever_is_taken_out() {
        let postgres = PrivatePostgres::migrated().await;
        let pool = postgres.pool();
        let lines = async |lines: &str| {
            let sql = format!(
                "INSERT INTO ledger_entries (shard, seq, line, event, kind, account_id, ledger_account, currency_code, amount, booked_at)
                 SELECT shard, seq, line, 0, 'DEPOSITED', 'a', 1, currency, amount, now()
                 FROM (VALUES {lines}) AS new (shard, seq, line, currency, amount)"
            );
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
        };
        let run = async |sql: &'static str| sqlx::query(sql).execute(&pool).await.unwrap();
        let seen = async || {
            let sums = ledger(&pool).await.unwrap();
            let each = sums
                .iter()
                .map(|(currency, sum)| format!("{currency} {}", sum.normalize()));
            each.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(seen().await, "");

        lines("(0, 1, 0, 'USDC', 100.50), (0, 1, 1, 'USDC', -100.50)").await;
        assert_eq!(seen().await, "USDC 0");
        lines("(0, 2, 0, 'BTC', 0.00000001), (1, 1, 0, 'USDC', 3), (1, 1, 1, 'USDC', -3)").await;
        assert_eq!(seen().await, "BTC 0.00000001, USDC 0");

        run("UPDATE ledger_entries SET amount = amount + 1 WHERE shard = 0 AND seq = 1 AND line = 1").await;
        assert_eq!(seen().await, "BTC 0.00000001, USDC 1");
        run("DELETE FROM ledger_entries WHERE shard = 0 AND seq = 1 AND line = 0").await;
        assert_eq!(seen().await, "BTC 0.00000001, USDC -99.5");
        run("DELETE FROM ledger_entries WHERE shard = 0").await;
        assert_eq!(seen().await, "BTC 0, USDC 0");

        run("TRUNCATE ledger_entries").await;
        assert_eq!(seen().await, "");
    }
}
