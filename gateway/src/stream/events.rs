//! Committed journal entries for whoever watches an account: one reader for the process, a bounded queue a subscriber.
//!
//! The reader's sequences have no gaps, or it is noticed: what Redis lost is read from the journal. A subscriber whose
//! queue is full is dropped from the list; it finds its queue ended, tells its client where to resume, and nobody else
//! has waited for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bus::{EventReader, EventRow};
use contracts::bus::JournalEntry;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::watch;

use super::wire;
use crate::history::History;

/// Most entries that are fetched from the journal for subscribers when the stream has a gap; past it they get a `GAP`.
const REPAIR_MAX: u64 = 10_000;
/// How long a new stream waits for the first contact.
const CONTACT_PATIENCE: Duration = Duration::from_secs(2);
/// How long one read of the journal may take: the other shards wait for it.
const REPAIR_PATIENCE: Duration = Duration::from_secs(2);

/// Who watches what, and how far each shard was handed out.
pub(crate) struct EventHub {
    shards: Vec<Watched>,
    next_id: AtomicU64,
    queue_max: usize,
    /// Reads that ended since there is contact, with something or without.
    reads: watch::Sender<u64>,
    /// How many watch, or are about to.
    interested: watch::Sender<usize>,
}

/// One shard.
struct Watched {
    accounts: Mutex<HashMap<String, Vec<Slot>>>,
    /// Last sequence handed out; [`UNKNOWN`] before the first contact.
    position: AtomicU64,
}

const UNKNOWN: u64 = u64::MAX;

struct Slot {
    id: u64,
    queue: mpsc::Sender<Arc<JournalEntry>>,
}

impl EventHub {
    /// A hub without subscribers.
    pub fn new(shards: u32, queue_max: usize) -> Self {
        let shards = (0..shards).map(|_| Watched {
            accounts: Mutex::default(),
            position: AtomicU64::new(UNKNOWN),
        });
        Self {
            shards: shards.collect(),
            next_id: AtomicU64::new(0),
            queue_max: queue_max.max(1),
            reads: watch::Sender::new(0),
            interested: watch::Sender::new(0),
        }
    }

    /// Waits for contact with a shard's stream, or until it is seen that Redis is away; until what is returned is dropped the contact
    /// stays. Who subscribes before it is told of a gap when it comes, because nobody knows what was published until then.
    pub async fn met(self: &Arc<Self>, shard: u32) -> Interest {
        let interest = self.interest();
        let mut reads = self.reads.subscribe();
        let met = reads.wait_for(|reads| *reads > 0 || self.of(shard).known().is_some());
        let _after_all_the_same = tokio::time::timeout(CONTACT_PATIENCE, met).await;
        interest
    }

    fn interest(self: &Arc<Self>) -> Interest {
        self.interested.send_modify(|count| *count += 1);
        Interest(Arc::clone(self))
    }

    /// Loses contact if nobody watches, or is about to; true when so.
    fn rests(&self) -> bool {
        let mut rests = false;
        // Under its lock: who is interested from now on waits for the next contact.
        self.interested.send_if_modified(|count| {
            rests = *count == 0;
            if rests {
                self.shards.iter().for_each(|shard| shard.moved(UNKNOWN));
                self.reads.send_replace(0);
            }
            false
        });
        rests
    }

    /// Watches one account. Every entry handed out from now on reaches the queue, or the queue ends.
    pub fn subscribe(self: &Arc<Self>, shard: u32, account_id: &str) -> Subscription {
        let (sender, queue) = mpsc::channel(self.queue_max);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let slot = Slot { id, queue: sender };
        self.of(shard)
            .lock()
            .entry(account_id.to_owned())
            .or_default()
            .push(slot);
        Subscription {
            queue,
            hub: Arc::clone(self),
            shard,
            account_id: account_id.to_owned(),
            id,
            _interest: self.interest(),
        }
    }

    /// Up to where everything of a shard has been handed out; 0 when nothing is known.
    pub fn position(&self, shard: u32) -> u64 {
        self.of(shard).known().unwrap_or(0)
    }

    fn of(&self, shard: u32) -> &Watched {
        self.shards.get(shard as usize).expect("a shard of this deployment")
    }
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Slot>>> {
        self.accounts.lock().expect("nothing panics while it holds this lock")
    }

    fn known(&self) -> Option<u64> {
        Some(self.position.load(Ordering::Acquire)).filter(|it| *it != UNKNOWN)
    }

    fn moved(&self, sequence: u64) {
        self.position.store(sequence, Ordering::Release);
    }

