//! The engine's side of a shard's queue over the simulated Redis.

use std::time::Duration;

use bus::mutants::{self, Mutant};
use bus::{Addressed, BusError, EventRow, Incoming, Presence, ShardBus, keys};
use bytes::Bytes;
use prost::Message as _;

use crate::coverage::Corner;
use crate::journal::wait;
use crate::process::Process;
use crate::weather::Fate;
use crate::world::{Inner, World};

/// How long a client waits for an answer that never comes. Milliseconds.
const PATIENCE_MS: u64 = 2_000;
/// How long a command usually takes, at most, one way. Milliseconds.
const USUAL_MS: u64 = 2;

/// A process's connection to the simulated Redis.
#[derive(Clone, Debug)]
pub struct Connection {
    pub world: World,
    pub process: Process,
}

impl Connection {
    /// A command that is carried out in one moment; the error says whether it may have been.
    pub async fn ask<T>(&self, what: impl FnOnce(&mut Inner) -> T) -> Result<T, Broken> {
        self.process.pass().await;
        let fate = self.world.with(|inner| {
            let now = inner.now_us;
            inner.redis_weather.fate(&mut inner.dice, now, USUAL_MS, PATIENCE_MS)
        });
        let answer = match fate {
            Fate::Lost { after_ms } => {
                wait(after_ms).await;
                Err(Broken::NeverSent)
            }
            Fate::Answered { there_ms, back_ms } => {
                wait(there_ms).await;
                let answer = self.at_server(what);
                wait(back_ms).await;
                answer
            }
            Fate::AnswerLost { there_ms, after_ms } => {
                wait(there_ms).await;
                let _lost = self.at_server(what);
                wait(after_ms).await;
                Err(Broken::Unknown)
            }
        };
        self.process.pass().await;
        answer
    }

    fn at_server<T>(&self, what: impl FnOnce(&mut Inner) -> T) -> Result<T, Broken> {
        self.world.with(|inner| {
            if inner.redis_weather.is_away(inner.now_us) {
                return Err(Broken::Unknown);
            }
            Ok(what(inner))
        })
    }
}

/// Why a command has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It was not carried out.
    NeverSent,
    /// It may have been.
    Unknown,
}

