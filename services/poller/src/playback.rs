//! How a tape is played: which one, how fast, which part of it, and with which times.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::PollerError;

/// How a tape is played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Playback {
    /// Which tape.
    pub tape: TapeSource,
    /// How fast.
    pub speed: Speed,
    /// Whether it starts again at its end, with times and update ids that go on rising.
    pub repeat: bool,
    /// Play only what was recorded at or after this, microseconds since the epoch. See [`tape_time`].
    pub from_us: Option<u64>,
    /// Play only what was recorded before this, microseconds since the epoch.
    pub until_us: Option<u64>,
    /// Which times the frames carry.
    pub venue_time: VenueTime,
}

/// The built-in sample at its own speed, repeated, stamped with the present.
impl Default for Playback {
    fn default() -> Self {
        Self {
            tape: TapeSource::BuiltIn,
            speed: Speed::default(),
            repeat: true,
            from_us: None,
            until_us: None,
            venue_time: VenueTime::Now,
        }
    }
}

/// Which tape to play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TapeSource {
    /// Three minutes of BTC, ETH and SOL that come with the program.
    BuiltIn,
    /// Recorded frames (`.jsonl`, `.jsonl.zst`) or quotes (`.csv`, `.csv.zst`); told apart by their first line.
    File(PathBuf),
}

impl std::fmt::Display for TapeSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("the built-in sample"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Which times replayed frames carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VenueTime {
    /// Shifted so that the tape happens now, and update ids rise across restarts.
    #[default]
    Now,
    /// As recorded, so that two runs send the same bytes.
    Recorded,
}

/// How fast a tape plays, in thousandths: 1000 is the speed of the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed(u32);

impl Speed {
    /// Slowest, a thousandth of the recording's.
    pub const PERMILLE_MIN: u32 = 1;
    /// Fastest, a thousand times the recording's.
    pub const PERMILLE_MAX: u32 = 1_000_000;

    /// A speed in thousandths; nothing outside the limits.
    #[must_use]
    pub fn permille(permille: u32) -> Option<Self> {
        (Self::PERMILLE_MIN..=Self::PERMILLE_MAX)
            .contains(&permille)
            .then_some(Self(permille))
    }

    /// Time on the tape as time that passes.
    #[must_use]
    pub fn scale_us(self, tape_us: i64) -> i64 {
        let scaled = i128::from(tape_us) * 1_000 / i128::from(self.0);
        i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX })
    }
}

impl Default for Speed {
    fn default() -> Self {
        Self(1_000)
    }
}

/// A plain decimal with at most three places: `1`, `0.5`, `25`.
impl FromStr for Speed {
    type Err = PollerError;

    fn from_str(text: &str) -> Result<Self, PollerError> {
        let advice = || {
            PollerError::Config(format!(
                "speed {text:?} must be between 0.001 and 1000, with at most three decimals"
            ))
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 4 || fraction.len() > 3 || !digits(whole) || !digits(fraction) {
            return Err(advice());
        }
        let permille = format!("{whole}{fraction:0<3}").parse().map_err(|_| advice())?;
        Self::permille(permille).ok_or_else(advice)
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

/// Reads a moment on a tape: RFC 3339 (`2014-05-02T12:30:00Z`) or microseconds since the epoch.
///
/// # Errors
/// [`PollerError::Config`] with advice.
pub fn tape_time(text: &str) -> Result<u64, PollerError> {
    let read = text.parse::<u64>().ok().or_else(|| {
        let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
        u64::try_from(time.timestamp_micros()).ok()
    });
    read.ok_or_else(|| {
        PollerError::Config(format!(
            "time {text:?} must look like 2014-05-02T12:30:00Z or be microseconds since the epoch"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_exact_and_bounded() {
        for (text, permille) in [
            ("1", 1_000),
            ("0.5", 500),
            ("25", 25_000),
            ("1000", 1_000_000),
            ("0.001", 1),
            ("1.", 1_000),
        ] {
            assert_eq!(
                text.parse::<Speed>().unwrap(),
                Speed::permille(permille).unwrap(),
                "{text}"
            );
        }
        for bad in [
            "",
            "0",
            "-1",
            "1001",
            "1e3",
            ".5",
            "0.0001",
            "fast",
            "99999999999999999999",
        ] {
            assert!(bad.parse::<Speed>().is_err(), "{bad:?}");
        }
        assert_eq!(Speed::permille(2_000).unwrap().scale_us(10_000), 5_000);
        assert_eq!(Speed::permille(1).unwrap().scale_us(i64::MIN), i64::MIN);
    }

    #[test]
    fn a_moment_on_a_tape_has_two_spellings() {
        assert_eq!(tape_time("2014-05-02T12:30:01Z").unwrap(), 1_399_033_801_000_000);
        assert_eq!(tape_time("1399033801000000").unwrap(), 1_399_033_801_000_000);
        assert!(tape_time("yesterday").is_err());
        assert!(tape_time("1914-05-02T12:30:01Z").is_err());
    }
}
