//! The process: takes its part of the shards, keeps their leases, gives them away when others should lead them, and leaves in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bus::backoff::Backoff;
use bus::{Presence as _, PriceEntry};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::balance::Balance;
use crate::commit::ask_until_answered;
use crate::follow::Replicas;
use crate::ground::Ground;
use crate::health::Status;
use crate::inbox::EngineClock;
use crate::journal::{Head, Journal, LEASE_RENEW, Owner};
use crate::lead::{Ended, LeadError, Leader, Led, Order};
use crate::presence;
use crate::recover::{RecoverError, Replica, millis};
use crate::run::{EngineError, Leading, Options, on};
use crate::shard::Corrupt;
use crate::window::Limits;

/// How often it is looked which shards are to be taken and given.
const LOOK_FOR_SHARDS: std::time::Duration = std::time::Duration::from_millis(250);

/// A follower, which only ends when the journal is corrupt.
pub(crate) type Follower = JoinSet<Result<std::convert::Infallible, Corrupt>>;

/// A shard made ready.
type TakenUp<G> = Result<Box<Led<G>>, TakeUpError>;

/// Why a shard was not taken up.
#[derive(Debug)]
enum TakeUpError {
    Corrupt(Corrupt),
    /// Which, and why.
    Lead(u32, LeadError),
}

/// See the module.
pub(crate) struct Host<G: Ground> {
    ground: G,
    leaders: Leading<G>,
    /// Started with the process, when the clocks were found to agree: a wall clock that jumped since moves no shard.
    clock: EngineClock,
    options: Options,
    owner: Owner,
    prices: broadcast::Sender<Arc<[PriceEntry]>>,
    replicas: Replicas,
    balance: Balance,
    /// Leases held, by shard and epoch: of shards that are taken up, led, or about to be left.
    held: BTreeMap<u32, u64>,
    /// Shards that the loop leads.
    leading: BTreeSet<u32>,
    /// Shards that the loop was told to leave.
    leaving: BTreeSet<u32>,
    /// Other engines run, so that what is left here is led there.
    others: bool,
    taking: JoinSet<TakenUp<G>>,
    orders: mpsc::UnboundedSender<Order<G>>,
    ended: mpsc::UnboundedReceiver<Ended>,
    leader: JoinSet<Result<(), LeadError>>,
    stop_leader: CancellationToken,
    shown: watch::Sender<BTreeSet<u32>>,
    status: watch::Sender<Status>,
    proof: watch::Sender<Instant>,
    presence: AbortOnDropHandle<()>,
}

impl<G: Ground> Host<G> {
    /// Starts a process that leads nothing yet.
    pub(crate) fn start(
        ground: G,
        leaders: Leading<G>,
        options: Options,
        prices: broadcast::Sender<Arc<[PriceEntry]>>,
        replicas: Replicas,
        status: watch::Sender<Status>,
    ) -> Self {
        let clock = EngineClock::start(ground.wall_us());
        let owner = Owner {
            id: ground.fresh_id(),
            name: options.name.clone(),
        };
        // Unbounded, because neither side may wait for the other: there are never more messages than shards.
        let (orders, obeyed) = mpsc::unbounded_channel();
        let (tell, ended) = mpsc::unbounded_channel();
        let (stop_leader, mut leader) = (CancellationToken::new(), JoinSet::new());
        let (all, heard) = (options.shards, prices.subscribe());
        let lead = Leader::new(
            leaders.ground.clone(),
            all,
            clock.clone(),
            heard,
            obeyed,
            tell,
            replicas.clone(),
        );
        leader.spawn_on(lead.lead(stop_leader.clone()), &leaders.runtime);
        let (proof, proven) = watch::channel(Instant::now());
        let (shown, led) = watch::channel(BTreeSet::new());
        let presence = presence::keep(ground.presence(), options.name.clone(), led, proven);
        Self {
            ground,
            leaders,
            clock,
            options,
            owner,
            prices,
            replicas,
            balance: Balance::default(),
            held: BTreeMap::new(),
            leading: BTreeSet::new(),
            leaving: BTreeSet::new(),
            others: false,
            taking: JoinSet::new(),
            orders,
            ended,
            leader,
            stop_leader,
            shown,
            status,
            proof,
            presence: AbortOnDropHandle::new(tokio::spawn(presence)),
        }
    }

