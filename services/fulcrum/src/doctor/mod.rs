//! `fulcrum doctor`: looks at what a deployment stands on, and says for each thing that is wrong how to mend it.
//!
//! A *finding* is wrong: the mesh would not start, or would break a promise. A *note* is worth knowing: availability that was given up, or
//! something this look cannot see. Each check is a function from where to look to lines; none of them changes anything.

mod checks;
mod rights;

use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::process::Signals;
use crate::role::gateway::{KeySource, token_key};
use crate::say;
use crate::settings::{DatabaseSettings, RedisSettings, duration};

/// Pause between two looks with `--wait`.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Checks what a deployment stands on: stores, their settings, schema, clocks and keys. Says how to mend what is wrong, and ends with
/// exit code 1 if anything is.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    redis: RedisSettings,
    #[command(flatten)]
    database: DatabaseSettings,
    /// Public key that tokens are to be verified with, as the gateway is given it; may be given several times.
    #[arg(long, env = "FULCRUM_TOKEN_KEY", value_delimiter = ',', value_name = "FILE", value_parser = token_key)]
    token_key: Vec<KeySource>,
    /// What to look at, separated by commas. Everything unless given.
    #[arg(
        long,
        env = "FULCRUM_DOCTOR_ONLY",
        value_enum,
        value_delimiter = ',',
        value_name = "CHECK"
    )]
    only: Vec<Check>,
    /// Looks again until nothing is wrong, at most so long: what a pod does that starts before its database is migrated.
    #[arg(long, env = "FULCRUM_DOCTOR_WAIT", default_value = "0", value_name = "TIME", value_parser = duration)]
    wait: Duration,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Check {
    /// Postgres answers, is recent enough, and is where one can write.
    Postgres,
    /// What was committed is on the disk.
    Durability,
    /// The schema is the one that this version was made for.
    Migrations,
    /// Every shard has a leader, and no lease was written by a clock that was wrong.
    Shards,
    /// Redis answers, is recent enough, and throws nothing away.
    Redis,
    /// The user of the Redis address may do what its role does.
    Rights,
    /// The clocks of this machine, Postgres and Redis agree.
    Clocks,
    /// The gateway's keys can be read.
    Keys,
}

/// Where to look.
#[derive(Debug)]
struct Patient {
    redis: String,
    database: String,
    keys: Vec<KeySource>,
}

/// One thing that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    /// As it should be.
    Fine(String),
    /// Worth knowing.
    Note(String),
    /// Wrong.
    Finding {
        /// What is wrong.
        what: String,
        /// How to mend it.
        fix: String,
    },
}

impl Line {
    fn finding(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Finding {
            what: what.into(),
            fix: fix.into(),
        }
    }

    /// Says of which of several it is.
    fn begins_with(&mut self, name: &str) {
        let (Self::Fine(text) | Self::Note(text) | Self::Finding { what: text, .. }) = self;
        text.insert_str(0, &format!("{name}: "));
    }

    fn is_finding(&self) -> bool {
        matches!(self, Self::Finding { .. })
    }
}

impl Check {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    async fn look(self, at: &Patient) -> Vec<Line> {
        match self {
            Self::Postgres => checks::postgres(&at.database).await,
            Self::Durability => checks::durability(&at.database).await,
            Self::Migrations => checks::migrations(&at.database).await,
            Self::Shards => checks::shards(&at.database).await,
            Self::Redis => checks::redis(&at.redis).await,
            Self::Rights => rights::rights(&at.redis).await,
            Self::Clocks => checks::clocks(&at.database, &at.redis).await,
            Self::Keys => checks::keys(&at.keys),
        }
    }
}

/// Runs the command.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let patient = Patient {
        redis: options.redis.redis_url,
        database: options.database.database_url,
        keys: options.token_key,
    };
    let wanted = match options.only.as_slice() {
        [] => Check::value_variants(),
        only => only,
    };
    let mut signals = Signals::listen()?;
    tokio::select! {
        // The first process of a container gets no default for signals: without this it would not stop.
        signal = signals.next() => Err(anyhow::anyhow!("{signal}: stopped before everything was well").into()),
        outcome = examine(&patient, wanted, options.wait) => outcome,
    }
}

async fn examine(patient: &Patient, wanted: &[Check], wait: Duration) -> Result<(), Failure> {
    let until = Instant::now() + wait;
    loop {
        let mut seen = Vec::new();
        for check in wanted {
            seen.extend(check.look(patient).await.into_iter().map(|line| (check.name(), line)));
        }
        let findings = seen.iter().filter(|(_, line)| line.is_finding()).count();
        if findings > 0 && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        say::line(format!("fulcrum {}", env!("CARGO_PKG_VERSION")));
        seen.iter().for_each(|(check, line)| tell(check, line));
        return match findings {
            0 => Ok(()),
            1 => Err(anyhow::anyhow!("one thing is wrong").into()),
            many => Err(anyhow::anyhow!("{many} things are wrong").into()),
        };
    }
}

fn tell(check: &str, line: &Line) {
    match line {
        Line::Fine(what) => say::line(format!("ok     {check:11} {what}")),
        Line::Note(what) => say::line(format!("note   {check:11} {what}")),
        Line::Finding { what, fix } => {
            say::line(format!("WRONG  {check:11} {what}"));
            say::line(format!("       {:11} to mend it: {fix}", ""));
        }
    }
}

/// The file of a key, for messages.
fn shown(file: &Path) -> String {
    format!("{}", file.display())
}

#[cfg(test)]
mod tests;
