//! A Redis Cluster and a Sentinel set of one's own: real servers on free ports of the loopback, gone with the value.
//!
//! Both are small and in a hurry: a master that is killed is missed after a second. Ports, because neither works over sockets.

use std::ffi::OsString;
use std::net::TcpListener;
use std::time::Instant;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo as _, RedisResult};
use tempfile::TempDir;

use super::server::{Ending, Server};
use super::{READY_PAUSE, READY_TIMEOUT, temporary, until_ready};

/// Masters of a cluster; as many replicas stand by.
const MASTERS: usize = 3;
/// Hash slots of every cluster.
const SLOTS: usize = 16_384;
/// Milliseconds after which a silent server counts as down.
const DOWN_AFTER_MS: &str = "1000";
/// The name under which the sentinels know their master.
const MASTER_NAME: &str = "fulcrum";

/// One server on a port.
#[derive(Debug)]
struct Node {
    // Before the directory: fields are dropped in order, and the server must be gone first.
    server: Option<Server>,
    directory: TempDir,
    port: u16,
    command: Vec<OsString>,
}

impl Node {
    fn new(name: &str, port: u16) -> Self {
        Self {
            server: None,
            directory: temporary(name),
            port,
            command: Vec::new(),
        }
    }

    /// A server that keeps nothing, with more options.
    fn server(name: &str, port: u16, more: &[(&str, &str)]) -> Self {
        let mut node = Self::new(name, port);
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

    async fn start(&mut self) {
        self.server = None;
        let mut server = Server::start(&self.command, None, Ending::Kill, self.directory.path());
        until_ready(&mut server, async || {
            let _pong: String = self.ask(&redis::cmd("PING")).await?;
            Ok(())
        })
        .await;
        self.server = Some(server);
    }

    fn runs(&self) -> bool {
        self.server.is_some()
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let address = ConnectionAddr::Tcp("127.0.0.1".to_owned(), self.port);
        let info: ConnectionInfo = address.into_connection_info()?;
        redis::Client::open(info)?.get_multiplexed_async_connection().await
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.connect().await?).await
    }

    async fn told(&self, command: &str) -> String {
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
    async fn follows(&self) -> bool {
        let said: RedisResult<String> = self.ask(redis::cmd("INFO").arg("replication")).await;
        said.is_ok_and(|said| said.contains("role:slave") && said.contains("master_link_status:up"))
    }

    async fn leads(&self) -> bool {
        let said: RedisResult<String> = self.ask(redis::cmd("INFO").arg("replication")).await;
        said.is_ok_and(|said| said.contains("role:master"))
    }
}

/// Ports of the loopback that nobody has.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn free_ports(count: usize) -> Vec<u16> {
    // Held together, so that none is given twice.
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"))
        .collect();
    let ports = held.iter().map(|held| held.local_addr().expect("a bound port").port());
    ports.collect()
}

async fn until(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !ready().await {
        assert!(start.elapsed() < READY_TIMEOUT, "not in time: {what}");
        tokio::time::sleep(READY_PAUSE * 5).await;
    }
}

/// A cluster of three masters with a replica each. Slots that nobody serves do not stop the others.
#[derive(Debug)]
pub struct PrivateRedisCluster {
    /// The masters of the start first, then their replicas in the same order.
    nodes: Vec<Node>,
}

impl PrivateRedisCluster {
    /// Starts one.
    ///
    /// # Panics
    /// When there is no Redis on this machine, or it does not start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one whose servers have more options.
    ///
    /// # Panics
    /// When there is no Redis on this machine, or it does not start.
    pub async fn start_with(more: &[(&str, &str)]) -> Self {
        let ports = free_ports(4 * MASTERS);
        let (ports, talk) = ports.split_at(2 * MASTERS);
        let mut nodes = Vec::new();
        for (port, talk) in ports.iter().zip(talk) {
            let talk = talk.to_string();
            let mut options = vec![
                ("cluster-enabled", "yes"),
                ("cluster-port", talk.as_str()),
                ("cluster-node-timeout", DOWN_AFTER_MS),
                ("cluster-require-full-coverage", "no"),
                ("cluster-replica-validity-factor", "0"),
            ];
            options.extend_from_slice(more);
            nodes.push(Node::server("cluster", *port, &options));
        }
        start_all(&mut nodes).await;
        let cluster = Self { nodes };
        cluster.form(talk).await;
        cluster
    }

