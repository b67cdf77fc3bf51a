//! What a run came to, for a person.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::audit::{Finding, Kind};
use crate::strike::{Loss, Marks, Strike};

/// Findings that are shown of each run.
const SHOWN_MAX: usize = 20;

/// What one kind of strike did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// How often.
    pub count: u32,
    /// Longest time without an acknowledgement after it.
    pub worst_gap: Duration,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it can be run again with.
    pub seed: u64,
    /// How long it took.
    pub took: Duration,
    /// By kind of strike.
    pub strikes: BTreeMap<Strike, Tally>,
    /// Acknowledgements on disk.
    pub acknowledged: u64,
    /// Old orders that were sent again and had the old answer.
    pub repeated: u64,
    /// Why and how often an order was sent again before it was answered.
    pub again: BTreeMap<String, u64>,
    /// Longest time without an acknowledgement.
    pub worst_gap: Duration,
    /// Take-overs and returns.
    pub marks: Marks,
    /// Rows and lines that were judged.
    pub judged: (usize, usize, usize),
    /// What must not have been during the run.
    pub faults: Vec<String>,
    /// What is wrong with the history.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.faults.is_empty() && self.findings.is_empty()
    }

    /// How many strikes there were.
    #[must_use]
    pub fn strikes(&self) -> u32 {
        self.strikes.values().map(|tally| tally.count).sum()
    }

    /// How often something was found.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.findings.iter().filter(|finding| finding.kind == kind).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} in {:.0} s", self.seed, self.took.as_secs_f64())?;
        writeln!(f, "\n{:<22}{:>6}  worst gap", "strike", "count")?;
        for (strike, tally) in &self.strikes {
            let name = format!("{strike:?}");
            writeln!(
                f,
                "{name:<22}{:>6}  {:>7.2} s",
                tally.count,
                tally.worst_gap.as_secs_f64()
            )?;
        }
        writeln!(
            f,
            "{:<22}{:>6}  {:>7.2} s\n",
            "all",
            self.strikes(),
            self.worst_gap.as_secs_f64()
        )?;
        writeln!(
            f,
            "acknowledged {}, old ones repeated {}, commits cut off {}",
            self.acknowledged, self.repeated, self.marks.commits_cut
        )?;
        let (rows, operations, lines) = self.judged;
        writeln!(
            f,
            "judged: {rows} journal rows, {operations} operations, {lines} ledger lines"
        )?;
        for loss in [Loss::Stopped, Loss::Killed, Loss::Paused] {
            let of = |pick: fn(&crate::strike::TakeOver) -> Duration| {
                let all = self.marks.take_overs.iter().filter(|it| it.loss == loss);
                spread(all.map(pick).collect())
            };
            let name = format!("{loss:?}").to_lowercase();
            writeln!(
                f,
                "leader {name}: taken over after {}, answered after {}",
                of(|it| it.taken),
                of(|it| it.answered)
            )?;
        }
        writeln!(
            f,
            "answered after Postgres came back: {}",
            spread(self.marks.postgres_returns.clone())
        )?;
        writeln!(
            f,
            "answered after Redis came back: {}",
            spread(self.marks.redis_returns.clone())
        )?;
        writeln!(f, "sent again before an answer:")?;
        for (reason, count) in &self.again {
            writeln!(f, "{count:>8}  {reason}")?;
        }
        writeln!(
            f,
            "{} lost, {} doubled, {} different answers, {} unknown, {} sequence faults, {} unbalanced, {} wrong balances, {} wrong tables",
            self.count(Kind::Lost),
            self.count(Kind::Doubled),
            self.count(Kind::Different),
            self.count(Kind::Unknown),
            self.count(Kind::Sequence),
            self.count(Kind::Unbalanced),
            self.count(Kind::Balance),
            self.count(Kind::Table),
        )?;
        for fault in self.faults.iter().take(SHOWN_MAX) {
            writeln!(f, "FAULT {fault}")?;
        }
        for finding in self.findings.iter().take(SHOWN_MAX) {
            writeln!(f, "FOUND {finding}")?;
        }
        Ok(())
    }
}

/// Middle and worst.
fn spread(mut all: Vec<Duration>) -> String {
    all.sort();
    match (all.get(all.len() / 2), all.last()) {
        (Some(middle), Some(worst)) => {
            let (middle, worst) = (middle.as_secs_f64(), worst.as_secs_f64());
            format!("{middle:.2} s (worst {worst:.2} s, {} times)", all.len())
        }
        _ => "never".to_owned(),
    }
}
