//! The whole mesh on more than one open Redis: on a Sentinel set and on a cluster that lose a master under load, on one that asks every
//! role who it is, and over TLS; and what stands in Redis for each role, and what does not.
#![allow(clippy::print_stderr, reason = "what was measured is for people")]

mod callers;
mod doors;
mod mesh;

use std::path::Path;
use std::time::Duration;

use callers::Callers;
use mesh::{Mesh, until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, ServerErrorKind};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use testkit::stores::{Guards, give_to_postgres};
use testkit::{PrivatePostgres, PrivateRedis, PrivateRedisCluster, PrivateSentinels, free_ports};

/// Callers that trade at once, each on an account of its own.
const CALLERS: usize = 8;
/// Acknowledged opens before a master is killed, at least.
const BEFORE: usize = 60;
/// Acknowledged opens of each caller after that, at least.
const AFTER: usize = 5;
/// Every role and tool that Redis knows.
const USERS: [&str; 7] = [
    "gateway", "engine", "poller", "recorder", "operator", "replica", "sentinel",
];

/// Kills a master while callers trade. What stood in its queues may be gone; what was acknowledged is not, nothing is done twice, and
/// everybody is served again without anybody's help.
async fn loses_a_master<R>(mut mesh: Mesh<R>, kill: impl AsyncFnOnce(&mut R)) {
    mesh.market.quote("SOL_USDC", "199.98", "200.02");
    let callers = Callers::start(CALLERS, mesh.address, |account| mesh.token(account)).await;
    until("enough acknowledged", async || {
        (callers.acknowledged() >= BEFORE).then_some(())
    })
    .await;
    let begun = std::time::Instant::now();
    kill(&mut mesh.redis).await;
    let before = callers.each();
    until("everybody is served again", async || {
        let now = callers.each();
        let served = now.iter().zip(&before).all(|(now, before)| now - before >= AFTER);
        served.then_some(())
    })
    .await;
    eprintln!("everybody was served again {:?} after the kill", begun.elapsed());
    assert!(mesh.engine_runs(), "nobody had to start anything");
    let compared = callers.judge().await;
    assert!(compared >= BEFORE + CALLERS * AFTER, "{compared}");
    mesh.stop_engine().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_set_that_loses_its_master_under_load_loses_nothing_acknowledged_and_does_nothing_twice() {
    let set = PrivateSentinels::start().await;
    let url = set.url();
    let mesh = Mesh::start_on(set, |_| url.clone(), 4, |_| {}).await;
    loses_a_master(mesh, async |set| {
        let master = set.master().await;
        set.kill(master);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_loses_a_master_under_load_loses_nothing_acknowledged_and_does_nothing_twice() {
    let cluster = PrivateRedisCluster::start().await;
    let url = cluster.url();
    let mesh = Mesh::start_on(cluster, |_| url.clone(), 4, |_| {}).await;
    loses_a_master(mesh, async |cluster| {
        let master = cluster.master_of("{s0}:requests").await;
        cluster.kill(master);
    })
    .await;
}

/// The users as they are deployed, each with a password: its name, twice.
fn users() -> String {
    let rules = include_str!("../../../deploy/redis/users.acl");
    let mut with_passwords = String::new();
    for line in rules.lines() {
        let name = line.split(' ').nth(1).expect("a name");
        let line = match line.strip_prefix(&format!("user {name} on ")) {
            Some(rules) if USERS.contains(&name) => format!("user {name} on >{name}{name} {rules}"),
            _ => line.to_owned(),
        };
        with_passwords.push_str(&line);
        with_passwords.push('\n');
    }
    with_passwords
}

async fn connected(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("an address");
    client
        .get_multiplexed_async_connection()
        .await
        .expect("a user that is let in")
}

/// Whether Redis refuses a command for want of permission.
async fn is_refused(connection: &mut MultiplexedConnection, command: &str) -> bool {
    let mut words = command.split(' ');
    let mut asked = redis::cmd(words.next().expect("a command"));
    words.for_each(|word| {
        asked.arg(word);
    });
    let answer: Result<redis::Value, _> = asked.query_async(connection).await;
    matches!(answer, Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_works_as_its_own_user_and_is_refused_what_is_not_its_own() {
    let room = tempfile::tempdir().expect("a directory");
    let file = room.path().join("users.acl");
    std::fs::write(&file, users()).expect("a disk");
    let redis = PrivateRedis::start_with(&[("aclfile", &file.to_string_lossy())]).await;
    let socket = redis.url();
    let url = |role: &str| format!("{socket}?user={role}&pass={role}{role}");

    let mesh = Mesh::start_on(redis, url, 2, |_| {}).await;
    mesh.market.quote("SOL_USDC", "199.98", "200.02");
    let callers = Callers::start(2, mesh.address, |account| mesh.token(account)).await;
    until("enough acknowledged", async || {
        (callers.acknowledged() >= 2 * AFTER).then_some(())
    })
    .await;
    until("candles are made of the prices", async || {
        (mesh.count("SELECT count(*) FROM candles").await > 0).then_some(())
    })
    .await;
    callers.judge().await;

    // What would forge, read or destroy what is another's.
    let script = "return redis.call('DEL',KEYS[1])";
    let forbidden = [
        ("gateway", "LRANGE {s0}:requests 0 -1"),
        ("gateway", "LPOP {s0}:requests"),
        ("gateway", "DEL {s0}:requests"),
        ("gateway", "SET {s0}:leader me"),
        ("gateway", "XADD {s0}:events * a b"),
        ("gateway", "XADD price_stream * b forged"),
        ("gateway", "RPUSH replies:another forged"),
        ("engine", "RPUSH {s0}:requests forged"),
        ("engine", "XADD price_stream * b forged"),
        ("engine", "BLMPOP 1 1 replies:another LEFT"),
        ("poller", "RPUSH {s0}:requests forged"),
        ("poller", "XRANGE price_stream - +"),
        ("poller", "DEL price_stream"),
        ("poller", "XADD {s0}:events * a b"),
        ("recorder", "XADD price_stream * b forged"),
        ("recorder", "XRANGE {s0}:events - +"),
        ("recorder", "RPUSH {s0}:requests forged"),
        ("operator", "LRANGE {s0}:requests 0 -1"),
        ("operator", "XADD price_stream * b forged"),
        ("operator", "SET {s0}:leader me"),
        ("replica", "GET {s0}:leader"),
        ("sentinel", "GET {s0}:leader"),
    ];
    for (role, command) in forbidden {
        let mut connection = connected(&url(role)).await;
        assert!(is_refused(&mut connection, command).await, "{role}: {command}");
    }
    for role in USERS {
        let mut connection = connected(&url(role)).await;
        for command in [
            "FLUSHALL",
            "CONFIG GET *",
            "KEYS *",
            "ACL LIST",
            "SHUTDOWN",
            "GET foreign",
        ] {
            assert!(is_refused(&mut connection, command).await, "{role}: {command}");
        }
        assert!(!is_refused(&mut connection, "PING").await, "{role}");
    }
    let mut gateway = connected(&url("gateway")).await;
    let mut sneaky = redis::cmd("EVAL");
    sneaky.arg(script).arg(1).arg("{s0}:leader");
    let deleted: Result<i64, _> = sneaky.query_async(&mut gateway).await;
    deleted.expect_err("a script may do what its user may, and no more");
    let mut nobody = connected(&socket).await;
    assert!(!is_refused(&mut nobody, "PING").await, "for probes");
    for command in [
        "INFO",
        "GET {s0}:leader",
        "XADD price_stream * b forged",
        "EVAL return(1) 0",
    ] {
        assert!(is_refused(&mut nobody, command).await, "without a name: {command}");
    }
}

/// An authority of one's own, and a certificate for this machine.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own: what is signed by itself looks like this otherwise.
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Writes `ca.pem`, and `cert.pem` with `key.pem` for some names.
    fn write(&self, names: &[&str], directory: &Path) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        for (file, text) in [
            ("ca.pem", self.0.pem()),
            ("cert.pem", certificate.pem()),
            ("key.pem", key.serialize_pem()),
        ] {
            std::fs::write(directory.join(file), text).expect("a disk");
        }
    }
}

/// A name and a certificate are asked for, everywhere.
fn guards(room: &Path) -> Guards {
    Authority::new().write(&["localhost"], room);
    let file = room.join("users.acl");
    let harness = "user harness on >harnessharness ~* &* +@all\n";
    std::fs::write(&file, users() + harness).expect("a disk");
    Guards {
        users: file,
        certificates: room.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_asks_for_names_and_certificates_may_lose_a_master_too() {
    let room = tempfile::tempdir().expect("a directory");
    let cluster = PrivateRedisCluster::start_guarded(guards(room.path())).await;
    let urls = USERS.map(|role| (role, cluster.url_of(role)));
    let url = |role: &str| urls.iter().find(|(name, _)| *name == role).expect("a role").1.clone();
    let stranger = url("gateway").replace("gateway:gatewaygateway@", "gateway:guessed@");
    let refused = bus::Redis::open(&stranger).expect("an address").commands().await;
    assert!(refused.is_err(), "a wrong password");
    let mesh = Mesh::start_on(cluster, url, 4, |_| {}).await;
    loses_a_master(mesh, async |cluster| {
        let master = cluster.master_of("{s0}:requests").await;
        cluster.kill(master);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_set_that_asks_for_names_and_certificates_may_lose_its_master_too() {
    let room = tempfile::tempdir().expect("a directory");
    let set = PrivateSentinels::start_guarded(guards(room.path())).await;
    let urls = USERS.map(|role| (role, set.url_of(role)));
    let url = |role: &str| urls.iter().find(|(name, _)| *name == role).expect("a role").1.clone();
    let mesh = Mesh::start_on(set, url, 4, |_| {}).await;
    loses_a_master(mesh, async |set| {
        let master = set.master().await;
        set.kill(master);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_talks_to_redis_over_tls_and_trusts_no_other_authority() {
    let (room, strange) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    Authority::new().write(&["localhost"], room.path());
    Authority::new().write(&["localhost"], strange.path());
    let of = |directory: &Path, file: &str| directory.join(file).to_string_lossy().into_owned();
    let ours = |file| of(room.path(), file);
    let port = free_ports(1)[0].to_string();
    let redis = PrivateRedis::start_with(&[
        ("tls-port", &port),
        ("bind", "127.0.0.1"),
        ("tls-cert-file", &ours("cert.pem")),
        ("tls-key-file", &ours("key.pem")),
        ("tls-ca-cert-file", &ours("ca.pem")),
        // Clients show a certificate too.
        ("tls-auth-clients", "yes"),
    ])
    .await;
    let address =
        |host: &str, authority: &str, shown: &str| format!("rediss://{host}:{port}?sslrootcert={authority}{shown}");
    let shown = format!("&sslcert={}&sslkey={}", ours("cert.pem"), ours("key.pem"));
    let good = address("localhost", &ours("ca.pem"), &shown);
    let mut commands = bus::Redis::open(&good)
        .expect("an address")
        .commands()
        .await
        .expect("TLS");
    commands.ping().await.expect("an answer");
    for (why, bad) in [
        (
            "another authority",
            address("localhost", &of(strange.path(), "ca.pem"), &shown),
        ),
        ("another name", address("127.0.0.1", &ours("ca.pem"), &shown)),
        ("the public authorities", format!("rediss://localhost:{port}")),
        ("no certificate of one's own", address("localhost", &ours("ca.pem"), "")),
    ] {
        let refused = bus::Redis::open(&bad).expect("an address").commands().await;
        assert!(refused.is_err(), "{why}");
    }

    let mesh = Mesh::start_on(redis, |_| good.clone(), 2, |_| {}).await;
    mesh.market.quote("SOL_USDC", "199.98", "200.02");
    let callers = Callers::start(2, mesh.address, |account| mesh.token(account)).await;
    until("enough acknowledged", async || {
        (callers.acknowledged() >= 2 * AFTER).then_some(())
    })
    .await;
    callers.judge().await;
}

#[tokio::test]
async fn postgres_is_trusted_by_its_certificate_and_its_name() {
    let (room, strange) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    Authority::new().write(&["localhost"], room.path());
    Authority::new().write(&["localhost"], strange.path());
    // Postgres runs as a user of its own, which must get at the files.
    give_to_postgres(&room.path().join("key.pem"));
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(room.path(), open).expect("our own directory");
    let ours = |file: &str| room.path().join(file).to_string_lossy().into_owned();
    let port = free_ports(1)[0].to_string();
    let _postgres = PrivatePostgres::start_with(&[
        ("listen_addresses", "127.0.0.1"),
        ("port", &port),
        ("ssl", "on"),
        ("ssl_cert_file", &ours("cert.pem")),
        ("ssl_key_file", &ours("key.pem")),
    ])
    .await;
    let address = |host: &str, authority: &Path| {
        let authority = authority.join("ca.pem");
        format!(
            "postgres://fulcrum@{host}:{port}/postgres?sslmode=verify-full&sslrootcert={}",
            authority.display()
        )
    };
    let mut connection = PgConnection::connect(&address("localhost", room.path()))
        .await
        .expect("a server that is trusted");
    let encrypted: bool = sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .fetch_one(&mut connection)
        .await
        .expect("an answer");
    assert!(encrypted);
    let bad = [
        ("another authority", address("localhost", strange.path())),
        ("another name", address("127.0.0.1", room.path())),
    ];
    for (why, bad) in bad {
        let refused = tokio::time::timeout(Duration::from_secs(30), PgConnection::connect(&bad)).await;
        assert!(refused.expect("an answer").is_err(), "{why}");
    }
}
