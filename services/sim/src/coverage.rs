//! Which corners a run went through. A simulation that never gets into a corner proves nothing about it, so the standard seeds must
//! have been in all of them.

use std::fmt;

macro_rules! corners {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A corner worth getting into.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Corner { $($(#[$doc])* $name,)* }

        impl Corner {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

corners! {
    /// A mutation was acknowledged for the first time.
    Acknowledged,
    /// A commit was refused because somebody else leads.
    Fenced,
    /// A read was held back because somebody else leads.
    ReadFenced,
    /// An unanswered commit turned out to be carried out.
    AmbiguousCommitted,
    /// An unanswered commit turned out not to be carried out.
    AmbiguousNot,
    /// A commit landed after its engine had given up waiting or died.
    ZombieCommit,
    /// A settling engine waited for a transaction of its own that was still in flight.
    SettleWaited,
    /// A second try of a commit found that the first had landed in between.
    RetryMetFirst,
    /// A trim was refused because the queue had changed.
    TrimRefused,
    /// An operation acknowledged before was sent again and got the same answer.
    DedupeHit,
    /// A known id with another command was refused.
    Reused,
    /// The same id from two principals was two operations.
    SharedId,
    /// An id from before the window was refused.
    IdExpired,
    /// A command past its deadline was refused.
    DeadlineExpired,
    /// A command was refused because the price was stale.
    StalePrice,
    /// A call was turned away because nobody led.
    NoLeader,
    /// A call was turned away because the queue was full.
    QueueFull,
    /// A call was turned away because the bus was away.
    BusAway,
    /// A call ended without anybody knowing its outcome.
    UnknownOutcome,
    /// A call was refused for its token.
    TokenRefused,
    /// An operation had left the window, and the tables that know it were away.
    HistoryBehind,
    /// A shard was taken over from a leader that had given it back.
    TakeOverClean,
    /// A shard was taken over from a leader whose lease ran out.
    TakeOverExpired,
    /// A shard was given to another engine while both ran.
    Given,
    /// An engine was killed.
    Killed,
    /// An engine was killed while a commit of its own was under way.
    KilledInCommit,
    /// An engine was stopped in order.
    Stopped,
    /// An engine stood still and came back.
    Paused,
    /// An engine exited because it was fenced.
    ExitFenced,
    /// An engine refused to start because the clocks were apart.
    ExitClocks,
    /// A snapshot was written.
    SnapshotWritten,
    /// A snapshot was read back.
    SnapshotUsed,
    /// A snapshot was damaged.
    SnapshotDamaged,
    /// Postgres was away.
    PostgresAway,
    /// Redis was away.
    RedisAway,
    /// Redis lost the newest of a queue.
    RedisLostTail,
    /// Redis brought back what had been trimmed.
    RedisRepeated,
    /// Redis was emptied.
    RedisEmptied,
    /// Redis was restored from an old copy.
    RedisRestored,
    /// A message came a second time.
    Duplicate,
    /// A message came late.
    Late,
    /// A message that is none was put into a queue.
    Poison,
    /// A message ended among the dead letters.
    DeadLetter,
    /// A reply was lost.
    ReplyLost,
    /// A reply came twice.
    ReplyTwice,
    /// The feed froze.
    FeedFroze,
    /// The feed left something out.
    FeedGap,
    /// The feed repeated itself.
    FeedRepeated,
    /// The feed came out of order.
    FeedReordered,
    /// The feed showed a price far off.
    FeedSpike,
    /// The price stream was emptied and its ids started over.
    StreamRestarted,
    /// A clock of an engine's machine jumped.
    EngineClockJumped,
    /// Postgres's clock jumped.
    PostgresClockJumped,
    /// A gateway was killed.
    GatewayKilled,
    /// A trade was opened.
    Opened,
    /// A stop-loss or take-profit fired.
    TriggerFired,
    /// A trade was liquidated.
    Liquidated,
    /// The repeat window forgot something.
    WindowForgot,
    /// A read with a sequence to wait for was answered.
    ReadAfterWrite,
}

/// How often each corner was visited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage([u64; Corner::ALL.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; Corner::ALL.len()])
    }
}

impl Coverage {
    /// Counts a visit.
    pub fn visit(&mut self, corner: Corner) {
        self.0[corner as usize] += 1;
    }

    /// How often it was visited.
    pub fn of(&self, corner: Corner) -> u64 {
        self.0[corner as usize]
    }

    /// Adds the visits of another run.
    pub fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            *ours += theirs;
        }
    }

    /// Corners never visited.
    pub fn missing(&self) -> Vec<Corner> {
        Corner::ALL
            .iter()
            .copied()
            .filter(|corner| self.of(*corner) == 0)
            .collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in Corner::ALL.chunks(4) {
            for corner in row {
                write!(f, "{:>9} {:<20}", self.of(*corner), format!("{corner:?}"))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
