//! What stops a recorder, and what does not.

use uuid::Uuid;

/// Why the recorder stopped. Each is a matter for people; none goes away by starting it again.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The journal lacks an entry. Going on would make history up.
    #[error("journal of shard {shard}: expected sequence {expected}, found {}", found.map_or("nothing".into(), |found| found.to_string()))]
    Gap {
        /// Whose journal.
        shard: i32,
        /// The sequence that should come next.
        expected: i64,
        /// What comes instead; nothing when the journal ends before the shard's head.
        found: Option<i64>,
    },
    /// An entry cannot be read: it is damaged, or a newer engine wrote it.
    #[error("journal of shard {shard}, sequence {sequence}: {what} is missing or cannot be read")]
    Unreadable {
        /// Whose journal.
        shard: i32,
        /// The entry, or the first of its row when the whole row is unreadable.
        sequence: i64,
        /// What could not be read.
        what: &'static str,
    },
    /// The ledger lines of an event do not sum to zero: money was made or lost.
    #[error(
        "journal of shard {shard}, sequence {sequence}: the lines of event {event} do not sum to zero in {currency_code}"
    )]
    Unbalanced {
        /// Whose journal.
        shard: i32,
        /// The entry.
        sequence: i64,
        /// The event's number in the entry, from 0.
        event: i32,
        /// The currency.
        currency_code: String,
    },
    /// One shard executed one operation twice.
    #[error(
        "operation {request_id} of {principal:?} was executed twice by shard {shard}: at sequence {first} and at {second}"
    )]
    ExecutedTwice {
        /// By whom.
        shard: i32,
        /// For whom.
        principal: String,
        /// Which.
        request_id: Uuid,
        /// Sequence of the one on record.
        first: i64,
        /// Sequence of the other.
        second: i64,
    },
    /// A trade changed that never opened.
    #[error("trade {shard}-{number} changed but was never opened")]
    TradeUnknown {
        /// Whose trade.
        shard: i32,
        /// Its number.
        number: i64,
    },
    /// The journal no longer reaches back to its first entry, so a rebuild would lose what came before. Nothing was touched.
    #[error("journal of shard {shard} begins at sequence {}: nothing can be rebuilt from it", first.map_or("none".into(), |first| first.to_string()))]
    JournalTrimmed {
        /// Whose journal.
        shard: i32,
        /// Where it begins; nothing when it is empty.
        first: Option<i64>,
    },
    /// Postgres refused for good: a table is missing, a row breaks a constraint, we may not.
    #[error("postgres: {0}")]
    Database(#[from] sqlx::Error),
}

impl RecorderError {
    /// Whether waiting may mend it: Postgres is away, starting, stopping, failing over, full or busy.
    pub(crate) fn is_passing(&self) -> bool {
        let Self::Database(error) = self else { return false };
        match error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
            sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(answer) => answer.code().is_some_and(|code| passing_code(&code)),
            _ => false,
        }
    }
}

/// Postgres's error codes, by class: connection, rollback by conflict, resources, object in use, operator's intervention, operating
/// system; and a server that only reads, because it is no longer the primary.
fn passing_code(code: &str) -> bool {
    ["08", "40", "53", "55", "57", "58"]
        .iter()
        .any(|class| code.starts_with(class))
        || code == "25006"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_away_is_waited_for_and_a_fault_is_not() {
        assert!(RecorderError::from(sqlx::Error::PoolTimedOut).is_passing());
        assert!(!RecorderError::from(sqlx::Error::RowNotFound).is_passing());
        assert!(!RecorderError::TradeUnknown { shard: 0, number: 1 }.is_passing());
        for code in ["08006", "40001", "53100", "57P01", "57P03", "25006"] {
            assert!(passing_code(code), "{code}");
        }
        for code in ["23505", "42P01", "28P01", "22021"] {
            assert!(!passing_code(code), "{code}");
        }
    }
}
