//! The checks. Each connects by itself, so that one store that is away hides nothing about the others.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{ErrorKind, ServerErrorKind};
use sqlx::{Connection as _, PgConnection};
use tokio::time::Instant;

use super::{Line, shown};
use crate::role::gateway::KeySource;
use crate::role::migrate::MIGRATIONS;

/// How long a store may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Oldest Postgres that is tested against: its `server_version_num`.
const POSTGRES_MIN: i32 = 150_000;
/// Oldest Redis that is tested against.
const REDIS_MIN: (u32, u32) = (7, 0);
/// How far apart clocks may be: what an engine accepts at its start. Microseconds.
const APART_MAX_US: i64 = 2_000_000;
/// How far from now a lease may end, with much to spare: engines take two seconds.
const LEASE_MAX_S: i64 = 60;
/// Part of `maxmemory` from which on it is worth knowing. Per cent.
const MEMORY_NOTE_PERCENT: u64 = 75;

/// What a check came to, or the one line that says why it could not look.
type Seen = Result<Vec<Line>, Line>;

pub(super) fn all(seen: Seen) -> Vec<Line> {
    seen.unwrap_or_else(|line| vec![line])
}

async fn connected(url: &str) -> Result<PgConnection, Line> {
    let fix = "start Postgres, or correct FULCRUM_DATABASE_URL; from a container also look at the network policies";
    match tokio::time::timeout(ANSWER_WITHIN, PgConnection::connect(url)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(Line::finding(format!("no connection to Postgres: {error}"), fix)),
        Err(_) => Err(Line::finding("Postgres does not answer", fix)),
    }
}

/// A question that failed although the connection stands.
fn unanswered(error: &dyn std::fmt::Display) -> Line {
    Line::finding(
        format!("Postgres did not answer a question: {error}"),
        "look at its log; the user may lack rights on the tables",
    )
}

async fn setting(connection: &mut PgConnection, name: &str) -> Result<String, Line> {
    sqlx::query_scalar("SELECT current_setting($1)")
        .bind(name)
        .fetch_one(connection)
        .await
        .map_err(|error| unanswered(&error))
}

/// Postgres answers, is recent enough, and is where one can write.
pub(super) async fn postgres(url: &str) -> Vec<Line> {
    let look = async {
        let mut connection = connected(url).await?;
        let number: i32 = setting(&mut connection, "server_version_num")
            .await?
            .parse()
            .unwrap_or(0);
        let version = setting(&mut connection, "server_version").await?;
        let mut lines = vec![Line::Fine(version.clone())];
        if number < POSTGRES_MIN {
            lines[0] = Line::finding(
                format!("Postgres {version} is older than {}", POSTGRES_MIN / 10_000),
                "upgrade it: nothing older is tested",
            );
        }
        let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()")
            .fetch_one(&mut connection)
            .await
            .map_err(|error| unanswered(&error))?;
        if standby {
            lines.push(Line::finding(
                "this address is a standby's, which takes no writes",
                "give the address that follows the primary",
            ));
        } else if setting(&mut connection, "default_transaction_read_only").await? == "on" {
            lines.push(Line::finding(
                "default_transaction_read_only is on: nothing can be committed",
                "ALTER ROLE … SET default_transaction_read_only = off, or the same for the database",
            ));
        }
        Ok(lines)
    };
    all(look.await)
}

