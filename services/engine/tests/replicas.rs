//! What a replica is made of: rows of the journal, and those that a leader of the same process hands over; both must say the same.
//! And what a snapshot in the making holds up: nothing but its own shard's replica, a chunk at a time, and not even that once a leader
//! wants it. On one thread, so that whoever does not let go shows.

use std::time::Duration;

use bench::inside::journal::MemoryJournal;
use bench::inside::large::{Content, Large};
use bytes::Bytes;
use contracts::bus::{JournalBatch, JournalEntry};
use engine::Snapshots;
use engine::follow::{Replicas, follow};
use engine::journal::{Row, chain};
use engine::shard::Corrupt;
use engine::window::Limits;
use prost::Message as _;
use tokio::task::JoinHandle;

/// Open trades: some chunks' worth.
const TRADES: usize = 8_000;

/// A journal with a large state, a follower of it that has written its first snapshot, and a row that makes the next one due.
async fn due() -> (MemoryJournal, Replicas, JoinHandle<()>, u64) {
    let journal = MemoryJournal::new(1);
    let mut entries = Vec::new();
    let mut live = Large::build(TRADES, Content::Trades, |more, _| entries.extend(more));
    journal.append(entries, live.shard.hash());
    let snapshots = Snapshots {
        every: Duration::from_secs(3_600),
        every_entries: 1,
        journal_kept: None,
    };
    let replicas = Replicas::default();
    let following = follow(journal.clone(), replicas.clone(), snapshots, Limits::default());
    let following = tokio::spawn(async move {
        let Err(cause) = following.await;
        panic!("{cause}");
    });
    while journal.written().is_empty() || is_held(&replicas).await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    journal.append(live.step().into_iter().collect(), live.shard.hash());
    (journal, replicas, following, live.shard.sequence())
}

/// A journal, the shard that wrote it, and a follower that has all of it.
async fn followed() -> (MemoryJournal, Large, Replicas, JoinHandle<Corrupt>) {
    let journal = MemoryJournal::new(1);
    let mut entries = Vec::new();
    let live = Large::build(100, Content::Trades, |more, _| entries.extend(more));
    journal.append(entries, live.shard.hash());
    let replicas = Replicas::default();
    let following = follow(
        journal.clone(),
        replicas.clone(),
        Snapshots::default(),
        Limits::default(),
    );
    let following = tokio::spawn(async move {
        let Err(cause) = following.await;
        cause
    });
    stands_at(&replicas, live.shard.sequence()).await;
    (journal, live, replicas, following)
}

async fn stands_at(replicas: &Replicas, sequence: u64) {
    while replicas.sequences().await.get(&0) != Some(&sequence) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One more entry of the live shard and the row that it makes after another.
fn next(live: &mut Large, before: [u8; 32]) -> (Vec<JournalEntry>, Row) {
    let entries: Vec<JournalEntry> = live.step().into_iter().collect();
    let batch = JournalBatch {
        entries: entries.clone(),
        price_cursor: "1-0".to_owned(),
    };
    let (last, state_hash, body) = (
        live.shard.sequence(),
        live.shard.hash(),
        Bytes::from(batch.encode_to_vec()),
    );
    let row = Row {
        first: last,
        last,
        chain: chain(&before, last, state_hash, &body),
        state_hash,
        body,
    };
    (entries, row)
}

#[tokio::test]
async fn what_a_leader_hands_over_is_not_read_back_and_what_is_missing_is() {
    let (journal, mut live, replicas, following) = followed().await;
    let (entries, row) = next(&mut live, journal.chained());
    replicas.committed(0, row.clone());
    // The journal does not have it, so it can only have come from us.
    stands_at(&replicas, row.last).await;
    journal.append(entries, row.state_hash);

    let (missing, between) = next(&mut live, row.chain);
    let (entries, row) = next(&mut live, between.chain);
    replicas.committed(0, row.clone());
    journal.append(missing, between.state_hash);
    journal.append(entries, row.state_hash);
    stands_at(&replicas, row.last).await;
    assert!(!following.is_finished());
    following.abort();
}

#[tokio::test]
async fn a_journal_that_holds_something_else_than_was_handed_over_is_corrupt() {
    let (journal, mut live, replicas, following) = followed().await;
    let (entries, row) = next(&mut live, journal.chained());
    replicas.committed(0, row.clone());
    stands_at(&replicas, row.last).await;
    journal.append(entries, row.state_hash ^ 1);
    let cause = following.await.expect("it ends by itself");
    assert!(
        matches!(cause, Corrupt::Digest { sequence, .. } if sequence == row.last),
        "{cause}"
    );
}

/// Whether somebody works on the replica now.
async fn is_held(replicas: &Replicas) -> bool {
    replicas.sequences().await.is_empty()
}

#[tokio::test]
async fn others_go_on_between_the_chunks_of_a_snapshot() {
    let (journal, replicas, following, _) = due().await;
    let before = journal.written().len();
    while !is_held(&replicas).await {
        tokio::task::yield_now().await;
    }
    let mut turns = 0;
    while journal.written().len() == before {
        assert!(!following.is_finished());
        turns += 1;
        tokio::task::yield_now().await;
    }
    let chunks = journal.chunks();
    assert!(chunks >= 4, "{chunks} chunks are no large state");
    assert!(turns >= chunks, "{turns} turns while {chunks} chunks were made");
    following.abort();
}

#[tokio::test]
async fn a_leader_gets_its_replica_from_under_a_snapshot() {
    let (journal, replicas, following, sequence) = due().await;
    let before = journal.written().len();
    while !is_held(&replicas).await {
        tokio::task::yield_now().await;
    }
    let replica = replicas.take(0).await.expect("it is there");
    assert_eq!(replica.shard.sequence(), sequence);
    assert_eq!(journal.written().len(), before, "the snapshot was given up");

    // The follower makes itself another one.
    while is_held(&replicas).await {
        assert!(!following.is_finished());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(replicas.sequences().await.get(&0), Some(&sequence));
    following.abort();
}
