//! Options that several commands share, so that one thing has one name everywhere: as a flag, and as an environment variable.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};

/// Where the ops endpoint is unless told otherwise.
pub const OPS_LISTEN: &str = "127.0.0.1:9464";

/// Where the queues and streams are.
#[derive(Args, Clone, Debug)]
pub struct RedisSettings {
    /// Address of Redis: redis://host:port, redis+unix:///path/to/socket, redis-sentinel://host:port,host:port/master-name, or
    /// redis-cluster://host:port,host:port.
    ///
    /// With rediss instead of redis it is TLS; ?sslrootcert=FILE names an authority, and &sslcert=FILE&sslkey=FILE what is shown to the
    /// server. user:password@ goes before the hosts.
    #[arg(
        long,
        env = "FULCRUM_REDIS_URL",
        default_value = "redis://127.0.0.1:6379",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub redis_url: String,
}

/// Where the journal and the history are.
#[derive(Args, Clone, Debug)]
pub struct DatabaseSettings {
    /// Address of the Postgres database: postgres://user:password@host:port/database; a socket's directory goes into ?host=.
    ///
    /// A password is better given in the environment, because other users of the machine see arguments.
    #[arg(long, env = "FULCRUM_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: String,
}

/// How the process can be watched.
#[derive(Args, Clone, Debug)]
pub struct OpsSettings {
    /// Where /livez, /readyz and /metrics are: an address, unix:PATH, or off.
    #[arg(long, env = "FULCRUM_OPS_LISTEN", default_value = OPS_LISTEN, value_name = "ADDRESS")]
    pub ops_listen: OpsListen,
}

/// What the process tells about its work.
#[derive(Args, Clone, Debug)]
pub struct TelemetrySettings {
    /// What is logged: error, warn, info, debug or trace, also by module, as in info,engine=debug.
    #[arg(long, env = "FULCRUM_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// How log lines are written.
    #[arg(long, env = "FULCRUM_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Where traces go, by OTLP over gRPC, for example http://127.0.0.1:4317. Nowhere when neither this nor
    /// OTEL_EXPORTER_OTLP_ENDPOINT is set.
    #[arg(long, env = "FULCRUM_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Which part of the traces that begin here is exported, from 0 to 1. A caller's own decision is always respected.
    #[arg(long, env = "FULCRUM_TRACE_RATIO", default_value_t = 1.0, value_name = "RATIO")]
    pub trace_ratio: f64,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where prices come from.
#[derive(Args, Clone, Debug)]
pub struct FeedSettings {
    /// Where prices come from: auto (live, or else the built-in replay), live, replay (the built-in recording), a file of
    /// recorded frames or quotes, or the ws:// or wss:// address of anything that speaks the venue's protocol.
    #[arg(long, env = "FULCRUM_FEED", default_value = "auto", value_name = "FEED", value_parser = feed)]
    pub feed: poller::Feed,
    /// How fast a replay runs: 1 is as recorded, 10 is ten times that. From 0.001 to 1000.
    #[arg(long, env = "FULCRUM_FEED_SPEED", default_value = "1", value_name = "FACTOR")]
    pub feed_speed: poller::Speed,
    /// Ends a replay at the end of its recording instead of starting it again.
    #[arg(long, env = "FULCRUM_FEED_ONCE", value_parser = clap::builder::FalseyValueParser::new())]
    pub feed_once: bool,
    /// The symbols to follow, separated by commas, in the venue's spelling. All instruments unless given.
    #[arg(long, env = "FULCRUM_SYMBOLS", value_delimiter = ',', value_name = "SYMBOL")]
    pub symbols: Vec<String>,
    /// How often changed quotes are published; 0 forwards each quote as it comes.
    #[arg(long, env = "FULCRUM_BATCH", default_value = "100ms", value_name = "TIME", value_parser = duration)]
    pub batch: Duration,
    /// How long the feed may send no data before its connection is replaced.
    #[arg(long, env = "FULCRUM_SILENCE", default_value = "20s", value_name = "TIME", value_parser = duration)]
    pub silence: Duration,
}

impl FeedSettings {
    /// The feed, with speed and repetition put in where a tape is played.
    #[must_use]
    pub fn feed(&self) -> poller::Feed {
        let mut feed = self.feed.clone();
        if let poller::Feed::Replay(playback) | poller::Feed::Auto { playback, .. } = &mut feed {
            playback.speed = self.feed_speed;
            playback.repeat = !self.feed_once;
        }
        feed
    }

