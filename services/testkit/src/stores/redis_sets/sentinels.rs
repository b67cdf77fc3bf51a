//! A Redis master and its replica of one's own, and sentinels that watch over them.

use super::DOWN_AFTER_MS;
use super::node::{Guards, Node, hosts_of, start_all, until};
use crate::free_ports;

/// The name under which the sentinels know their master.
const MASTER_NAME: &str = "fulcrum";

/// A master with a replica, and three sentinels that watch over them.
#[derive(Debug)]
pub struct PrivateSentinels {
    // The sentinels first: they are gone before they see a master die that nobody killed.
    sentinels: Vec<Node>,
    servers: Vec<Node>,
    /// Where the sentinels are reached by TLS, and what the servers ask then.
    guards: Option<(Guards, Vec<u16>)>,
}

impl PrivateSentinels {
    /// Starts them.
    ///
    /// # Panics
    /// When there is no Redis on this machine, or it does not start.
    pub async fn start() -> Self {
        Self::start_any(None).await
    }

    /// Starts them so that servers ask everybody for a name and a certificate, and sentinels for a certificate.
    ///
    /// # Panics
    /// When there is no Redis with TLS on this machine, or it does not start.
    pub async fn start_guarded(guards: Guards) -> Self {
        Self::start_any(Some(guards)).await
    }

    async fn start_any(guards: Option<Guards>) -> Self {
        let ports = free_ports(10);
        let (ports, behind_tls) = ports.split_at(5);
        // How servers know each other, and the sentinels them.
        let (host, master) = match &guards {
            Some(_) => ("localhost", behind_tls[0]),
            None => ("127.0.0.1", ports[0]),
        };
        let guarded = |index: usize| {
            let guards = guards.iter();
            guards
                .flat_map(move |guards| [guards.tls(behind_tls[index]), guards.users()].concat())
                .chain([("replica-announce-ip", host.to_owned())])
                .collect::<Vec<_>>()
        };
        let follow = [("replicaof", format!("{host} {master}"))];
        let mut servers = vec![
            Node::server("master", ports[0], &guarded(0)),
            Node::server("replica", ports[1], &[guarded(1), follow.to_vec()].concat()),
        ];
        start_all(&mut servers).await;
        until("the replica follows", async || servers[1].follows().await).await;
        let mut sentinels = Vec::new();
        for (port, tls) in ports.iter().zip(behind_tls).skip(2) {
            let mut sentinel = Node::new("sentinel", *port);
            let file = sentinel.directory.path().join("sentinel.conf");
            let mut settings = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel resolve-hostnames yes\nsentinel announce-hostnames yes\nsentinel \
                 monitor {MASTER_NAME} {host} {master} 2\nsentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}\n\
                 sentinel failover-timeout {MASTER_NAME} 5000\n",
                sentinel.directory.path().display()
            );
            if let Some(guards) = &guards {
                let lines = guards.tls(*tls).into_iter();
                settings.extend(lines.map(|(name, value)| format!("{name} {value}\n")));
                settings += &format!(
                    "sentinel announce-ip localhost\nsentinel auth-user {MASTER_NAME} sentinel\n\
                     sentinel auth-pass {MASTER_NAME} sentinelsentinel\n"
                );
            }
            std::fs::write(&file, settings).expect("our own directory");
            sentinel.command = vec!["redis-server".into(), file.into(), "--sentinel".into()];
            sentinels.push(sentinel);
        }
        start_all(&mut sentinels).await;
        let guards = guards.map(|guards| (guards, behind_tls[2..].to_vec()));
        let sentinels = Self {
            sentinels,
            servers,
            guards,
        };
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

    /// Their address for a role, where the servers ask who that is.
    ///
    /// # Panics
    /// When they ask nobody.
    #[must_use]
    pub fn url_of(&self, role: &str) -> String {
        let (guards, ports) = self.guards.as_ref().expect("a set that was started with guards");
        let (before, after) = guards.around(role);
        format!("rediss-sentinel://{before}{}/{MASTER_NAME}{after}", hosts_of(ports))
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
