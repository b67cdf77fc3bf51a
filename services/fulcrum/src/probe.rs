//! Looks at what a process needs, about once a second, and writes on its board what it sees.

use std::time::{Duration, SystemTime};

use bus::Commands;
use engine::Status;
use engine::journal::unled;
use opentelemetry::metrics::Gauge;
use opentelemetry::{KeyValue, global};
use poller::FeedState;
use sqlx::PgPool;
use tokio::sync::watch;

use crate::ops::{Board, Condition};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause while somebody waits for what is missing.
const LOOK_SOONER: Duration = Duration::from_millis(100);
/// How long a store may take to answer before it counts as away.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Whether Redis answers. Never ends.
pub(crate) async fn redis(board: Board, redis: bus::Redis) {
    let mut connection: Option<Commands> = None;
    loop {
        let look = async {
            let connection = match &mut connection {
                Some(connection) => connection,
                None => connection.insert(redis.commands().await?),
            };
            connection.ping().await?;
            anyhow::Ok(())
        };
        board.set("redis", seen(tokio::time::timeout(ANSWER_WITHIN, look).await));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether Postgres answers. Never ends.
pub(crate) async fn postgres(board: Board, pool: PgPool) {
    loop {
        let look = async {
            sqlx::query("SELECT 1").execute(&pool).await?;
            anyhow::Ok(())
        };
        board.set("postgres", seen(tokio::time::timeout(ANSWER_WITHIN, look).await));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Which shards an engine leads, and how many requests wait for it. One that leads none is ready when others lead them all: it stands
/// by. Never ends.
pub(crate) async fn engine(
    board: Board,
    name: String,
    mut status: watch::Receiver<Status>,
    pool: PgPool,
    redis: bus::Redis,
) {
    let gauges = ShardGauges::new();
    let mut connection: Option<Commands> = None;
    loop {
        let leads: Vec<u32> = status.borrow_and_update().leads.iter().copied().collect();
        let unled = tokio::time::timeout(ANSWER_WITHIN, unled(&pool))
            .await
            .ok()
            .and_then(Result::ok);
        let waiting = waiting(&redis, &mut connection, &leads).await;
        let led = leads.len();
        let stands_by = leads.is_empty() && unled == Some(0);
        let condition = Condition::new(!leads.is_empty() || stands_by)
            .with("leads", leads)
            .with("stands_by", stands_by)
            .with("unled", unled);
        board.set(&name, condition);
        gauges.tell(&name, led, unled, waiting);
        // A failed send means that the engine ended; the next look says so, in its own time.
        let changed = tokio::time::timeout(LOOK_EVERY, status.changed()).await;
        if let Ok(Err(_)) = changed {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// How many requests stand in the queues of these shards; none when Redis does not say it of all of them.
async fn waiting(redis: &bus::Redis, connection: &mut Option<Commands>, shards: &[u32]) -> Option<u64> {
    let look = async {
        let open = match connection {
            Some(open) => open.clone(),
            None => connection.insert(redis.commands().await?).clone(),
        };
        let lengths = shards.iter().map(|shard| bus::queue_length(open.clone(), *shard));
        futures::future::try_join_all(lengths).await
    };
    let lengths = tokio::time::timeout(ANSWER_WITHIN, look).await.ok()?.ok()?;
    Some(lengths.into_iter().sum())
}

/// What an engine leads and what nobody does, on the metrics page.
struct ShardGauges {
    led: Gauge<u64>,
    unled: Gauge<u64>,
    waiting: Gauge<u64>,
}

impl ShardGauges {
    fn new() -> Self {
        let meter = global::meter("fulcrum.engine");
        let gauge =
            |name: &'static str, description: &'static str| meter.u64_gauge(name).with_description(description).build();
        Self {
            led: gauge("fulcrum.engine.shards_led", "Shards that this engine leads."),
            unled: gauge(
                "fulcrum.engine.shards_unled",
                "Shards that nobody leads, as this engine sees it.",
            ),
            waiting: gauge(
                "fulcrum.engine.queue_length",
                "Requests that wait in the queues of the shards that this engine leads.",
            ),
        }
    }

    /// Without an answer of the store the last word stands.
    fn tell(&self, engine: &str, led: usize, unled: Option<i64>, waiting: Option<u64>) {
        let engine = [KeyValue::new("engine", engine.to_owned())];
        self.led.record(u64::try_from(led).unwrap_or(u64::MAX), &engine);
        if let Some(unled) = unled {
            self.unled.record(unled.unsigned_abs(), &engine);
        }
        if let Some(waiting) = waiting {
            self.waiting.record(waiting, &engine);
        }
    }
}

/// Whether every shard has a leader. Never ends.
pub(crate) async fn shards(board: Board, pool: PgPool) {
    loop {
        let condition = match tokio::time::timeout(ANSWER_WITHIN, unled(&pool)).await {
            Ok(Ok(unled)) => Condition::new(unled == 0).with("unled", unled),
            Ok(Err(error)) => Condition::missing(error),
            Err(_) => Condition::missing("no answer in time"),
        };
        let ready = condition.is_ready();
        board.set("shards", condition);
        tokio::time::sleep(if ready { LOOK_EVERY } else { LOOK_SOONER }).await;
    }
}

/// Whether quotes flow, and from where. Never ends.
pub(crate) async fn feed(board: Board, mut state: watch::Receiver<FeedState>) {
    loop {
        let now = state.borrow_and_update().clone();
        let age_ms = now
            .last_frame_at
            .and_then(|at| SystemTime::now().duration_since(at).ok())
            .and_then(|age| u64::try_from(age.as_millis()).ok());
        let condition = Condition::new(now.ready())
            .with("mode", now.mode.to_string())
            .with("origin", now.origin)
            .with("connected", now.connected)
            .with("last_frame_age_ms", age_ms)
            .with("reconnects", now.reconnects);
        board.set("feed", condition);
        if state.changed().await.is_err() {
            board.set("feed", Condition::missing("the poller ended"));
            return;
        }
    }
}

/// Whether a gateway would answer calls. Never ends while it lives.
pub(crate) async fn gateway(board: Board, mut readiness: watch::Receiver<bool>, listen: std::net::SocketAddr) {
    loop {
        let ready = *readiness.borrow_and_update();
        board.set("gateway", Condition::new(ready).with("listen", listen.to_string()));
        if readiness.changed().await.is_err() {
            board.set("gateway", Condition::missing("the gateway ended"));
            return;
        }
    }
}

fn seen(look: Result<anyhow::Result<()>, tokio::time::error::Elapsed>) -> Condition {
    match look {
        Ok(Ok(())) => Condition::new(true),
        Ok(Err(error)) => Condition::missing(error),
        Err(_) => Condition::missing("no answer in time"),
    }
}