    /// The symbols, or those of all instruments.
    #[must_use]
    pub fn symbols(&self) -> Vec<String> {
        if !self.symbols.is_empty() {
            return self.symbols.clone();
        }
        let instruments = engine::default_instruments();
        instruments.iter().map(|it| it.symbol.as_str().to_owned()).collect()
    }
}

/// Ties a child process to its parent; for `up`, not for people.
#[derive(Args, Clone, Debug)]
pub struct ParentSettings {
    /// Stops when standard input ends, which is how the death of a parent shows.
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
}

/// Where the ops endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpsListen {
    /// Nowhere.
    Off,
    /// On a port.
    Tcp(SocketAddr),
    /// On a socket, for a parent.
    Unix(PathBuf),
}

impl FromStr for OpsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("unix: needs a path, for example unix:/run/fulcrum/ops.sock".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None if text == "off" => Ok(Self::Off),
            None => {
                let address = text
                    .parse()
                    .map_err(|_| "must be like 127.0.0.1:9464, unix:PATH or off".to_owned())?;
                Ok(Self::Tcp(address))
            }
        }
    }
}

impl std::fmt::Display for OpsListen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reads a time with its unit: `250ms`, `20s`, `5m`, `1h`, `7d`, or `0`.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let advice = || format!("{text:?} must be a whole number with a unit, such as 250ms, 20s, 5m, 1h or 7d");
    let split = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| advice())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == 0 => 0,
        _ => return Err(advice()),
    };
    number
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .ok_or_else(advice)
}

/// Reads a feed; besides what the poller knows, the plain name of a file that exists.
fn feed(text: &str) -> Result<poller::Feed, String> {
    let spelled = if std::path::Path::new(text).is_file() {
        format!("replay:{text}")
    } else {
        text.to_owned()
    };
    spelled.parse().map_err(|error: poller::PollerError| error.to_string())
}

/// The arguments that were given for one group of options, so that a parent can hand them on to a child.
///
/// What came from the environment is left out: a child inherits that.
pub(crate) fn given<Group: Args>(matches: &ArgMatches) -> Vec<OsString> {
    let group = Group::augment_args(clap::Command::new("group"));
    let mut arguments = Vec::new();
    for argument in group.get_arguments() {
        let (id, Some(long)) = (argument.get_id().as_str(), argument.get_long()) else {
            continue;
        };
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        if !argument.get_action().takes_values() {
            arguments.push(format!("--{long}").into());
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            let mut joined = OsString::from(format!("--{long}="));
            joined.push(value);
            arguments.push(joined);
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        for (text, ms) in [
            ("0", 0),
            ("250ms", 250),
            ("20s", 20_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "1w",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_ops_endpoint_has_three_kinds_of_places() {
        assert_eq!("off".parse(), Ok(OpsListen::Off));
        assert_eq!("unix:/a/b".parse(), Ok(OpsListen::Unix("/a/b".into())));
        for text in ["127.0.0.1:9464", "[::1]:0", "unix:/a/b", "off"] {
            assert_eq!(text.parse::<OpsListen>().unwrap().to_string(), text);
        }
        for bad in ["", "unix:", "9464", "localhost:1", "127.0.0.1"] {
            assert!(bad.parse::<OpsListen>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_feed_may_be_the_plain_name_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let poller::Feed::Replay(playback) = feed(file.path().to_str().unwrap()).unwrap() else {
            panic!("a replay")
        };
        assert_eq!(playback.tape, poller::TapeSource::File(file.path().to_owned()));
        assert!(feed("no-such-file").is_err());
    }

    #[test]
    fn what_was_given_is_handed_on_and_nothing_else() {
        let command = FeedSettings::augment_args(clap::Command::new("test"));
        let words = [
            "test",
            "--feed",
            "replay",
            "--feed-once",
            "--symbols=A_B,C_D",
            "--batch",
            "0",
        ];
        let matches = command.get_matches_from(words);
        let expected = [
            "--feed=replay",
            "--feed-once",
            "--symbols=A_B",
            "--symbols=C_D",
            "--batch=0",
        ]
        .map(OsString::from);
        let mut handed_on = given::<FeedSettings>(&matches);
        handed_on.sort();
        let mut sorted = expected.to_vec();
        sorted.sort();
        assert_eq!(handed_on, sorted);
    }
}
