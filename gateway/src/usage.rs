//! `UsageService`: how many calls a principal may make, and how many it made.
//!
//! The [`Tally`] is written where calls are limited; like the limits it is of this process alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bus::Calls;
use contracts::v1::usage_service_server::UsageService;
use contracts::v1::{GetUsageRequest, GetUsageResponse, Usage};
use tonic::{Request, Response, Status};

use crate::auth::{PRINCIPAL_BYTES_MAX, Scope};
use crate::failure::Failure;
use crate::room::{Call, Room};

/// What is counted lies at most this far back: so many slots of so many seconds.
const SLOTS: usize = 12;
const SLOT_S: u64 = 5;
/// Most principals that are counted; further ones are limited all the same.
const PRINCIPALS_MAX: usize = 100_000;

/// The service.
pub(crate) struct Usages<C>(pub Arc<Room<C>>);

#[tonic::async_trait]
impl<C: Calls> UsageService for Usages<C> {
    async fn get_usage(&self, request: Request<GetUsageRequest>) -> Result<Response<GetUsageResponse>, Status> {
        let call = Call::of_anybody(&request)?;
        let asked = request.into_inner().principal;
        if asked.len() > PRINCIPAL_BYTES_MAX {
            let problem = format!("must be at most {PRINCIPAL_BYTES_MAX} bytes");
            return Err(Failure::invalid("principal", problem).into());
        }
        let own = asked.is_empty() || asked == call.identity.principal;
        if !own {
            call.identity.require(Scope::Operator)?;
        }
        let principal = if own { call.identity.principal.clone() } else { asked };
        let usage = self.0.usage(principal);
        Ok(Response::new(GetUsageResponse { usage: Some(usage) }))
    }
}

impl<C> Room<C> {
    fn usage(&self, principal: String) -> Usage {
        let limits = &self.principals;
        let (rate, used) = (limits.rate(), limits.tally.read(&principal, Instant::now()));
        let remaining = match used.left {
            // Nothing was taken for long.
            None => rate.burst,
            Some((left, ago)) => rate.after(left, ago),
        };
        let span = |duration: Duration| prost_types::Duration::try_from(duration).ok();
        Usage {
            calls_per_second: rate.per_second,
            burst: rate.burst,
            remaining,
            reset_after: span(rate.reset(remaining)),
            window: span(Duration::from_secs(SLOTS as u64 * SLOT_S)),
            calls_admitted: used.admitted,
            calls_refused: used.refused,
            streams_open: u32::try_from(self.places.held_by(&principal)).unwrap_or(u32::MAX),
            streams_max: u32::try_from(self.streams.principal_max.min(self.streams.count_max)).unwrap_or(u32::MAX),
            principal,
        }
    }
}

/// Calls of the last minute, by principal.
pub(crate) struct Tally {
    started: Instant,
    counts: Mutex<HashMap<String, Counts>>,
}

/// What one principal has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Calls that were let in.
    pub admitted: u64,
    /// Calls that were not.
    pub refused: u64,
    /// How many could have followed the last one at once, and how long ago that was.
    pub left: Option<(u32, Duration)>,
}

struct Counts {
    /// Slot of the last call, counted from the start.
    last: u64,
    admitted: [u32; SLOTS],
    refused: [u32; SLOTS],
    left: u32,
    at: Instant,
}

impl Tally {
    /// Nothing is counted yet.
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            counts: Mutex::default(),
        }
    }

    /// Notes a call: how many could follow at once, or nothing if it was refused.
    pub fn note(&self, principal: &str, admitted: Option<u32>, now: Instant) {
        let slot = self.slot(now);
        let mut counts = self.counts.lock().expect("nothing panics while it holds this lock");
        if !counts.contains_key(principal) {
            if counts.len() >= PRINCIPALS_MAX {
                return;
            }
            counts.insert(principal.to_owned(), Counts::new(slot, now));
        }
        let Some(count) = counts.get_mut(principal) else { return };
        count.forget(slot);
        let place = place(slot);
        let column = if admitted.is_some() {
            &mut count.admitted
        } else {
            &mut count.refused
        };
        column[place] = column[place].saturating_add(1);
        (count.left, count.at) = (admitted.unwrap_or(0), now);
    }

    /// What a principal has used up to now.
    pub fn read(&self, principal: &str, now: Instant) -> Used {
        let slot = self.slot(now);
        let mut counts = self.counts.lock().expect("nothing panics while it holds this lock");
        let Some(count) = counts.get_mut(principal) else {
            return Used::default();
        };
        count.forget(slot);
        let sum = |column: &[u32]| column.iter().map(|it| u64::from(*it)).sum();
        Used {
            admitted: sum(&count.admitted),
            refused: sum(&count.refused),
            left: Some((count.left, now.saturating_duration_since(count.at))),
        }
    }

    /// Forgets whoever made no call for long.
    pub fn tidy(&self, now: Instant) {
        let slot = self.slot(now);
        let mut counts = self.counts.lock().expect("nothing panics while it holds this lock");
        counts.retain(|_, count| slot - count.last.min(slot) < SLOTS as u64);
        counts.shrink_to_fit();
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs() / SLOT_S
    }
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).expect("smaller than their number")
}

impl Counts {
    fn new(slot: u64, now: Instant) -> Self {
        Self {
            last: slot,
            admitted: [0; SLOTS],
            refused: [0; SLOTS],
            left: 0,
            at: now,
        }
    }

    /// Empties the slots that have come round again since.
    fn forget(&mut self, slot: u64) {
        let passed = slot.saturating_sub(self.last).min(SLOTS as u64);
        for back in 0..passed {
            let place = place(slot - back);
            (self.admitted[place], self.refused[place]) = (0, 0);
        }
        self.last = self.last.max(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_for_a_minute_and_then_forgotten() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let tally = Tally::new(start);
        let counts = |seconds| {
            let used = tally.read("a", after(seconds));
            (used.admitted, used.refused)
        };
        tally.note("a", Some(9), after(0));
        tally.note("a", Some(8), after(3));
        tally.note("a", None, after(30));
        assert_eq!(counts(30), (2, 1));
        assert_eq!(tally.read("a", after(34)).left, Some((0, Duration::from_secs(4))));
        assert_eq!(counts(59), (2, 1));
        assert_eq!(counts(60), (0, 1), "the first slot has come round");
        assert_eq!(counts(90), (0, 0));
        assert_eq!(tally.read("b", after(90)), Used::default());

        tally.note("a", Some(1), after(1_000_000));
        assert_eq!(counts(1_000_000), (1, 0), "a long pause leaves nothing behind");
        tally.tidy(after(1_000_059));
        assert_eq!(tally.counts.lock().unwrap().len(), 1);
        tally.tidy(after(1_000_060));
        assert!(tally.counts.lock().unwrap().is_empty());
    }
}
