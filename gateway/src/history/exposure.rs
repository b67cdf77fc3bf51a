//! What the house stands against, as the recorder's tables have it: one look, as of one moment.

use contracts::v1::{Exposure, GetExposureResponse, HouseProfit, RecordedShard};

use super::{History, unsigned};
use crate::failure::Failure;

#[derive(sqlx::FromRow)]
struct ExposureRow {
    symbol: String,
    currency_code: String,
    long_trades: i64,
    long_quantity: String,
    long_notional: String,
    short_trades: i64,
    short_quantity: String,
    short_notional: String,
    net_quantity: String,
    mark_price: Option<String>,
    net_notional: Option<String>,
    realised_profit: String,
    commission: String,
    unrealised_profit: Option<String>,
}

impl From<ExposureRow> for Exposure {
    fn from(row: ExposureRow) -> Self {
        Self {
            symbol: row.symbol,
            currency_code: row.currency_code,
            long_trades: unsigned(row.long_trades),
            long_quantity: row.long_quantity,
            long_notional: row.long_notional,
            short_trades: unsigned(row.short_trades),
            short_quantity: row.short_quantity,
            short_notional: row.short_notional,
            net_quantity: row.net_quantity,
            mark_price: row.mark_price.unwrap_or_default(),
            net_notional: row.net_notional.unwrap_or_default(),
            realised_profit: row.realised_profit,
            commission: row.commission,
            unrealised_profit: row.unrealised_profit.unwrap_or_default(),
        }
    }
}

impl History {
    /// The house's side of all trades.
    pub async fn exposure(&self) -> Result<GetExposureResponse, Failure> {
        let mut as_of_now = self.pool.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut *as_of_now)
            .await?;
        let exposures: Vec<ExposureRow> = sqlx::query_as(
            "SELECT symbol, currency_code, long_trades, long_quantity::text, long_notional::text, short_trades, short_quantity::text, \
             short_notional::text, net_quantity::text, mark_price::text, net_notional::text, realised_profit::text, commission::text, \
             unrealised_profit::text FROM house_books ORDER BY symbol, currency_code",
        )
        .fetch_all(&mut *as_of_now)
        .await?;
        let profits: Vec<(String, String, String, String)> = sqlx::query_as(
            "SELECT currency_code, sum(realised_profit)::text, sum(commission)::text, coalesce(sum(unrealised_profit), 0)::text \
             FROM house_books GROUP BY currency_code ORDER BY currency_code",
        )
        .fetch_all(&mut *as_of_now)
        .await?;
        let shards: Vec<(i32, i64)> = sqlx::query_as("SELECT shard, seq FROM recorder_cursor ORDER BY shard")
            .fetch_all(&mut *as_of_now)
            .await?;
        let profits =
            profits.into_iter().map(
                |(currency_code, realised_profit, commission, unrealised_profit)| HouseProfit {
                    currency_code,
                    realised_profit,
                    commission,
                    unrealised_profit,
                },
            );
        let shards = shards.into_iter().map(|(shard, sequence)| RecordedShard {
            shard: shard.unsigned_abs(),
            sequence: unsigned(sequence),
        });
        Ok(GetExposureResponse {
            exposures: exposures.into_iter().map(Exposure::from).collect(),
            profits: profits.collect(),
            shards: shards.collect(),
        })
    }
}
