//! The process: checks what it stands on, follows every shard, leads those that nobody leads, and leaves in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::backoff::Backoff;
use bus::{BusError, FollowPrices, PriceEntry, PriceStream as _};
use engine_core::Instrument;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::commit::{Committer, ask_until_answered};
use crate::config::{Config, Snapshots};
use crate::follow::{self, Replicas};
use crate::ground::{Ground, RealGround};
use crate::health::Status;
use crate::inbox::{EngineClock, SKEW_MAX};
use crate::journal::{Head, Journal, JournalError, LEASE_RENEW, Owner, PgJournal, UnsafeSetting};
use crate::lead::{LeadError, Leader, Shared};
use crate::recover::{RecoverError, Replica, millis};
use crate::shard::{Corrupt, Shard};
use crate::window::Limits;

/// How often unled shards are looked for.
const LOOK_FOR_SHARDS: std::time::Duration = std::time::Duration::from_millis(250);
/// Connections to Postgres: commit, check, renew, follow, recover, and two to spare.
const CONNECTIONS: u32 = 8;
/// Price batches that a slow shard may be behind before it reads them from the stream itself.
const PRICES_BUFFERED: usize = 256;

/// Why the engine stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another engine took a shard over while this one believed to lead it.
    #[error(transparent)]
    Fenced(LeadError),
    /// The journal does not replay to the state its writer had.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The database would lose what it acknowledged.
    #[error(transparent)]
    UnsafeSetting(#[from] UnsafeSetting),
    /// Clocks do not agree at the start.
    #[error(
        "the clocks of this machine, Postgres and Redis are {apart_ms} ms apart, at most {limit_ms} ms are allowed: synchronise them"
    )]
    Clock {
        /// Largest difference seen. Milliseconds.
        apart_ms: i64,
        /// Largest allowed. Milliseconds.
        limit_ms: u128,
    },
    /// The journal cannot be reached at the start.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The bus cannot be reached at the start.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl EngineError {
    /// The process's exit code: 3 fenced, 4 corrupt, 5 unsafe database settings, 6 clock, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Fenced(_) => 3,
            Self::Corrupt(_) => 4,
            Self::UnsafeSetting(_) => 5,
            Self::Clock { .. } => 6,
            Self::Journal(_) | Self::Bus(_) => 1,
        }
    }
}

/// Runs an engine on Postgres and Redis until `shutdown`, telling `status` which shards it leads.
///
/// # Errors
/// [`EngineError`]; its exit code says what kind.
pub async fn run(
    config: Config,
    status: watch::Sender<Status>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    let connecting = async {
        let journal = PgJournal::connect(&config.database, CONNECTIONS).await?;
        journal.check_settings().await??;
        let shards = journal.shards().await?;
        Ok::<_, EngineError>((RealGround::connect(journal, config.redis).await?, shards))
    };
    let Some(connected) = shutdown.run_until_cancelled(connecting).await else {
        return Ok(());
    };
    let (ground, shards) = connected?;
    let options = Options {
        name: config.name,
        shards,
        instruments: config.instruments,
        snapshots: config.snapshots,
        window: Limits::default(),
    };
    serve(ground, options, status, shutdown).await
}

/// What an engine needs to know besides what it stands on.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this process, unique among running engines.
    pub name: String,
    /// Number of shards of the deployment.
    pub shards: u32,
    /// The instruments to trade.
    pub instruments: Vec<Instrument>,
    /// When snapshots are written.
    pub snapshots: Snapshots,
    /// How long operations are remembered; the same for all engines that ever write to a journal.
    pub window: Limits,
}

/// Runs an engine on any ground: what [`run`] does once it trusts what it stands on.
///
/// # Errors
/// [`EngineError`]; its exit code says what kind.
pub async fn serve<G: Ground>(
    ground: G,
    options: Options,
    status: watch::Sender<Status>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    check_clocks(&ground).await?;
    let owner = Owner {
        id: ground.fresh_id(),
        name: options.name.clone(),
    };
    // What leaders stand on ends after they have, so it has a token of its own.
    let standing = CancellationToken::new();
    let _ends = standing.clone().drop_guard();
    let (proof, proven) = watch::channel(Instant::now());
    let (prices, _) = broadcast::channel(PRICES_BUFFERED);
    let committer = Committer::start(ground.journal().clone(), standing.clone());
    let replicas = Replicas::default();
    let follower = ground.prices().follow(&format!("engine:{}", options.name));
    tokio::spawn(
        standing
            .clone()
            .run_until_cancelled_owned(read_prices(follower, prices.clone())),
    );
    let mut follower = JoinSet::new();
    follower.spawn(follow::follow(
        ground.journal().clone(),
        replicas.clone(),
        options.snapshots,
        options.window,
    ));

    let shared = Shared {
        name: options.name.clone(),
        shards: options.shards,
        committer,
        proven,
    };
    let mut host = Host {
        clock: EngineClock::start(ground.wall_us()),
        ground,
        options,
        owner,
        shared,
        prices,
        replicas,
        led: BTreeMap::new(),
        leaders: JoinSet::new(),
        stop_leaders: CancellationToken::new(),
        status,
        proof,
    };
    let outcome = host.serve(&mut follower, &shutdown).await;
    host.leave().await;
    outcome
}

