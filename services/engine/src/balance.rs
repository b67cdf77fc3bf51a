//! Who leads which shard when several engines run: as many each, but for what an operator wants.
//!
//! Every engine works its own part out from the same rows, and two that saw different rows do no harm: a lease is taken by one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::journal::{Engine, Head};

/// How long a shard stands free before an engine takes it over its own part: whoever was to take it does not.
const LEFT_OVER: Duration = Duration::from_secs(3);
/// Most shards given away at one look, so that not all accounts pause at once.
const GIVEN_MAX: usize = 4;

/// What an engine is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Free shards to take.
    pub take: Vec<u32>,
    /// Led shards to give away.
    pub give: Vec<u32>,
}

/// Remembers since when shards have been free.
#[derive(Debug, Default)]
pub struct Balance {
    free_since: BTreeMap<u32, Instant>,
}

impl Balance {
    /// What the engine `me`, which leads `led`, is to do when these engines run and the shards stand so.
    pub fn plan(&mut self, now: Instant, me: Uuid, engines: &[Engine], heads: &[Head], led: &BTreeSet<u32>) -> Plan {
        let free: BTreeSet<u32> = heads
            .iter()
            .filter(|head| !head.leased && !led.contains(&head.shard))
            .map(|head| head.shard)
            .collect();
        self.free_since.retain(|shard, _| free.contains(shard));
        let mut plan = part_of(me, engines, heads, led, &free);
        let is_active = active(engines).iter().any(|engine| engine.id == me);
        for shard in free {
            let since = *self.free_since.entry(shard).or_insert(now);
            if is_active && now - since > LEFT_OVER && !plan.take.contains(&shard) {
                plan.take.push(shard);
            }
        }
        plan
    }
}

/// The engines that are to lead: those that do not leave; all when all leave, because a shard is never without a leader on purpose.
fn active(engines: &[Engine]) -> Vec<&Engine> {
    let staying: Vec<&Engine> = engines.iter().filter(|engine| !engine.draining).collect();
    if staying.is_empty() {
        return engines.iter().collect();
    }
    staying
}

