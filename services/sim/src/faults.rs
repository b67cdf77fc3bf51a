//! What goes wrong, and when. Each run draws some kinds of faults and leaves others out, so that rare ones get room.

use bytes::Bytes;
use contracts::bus::Request;
use prost::Message as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::coverage::Corner;
use crate::engines::{ENGINES, Engines, engine_name};
use crate::feed::Mood;
use crate::gateways::{GATEWAYS, Gateways};
use crate::journal::{CommitFault, wait};
use crate::redis::Redis;
use crate::shard_bus::inject;
use crate::world::World;

/// How many acknowledgements a system that was just hurt gets to show first, before engines are hurt again.
const PROGRESS: u64 = 6;
/// How long it gets for that at most. Milliseconds.
const PATIENCE_MS: u64 = 4_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    KillInCommit,
    Stop,
    Pause,
    PostgresAway,
    PostgresSlow,
    PostgresLossy,
    Commit,
    RedisAway,
    RedisLossy,
    RedisTail,
    RedisRepeats,
    RedisEmptied,
    RedisRestored,
    Duplicate,
    Late,
    Poison,
    Replies,
    Feed,
    StreamRestart,
    EngineClock,
    PostgresClock,
    GatewayKill,
    Snapshot,
    Operator,
}

const ALL: [Fault; 25] = [
    Fault::Kill,
    Fault::KillInCommit,
    Fault::Stop,
    Fault::Pause,
    Fault::PostgresAway,
    Fault::PostgresSlow,
    Fault::PostgresLossy,
    Fault::Commit,
    Fault::RedisAway,
    Fault::RedisLossy,
    Fault::RedisTail,
    Fault::RedisRepeats,
    Fault::RedisEmptied,
    Fault::RedisRestored,
    Fault::Duplicate,
    Fault::Late,
    Fault::Poison,
    Fault::Replies,
    Fault::Feed,
    Fault::StreamRestart,
    Fault::EngineClock,
    Fault::PostgresClock,
    Fault::GatewayKill,
    Fault::Snapshot,
    Fault::Operator,
];

/// Who makes things go wrong.
#[derive(Debug)]
pub struct Faults {
    pub world: World,
    pub engines: Engines,
    pub gateways: Gateways,
    old_copy: Option<Redis>,
    /// Faults that end by themselves.
    lasting: JoinSet<()>,
}

impl Faults {
    /// Of this world.
    pub fn new(world: World, engines: Engines, gateways: Gateways) -> Self {
        Self {
            world,
            engines,
            gateways,
            old_copy: None,
            lasting: JoinSet::new(),
        }
    }

    /// Goes on until told to end; then everything is made good.
    pub async fn run(mut self, over: CancellationToken) {
        let kinds: Vec<Fault> = self.world.with(|inner| {
            let share = u32::try_from(inner.dice.between(250, 900)).expect("small");
            ALL.iter().copied().filter(|_| inner.dice.chance(share)).collect()
        });
        if kinds.is_empty() {
            over.cancelled().await;
            return;
        }
        let mut acknowledged = 0;
        while !over.is_cancelled() {
            let pause = self.world.with(|inner| inner.dice.between(50, 1_200));
            wait(pause).await;
            let fault = self.world.with(|inner| {
                if inner.dice.chance(200) {
                    self.old_copy = Some(inner.redis.clone());
                }
                *inner.dice.pick(&kinds)
            });
            if matches!(fault, Fault::Kill | Fault::KillInCommit | Fault::Stop | Fault::Pause) {
                self.until_progress(acknowledged, &over).await;
                acknowledged = self.acknowledged();
            }
            if over.is_cancelled() {
                break;
            }
            self.strike(fault);
        }
        self.lasting.abort_all();
        self.make_good();
    }

    fn acknowledged(&self) -> u64 {
        self.world.with(|inner| inner.coverage.of(Corner::Acknowledged))
    }

    /// A system that is down all the time is tested little.
    async fn until_progress(&self, since: u64, over: &CancellationToken) {
        for _ in 0..PATIENCE_MS / 100 {
            if over.is_cancelled() || self.acknowledged() >= since + PROGRESS {
                return;
            }
            wait(100).await;
        }
    }

