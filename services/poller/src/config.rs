//! What the poller is told: which feed, which symbols, how often to publish. Checked before a socket or a file is opened.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use contracts::names;

use crate::error::PollerError;

/// The venue's public endpoint.
pub const VENUE_URL: &str = "wss://ws.backpack.exchange";
/// How often changed quotes are published unless told otherwise.
pub const BATCH_DEFAULT: Duration = Duration::from_millis(100);
/// How long a feed may send no data before it is replaced, unless told otherwise.
pub const SILENCE_DEFAULT: Duration = Duration::from_secs(20);
/// How long [`Feed::Auto`] waits for the first live data before it falls back to a replay.
pub const LIVE_PATIENCE: Duration = Duration::from_secs(5);
/// Most symbols of one poller: they go into one frame on one connection.
pub const SYMBOLS_MAX: usize = 1_000;
/// Where a replay server listens unless told otherwise.
pub const REPLAY_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7_070);

/// What one poller does.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where quotes go.
    pub redis: bus::Redis,
    /// Where frames come from.
    pub feed: Feed,
    /// Which symbols, in the venue's spelling, for example `SOL_USDC`.
    pub symbols: Vec<String>,
    /// How often changed quotes are published; zero forwards each quote as it comes.
    pub batch: Duration,
    /// How long the feed may send no data before the socket is replaced. Pings do not count: they keep a socket alive whose symbols are dead.
    pub silence: Duration,
}

impl Config {
    /// The usual settings for these symbols.
    #[must_use]
    pub fn new(redis: bus::Redis, feed: Feed, symbols: Vec<String>) -> Self {
        Self {
            redis,
            feed,
            symbols,
            batch: BATCH_DEFAULT,
            silence: SILENCE_DEFAULT,
        }
    }

    /// Whether all of it can be used.
    ///
    /// # Errors
    /// [`PollerError::Config`] with advice.
    pub fn check(&self) -> Result<(), PollerError> {
        self.feed.check()?;
        check_symbols(&self.symbols)?;
        check_silence(self.silence)
    }
}

/// Where frames come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// The venue, or anything that speaks its protocol.
    Live {
        /// `wss://…` or `ws://…`.
        url: String,
    },
    /// A tape, played by a replay server inside this process.
    Replay(Playback),
    /// The venue if it sends data within [`LIVE_PATIENCE`], else the tape; decided once, at the start, because a market that changes
    /// its source under open trades is worse than one that is stale.
    Auto {
        /// The venue.
        url: String,
        /// The fallback.
        playback: Playback,
    },
}

impl Default for Feed {
    fn default() -> Self {
        Self::live()
    }
}

impl Feed {
    /// The venue's public endpoint.
    #[must_use]
    pub fn live() -> Self {
        Self::Live {
            url: VENUE_URL.to_owned(),
        }
    }

    /// The built-in sample, at its own speed, again and again.
    #[must_use]
    pub fn sample() -> Self {
        Self::Replay(Playback::default())
    }

    /// The venue's public endpoint, else the built-in sample.
    #[must_use]
    pub fn auto() -> Self {
        Self::Auto {
            url: VENUE_URL.to_owned(),
            playback: Playback::default(),
        }
    }

    fn check(&self) -> Result<(), PollerError> {
        match self {
            Self::Live { url } | Self::Auto { url, .. } => check_url(url),
            Self::Replay(_) => Ok(()),
        }
    }
}

/// As on a command line: `live`, `auto`, `replay` (the built-in sample), `replay:FILE`, or a `ws://` or `wss://` address.
impl FromStr for Feed {
    type Err = PollerError;

    fn from_str(text: &str) -> Result<Self, PollerError> {
        match text {
            "live" => Ok(Self::live()),
            "auto" => Ok(Self::auto()),
            "replay" => Ok(Self::sample()),
            _ => match text.strip_prefix("replay:") {
                Some("") => Err(PollerError::Config(
                    "\"replay:\" needs a file, for example replay:frames.jsonl.zst".to_owned(),
                )),
                Some(file) => Ok(Self::Replay(Playback {
                    tape: TapeSource::File(file.into()),
                    ..Playback::default()
                })),
                None => {
                    check_url(text)?;
                    Ok(Self::Live { url: text.to_owned() })
                }
            },
        }
    }
}

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

