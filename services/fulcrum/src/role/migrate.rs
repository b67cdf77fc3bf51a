//! `fulcrum migrate`: brings the database's schema up to date and settles, once, how many shards there are.

use clap::Args;
use contracts::shard::{SHARDS_DEFAULT, SHARDS_MAX};
use sqlx::migrate::Migrator;
use sqlx::{Connection as _, PgConnection, PgPool};

use crate::failure::Failure;
use crate::say;
use crate::settings::{DatabaseSettings, TelemetrySettings};
use crate::telemetry::Telemetry;

/// What this version makes of a database.
pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Brings the database up to date. Run it before anything else, and again with every new version; it changes nothing twice.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    database: DatabaseSettings,
    #[command(flatten)]
    shards: ShardSettings,
    #[command(flatten)]
    telemetry: TelemetrySettings,
}

/// How many shards there are.
#[derive(Args, Clone, Debug)]
pub(crate) struct ShardSettings {
    /// Number of shards that accounts are spread over: chosen once, at the first start. 16 unless given.
    #[arg(long, env = "FULCRUM_SHARDS", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(SHARDS_MAX)))]
    pub(crate) shards: Option<u32>,
}

/// Runs the command.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let telemetry = Telemetry::install(&options.telemetry, "migrate", None)?;
    let pool = super::pool(&options.database.database_url, 1)?;
    let shards = migrate(&pool, options.shards.shards).await?;
    say::line(format!("the database is up to date and has {shards} shards"));
    telemetry.shutdown().await;
    Ok(())
}

/// Migrates, and says how many shards there are. Safe to run at once from several places: they wait for each other.
///
/// # Errors
/// When a migration fails, or another number of shards was chosen before.
pub(crate) async fn migrate(pool: &PgPool, shards: Option<u32>) -> Result<u32, Failure> {
    MIGRATIONS
        .run(pool)
        .await
        .map_err(anyhow::Error::from)
        .map_err(|error| error.context("the database's schema"))?;
    let mut connection = pool.acquire().await?;
    settle_shards(&mut connection, shards).await
}

async fn settle_shards(connection: &mut PgConnection, wanted: Option<u32>) -> Result<u32, Failure> {
    let mut transaction = connection.begin().await?;
    let number = i32::try_from(wanted.unwrap_or(SHARDS_DEFAULT)).expect("at most SHARDS_MAX");
    sqlx::query("INSERT INTO cluster (shards) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(number)
        .execute(&mut *transaction)
        .await?;
    let settled: i32 = sqlx::query_scalar("SELECT shards FROM cluster")
        .fetch_one(&mut *transaction)
        .await?;
    if let Some(wanted) = wanted
        && settled != number
    {
        return Err(anyhow::anyhow!(
            "this database has {settled} shards, not {wanted}: the number is chosen once, because it decides on which shard an \
             account lives. Leave --shards out, or begin with an empty database"
        )
        .into());
    }
    let heads = "INSERT INTO shard_head (shard) SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING";
    sqlx::query(heads).bind(settled).execute(&mut *transaction).await?;
    let cursors =
        "INSERT INTO recorder_cursor (shard, seq) SELECT generate_series(0, $1 - 1), 0 ON CONFLICT DO NOTHING";
    sqlx::query(cursors).bind(settled).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(u32::try_from(settled).expect("the table checks that it is positive"))
}

#[cfg(test)]
mod tests {
    use testkit::PrivatePostgres;

    use super::*;

    async fn rows(pool: &PgPool, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(pool)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn the_number_of_shards_is_chosen_once() {
        let postgres = PrivatePostgres::start().await;
        let pool = postgres.pool();
        assert_eq!(migrate(&pool, Some(4)).await.unwrap(), 4);
        assert_eq!(
            (rows(&pool, "shard_head").await, rows(&pool, "recorder_cursor").await),
            (4, 4)
        );

        let refused = migrate(&pool, Some(5)).await.unwrap_err();
        assert_eq!(refused.code(), 1);
        assert!(refused.to_string().contains("has 4 shards, not 5"), "{refused}");
        assert_eq!(rows(&pool, "shard_head").await, 4);

        assert_eq!(migrate(&pool, None).await.unwrap(), 4, "not said is not another number");
        assert_eq!(migrate(&pool, Some(4)).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn two_at_once_wait_for_each_other() {
        let postgres = PrivatePostgres::start().await;
        let pool = postgres.pool();
        let (one, other) = tokio::join!(migrate(&pool, None), migrate(&pool, None));
        assert_eq!((one.unwrap(), other.unwrap()), (SHARDS_DEFAULT, SHARDS_DEFAULT));
        assert_eq!(rows(&pool, "shard_head").await, i64::from(SHARDS_DEFAULT));
    }
}
