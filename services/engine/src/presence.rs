//! Showing gateways which shards this process leads, and hiding that when it cannot be proven.
//!
//! With Postgres away nothing can be acknowledged, so gateways are to stop queueing within two seconds. That must not hang on the loop
//! that leads, which waits for Postgres then; so it is a task of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use bus::Presence;
use bus::presence::PRESENCE_EVERY;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long after the last proof of leadership shards are still shown as led.
const PROOF_MAX: Duration = Duration::from_millis(1_500);
/// How often the proof is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Shows the shards that are led, until whoever leads them is gone.
pub async fn keep<P: Presence>(
    presence: P,
    engine: String,
    mut leading: watch::Receiver<BTreeSet<u32>>,
    proven: watch::Receiver<Instant>,
) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut shown: Option<Instant> = None;
    loop {
        let changed = tokio::select! {
            biased;
            changed = leading.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
            _ = looks.tick() => false,
        };
        let shards: Vec<u32> = leading.borrow_and_update().iter().copied().collect();
        let done = if proven.borrow().elapsed() > PROOF_MAX {
            if shown.is_none() {
                continue;
            }
            tracing::warn!("leadership unproven: no calls are taken");
            presence.hide(&shards, &engine).await.map(|()| shown = None)
        } else if changed || shown.is_none_or(|at| at.elapsed() >= PRESENCE_EVERY) {
            presence
                .show(&shards, &engine)
                .await
                .map(|()| shown = Some(Instant::now()))
        } else {
            continue;
        };
        if let Err(error) = done {
            tracing::debug!(%error, "presence neither shown nor hidden");
        }
    }
}
