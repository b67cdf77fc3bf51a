//! The open loop: calls begin at a fixed rate, however slow the answers are.
//!
//! Latency counts from the moment a call was meant to begin, so that what waited because we or the server were late is seen to have
//! waited, instead of not being asked at all.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::closed::{count, wires};
use super::door::{Answer, Call};
use super::pace::{Pace, keep};
use super::wire::Wire;
use super::{Counted, OPEN_CONNECTIONS, OPEN_PLACES, Plan, STREAMS_MAX, Target, sessions};
use crate::cpu::{Used, Watch};
use crate::sample::Tally;

/// How long the last calls may take after the last has begun; what is not answered then is lost.
const LAST_WITHIN: Duration = Duration::from_secs(8);

/// A connection, and how many calls are on it.
#[derive(Clone)]
struct Line {
    wire: Wire,
    calls: Rc<Cell<usize>>,
}

impl Line {
    fn free(wire: Wire) -> Self {
        Self {
            wire,
            calls: Rc::default(),
        }
    }

    fn has_room(&self) -> bool {
        self.calls.get() < STREAMS_MAX
    }

    /// Itself, for one call more.
    fn taken(&self) -> Self {
        self.calls.set(self.calls.get() + 1);
        self.clone()
    }

    async fn call(&mut self, call: &Call, wants_trade: bool) -> Option<Answer> {
        let answer = self.wire.call(call, wants_trade).await;
        self.calls.set(self.calls.get() - 1);
        answer
    }
}

pub(super) async fn run(target: &Target, plan: &Plan, per_second: f64, watch: &Watch) -> anyhow::Result<(Tally, Used)> {
    // More connections than in a closed loop may be needed: what the server takes long for piles up.
    let lines = wires(target, plan.door, OPEN_CONNECTIONS).await?;
    let lines: Rc<[Line]> = lines.into_iter().map(Line::free).collect();
    let idle = Rc::new(RefCell::new(sessions(plan.work, target, OPEN_PLACES)));
    let places = Rc::new(Semaphore::new(OPEN_PLACES));
    let counted = Rc::new(RefCell::new(Counted {
        counts: true,
        ..Counted::default()
    }));
    let begin = Instant::now() + Duration::from_millis(10);
    let counts_from = begin + plan.warm_up;
    let lasts = plan.warm_up + plan.measure;
    let end = begin + lasts;
    let (send, mut starts) = mpsc::unbounded_channel();
    std::thread::Builder::new()
        .name("bench-pace".to_owned())
        .spawn(move || keep(Pace::new(begin, per_second), lasts, &send))
        .context("a thread")?;

    let mut before = None;
    let mut begun = 0_u64;
    while let Some(intended) = starts.recv().await {
        let counts = intended >= counts_from;
        if counts && before.is_none() {
            before = Some(watch.read());
        }
        begun += u64::from(counts);
        let place = Rc::clone(&places);
        let (idle, counted, lines) = (Rc::clone(&idle), Rc::clone(&counted), Rc::clone(&lines));
        tokio::task::spawn_local(async move {
            let _place = place.acquire().await;
            // As client libraries do it: another connection is taken when those before it are full. One call on each in turn would cost
            // both sides a system call or two for every call. Not before there is a place, or all that wait would wait for one connection.
            let line = lines.iter().find(|line| line.has_room()).map(Line::taken);
            let (Some(mut line), Some(mut session)) = (line, idle.borrow_mut().pop()) else {
                unreachable!("there are as many as places");
            };
            let call = session.next();
            let mut answer = line.call(&call, session.wants_trade()).await;
            if counts && counted.borrow().counts {
                let in_time = Instant::now() < end;
                count(
                    &mut counted.borrow_mut().tally,
                    answer.as_ref(),
                    intended.elapsed(),
                    in_time,
                );
            }
            if let Some(answer) = &mut answer {
                session.answered(answer);
            }
            idle.borrow_mut().push(session);
        });
    }
    let mut used = watch.read().since(before.as_ref().unwrap_or(&watch.read()));
    used.wall = plan.measure;
    let _late = timeout(LAST_WITHIN, places.acquire_many(u32::try_from(OPEN_PLACES)?)).await;
    let mut tally = {
        let counted = &mut *counted.borrow_mut();
        counted.counts = false;
        std::mem::take(&mut counted.tally)
    };
    let ended = tally.latencies.len() + tally.refusals.len() + tally.failed.values().sum::<u64>() + tally.lost;
    tally.lost += begun.saturating_sub(ended);
    Ok((tally, used))
}
