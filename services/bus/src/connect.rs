//! Connections to Redis: a shared one for commands, one of its own for each blocking reader.
//!
//! A blocking read on a shared connection would stall every other command behind it, and the client's default response timeout would
//! cut the read short; both are decided here and nowhere else. So is what stands there: one server, a master that sentinels name, or
//! a cluster. A command goes to the node that has its key; a blocking reader gets a connection to that node, and after any error it
//! asks again which node that is, so it finds the new master after a failover.

mod address;
mod commands;
mod sentinel;
pub mod servers;
mod silence;

use std::time::Duration;

use address::{Address, Kind};
pub use commands::Commands;
use futures::FutureExt as _;
use redis::aio::{ConnectionManagerConfig, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, TlsCertificates};
use sentinel::Sentinels;

/// How long a command may take before Redis counts as away.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a blocking command may ask Redis to wait.
pub(crate) const BLOCK: Duration = Duration::from_secs(1);
/// How long its answer may take. Without an end, a reader of a master that hangs would never look for the next one.
const BLOCKING_TIMEOUT: Duration = Duration::from_secs(BLOCK.as_secs() + COMMAND_TIMEOUT.as_secs());
/// How often a cluster is asked for one key when its nodes point to each other.
const REDIRECTS_MAX: usize = 4;
/// How often a command in a cluster may go to another node, or to the same one again after it was told to wait.
const CLUSTER_RETRIES: u32 = 3;

/// What went wrong on the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Redis refused, dropped or timed out.
    #[error("redis: {0}")]
    Redis(#[from] RedisError),
    /// The address cannot be used.
    #[error("redis address {url:?} cannot be used: {cause}")]
    Address {
        /// As configured, without credentials.
        url: String,
        /// Why.
        cause: RedisError,
    },
}

/// Where Redis is. Cheap to clone; connects when asked to.
#[derive(Clone, Debug)]
pub struct Redis {
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    One(Box<Client>),
    Sentinel(Sentinels),
    Cluster(Box<Nodes>),
}

/// Some nodes of a cluster.
#[derive(Clone, Debug)]
struct Nodes {
    client: ClusterClient,
    hosts: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
}

impl Redis {
    /// Reads an address: `redis://host:port` or `redis+unix:///path/to/socket` for one server,
    /// `redis-sentinel://host:port,host:port/master-name` for a Sentinel set, `redis-cluster://host:port,host:port` for a cluster.
    ///
    /// `rediss://`, `rediss-sentinel://` and `rediss-cluster://` are the same over TLS, with `?sslrootcert=`, and `&sslcert=` and
    /// `&sslkey=`, naming PEM files. `user:password@` before the hosts is for Redis; `?sentinel_user=` and `&sentinel_password=` for
    /// sentinels that ask too.
    ///
    /// # Errors
    /// [`BusError::Address`] when it cannot be read.
    pub fn open(url: &str) -> Result<Self, BusError> {
        let place = address::read(url).and_then(Place::new);
        let place = place.map_err(|cause| {
            let shown = url.rsplit_once('@').map_or(url, |(_, host)| host);
            let shown = shown.split_once('?').map_or(shown, |(host, _)| host);
            BusError::Address {
                url: shown.to_owned(),
                cause,
            }
        })?;
        Ok(Self { place })
    }

    /// A connection for commands, shared by clones, that comes back by itself.
    ///
    /// # Errors
    /// When Redis cannot be reached now.
    pub async fn commands(&self) -> Result<Commands, BusError> {
        // Boxed, because every future of the program has this one inside.
        self.connect().boxed().await
    }

    async fn connect(&self) -> Result<Commands, BusError> {
        match &self.place {
            Place::One(client) => {
                let config = ConnectionManagerConfig::new()
                    .set_response_timeout(Some(COMMAND_TIMEOUT))
                    .set_connection_timeout(Some(CONNECT_TIMEOUT))
                    // A command is never sent twice behind our back: pushes are not idempotent. Callers decide about retries.
                    .set_number_of_retries(1)
                    .set_max_delay(Duration::from_millis(500));
                Ok(Commands::one(client.get_connection_manager_with_config(config).await?))
            }
            Place::Sentinel(sentinels) => Commands::master(sentinels.clone()).await,
            Place::Cluster(nodes) => Ok(Commands::cluster(nodes.client.get_async_connection().await?)),
        }
    }

    /// A connection of its own for one blocking reader of `key`, which may wait up to a second at a time. After an error it is of no
    /// more use: the key may have moved.
    ///
    /// # Errors
    /// When Redis cannot be reached now.
    pub async fn blocking(&self, key: &str) -> Result<MultiplexedConnection, BusError> {
        self.reach(key).boxed().await
    }

