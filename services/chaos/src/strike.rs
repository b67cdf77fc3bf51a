//! What is done to the mesh: a deck of cards, drawn in an order that a seed decides. A new deck is shuffled when one is used up, so that
//! a run of any length meets every kind about as often as it should.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::mesh::{LOOK_EVERY, Mesh, PATIENCE, Role};
use crate::process::Paused;
use crate::progress::Progress;

/// How long a process stands still at least: longer than a lease lasts.
const PAUSE_MIN: Duration = Duration::from_millis(2_500);
/// After Postgres is gone, an answer that was on its way may still arrive for so long.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Backends that are ended in one go.
const BACKENDS: u64 = 5;
/// The exit code of an engine that finds another leading.
const FENCED: i32 = 3;

/// A kind of misfortune.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strike {
    /// kill -9 of an engine, mostly the leader.
    EngineKilled,
    /// An engine, mostly the leader, stands still until another leads, and comes back.
    EnginePaused,
    /// kill -9 of a gateway.
    GatewayKilled,
    /// A gateway stands still.
    GatewayPaused,
    /// kill -9 of the poller.
    PollerKilled,
    /// The poller stands still.
    PollerPaused,
    /// kill -9 of the recorder.
    RecorderKilled,
    /// The recorder stands still.
    RecorderPaused,
    /// kill -9 of Redis, which keeps nothing.
    RedisKilled,
    /// Redis is emptied while it runs.
    RedisFlushed,
    /// Redis comes back with what it had long ago.
    RedisRestored,
    /// kill -9 of the first process of Postgres.
    PostgresKilled,
    /// Connections of engines are cut while they commit.
    BackendsTerminated,
    /// Postgres is away for a while.
    PostgresStopped,
    /// Every role is stopped in order and started again, one after the other.
    RollingRestart,
}

impl Strike {
    /// A deck. What the promises are mostly about is in it twice.
    const DECK: [Self; 17] = [
        Self::EngineKilled,
        Self::EngineKilled,
        Self::EnginePaused,
        Self::EnginePaused,
        Self::GatewayKilled,
        Self::GatewayPaused,
        Self::PollerKilled,
        Self::PollerPaused,
        Self::RecorderKilled,
        Self::RecorderPaused,
        Self::RedisKilled,
        Self::RedisFlushed,
        Self::RedisRestored,
        Self::PostgresKilled,
        Self::BackendsTerminated,
        Self::PostgresStopped,
        Self::RollingRestart,
    ];
    /// Size of a deck: a run of so many strikes has met every kind.
    pub const DECK_SIZE: usize = Self::DECK.len();
}

/// Decides what comes next.
#[derive(Debug)]
pub struct Deck {
    left: Vec<Strike>,
    dice: SmallRng,
}

impl Deck {
    /// The order of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            left: Vec::new(),
            dice: SmallRng::seed_from_u64(seed),
        }
    }

    /// The next card.
    pub fn draw(&mut self) -> Strike {
        if self.left.is_empty() {
            self.left = Strike::DECK.to_vec();
            self.left.shuffle(&mut self.dice);
        }
        self.left.pop().expect("just filled")
    }

    /// A number between two, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        self.dice.random_range(least..=most)
    }

    fn one_of(&mut self, pair: [Role; 2]) -> Role {
        pair[self.dice.random_range(0..2)]
    }
}

/// How an engine lost its shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// It was killed.
    Killed,
    /// It stood still.
    Paused,
    /// It was stopped in order.
    Stopped,
}

/// One take-over.
#[derive(Clone, Copy, Debug)]
pub struct TakeOver {
    /// What happened to the leader before.
    pub loss: Loss,
    /// From then until the last of its shards had another.
    pub taken: Duration,
    /// From then until a new order was answered on one of them.
    pub answered: Duration,
}

/// What strikes left behind for the report.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// Take-overs that were watched.
    pub take_overs: Vec<TakeOver>,
    /// Commits that were cut off.
    pub commits_cut: u64,
    /// From Postgres's return until something was answered.
    pub postgres_returns: Vec<Duration>,
    /// From Redis's return until something was answered.
    pub redis_returns: Vec<Duration>,
}

/// Carries out strikes.
#[derive(Debug)]
pub struct Striker<'a> {
    /// What is struck.
    pub mesh: &'a mut Mesh,
    /// How its clients fare.
    pub progress: &'a Progress,
    /// What decides.
    pub deck: &'a mut Deck,
    /// What there is to tell.
    pub marks: &'a mut Marks,
    /// How long Postgres stays away.
    pub outage: Duration,
}

