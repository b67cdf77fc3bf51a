//! `fulcrum verify`: is what is stored what was written?

use clap::Args;
use engine::journal::{Journal as _, PgJournal};
use engine::verify::{Report, Wanted};
use engine::window::Limits;
use recorder::verify::Tables;
use sqlx::PgPool;

use crate::failure::Failure;
use crate::say;
use crate::settings::{DatabaseSettings, TelemetrySettings};
use crate::telemetry::Telemetry;

/// Replays the journal and compares everything that is stored with what the replay comes to: state hashes, chain, ledger, balances,
/// snapshots, and the tables of the recorder.
///
/// It only reads, as of one moment, so it can be run beside a mesh that works. For each shard that is as it was written it prints one
/// line: shard, sequence, state hash. Whatever differs is told with its shard, row and column, and the exit code is 4.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    database: DatabaseSettings,
    /// Replays from the first entry on. Otherwise, and where the first entries were pruned, from the oldest snapshot.
    #[arg(long, env = "FULCRUM_FROM_GENESIS", value_parser = clap::builder::FalseyValueParser::new())]
    from_genesis: bool,
    /// Verifies one shard only.
    #[arg(long, env = "FULCRUM_VERIFY_SHARD", value_name = "NUMBER")]
    shard: Option<u32>,
    #[command(flatten)]
    telemetry: TelemetrySettings,
}

/// Runs the command.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let telemetry = Telemetry::install(&options.telemetry, "verify", None)?;
    let database = options.database.database_url;
    let pool = super::pool(&database, "verify", 1)?;
    let shards = PgJournal::as_of_now(&database).await?.shards().await?;
    if let Some(shard) = options.shard
        && shard >= shards
    {
        return Err(anyhow::anyhow!("there is no shard {shard}: they are numbered 0 to {}", shards - 1).into());
    }
    let mut findings = Vec::new();
    for shard in options.shard.map_or(0..shards, |shard| shard..shard + 1) {
        findings.extend(verify(&database, &pool, shard, options.from_genesis).await?);
    }
    telemetry.shutdown().await;
    if findings.is_empty() {
        return Ok(());
    }
    let many = findings.len();
    Err(Failure::damaged(anyhow::anyhow!(
        "what is stored is not what was written, in {many} places:\n{}",
        findings.join("\n")
    )))
}

/// Verifies one shard; gives what differs.
async fn verify(database: &str, pool: &PgPool, shard: u32, from_genesis: bool) -> Result<Vec<String>, Failure> {
    // The tables first: the journal, looked at later, reaches at least as far as they do.
    let tables = Tables::now(pool, shard).await?;
    let journal = PgJournal::as_of_now(database).await?;
    let heads = journal.heads().await?;
    let Some(head) = heads.into_iter().find(|head| head.shard == shard) else {
        return Ok(vec![format!("shard_head of shard {shard} is missing")]);
    };
    let wanted = Wanted {
        from_genesis,
        balances_at: Some(tables.cursor()),
        window: Limits::default(),
    };
    let Report {
        sequence,
        state_hash,
        began_after,
        genesis_gone,
        balances,
        mut findings,
        ..
    } = engine::verify::shard(&journal, &head, wanted).await?;
    if genesis_gone {
        say::warning(&format!(
            "shard {shard}: its first entries were pruned; verified from the snapshot at sequence {began_after} on"
        ));
    }
    // A journal that is damaged says nothing about tables.
    if findings.is_empty() {
        if balances.is_none() {
            say::warning(&format!(
                "shard {shard}: the recorder is at sequence {}, before the snapshot that this began with: balances not compared",
                tables.cursor()
            ));
        }
        findings = tables.compare(began_after, balances.as_ref()).await?;
    }
    if findings.is_empty() {
        say::line(format!("{shard} {sequence} {state_hash:032x}"));
    }
    Ok(findings)
}
