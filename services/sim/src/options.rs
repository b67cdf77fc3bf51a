//! What a run can be told.

use bus::mutants::Mutant;

/// See the module. The seed decides everything else.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many shards there are.
    pub shards: u32,
    /// How long faults go on, virtual time. Milliseconds.
    pub faults_ms: u64,
    /// The bug to make on purpose; needs the feature `mutants`.
    pub mutant: Option<Mutant>,
    /// Keep the trace as lines, with the engines' log in it.
    pub readable: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 2,
            faults_ms: 20_000,
            mutant: None,
            readable: false,
        }
    }
}