    /// Moves the position past what nobody watches; false when somebody does.
    fn pass(&self, sequence: u64) -> bool {
        // Under the lock: whoever comes after it reads, from the engine or the journal, what was passed.
        let accounts = self.lock();
        if accounts.is_empty() {
            self.moved(sequence);
        }
        accounts.is_empty()
    }

    /// Hands out one entry and moves the position, in this order: a position says that all up to it is in the queues.
    fn hand_out(&self, entry: JournalEntry) {
        let sequence = entry.sequence;
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
        self.moved(sequence);
    }

    /// Ends all queues: nobody knows what was missed.
    fn break_off(&self) {
        self.lock().clear();
    }
}

/// One who watches an account.
pub(crate) struct Subscription {
    queue: mpsc::Receiver<Arc<JournalEntry>>,
    hub: Arc<EventHub>,
    shard: u32,
    account_id: String,
    id: u64,
    _interest: Interest,
}

/// As long as it is there the streams are read.
pub(crate) struct Interest(Arc<EventHub>);

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.interested.send_modify(|count| *count -= 1);
    }
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
        let mut accounts = self.hub.of(self.shard).lock();
        if let Some(slots) = accounts.get_mut(&self.account_id) {
            slots.retain(|slot| slot.id != self.id);
            if slots.is_empty() {
                accounts.remove(&self.account_id);
            }
        }
    }
}

/// What to do with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is next.
    HandOut,
    /// It was handed out before.
    Skip,
    /// Something is missing after this sequence.
    Repair { after: u64 },
}

fn step(position: Option<u64>, first: u64, last: u64) -> Step {
    match position {
        None => Step::HandOut,
        Some(position) if last <= position => Step::Skip,
        Some(position) if first <= position + 1 => Step::HandOut,
        // The stream was empty when we came: what is missing is recent, or nobody here has waited for it.
        Some(0) => Step::Repair {
            after: first.saturating_sub(REPAIR_MAX),
        },
        Some(position) => Step::Repair { after: position },
    }
}

/// Follows the event streams while somebody watches: read for nobody they cost a gateway, and Redis, as much as the replies do.
pub(crate) async fn follow(hub: Arc<EventHub>, reader: impl Fn() -> EventReader, history: History) {
    let mut interested = hub.interested.subscribe();
    while interested.wait_for(|count| *count > 0).await.is_ok() {
        let mut reader = reader();
        while !hub.rests() {
            read_on(&hub, &mut reader, &history).await;
        }
    }
}

async fn read_on(hub: &EventHub, reader: &mut EventReader, history: &History) {
    let read = reader.next().await;
    for (shard, found) in hub.shards.iter().zip(reader.positions()) {
        if shard.known().is_none() && found.is_some() {
            shard.break_off();
        }
    }
    for read in read {
        for row in &read.rows {
            take(hub, history, read.shard, row).await;
        }
    }
    for (shard, found) in hub.shards.iter().zip(reader.positions()) {
        if let (None, Some(found)) = (shard.known(), found) {
            shard.moved(*found);
        }
    }
    hub.reads.send_modify(|reads| *reads += 1);
}

/// Hands out a row, and before it what Redis lost.
async fn take(hub: &EventHub, history: &History, shard: u32, row: &EventRow) {
    let watched = hub.of(shard);
    let next = step(watched.known(), row.first, row.last);
    if next == Step::Skip || watched.pass(row.last) {
        return;
    }
    if let Step::Repair { after } = next {
        tracing::warn!(shard, after, next = row.first, "events: a gap, read from the journal");
        repair(watched, history, shard, after, row.first).await;
    }
    let Ok(entries) = row.entries() else {
        tracing::error!(shard, sequence = row.first, "events: a row that cannot be read");
        watched.break_off();
        return watched.moved(row.last);
    };
    let told = watched.known();
    for entry in entries {
        if told.is_none_or(|told| entry.sequence > told) {
            watched.hand_out(entry);
        }
    }
}

