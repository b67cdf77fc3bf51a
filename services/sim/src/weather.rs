//! How a store treats its clients at the moment.

use crate::dice::Dice;

/// The weather over one store. Times are those of the run, microseconds since its start.
#[derive(Debug, Default)]
pub struct Weather {
    /// Not reachable until then.
    pub away_until_us: u64,
    /// Slow until then.
    pub slow_until_us: u64,
    /// Loses answers, and sometimes questions, until then.
    pub lossy_until_us: u64,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Carried out and answered. Milliseconds there, and back.
    Answered {
        /// Until it is carried out.
        there_ms: u64,
        /// From then until the answer is here.
        back_ms: u64,
    },
    /// Never carried out; noticed after this time. Milliseconds.
    Lost {
        /// Until that is noticed.
        after_ms: u64,
    },
    /// Carried out, but the answer is lost. Milliseconds.
    AnswerLost {
        /// Until it is carried out.
        there_ms: u64,
        /// From then until it is given up.
        after_ms: u64,
    },
}

impl Weather {
    /// Whether the store is away.
    pub fn is_away(&self, now_us: u64) -> bool {
        now_us < self.away_until_us
    }

    /// Clears up.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Draws the fate of one call. `patience_ms` is how long a client waits for an answer that never comes.
    pub fn fate(&self, dice: &mut Dice, now_us: u64, usual_ms: u64, patience_ms: u64) -> Fate {
        let give_up = |dice: &mut Dice| {
            if dice.chance(150) {
                patience_ms
            } else {
                dice.between(1, 60)
            }
        };
        if self.is_away(now_us) {
            return Fate::Lost {
                after_ms: give_up(dice),
            };
        }
        if now_us < self.lossy_until_us && dice.chance(120) {
            let after_ms = give_up(dice);
            return if dice.chance(500) {
                Fate::Lost { after_ms }
            } else {
                Fate::AnswerLost {
                    there_ms: dice.between(0, usual_ms),
                    after_ms,
                }
            };
        }
        if now_us < self.slow_until_us {
            return Fate::Answered {
                there_ms: dice.between(0, 150),
                back_ms: dice.between(0, 150),
            };
        }
        // Most calls take no time that matters; some take some, so that everything overlaps with everything.
        let (there_ms, back_ms) = if dice.chance(600) {
            (0, 0)
        } else {
            (dice.between(0, usual_ms), dice.between(0, usual_ms))
        };
        Fate::Answered { there_ms, back_ms }
    }
}
