//! What it costs to have something on disk: a file and `fdatasync`, and a row in Postgres, by the size of the batch.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use engine::journal::{Batch, Journal as _, Owner, PgJournal, Verdict, chain};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::cpu::{Subject, Used, Watch, this_thread};
use crate::load::on_a_thread;
use crate::sample::{Sample, Tally};

/// Bytes of an event in the journal.
const EVENT_BYTES: usize = 114;

/// Appends batches of events to a file and syncs each batch, for so long.
///
/// # Errors
/// When the directory cannot be written to.
pub async fn file(directory: &Path, batch: usize, measure: Duration) -> anyhow::Result<Sample> {
    let directory = directory.to_owned();
    on_a_thread("bench-disk", async move || {
        let mut file = tempfile::tempfile_in(&directory).with_context(|| directory.display().to_string())?;
        let rows = vec![7_u8; batch * EVENT_BYTES];
        let (tally, used) = repeat(&Watch::default(), batch, measure, async || {
            file.write_all(&rows).context("writing")?;
            file.sync_data().context("fdatasync")
        })
        .await?;
        Ok(sample("file + fdatasync", batch, &tally, &used))
    })
    .await
}

/// Commits batches of events to Postgres, one row a batch, for so long. `server` is the Postgres to be watched.
///
/// # Errors
/// When the database refuses.
pub async fn postgres(url: &str, server: Option<u32>, batch: usize, measure: Duration) -> anyhow::Result<Sample> {
    let url = url.to_owned();
    on_a_thread("bench-disk", async move || {
        let mut watch = Watch::default();
        if let Some(server) = server {
            watch.add("postgres", Subject::Process(server));
        }
        let mut connection = PgConnection::connect(&url).await.context("the database")?;
        // Gone with the connection; a temporary table would not be logged, so it is an ordinary one with a name nobody else has.
        sqlx::query("CREATE TABLE IF NOT EXISTS bench_yardstick (number bigserial PRIMARY KEY, body bytea NOT NULL)")
            .execute(&mut connection)
            .await?;
        sqlx::query("SET synchronous_commit = on")
            .execute(&mut connection)
            .await?;
        let row = vec![7_u8; batch * EVENT_BYTES];
        let measured = repeat(&watch, batch, measure, async || {
            sqlx::query("INSERT INTO bench_yardstick (body) VALUES ($1)")
                .bind(&row)
                .execute(&mut connection)
                .await?;
            Ok(())
        })
        .await;
        sqlx::query("DROP TABLE bench_yardstick")
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        let (tally, used) = measured?;
        Ok(sample("postgres commit", batch, &tally, &used))
    })
    .await
}

/// Commits batches of events with the engine's own statement to a migrated database that nobody else uses, for so long. `server` is the
/// Postgres to be watched.
///
/// # Errors
/// When the database refuses, or somebody else leads its first shard.
pub async fn journal(url: &str, server: Option<u32>, batch: usize, measure: Duration) -> anyhow::Result<Sample> {
    let url = url.to_owned();
    on_a_thread("bench-disk", async move || {
        let mut watch = Watch::default();
        if let Some(server) = server {
            watch.add("postgres", Subject::Process(server));
        }
        let journal = PgJournal::connect(&url, 1).await?;
        let owner = Owner {
            id: Uuid::new_v4(),
            name: "bench".to_owned(),
        };
        let head = journal
            .acquire(0, &owner)
            .await?
            .context("somebody leads the first shard")?;
        let body: Bytes = vec![7_u8; batch * EVENT_BYTES].into();
        let mut last = (head.sequence, head.chain);
        let measured = repeat(&watch, batch, measure, async || {
            let (before, chained) = last;
            let sequence = before + batch as u64;
            let row = Batch {
                shard: 0,
                epoch: head.epoch,
                sequence_before: before,
                sequence,
                id: Uuid::new_v4(),
                body: body.clone(),
                state_hash: u128::from(sequence),
                chain: chain(&chained, sequence, u128::from(sequence), &body),
            };
            last = (sequence, row.chain);
            let verdicts = journal.commit(&[row], &[]).await?;
            ensure!(verdicts == [Verdict::Committed], "{verdicts:?}");
            Ok(())
        })
        .await;
        journal.release(&owner, &[(0, head.epoch)]).await?;
        let (tally, used) = measured?;
        Ok(sample("engine's journal", batch, &tally, &used))
    })
    .await
}

/// One commit after the other.
async fn repeat(
    watch: &Watch,
    batch: usize,
    measure: Duration,
    mut commit: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<(Tally, Used)> {
    let mut watch = watch.clone();
    watch.add("writer", Subject::Thread(this_thread()));
    commit().await?;
    let mut tally = Tally::default();
    let before = watch.read();
    let begun = Instant::now();
    while begun.elapsed() < measure {
        let from = Instant::now();
        commit().await?;
        tally.latencies.record(from.elapsed());
        tally.in_time += batch as u64;
    }
    Ok((tally, watch.read().since(&before)))
}

/// Events are counted, and the latencies are those of commits.
fn sample(what: &str, batch: usize, tally: &Tally, used: &Used) -> Sample {
    let mut sample = Sample::of(&format!("{what}, batch {batch}"), tally, used);
    sample.calls = tally.in_time;
    sample
}