    /// Serves until `shutdown`.
    pub(crate) async fn serve(
        &mut self,
        follower: &mut Follower,
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
                Some(ended) = self.leader.join_next() => loop_ended(ended)?,
                Some(ended) = self.ended.recv() => self.shard_ended(ended).await?,
                Some(taken) = self.taking.join_next() => self.taken_up(taken)?,
                _ = looks.tick() => self.look().await?,
                Some(ended) = follower.join_next() => match ended {
                    Ok(Ok(never)) => match never {},
                    Ok(Err(cause)) => return Err(cause.into()),
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
            }
        }
    }

    async fn renew(&mut self) -> Result<(), EngineError> {
        let held: Vec<(u32, u64)> = self.held.iter().map(|(shard, epoch)| (*shard, *epoch)).collect();
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

    /// Takes and gives what the balance between the engines asks for.
    async fn look(&mut self) -> Result<(), EngineError> {
        let journal = self.ground.journal();
        let (engines, heads) = match futures::try_join!(journal.engines(), journal.heads()) {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(%error, "shards not looked for");
                return Ok(());
            }
        };
        self.others = engines.iter().any(|engine| engine.id != self.owner.id);
        // What is on its way out already counts as given.
        let led = self
            .held
            .keys()
            .filter(|it| !self.leaving.contains(it))
            .copied()
            .collect();
        let plan = self.balance.plan(Instant::now(), self.owner.id, &engines, &heads, &led);
        for shard in plan.give.into_iter().filter(|it| self.leading.contains(it)) {
            tracing::info!(shard, "given to another engine");
            self.leaving.insert(shard);
            self.order(Order::Leave(shard));
        }
        for shard in plan.take {
            match self.ground.journal().acquire(shard, &self.owner).await {
                Ok(Some(head)) => self.take_up(head),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, shard, "lease not taken"),
            }
        }
        Ok(())
    }

    /// Makes ready to lead a shard whose lease was just taken, in a task of its own, because with a large state it takes longer than a
    /// lease lasts.
    fn take_up(&mut self, head: Head) {
        self.held.insert(head.shard, head.epoch);
        let (ground, replicas, window) = (self.ground.clone(), self.replicas.clone(), self.options.window);
        let Leading {
            ground: leaders,
            runtime,
        } = self.leaders.clone();
        let (mut clock, catalogue) = (self.clock.clone(), self.options.instruments.clone());
        // From here on no quote is missed; those before are read from the stream.
        let prices = self.prices.subscribe();
        self.taking.spawn(async move {
            let started = Instant::now();
            let recovered = recover(ground.journal().clone(), replicas, head.shard, window).await;
            let replica = recovered.map_err(TakeUpError::Corrupt)?;
            if (replica.shard.sequence(), replica.chain) != (head.sequence, head.chain) {
                // The head moved between taking the lease and reading the rows: somebody leads under a newer epoch.
                return Err(TakeUpError::Lead(head.shard, LeadError::Fenced { shard: head.shard }));
            }
            let (shard, epoch, sequence) = (head.shard, head.epoch, head.sequence);
            let trades = replica.shard.state().open_trades();
            let now = clock.now(ground.wall_us());
            let taking_up = async move { Led::take_up(leaders, replica, &head, now, prices, &catalogue).await };
            let led = on(&runtime, taking_up)
                .await
                .map_err(|error| TakeUpError::Lead(shard, error))?;
            tracing::info!(shard, epoch, sequence, trades, took_ms = millis(started), "leading");
            Ok(Box::new(led))
        });
    }

    fn taken_up(&mut self, taken: Result<TakenUp<G>, JoinError>) -> Result<(), EngineError> {
        match settled(taken) {
            Ok(led) => {
                let shard = led.number();
                self.order(Order::Lead(led));
                self.leading.insert(shard);
                self.tell();
                Ok(())
            }
            Err(TakeUpError::Corrupt(cause)) => Err(cause.into()),
            Err(TakeUpError::Lead(_, fenced @ LeadError::Fenced { .. })) => Err(EngineError::Fenced(fenced)),
            Err(TakeUpError::Lead(shard, error)) => {
                tracing::warn!(%error, "not led; it will be taken again");
                // Not renewed any more, so it runs out by itself.
                self.held.remove(&shard);
                Ok(())
            }
        }
    }

    fn order(&self, order: Order<G>) {
        // A loop that ended is seen by whoever waits for it.
        let _ended = self.orders.send(order);
    }

    /// The loop leads a shard no longer.
    async fn shard_ended(&mut self, ended: Ended) -> Result<(), EngineError> {
        let Ended { shard, why } = ended;
        let epoch = self.held.remove(&shard);
        self.leading.remove(&shard);
        self.leaving.remove(&shard);
        self.tell();
        match why {
            None => {}
            Some(error @ LeadError::Panicked { .. }) => {
                tracing::error!(%error, "leadership given up with its state; whoever is first takes it from the journal");
            }
            Some(error @ LeadError::Journal { .. }) => {
                tracing::warn!(%error, "leadership given up; it will be taken again");
                return Ok(());
            }
            Some(fenced @ LeadError::Fenced { .. }) => return Err(EngineError::Fenced(fenced)),
        }
        let held: Vec<(u32, u64)> = epoch.map(|epoch| (shard, epoch)).into_iter().collect();
        if let Err(error) = self.ground.journal().release(&self.owner, &held).await {
            tracing::warn!(%error, shard, "lease not given back; it runs out by itself");
        }
        Ok(())
    }

    /// Lets the loop finish what it decided, then gives the leases back. When other engines run, gateways go on queueing for them.
    pub(crate) async fn leave(&mut self) {
        self.taking.shutdown().await;
        self.stop_leader.cancel();
        while let Some(ended) = self.leader.join_next().await {
            if let Err(error) = loop_ended(ended) {
                tracing::warn!(%error, "leadership ended while leaving");
            }
        }
        self.presence.abort();
        let led: Vec<u32> = std::mem::take(&mut self.leading).into_iter().collect();
        if !self.others
            && let Err(error) = self.ground.presence().hide(&led, &self.owner.name).await
        {
            tracing::debug!(%error, "presence runs out by itself");
        }
        let held: Vec<(u32, u64)> = std::mem::take(&mut self.held).into_iter().collect();
        let journal = self.ground.journal();
        let given_back = async {
            journal.release(&self.owner, &held).await?;
            journal.retire(&self.owner).await
        };
        if let Err(error) = given_back.await {
            tracing::warn!(%error, "leases not given back; they run out by themselves");
        }
        self.tell();
    }

    fn tell(&self) {
        self.shown.send_replace(self.leading.clone());
        self.status.send_replace(Status {
            leads: self.leading.clone(),
        });
    }
}

fn loop_ended(ended: Result<Result<(), LeadError>, JoinError>) -> Result<(), EngineError> {
    settled(ended).map_err(EngineError::Fenced)
}

/// What a task came to; its panic is ours.
fn settled<T>(ended: Result<T, JoinError>) -> T {
    match ended {
        Ok(ended) => ended,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
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
