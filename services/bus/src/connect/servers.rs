//! The servers behind an address, one by one, for whoever looks whether they are as they should be.

use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionAddr, ErrorKind, RedisConnectionInfo, RedisError, Value};

use super::{BLOCKING_TIMEOUT, BusError, Nodes, Place, Redis, client, direct, moved};

/// One server: the only one, the master that sentinels name, or a master of a cluster.
#[derive(Clone, Debug)]
pub struct Server {
    client: Client,
}

impl Redis {
    /// The servers that take writes.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn servers(&self) -> Result<Vec<Server>, BusError> {
        let clients = match &self.place {
            Place::One(client) => vec![client.as_ref().clone()],
            Place::Sentinel(sentinels) => vec![sentinels.master().await?],
            Place::Cluster(nodes) => nodes.masters().await?,
        };
        Ok(clients.into_iter().map(|client| Server { client }).collect())
    }

    /// How many keys of a cluster go nowhere, of its 16,384 slots; nothing for what is no cluster.
    ///
    /// # Errors
    /// When no node of it answers.
    pub async fn slots_unserved(&self) -> Result<Option<u64>, BusError> {
        let Place::Cluster(nodes) = &self.place else {
            return Ok(None);
        };
        let (_, ranges) = nodes.ranges().await?;
        let served: u64 = ranges
            .iter()
            .map(|range| match range.as_slice() {
                [Value::Int(first), Value::Int(last), ..] => (last - first + 1).unsigned_abs(),
                _ => 0,
            })
            .sum();
        Ok(Some(SLOTS.saturating_sub(served)))
    }
}

/// Hash slots of every cluster.
const SLOTS: u64 = 16_384;

impl Nodes {
    /// Who serves which slots, as the first node says that answers, and which node that was.
    async fn ranges(&self) -> Result<(ConnectionAddr, Vec<Vec<Value>>), RedisError> {
        let mut last = RedisError::from((ErrorKind::ClusterConnectionNotFound, "no node of the cluster answers"));
        for host in &self.hosts {
            let ask = async {
                let mut connection =
                    direct(&client(host.clone(), self.certificates.as_ref())?, BLOCKING_TIMEOUT).await?;
                redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await
            };
            match ask.await {
                Ok(ranges) => return Ok((host.addr().clone(), ranges)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn masters(&self) -> Result<Vec<Client>, RedisError> {
        let (asked, ranges) = self.ranges().await?;
        let mut masters: Vec<ConnectionAddr> = Vec::new();
        for range in &ranges {
            let Some(Value::Array(master)) = range.get(2) else {
                continue;
            };
            let host = match master.first() {
                Some(Value::BulkString(host)) => String::from_utf8_lossy(host).into_owned(),
                _ => String::new(),
            };
            let Some(Value::Int(port)) = master.get(1) else {
                continue;
            };
            let address = moved(&asked, &format!("{host}:{port}"));
            masters.extend(address.filter(|address| !masters.contains(address)));
        }
        let Some(host) = self.hosts.first() else {
            return Ok(Vec::new());
        };
        let masters = masters.into_iter();
        masters
            .map(|address| client(host.clone().set_addr(address), self.certificates.as_ref()))
            .collect()
    }
}

impl Server {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    /// Who the client is to it, where the address says so.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.client.get_connection_info().redis_settings().username()
    }

    /// A connection to it.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn connect(&self) -> Result<MultiplexedConnection, BusError> {
        Ok(direct(&self.client, BLOCKING_TIMEOUT).await?)
    }

    /// Whether it does what somebody asks who says no name. A socket of this machine is guarded by its file's owner, and not asked.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn is_open(&self) -> Result<bool, BusError> {
        let info = self.client.get_connection_info();
        if matches!(info.addr(), ConnectionAddr::Unix(_)) {
            return Ok(false);
        }
        let nobody = info.clone().set_redis_settings(RedisConnectionInfo::default());
        let asked: Result<Value, RedisError> = match direct(&Client::open(nobody)?, BLOCKING_TIMEOUT).await {
            Ok(mut connection) => redis::cmd("DBSIZE").query_async(&mut connection).await,
            Err(error) => Err(error),
        };
        match asked {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Io => Err(error.into()),
            Err(_) => Ok(false),
        }
    }
}
