//! Whether calls would be answered now, as `grpc.health.v1.Health` tells load balancers, per service.
//!
//! It asks what a call would ask: does an engine answer, does the database? A take-over of a few seconds is not told,
//! because sending every client away at once helps nobody: they would get a clear NOT_ACCEPTED here.

use std::sync::Arc;
use std::time::Duration;

use bus::Calls;
use contracts::bus::request::Command;
use contracts::v1::ListInstrumentsRequest;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::deadline::Deadline;
use crate::methods;
use crate::room::Room;
use crate::wire::Envelope;

/// Pause between two looks, and how long one may take.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// Looks in a row that must fail before it is told.
const FAILURES_MIN: u32 = 4;
/// As whom the gateway asks the engine for itself.
const PRINCIPAL: &str = "gateway";
const MARKET: &str = "fulcrum.v1.MarketService";

/// Something that is there, or was until a moment ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pulse {
    seen: bool,
    failures: u32,
}

impl Pulse {
    fn note(&mut self, there: bool) -> bool {
        if there {
            *self = Self {
                seen: true,
                failures: 0,
            };
        } else {
            self.failures = self.failures.saturating_add(1);
        }
        self.is_there()
    }

    fn is_there(self) -> bool {
        self.seen && self.failures < FAILURES_MIN
    }
}

/// Whether a service can do its work.
fn serves(service: &str, engine: bool, history: bool) -> bool {
    // Quotes and instruments need no database.
    engine && (history || service == MARKET)
}

/// Looks until `leaving`, then tells everybody that this server is about to go.
pub(crate) async fn watch<C: Calls>(
    room: Arc<Room<C>>,
    reporter: HealthReporter,
    ready: watch::Sender<bool>,
    leaving: CancellationToken,
) {
    let (mut engine, mut history) = (Pulse::default(), Pulse::default());
    let looking = async {
        loop {
            let asked = tokio::time::timeout(LOOK_TIMEOUT, room.history.answers());
            let (engine_answers, history_answers) = tokio::join!(engine_answers(&room), asked);
            let (engine, history) = (
                engine.note(engine_answers),
                history.note(history_answers.unwrap_or(false)),
            );
            tell(&reporter, engine, history).await;
            ready.send_if_modified(|ready| std::mem::replace(ready, engine && history) != (engine && history));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    leaving.run_until_cancelled(looking).await;
    tell(&reporter, false, false).await;
    ready.send_replace(false);
}

/// Nothing is served yet.
pub(crate) async fn closed(reporter: &HealthReporter) {
    tell(reporter, false, false).await;
}

async fn engine_answers<C: Calls>(room: &Room<C>) -> bool {
    let deadline = Deadline::after(LOOK_TIMEOUT);
    let envelope = Envelope {
        principal: PRINCIPAL,
        account_id: "",
        shard: 0,
        request_id: None,
        expires_at_us: deadline.wall_us(),
        traceparent: "",
        min_sequence: 0,
        command: Command::ListInstruments(ListInstrumentsRequest {}),
    };
    room.calls.call(envelope.into(), deadline.at).await.is_ok()
}

async fn tell(reporter: &HealthReporter, engine: bool, history: bool) {
    let status = |serving: bool| {
        if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    };
    for service in methods::services() {
        reporter
            .set_service_status(service, status(serves(service, engine, history)))
            .await;
    }
    reporter.set_service_status("", status(engine && history)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_absence_is_not_told_and_a_long_one_is() {
        let mut pulse = Pulse::default();
        assert!(!pulse.note(false), "never seen");
        assert!(pulse.note(true));
        for _ in 1..FAILURES_MIN {
            assert!(pulse.note(false));
        }
        assert!(!pulse.note(false));
        assert!(pulse.note(true), "back at once");
    }

    #[test]
    fn the_market_needs_no_database() {
        assert!(methods::services().contains(&MARKET));
        assert!(serves(MARKET, true, false));
        assert!(!serves("fulcrum.v1.TradeService", true, false));
        assert!(!serves(MARKET, false, true));
    }
}
