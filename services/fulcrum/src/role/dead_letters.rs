//! `fulcrum dead-letters`: what engines put away, looked at and dealt with by a person.
//!
//! Nothing here deletes a letter: it is marked with what became of it, by whom and why.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::lists::{CallLists as _, Pushed, RedisLists};
use bus::{QUEUE_LENGTH_MAX, REQUEST_BYTES_MAX};
use clap::{Args, Subcommand};
use contracts::bus::Request;
use prost::Message as _;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use crate::failure::Failure;
use crate::say;
use crate::settings::{DatabaseSettings, RedisSettings};

/// How long an engine has for a command that is put back after its deadline.
const TIME_TO_EXECUTE: Duration = Duration::from_secs(60);
/// Bytes in one line of a dump.
const DUMP_LINE: usize = 32;

/// Shows the messages that engines could not handle, and deals with them.
///
/// A message ends here when it is not a request of ours, or when its handling made an engine panic. Its caller, where there is one,
/// was told INTERNAL and that nothing was changed.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(ListOptions),
    Show(ShowOptions),
    Requeue(RequeueOptions),
    Discard(DiscardOptions),
}

/// Lists the letters that nobody has dealt with: shard, id, age, size, state and reason, the oldest first.
#[derive(Debug, Args)]
struct ListOptions {
    #[command(flatten)]
    database: DatabaseSettings,
    /// Lists those that were dealt with too.
    #[arg(long, env = "FULCRUM_DEAD_LETTERS_ALL", value_parser = clap::builder::FalseyValueParser::new())]
    all: bool,
}

/// Shows one letter: the request when it can be read as one, else its bytes.
#[derive(Debug, Args)]
struct ShowOptions {
    #[command(flatten)]
    database: DatabaseSettings,
    /// The letter's id, as listed.
    #[arg(env = "FULCRUM_DEAD_LETTER")]
    id: i64,
}

/// Puts one letter back on its queue, so that an engine handles it: look at it first with `show`.
///
/// Only a mutation that can be read whole is put back; a read has nobody waiting for it. It keeps its request_id, so it is executed at
/// most once, also if its caller sends it again. Its caller was told that nothing was changed and may have acted on that: with a
/// deadline that has passed it is put back with --force only.
#[derive(Debug, Args)]
struct RequeueOptions {
    #[command(flatten)]
    database: DatabaseSettings,
    #[command(flatten)]
    redis: RedisSettings,
    /// The letter's id, as listed.
    #[arg(env = "FULCRUM_DEAD_LETTER")]
    id: i64,
    /// Executes it although its caller has stopped waiting, with a new deadline in a minute; or once more when it was put back before.
    #[arg(long, env = "FULCRUM_DEAD_LETTER_FORCE", value_parser = clap::builder::FalseyValueParser::new())]
    force: bool,
    /// Why, for the record.
    #[arg(long, env = "FULCRUM_DEAD_LETTER_NOTE", value_name = "TEXT")]
    note: Option<String>,
}

/// Marks letters as dealt with; they stay on record and are never handled.
#[derive(Debug, Args)]
struct DiscardOptions {
    #[command(flatten)]
    database: DatabaseSettings,
    /// The letters' ids, as listed.
    #[arg(env = "FULCRUM_DEAD_LETTER", required = true)]
    ids: Vec<i64>,
    /// Why, for the record.
    #[arg(long, env = "FULCRUM_DEAD_LETTER_NOTE", value_name = "TEXT")]
    note: Option<String>,
}

/// One letter.
#[derive(Debug, FromRow)]
struct Letter {
    id: i64,
    shard: i32,
    digest: Vec<u8>,
    body: Vec<u8>,
    bytes: i64,
    reason: String,
    age_s: i64,
    received: String,
    resolution: Option<String>,
    resolved_by: Option<String>,
    note: Option<String>,
    requeues: i32,
}

/// What of a letter is read; a list goes without bodies.
const COLUMNS: &str = "id, shard, digest, coalesce(bytes, length(body)) AS bytes, reason, \
     extract(epoch FROM clock_timestamp() - received_at)::bigint AS age_s, received_at::text AS received, resolution, resolved_by, \
     note, requeues";

/// Runs the command.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    match options.command {
        Command::List(options) => {
            list(
                &super::pool(&options.database.database_url, "dead-letters", 1)?,
                options.all,
            )
            .await
        }
        Command::Show(options) => {
            show(
                &super::pool(&options.database.database_url, "dead-letters", 1)?,
                options.id,
            )
            .await
        }
        Command::Requeue(options) => requeue(options).await,
        Command::Discard(options) => discard(options).await,
    }
}

