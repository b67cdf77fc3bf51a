//! A healthy deployment has no findings; each thing that is wrong has one, and says how to mend it.

use std::path::PathBuf;

use testkit::free_ports;
use testkit::{PrivatePostgres, PrivateRedis, PrivateRedisCluster};

use super::*;
use crate::role::migrate::migrate;

const SOUND: [(&str, &str); 2] = [("fsync", "on"), ("full_page_writes", "on")];

async fn database(settings: &[(&str, &str)]) -> PrivatePostgres {
    let postgres = PrivatePostgres::start_with(&[&SOUND, settings].concat()).await;
    migrate(&postgres.pool(), Some(4)).await.unwrap();
    postgres
}

fn findings(lines: &[Line]) -> Vec<(&str, &str)> {
    let found = lines.iter().filter_map(|line| match line {
        Line::Finding { what, fix } => Some((what.as_str(), fix.as_str())),
        _ => None,
    });
    found.collect()
}

/// The one finding, which must say this and give this advice.
fn only(lines: &[Line], what: &str, fix: &str) {
    let found = findings(lines);
    assert_eq!(found.len(), 1, "{lines:?}");
    assert!(found[0].0.contains(what) && found[0].1.contains(fix), "{found:?}");
}

fn said(lines: &[Line]) -> String {
    format!("{lines:?}")
}

#[tokio::test]
async fn a_healthy_deployment_has_no_findings() {
    let (postgres, redis) = (database(&[]).await, PrivateRedis::start().await);
    let directory = tempfile::tempdir().unwrap();
    let (_, public) = crate::keys::make(directory.path()).unwrap();
    let patient = Patient {
        redis: redis.url(),
        database: postgres.url(),
        keys: vec![token_key(public.to_str().unwrap()).unwrap()],
    };
    for check in Check::value_variants() {
        let lines = check.look(&patient).await;
        assert!(!lines.is_empty(), "{check:?} says nothing");
        assert_eq!(findings(&lines), [], "{check:?}");
    }
    examine(&patient, Check::value_variants(), Duration::ZERO)
        .await
        .unwrap();
    let shards = checks::shards(&patient.database).await;
    assert!(said(&shards).contains("4 of 4 shards have no leader"), "{shards:?}");
}

#[tokio::test]
async fn stores_that_are_away_are_found_each_by_itself() {
    let (mut postgres, mut redis) = (database(&[]).await, PrivateRedis::start().await);
    postgres.kill();
    redis.kill();
    let patient = Patient {
        redis: redis.url(),
        database: postgres.url(),
        keys: Vec::new(),
    };
    only(
        &checks::postgres(&patient.database).await,
        "Postgres",
        "FULCRUM_DATABASE_URL",
    );
    only(&checks::redis(&patient.redis).await, "Redis", "FULCRUM_REDIS_URL");
    let outcome = examine(&patient, &[Check::Postgres, Check::Redis, Check::Keys], Duration::ZERO).await;
    assert_eq!(outcome.unwrap_err().to_string(), "2 things are wrong");
}

#[tokio::test]
async fn settings_that_lose_what_was_acknowledged_are_found() {
    for (setting, value) in [
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("synchronous_commit", "off"),
    ] {
        let postgres = PrivatePostgres::start_with(&[&SOUND[..], &[(setting, value)]].concat()).await;
        only(
            &checks::durability(&postgres.url()).await,
            &format!("{setting} is {value}"),
            &format!("ALTER SYSTEM SET {setting} = on"),
        );
    }
}