    async fn reach(&self, key: &str) -> Result<MultiplexedConnection, BusError> {
        Ok(match &self.place {
            Place::One(client) => direct(client, BLOCKING_TIMEOUT).await?,
            Place::Sentinel(sentinels) => direct(&sentinels.master().await?, BLOCKING_TIMEOUT).await?,
            Place::Cluster(nodes) => nodes.that_has(key).await?,
        })
    }

    /// Whether shards are on several servers, of which one may fail without the others.
    pub(crate) fn is_several(&self) -> bool {
        matches!(self.place, Place::Cluster(_))
    }

    /// Keys that one blocking command may read together: all of them, or in a cluster each by itself.
    pub(crate) fn together(&self, keys: Vec<String>) -> Vec<Vec<String>> {
        match &self.place {
            Place::One(_) | Place::Sentinel(_) => vec![keys],
            Place::Cluster(_) => keys.into_iter().map(|key| vec![key]).collect(),
        }
    }

    /// Redis's own clock, for the check that clocks agree. Microseconds since the epoch.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn time_us(&self) -> Result<i64, BusError> {
        let mut connection = self.commands().await?;
        let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await?;
        Ok(seconds * 1_000_000 + micros)
    }
}

impl Place {
    fn new(address: Address) -> Result<Self, RedisError> {
        let Address {
            kind,
            hosts,
            certificates,
        } = address;
        Ok(match kind {
            Kind::One => {
                let only = hosts.into_iter().next();
                Self::One(Box::new(client(
                    only.expect("an address has a host"),
                    certificates.as_ref(),
                )?))
            }
            Kind::Sentinel { master, user, password } => {
                Self::Sentinel(Sentinels::new(&hosts, &master, user, password, certificates)?)
            }
            Kind::Cluster => {
                let mut builder = ClusterClientBuilder::new(hosts.clone())
                    .connection_timeout(CONNECT_TIMEOUT)
                    .response_timeout(COMMAND_TIMEOUT)
                    // A cluster's client must be allowed to send again, or it could not follow a key to another node. What is sent
                    // twice that way is recognised as any other repeat.
                    .retries(CLUSTER_RETRIES)
                    .min_retry_wait(20)
                    .max_retry_wait(200);
                if let Some(certificates) = &certificates {
                    builder = builder.certs(certificates.clone());
                }
                Self::Cluster(Box::new(Nodes {
                    client: builder.build()?,
                    hosts,
                    certificates,
                }))
            }
        })
    }
}

impl Nodes {
    /// A connection to the node that has a key. Any node knows which it is.
    async fn that_has(&self, key: &str) -> Result<MultiplexedConnection, RedisError> {
        let mut last = RedisError::from((ErrorKind::ClusterConnectionNotFound, "no node of the cluster answers"));
        for host in &self.hosts {
            match self.follow(host.clone(), key).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks a node for a key, and whomever it names.
    async fn follow(&self, mut host: ConnectionInfo, key: &str) -> Result<MultiplexedConnection, RedisError> {
        for _ in 0..REDIRECTS_MAX {
            let node = client(host.clone(), self.certificates.as_ref())?;
            let mut connection = direct(&node, BLOCKING_TIMEOUT).await?;
            let has: Result<i64, _> = redis::cmd("EXISTS").arg(key).query_async(&mut connection).await;
            let Err(error) = has else { return Ok(connection) };
            let Some(next) = error.redirect_node().and_then(|(next, _)| moved(host.addr(), next)) else {
                return Err(error);
            };
            host = host.set_addr(next);
        }
        Err((
            ErrorKind::ClusterConnectionNotFound,
            "the nodes of the cluster point at each other",
        )
            .into())
    }
}

/// The address that a node names, in the manner (TLS or not) of the one it was asked at. An empty host means the same host.
fn moved(asked: &ConnectionAddr, next: &str) -> Option<ConnectionAddr> {
    let (named, port) = next.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = |asked: &str| {
        if named.is_empty() {
            asked.to_owned()
        } else {
            named.to_owned()
        }
    };
    match asked {
        ConnectionAddr::Tcp(asked, _) => Some(ConnectionAddr::Tcp(host(asked), port)),
        ConnectionAddr::TcpTls {
            host: asked,
            insecure,
            tls_params,
            ..
        } => Some(ConnectionAddr::TcpTls {
            host: host(asked),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        }),
        _ => None,
    }
}

fn client(host: ConnectionInfo, certificates: Option<&TlsCertificates>) -> Result<Client, RedisError> {
    match certificates {
        Some(certificates) => Client::build_with_tls(host, certificates.clone()),
        None => Client::open(host),
    }
}

/// A connection to one server, whose answers may take so long.
async fn direct(client: &Client, answers_within: Duration) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(answers_within));
    client.get_multiplexed_async_connection_with_config(&config).await
}