async fn list(pool: &PgPool, all: bool) -> Result<(), Failure> {
    let sql =
        format!("SELECT {COLUMNS}, ''::bytea AS body FROM dead_letters WHERE $1 OR resolved_at IS NULL ORDER BY id");
    let letters: Vec<Letter> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(all)
        .fetch_all(pool)
        .await?;
    if letters.is_empty() {
        say::line("no dead letters");
        return Ok(());
    }
    say::line("SHARD     ID        AGE      BYTES  STATE      REASON");
    for letter in letters {
        say::line(format!(
            "{:5} {:6} {:>10} {:10}  {:9}  {}",
            letter.shard,
            letter.id,
            age(letter.age_s),
            letter.bytes,
            letter.resolution.as_deref().unwrap_or("OPEN"),
            letter.reason
        ));
    }
    Ok(())
}

async fn show(pool: &PgPool, id: i64) -> Result<(), Failure> {
    let letter = fetch(pool, id).await?;
    say::line(format!(
        "letter    {} of shard {}, received {}",
        letter.id, letter.shard, letter.received
    ));
    say::line(format!("reason    {}", letter.reason));
    let panics: Vec<String> = sqlx::query_scalar(
        "SELECT at::text || ', leadership ' || epoch || ': ' || said FROM panics WHERE shard = $1 AND digest = $2 ORDER BY epoch",
    )
    .bind(letter.shard)
    .bind(&letter.digest)
    .fetch_all(pool)
    .await?;
    for panic in panics {
        say::line(format!("panicked  {panic}"));
    }
    let state = letter.resolution.as_deref().unwrap_or("OPEN");
    let by = letter
        .resolved_by
        .as_deref()
        .map_or_else(String::new, |by| format!(" by {by}"));
    say::line(format!("state     {state}{by}, put back {} times", letter.requeues));
    if let Some(note) = &letter.note {
        say::line(format!("note      {note}"));
    }
    let kept = match letter.is_whole() {
        true => String::new(),
        false => format!(", {} of them kept", letter.body.len()),
    };
    say::line(format!("bytes     {}{kept}", letter.bytes));
    match Request::decode(letter.body.as_slice()) {
        Ok(request) if request.command.is_some() => describe(&request),
        _ => letter.body.chunks(DUMP_LINE).enumerate().for_each(|(n, line)| {
            let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            say::line(format!("{:08x}  {hex}", n * DUMP_LINE));
        }),
    }
    Ok(())
}

/// Says what a request asks for.
fn describe(request: &Request) {
    let id = Uuid::from_slice(&request.request_id).map_or_else(|_| "none, a read".to_owned(), |id| id.to_string());
    say::line(format!("principal {}", request.principal));
    say::line(format!("account   {}", request.account_id));
    say::line(format!("request   {id}"));
    say::line(format!("deadline  {}", deadline(request)));
    if let Some(command) = &request.command {
        say::line(format!("command   {command:?}"));
    }
}

async fn requeue(options: RequeueOptions) -> Result<(), Failure> {
    let pool = super::pool(&options.database.database_url, "dead-letters", 1)?;
    let letter = fetch(&pool, options.id).await?;
    let (request, message) = sendable(&letter, options.force)?;
    describe(&request);

    // Marked first: once it stands in the queue an engine may look at any moment whether the command is held.
    let mut transaction = pool.begin().await?;
    let marked = sqlx::query(
        "UPDATE dead_letters SET resolved_at = clock_timestamp(), resolution = 'REQUEUED', resolved_by = session_user, note = $2, \
         requeues = requeues + 1 WHERE id = $1 AND resolution IS NOT DISTINCT FROM $3",
    )
    .bind(letter.id)
    .bind(&options.note)
    .bind(&letter.resolution)
    .execute(&mut *transaction)
    .await?;
    if marked.rows_affected() == 0 {
        return Err(refused("somebody else has just dealt with it: look at it again"));
    }
    sqlx::query("DELETE FROM panics WHERE shard = $1 AND digest = $2")
        .bind(letter.shard)
        .bind(&letter.digest)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;

    let mut lists = RedisLists::new(bus::Redis::open(&options.redis.redis_url)?);
    let pushed = lists.push(&[(request.shard, vec![message])], QUEUE_LENGTH_MAX).await;
    let why = match pushed.first() {
        Some(Pushed::Count(1)) => {
            say::line(format!(
                "letter {} stands in the queue of shard {} again: what became of it is in the history of its request_id",
                letter.id, letter.shard
            ));
            return Ok(());
        }
        Some(Pushed::Unknown) => {
            return Err(refused(
                "Redis did not say whether it arrived: if its request_id stays unknown, requeue it again with --force",
            ));
        }
        Some(Pushed::NoLeader) => "no engine leads its shard",
        Some(Pushed::Count(_)) => "its queue is full",
        Some(Pushed::NeverSent) | None => "Redis cannot be reached",
    };
    sqlx::query("UPDATE dead_letters SET resolved_at = NULL, resolution = NULL, requeues = requeues - 1 WHERE id = $1 AND resolution = 'REQUEUED'")
        .bind(letter.id)
        .execute(&pool)
        .await?;
    Err(refused(&format!("{why}: it was not put back, try again")))
}

