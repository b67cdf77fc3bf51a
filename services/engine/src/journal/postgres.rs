//! The journal's statements; those of snapshots are in `snapshots`.

mod snapshots;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{Arguments as _, PgPool, Row as _};
use uuid::Uuid;

use super::{
    Batch, DeadLetter, Engine, Head, Journal, JournalError, LEASE, Owner, PRUNED_MAX, RUNNING, Row, STATEMENT_TIMEOUT,
    SnapshotHead, Verdict,
};
use crate::poison::{ENDED_MAX, POISON_FOR};

/// Arguments of a commit, and what they hold of a batch besides its body, roughly. Bytes.
const ARGUMENTS: usize = 8;
const BYTES_BESIDE_BODY: usize = 192;

/// [`Journal`] in Postgres.
#[derive(Clone, Debug)]
pub struct PgJournal {
    pool: PgPool,
}

/// Settings of the database under which nothing acknowledged could be called durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("postgres has {setting} = {value}: an acknowledged trade could be lost; set it to {wanted}")]
pub struct UnsafeSetting {
    /// Which.
    pub setting: String,
    /// As it is.
    pub value: String,
    /// As it must be.
    pub wanted: &'static str,
}

impl PgJournal {
    /// Connects. Every connection asks for durable commits itself, whatever the role's default is.
    ///
    /// # Errors
    /// When the address cannot be read or Postgres cannot be reached.
    pub async fn connect(url: &str, connections: u32) -> Result<Self, JournalError> {
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(STATEMENT_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::query("SET synchronous_commit = on").execute(connection).await?;
                    Ok(())
                })
            })
            .connect_with(named(url, "fulcrum-engine")?)
            .await?;
        Ok(Self { pool })
    }

    /// Connects to read only, as of this moment: one connection, and on it one transaction that sees nothing of what is written later
    /// and holds nobody up. When the connection is lost it is not replaced, because another one would see another moment.
    ///
    /// # Errors
    /// As [`PgJournal::connect`].
    pub async fn as_of_now(url: &str) -> Result<Self, JournalError> {
        let connected = Arc::new(AtomicBool::new(false));
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(STATEMENT_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |connection, _| {
                let again = connected.swap(true, Ordering::SeqCst);
                Box::pin(async move {
                    if again {
                        return Err(sqlx::Error::Protocol("the connection was lost: begin again".to_owned()));
                    }
                    sqlx::query("SET idle_in_transaction_session_timeout = 0")
                        .execute(&mut *connection)
                        .await?;
                    sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                        .execute(&mut *connection)
                        .await?;
                    Ok(())
                })
            })
            .connect_with(named(url, "fulcrum-verify")?)
            .await?;
        Ok(Self { pool })
    }

    /// The number of shards chosen when the deployment was migrated.
    ///
    /// # Errors
    /// When it was not migrated, or Postgres is away.
    pub async fn shards(&self) -> Result<u32, JournalError> {
        let row = sqlx::query("SELECT shards FROM cluster").fetch_one(&self.pool).await?;
        Ok(u32::try_from(row.try_get::<i32, _>(0)?).expect("checked by the table"))
    }

    /// Looks for settings that make durability a lie.
    ///
    /// # Errors
    /// When Postgres is away; the inner error names the setting.
    pub async fn check_settings(&self) -> Result<Result<(), UnsafeSetting>, JournalError> {
        for (setting, allowed, wanted) in [
            ("fsync", &["on"][..], "on"),
            ("full_page_writes", &["on"][..], "on"),
            ("synchronous_commit", &["on", "remote_apply"][..], "on"),
        ] {
            let row = sqlx::query("SELECT current_setting($1)")
                .bind(setting)
                .fetch_one(&self.pool)
                .await?;
            let value: String = row.try_get(0)?;
            if !allowed.contains(&value.as_str()) {
                return Ok(Err(UnsafeSetting {
                    setting: setting.to_owned(),
                    value,
                    wanted,
                }));
            }
        }
        Ok(Ok(()))
    }

    /// Writes dead letters. One that was put back on its queue and dies again is open again; any other is there once.
    async fn bury(&self, dead: &[DeadLetter]) -> Result<(), JournalError> {
        // A statement may not touch a row twice, so what came twice in one batch is one letter here already.
        let mut known = HashSet::new();
        let dead: Vec<&DeadLetter> = dead
            .iter()
            .filter(|letter| known.insert((letter.shard, letter.digest)))
            .collect();
        let shards: Vec<i32> = dead.iter().map(|letter| signed(letter.shard)).collect();
        let digests: Vec<&[u8]> = dead.iter().map(|letter| letter.digest.as_slice()).collect();
        let bodies: Vec<&[u8]> = dead.iter().map(|letter| letter.body.as_ref()).collect();
        let bytes: Vec<i64> = dead
            .iter()
            .map(|letter| i64::try_from(letter.bytes).unwrap_or(i64::MAX))
            .collect();
        let reasons: Vec<&str> = dead.iter().map(|letter| letter.reason).collect();
        bounded(
            sqlx::query(
                "INSERT INTO dead_letters (shard, digest, body, reason, bytes) \
                 SELECT * FROM unnest($1::int[], $2::bytea[], $3::bytea[], $4::text[], $5::bigint[]) \
                 ON CONFLICT (shard, digest) DO UPDATE SET resolved_at = NULL, resolution = NULL, received_at = clock_timestamp() \
                 WHERE dead_letters.resolution = 'REQUEUED'",
            )
            .bind(shards)
            .bind(digests)
            .bind(bodies)
            .bind(reasons)
            .bind(bytes)
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    /// The database's clock, microseconds since the epoch.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn time_us(&self) -> Result<i64, JournalError> {
        let row = sqlx::query("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            .fetch_one(&self.pool)
            .await?;
        Ok(row.try_get(0)?)
    }
}

/// The address with the name that its sessions bear, unless it names them itself.
fn named(url: &str, name: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    if options.get_application_name().is_some() {
        return Ok(options);
    }
    Ok(options.application_name(name))
}

/// Whether a head row's lease stands; $1 is [`lease_ms`]. One that ends later than a lease can last was written by a clock that was
/// wrong: it must not block a shard for hours.
macro_rules! leased {
    () => {
        "(lease_until BETWEEN clock_timestamp() AND clock_timestamp() + $1::bigint * interval '1 millisecond')"
    };
}

/// How many shards nobody leads, by the rule by which engines take them.
///
/// # Errors
/// When Postgres is away.
pub async fn unled(pool: &PgPool) -> Result<i64, JournalError> {
    let counted = sqlx::query_scalar(concat!("SELECT count(*) FROM shard_head WHERE NOT ", leased!()));
    bounded(counted.bind(lease_ms()).fetch_one(pool)).await
}

async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>> + Send) -> Result<T, JournalError> {
    match tokio::time::timeout(STATEMENT_TIMEOUT, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(JournalError::Timeout),
    }
}