impl Striker<'_> {
    /// One strike, until what was struck is started again.
    ///
    /// # Errors
    /// When something does not come back.
    pub async fn strike(&mut self, what: Strike) -> anyhow::Result<()> {
        match what {
            Strike::EngineKilled => self.kill_engine().await,
            Strike::EnginePaused => self.pause_engine().await,
            Strike::GatewayKilled => {
                let gateway = self.deck.one_of(Role::GATEWAYS);
                self.kill(gateway).await
            }
            Strike::PollerKilled => self.kill(Role::Poller).await,
            Strike::RecorderKilled => self.kill(Role::Recorder).await,
            Strike::GatewayPaused => {
                let gateway = self.deck.one_of(Role::GATEWAYS);
                self.pause(gateway).await
            }
            Strike::PollerPaused => self.pause(Role::Poller).await,
            Strike::RecorderPaused => self.pause(Role::Recorder).await,
            Strike::RedisKilled => {
                self.mesh.redis.kill();
                self.mesh.redis.start_again().await;
                self.redis_is_back().await
            }
            Strike::RedisFlushed => {
                self.mesh.redis.empty().await;
                self.redis_is_back().await
            }
            Strike::RedisRestored => {
                self.mesh.redis.start_again_from_copy().await;
                self.redis_is_back().await?;
                self.mesh.redis.keep_copy().await;
                Ok(())
            }
            Strike::PostgresKilled => {
                self.mesh.postgres.crash().await;
                self.mesh.postgres.start_again().await;
                self.postgres_is_back().await
            }
            Strike::BackendsTerminated => self.cut_commits().await,
            Strike::PostgresStopped => self.stop_postgres().await,
            Strike::RollingRestart => self.restart_all().await,
        }
    }

    async fn kill(&mut self, role: Role) -> anyhow::Result<()> {
        self.until_started(role).await?;
        let process = self.mesh.role(role);
        process.kill().await?;
        process.start()
    }

    async fn pause(&mut self, role: Role) -> anyhow::Result<()> {
        self.until_started(role).await?;
        let _paused = self.mesh.role(role).pause()?;
        let more = Duration::from_millis(self.deck.between(0, 1_500));
        tokio::time::sleep(PAUSE_MIN + more).await;
        Ok(())
    }

    /// The leader in three of four cases.
    async fn an_engine(&mut self) -> anyhow::Result<(Role, Vec<(u32, u64)>)> {
        for role in Role::ENGINES {
            self.until_started(role).await?;
        }
        let leader = self.mesh.leader().await;
        let engine = match leader {
            Some(leader) if self.deck.between(0, 3) > 0 => leader,
            _ => self.deck.one_of(Role::ENGINES),
        };
        let led = self.mesh.led_by(engine).await;
        Ok((engine, led))
    }

    async fn kill_engine(&mut self) -> anyhow::Result<()> {
        let (engine, led) = self.an_engine().await?;
        let begun = Instant::now();
        self.mesh.role(engine).kill().await?;
        self.watch_take_over(Loss::Killed, begun, &led).await?;
        self.mesh.role(engine).start()
    }

    async fn pause_engine(&mut self) -> anyhow::Result<()> {
        let (engine, led) = self.an_engine().await?;
        let begun = Instant::now();
        let paused: Paused = self.mesh.role(engine).pause()?;
        self.watch_take_over(Loss::Paused, begun, &led).await?;
        tokio::time::sleep(PAUSE_MIN.saturating_sub(begun.elapsed())).await;
        drop(paused);
        if led.is_empty() {
            return Ok(());
        }
        let ended = self.mesh.role(engine).end().await?;
        if ended.code() != Some(FENCED) {
            let name = engine.name();
            self.progress.fault(format!(
                "{name} was overtaken while it stood still, and ended with {ended}, not with {FENCED}"
            ));
        }
        self.mesh.role(engine).start()
    }

    async fn watch_take_over(&mut self, loss: Loss, begun: Instant, led: &[(u32, u64)]) -> anyhow::Result<()> {
        if led.is_empty() {
            return Ok(());
        }
        self.mesh.until_taken(led).await?;
        self.watch_answers(loss, begun, begun.elapsed(), led).await
    }

    async fn watch_answers(
        &mut self,
        loss: Loss,
        begun: Instant,
        taken: Duration,
        led: &[(u32, u64)],
    ) -> anyhow::Result<()> {
        let before = self.progress.answered_on(led);
        self.until("an answer after a take-over", |progress| {
            progress.answered_on(led) > before
        })
        .await?;
        let answered = begun.elapsed();
        self.marks.take_overs.push(TakeOver { loss, taken, answered });
        Ok(())
    }

    async fn redis_is_back(&mut self) -> anyhow::Result<()> {
        let (begun, before) = (Instant::now(), self.progress.answered());
        self.until("an answer with Redis back", |progress| progress.answered() > before)
            .await?;
        self.marks.redis_returns.push(begun.elapsed());
        Ok(())
    }

    async fn postgres_is_back(&mut self) -> anyhow::Result<()> {
        let (begun, before) = (Instant::now(), self.progress.answered());
        self.until("an answer with Postgres back", |progress| progress.answered() > before)
            .await?;
        self.marks.postgres_returns.push(begun.elapsed());
        Ok(())
    }

    async fn stop_postgres(&mut self) -> anyhow::Result<()> {
        self.mesh.postgres.kill();
        tokio::time::sleep(LAST_ANSWERS).await;
        let before = self.progress.answered();
        tokio::time::sleep(self.outage.saturating_sub(LAST_ANSWERS)).await;
        let meanwhile = self.progress.answered() - before;
        if meanwhile > 0 {
            self.progress
                .fault(format!("{meanwhile} orders were answered while Postgres was away"));
        }
        self.mesh.postgres.start_again().await;
        self.postgres_is_back().await
    }

    /// Ends connections at the moment they commit, as seen by the server.
    async fn cut_commits(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut cut = 0;
        while cut < BACKENDS {
            let ended = sqlx::query_scalar::<_, i64>(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE state = 'active' AND query LIKE 'WITH head AS%' AND pid <> pg_backend_pid()",
            );
            cut += ended.fetch_one(&self.mesh.pool).await.unwrap_or(0).cast_unsigned();
            self.mind()?;
            ensure!(begun.elapsed() < PATIENCE, "no commit was seen");
        }
        self.marks.commits_cut += cut;
        Ok(())
    }

    async fn restart_all(&mut self) -> anyhow::Result<()> {
        for role in Role::ALL {
            self.until_started(role).await?;
            self.mesh.until_ready(role).await?;
            let led = self.mesh.led_by(role).await;
            let begun = Instant::now();
            self.mesh.role(role).terminate()?;
            // Watched while it stops: a leader gives its shards back before it has ended.
            self.mesh.until_taken(&led).await?;
            let taken = begun.elapsed();
            let ended = self.mesh.role(role).end().await?;
            if !ended.success() {
                self.progress
                    .fault(format!("{} was told to stop, and ended with {ended}", role.name()));
            }
            if !led.is_empty() {
                self.watch_answers(Loss::Stopped, begun, taken, &led).await?;
            }
            self.mesh.role(role).start()?;
            self.mesh.until_ready(role).await?;
        }
        Ok(())
    }

    /// A role that ended by itself is about to be started again.
    async fn until_started(&mut self, role: Role) -> anyhow::Result<()> {
        self.mind()?;
        while !self.mesh.is_started(role) {
            tokio::time::sleep(LOOK_EVERY).await;
            self.mind()?;
        }
        Ok(())
    }

    /// Waits for progress, and starts again what ends meanwhile.
    ///
    /// # Errors
    /// When there is none.
    pub async fn until(&mut self, what: &str, there: impl Fn(&Progress) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !there(self.progress) {
            self.mind()?;
            ensure!(begun.elapsed() < PATIENCE, "{what} did not come within {PATIENCE:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Starts again what ended by itself, and judges how it ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn mind(&mut self) -> anyhow::Result<()> {
        for end in self.mesh.mind()? {
            let allowed = match end.role {
                // Fenced is an ordinary life; 1 is a store that was away at the start.
                Role::EngineA | Role::EngineB => [1, FENCED].map(Some).contains(&end.status.code()),
                _ => end.status.code() == Some(1),
            };
            let name = end.role.name();
            if allowed {
                self.progress
                    .again(&format!("{name} started again after {}", end.status));
            } else {
                self.progress
                    .fault(format!("{name} ended by itself ({}):\n{}", end.status, end.log));
            }
        }
        Ok(())
    }
}
