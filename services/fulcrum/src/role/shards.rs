//! `fulcrum shards`: who leads what, and moving it by hand.
//!
//! What an operator wants is a row that engines look at four times a second; they do the moving. The engine that leads a shard finishes
//! what it decided and gives the lease back, the other one takes it from its standby replica; calls wait in the queue meanwhile.

use std::time::Duration;

use clap::{Args, Subcommand};
use sqlx::{FromRow, PgPool};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::say;
use crate::settings::DatabaseSettings;

/// How long engines have for what is asked of them before the command stops watching.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it is done.
const LOOK: Duration = Duration::from_millis(200);

/// Shows which engine leads which shard, and moves shards between engines that run.
///
/// Engines share the shards among themselves without being told: one more takes its part within seconds, one that ends leaves its own
/// to the others. This is for when a person wants it otherwise.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(DatabaseSettings),
    Move(MoveOptions),
    Drain(DrainOptions),
}

/// Moves shards to an engine and keeps them there while it runs, or lets them go where there is room again.
///
/// Waits until they are led there. Calls to them wait in their queues for a moment; none fails.
#[derive(Debug, Args)]
struct MoveOptions {
    #[command(flatten)]
    database: DatabaseSettings,
    /// The shards, by number.
    #[arg(env = "FULCRUM_SHARDS_MOVED", required = true, value_name = "SHARD")]
    shards: Vec<i32>,
    /// The engine to lead them, by the name it was given with --name.
    #[arg(
        long,
        env = "FULCRUM_SHARDS_TO",
        value_name = "ENGINE",
        required_unless_present = "anywhere"
    )]
    to: Option<String>,
    /// Any engine may lead them again.
    #[arg(
        long,
        env = "FULCRUM_SHARDS_ANYWHERE",
        conflicts_with = "to",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    anywhere: bool,
}

/// Moves everything away from an engine, so that it can be stopped without anybody noticing.
///
/// Waits until it leads nothing. It stays so until it is started again or --undo. The last engine that runs goes on leading.
#[derive(Debug, Args)]
struct DrainOptions {
    #[command(flatten)]
    database: DatabaseSettings,
    /// The engine, by the name it was given with --name.
    #[arg(env = "FULCRUM_SHARDS_DRAINED", value_name = "ENGINE")]
    engine: String,
    /// It leads its part again.
    #[arg(long, env = "FULCRUM_SHARDS_UNDO", value_parser = clap::builder::FalseyValueParser::new())]
    undo: bool,
}

#[derive(Debug, FromRow)]
struct Shard {
    shard: i32,
    epoch: i64,
    seq: i64,
    engine: Option<String>,
    left_ms: Option<i64>,
    wanted: Option<String>,
}

#[derive(Debug, FromRow)]
struct Engine {
    name: String,
    shards: i64,
    draining: bool,
    age_s: i64,
}

/// The shards as they stand.
const SHARDS: &str = "SELECT shard, epoch, seq, wanted, \
     CASE WHEN lease_until > clock_timestamp() THEN lease_name END AS engine, \
     CASE WHEN lease_until > clock_timestamp() \
       THEN (extract(epoch FROM lease_until - clock_timestamp()) * 1000)::bigint END AS left_ms \
     FROM shard_head ORDER BY shard";

const ENGINES: &str = "SELECT name, draining, extract(epoch FROM clock_timestamp() - started_at)::bigint AS age_s, \
     (SELECT count(*) FROM shard_head h WHERE h.lease_owner = e.id AND h.lease_until > clock_timestamp()) AS shards \
     FROM engines e WHERE seen_until > clock_timestamp() ORDER BY name, id";

/// Runs the command.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    match options.command {
        Command::List(database) => list(&super::pool(&database.database_url, "shards", 1)?).await,
        Command::Move(options) => relocate(options).await,
        Command::Drain(options) => drain(options).await,
    }
}

async fn shards(pool: &PgPool) -> Result<Vec<Shard>, Failure> {
    Ok(sqlx::query_as(SHARDS).fetch_all(pool).await?)
}