    fn strike(&mut self, fault: Fault) {
        let world = self.world.clone();
        let slot = world.with(|inner| {
            let slot = inner.dice.index(ENGINES);
            inner.note("fault", slot as u64, fault as u64, || format!("{fault:?}"));
            slot
        });
        match fault {
            Fault::Kill => {
                let passes = world.with(|inner| inner.dice.between(1, 25));
                self.engines
                    .process(slot)
                    .kill_after(u32::try_from(passes).expect("few"));
            }
            Fault::KillInCommit => world.with(|inner| inner.die_in_commit = true),
            Fault::Stop => self.engines.stop(slot),
            Fault::Pause => {
                let process = self.engines.process(slot);
                let ms = world.with(|inner| {
                    inner.coverage.visit(Corner::Paused);
                    inner.dice.between(100, 5_000)
                });
                self.lasting.spawn(async move {
                    process.pause();
                    wait(ms).await;
                    process.resume();
                });
            }
            Fault::Operator => self.operator(slot),
            Fault::EngineClock => self.engine_clock(slot),
            Fault::PostgresClock => self.postgres_clock(),
            Fault::GatewayKill => {
                let slot = world.with(|inner| {
                    inner.coverage.visit(Corner::GatewayKilled);
                    inner.dice.index(GATEWAYS)
                });
                self.gateways.kill(slot);
            }
            Fault::Duplicate | Fault::Late | Fault::Poison => self.message(fault),
            Fault::Replies => self.replies(),
            Fault::Feed => self.feed(),
            Fault::RedisAway
            | Fault::RedisLossy
            | Fault::RedisTail
            | Fault::RedisRepeats
            | Fault::RedisEmptied
            | Fault::RedisRestored
            | Fault::StreamRestart => self.redis(fault),
            Fault::PostgresAway | Fault::PostgresSlow | Fault::PostgresLossy | Fault::Commit | Fault::Snapshot => {
                self.postgres(fault)
            }
        }
    }

    fn engine_clock(&mut self, slot: usize) {
        let process = self.engines.process(slot);
        let (off_us, ms) = self.world.with(|inner| {
            inner.coverage.visit(Corner::EngineClockJumped);
            let day = 86_400_000_000;
            let off = *inner.dice.pick(&[day, -day, 3_600_000_000, 3_000_000, -3_000_000]);
            (off, inner.dice.between(500, 8_000))
        });
        let (engines, world) = (self.engines.clone(), self.world.clone());
        self.lasting.spawn(async move {
            process.set_wall_off_us(off_us);
            wait(ms).await;
            world.with(|inner| inner.note("clock right again", slot as u64, 0, String::new));
            engines.process(slot).set_wall_off_us(0);
        });
    }

    fn postgres_clock(&mut self) {
        let world = self.world.clone();
        self.lasting.spawn(async move {
            let ms = world.with(|inner| {
                inner.coverage.visit(Corner::PostgresClockJumped);
                inner.postgres.clock_off_us = *inner.dice.pick(&[3_600_000_000, -3_600_000_000, 2_500_000, -1_500_000]);
                inner.dice.between(500, 4_000)
            });
            wait(ms).await;
            world.with(|inner| inner.postgres.clock_off_us = 0);
        });
    }

    /// Puts a message into a queue that no gateway puts there.
    fn message(&mut self, fault: Fault) {
        let world = &self.world;
        let found = world.with(|inner| {
            let shard = inner.dice.index(inner.options.shards as usize);
            let seen: Vec<Bytes> = inner.redis.requests[shard]
                .iter()
                .chain(&inner.redis.trimmed[shard])
                .cloned()
                .collect();
            let message = (!seen.is_empty()).then(|| inner.dice.pick(&seen).clone());
            (u32::try_from(shard).expect("few"), message)
        });
        let (shard, message) = found;
        match (fault, message) {
            (Fault::Poison, message) => {
                let poison = world.with(|inner| {
                    inner.coverage.visit(Corner::Poison);
                    let length = inner.dice.between(1, 60);
                    match inner.dice.between(0, 4) {
                        0 => Bytes::from(vec![0xff; usize::try_from(length).expect("small")]),
                        1 => Bytes::from(vec![7; bus::REQUEST_BYTES_MAX + 1]),
                        2 => message.map_or_else(Bytes::new, |message| message.slice(..message.len() / 2)),
                        // What a stranger with access to the queue would try: an answer into another key, another shard's account.
                        foreign => spoilt(message, foreign),
                    }
                });
                inject(world, shard, poison);
            }
            (Fault::Late, Some(message)) => {
                let ms = world.with(|inner| {
                    inner.coverage.visit(Corner::Late);
                    inner.dice.between(300, 9_000)
                });
                let world = world.clone();
                self.lasting.spawn(async move {
                    wait(ms).await;
                    inject(&world, shard, message);
                });
            }
            (_, Some(message)) => {
                world.with(|inner| inner.coverage.visit(Corner::Duplicate));
                inject(world, shard, message);
            }
            (_, None) => {}
        }
    }

    /// Replies get lost and doubled for a while; some come again later.
    fn replies(&mut self) {
        let world = self.world.clone();
        let ms = world.with(|inner| {
            let ms = inner.dice.between(300, 2_500);
            inner.replies_lossy_until_us = inner.now_us + ms * 1_000;
            ms
        });
        self.lasting.spawn(async move {
            for _ in 0..8 {
                wait(ms / 3).await;
                world.with(|inner| {
                    for (list, reply) in std::mem::take(&mut inner.late_replies) {
                        inner.redis.replies.entry(list).or_default().push_back(reply);
                    }
                });
                world.reply_bell().notify_waiters();
            }
        });
    }

    fn feed(&mut self) {
        let world = self.world.clone();
        self.lasting.spawn(async move {
            let ms = world.with(|inner| {
                inner.mood = *inner
                    .dice
                    .pick(&[Mood::Frozen, Mood::Gap, Mood::Repeats, Mood::Reorders, Mood::Spike]);
                inner.dice.between(300, 7_000)
            });
            wait(ms).await;
            world.with(|inner| inner.mood = Mood::Usual);
        });
    }

