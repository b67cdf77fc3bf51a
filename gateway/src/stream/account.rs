//! One client's stream of account events: a snapshot or a replay, then each change, with heartbeats between.
//!
//! It subscribes first, to a stream that somebody reads, and reads the state after, so nothing falls between the two; what
//! comes twice is recognised by its sequence.

use std::sync::Arc;
use std::time::Duration;

use bus::Calls;
use contracts::bus::request::Command;
use contracts::bus::{AccountSnapshotRequest, JournalEntry};
use contracts::v1::stream_account_events_response::Event;
use contracts::v1::{
    AccountSnapshot, GapEvent, HeartbeatEvent, StreamAccountEventsRequest, StreamAccountEventsResponse,
};
use tokio::time::Instant;

use super::events::Subscription;
use super::{Ended, Gone, Messages, Out, now_us, wire};
use crate::failure::Failure;
use crate::room::{Call, Room};
use crate::wire::time;

/// Starts the stream.
pub(crate) fn open<C: Calls>(
    room: Arc<Room<C>>,
    call: Call,
    it: StreamAccountEventsRequest,
    heartbeat: Duration,
) -> Result<Messages<StreamAccountEventsResponse>, Failure> {
    let principal = call.identity.principal.clone();
    super::start(
        &Arc::clone(&room),
        principal,
        "StreamAccountEvents",
        move |out| async move {
            let shard = room.shard(&it.account_id);
            let met = room.events.met(shard).await;
            let subscription = room.events.subscribe(shard, &it.account_id);
            drop(met);
            let mut watcher = Watcher {
                shard,
                account_id: it.account_id,
                last: it.resume_after_sequence,
                out,
            };
            match it.resume_after_sequence {
                0 => watcher.snapshot(&room, &call).await?,
                _ => watcher.replay(&room).await?,
            }
            watcher.follow(&room, subscription, heartbeat).await
        },
    )
}

struct Watcher {
    shard: u32,
    account_id: String,
    /// The stream is complete up to here.
    last: u64,
    out: Arc<Out<StreamAccountEventsResponse>>,
}

impl Watcher {
    async fn snapshot<C: Calls>(&mut self, room: &Room<C>, call: &Call) -> Ended {
        let command = Command::AccountSnapshot(AccountSnapshotRequest {});
        let answer = room.read::<AccountSnapshot>(call, &self.account_id, 0, command).await?;
        self.last = answer.message.as_of_sequence;
        Ok(self.say(self.last, Event::Snapshot(answer.message)).await?)
    }

    /// What the client missed, from the journal.
    async fn replay<C: Calls>(&mut self, room: &Room<C>) -> Ended {
        let head = room.history.journal_head(self.shard).await?;
        if !can_resume(self.last, head, room.streams.replay_max) {
            let why = format!("sequence {} cannot be replayed from: start with a snapshot", self.last);
            return Err(Failure::ResumePointExpired(why).into());
        }
        while self.last < head {
            let entries = room.history.journal_after(self.shard, self.last).await?;
            // The oldest rows may have been removed since.
            if entries.first().is_none_or(|first| first.sequence != self.last + 1) {
                let why = format!(
                    "the journal no longer holds what follows sequence {}: start with a snapshot",
                    self.last
                );
                return Err(Failure::ResumePointExpired(why).into());
            }
            for entry in &entries {
                self.tell(entry).await?;
            }
        }
        Ok(())
    }

    async fn follow<C: Calls>(mut self, room: &Room<C>, mut subscription: Subscription, heartbeat: Duration) -> Ended {
        let mut beat = Instant::now() + heartbeat;
        loop {
            tokio::select! {
                biased;
                entry = subscription.next() => match entry {
                    Some(entry) => {
                        self.tell(&entry).await?;
                        beat = Instant::now() + heartbeat;
                    }
                    None => {
                        room.metrics.gap();
                        return Ok(self.say(self.last, Event::Gap(GapEvent { resume_after_sequence: self.last })).await?);
                    }
                },
                () = tokio::time::sleep_until(beat) => {
                    // Read before the queue is emptied: all up to it has been queued.
                    let reached = room.events.position(self.shard);
                    while let Some(entry) = subscription.waiting() {
                        self.tell(&entry).await?;
                    }
                    self.last = self.last.max(reached);
                    self.say(self.last, Event::Heartbeat(HeartbeatEvent { last_sequence: self.last })).await?;
                    beat = Instant::now() + heartbeat;
                }
            }
        }
    }

    async fn tell(&mut self, entry: &JournalEntry) -> Result<(), Gone> {
        if entry.sequence <= self.last {
            return Ok(());
        }
        for message in wire::public(self.shard, &self.account_id, entry) {
            self.out.send(message).await?;
        }
        self.last = entry.sequence;
        Ok(())
    }

    async fn say(&self, sequence: u64, event: Event) -> Result<(), Gone> {
        let event_time = Some(time(now_us()));
        self.out
            .send(StreamAccountEventsResponse {
                sequence,
                event_time,
                event: Some(event),
                ..Default::default()
            })
            .await
    }
}

/// Whether a journal with this head can be replayed after `last`: not from the future, and not from too long ago.
fn can_resume(last: u64, head: u64, replay_max: u64) -> bool {
    head.checked_sub(last).is_some_and(|missed| missed <= replay_max)
}

#[cfg(test)]
mod tests {
    use super::can_resume;

    #[test]
    fn a_resume_point_is_neither_ahead_nor_too_far_behind() {
        assert!(can_resume(10, 10, 5));
        assert!(can_resume(5, 10, 5));
        assert!(!can_resume(4, 10, 5));
        assert!(!can_resume(11, 10, 5));
    }
}