/// What was committed is on the disk.
pub(super) async fn durability(url: &str) -> Vec<Line> {
    let look = async {
        let mut connection = connected(url).await?;
        let mut lines = Vec::new();
        for (name, allowed) in [
            ("fsync", &["on"][..]),
            ("full_page_writes", &["on"]),
            ("synchronous_commit", &["on", "remote_apply"]),
        ] {
            let value = setting(&mut connection, name).await?;
            lines.push(if allowed.contains(&value.as_str()) {
                Line::Fine(format!("{name} is {value}"))
            } else {
                Line::finding(
                    format!("{name} is {value}: an acknowledged trade could be lost, and engines refuse to start"),
                    format!(
                        "ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf(); and see that no role or database sets it"
                    ),
                )
            });
        }
        let standbys: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_replication")
            .fetch_one(&mut connection)
            .await
            .map_err(|error| unanswered(&error))?;
        let waits = !setting(&mut connection, "synchronous_standby_names").await?.is_empty();
        lines.push(match (standbys, waits) {
            (0, _) => Line::Note("no standby: the disk under this one Postgres is all there is".to_owned()),
            (_, true) => Line::Fine("commits wait for a standby".to_owned()),
            (_, false) => Line::Note(
                "there are standbys, but commits do not wait for one: a fail-over may lose what was acknowledged; see \
                 synchronous_standby_names"
                    .to_owned(),
            ),
        });
        Ok(lines)
    };
    all(look.await)
}

/// The schema is the one that this version was made for.
pub(super) async fn migrations(url: &str) -> Vec<Line> {
    let migrate = "run `fulcrum migrate` of this version against the database";
    let look = async {
        let mut connection = connected(url).await?;
        let there: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&mut connection)
            .await
            .map_err(|error| unanswered(&error))?;
        if !there {
            return Ok(vec![Line::finding("the database is empty", migrate)]);
        }
        let rows: Vec<(i64, bool, Vec<u8>)> =
            sqlx::query_as("SELECT version, success, checksum FROM _sqlx_migrations ORDER BY version")
                .fetch_all(&mut connection)
                .await
                .map_err(|error| unanswered(&error))?;
        let applied: BTreeMap<i64, (bool, Vec<u8>)> = rows.into_iter().map(|(it, ok, sum)| (it, (ok, sum))).collect();
        let mut lines = Vec::new();
        for wanted in MIGRATIONS.iter() {
            let name = format!("{:04} ({})", wanted.version, wanted.description);
            match applied.get(&wanted.version) {
                None => lines.push(Line::finding(format!("migration {name} is not applied"), migrate)),
                Some((false, _)) => lines.push(Line::finding(
                    format!("migration {name} was begun and not finished"),
                    "restore the backup from before the upgrade, or undo by hand what it did and delete its row from _sqlx_migrations",
                )),
                Some((true, sum)) if sum.as_slice() != &*wanted.checksum => lines.push(Line::finding(
                    format!("migration {name} is applied, but from another text"),
                    "this program was not made for this database: run the version that migrated it",
                )),
                Some((true, _)) => {}
            }
        }
        if lines.is_empty() {
            let newest = MIGRATIONS.iter().map(|it| it.version).max().unwrap_or(0);
            let ahead = applied.keys().filter(|version| **version > newest).count();
            let shards: Option<i32> = sqlx::query_scalar("SELECT shards FROM cluster")
                .fetch_optional(&mut connection)
                .await
                .map_err(|error| unanswered(&error))?;
            lines.push(match shards {
                Some(shards) => Line::Fine(format!("up to date, {shards} shards")),
                None => Line::finding("the number of shards is not settled", migrate),
            });
            if ahead > 0 {
                lines.push(Line::Note(format!(
                    "{ahead} newer migrations are applied: right during a roll-back, wrong if this program is to stay"
                )));
            }
        }
        Ok(lines)
    };
    all(look.await)
}

