//! Why a journal cannot be trusted.

/// The journal does not fit this state: it is damaged, or one of another shard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// An entry does not follow on the one before.
    #[error("shard {shard}: the journal goes from sequence {before} to {found}")]
    Gap {
        /// Which shard.
        shard: u32,
        /// Last sequence folded in.
        before: u64,
        /// Sequence that came.
        found: u64,
    },
    /// An entry cannot be read or applied.
    #[error("shard {shard}, sequence {sequence}: {what}")]
    Entry {
        /// Which shard.
        shard: u32,
        /// Which entry.
        sequence: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The state after a row is not the one that its writer had.
    #[error("shard {shard}, sequence {sequence}: the state hash is {ours:032x}, the journal says {journal:032x}")]
    Hash {
        /// Which shard.
        shard: u32,
        /// Last entry of the row.
        sequence: u64,
        /// What the replay came to.
        ours: u128,
        /// What the row says.
        journal: u128,
    },
    /// A row or chunk is not what its digest says.
    #[error("shard {shard}, sequence {sequence}: {what} does not match its digest")]
    Digest {
        /// Which shard.
        shard: u32,
        /// First sequence of the row, or sequence of the snapshot.
        sequence: u64,
        /// What.
        what: String,
    },
}
