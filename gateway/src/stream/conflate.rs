//! What a reader of quotes gets next: the newest of each symbol, not more often than it asked for.
//!
//! Pure: time and quotes are values. Nothing queues up; a reader that was away finds the newest.

use std::collections::HashMap;
use std::time::Duration;

use contracts::v1::QuoteState;
use tokio::time::Instant;

/// What is to be told of one symbol: which quote, and how current it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Rises with every quote of its symbol.
    pub version: u64,
    /// How current it is.
    pub state: QuoteState,
}

/// What one reader was told, and when.
#[derive(Debug)]
pub(crate) struct Conflation {
    interval: Duration,
    told: HashMap<String, (Mark, Instant)>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    /// Tell this one.
    Tell(&'a str),
    /// Nothing before then, unless something changes.
    Wait {
        /// When the first of them is due.
        ready: Instant,
        /// Whether every symbol was told of less than an interval ago, so that no change matters before then.
        all: bool,
    },
    /// Nothing, unless something changes.
    Idle,
}

impl Conflation {
    /// With this much time between two quotes of one symbol.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            told: HashMap::new(),
        }
    }

    /// Of the symbols as they are now, the one that is due and was told of least recently.
    pub fn next<'a>(&self, now: Instant, symbols: impl Iterator<Item = (&'a str, Mark)>) -> Next<'a> {
        let mut due: Option<(Option<Instant>, &str)> = None;
        let (mut soonest, mut all): (Option<Instant>, bool) = (None, true);
        for (symbol, mark) in symbols {
            let told = self.told.get(symbol);
            let told_at = told.map(|(_, at)| *at);
            let later = told_at.map(|at| at + self.interval).filter(|ready| *ready > now);
            all &= later.is_some();
            if told.is_some_and(|(before, _)| *before == mark) {
                continue;
            }
            match later {
                Some(ready) => soonest = Some(soonest.map_or(ready, |soonest| soonest.min(ready))),
                None if due.is_none_or(|(before, _)| told_at < before) => due = Some((told_at, symbol)),
                None => {}
            }
        }
        match (due, soonest) {
            (Some((_, symbol)), _) => Next::Tell(symbol),
            (None, Some(ready)) => Next::Wait { ready, all },
            (None, None) => Next::Idle,
        }
    }

    /// Notes what was told.
    pub fn told(&mut self, symbol: &str, mark: Mark, now: Instant) {
        self.told.insert(symbol.to_owned(), (mark, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(version: u64) -> Mark {
        Mark {
            version,
            state: QuoteState::Fresh,
        }
    }

    #[test]
    fn the_newest_wins_and_none_comes_sooner_than_asked() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut conflation = Conflation::new(second);
        assert_eq!(conflation.next(start, [("A", mark(1))].into_iter()), Next::Tell("A"));
        conflation.told("A", mark(1), start);
        assert_eq!(conflation.next(start, [("A", mark(1))].into_iter()), Next::Idle);
        // Versions 2 to 9 came and went; the reader gets the last of them, a second later.
        assert_eq!(
            conflation.next(start + second / 2, [("A", mark(9))].into_iter()),
            Next::Wait {
                ready: start + second,
                all: true
            }
        );
        assert_eq!(
            conflation.next(start + second, [("A", mark(9))].into_iter()),
            Next::Tell("A")
        );
    }

    #[test]
    fn a_symbol_that_moves_all_the_time_does_not_starve_the_others() {
        let start = Instant::now();
        let mut conflation = Conflation::new(Duration::ZERO);
        for round in 0..3 {
            conflation.told("A", mark(round), start + Duration::from_millis(round));
        }
        conflation.told("B", mark(0), start);
        let symbols = || [("A", mark(9)), ("B", mark(9)), ("C", mark(9))].into_iter();
        let now = start + Duration::from_secs(1);
        assert_eq!(conflation.next(now, symbols()), Next::Tell("C"), "never told");
        conflation.told("C", mark(9), now);
        assert_eq!(conflation.next(now, symbols()), Next::Tell("B"), "told least recently");
    }

    #[test]
    fn going_stale_is_news_too() {
        let start = Instant::now();
        let mut conflation = Conflation::new(Duration::ZERO);
        conflation.told("A", mark(1), start);
        let stale = Mark {
            version: 1,
            state: QuoteState::Stale,
        };
        assert_eq!(conflation.next(start, [("A", stale)].into_iter()), Next::Tell("A"));
    }
}