    async fn form(&self, talk: &[u16]) {
        for (index, node) in self.nodes.iter().enumerate() {
            node.told(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1)).await;
        }
        for (node, talk) in self.nodes.iter().zip(talk).skip(1) {
            let meet = format!("CLUSTER MEET 127.0.0.1 {} {talk}", node.port);
            self.nodes[0].told(&meet).await;
        }
        for (index, master) in self.nodes.iter().take(MASTERS).enumerate() {
            let (first, past) = (SLOTS * index / MASTERS, SLOTS * (index + 1) / MASTERS);
            master
                .told(&format!("CLUSTER ADDSLOTSRANGE {first} {}", past - 1))
                .await;
        }
        for (master, replica) in self.nodes.iter().zip(&self.nodes[MASTERS..]) {
            let id = master.told("CLUSTER MYID").await;
            until("the nodes meet", async || {
                replica.told("CLUSTER NODES").await.contains(&id)
            })
            .await;
            replica.told(&format!("CLUSTER REPLICATE {id}")).await;
        }
        self.until_whole().await;
    }

    /// Waits until every slot is served and every running node that is no master follows one.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn until_whole(&self) {
        for node in self.nodes.iter().filter(|node| node.runs()) {
            until("every slot is served", async || {
                let said = node.told("CLUSTER INFO").await;
                said.contains("cluster_state:ok") && said.contains("cluster_slots_ok:16384")
            })
            .await;
            until("a node leads or follows", async || {
                node.leads().await || node.follows().await
            })
            .await;
        }
        let running = || self.nodes.iter().filter(|node| node.runs());
        until("three masters", async || {
            let mut leading = 0;
            for node in running() {
                leading += usize::from(node.leads().await);
            }
            leading == MASTERS
        })
        .await;
    }

    /// Its address: every node of it.
    #[must_use]
    pub fn url(&self) -> String {
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("redis-cluster://{}", nodes.join(","))
    }

    /// The node that serves a key now.
    ///
    /// # Panics
    /// When none does.
    pub async fn master_of(&self, key: &str) -> usize {
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.runs()) {
            let has: RedisResult<i64> = node.ask(redis::cmd("EXISTS").arg(key)).await;
            if has.is_ok() && node.leads().await {
                return index;
            }
        }
        panic!("nobody serves {key}");
    }

    /// Kills a node with signal 9.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].server = None;
    }

    /// Starts a node again, empty; it finds its place as a replica.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&mut self, node: usize) {
        self.nodes[node].start().await;
        until("the node follows", async || self.nodes[node].follows().await).await;
    }
}

async fn start_all(nodes: &mut [Node]) {
    for node in nodes {
        node.start().await;
    }
}

/// A master with a replica, and three sentinels that watch over them.
#[derive(Debug)]
pub struct PrivateSentinels {
    // The sentinels first: they are gone before they see a master die that nobody killed.
    sentinels: Vec<Node>,
    servers: Vec<Node>,
}

impl PrivateSentinels {
    /// Starts them.
    ///
    /// # Panics
    /// When there is no Redis on this machine, or it does not start.
    pub async fn start() -> Self {
        let ports = free_ports(5);
        let master = ports[0].to_string();
        let mut servers = vec![
            Node::server("master", ports[0], &[]),
            Node::server("replica", ports[1], &[("replicaof", &format!("127.0.0.1 {master}"))]),
        ];
        start_all(&mut servers).await;
        until("the replica follows", async || servers[1].follows().await).await;
        let mut sentinels = Vec::new();
        for port in &ports[2..] {
            let mut sentinel = Node::new("sentinel", *port);
            let file = sentinel.directory.path().join("sentinel.conf");
            let settings = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER_NAME} 127.0.0.1 {master} 2\nsentinel \
                 down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}\nsentinel failover-timeout {MASTER_NAME} 5000\n",
                sentinel.directory.path().display()
            );
            std::fs::write(&file, settings).expect("our own directory");
            sentinel.command = vec!["redis-server".into(), file.into(), "--sentinel".into()];
            sentinels.push(sentinel);
        }
        start_all(&mut sentinels).await;
        let sentinels = Self { sentinels, servers };
        sentinels.until_whole().await;
        sentinels
    }

    /// Waits until the sentinels know each other, the master and its replica.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn until_whole(&self) {
        for sentinel in &self.sentinels {
            until("the sentinels know each other", async || {
                let said = sentinel.told("INFO sentinel").await;
                said.contains("status=ok") && said.contains("slaves=1,") && said.contains("sentinels=3")
            })
            .await;
        }
        until("one leads, one follows", async || {
            let leading = [self.servers[0].leads().await, self.servers[1].leads().await];
            let following = [self.servers[0].follows().await, self.servers[1].follows().await];
            leading != following && leading[0] != leading[1]
        })
        .await;
    }

    /// Their address.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .sentinels
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("redis-sentinel://{}/{MASTER_NAME}", hosts.join(","))
    }

    /// The server that is master now.
    ///
    /// # Panics
    /// When none is.
    pub async fn master(&self) -> usize {
        for (index, server) in self.servers.iter().enumerate() {
            if server.runs() && server.leads().await {
                return index;
            }
        }
        panic!("there is no master");
    }

    /// Kills a server with signal 9.
    pub fn kill(&mut self, server: usize) {
        self.servers[server].server = None;
    }

    /// Starts a server again, empty; the sentinels make it the replica of whoever is master.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&mut self, server: usize) {
        self.servers[server].start().await;
        until("the server follows", async || self.servers[server].follows().await).await;
    }
}
