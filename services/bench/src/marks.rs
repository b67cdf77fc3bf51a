//! The marks: what the hot path is held to, each a line that says whether it is met.

use serde::Serialize;

use crate::sample::Spread;

/// What a mark asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

/// Whether a mark is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    NotMet,
    /// There is no figure.
    NotMeasured,
}

/// One mark.
#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    /// Its number.
    pub number: u8,
    /// What is measured.
    pub what: String,
    /// What is asked for.
    pub limit: String,
    /// What was seen.
    pub seen: Option<Spread>,
    /// What to think of it.
    pub verdict: Verdict,
    /// What else there is to know.
    pub note: String,
}

impl Mark {
    /// Holds what was seen against the limit.
    #[must_use]
    pub fn judge(number: u8, what: &str, limit: Limit, seen: Option<Spread>) -> Self {
        let verdict = match (limit, seen) {
            (_, None) => Verdict::NotMeasured,
            (Limit::AtMost(most), Some(seen)) if seen.median <= most => Verdict::Met,
            (Limit::AtLeast(least), Some(seen)) if seen.median >= least => Verdict::Met,
            (Limit::AtMost(_) | Limit::AtLeast(_), Some(_)) => Verdict::NotMet,
        };
        let limit = match limit {
            Limit::AtMost(most) => format!("at most {most}"),
            Limit::AtLeast(least) => format!("at least {least}"),
        };
        Self {
            number,
            what: what.to_owned(),
            limit,
            seen,
            verdict,
            note: String::new(),
        }
    }

    /// A mark that nothing measures yet.
    #[must_use]
    pub fn unmeasured(number: u8, what: &str, why: &str) -> Self {
        Self {
            number,
            what: what.to_owned(),
            limit: String::new(),
            seen: None,
            verdict: Verdict::NotMeasured,
            note: why.to_owned(),
        }
    }

    /// The same with something to know.
    #[must_use]
    pub fn noting(mut self, note: &str) -> Self {
        note.clone_into(&mut self.note);
        self
    }

    /// The line.
    #[must_use]
    pub fn line(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Met => "met",
            Verdict::NotMet => "not met",
            Verdict::NotMeasured => "not measured",
        };
        let seen = self.seen.map_or_else(String::new, |it| {
            format!(" {:.3} ({:.3} to {:.3}, n={})", it.median, it.min, it.max, it.count)
        });
        let limit = if self.limit.is_empty() {
            String::new()
        } else {
            format!(", wanted {}", self.limit)
        };
        let note = if self.note.is_empty() {
            String::new()
        } else {
            format!("; {}", self.note)
        };
        format!("{:>2} {verdict:<12} {}:{seen}{limit}{note}", self.number, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_judged_by_its_median() {
        let seen = Spread::of(&[1.0, 2.0, 9.0]);
        let verdict = |limit| Mark::judge(1, "x", limit, seen).verdict;
        assert_eq!(verdict(Limit::AtMost(2.0)), Verdict::Met);
        assert_eq!(verdict(Limit::AtMost(1.9)), Verdict::NotMet);
        assert_eq!(verdict(Limit::AtLeast(2.0)), Verdict::Met);
        assert_eq!(verdict(Limit::AtLeast(2.1)), Verdict::NotMet);
        assert_eq!(
            Mark::judge(1, "x", Limit::AtMost(1.0), None).verdict,
            Verdict::NotMeasured
        );
    }

    #[test]
    fn a_line_says_it_all() {
        let mark = Mark::judge(3, "p50 ÷ echo", Limit::AtMost(4.5), Spread::of(&[4.0, 5.0])).noting("alone");
        assert_eq!(
            mark.line(),
            " 3 met          p50 ÷ echo: 4.500 (4.000 to 5.000, n=2), wanted at most 4.5; alone"
        );
        assert_eq!(
            Mark::unmeasured(15, "snapshot", "later").line(),
            "15 not measured snapshot:; later"
        );
    }
}
