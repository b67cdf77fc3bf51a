//! The sum of the whole ledger, by currency: zero, for ever.
//!
//! What is written was checked before, event by event. This looks at the table itself, each line once, so it also sees what somebody else
//! wrote into it, or took out while it runs behind. It decides nothing: its result is a metric, and an alert.

use std::collections::BTreeMap;
use std::time::Duration;

use rust_decimal::Decimal;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::error::RecorderError;
use crate::metrics::Metrics;

/// Pause between two looks at what was added.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Most sequences of a shard summed in one statement, so that none runs for long.
const STRETCH: i64 = 50_000;

/// What was summed so far.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    /// Last sequence summed, by shard.
    until: BTreeMap<i32, i64>,
    /// By currency.
    sums: BTreeMap<String, Decimal>,
}

impl Sums {
    /// Adds what the ledger has more than before. A ledger that was emptied is summed from its beginning.
    ///
    /// # Errors
    /// When Postgres is away. Nothing is counted twice then.
    pub(crate) async fn add_new(&mut self, pool: &PgPool) -> sqlx::Result<()> {
        let cursors: Vec<(i32, i64)> = sqlx::query_as("SELECT shard, seq FROM recorder_cursor ORDER BY shard")
            .fetch_all(pool)
            .await?;
        if cursors.iter().any(|(shard, seq)| *seq < self.until(*shard)) {
            *self = Self::default();
        }
        for (shard, seq) in cursors {
            while self.until(shard) < seq {
                let (after, until) = (self.until(shard), seq.min(self.until(shard) + STRETCH));
                let sql = "SELECT currency_code, sum(amount) FROM ledger_entries
                           WHERE shard = $1 AND seq > $2 AND seq <= $3 GROUP BY currency_code";
                let lines: Vec<(String, Decimal)> = sqlx::query_as(sql)
                    .bind(shard)
                    .bind(after)
                    .bind(until)
                    .fetch_all(pool)
                    .await?;
                for (currency, sum) in lines {
                    *self.sums.entry(currency).or_default() += sum;
                }
                self.until.insert(shard, until);
            }
        }
        Ok(())
    }

    /// What each currency sums to.
    pub(crate) fn by_currency(&self) -> impl Iterator<Item = (&str, Decimal)> {
        self.sums.iter().map(|(currency, sum)| (currency.as_str(), *sum))
    }

    fn until(&self, shard: i32) -> i64 {
        self.until.get(&shard).copied().unwrap_or(0)
    }
}

/// Sums until told to stop.
pub(crate) async fn follow(
    pool: &PgPool,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<(), RecorderError> {
    let mut sums = Sums::default();
    let work = async {
        loop {
            match sums.add_new(pool).await {
                Ok(()) => tell(&sums, metrics),
                Err(error) => tracing::debug!(%error, "the ledger is not summed now"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    shutdown.run_until_cancelled(work).await;
    Ok(())
}

fn tell(sums: &Sums, metrics: &Metrics) {
    for (currency, sum) in sums.by_currency() {
        metrics.imbalance(currency, sum);
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
    async fn the_ledger_is_summed_line_by_line_and_again_when_it_was_emptied() {
        let postgres = PrivatePostgres::migrated().await;
        let pool = postgres.pool();
        let run = async |sql: &'static str| sqlx::query(sql).execute(&pool).await.unwrap();
        let line = async |seq: i64, line: i32, currency: &str, amount: &str| {
            let sql = "INSERT INTO ledger_entries (shard, seq, line, event, kind, account_id, ledger_account, currency_code, amount, booked_at)
                       VALUES (0, $1, $2, 0, 'DEPOSITED', 'a', 1, $3, $4::numeric, now())";
            let line = sqlx::query(sql).bind(seq).bind(line).bind(currency).bind(amount);
            line.execute(&pool).await.unwrap();
        };
        let cursor = async |seq: i64| {
            let moved = sqlx::query("UPDATE recorder_cursor SET seq = $1 WHERE shard = 0").bind(seq);
            moved.execute(&pool).await.unwrap();
        };
        let seen = async |sums: &mut Sums| {
            sums.add_new(&pool).await.unwrap();
            let each = sums
                .by_currency()
                .map(|(currency, sum)| format!("{currency} {}", sum.normalize()));
            each.collect::<Vec<_>>()
        };
        run("INSERT INTO recorder_cursor (shard, seq) VALUES (0, 0), (1, 0)").await;
        let mut sums = Sums::default();
        assert!(seen(&mut sums).await.is_empty());

        line(1, 0, "USDC", "100.50").await;
        line(1, 1, "USDC", "-100.50").await;
        cursor(1).await;
        assert_eq!(seen(&mut sums).await, ["USDC 0"]);
        assert_eq!(seen(&mut sums).await, ["USDC 0"], "nothing is counted twice");

        // Over more than one stretch, and one line too many.
        line(2, 0, "BTC", "0.00000001").await;
        line(STRETCH + 7, 0, "USDC", "3").await;
        line(STRETCH + 8, 0, "USDC", "-3").await;
        cursor(STRETCH + 8).await;
        assert_eq!(seen(&mut sums).await, ["BTC 0.00000001", "USDC 0"]);

        run("DELETE FROM ledger_entries").await;
        cursor(0).await;
        assert!(seen(&mut sums).await.is_empty(), "it was emptied");
    }
}
