//! Committed journal entries for whoever watches an account: one reader for the process, a bounded queue a subscriber.
//!
//! The reader's sequences have no gaps, or it is noticed: what Redis lost is read from the journal. A subscriber whose
//! queue is full is dropped from the list; it finds its queue ended, tells its client where to resume, and nobody else
//! has waited for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bus::EventReader;
use contracts::bus::JournalEntry;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::wire;
use crate::history::History;

/// Most entries that are fetched from the journal for subscribers when the stream has a gap; past it they get a `GAP`.
const REPAIR_MAX: u64 = 10_000;
/// How long one read of the journal may take: the other shards wait for it.
const REPAIR_PATIENCE: Duration = Duration::from_secs(2);

/// Who watches what, and how far each shard was handed out.
pub(crate) struct EventHub {
    accounts: Mutex<HashMap<String, Vec<Slot>>>,
    /// Last sequence handed out of each shard; [`UNKNOWN`] before the first contact.
    positions: Vec<AtomicU64>,
    next_id: AtomicU64,
    queue_max: usize,
}

const UNKNOWN: u64 = u64::MAX;

struct Slot {
    id: u64,
    shard: u32,
    queue: mpsc::Sender<Arc<JournalEntry>>,
}

impl EventHub {
    /// A hub without subscribers.
    pub fn new(shards: u32, queue_max: usize) -> Self {
        let positions = (0..shards).map(|_| AtomicU64::new(UNKNOWN)).collect();
        Self {
            accounts: Mutex::default(),
            positions,
            next_id: AtomicU64::new(0),
            queue_max: queue_max.max(1),
        }
    }

    /// Watches one account. Every entry handed out from now on reaches the queue, or the queue ends.
    pub fn subscribe(self: &Arc<Self>, shard: u32, account_id: &str) -> Subscription {
        let (sender, queue) = mpsc::channel(self.queue_max);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.lock().entry(account_id.to_owned()).or_default().push(Slot {
            id,
            shard,
            queue: sender,
        });
        Subscription {
            queue,
            hub: Arc::clone(self),
            account_id: account_id.to_owned(),
            id,
        }
    }

    /// Up to where everything of a shard has been handed out; 0 when nothing is known.
    pub fn position(&self, shard: u32) -> u64 {
        self.known(shard).unwrap_or(0)
    }

    fn known(&self, shard: u32) -> Option<u64> {
        self.positions
            .get(shard as usize)
            .map(|it| it.load(Ordering::Acquire))
            .filter(|it| *it != UNKNOWN)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Slot>>> {
        self.accounts.lock().expect("nothing panics while it holds this lock")
    }

    fn is_watched(&self, shard: u32) -> bool {
        self.lock().values().flatten().any(|slot| slot.shard == shard)
    }

    /// Hands out one entry and moves the position, in this order: a position says that all up to it is in the queues.
    fn hand_out(&self, shard: u32, entry: JournalEntry) {
        let sequence = entry.sequence;
        {
            let mut accounts = self.lock();
            if !accounts.is_empty() {
                let entry = Arc::new(entry);
                for account_id in wire::accounts(&entry) {
                    let Some(slots) = accounts.get_mut(account_id) else {
                        continue;
                    };
                    slots.retain(|slot| match slot.queue.try_send(Arc::clone(&entry)) {
                        Ok(()) => true,
                        // Dropping its sender ends its queue, after what is in it.
                        Err(TrySendError::Full(_) | TrySendError::Closed(_)) => false,
                    });
                    if slots.is_empty() {
                        accounts.remove(account_id);
                    }
                }
            }
        }
        self.moved(shard, sequence);
    }

    fn moved(&self, shard: u32, sequence: u64) {
        if let Some(position) = self.positions.get(shard as usize) {
            position.store(sequence, Ordering::Release);
        }
    }

    /// Ends the queues of a shard: nobody knows what was missed.
    fn break_off(&self, shard: u32) {
        self.lock().retain(|_, slots| {
            slots.retain(|slot| slot.shard != shard);
            !slots.is_empty()
        });
    }
}

/// One who watches an account.
pub(crate) struct Subscription {
    queue: mpsc::Receiver<Arc<JournalEntry>>,
    hub: Arc<EventHub>,
    account_id: String,
    id: u64,
}

impl Subscription {
    /// The next entry; `None` when the place was lost.
    pub async fn next(&mut self) -> Option<Arc<JournalEntry>> {
        self.queue.recv().await
    }

    /// The next entry if it is there.
    pub fn waiting(&mut self) -> Option<Arc<JournalEntry>> {
        self.queue.try_recv().ok()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut accounts = self.hub.lock();
        if let Some(slots) = accounts.get_mut(&self.account_id) {
            slots.retain(|slot| slot.id != self.id);
            if slots.is_empty() {
                accounts.remove(&self.account_id);
            }
        }
    }
}

/// What to do with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is next.
    HandOut,
    /// It was handed out before.
    Skip,
    /// Something is missing after this sequence.
    Repair { after: u64 },
}

