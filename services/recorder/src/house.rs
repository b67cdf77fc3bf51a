//! What the house stands against and what trades brought it, for whoever watches: the view `house_books`, told as metrics.
//!
//! The numbers are kept by the database itself, in the transaction that moves a trade. This only reads them, and decides nothing.

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

/// Looks until told to stop.
pub(crate) async fn follow(
    pool: &PgPool,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<(), RecorderError> {
    let work = async {
        loop {
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
