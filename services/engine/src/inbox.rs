//! What comes in from outside: raw messages become requests or dead letters, and the wall clock becomes engine time.
//!
//! The only file that reads a clock for the core.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::{Incoming, REQUEST_BYTES_MAX};
use contracts::bus::Request;
use engine_core::Timestamp;
use prost::Message as _;
use tokio::time::Instant;

use crate::wire::command;

/// How far the wall clock may be from where its own elapsed time puts it before it is not followed.
const JUMP_MAX: Duration = Duration::from_secs(5);
/// Largest difference between clocks at the start.
pub const SKEW_MAX: Duration = Duration::from_secs(2);

/// Engine time: the wall clock, but immune to its jumps.
///
/// It advances with the monotonic clock from where the wall clock stood at the start, and follows the wall clock only while the two
/// stay within five seconds of each other: a clock set wrong by a day moves neither deadlines nor the repeat window.
#[derive(Clone, Debug)]
pub struct EngineClock {
    wall_at_start_us: i64,
    started: Instant,
    told_of_jump: bool,
}

impl EngineClock {
    /// A clock that starts where the wall clock stands.
    #[must_use]
    pub fn start(wall_us: i64) -> Self {
        Self {
            wall_at_start_us: wall_us,
            started: Instant::now(),
            told_of_jump: false,
        }
    }

    /// Now, given what the wall clock says.
    pub fn now(&mut self, wall_us: i64) -> Timestamp {
        let elapsed = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.at(elapsed, wall_us)
    }

    fn at(&mut self, elapsed_us: i64, wall_us: i64) -> Timestamp {
        let steady = self.wall_at_start_us.saturating_add(elapsed_us);
        let limit = i64::try_from(JUMP_MAX.as_micros()).expect("a few seconds");
        let off = wall_us.saturating_sub(steady);
        if off.abs() > limit {
            if !self.told_of_jump {
                tracing::error!(off_us = off, "the wall clock jumped; engine time goes on without it");
                self.told_of_jump = true;
            }
            return Timestamp::from_micros(steady);
        }
        if self.told_of_jump {
            tracing::info!("the wall clock is back; engine time follows it again");
            self.told_of_jump = false;
        }
        // Small corrections are real time being learnt; a step back is absorbed by the shard, whose time never falls.
        self.wall_at_start_us = self.wall_at_start_us.saturating_add(off);
        Timestamp::from_micros(wall_us)
    }
}

/// The wall clock, microseconds since the epoch.
#[must_use]
pub fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Reads one message of a shard's queue.
///
/// # Errors
/// Why it is a dead letter.
pub fn read(message: &Incoming, shard: u32, shards: u32) -> Result<Request, &'static str> {
    if message.len() > REQUEST_BYTES_MAX {
        return Err("larger than a request may be");
    }
    let request = Request::decode(message.clone()).map_err(|_| "not a request")?;
    if request.command.is_none() {
        return Err("a request without a command this engine knows");
    }
    if request.correlation_id.len() != 16 {
        return Err("a request without a correlation id");
    }
    if !bus::keys::is_reply_list(&request.reply_to) {
        return Err("a reply address outside the reply lists");
    }
    if request.shard != shard {
        return Err("a request for another shard");
    }
    if !request.account_id.is_empty() && !command::lives_here(&request.account_id, shard, shards) {
        return Err("an account of another shard");
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use contracts::bus::request::Command;

    #[test]
    fn engine_time_follows_small_corrections_and_no_jumps() {
        let mut clock = EngineClock::start(1_000_000_000);
        assert_eq!(clock.at(1_000, 1_000_001_200).micros(), 1_000_001_200);
        let day = 86_400_000_000;
        assert_eq!(clock.at(2_000, 1_000_002_200 + day).micros(), 1_000_002_200);
        assert_eq!(clock.at(3_000, 1_000_003_200 - day).micros(), 1_000_003_200);
        assert_eq!(clock.at(4_000, 1_000_004_200).micros(), 1_000_004_200);
    }

    fn request() -> Request {
        Request {
            correlation_id: vec![1; 16].into(),
            reply_to: "replies:abc".to_owned(),
            shard: 3,
            account_id: "demo".to_owned(),
            command: Some(Command::ListBalances(contracts::v1::ListBalancesRequest::default())),
            ..Request::default()
        }
    }

    fn read_it(request: &Request) -> Result<Request, &'static str> {
        read(&Bytes::from(request.encode_to_vec()), 3, 16)
    }

    #[test]
    fn what_the_gateway_builds_is_read() {
        assert_eq!(read_it(&request()), Ok(request()));
    }

    #[test]
    fn what_it_would_never_build_is_a_dead_letter() {
        assert!(read(&Bytes::from_static(b"garbage \xff"), 3, 16).is_err());
        assert!(read(&Bytes::from(vec![0; REQUEST_BYTES_MAX + 1]), 3, 16).is_err());
        for spoil in [
            |it: &mut Request| it.reply_to = "price_stream".to_owned(),
            |it: &mut Request| it.shard = 4,
            |it: &mut Request| it.account_id = "alice".to_owned(),
            |it: &mut Request| it.correlation_id = vec![1].into(),
            |it: &mut Request| it.command = None,
        ] {
            let mut spoilt = request();
            spoil(&mut spoilt);
            assert!(read_it(&spoilt).is_err(), "{spoilt:?}");
        }
    }
}