fn step(position: Option<u64>, sequence: u64) -> Step {
    match position {
        None => Step::HandOut,
        Some(position) if sequence <= position => Step::Skip,
        Some(position) if sequence == position + 1 => Step::HandOut,
        // The stream was empty when we came: what is missing is recent, or nobody here has waited for it.
        Some(0) => Step::Repair {
            after: sequence.saturating_sub(REPAIR_MAX),
        },
        Some(position) => Step::Repair { after: position },
    }
}

/// Follows the event streams for ever.
pub(crate) async fn follow(hub: Arc<EventHub>, mut reader: EventReader, history: History) {
    loop {
        for read in reader.next().await {
            for entry in read.entries {
                match step(hub.known(read.shard), entry.sequence) {
                    Step::Skip => continue,
                    Step::Repair { after } if hub.is_watched(read.shard) => {
                        tracing::warn!(
                            shard = read.shard,
                            after,
                            next = entry.sequence,
                            "events: a gap, read from the journal"
                        );
                        repair(&hub, &history, read.shard, after, entry.sequence).await;
                    }
                    Step::Repair { .. } | Step::HandOut => {}
                }
                hub.hand_out(read.shard, entry);
            }
        }
        for (shard, found) in (0..).zip(reader.positions()) {
            if let (None, Some(found)) = (hub.known(shard), found) {
                hub.moved(shard, *found);
            }
        }
    }
}

/// Hands out what lies between two sequences, from the journal; or ends the queues that would have needed it.
async fn repair(hub: &EventHub, history: &History, shard: u32, mut after: u64, next: u64) {
    if next - after > REPAIR_MAX {
        return hub.break_off(shard);
    }
    while after + 1 < next {
        let read = tokio::time::timeout(REPAIR_PATIENCE, history.journal_after(shard, after)).await;
        let entries = match read {
            Ok(Ok(entries)) if entries.first().is_some_and(|first| first.sequence == after + 1) => entries,
            // Not there, or no longer, or not in time.
            Ok(Ok(_) | Err(_)) | Err(_) => return hub.break_off(shard),
        };
        for entry in entries.into_iter().filter(|entry| entry.sequence < next) {
            after = entry.sequence;
            hub.hand_out(shard, entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::bus::{Deposited, JournalEvent, journal_event::Kind};

    fn deposit(sequence: u64, account_id: &str) -> JournalEntry {
        let kind = Kind::Deposited(Deposited {
            account_id: account_id.into(),
            ..Default::default()
        });
        JournalEntry {
            sequence,
            events: vec![JournalEvent {
                kind: Some(kind),
                lines: Vec::new(),
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_jump_is_noticed_and_a_repeat_is_passed_over() {
        assert_eq!(step(None, 7), Step::HandOut);
        assert_eq!(step(Some(6), 7), Step::HandOut);
        assert_eq!(step(Some(7), 7), Step::Skip);
        assert_eq!(step(Some(9), 7), Step::Skip);
        assert_eq!(step(Some(3), 7), Step::Repair { after: 3 });
        assert_eq!(step(Some(0), 7), Step::Repair { after: 0 });
        assert_eq!(step(Some(0), 1_000_000), Step::Repair { after: 990_000 });
    }

    #[tokio::test]
    async fn each_subscriber_gets_its_account_and_a_slow_one_loses_only_its_own_place() {
        let hub = Arc::new(EventHub::new(2, 2));
        let mut alice = hub.subscribe(0, "alice");
        let mut slow = hub.subscribe(0, "alice");
        let mut bob = hub.subscribe(0, "bob");
        for (sequence, account) in [(1, "alice"), (2, "bob"), (3, "alice")] {
            hub.hand_out(0, deposit(sequence, account));
        }
        assert_eq!(alice.next().await.unwrap().sequence, 1);
        assert_eq!(alice.next().await.unwrap().sequence, 3);
        hub.hand_out(0, deposit(4, "alice"));
        assert_eq!(alice.next().await.unwrap().sequence, 4);
        assert_eq!(bob.next().await.unwrap().sequence, 2);
        // The slow one had room for two: it gets these, and then hears that it lost its place.
        assert_eq!(slow.next().await.unwrap().sequence, 1);
        assert_eq!(slow.next().await.unwrap().sequence, 3);
        assert!(slow.next().await.is_none());
        assert_eq!((hub.position(0), hub.position(1)), (4, 0));
    }

    #[tokio::test]
    async fn a_shard_that_lost_its_tail_ends_the_queues_of_its_subscribers_alone() {
        let hub = Arc::new(EventHub::new(2, 8));
        let (mut here, mut there) = (hub.subscribe(0, "alice"), hub.subscribe(1, "bob"));
        hub.break_off(0);
        assert!(here.next().await.is_none());
        hub.hand_out(1, deposit(1, "bob"));
        assert_eq!(there.next().await.unwrap().sequence, 1);
        drop((here, there));
        assert!(hub.lock().is_empty(), "nothing is kept of those who left");
    }
}