async fn engines(pool: &PgPool) -> Result<Vec<Engine>, Failure> {
    Ok(sqlx::query_as(ENGINES).fetch_all(pool).await?)
}

async fn list(pool: &PgPool) -> Result<(), Failure> {
    say::line("ENGINE                           SHARDS   RUNS FOR  STATE");
    for engine in engines(pool).await? {
        let state = if engine.draining { "DRAINING" } else { "SERVING" };
        say::line(format!(
            "{:<32} {:>6} {:>8} s  {state}",
            engine.name, engine.shards, engine.age_s
        ));
    }
    say::line("");
    say::line("SHARD  ENGINE                              EPOCH    SEQUENCE  LEASE MS  WANTED");
    for shard in shards(pool).await? {
        say::line(format!(
            "{:>5}  {:<32} {:>8} {:>11} {:>9}  {}",
            shard.shard,
            shard.engine.as_deref().unwrap_or("nobody"),
            shard.epoch,
            shard.seq,
            shard.left_ms.map_or_else(|| "-".to_owned(), |left| left.to_string()),
            shard.wanted.as_deref().unwrap_or("anywhere"),
        ));
    }
    Ok(())
}

/// Refuses an engine that does not run: what waits for it would wait for ever.
async fn must_run(pool: &PgPool, name: &str) -> Result<(), Failure> {
    let names: Vec<String> = engines(pool).await?.into_iter().map(|engine| engine.name).collect();
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    Err(anyhow::anyhow!("no engine {name:?} runs; those that do: {}", names.join(", ")).into())
}

async fn relocate(options: MoveOptions) -> Result<(), Failure> {
    let pool = super::pool(&options.database.database_url, "shards", 1)?;
    if let Some(engine) = &options.to {
        must_run(&pool, engine).await?;
    }
    let known = shards(&pool).await?;
    if let Some(unknown) = options
        .shards
        .iter()
        .find(|shard| known.iter().all(|it| it.shard != **shard))
    {
        return Err(anyhow::anyhow!(
            "there is no shard {unknown}: they are numbered 0 to {}",
            known.len() - 1
        )
        .into());
    }
    sqlx::query("UPDATE shard_head SET wanted = $2 WHERE shard = ANY($1)")
        .bind(&options.shards)
        .bind(&options.to)
        .execute(&pool)
        .await?;
    let Some(engine) = options.to else {
        say::line("any engine may lead them");
        return Ok(());
    };
    let what = format!("shards led by {engine}");
    until(&what, || async {
        let left = shards(&pool)
            .await?
            .into_iter()
            .filter(|it| options.shards.contains(&it.shard) && it.engine.as_ref() != Some(&engine));
        Ok(left.count())
    })
    .await
}

async fn drain(options: DrainOptions) -> Result<(), Failure> {
    let pool = super::pool(&options.database.database_url, "shards", 1)?;
    must_run(&pool, &options.engine).await?;
    sqlx::query("UPDATE engines SET draining = $2 WHERE name = $1")
        .bind(&options.engine)
        .bind(!options.undo)
        .execute(&pool)
        .await?;
    if options.undo {
        say::line(format!("{} takes its part again", options.engine));
        return Ok(());
    }
    let others = engines(&pool).await?;
    if !others.iter().any(|it| it.name != options.engine && !it.draining) {
        say::warning("no other engine takes over: it goes on leading until one does");
        return Ok(());
    }
    let what = format!("{} leads nothing", options.engine);
    until(&what, || async {
        let led = shards(&pool)
            .await?
            .into_iter()
            .filter(|it| it.engine.as_ref() == Some(&options.engine));
        Ok(led.count())
    })
    .await
}

/// Watches until nothing is left to do, and says so.
async fn until<F: Future<Output = Result<usize, Failure>>>(what: &str, left: impl Fn() -> F) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let shards = left().await?;
        if shards == 0 {
            say::line(format!("done after {} ms: {what}", begun.elapsed().as_millis()));
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let told = format!(
                "{shards} shards are not moved after {} s: see fulcrum shards list",
                PATIENCE.as_secs()
            );
            return Err(anyhow::anyhow!(told).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}