/// Every shard has a leader, and no lease was written by a clock that was wrong.
pub(super) async fn shards(url: &str) -> Vec<Line> {
    let look = async {
        let mut connection = connected(url).await?;
        let there: bool = sqlx::query_scalar("SELECT to_regclass('shard_head') IS NOT NULL")
            .fetch_one(&mut connection)
            .await
            .map_err(|error| unanswered(&error))?;
        if !there {
            return Ok(vec![Line::Note(
                "not looked at: the database is not migrated".to_owned(),
            )]);
        }
        let (heads, odd): (i64, i64) = sqlx::query_as(
            "SELECT count(*), \
             count(*) FILTER (WHERE lease_until > clock_timestamp() + $1::bigint * interval '1 second') FROM shard_head",
        )
        .bind(LEASE_MAX_S)
        .fetch_one(&mut connection)
        .await
        .map_err(|error| unanswered(&error))?;
        let pool = crate::role::pool(url, "doctor", 1).map_err(|error| unanswered(&error))?;
        let unled = engine::journal::unled(&pool)
            .await
            .map_err(|error| unanswered(&error))?;
        let mut lines = Vec::new();
        if odd > 0 {
            lines.push(Line::finding(
                format!("{odd} leases end more than {LEASE_MAX_S} s from now: the database's clock was wrong when they were written"),
                "synchronise the clock under Postgres; engines take such shards over by themselves",
            ));
        }
        lines.push(if unled > 0 {
            Line::Note(format!(
                "{unled} of {heads} shards have no leader: start an engine, or look why none leads"
            ))
        } else {
            Line::Fine(format!("all {heads} shards have a leader"))
        });
        Ok(lines)
    };
    all(look.await)
}

/// Redis answers, is recent enough, and throws nothing away: the one server, the master that sentinels name, or each master of a cluster.
pub(super) async fn redis(url: &str) -> Vec<Line> {
    let look = async {
        let redis = bus::Redis::open(url).map_err(redis_away)?;
        let servers = redis_answers(redis.servers()).await?;
        let mut lines = Vec::new();
        if let Some(unserved) = redis_answers(redis.slots_unserved()).await? {
            lines.push(if unserved == 0 {
                Line::Fine(format!("a cluster of {} masters serves every slot", servers.len()))
            } else {
                Line::finding(
                    format!("{unserved} slots of the cluster are served by nobody: some shards have no queue"),
                    "bring the master of these slots back, or let its replica take over: CLUSTER FAILOVER TAKEOVER",
                )
            });
        }
        for server in &servers {
            let mut of_this = redis_info(server).await?.map_or_else(
                || {
                    vec![Line::Note(
                        "version, memory and persistence not looked at: the user of this address may not ask; `operator` may".to_owned(),
                    )]
                },
                |info| of_a_server(&info),
            );
            if redis_answers(server.is_open()).await? {
                of_this.push(Line::Note(
                    "whoever reaches it may do everything: the default user is open. deploy/redis/users.acl has a user for each role"
                        .to_owned(),
                ));
            }
            if servers.len() > 1 {
                of_this.iter_mut().for_each(|line| line.begins_with(&server.address()));
            }
            lines.extend(of_this);
        }
        Ok(lines)
    };
    all(look.await)
}

/// What a server says of itself.
fn of_a_server(info: &BTreeMap<String, String>) -> Vec<Line> {
    let told = |name: &str| info.get(name).map_or("", String::as_str);
    let mut lines = Vec::new();
    let version = told("redis_version");
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    lines.push(if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < REDIS_MIN {
        Line::finding(
            format!("Redis {version} is older than {}.{}", REDIS_MIN.0, REDIS_MIN.1),
            "upgrade it: nothing older is tested",
        )
    } else {
        Line::Fine(version.to_owned())
    });
    if told("role") == "slave" {
        lines.push(Line::finding(
            "this address is a replica's, which takes no writes",
            "give the address that follows the master, or that of the sentinels: redis-sentinel://host:port,host:port/name",
        ));
    }
    let policy = told("maxmemory_policy");
    lines.push(if policy == "noeviction" {
        Line::Fine("maxmemory-policy is noeviction".to_owned())
    } else {
        Line::finding(
            format!("maxmemory-policy is {policy}: a full Redis would throw queues away"),
            "CONFIG SET maxmemory-policy noeviction, and the same in its configuration",
        )
    });
    let bytes = |name| told(name).parse::<u64>().unwrap_or(0);
    let (used, most) = (bytes("used_memory"), bytes("maxmemory"));
    if most > 0 && used.saturating_mul(100) / most >= MEMORY_NOTE_PERCENT {
        lines.push(Line::Note(format!(
            "{used} of {most} bytes of memory are used: when it is full, calls are refused"
        )));
    }
    lines.push(if told("aof_enabled") == "1" {
        Line::Fine("appendonly is on".to_owned())
    } else {
        Line::Note(
            "appendonly is off: safe, but after a restart of Redis callers in flight see UNKNOWN_OUTCOME once and repeat".to_owned(),
        )
    });
    lines
}