/// The request in a letter, and the bytes to put back; an error says why it stays where it is.
fn sendable(letter: &Letter, force: bool) -> Result<(Request, Vec<u8>), Failure> {
    match letter.resolution.as_deref() {
        None => {}
        Some("REQUEUED") if force => {}
        Some("REQUEUED") => {
            return Err(refused(
                "it was put back before and has not come again: --force puts it back once more",
            ));
        }
        Some(_) => return Err(refused("it was discarded")),
    }
    if !letter.is_whole() || letter.body.len() > REQUEST_BYTES_MAX {
        return Err(refused("it is larger than a request may be: discard it"));
    }
    let request = Request::decode(letter.body.as_slice())
        .ok()
        .filter(|it| it.command.is_some() && i64::from(it.shard) == i64::from(letter.shard))
        .ok_or_else(|| refused("it is not a request of its shard and would come back: discard it"))?;
    if request.request_id.len() != 16 {
        return Err(refused("it is a read, and nobody waits for its answer: discard it"));
    }
    if now_us() <= request.expires_at_us {
        return Ok((request, letter.body.clone()));
    }
    if !force {
        return Err(refused(&format!(
            "its deadline has passed ({}): its caller was told that nothing was changed and may have acted on that. \
             --force executes it all the same",
            deadline(&request)
        )));
    }
    if request.encode_to_vec() != letter.body {
        return Err(refused(
            "another version wrote it, so its deadline cannot be changed here: discard it",
        ));
    }
    let late = Request {
        expires_at_us: now_us() + u64::try_from(TIME_TO_EXECUTE.as_micros()).expect("a minute"),
        ..request
    };
    let message = late.encode_to_vec();
    Ok((late, message))
}

async fn discard(options: DiscardOptions) -> Result<(), Failure> {
    let pool = super::pool(&options.database.database_url, "dead-letters", 1)?;
    let mut left = Vec::new();
    for id in options.ids {
        let marked = sqlx::query(
            "UPDATE dead_letters SET resolved_at = clock_timestamp(), resolution = 'DISCARDED', resolved_by = session_user, note = $2 \
             WHERE id = $1 AND resolved_at IS NULL",
        )
        .bind(id)
        .bind(&options.note)
        .execute(&pool)
        .await?;
        match marked.rows_affected() {
            0 => left.push(id.to_string()),
            _ => say::line(format!("letter {id} is discarded")),
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    Err(refused(&format!(
        "not open, or not there: {}; `fulcrum dead-letters list --all` says which",
        left.join(", ")
    )))
}

async fn fetch(pool: &PgPool, id: i64) -> Result<Letter, Failure> {
    let sql = format!("SELECT {COLUMNS}, body FROM dead_letters WHERE id = $1");
    let letter: Option<Letter> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(id)
        .fetch_optional(pool)
        .await?;
    letter.ok_or_else(|| refused(&format!("there is no dead letter {id}")))
}

impl Letter {
    /// Whether all of it was kept.
    fn is_whole(&self) -> bool {
        i64::try_from(self.body.len()) == Ok(self.bytes)
    }
}

fn refused(why: &str) -> Failure {
    anyhow::anyhow!("{why}").into()
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// How far away the deadline of a request is.
fn deadline(request: &Request) -> String {
    let (now, until) = (now_us(), request.expires_at_us);
    let seconds = |us: u64| age(i64::try_from(us / 1_000_000).unwrap_or(i64::MAX));
    if until >= now {
        format!("in {}", seconds(until - now))
    } else {
        format!("passed {} ago", seconds(now - until))
    }
}

/// A length of time as people say it, in its two largest units.
fn age(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_two_units() {
        for (seconds, text) in [(0, "0s"), (61, "1m01s"), (3_660, "1h01m"), (90_000, "1d01h")] {
            assert_eq!(age(seconds), text);
        }
    }
}
