//! What the margin state machine costs with few and with many open trades: commands, ticks, replaying, hashing, copying.

use std::hint::black_box;

use engine_core::{EntityOwned, State};

use super::machine::{MID, Machine};
use super::{each_ns, size, timed};
use crate::marks::{Limit, Mark};
use crate::report::Report;
use crate::sample::Spread;
use crate::say;

/// Commands of one kind between two readings of the clock; so many trades more are open meanwhile.
const COMMANDS: usize = 1_000;
/// Readings of one measurement.
const READINGS: usize = 20;
/// Ticks of one measurement.
const TICKS: usize = 20_000;
/// Liquidations of the tick that is judged.
const FIRED: usize = 1_000;
/// A fall by a little more than a hundredth, in which only brittle trades are liquidated.
const FALLEN: i64 = MID - MID / 80;

/// One round at one size. Nanoseconds each.
#[derive(Debug)]
struct Round {
    open: f64,
    close: f64,
    tick: f64,
    tick_of_one: f64,
    /// A tick that liquidates [`FIRED`], for each of them.
    fired: f64,
}

/// Measures at each of `sizes` (open trades, the smallest first), `rounds` times in turn, and judges the largest beside the smallest of
/// at least a thousand.
///
/// # Errors
/// When a tick does not fire what it should.
pub fn run(sizes: &[usize], rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut machines = Vec::with_capacity(sizes.len());
    for &open in sizes {
        say::aside(format!("core: opening {open} trades"));
        machines.push((open, Machine::with(open)));
    }
    let mut seen: Vec<Vec<Round>> = sizes.iter().map(|_| Vec::new()).collect();
    for n in 0..rounds {
        say::aside(format!("core: round {} of {rounds}", n + 1));
        for ((_, machine), seen) in machines.iter_mut().zip(&mut seen) {
            seen.push(round(machine)?);
        }
    }
    let spread = |rounds: &[Round], of: fn(&Round) -> f64| Spread::of(&rounds.iter().map(of).collect::<Vec<_>>());
    for (open, seen) in sizes.iter().zip(&seen) {
        let mut figure = |what: &str, of: fn(&Round) -> f64| {
            report.figure(&format!("core, {} open: {what}", size(*open)), "ns", spread(seen, of));
        };
        figure("open a trade", |it| it.open);
        figure("close it", |it| it.close);
        figure("tick that fires nothing", |it| it.tick);
        figure("tick that liquidates one", |it| it.tick_of_one);
        figure("each of 1,000 liquidations in a tick", |it| it.fired);
    }
    judge(sizes, &seen, report);
    if let Some((open, machine)) = machines.pop() {
        drop(machines);
        whole(open, machine, report);
    }
    Ok(())
}

fn round(machine: &mut Machine) -> anyhow::Result<Round> {
    let (mut open, mut close) = (0.0, 0.0);
    for _ in 0..READINGS {
        let first = machine.next_trade();
        open += each_ns(COMMANDS, || {
            (0..COMMANDS).for_each(|n| drop(black_box(machine.open(n))))
        });
        close += each_ns(COMMANDS, || {
            for (n, trade) in (0..COMMANDS).zip(first..) {
                drop(black_box(machine.close(n, trade)));
            }
        });
    }
    let tick = each_ns(TICKS, || {
        for n in 0..TICKS {
            black_box(machine.quote(MID + (n as i64 % 3) * 100));
        }
    });
    Ok(Round {
        open: open / READINGS as f64,
        close: close / READINGS as f64,
        tick,
        tick_of_one: fire(machine, 1)?,
        fired: fire(machine, FIRED)? / FIRED as f64,
    })
}

/// What a tick takes that liquidates so many. Nanoseconds.
fn fire(machine: &mut Machine, count: usize) -> anyhow::Result<f64> {
    machine.quote(MID);
    machine.open_brittle(count);
    let (fired, took) = timed(|| machine.quote(FALLEN));
    machine.quote(MID);
    anyhow::ensure!(fired == count, "a tick fired {fired} events instead of {count}");
    Ok(took.as_secs_f64() * 1e9)
}