    fn redis(&mut self, fault: Fault) {
        let old_copy = self.old_copy.take();
        self.world.with(|inner| {
            let shard = u32::try_from(inner.dice.index(inner.options.shards as usize)).expect("few");
            let count = inner.dice.index(6) + 1;
            let now = inner.now_us;
            match fault {
                Fault::RedisAway => {
                    inner.coverage.visit(Corner::RedisAway);
                    inner.redis_weather.away_until_us = now + inner.dice.between(50, 5_000) * 1_000;
                    inner.redis_lives += 1;
                }
                Fault::RedisLossy => {
                    inner.redis_weather.lossy_until_us = now + inner.dice.between(300, 3_000) * 1_000;
                }
                Fault::RedisTail => {
                    if inner.redis.lose_tail(shard, count) > 0 {
                        inner.coverage.visit(Corner::RedisLostTail);
                    }
                }
                Fault::RedisRepeats => {
                    if inner.redis.undo_trim(shard, count) > 0 {
                        inner.coverage.visit(Corner::RedisRepeated);
                    }
                }
                Fault::RedisEmptied => {
                    inner.coverage.visit(Corner::RedisEmptied);
                    inner.redis.empty();
                    inner.redis_lives += 1;
                }
                Fault::RedisRestored => {
                    if let Some(old) = old_copy {
                        inner.coverage.visit(Corner::RedisRestored);
                        inner.redis = old;
                        inner.redis_lives += 1;
                    }
                }
                _ => {
                    inner.coverage.visit(Corner::StreamRestarted);
                    let behind_ms = inner.dice.between(0, 900_000);
                    inner.redis.restart_prices(behind_ms);
                    inner.redis_lives += 1;
                }
            }
        });
        for shard in 0..self.world.with(|inner| inner.options.shards) {
            self.world.request_bell(shard).notify_waiters();
        }
    }

    fn postgres(&mut self, fault: Fault) {
        self.world.with(|inner| {
            let now = inner.now_us;
            match fault {
                Fault::PostgresAway => {
                    inner.coverage.visit(Corner::PostgresAway);
                    inner.postgres_weather.away_until_us = now + inner.dice.between(50, 6_000) * 1_000;
                }
                Fault::PostgresSlow => {
                    inner.postgres_weather.slow_until_us = now + inner.dice.between(300, 3_000) * 1_000;
                }
                Fault::PostgresLossy => {
                    inner.postgres_weather.lossy_until_us = now + inner.dice.between(300, 3_000) * 1_000;
                }
                Fault::Snapshot => {
                    let newest = inner.postgres.chunks.keys().next_back().copied();
                    if let Some((body, _)) = newest.and_then(|newest| inner.postgres.chunks.get_mut(&newest)) {
                        let mut spoilt = body.to_vec();
                        let place = spoilt.len() / 2;
                        if let Some(byte) = spoilt.get_mut(place) {
                            *byte ^= 1;
                            inner.coverage.visit(Corner::SnapshotDamaged);
                        }
                        *body = Bytes::from(spoilt);
                    }
                }
                _ => {
                    let later = inner.dice.between(5, 2_500);
                    inner.commit_fault = Some(match inner.dice.between(0, 4) {
                        0 | 1 => CommitFault::AnswerLost,
                        2 => CommitFault::Lost,
                        3 => CommitFault::LandsLaterLocked(later),
                        _ => CommitFault::LandsLater(later),
                    });
                }
            }
        });
    }

    /// All faults end.
    /// An operator wants a shard elsewhere, or an engine empty, or neither any more.
    fn operator(&self, slot: usize) {
        self.world.with(|inner| {
            let shard = inner.dice.index(inner.postgres.heads.len());
            let (names, drains) = (inner.dice.chance(600), inner.dice.chance(400));
            inner.postgres.heads[shard].wanted = names.then(|| engine_name(slot));
            for row in inner.postgres.engines.values_mut() {
                row.draining = drains && row.name == engine_name(slot);
            }
        });
    }

    fn make_good(&self) {
        for slot in 0..ENGINES {
            let process = self.engines.process(slot);
            process.resume();
            process.set_wall_off_us(0);
        }
        self.world.with(|inner| {
            inner.postgres_weather.clear();
            inner.redis_weather.clear();
            inner.postgres.clock_off_us = 0;
            inner.commit_fault = None;
            inner.die_in_commit = false;
            inner.replies_lossy_until_us = 0;
            inner.mood = Mood::Usual;
            inner.note("all is good", 0, 0, String::new);
        });
    }
}

/// A request as no gateway builds it.
fn spoilt(message: Option<Bytes>, how: u64) -> Bytes {
    let Some(mut request) = message.and_then(|message| Request::decode(message).ok()) else {
        return Bytes::from_static(b"not a request");
    };
    if how == 3 {
        request.reply_to = "somewhere else".to_owned();
    } else {
        request.shard += 1;
    }
    Bytes::from(request.encode_to_vec())
}
