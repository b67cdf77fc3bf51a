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
    let pool = super::pool(&options.database.database_url, "migrate", 1)?;
    let shards = migrate(&pool, options.shards.shards).await?;
    if let Some(missing) = audit_access(&pool).await? {
        say::warning(&format!("nobody can audit this database from outside yet: {missing}"));
    }
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

/// Lets the role `auditor` see what it is to see; says what keeps it from that.
///
/// # Errors
/// When the database is away.
async fn audit_access(pool: &PgPool) -> Result<Option<String>, Failure> {
    let missing: String = sqlx::query_scalar("SELECT audit_access()").fetch_one(pool).await?;
    Ok(Some(missing).filter(|missing| !missing.is_empty()))
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
    async fn an_auditor_sees_the_views_and_changes_nothing() {
        let postgres = PrivatePostgres::start().await;
        let pool = postgres.pool();
        migrate(&pool, Some(1)).await.unwrap();
        assert_eq!(
            audit_access(&pool).await.unwrap(),
            None,
            "nothing is missing, the second time neither"
        );
        let mut auditor = pool.acquire().await.unwrap();
        sqlx::query("SET ROLE auditor").execute(&mut *auditor).await.unwrap();
        for view in [
            "audit_operations",
            "audit_ledger",
            "audit_balances",
            "audit_trades",
            "audit_prices",
            "audit_snapshots",
            "audit_chain",
            "audit_house",
            "dead_letters",
        ] {
            let sql = format!("SELECT * FROM {view}");
            let seen = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *auditor).await;
            assert!(seen.is_ok(), "{view}: {seen:?}");
            let described = "SELECT obj_description($1::regclass, 'pg_class') IS NOT NULL";
            let described: bool = sqlx::query_scalar(described)
                .bind(view)
                .fetch_one(&mut *auditor)
                .await
                .unwrap();
            assert!(described, "{view} says nothing about itself");
        }
        for forbidden in [
            "DELETE FROM dead_letters",
            "DELETE FROM audit_operations",
            "UPDATE audit_ledger SET amount = 0",
            "SELECT * FROM journal",
            "SELECT * FROM house_exposure",
            "CREATE TABLE mine (n integer)",
        ] {
            let done = sqlx::query(forbidden).execute(&mut *auditor).await;
            assert!(
                done.is_err_and(|error| error.to_string().contains("permission denied")),
                "{forbidden}"
            );
        }
        let undescribed: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 'audit_house'::regclass AND attnum > 0 \
             AND col_description(attrelid, attnum) IS NULL",
        )
        .fetch_one(&mut *auditor)
        .await
        .unwrap();
        assert_eq!(undescribed, 0, "every column says its unit");
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = 'audit_operations'::regclass ORDER BY attnum",
        )
        .fetch_all(&mut *auditor)
        .await
        .unwrap();
        let promised = "shard seq epoch principal request_id kind status result ts";
        assert_eq!(columns.join(" "), promised);
    }

    #[tokio::test]
    async fn one_who_may_not_make_roles_migrates_and_is_told_what_is_missing() {
        let postgres = PrivatePostgres::start().await;
        let pool = postgres.pool();
        for sql in [
            "CREATE ROLE plain NOLOGIN",
            "GRANT ALL ON SCHEMA public TO plain",
            "GRANT ALL ON DATABASE postgres TO plain",
        ] {
            sqlx::query(sql).execute(&pool).await.unwrap();
        }
        let plain = sqlx::postgres::PgPoolOptions::new()
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::query("SET ROLE plain").execute(connection).await?;
                    Ok(())
                })
            })
            .connect(&postgres.url())
            .await
            .unwrap();
        migrate(&plain, Some(1)).await.unwrap();
        let missing = audit_access(&plain).await.unwrap().expect("it may not make roles");
        assert!(missing.contains("CREATE ROLE auditor NOLOGIN"), "{missing}");
        sqlx::query("CREATE ROLE auditor NOLOGIN").execute(&pool).await.unwrap();
        assert_eq!(
            audit_access(&plain).await.unwrap(),
            None,
            "made by another, granted by the owner"
        );
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
