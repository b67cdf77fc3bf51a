//! What the poller is told: which feed, which symbols, how often to publish. Checked before a socket or a file is opened.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use contracts::names;

use crate::error::PollerError;
use crate::playback::{Playback, TapeSource};

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
