//! The private stores do what the other tests rely on.

use std::time::Duration;

use sqlx::PgPool;
use testkit::{PrivatePostgres, PrivateRedis};

async fn count(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM cluster")
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_private_postgres_has_the_schema_and_keeps_what_was_committed_before_a_crash() {
    let mut postgres = PrivatePostgres::migrated().await;
    sqlx::query("INSERT INTO cluster (shards) VALUES (16)")
        .execute(&postgres.pool())
        .await
        .unwrap();
    postgres.kill();
    assert!(postgres.pool().acquire().await.is_err(), "it is down");
    postgres.start_again().await;
    assert_eq!(count(&postgres.pool()).await, 1);
}

#[tokio::test]
async fn two_private_postgres_share_nothing() {
    let (one, other) = tokio::join!(PrivatePostgres::migrated(), PrivatePostgres::migrated());
    sqlx::query("INSERT INTO cluster (shards) VALUES (16)")
        .execute(&one.pool())
        .await
        .unwrap();
    assert_eq!(count(&other.pool()).await, 0);
}

#[tokio::test]
async fn a_setting_of_the_test_wins() {
    let postgres = PrivatePostgres::start_with(&[("fsync", "on")]).await;
    let fsync: String = sqlx::query_scalar("SHOW fsync")
        .fetch_one(&postgres.pool())
        .await
        .unwrap();
    assert_eq!(fsync, "on");
}

async fn get(redis: &PrivateRedis) -> Option<String> {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("GET").arg("key").query_async(&mut connection).await.unwrap()
}

async fn set(redis: &PrivateRedis) {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("SET")
        .arg("key")
        .arg("value")
        .exec_async(&mut connection)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_private_redis_loses_everything_or_nothing_as_asked() {
    let mut forgetful = PrivateRedis::start().await;
    let mut faithful = PrivateRedis::start_appendonly().await;
    for redis in [&mut forgetful, &mut faithful] {
        set(redis).await;
        redis.kill();
        redis.start_again().await;
    }
    assert_eq!(get(&forgetful).await, None);
    assert_eq!(get(&faithful).await.as_deref(), Some("value"));
}

#[tokio::test]
async fn a_private_redis_can_be_emptied_and_brought_back_to_what_it_was() {
    let mut redis = PrivateRedis::start().await;
    set(&redis).await;
    redis.keep_copy().await;
    redis.empty().await;
    assert_eq!(get(&redis).await, None);
    redis.start_again_from_copy().await;
    assert_eq!(get(&redis).await.as_deref(), Some("value"));
    redis.start_again().await;
    assert_eq!(get(&redis).await, None, "once");
}

#[tokio::test]
async fn a_postgres_whose_first_process_was_killed_starts_again_with_what_was_committed() {
    let mut postgres = PrivatePostgres::migrated().await;
    let pool = postgres.pool();
    sqlx::query("INSERT INTO cluster (shards) VALUES (16)")
        .execute(&pool)
        .await
        .unwrap();
    postgres.crash().await;
    assert!(postgres.pool().acquire().await.is_err(), "it is down");
    postgres.start_again().await;
    assert_eq!(count(&postgres.pool()).await, 1);
}

/// What the next test runs in a process of its own, to be killed there. On its own it has nothing to do.
#[tokio::test]
async fn holds_a_store_until_killed() {
    let Some(told) = std::env::var_os("FULCRUM_TELL") else {
        return;
    };
    let redis = PrivateRedis::start().await;
    std::fs::write(&told, redis.url()).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_test_leaves_no_store_behind() {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holds_a_store_until_killed"])
        .env("FULCRUM_TELL", &told)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let url = loop {
        match std::fs::read_to_string(&told) {
            Ok(url) if !url.is_empty() => break url,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let client = redis::Client::open(url.as_str()).unwrap();
    assert!(client.get_multiplexed_async_connection().await.is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = async { while client.get_multiplexed_async_connection().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(5), gone)
        .await
        .expect("the store goes with its test");
    let left = url
        .strip_prefix("redis+unix://")
        .unwrap()
        .strip_suffix("/redis.sock")
        .unwrap();
    std::fs::remove_dir_all(left).unwrap();
}
