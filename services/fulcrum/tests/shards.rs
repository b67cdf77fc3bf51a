//! Several engines sharing the shards, under load, as an operator sees it: the real program, started, asked and stopped; and what happens to
//! that load when a Redis master dies and Postgres restarts.
#![allow(clippy::print_stderr, reason = "what was counted is for people")]

use std::time::Duration;

use testkit::PrivateRedisCluster;

mod load;
mod stores;

use load::Load;
use stores::{PATIENCE, Stores};

const SHARDS: u32 = 16;
/// How long a caller waits where nothing is to go wrong.
const PATIENT: Duration = Duration::from_secs(20);
/// And where it is: what stood in a dead master's queues is sent again after so long.
const HASTY: Duration = Duration::from_secs(3);

/// How many shards each engine leads, most first.
async fn shares<R>(stores: &Stores<R>) -> Vec<i64> {
    let sql =
        "SELECT count(*) FROM shard_head WHERE lease_until > clock_timestamp() GROUP BY lease_owner ORDER BY 1 DESC";
    sqlx::query_scalar(sql).fetch_all(&stores.pool).await.expect("it runs")
}

async fn settle<R>(stores: &Stores<R>, wanted: &[i64]) {
    let waiting = async {
        while shares(stores).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(in_time.is_ok(), "wanted {wanted:?}, it is {:?}", shares(stores).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_come_and_go_under_load_and_nothing_is_lost_or_doubled() {
    let stores = Stores::start(SHARDS).await;
    let first = stores.engine("e1");
    settle(&stores, &[16]).await;
    let mut load = Load::start(&stores.address, PATIENT);
    load.goes_on(200).await;

    let second = stores.engine("e2");
    settle(&stores, &[8, 8]).await;
    load.goes_on(200).await;
    let (third, fourth) = (stores.engine("e3"), stores.engine("e4"));
    settle(&stores, &[4, 4, 4, 4]).await;
    load.goes_on(200).await;
    each_has_worked(&stores).await;
    load.tell("one engine, two, four");

    // By hand: one shard goes where an operator wants it and stays there, then an engine is emptied.
    let (code, said) = stores.told(&["shards", "move", "0", "--to", "e3"]);
    assert_eq!(code, Some(0), "{said}");
    let (_, listed) = stores.told(&["shards", "list"]);
    assert!(
        listed
            .lines()
            .any(|line| line.trim_start().starts_with("0  e3") && line.ends_with("e3")),
        "{listed}"
    );
    let (code, said) = stores.told(&["shards", "drain", "e2"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        stores
            .count("SELECT count(*) FROM shard_head WHERE lease_name = 'e2' AND lease_until > clock_timestamp()")
            .await,
        0
    );
    assert_eq!(second.stop(), Some(0));
    load.goes_on(200).await;
    for (arguments, why) in [
        (&["shards", "move", "0", "--to", "e9"][..], "no engine \"e9\" runs"),
        (&["shards", "move", "16", "--to", "e1"], "there is no shard 16"),
        (&["shards", "drain", "e2"], "no engine \"e2\" runs"),
    ] {
        let (code, said) = stores.told(arguments);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(stores.told(&["shards", "move", "0", "--anywhere"]).0, Some(0));

    // In order, and back to one.
    for engine in [third, fourth] {
        assert_eq!(engine.stop(), Some(0));
    }
    settle(&stores, &[16]).await;
    load.goes_on(200).await;
    load.tell("a move, a drain, back to one");
    assert_eq!(
        load.unknown(),
        0,
        "a move that was planned leaves nobody without an answer"
    );

    // And one that dies: whoever waits is answered by the next.
    let next = stores.engine("e5");
    settle(&stores, &[8, 8]).await;
    next.kill();
    settle(&stores, &[16]).await;
    load.goes_on(200).await;

    load.tell("one killed");

    let epochs = stores.count("SELECT max(epoch) FROM shard_head").await;
    eprintln!("the shard that moved most has had {epochs} leaders");
    load.end().await;
    assert_eq!(first.stop(), Some(0));
    replays(&stores);
}

/// Each of four engines has journaled something of the load.
async fn each_has_worked<R>(stores: &Stores<R>) {
    let sql = "SELECT sum(last_seq - first_seq + 1)::bigint FROM journal j JOIN shard_head h USING (shard, epoch) \
               GROUP BY h.lease_owner ORDER BY 1 DESC";
    let entries: Vec<i64> = sqlx::query_scalar(sql).fetch_all(&stores.pool).await.expect("it runs");
    eprintln!("journaled by each engine since it leads: {entries:?}");
    assert_eq!(entries.len(), 4, "every engine has worked");
}

/// The journal replays, from its first entry, to what is stored.
fn replays<R>(stores: &Stores<R>) {
    let (code, said) = stores.told(&["verify", "--from-genesis"]);
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_one_engine_to_four_and_back_a_dead_redis_master_and_a_restart_of_postgres_break_no_promise() {
    let cluster = PrivateRedisCluster::start().await;
    let address = cluster.url();
    let mut stores = Stores::start_on(cluster, address, SHARDS).await;
    let mut engines = vec![("e1", stores.engine("e1"))];
    settle(&stores, &[16]).await;
    let mut load = Load::start(&stores.address, HASTY);
    load.goes_on(200).await;
    load.tell("one engine");
    engines.push(("e2", stores.engine("e2")));
    settle(&stores, &[8, 8]).await;
    load.goes_on(200).await;
    load.tell("two");
    engines.extend(["e3", "e4"].map(|name| (name, stores.engine(name))));
    settle(&stores, &[4, 4, 4, 4]).await;
    load.goes_on(400).await;
    each_has_worked(&stores).await;
    load.tell("four");

    let master = stores.redis.master_of("{s0}:requests").await;
    stores.redis.kill(master);
    load.serves_everybody(5).await;
    load.tell("a Redis master killed");
    let ended = engines
        .iter_mut()
        .find_map(|(name, engine)| Some((*name, engine.ended()?)));
    assert_eq!(ended, None, "engines go on without it");

    stores.postgres.kill();
    stores.postgres.start_again().await;
    // With its leases run out an engine may be overtaken by another that is back sooner; whoever runs them starts it again.
    let mut overtaken = 0;
    let settled = async {
        while shares(&stores).await != [4, 4, 4, 4] {
            for (name, engine) in &mut engines {
                if let Some(code) = engine.ended() {
                    assert_eq!(code, 3, "{name}: overtaken, and nothing else");
                    *engine = stores.engine(name);
                    overtaken += 1;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, settled)
        .await
        .expect("four engines share the shards again");
    load.serves_everybody(5).await;
    load.tell(&format!("Postgres restarted ({overtaken} engines overtaken)"));

    let (_, first) = engines.remove(0);
    for (name, engine) in engines {
        assert_eq!(engine.stop(), Some(0), "{name}");
    }
    settle(&stores, &[16]).await;
    load.serves_everybody(5).await;
    load.tell("back to one");
    load.end().await;
    assert_eq!(first.stop(), Some(0));
    replays(&stores);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_master_that_hangs_holds_up_its_own_shards_and_no_others() {
    // More than those who wait two seconds between any two calls could get before the test gives up.
    const MANY: u64 = 100;
    let cluster = PrivateRedisCluster::start_with(&[("cluster-replica-no-failover", "yes")]).await;
    let address = cluster.url();
    let stores = Stores::start_on(cluster, address, SHARDS).await;
    let engine = stores.engine("e1");
    settle(&stores, &[16]).await;
    let mut load = Load::start(&stores.address, HASTY);
    load.serves_everybody(5).await;
    let mut masters = Vec::new();
    for shard in 0..SHARDS {
        masters.push(stores.redis.master_of(&format!("{{s{shard}}}:requests")).await);
    }
    // All replies of a caller come by one list: whoever has that is not the one that hangs.
    let replies = stores.redis.nodes_with("blmpop").await;
    let hangs = masters.iter().copied().find(|master| !replies.contains(master));
    let hangs = hangs.expect("three masters, one list");
    let others = |shard: u32| masters[shard as usize] != hangs;
    load.tell("a healthy cluster");

    let frozen = stores.redis.freeze(hangs).await;
    let answered = load.serves(MANY, others).await;
    load.tell("a master that hangs");
    eprintln!("{answered} calls of other shards were answered meanwhile");
    drop(frozen);
    load.serves_everybody(5).await;
    load.tell("back");
    load.end().await;
    assert_eq!(engine.stop(), Some(0));
    replays(&stores);
}