/// Marks 11 and 12.
fn judge(sizes: &[usize], seen: &[Vec<Round>], report: &mut Report) {
    let small = sizes.iter().position(|&open| open >= 1_000).unwrap_or_default();
    let (Some(few), Some(many), Some(&most)) = (seen.get(small), seen.last(), sizes.last()) else {
        return;
    };
    let of = |name: &str| format!("core: {name}, {} open", size(most));
    let growth = |name: &str| format!("core: {name}, {} ÷ {} open", size(most), size(sizes[small]));
    let rate = |of: fn(&Round) -> f64| Spread::of(&many.iter().map(|it| 1e9 / of(it)).collect::<Vec<_>>());
    let ratio = |of: fn(&Round) -> f64| {
        let pairs = many.iter().zip(few).map(|(many, few)| of(many) / of(few));
        Spread::of(&pairs.collect::<Vec<_>>())
    };
    let fired: Vec<f64> = many.iter().map(|it| it.fired / 1e3).collect();
    let least = Limit::AtLeast(1_000_000.0);
    for mark in [
        Mark::judge(11, &of("opens/s of one thread"), least, rate(|it| it.open)),
        Mark::judge(11, &of("closes/s of one thread"), least, rate(|it| it.close)),
        Mark::judge(11, &growth("an open"), Limit::AtMost(1.6), ratio(|it| it.open)),
        Mark::judge(11, &growth("a close"), Limit::AtMost(1.6), ratio(|it| it.close)),
        Mark::judge(
            12,
            &growth("a tick that fires nothing"),
            Limit::AtMost(1.5),
            ratio(|it| it.tick),
        ),
        Mark::judge(
            12,
            &of("each of 1,000 liquidations in a tick, µs"),
            Limit::AtMost(3.0),
            Spread::of(&fired),
        ),
    ] {
        report.judged(mark);
    }
}

/// What is done to all of a state at once, and replaying.
fn whole(open: usize, mut machine: Machine, report: &mut Report) {
    let named = |what: &str| format!("core, {} open: {what}", size(open));
    let mut one = |what: &str, unit: &'static str, value: f64| report.figure(&named(what), unit, Spread::of(&[value]));
    let millis = |took: std::time::Duration| took.as_secs_f64() * 1e3;
    let (hash, took) = timed(|| machine.state.recompute_hash());
    assert_eq!(
        hash,
        machine.state.hash(),
        "what is kept up to date is what it is worked out to be"
    );
    one("hash of everything, worked out anew", "ms", millis(took));
    let (copy, took) = timed(|| machine.state.clone());
    one("copy of everything", "ms", millis(took));
    drop(copy);
    let ((bytes, count), took) = timed(|| encode(&machine.state));
    one("everything as canonical bytes", "ms", millis(took));
    one("canonical bytes", "MB", bytes as f64 / 1e6);
    let owned: Vec<EntityOwned> = machine.state.entities().map(|it| it.to_owned()).collect();
    let (restored, took) = timed(|| State::try_restore(owned.into_iter()));
    let restored = restored.expect("what was taken out fits back in");
    one("everything put back from its entities", "ms", millis(took));
    assert_eq!(restored.hash(), machine.state.hash(), "{count} entities");

    let mut replica = restored;
    let events: Vec<_> = (0..COMMANDS * READINGS).flat_map(|n| machine.open(n)).collect();
    let now = machine.now();
    let ((), took) = timed(|| {
        for event in &events {
            replica.apply(now, event);
        }
    });
    assert_eq!(replica.hash(), machine.state.hash());
    one("events replayed a second", "", events.len() as f64 / took.as_secs_f64());
}

fn encode(state: &State) -> (usize, usize) {
    let (mut bytes, mut total, mut count) = (Vec::new(), 0, 0);
    for entity in state.entities() {
        bytes.clear();
        entity.encode(&mut bytes);
        total += black_box(&bytes).len();
        count += 1;
    }
    (total, count)
}
