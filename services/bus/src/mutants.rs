//! Bugs on purpose: each a way in which the protocol is often built wrongly, switched on in a simulation to see that it is caught.
//!
//! They exist with the feature `mutants` only; without it [`is`] is a constant and nothing of them is left in the program. The list is
//! one for bus and engine, because the protocol is one.

/// A protocol with one mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// Nothing is remembered under a `request_id`.
    NoDedupe,
    /// A commit takes the head row as it finds it, instead of comparing it with the one that was decided on.
    NoFence,
    /// What a price fired changes the state, but is not journaled.
    PriceNotJournaled,
    /// A replay takes the time of the machine it runs on.
    WallClockInApply,
    /// The caller is told "done" when its request is queued.
    AckOnEnqueue,
    /// Requests leave the queue before they are in the journal.
    PopBeforeCommit,
    /// A snapshot leaves the repeat window out, and so does the hash.
    SnapshotWithoutDedupe,
    /// Replies leave when they are decided.
    ReplyBeforeCommit,
    /// A leader writes a snapshot of what it has decided and not yet committed.
    SnapshotOfUncommitted,
    /// A `request_id` is looked up without the principal.
    KeyNotScoped,
    /// Correlation ids count from zero, and the reply list outlives its gateway.
    CorrelationReused,
    /// A commit without an answer is told to clients as "nothing happened".
    FailedOnAmbiguous,
    /// A new leader believes the position of the reader's group instead of the journaled one.
    CursorInGroup,
    /// So many messages are cut off the queue as were processed, whichever they are.
    BlindTrim,
    /// A passed deadline stops nothing.
    LateExecution,
    /// Reads are answered without asking whether this process still leads.
    ReadsBeforeCheck,
    /// What left the repeat window is new again.
    EvictWithoutAgeCheck,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::NoDedupe,
        Self::NoFence,
        Self::PriceNotJournaled,
        Self::WallClockInApply,
        Self::AckOnEnqueue,
        Self::PopBeforeCommit,
        Self::SnapshotWithoutDedupe,
        Self::ReplyBeforeCommit,
        Self::SnapshotOfUncommitted,
        Self::KeyNotScoped,
        Self::CorrelationReused,
        Self::FailedOnAmbiguous,
        Self::CursorInGroup,
        Self::BlindTrim,
        Self::LateExecution,
        Self::ReadsBeforeCheck,
        Self::EvictWithoutAgeCheck,
    ];
}

#[cfg(feature = "mutants")]
thread_local! {
    static CHOSEN: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Makes everything on this thread behave so; a simulation runs on one.
#[cfg(feature = "mutants")]
pub fn choose(mutant: Option<Mutant>) {
    CHOSEN.set(mutant);
}

/// What a whole process is to do wrong, so that real processes can be shown to be caught too.
#[cfg(feature = "mutants")]
static OF_THE_PROCESS: std::sync::LazyLock<Option<Mutant>> = std::sync::LazyLock::new(|| {
    let named = std::env::var("FULCRUM_MUTANT").ok()?;
    let found = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == named);
    Some(found.unwrap_or_else(|| panic!("FULCRUM_MUTANT={named} is none of {:?}", Mutant::ALL)))
});

/// Whether this mistake is to be made now.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is(mutant: Mutant) -> bool {
    CHOSEN.get().or(*OF_THE_PROCESS) == Some(mutant)
}

/// Never: the feature is off.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn is(_: Mutant) -> bool {
    false
}