/// Hands out what lies between two sequences, from the journal; or ends the queues that would have needed it.
async fn repair(watched: &Watched, history: &History, shard: u32, mut after: u64, next: u64) {
    if next - after > REPAIR_MAX {
        return watched.break_off();
    }
    while after + 1 < next {
        let read = tokio::time::timeout(REPAIR_PATIENCE, history.journal_after(shard, after)).await;
        let entries = match read {
            Ok(Ok(entries)) if entries.first().is_some_and(|first| first.sequence == after + 1) => entries,
            // Not there, or no longer, or not in time.
            Ok(Ok(_) | Err(_)) | Err(_) => return watched.break_off(),
        };
        for entry in entries.into_iter().filter(|entry| entry.sequence < next) {
            after = entry.sequence;
            watched.hand_out(entry);
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
        assert_eq!(step(None, 7, 9), Step::HandOut);
        assert_eq!(step(Some(6), 7, 9), Step::HandOut);
        assert_eq!(step(Some(8), 7, 9), Step::HandOut, "the rest of it is new");
        assert_eq!(step(Some(9), 7, 9), Step::Skip);
        assert_eq!(step(Some(12), 7, 9), Step::Skip);
        assert_eq!(step(Some(3), 7, 9), Step::Repair { after: 3 });
        assert_eq!(step(Some(0), 7, 9), Step::Repair { after: 0 });
        assert_eq!(step(Some(0), 1_000_000, 1_000_001), Step::Repair { after: 990_000 });
    }

    #[tokio::test]
    async fn each_subscriber_gets_its_account_and_a_slow_one_loses_only_its_own_place() {
        let hub = Arc::new(EventHub::new(2, 2));
        let mut alice = hub.subscribe(0, "alice");
        let mut slow = hub.subscribe(0, "alice");
        let mut bob = hub.subscribe(0, "bob");
        for (sequence, account) in [(1, "alice"), (2, "bob"), (3, "alice")] {
            hub.of(0).hand_out(deposit(sequence, account));
        }
        assert_eq!(alice.next().await.unwrap().sequence, 1);
        assert_eq!(alice.next().await.unwrap().sequence, 3);
        hub.of(0).hand_out(deposit(4, "alice"));
        assert_eq!(alice.next().await.unwrap().sequence, 4);
        assert_eq!(bob.next().await.unwrap().sequence, 2);
        // The slow one had room for two: it gets these, and then hears that it lost its place.
        assert_eq!(slow.next().await.unwrap().sequence, 1);
        assert_eq!(slow.next().await.unwrap().sequence, 3);
        assert!(slow.next().await.is_none());
        assert_eq!((hub.position(0), hub.position(1)), (4, 0));
    }

    #[tokio::test]
    async fn what_nobody_watches_is_passed_and_what_somebody_does_is_not() {
        let hub = Arc::new(EventHub::new(2, 8));
        assert!(hub.of(0).pass(7));
        assert_eq!(hub.position(0), 7);
        let _elsewhere = hub.subscribe(1, "bob");
        assert!(hub.of(0).pass(8), "bob lives in another shard");
        let _here = hub.subscribe(0, "alice");
        assert!(!hub.of(0).pass(9));
        assert_eq!(hub.position(0), 8, "it is to be handed out first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_for_the_first_contact_but_not_for_ever() {
        let hub = Arc::new(EventHub::new(1, 8));
        let begun = tokio::time::Instant::now();
        drop(hub.met(0).await);
        assert_eq!(begun.elapsed(), CONTACT_PATIENCE, "nobody follows");
        let waiting = tokio::spawn({
            let hub = Arc::clone(&hub);
            async move { drop(hub.met(0).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        hub.reads.send_modify(|reads| *reads += 1);
        waiting.await.unwrap();
        assert_eq!(begun.elapsed(), CONTACT_PATIENCE, "no time passed");
    }

    #[tokio::test]
    async fn contact_is_kept_while_somebody_watches_or_is_about_to_and_lost_when_nobody_does() {
        let hub = Arc::new(EventHub::new(1, 8));
        hub.of(0).moved(7);
        let about_to = hub.met(0).await;
        assert!(!hub.rests());
        let watches = hub.subscribe(0, "alice");
        drop(about_to);
        assert!(!hub.rests());
        assert_eq!(hub.position(0), 7);
        drop(watches);
        assert!(hub.rests());
        assert_eq!(hub.of(0).known(), None, "what is published from now on is not seen");
    }

    #[tokio::test]
    async fn a_shard_that_lost_its_tail_ends_the_queues_of_its_subscribers_alone() {
        let hub = Arc::new(EventHub::new(2, 8));
        let (mut here, mut there) = (hub.subscribe(0, "alice"), hub.subscribe(1, "bob"));
        hub.of(0).break_off();
        assert!(here.next().await.is_none());
        hub.of(1).hand_out(deposit(1, "bob"));
        assert_eq!(there.next().await.unwrap().sequence, 1);
        drop((here, there));
        assert!(
            hub.shards.iter().all(|shard| shard.lock().is_empty()),
            "nothing is kept of those who left"
        );
    }
}
