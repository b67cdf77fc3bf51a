//! A tape's times and update ids as those of a live venue. Pure: where the present is, the caller says once.
//!
//! One straight line maps the tape to the present, so whatever order two stamps had on the tape they have on the wire, at any speed.

use std::collections::HashMap;

use crate::playback::{Speed, VenueTime};

/// Pause between the end of a pass and the start of the next, on the tape's clock, microseconds.
pub const PASS_GAP_US: i64 = 1_000_000;

/// The mapping of one playback.
#[derive(Debug)]
pub struct Timeline {
    speed: Speed,
    venue_time: VenueTime,
    /// When playback began, the wall clock's microseconds.
    began_us: i64,
    /// The tape's first event, the tape's microseconds.
    first_us: i64,
    /// How much tape was played in earlier passes, microseconds.
    played_us: i64,
    ids: HashMap<String, Ids>,
}

/// Update ids of one stream: the tape's keep their distances, passes follow each other.
#[derive(Clone, Copy, Debug)]
struct Ids {
    first: u64,
    base: u64,
    next: u64,
}

impl Timeline {
    /// Begins with the tape's first event at this moment.
    #[must_use]
    pub fn begin(speed: Speed, venue_time: VenueTime, began_us: u64, first_us: u64) -> Self {
        let signed = |us| i64::try_from(us).unwrap_or(i64::MAX);
        Self {
            speed,
            venue_time,
            began_us: signed(began_us),
            first_us: signed(first_us),
            played_us: 0,
            ids: HashMap::new(),
        }
    }

    /// Begins the next pass, after one that ended with this event.
    pub fn next_pass(&mut self, last_us: u64) {
        let last_us = i64::try_from(last_us).unwrap_or(i64::MAX);
        self.played_us = self
            .played_us
            .saturating_add(last_us.saturating_sub(self.first_us).max(0))
            .saturating_add(PASS_GAP_US);
        for ids in self.ids.values_mut() {
            ids.base = ids.next;
        }
    }

    /// How long after the beginning this moment of the tape is due, microseconds; zero for what lies before it.
    #[must_use]
    pub fn due_us(&self, tape_us: u64) -> u64 {
        u64::try_from(self.offset_us(tape_us)).unwrap_or_default()
    }

    /// A stamp of the tape as the frame carries it.
    #[must_use]
    pub fn stamp(&self, tape_us: u64) -> u64 {
        let stamped = match self.venue_time {
            VenueTime::Now => self.began_us.saturating_add(self.offset_us(tape_us)),
            VenueTime::Recorded => i64::try_from(tape_us)
                .unwrap_or(i64::MAX)
                .saturating_add(self.played_us),
        };
        u64::try_from(stamped).unwrap_or_default()
    }

    /// An update id of the tape as the frame carries it. In the present it begins at the wall clock's microseconds, so that a replay
    /// that is started again does not look older than the one before.
    pub fn update_id(&mut self, stream: &str, tape_id: u64) -> u64 {
        if !self.ids.contains_key(stream) {
            let base = match self.venue_time {
                VenueTime::Now => u64::try_from(self.began_us).unwrap_or_default(),
                VenueTime::Recorded => tape_id,
            };
            self.ids.insert(
                stream.to_owned(),
                Ids {
                    first: tape_id,
                    base,
                    next: base,
                },
            );
        }
        let Some(ids) = self.ids.get_mut(stream) else {
            return tape_id;
        };
        // An id below the first one was out of order on the tape, and stays so.
        let id = if tape_id >= ids.first {
            ids.base.saturating_add(tape_id - ids.first)
        } else {
            ids.base.saturating_sub(ids.first - tape_id)
        };
        ids.next = ids.next.max(id.saturating_add(1));
        id
    }

    fn offset_us(&self, tape_us: u64) -> i64 {
        let tape_us = i64::try_from(tape_us).unwrap_or(i64::MAX);
        self.speed
            .scale_us(tape_us.saturating_sub(self.first_us).saturating_add(self.played_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000_000;
    const TAPE: u64 = 1_400_000_000_000_000;

    fn timeline(speed: &str, venue_time: VenueTime) -> Timeline {
        Timeline::begin(speed.parse().unwrap(), venue_time, NOW, TAPE)
    }

    #[test]
    fn the_tape_happens_now() {
        let line = timeline("1", VenueTime::Now);
        assert_eq!((line.due_us(TAPE), line.stamp(TAPE)), (0, NOW));
        assert_eq!(
            (line.due_us(TAPE + 1_500), line.stamp(TAPE + 1_500)),
            (1_500, NOW + 1_500)
        );
        // The venue's stamp of the first frame is older than its receipt.
        assert_eq!((line.due_us(TAPE - 700), line.stamp(TAPE - 700)), (0, NOW - 700));
    }

    #[test]
    fn speed_shortens_time_and_keeps_order() {
        let line = timeline("10", VenueTime::Now);
        assert_eq!(line.due_us(TAPE + 1_000_000), 100_000);
        assert_eq!(line.stamp(TAPE + 1_000_000), NOW + 100_000);
        let stamps: Vec<u64> = (0..100).map(|step| line.stamp(TAPE + step)).collect();
        assert!(stamps.is_sorted());
        assert_eq!(timeline("0.5", VenueTime::Now).due_us(TAPE + 1_000_000), 2_000_000);
    }

    #[test]
    fn passes_follow_each_other_in_time_and_in_update_ids() {
        for venue_time in [VenueTime::Now, VenueTime::Recorded] {
            let mut line = timeline("1", venue_time);
            let mut stamps = Vec::new();
            let mut ids = Vec::new();
            let mut due = Vec::new();
            for _ in 0..3 {
                for (step, id) in [(0, 70), (10, 75), (20, 90)] {
                    due.push(line.due_us(TAPE + step));
                    stamps.push(line.stamp(TAPE + step));
                    ids.push(line.update_id("bookTicker.SOL_USDC", id));
                }
                line.next_pass(TAPE + 20);
            }
            assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
            assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
            assert_eq!(due[3], 20 + PASS_GAP_US as u64);
        }
    }

    #[test]
    fn a_recording_can_be_played_as_it_was() {
        let mut line = timeline("10", VenueTime::Recorded);
        assert_eq!(line.stamp(TAPE + 77), TAPE + 77);
        assert_eq!(line.update_id("bookTicker.SOL_USDC", 6_730_019_258), 6_730_019_258);
        assert_eq!(line.update_id("bookTicker.SOL_USDC", 6_730_019_300), 6_730_019_300);
        assert_eq!(line.update_id("bookTicker.SOL_USDC", 6_730_019_257), 6_730_019_257);
    }

    #[test]
    fn a_replay_started_again_is_newer_than_the_one_before() {
        let mut earlier = timeline("1", VenueTime::Now);
        let before = (1..=1_000).map(|number| earlier.update_id("s", number)).max();
        let mut later = Timeline::begin(Speed::default(), VenueTime::Now, NOW + 1_000_000, TAPE);
        assert!(Some(later.update_id("s", 1)) > before);
    }

    #[test]
    fn stamps_that_cannot_be_do_not_overflow() {
        let mut line = timeline("0.001", VenueTime::Now);
        let _ = (line.stamp(0), line.stamp(u64::MAX), line.due_us(u64::MAX));
        line.next_pass(u64::MAX);
        line.next_pass(u64::MAX);
        let _ = (
            line.stamp(u64::MAX),
            line.update_id("s", u64::MAX),
            line.update_id("s", 0),
        );
    }
}