/// A process that leads shards.
struct Host<G> {
    ground: G,
    /// Started with the process, when the clocks were found to agree: a wall clock that jumped since moves no new leader.
    clock: EngineClock,
    options: Options,
    owner: Owner,
    shared: Shared,
    prices: broadcast::Sender<Arc<[PriceEntry]>>,
    replicas: Replicas,
    led: BTreeMap<u32, u64>,
    leaders: JoinSet<(u32, Result<Shard, LeadError>)>,
    stop_leaders: CancellationToken,
    status: watch::Sender<Status>,
    proof: watch::Sender<Instant>,
}

impl<G: Ground> Host<G> {
    async fn serve(
        &mut self,
        follower: &mut JoinSet<Result<std::convert::Infallible, Corrupt>>,
        shutdown: &CancellationToken,
    ) -> Result<(), EngineError> {
        let mut looks = tokio::time::interval(LOOK_FOR_SHARDS);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut renewals = tokio::time::interval(LEASE_RENEW);
        renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                _ = renewals.tick() => self.renew().await?,
                _ = looks.tick() => self.take_unled_shards().await?,
                Some(ended) = self.leaders.join_next() => self.leader_ended(ended).await?,
                Some(ended) = follower.join_next() => match ended {
                    Ok(Ok(never)) => match never {},
                    Ok(Err(cause)) => return Err(cause.into()),
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
            }
        }
    }

    async fn renew(&mut self) -> Result<(), EngineError> {
        let held: Vec<(u32, u64)> = self.led.iter().map(|(shard, epoch)| (*shard, *epoch)).collect();
        self.clock.now(self.ground.wall_us());
        let asked = Instant::now();
        match self.ground.journal().renew(&self.owner, &held).await {
            Ok(kept) => {
                self.proof.send_replace(asked);
                if let Some((shard, _)) = held.iter().find(|(shard, _)| !kept.contains(shard)) {
                    return Err(EngineError::Fenced(LeadError::Fenced { shard: *shard }));
                }
            }
            Err(error) => tracing::warn!(%error, "leases not renewed"),
        }
        Ok(())
    }

    async fn take_unled_shards(&mut self) -> Result<(), EngineError> {
        let heads = match self.ground.journal().heads().await {
            Ok(heads) => heads,
            Err(error) => {
                tracing::warn!(%error, "shards not looked for");
                return Ok(());
            }
        };
        for head in heads {
            if head.leased || self.led.contains_key(&head.shard) {
                continue;
            }
            match self.ground.journal().acquire(head.shard, &self.owner).await {
                Ok(Some(head)) => self.take_over(head).await?,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, shard = head.shard, "lease not taken"),
            }
        }
        Ok(())
    }

    /// Starts leading a shard whose lease was just taken.
    async fn take_over(&mut self, head: Head) -> Result<(), EngineError> {
        let started = Instant::now();
        // In a task of its own, because with a large state it takes longer than a lease lasts: leases are renewed meanwhile, this one too.
        self.led.insert(head.shard, head.epoch);
        let (journal, replicas) = (self.ground.journal().clone(), self.replicas.clone());
        let recovering = recover(journal, replicas, head.shard, self.options.window);
        let mut recovering = AbortOnDropHandle::new(tokio::spawn(recovering));
        let mut renewals = tokio::time::interval(LEASE_RENEW);
        renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let replica = loop {
            tokio::select! {
                biased;
                recovered = &mut recovering => match recovered {
                    Ok(recovered) => break recovered?,
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
                _ = renewals.tick() => self.renew().await?,
            }
        };
        if (replica.shard.sequence(), replica.chain) != (head.sequence, head.chain) {
            // The head moved between taking the lease and reading the rows: somebody leads under a newer epoch.
            return Err(EngineError::Fenced(LeadError::Fenced { shard: head.shard }));
        }
        tracing::info!(
            shard = head.shard,
            epoch = head.epoch,
            sequence = head.sequence,
            trades = replica.shard.state().open_trades(),
            took_ms = millis(started),
            "leading"
        );
        let leader = Leader::new(
            self.ground.clone(),
            self.shared.clone(),
            replica,
            &head,
            self.clock.clone(),
            self.prices.subscribe(),
        );
        let (catalogue, stop, shard) = (self.options.instruments.clone(), self.stop_leaders.clone(), head.shard);
        self.leaders
            .spawn(async move { (shard, leader.lead(&catalogue, stop).await) });
        self.tell();
        Ok(())
    }

    async fn leader_ended(
        &mut self,
        ended: Result<(u32, Result<Shard, LeadError>), tokio::task::JoinError>,
    ) -> Result<(), EngineError> {
        let (shard, outcome) = match ended {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let epoch = self.led.remove(&shard);
        self.tell();
        match outcome {
            Ok(_) => Ok(()),
            Err(error @ LeadError::Panicked { .. }) => {
                tracing::error!(%error, "leadership given up with its state; whoever is first takes it from the journal");
                let held: Vec<(u32, u64)> = epoch.map(|epoch| (shard, epoch)).into_iter().collect();
                if let Err(error) = self.ground.journal().release(&self.owner, &held).await {
                    tracing::warn!(%error, shard, "lease not given back; it runs out by itself");
                }
                Ok(())
            }
            Err(LeadError::Journal(error)) => {
                tracing::warn!(%error, shard, "leadership given up; it will be taken again");
                Ok(())
            }
            Err(fenced @ LeadError::Fenced { .. }) => Err(EngineError::Fenced(fenced)),
        }
    }

    /// Lets every leader finish what it decided, then gives the leases back.
    async fn leave(&mut self) {
        let held: Vec<(u32, u64)> = self.led.iter().map(|(shard, epoch)| (*shard, *epoch)).collect();
        self.stop_leaders.cancel();
        while let Some(ended) = self.leaders.join_next().await {
            if let Ok((shard, Err(error))) = ended {
                tracing::warn!(%error, shard, "leadership ended while leaving");
            }
        }
        if let Err(error) = self.ground.journal().release(&self.owner, &held).await {
            tracing::warn!(%error, "leases not given back; they run out by themselves");
        }
        self.led.clear();
        self.tell();
    }

    fn tell(&self) {
        let leads = self.led.keys().copied().collect();
        self.status.send_replace(Status { leads });
    }
}

/// Brings a shard to the end of its journal, from the standby's replica or else from a snapshot, however often the journal goes away.
async fn recover<J: Journal>(journal: J, replicas: Replicas, shard: u32, window: Limits) -> Result<Replica, Corrupt> {
    let mut replica = match replicas.take(shard).await {
        Some(replica) => replica,
        None => ask_until_answered(|| Replica::from_snapshot(&journal, shard, window)).await,
    };
    let mut backoff = Backoff::store();
    loop {
        match replica.catch_up(&journal).await {
            Ok(()) => return Ok(replica),
            Err(RecoverError::Corrupt(cause)) => return Err(cause),
            Err(RecoverError::Journal(error)) => {
                tracing::warn!(%error, shard, "recovery: the journal is away");
            }
        }
        backoff.wait().await;
    }
}

async fn read_prices(mut follower: impl FollowPrices, out: broadcast::Sender<Arc<[PriceEntry]>>) {
    // From now on; a leader reads what lies between its journaled cursor and here by itself.
    loop {
        let entries = follower.next().await;
        if !entries.is_empty() {
            // No receiver: nothing is led yet.
            let _unheard = out.send(entries.into());
        }
    }
}

async fn check_clocks<G: Ground>(ground: &G) -> Result<(), EngineError> {
    let asked = Instant::now();
    let clocks = ground.clocks().await?;
    // What the questions took is not a difference between clocks.
    let took = i64::try_from(asked.elapsed().as_micros()).unwrap_or(i64::MAX);
    let apart = clocks.iter().max().unwrap_or(&0) - clocks.iter().min().unwrap_or(&0) - took;
    let limit = SKEW_MAX.as_millis();
    if apart / 1_000 > i64::try_from(limit).unwrap_or(i64::MAX) {
        return Err(EngineError::Clock {
            apart_ms: apart / 1_000,
            limit_ms: limit,
        });
    }
    Ok(())
}