impl Journal for PgJournal {
    async fn heads(&self) -> Result<Vec<Head>, JournalError> {
        let rows = bounded(
            sqlx::query(concat!(
                "SELECT shard, epoch, seq, chain, ",
                leased!(),
                ", wanted FROM shard_head ORDER BY shard"
            ))
            .bind(lease_ms())
            .fetch_all(&self.pool),
        )
        .await?;
        Ok(rows.iter().map(read_head).collect::<Result<_, _>>()?)
    }

    async fn acquire(&self, shard: u32, owner: &Owner) -> Result<Option<Head>, JournalError> {
        let row = bounded(
            sqlx::query(concat!(
                "UPDATE shard_head SET epoch = epoch + 1, lease_owner = $3, lease_name = $4, \
                 lease_until = clock_timestamp() + $1::bigint * interval '1 millisecond' \
                 WHERE shard = $2 AND NOT ",
                leased!(),
                " RETURNING shard, epoch, seq, chain, true, wanted"
            ))
            .bind(lease_ms())
            .bind(signed(shard))
            .bind(owner.id)
            .bind(&owner.name)
            .fetch_optional(&self.pool),
        )
        .await?;
        Ok(row.as_ref().map(read_head).transpose()?)
    }

    async fn engines(&self) -> Result<Vec<Engine>, JournalError> {
        let rows = bounded(
            sqlx::query(
                "SELECT id, name, draining FROM engines WHERE seen_until BETWEEN clock_timestamp() \
                 AND clock_timestamp() + $1::bigint * interval '1 millisecond' ORDER BY name, id",
            )
            .bind(lease_ms())
            .fetch_all(&self.pool),
        )
        .await?;
        let read = |row: &PgRow| -> Result<Engine, sqlx::Error> {
            Ok(Engine {
                id: row.try_get(0)?,
                name: row.try_get(1)?,
                draining: row.try_get(2)?,
            })
        };
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    async fn renew(&self, owner: &Owner, held: &[(u32, u64)]) -> Result<Vec<u32>, JournalError> {
        let (shards, epochs) = columns(held);
        let rows = bounded(
            sqlx::query(
                "WITH us AS ( \
                   INSERT INTO engines (id, name, seen_until) \
                   VALUES ($1, $5, clock_timestamp() + $6::bigint * interval '1 millisecond') \
                   ON CONFLICT (id) DO UPDATE SET seen_until = excluded.seen_until), \
                 gone AS (DELETE FROM engines WHERE seen_until < clock_timestamp() - interval '1 minute' AND id <> $1) \
                 UPDATE shard_head h SET lease_until = clock_timestamp() + $4::bigint * interval '1 millisecond' \
                 FROM unnest($2::int[], $3::bigint[]) AS i(shard, epoch) \
                 WHERE h.shard = i.shard AND h.epoch = i.epoch AND h.lease_owner = $1 RETURNING h.shard",
            )
            .bind(owner.id)
            .bind(shards)
            .bind(epochs)
            .bind(lease_ms())
            .bind(&owner.name)
            .bind(i64::try_from(RUNNING.as_millis()).expect("seconds"))
            .fetch_all(&self.pool),
        )
        .await?;
        Ok(rows.iter().map(read_shard).collect::<Result<_, _>>()?)
    }

    async fn release(&self, owner: &Owner, held: &[(u32, u64)]) -> Result<(), JournalError> {
        let (shards, epochs) = columns(held);
        bounded(
            sqlx::query(
                "UPDATE shard_head h SET lease_until = '-infinity', lease_owner = NULL, lease_name = NULL \
                 FROM unnest($2::int[], $3::bigint[]) AS i(shard, epoch) \
                 WHERE h.shard = i.shard AND h.epoch = i.epoch AND h.lease_owner = $1",
            )
            .bind(owner.id)
            .bind(shards)
            .bind(epochs)
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    async fn retire(&self, owner: &Owner) -> Result<(), JournalError> {
        bounded(
            sqlx::query("DELETE FROM engines WHERE id = $1")
                .bind(owner.id)
                .execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    async fn commit(&self, batches: &[Batch], dead: &[DeadLetter]) -> Result<Vec<Verdict>, JournalError> {
        if !dead.is_empty() {
            self.bury(dead).await?;
        }
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        let shards: Vec<i32> = batches.iter().map(|batch| signed(batch.shard)).collect();
        let epochs: Vec<i64> = batches.iter().map(|batch| big(batch.epoch)).collect();
        let before: Vec<i64> = batches.iter().map(|batch| big(batch.sequence_before)).collect();
        let last: Vec<i64> = batches.iter().map(|batch| big(batch.sequence)).collect();
        let ids: Vec<Uuid> = batches.iter().map(|batch| batch.id).collect();
        let bodies: Vec<&[u8]> = batches.iter().map(|batch| batch.body.as_ref()).collect();
        let hashes: Vec<Vec<u8>> = batches
            .iter()
            .map(|batch| batch.state_hash.to_be_bytes().to_vec())
            .collect();
        let chains: Vec<&[u8]> = batches.iter().map(|batch| batch.chain.as_slice()).collect();
        // One statement is one transaction and one round trip; a fenced shard does not hold back the others.
        let mut arguments = PgArguments::default();
        // All at once: a buffer that doubles until the bodies fit has the kernel clear new pages in every round.
        let bytes = batches.iter().map(|batch| batch.body.len() + BYTES_BESIDE_BODY).sum();
        arguments.reserve(ARGUMENTS, bytes);
        let committed = bounded(
            sqlx::query_with(
                "WITH head AS ( \
                   UPDATE shard_head h SET seq = i.last, batch = i.batch, chain = i.chain \
                   FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::bytea[], $7::bytea[], $8::bytea[]) \
                   AS i(shard, epoch, before, last, batch, body, state_hash, chain) \
                   WHERE h.shard = i.shard AND h.epoch = i.epoch AND h.seq = i.before RETURNING i.*) \
                 INSERT INTO journal (shard, first_seq, last_seq, epoch, batch, body, state_hash, chain) \
                 SELECT shard, before + 1, last, epoch, batch, body, state_hash, chain FROM head RETURNING shard",
                arguments,
            )
            .bind(&shards)
            .bind(epochs)
            .bind(before)
            .bind(last)
            .bind(ids)
            .bind(bodies)
            .bind(hashes)
            .bind(chains)
            .fetch_all(&self.pool),
        )
        .await?;
        let committed: Vec<u32> = committed.iter().map(read_shard).collect::<Result<_, _>>()?;
        Ok(batches
            .iter()
            .map(|batch| {
                if committed.contains(&batch.shard) {
                    Verdict::Committed
                } else {
                    Verdict::Fenced
                }
            })
            .collect())
    }

    async fn note_panic(&self, shard: u32, digest: &[u8; 32], epoch: u64, said: &str) -> Result<(), JournalError> {
        bounded(
            sqlx::query(
                "INSERT INTO panics (shard, digest, epoch, said) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            )
            .bind(signed(shard))
            .bind(digest.as_slice())
            .bind(big(epoch))
            // Postgres keeps no NUL in a text.
            .bind(said.replace('\0', "\u{fffd}"))
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    async fn poison(&self, shard: u32) -> Result<Vec<[u8; 32]>, JournalError> {
        let rows = bounded(
            sqlx::query(
                "SELECT digest FROM panics WHERE shard = $1 \
                 AND at > clock_timestamp() - $2::bigint * interval '1 millisecond' GROUP BY digest HAVING count(*) >= $3",
            )
            .bind(signed(shard))
            .bind(i64::try_from(POISON_FOR.as_millis()).expect("an hour"))
            .bind(i64::from(ENDED_MAX))
            .fetch_all(&self.pool),
        )
        .await?;
        let read = |row: &PgRow| Ok(digest(&row.try_get::<Vec<u8>, _>(0)?));
        Ok(rows.iter().map(read).collect::<Result<_, sqlx::Error>>()?)
    }

    async fn settle(&self, batch: &Batch) -> Result<Option<Verdict>, JournalError> {
        // The row lock waits for a transaction of ours that the server may still be carrying out; a plain read would not see it.
        let row = bounded(
            sqlx::query("SELECT epoch, seq, batch FROM shard_head WHERE shard = $1 FOR UPDATE")
                .bind(signed(batch.shard))
                .fetch_one(&self.pool),
        )
        .await?;
        let (epoch, sequence): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let last: Option<Uuid> = row.try_get(2)?;
        if last == Some(batch.id) {
            return Ok(Some(Verdict::Committed));
        }
        let unchanged = epoch == big(batch.epoch) && sequence == big(batch.sequence_before);
        Ok(if unchanged { None } else { Some(Verdict::Fenced) })
    }

    async fn still_leads(&self, held: &[(u32, u64)]) -> Result<Vec<u32>, JournalError> {
        let (shards, epochs) = columns(held);
        let rows = bounded(
            sqlx::query(
                "SELECT h.shard FROM shard_head h JOIN unnest($1::int[], $2::bigint[]) AS i(shard, epoch) \
                 ON h.shard = i.shard AND h.epoch = i.epoch",
            )
            .bind(shards)
            .bind(epochs)
            .fetch_all(&self.pool),
        )
        .await?;
        Ok(rows.iter().map(read_shard).collect::<Result<_, _>>()?)
    }

    async fn rows(&self, shard: u32, after: u64, limit: u32) -> Result<Vec<Row>, JournalError> {
        let rows = bounded(
            sqlx::query(
                "SELECT first_seq, last_seq, body, state_hash, chain FROM journal \
                 WHERE shard = $1 AND last_seq > $2 ORDER BY last_seq LIMIT $3",
            )
            .bind(signed(shard))
            .bind(big(after))
            .bind(i64::from(limit))
            .fetch_all(&self.pool),
        )
        .await?;
        let read = |row: &PgRow| -> Result<Row, sqlx::Error> {
            Ok(Row {
                first: natural(row.try_get(0)?),
                last: natural(row.try_get(1)?),
                body: Bytes::from(row.try_get::<Vec<u8>, _>(2)?),
                state_hash: hash(&row.try_get::<Vec<u8>, _>(3)?),
                chain: digest(&row.try_get::<Vec<u8>, _>(4)?),
            })
        };
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    async fn snapshots(&self, shard: u32) -> Result<Vec<SnapshotHead>, JournalError> {
        snapshots::heads(&self.pool, shard).await
    }

    async fn chunk(&self, shard: u32, sequence: u64, n: u32) -> Result<Option<(Bytes, [u8; 32])>, JournalError> {
        snapshots::chunk(&self.pool, shard, sequence, n).await
    }

    async fn write_snapshot(&self, shard: u32, head: &SnapshotHead, chunks: &[Bytes]) -> Result<(), JournalError> {
        snapshots::write(&self.pool, shard, head, chunks).await
    }

    async fn prune(&self, shard: u32, up_to: u64, older_than: Duration) -> Result<u64, JournalError> {
        // Times need not rise with sequences, because the clock may have been set: the first row that stays ends it.
        let dropped = bounded(
            sqlx::query(
                "WITH oldest AS ( \
                   SELECT first_seq, last_seq <= least($2, coalesce((SELECT seq FROM recorder_cursor WHERE shard = $1), 0)) \
                     AND committed_at < clock_timestamp() - $3::bigint * interval '1 millisecond' AS due \
                   FROM journal WHERE shard = $1 ORDER BY first_seq LIMIT $4) \
                 DELETE FROM journal WHERE shard = $1 AND first_seq IN (SELECT first_seq FROM oldest) \
                 AND first_seq < coalesce((SELECT min(first_seq) FROM oldest WHERE due IS NOT TRUE), 9223372036854775807)",
            )
            .bind(signed(shard))
            .bind(big(up_to))
            .bind(i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX))
            .bind(PRUNED_MAX)
            .execute(&self.pool),
        )
        .await?;
        Ok(dropped.rows_affected())
    }
}

fn read_head(row: &PgRow) -> Result<Head, sqlx::Error> {
    Ok(Head {
        shard: u32::try_from(row.try_get::<i32, _>(0)?).unwrap_or(0),
        epoch: natural(row.try_get(1)?),
        sequence: natural(row.try_get(2)?),
        chain: digest(&row.try_get::<Vec<u8>, _>(3)?),
        leased: row.try_get(4)?,
        wanted: row.try_get(5)?,
    })
}

fn read_shard(row: &PgRow) -> Result<u32, sqlx::Error> {
    Ok(u32::try_from(row.try_get::<i32, _>(0)?).unwrap_or(0))
}

fn columns(held: &[(u32, u64)]) -> (Vec<i32>, Vec<i64>) {
    held.iter().map(|(shard, epoch)| (signed(*shard), big(*epoch))).unzip()
}

fn lease_ms() -> i64 {
    i64::try_from(LEASE.as_millis()).expect("a few seconds")
}

fn signed(number: u32) -> i32 {
    i32::try_from(number).expect("shards and chunks are few")
}

fn big(number: u64) -> i64 {
    i64::try_from(number).expect("a sequence stays below 2^63")
}

fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn hash(bytes: &[u8]) -> u128 {
    bytes.try_into().map(u128::from_be_bytes).unwrap_or(0)
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap_or([0; 32])
}