pub(super) fn redis_away(error: impl std::fmt::Display) -> Line {
    Line::finding(
        format!("no connection to Redis: {error}"),
        "start Redis, or correct FULCRUM_REDIS_URL; from a container also look at the network policies",
    )
}

pub(super) async fn redis_answers<T>(ask: impl Future<Output = Result<T, bus::BusError>>) -> Result<T, Line> {
    tokio::time::timeout(ANSWER_WITHIN, ask)
        .await
        .map_err(|_| redis_away("no answer in time"))?
        .map_err(redis_away)
}

/// What a server says of itself; nothing to a user who may not ask.
async fn redis_info(server: &bus::connect::servers::Server) -> Result<Option<BTreeMap<String, String>>, Line> {
    let ask = async {
        let mut connection = server.connect().await?;
        match redis::cmd("INFO").query_async::<String>(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(None),
            said => Ok(Some(said?)),
        }
    };
    let Some(text) = redis_answers(ask).await? else {
        return Ok(None);
    };
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    Ok(Some(pairs.collect()))
}

/// The clocks of this machine, Postgres and Redis agree.
pub(super) async fn clocks(database: &str, redis: &str) -> Vec<Line> {
    let look = async {
        let mut connection = connected(database).await?;
        let away = async {
            let asked = Instant::now();
            let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
            let theirs: i64 = sqlx::query_scalar(sql)
                .fetch_one(&mut connection)
                .await
                .map_err(|error| unanswered(&error))?;
            Ok(difference(theirs, asked))
        };
        let postgres = away.await?;
        let open = bus::Redis::open(redis).map_err(redis_away)?;
        let asked = Instant::now();
        let theirs = redis_answers(open.time_us()).await?;
        Ok(apart(&[("Postgres", postgres), ("Redis", difference(theirs, asked))]))
    };
    all(look.await)
}

/// How far another clock is ahead of ours, after what the question may have taken is forgiven. Microseconds.
fn difference(theirs_us: i64, asked: Instant) -> i64 {
    let took = i64::try_from(asked.elapsed().as_micros()).unwrap_or(i64::MAX);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ours = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    let off = theirs_us.saturating_sub(ours);
    // It was read at some moment between the question and the answer.
    off.saturating_add(off.saturating_neg().clamp(0, took))
}

/// What differences between clocks mean.
pub(super) fn apart(others: &[(&str, i64)]) -> Vec<Line> {
    let all = || others.iter().map(|(_, off)| *off).chain([0]);
    let most = all().max().unwrap_or(0).saturating_sub(all().min().unwrap_or(0));
    if most <= APART_MAX_US {
        return vec![Line::Fine(format!("at most {} ms apart", most / 1_000))];
    }
    let each: Vec<String> = others
        .iter()
        .map(|(name, off)| format!("{name} is {} ms ahead of this machine", off / 1_000))
        .collect();
    vec![Line::finding(
        format!("the clocks are {} ms apart: {}", most / 1_000, each.join(", ")),
        "synchronise them (chrony, or systemd-timesyncd); engines refuse to start beyond 2 s",
    )]
}

/// The gateway's keys can be read.
pub(super) fn keys(sources: &[KeySource]) -> Vec<Line> {
    if sources.is_empty() {
        return vec![Line::Note(
            "not looked at: give the gateway's with --token-key".to_owned(),
        )];
    }
    let read = |source: &KeySource| match source.read() {
        Ok(key) => Line::Fine(format!(
            "{} verifies tokens of the key {}",
            shown(source.file()),
            key.id.as_deref().unwrap_or("without a name")
        )),
        Err(error) => Line::finding(
            format!("{error:#}"),
            "give the public half (token.pub.pem) that `fulcrum keygen` made, readable by this user",
        ),
    };
    sources.iter().map(read).collect()
}