impl From<Broken> for BusError {
    fn from(_: Broken) -> Self {
        Self::Redis(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into())
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct SimShardBus {
    connection: Connection,
    shard: u32,
    /// What ended the last wait.
    head: Option<Incoming>,
}

impl SimShardBus {
    /// The queue of a shard as one process sees it.
    pub fn new(connection: Connection, shard: u32) -> Self {
        Self {
            connection,
            shard,
            head: None,
        }
    }

    fn who(&self) -> u64 {
        self.connection.process.number()
    }
}

impl ShardBus for SimShardBus {
    async fn wait(&mut self) {
        let world = &self.connection.world;
        loop {
            self.connection.process.pass().await;
            let rings = world.request_bell(self.shard).notified();
            let head = world.with(|inner| {
                let is_away = inner.redis_weather.is_away(inner.now_us);
                inner.redis.peek(self.shard, 0, 1).pop().filter(|_| !is_away)
            });
            if head.is_some() {
                self.head = head;
                return;
            }
            let _looks_up = tokio::time::timeout(Duration::from_secs(1), rings).await;
        }
    }

    async fn peek(&mut self, skip: usize, count_max: usize) -> Result<Vec<Incoming>, BusError> {
        let (shard, who) = (self.shard, self.who());
        self.head = None;
        let messages = self
            .connection
            .ask(|inner| {
                let messages = inner.redis.peek(shard, skip, count_max);
                if !messages.is_empty() {
                    inner.note("peek", who, messages.len() as u64, || {
                        format!("shard {shard}, skips {skip}")
                    });
                }
                inner.history.peeked(&messages, inner.now_us);
                messages
            })
            .await?;
        Ok(messages)
    }

    fn head(&mut self) -> Option<Incoming> {
        let head = self.head.take();
        self.connection
            .world
            .with(|inner| inner.history.peeked(head.as_slice(), inner.now_us));
        head
    }

    async fn trim(&self, processed: &[Incoming]) -> Result<bool, BusError> {
        if processed.is_empty() {
            return Ok(true);
        }
        let (shard, who) = (self.shard, self.who());
        let done = self
            .connection
            .ask(|inner| {
                let Some(removed) = inner.redis.trim(shard, processed, mutants::is(Mutant::BlindTrim)) else {
                    inner.coverage.visit(Corner::TrimRefused);
                    inner.note("trim refused", who, processed.len() as u64, String::new);
                    return false;
                };
                inner.note("trim", who, removed.len() as u64, || format!("shard {shard}"));
                inner.trimmed(shard, &removed);
                true
            })
            .await?;
        Ok(done)
    }

    async fn reply(&self, replies: &[Addressed]) -> Result<(), BusError> {
        if replies.is_empty() {
            return Ok(());
        }
        let who = self.who();
        self.connection.world.with(|inner| {
            for Addressed { shard, reply, .. } in replies {
                inner.answered(who, *shard, reply);
            }
        });
        self.connection
            .ask(|inner| {
                for Addressed { list, reply, .. } in replies.iter().filter(|it| keys::is_reply_list(&it.list)) {
                    let encoded = reply.encode_to_vec();
                    let waiting = inner.redis.replies.entry(list.clone()).or_default();
                    if inner.now_us < inner.replies_lossy_until_us {
                        if inner.dice.chance(150) {
                            inner.coverage.visit(Corner::ReplyLost);
                            continue;
                        }
                        if inner.dice.chance(300) {
                            inner.coverage.visit(Corner::ReplyTwice);
                            waiting.push_back(encoded.clone());
                        }
                        if inner.dice.chance(300) {
                            inner.late_replies.push((list.clone(), encoded.clone()));
                        }
                    }
                    waiting.push_back(encoded);
                }
            })
            .await?;
        self.connection.world.reply_bell().notify_waiters();
        Ok(())
    }

    async fn publish(&self, rows: &[EventRow]) -> Result<(), BusError> {
        let shard = self.shard;
        if rows.is_empty() {
            return Ok(());
        }
        self.connection
            .ask(|inner| {
                for row in rows {
                    let last = &mut inner.redis.events[shard as usize];
                    *last = row.last.max(*last);
                    inner.published(shard, row.last);
                }
            })
            .await?;
        Ok(())
    }

    async fn published(&mut self) -> Result<u64, BusError> {
        let shard = self.shard;
        Ok(self.connection.ask(|inner| inner.redis.events[shard as usize]).await?)
    }

    async fn discard_events(&mut self) -> Result<(), BusError> {
        let shard = self.shard;
        Ok(self
            .connection
            .ask(|inner| inner.redis.events[shard as usize] = 0)
            .await?)
    }

    async fn length(&mut self) -> Result<u64, BusError> {
        let shard = self.shard;
        Ok(self
            .connection
            .ask(|inner| inner.redis.requests[shard as usize].len() as u64)
            .await?)
    }
}

/// Where a process shows what it leads.
#[derive(Clone, Debug)]
pub struct SimPresence(pub Connection);

impl Presence for SimPresence {
    async fn show(&self, shards: &[u32], engine: &str) -> Result<(), BusError> {
        for shard in shards {
            self.0
                .ask(|inner| inner.redis.show_presence(*shard, engine, inner.now_us))
                .await?;
        }
        Ok(())
    }

    async fn hide(&self, shards: &[u32], engine: &str) -> Result<(), BusError> {
        for shard in shards {
            self.0.ask(|inner| inner.redis.hide_presence(*shard, engine)).await?;
        }
        Ok(())
    }
}

/// Puts messages into a queue behind the gateways' backs.
pub fn inject(world: &World, shard: u32, message: Bytes) {
    world.with(|inner| inner.redis.requests[shard as usize].push_back(message));
    world.request_bell(shard).notify_waiters();
}
