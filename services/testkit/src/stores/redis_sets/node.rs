//! One Redis server of a set: started, asked, seen to lead or to follow.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use redis::aio::MultiplexedConnection;
use redis::{
    Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo as _, RedisConnectionInfo, RedisResult,
};
use tempfile::TempDir;

use crate::stores::server::{Ending, Server};
use crate::stores::{READY_PAUSE, READY_TIMEOUT, temporary, until_ready};

/// What the servers of a set ask of whoever comes, among themselves too: a name, and a certificate of an authority.
#[derive(Clone, Debug)]
pub struct Guards {
    /// Users: those of `deploy/redis/users.acl`, each with its name, twice, as password, and one called `harness` who may do everything.
    pub users: PathBuf,
    /// A directory with `ca.pem`, and for `localhost` `cert.pem` and `key.pem`.
    pub certificates: PathBuf,
}

impl Guards {
    fn file(&self, name: &str) -> String {
        self.certificates.join(name).to_string_lossy().into_owned()
    }

    /// What a server needs to have TLS on a port, and to use it towards its like.
    pub(super) fn tls(&self, port: u16) -> Vec<(&'static str, String)> {
        vec![
            ("tls-port", port.to_string()),
            ("tls-cert-file", self.file("cert.pem")),
            ("tls-key-file", self.file("key.pem")),
            ("tls-ca-cert-file", self.file("ca.pem")),
            ("tls-auth-clients", "yes".to_owned()),
            ("tls-replication", "yes".to_owned()),
        ]
    }

    /// What a server of a set needs besides.
    pub(super) fn users(&self) -> Vec<(&'static str, String)> {
        vec![
            ("aclfile", self.users.to_string_lossy().into_owned()),
            ("masteruser", "replica".to_owned()),
            ("masterauth", "replicareplica".to_owned()),
        ]
    }

    /// Who a role is, before the hosts of an address, and what it trusts and shows, after them.
    pub(super) fn around(&self, role: &str) -> (String, String) {
        let files = [
            ("sslrootcert", "ca.pem"),
            ("sslcert", "cert.pem"),
            ("sslkey", "key.pem"),
        ];
        let files = files.map(|(name, file)| format!("{name}={}", self.file(file)));
        (format!("{role}:{role}{role}@"), format!("?{}", files.join("&")))
    }
}

/// One server on a port.
#[derive(Debug)]
pub(super) struct Node {
    // Before the directory: fields are dropped in order, and the server must be gone first.
    pub(super) server: Option<Server>,
    pub(super) directory: TempDir,
    /// Without TLS, for the harness.
    pub(super) port: u16,
    /// Whether it knows users, so that the harness must say who it is.
    asks: bool,
    pub(super) command: Vec<OsString>,
}

impl Node {
    pub(super) fn new(name: &str, port: u16) -> Self {
        Self {
            server: None,
            directory: temporary(name),
            port,
            asks: false,
            command: Vec::new(),
        }
    }

    /// A server that keeps nothing, with more options.
    pub(super) fn server(name: &str, port: u16, more: &[(&str, String)]) -> Self {
        let mut node = Self::new(name, port);
        node.asks = more.iter().any(|(name, _)| *name == "aclfile");
        node.command.push("redis-server".into());
        let directory = node.directory.path().to_string_lossy().into_owned();
        let port = port.to_string();
        let mut option = |name: &str, value: &str| node.command.extend([format!("--{name}").into(), value.into()]);
        option("port", &port);
        for (name, value) in [
            ("bind", "127.0.0.1"),
            ("dir", &directory),
            ("save", ""),
            ("appendonly", "no"),
            // A replica is ready as soon as it can be.
            ("repl-diskless-sync-delay", "0"),
        ] {
            option(name, value);
        }
        for (name, value) in more {
            option(name, value);
        }
        node
    }

    pub(super) async fn start(&mut self) {
        self.server = None;
        let mut server = Server::start(&self.command, None, Ending::Kill, self.directory.path());
        until_ready(&mut server, async || {
            let _pong: String = self.ask(&redis::cmd("PING")).await?;
            Ok(())
        })
        .await;
        self.server = Some(server);
    }

    pub(super) fn runs(&self) -> bool {
        self.server.is_some()
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let address = ConnectionAddr::Tcp("127.0.0.1".to_owned(), self.port);
        let mut info: ConnectionInfo = address.into_connection_info()?;
        if self.asks {
            let harness = RedisConnectionInfo::default()
                .set_username("harness")
                .set_password("harnessharness");
            info = info.set_redis_settings(harness);
        }
        redis::Client::open(info)?.get_multiplexed_async_connection().await
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.connect().await?).await
    }

    pub(super) async fn told(&self, command: &str) -> String {
        let mut words = command.split(' ');
        let mut asked = redis::cmd(words.next().unwrap_or_default());
        words.for_each(|word| {
            asked.arg(word);
        });
        let answer: RedisResult<redis::Value> = self.ask(&asked).await;
        match answer.unwrap_or_else(|error| panic!("{command}: {error}")) {
            redis::Value::BulkString(text) => String::from_utf8_lossy(&text).into_owned(),
            other => format!("{other:?}"),
        }
    }

    /// Whether it is a replica that has all that its master has.
    pub(super) async fn follows(&self) -> bool {
        let said: RedisResult<String> = self.ask(redis::cmd("INFO").arg("replication")).await;
        said.is_ok_and(|said| said.contains("role:slave") && said.contains("master_link_status:up"))
    }

    pub(super) async fn leads(&self) -> bool {
        let said: RedisResult<String> = self.ask(redis::cmd("INFO").arg("replication")).await;
        said.is_ok_and(|said| said.contains("role:master"))
    }
}

pub(super) async fn until(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !ready().await {
        assert!(start.elapsed() < READY_TIMEOUT, "not in time: {what}");
        tokio::time::sleep(READY_PAUSE * 5).await;
    }
}

pub(super) fn hosts_of(ports: &[u16]) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| format!("localhost:{port}")).collect();
    hosts.join(",")
}

pub(super) async fn start_all(nodes: &mut [Node]) {
    for node in nodes {
        node.start().await;
    }
}
