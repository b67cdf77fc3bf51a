//! A Redis Cluster of one's own.

use redis::RedisResult;
use rustix::process::{Pid, Signal, kill_process};

use super::DOWN_AFTER_MS;
use super::node::{Guards, Node, hosts_of, start_all, until};
use crate::free_ports;

/// Masters of a cluster; as many replicas stand by.
const MASTERS: usize = 3;
/// Hash slots of every cluster.
const SLOTS: usize = 16_384;

/// A cluster of three masters with a replica each. Slots that nobody serves do not stop the others.
#[derive(Debug)]
pub struct PrivateRedisCluster {
    /// The masters of the start first, then their replicas in the same order.
    nodes: Vec<Node>,
    /// Where they are reached by TLS, and what they ask then.
    guards: Option<(Guards, Vec<u16>)>,
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
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        Self::start_any(None, &more.collect::<Vec<_>>()).await
    }

    /// Starts one that asks everybody for a name and a certificate.
    ///
    /// # Panics
    /// When there is no Redis with TLS on this machine, or it does not start.
    pub async fn start_guarded(guards: Guards) -> Self {
        let mut more = guards.users();
        more.extend([
            ("tls-cluster", "yes".to_owned()),
            // A certificate is for a name, so they must be known by one.
            ("cluster-announce-hostname", "localhost".to_owned()),
            ("cluster-preferred-endpoint-type", "hostname".to_owned()),
        ]);
        Self::start_any(Some(guards), &more).await
    }

    async fn start_any(guards: Option<Guards>, more: &[(&str, String)]) -> Self {
        let ports = free_ports(6 * MASTERS);
        let (ports, others) = ports.split_at(2 * MASTERS);
        let (talk, behind_tls) = others.split_at(2 * MASTERS);
        let mut nodes = Vec::new();
        for ((port, talk), tls) in ports.iter().zip(talk).zip(behind_tls) {
            let mut options = vec![
                ("cluster-enabled", "yes".to_owned()),
                ("cluster-port", talk.to_string()),
                ("cluster-node-timeout", DOWN_AFTER_MS.to_owned()),
                ("cluster-require-full-coverage", "no".to_owned()),
                ("cluster-replica-validity-factor", "0".to_owned()),
            ];
            options.extend(guards.iter().flat_map(|guards| guards.tls(*tls)));
            options.extend_from_slice(more);
            nodes.push(Node::server("cluster", *port, &options));
        }
        start_all(&mut nodes).await;
        let guards = guards.map(|guards| (guards, behind_tls.to_vec()));
        let cluster = Self { nodes, guards };
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

    /// Its address for a role, where it asks who that is.
    ///
    /// # Panics
    /// When it asks nobody.
    #[must_use]
    pub fn url_of(&self, role: &str) -> String {
        let (guards, ports) = self.guards.as_ref().expect("a cluster that was started with guards");
        let (before, after) = guards.around(role);
        format!("rediss-cluster://{before}{}{after}", hosts_of(ports))
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

    /// Stops a node without ending it: it keeps its connections and answers nothing, until what is returned is dropped.
    ///
    /// # Panics
    /// When it is not running.
    pub async fn freeze(&self, node: usize) -> Frozen {
        let said = self.nodes[node].told("INFO server").await;
        let pid = said.lines().find_map(|line| line.strip_prefix("process_id:"));
        let pid = pid.and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?));
        let frozen = Frozen(pid.expect("a running Redis"));
        kill_process(frozen.0, Signal::STOP).expect("a running Redis");
        frozen
    }

    /// Nodes in which somebody waits with this command, in small letters.
    ///
    /// # Panics
    /// When one of them does not answer.
    pub async fn nodes_with(&self, command: &str) -> Vec<usize> {
        let mut found = Vec::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.runs()) {
            if node.told("CLIENT LIST").await.contains(&format!("cmd={command}")) {
                found.push(index);
            }
        }
        found
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

/// A server that was stopped; goes on when dropped.
#[derive(Debug)]
pub struct Frozen(Pid);

impl Drop for Frozen {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _gone = kill_process(self.0, Signal::CONT);
    }
}
