//! What a snapshot in the making holds up: nothing but its own shard's replica, a chunk at a time, and not even that once a leader
//! wants it. On one thread, so that whoever does not let go shows.

use std::time::Duration;

use bench::inside::journal::MemoryJournal;
use bench::inside::large::{Content, Large};
use engine::Snapshots;
use engine::follow::{Replicas, follow};
use engine::window::Limits;
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