/// What the recorder does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordConfig {
    /// Where frames come from, `wss://…` or `ws://…`.
    pub url: String,
    /// Which symbols.
    pub symbols: Vec<String>,
    /// The file; appended to when it exists, compressed when the name ends in `.zst`.
    pub file: PathBuf,
    /// As in [`Config::silence`].
    pub silence: Duration,
}

impl RecordConfig {
    /// Whether all of it can be used.
    ///
    /// # Errors
    /// [`PollerError::Config`] with advice.
    pub fn check(&self) -> Result<(), PollerError> {
        check_url(&self.url)?;
        check_symbols(&self.symbols)?;
        check_silence(self.silence)
    }
}

/// What a replay server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it plays.
    pub playback: Playback,
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

fn check_url(url: &str) -> Result<(), PollerError> {
    let host = url.strip_prefix("wss://").or_else(|| url.strip_prefix("ws://"));
    match host {
        Some(host) if !host.is_empty() && !host.starts_with(['/', ':']) => Ok(()),
        _ => Err(PollerError::Config(format!(
            "feed {url:?} must be live, auto, replay, replay:FILE or an address that begins with wss:// or ws://"
        ))),
    }
}

fn check_symbols(symbols: &[String]) -> Result<(), PollerError> {
    if symbols.is_empty() || symbols.len() > SYMBOLS_MAX {
        return Err(PollerError::Config(format!(
            "there must be 1 to {SYMBOLS_MAX} symbols, not {}",
            symbols.len()
        )));
    }
    for symbol in symbols {
        names::check_symbol(symbol).map_err(|advice| PollerError::Config(format!("symbol {symbol:?} {advice}")))?;
    }
    Ok(())
}

fn check_silence(silence: Duration) -> Result<(), PollerError> {
    if silence.is_zero() {
        return Err(PollerError::Config(
            "silence must be longer than zero: it is how long a feed may say nothing".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_is_read_as_it_is_typed() {
        assert_eq!("live".parse::<Feed>().unwrap(), Feed::live());
        assert_eq!("auto".parse::<Feed>().unwrap(), Feed::auto());
        assert_eq!("replay".parse::<Feed>().unwrap(), Feed::sample());
        assert_eq!(
            "ws://127.0.0.1:7070".parse::<Feed>().unwrap(),
            Feed::Live {
                url: "ws://127.0.0.1:7070".to_owned()
            }
        );
        let Feed::Replay(playback) = "replay:a/b.jsonl.zst".parse().unwrap() else {
            panic!("not a replay")
        };
        assert_eq!(playback.tape, TapeSource::File("a/b.jsonl.zst".into()));
        for bad in ["", "replay:", "http://x", "wss://", "ws:///x", "ws://:1", "lve"] {
            assert!(bad.parse::<Feed>().is_err(), "{bad:?}");
        }
    }

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

    #[test]
    fn what_cannot_work_is_said_before_anything_is_opened() {
        let redis = bus::Redis::open("redis://127.0.0.1:1").unwrap();
        let good = Config::new(redis, Feed::sample(), vec!["SOL_USDC".to_owned()]);
        assert!(good.check().is_ok());
        assert!(
            Config {
                symbols: vec![],
                ..good.clone()
            }
            .check()
            .is_err()
        );
        assert!(
            Config {
                symbols: vec!["sol".to_owned()],
                ..good.clone()
            }
            .check()
            .is_err()
        );
        assert!(
            Config {
                silence: Duration::ZERO,
                ..good.clone()
            }
            .check()
            .is_err()
        );
        assert!(
            Config {
                feed: Feed::Live {
                    url: "https://x".to_owned()
                },
                ..good
            }
            .check()
            .is_err()
        );
    }
}