fn part_of(me: Uuid, engines: &[Engine], heads: &[Head], led: &BTreeSet<u32>, free: &BTreeSet<u32>) -> Plan {
    if !engines.iter().any(|engine| engine.id == me) {
        // Not seen as running, so nobody reckons with us; what is led is led on while its lease stands.
        return Plan::default();
    }
    let mut active = active(engines);
    active.sort_by_key(|engine| (&engine.name, engine.id));
    let wanted: BTreeMap<u32, Uuid> = heads
        .iter()
        .filter_map(|head| {
            let name = head.wanted.as_ref()?;
            let engine = active.iter().find(|engine| engine.name == *name)?;
            Some((head.shard, engine.id))
        })
        .collect();
    let shared = heads.len() - wanted.len();
    let rank = active.iter().position(|engine| engine.id == me);
    let part = rank.map_or(0, |rank| {
        shared / active.len() + usize::from(rank < shared % active.len())
    });
    let (mut plan, mut ours) = (Plan::default(), Vec::new());
    for shard in led {
        match wanted.get(shard) {
            Some(engine) if *engine == me => {}
            Some(_) => plan.give.push(*shard),
            None => ours.push(*shard),
        }
    }
    plan.give.extend(ours.iter().skip(part));
    plan.give.truncate(GIVEN_MAX);
    let room = part.saturating_sub(ours.len());
    let (named, any): (Vec<u32>, Vec<u32>) = free.iter().partition(|shard| wanted.contains_key(shard));
    plan.take.extend(named.into_iter().filter(|shard| wanted[shard] == me));
    plan.take.extend(any.into_iter().take(room));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(n: u128) -> Engine {
        Engine {
            id: Uuid::from_u128(n),
            name: format!("e{n}"),
            draining: false,
        }
    }

    /// Engines looking in turn until nobody does anything. Returns who leads what, and how often a shard changed hands.
    fn settle(engines: &[Engine], heads: &mut [Head], leads: &mut BTreeMap<u32, Uuid>) -> usize {
        let mut moved = 0;
        for _look in 0..100 {
            let mut quiet = true;
            for one in engines {
                let led: BTreeSet<u32> = leads.iter().filter(|it| *it.1 == one.id).map(|it| *it.0).collect();
                for head in heads.iter_mut() {
                    head.leased = leads.contains_key(&head.shard);
                }
                let plan = Balance::default().plan(Instant::now(), one.id, engines, heads, &led);
                quiet &= plan == Plan::default();
                moved += plan.give.len();
                plan.give.iter().for_each(|shard| {
                    assert_eq!(leads.remove(shard), Some(one.id));
                });
                plan.take.iter().for_each(|shard| {
                    assert_eq!(leads.insert(*shard, one.id), None);
                });
            }
            if quiet {
                return moved;
            }
        }
        panic!("engines never came to rest: {leads:?}");
    }

    fn heads(shards: u32) -> Vec<Head> {
        let head = |shard| Head {
            shard,
            epoch: 1,
            sequence: 0,
            chain: [0; 32],
            leased: false,
            wanted: None,
        };
        (0..shards).map(head).collect()
    }

    fn counts(engines: &[Engine], leads: &BTreeMap<u32, Uuid>) -> Vec<usize> {
        let count = |engine: &Engine| leads.values().filter(|id| **id == engine.id).count();
        engines.iter().map(count).collect()
    }

    #[test]
    fn engines_that_come_and_go_share_the_shards_and_move_no_more_than_needed() {
        let (mut heads, mut leads) = (heads(16), BTreeMap::new());
        let all: Vec<Engine> = (1..=4).map(engine).collect();
        for (running, even, most_moved) in [
            (1, vec![16], 0),
            (2, vec![8, 8], 8),
            (3, vec![6, 5, 5], 6),
            (4, vec![4, 4, 4, 4], 5),
        ] {
            let moved = settle(&all[..running], &mut heads, &mut leads);
            assert_eq!(counts(&all[..running], &leads), even);
            assert!(moved <= most_moved, "{moved} moved to {running} engines");
        }
        for running in [3, 2, 1] {
            leads.retain(|_, id| all[..running].iter().any(|engine| engine.id == *id));
            settle(&all[..running], &mut heads, &mut leads);
            assert_eq!(leads.len(), 16, "with {running} engines");
            let counts = counts(&all[..running], &leads);
            assert!(
                counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1,
                "{counts:?}"
            );
        }
    }

    #[test]
    fn a_shard_that_an_operator_wants_somewhere_goes_there_and_stays() {
        let (mut heads, mut leads) = (heads(8), BTreeMap::new());
        let mut engines: Vec<Engine> = (1..=2).map(engine).collect();
        settle(&engines, &mut heads, &mut leads);
        assert_eq!(leads[&0], engines[0].id);
        heads[0].wanted = Some("e2".to_owned());
        settle(&engines, &mut heads, &mut leads);
        assert_eq!(leads[&0], engines[1].id);
        assert_eq!(leads.len(), 8);
        // One that is wanted by nobody who runs is anybody's.
        engines.pop();
        leads.retain(|_, id| *id == engines[0].id);
        settle(&engines, &mut heads, &mut leads);
        assert_eq!(counts(&engines, &leads), [8]);
    }

    #[test]
    fn an_engine_that_drains_gives_everything_away_unless_it_is_the_last() {
        let (mut heads, mut leads) = (heads(8), BTreeMap::new());
        let mut engines: Vec<Engine> = (1..=2).map(engine).collect();
        settle(&engines, &mut heads, &mut leads);
        engines[0].draining = true;
        settle(&engines, &mut heads, &mut leads);
        assert_eq!(counts(&engines, &leads), [0, 8]);
        engines[1].draining = true;
        settle(&engines, &mut heads, &mut leads);
        assert_eq!(leads.len(), 8, "somebody leads every shard");
    }

    #[test]
    fn a_shard_that_nobody_takes_is_taken_by_anybody() {
        let (heads, engines, now) = (heads(2), [engine(1), engine(2)], Instant::now());
        let (mut balance, led) = (Balance::default(), BTreeSet::from([0]));
        let mut plan = |later| balance.plan(now + later, engines[0].id, &engines, &heads, &led);
        assert_eq!(plan(Duration::ZERO), Plan::default());
        assert_eq!(plan(LEFT_OVER), Plan::default());
        assert_eq!(plan(LEFT_OVER + Duration::from_millis(1)).take, [1]);
    }
}
