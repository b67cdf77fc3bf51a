//! Snapshots in Postgres: chunks, and a head that says that all of them are there.

use bytes::Bytes;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row as _};

use super::{big, bounded, digest, hash, natural, signed};
use crate::journal::{JournalError, SNAPSHOTS_KEPT, SnapshotHead};

/// The heads of a shard's snapshots, newest first.
pub(super) async fn heads(pool: &PgPool, shard: u32) -> Result<Vec<SnapshotHead>, JournalError> {
    let rows = bounded(
        sqlx::query("SELECT seq, state_hash, chain, chunks FROM snapshot_head WHERE shard = $1 ORDER BY seq DESC")
            .bind(signed(shard))
            .fetch_all(pool),
    )
    .await?;
    let read = |row: &PgRow| -> Result<SnapshotHead, sqlx::Error> {
        Ok(SnapshotHead {
            sequence: natural(row.try_get(0)?),
            state_hash: hash(&row.try_get::<Vec<u8>, _>(1)?),
            chain: digest(&row.try_get::<Vec<u8>, _>(2)?),
            chunks: u32::try_from(row.try_get::<i32, _>(3)?).unwrap_or(0),
        })
    };
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

/// One chunk and its digest.
pub(super) async fn chunk(
    pool: &PgPool,
    shard: u32,
    sequence: u64,
    n: u32,
) -> Result<Option<(Bytes, [u8; 32])>, JournalError> {
    let row = bounded(
        sqlx::query("SELECT body, digest FROM snapshot_chunk WHERE shard = $1 AND seq = $2 AND n = $3")
            .bind(signed(shard))
            .bind(big(sequence))
            .bind(signed(n))
            .fetch_optional(pool),
    )
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some((
        Bytes::from(row.try_get::<Vec<u8>, _>(0)?),
        digest(&row.try_get::<Vec<u8>, _>(1)?),
    )))
}

/// Writes one whole, and drops those past the number that is kept.
pub(super) async fn write(
    pool: &PgPool,
    shard: u32,
    head: &SnapshotHead,
    chunks: &[Bytes],
) -> Result<(), JournalError> {
    for (n, body) in chunks.iter().enumerate() {
        bounded(
            sqlx::query(
                "INSERT INTO snapshot_chunk (shard, seq, n, body, digest) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            )
            .bind(signed(shard))
            .bind(big(head.sequence))
            .bind(i32::try_from(n).expect("few chunks"))
            .bind(body.as_ref())
            .bind(blake3::hash(body).as_bytes().as_slice())
            .execute(pool),
        )
        .await?;
    }
    bounded(
        sqlx::query(
            "INSERT INTO snapshot_head (shard, seq, state_hash, chain, chunks) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        )
        .bind(signed(shard))
        .bind(big(head.sequence))
        .bind(head.state_hash.to_be_bytes().as_slice())
        .bind(head.chain.as_slice())
        .bind(signed(head.chunks))
        .execute(pool),
    )
    .await?;
    // Heads go first, so that a head always means a whole snapshot; then the chunks that no head names and no writer is at.
    bounded(
        sqlx::query(
            "DELETE FROM snapshot_head WHERE shard = $1 AND seq NOT IN \
             (SELECT seq FROM snapshot_head WHERE shard = $1 ORDER BY seq DESC LIMIT $2)",
        )
        .bind(signed(shard))
        .bind(SNAPSHOTS_KEPT)
        .execute(pool),
    )
    .await?;
    bounded(
        sqlx::query(
            "DELETE FROM snapshot_chunk WHERE shard = $1 AND seq < (SELECT min(seq) FROM snapshot_head WHERE shard = $1)",
        )
        .bind(signed(shard))
        .execute(pool),
    )
    .await?;
    Ok(())
}