#[tokio::test]
async fn a_role_that_commits_lazily_is_found_too() {
    let postgres = database(&[]).await;
    let sql = "ALTER ROLE fulcrum SET synchronous_commit = local";
    sqlx::query(sql).execute(&postgres.pool()).await.unwrap();
    only(
        &checks::durability(&postgres.url()).await,
        "synchronous_commit is local",
        "no role",
    );
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_found() {
    let postgres = database(&[("default_transaction_read_only", "off")]).await;
    let sql = "ALTER ROLE fulcrum SET default_transaction_read_only = on";
    sqlx::query(sql).execute(&postgres.pool()).await.unwrap();
    only(&checks::postgres(&postgres.url()).await, "read_only", "ALTER ROLE");
}

#[tokio::test]
async fn a_schema_of_another_version_is_found() {
    let postgres = PrivatePostgres::start().await;
    let url = postgres.url();
    only(&checks::migrations(&url).await, "empty", "fulcrum migrate");
    assert!(said(&checks::shards(&url).await).contains("not migrated"));

    migrate(&postgres.pool(), Some(4)).await.unwrap();
    assert_eq!(findings(&checks::migrations(&url).await), []);

    let pool = postgres.pool();
    let run = async |sql: &'static str| sqlx::query(sql).execute(&pool).await.unwrap();
    run("UPDATE _sqlx_migrations SET version = 9999 WHERE version = (SELECT max(version) FROM _sqlx_migrations)").await;
    only(&checks::migrations(&url).await, "is not applied", "fulcrum migrate");
    migrate(&pool, None).await.unwrap_err();

    run("DELETE FROM _sqlx_migrations WHERE version = 1").await;
    assert_eq!(findings(&checks::migrations(&url).await).len(), 2);
}

#[tokio::test]
async fn a_newer_schema_is_only_worth_a_note() {
    let postgres = database(&[]).await;
    let url = postgres.url();
    let newer = "INSERT INTO _sqlx_migrations SELECT 9999, 'later', installed_on, true, checksum, execution_time \
                 FROM _sqlx_migrations WHERE version = 1";
    sqlx::query(newer).execute(&postgres.pool()).await.unwrap();
    let lines = checks::migrations(&url).await;
    assert_eq!(findings(&lines), []);
    assert!(said(&lines).contains("1 newer migrations"), "{lines:?}");
}

#[tokio::test]
async fn a_broken_or_foreign_migration_is_found() {
    let postgres = database(&[]).await;
    let (url, pool) = (postgres.url(), postgres.pool());
    let run = async |sql: &'static str| sqlx::query(sql).execute(&pool).await.unwrap();
    run("UPDATE _sqlx_migrations SET success = false WHERE version = 2").await;
    only(&checks::migrations(&url).await, "not finished", "backup");
    run("UPDATE _sqlx_migrations SET success = true, checksum = 'x' WHERE version = 2").await;
    only(
        &checks::migrations(&url).await,
        "another text",
        "the version that migrated it",
    );
    run("DELETE FROM cluster").await;
    run("DELETE FROM _sqlx_migrations WHERE version = 2").await;
    only(&checks::migrations(&url).await, "is not applied", "fulcrum migrate");
}

#[tokio::test]
async fn a_lease_written_by_a_wrong_clock_is_found() {
    let postgres = database(&[]).await;
    let sql = "UPDATE shard_head SET lease_until = clock_timestamp() + interval '1 day' WHERE shard = 1";
    sqlx::query(sql).execute(&postgres.pool()).await.unwrap();
    only(&checks::shards(&postgres.url()).await, "1 leases end", "synchronise");
}

#[tokio::test]
async fn a_redis_that_throws_queues_away_is_found() {
    let redis = PrivateRedis::start().await;
    let mut connection = bus::Redis::open(&redis.url()).unwrap().commands().await.unwrap();
    let mut set = async |name: &str, value: &str| {
        let mut command = redis::cmd("CONFIG");
        let () = command
            .arg("SET")
            .arg(name)
            .arg(value)
            .query_async(&mut connection)
            .await
            .unwrap();
    };
    let lines = checks::redis(&redis.url()).await;
    assert_eq!(findings(&lines), []);
    assert!(said(&lines).contains("appendonly is off"), "{lines:?}");

    set("maxmemory-policy", "allkeys-lru").await;
    only(
        &checks::redis(&redis.url()).await,
        "maxmemory-policy is allkeys-lru",
        "noeviction",
    );
    set("maxmemory-policy", "noeviction").await;
    set("maxmemory", "1000000").await;
    assert!(said(&checks::redis(&redis.url()).await).contains("of 1000000 bytes"));
    // A replica of nobody: it says what it is all the same.
    set("maxmemory", "0").await;
    let mut command = redis::cmd("REPLICAOF");
    let () = command
        .arg("127.0.0.1")
        .arg("1")
        .query_async(&mut connection)
        .await
        .unwrap();
    only(&checks::redis(&redis.url()).await, "replica", "master");

    let kept = PrivateRedis::start_appendonly().await;
    assert!(said(&checks::redis(&kept.url()).await).contains("appendonly is on"));
}

#[tokio::test]
async fn a_redis_where_nobody_is_asked_for_a_name_is_noted() {
    const OPEN: &str = "the default user is open";
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("users.acl");
    let users = include_str!("../../../../deploy/redis/users.acl");
    std::fs::write(&file, users.replace("user operator on ", "user operator on >secret ")).unwrap();
    let (file, ports) = (file.to_str().unwrap().to_owned(), free_ports(2));
    let port = |index: usize| ports[index].to_string();
    let open = PrivateRedis::start_with(&[("port", &port(0)), ("bind", "127.0.0.1")]).await;
    let address = format!("redis://127.0.0.1:{}", port(0));
    assert!(said(&checks::redis(&address).await).contains(OPEN));
    assert!(
        !said(&checks::redis(&open.url()).await).contains(OPEN),
        "a socket has an owner"
    );
    let _asks = PrivateRedis::start_with(&[("port", &port(1)), ("bind", "127.0.0.1"), ("aclfile", &file)]).await;
    let lines = checks::redis(&format!("redis://operator:secret@127.0.0.1:{}", port(1))).await;
    assert_eq!(findings(&lines), []);
    assert!(!said(&lines).contains(OPEN), "{lines:?}");
}

/// A Redis with the users as they are deployed, each with its name as password; one line changed.
async fn with_users(change: impl Fn(&str) -> String) -> (PrivateRedis, tempfile::TempDir) {
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("users.acl");
    let mut users = String::new();
    for line in include_str!("../../../../deploy/redis/users.acl").lines() {
        let name = line.split(' ').nth(1).unwrap();
        let line = line.replace(
            &format!("user {name} on resetkeys"),
            &format!("user {name} on >{name} resetkeys"),
        );
        users += &change(&line);
        users.push('\n');
    }
    std::fs::write(&file, users).unwrap();
    (
        PrivateRedis::start_with(&[("aclfile", file.to_str().unwrap())]).await,
        room,
    )
}

const WITH_USERS: [&str; 5] = ["gateway", "engine", "poller", "recorder", "operator"];

#[tokio::test]
async fn the_users_that_are_deployed_may_do_what_their_roles_do() {
    let (redis, _room) = with_users(str::to_owned).await;
    for role in WITH_USERS {
        let address = format!("{}?user={role}&pass={role}", redis.url());
        let lines = rights::rights(&address).await;
        assert_eq!(
            lines,
            [Line::Fine(format!("the user {role:?} may do what a {role} does"))]
        );
        assert_eq!(findings(&checks::redis(&address).await), [], "{role}");
    }
    let nobody = rights::rights(&redis.url()).await;
    assert!(said(&nobody).contains("names no user"), "{nobody:?}");
}

#[test]
fn every_command_that_a_user_is_given_is_one_that_is_looked_at() {
    for line in include_str!("../../../../deploy/redis/users.acl").lines() {
        let words: Vec<&str> = line.split([' ', '(', ')']).collect();
        let Some(role) = bus::rights::ROLES.iter().find(|role| role.name == words[1]) else {
            continue;
        };
        let looked_at = || bus::rights::EVERYBODY.iter().chain(role.asked).chain(role.tried);
        for given in words.iter().filter_map(|word| word.strip_prefix('+')) {
            let command = given.replace('|', " ").to_uppercase();
            let there = looked_at().any(|it| *it == command || it.starts_with(&format!("{command} ")));
            assert!(there, "{}: nobody looks at {command}", role.name);
        }
    }
}

#[tokio::test]
async fn each_right_that_a_role_lacks_is_found() {
    for (role, right, command) in [
        ("gateway", "+rpush", "RPUSH {s0}:requests a"),
        ("gateway", "+blmpop", "BLMPOP"),
        ("gateway", "%R~{s*}:events", "XREAD STREAMS {s0}:events 0"),
        ("gateway", "+eval", "EVAL"),
        ("gateway", "+evalsha", "EVALSHA"),
        ("poller", "+cluster|slots", "CLUSTER SLOTS"),
        ("engine", "+ltrim", "LTRIM"),
        ("engine", "+psetex", "PSETEX"),
        ("engine", "+xgroup|setid", "XGROUP SETID"),
        ("poller", "+xadd", "XADD price_stream"),
        ("recorder", "+xrevrange", "XREVRANGE price_stream"),
        ("operator", "+info", "INFO"),
        ("operator", "+time", "TIME"),
    ] {
        let own = format!("user {role} ");
        let without = |line: &str| {
            if line.starts_with(&own) {
                line.replace(&format!("{right} "), "")
                    .replace(&format!(" {right})"), ")")
            } else {
                line.to_owned()
            }
        };
        let (redis, _room) = with_users(without).await;
        let lines = rights::rights(&format!("{}?user={role}&pass={role}", redis.url())).await;
        let found = findings(&lines);
        assert!(!found.is_empty(), "{role} without {right}: {lines:?}");
        assert!(
            found.iter().all(|(_, fix)| fix.contains("deploy/redis/users.acl")) && said(&lines).contains(command),
            "{role} without {right}: {lines:?}"
        );
    }
}

#[tokio::test]
async fn a_user_who_may_do_more_than_its_role_needs_is_noted() {
    let more = |line: &str| {
        if line.starts_with("user poller ") {
            line.replacen("-@all +ping", "+@all +ping", 1)
        } else {
            line.to_owned()
        }
    };
    let (redis, _room) = with_users(more).await;
    let lines = rights::rights(&format!("{}?user=poller&pass=poller", redis.url())).await;
    assert_eq!(findings(&lines), []);
    assert!(said(&lines).contains("more than it needs"), "{lines:?}");
}

#[tokio::test]
async fn each_master_of_a_cluster_is_looked_at_and_slots_of_nobody_are_found() {
    let mut cluster = PrivateRedisCluster::start_with(&[("cluster-replica-no-failover", "yes")]).await;
    let lines = checks::redis(&cluster.url()).await;
    assert_eq!(findings(&lines), []);
    assert_eq!(
        said(&lines).matches("maxmemory-policy is noeviction").count(),
        3,
        "{lines:?}"
    );
    let master = cluster.master_of("{s0}:requests").await;
    cluster.kill(master);
    // Its neighbours need a moment to agree that it is gone.
    let found = loop {
        let lines = checks::redis(&cluster.url()).await;
        if !findings(&lines).is_empty() {
            break lines;
        }
    };
    assert!(!findings(&found).is_empty(), "{found:?}");
}

#[test]
fn clocks_may_be_two_seconds_apart() {
    assert_eq!(
        findings(&checks::apart(&[("Postgres", 1_000_000), ("Redis", -1_000_000)])),
        []
    );
    only(
        &checks::apart(&[("Postgres", 1_500_000), ("Redis", -1_000_000)]),
        "2500 ms apart",
        "synchronise",
    );
    only(
        &checks::apart(&[("Postgres", 0), ("Redis", 86_400_000_000)]),
        "Redis is 86400000 ms ahead",
        "chrony",
    );
}

#[test]
fn a_key_that_cannot_be_used_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let (private, public) = crate::keys::make(directory.path()).unwrap();
    let look = |file: PathBuf| checks::keys(&[token_key(file.to_str().unwrap()).unwrap()]);
    assert_eq!(findings(&look(public)), []);
    only(&look(private), "no Ed25519 public key", "public half");
    only(&look(directory.path().join("none.pem")), "none.pem", "keygen");
}

#[tokio::test]
async fn waiting_ends_when_all_is_well() {
    let postgres = PrivatePostgres::start().await;
    let patient = Patient {
        redis: String::new(),
        database: postgres.url(),
        keys: Vec::new(),
    };
    let refused = examine(&patient, &[Check::Migrations], Duration::ZERO).await;
    assert_eq!(refused.unwrap_err().code(), 1);
    let waiting = examine(&patient, &[Check::Migrations], Duration::from_secs(120));
    let migrating = async { migrate(&postgres.pool(), None).await.map(drop) };
    let (waited, migrated) = tokio::join!(waiting, migrating);
    waited.unwrap();
    migrated.unwrap();
}
