//! A connection for commands that comes back by itself, whatever stands behind it.
//!
//! One type for the three, with the client library's own trait, so that nobody who sends a command knows which it is. The one thing
//! that a cluster cannot do is a pipeline over several slots: [`Commands::send_groups`] is for those.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use redis::aio::{ConnectionLike, ConnectionManager, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, Pipeline, RedisError, RedisFuture, ServerErrorKind, Value};

use super::sentinel::Sentinels;
use super::silence::{self, Silence};
use super::{BusError, COMMAND_TIMEOUT, direct};

/// While the sentinels were asked in vain so short a time ago, they are not asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A connection for commands, shared by clones.
#[derive(Clone)]
pub struct Commands(Kind);

#[derive(Clone)]
enum Kind {
    One(ConnectionManager),
    Master(Arc<Master>),
    Cluster(ClusterConnection, Silence),
}

impl std::fmt::Debug for Commands {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self.0 {
            Kind::One(_) => "Commands(one server)",
            Kind::Master(_) => "Commands(a master by sentinels)",
            Kind::Cluster(..) => "Commands(a cluster)",
        })
    }
}

impl Commands {
    pub(super) fn one(connection: ConnectionManager) -> Self {
        Self(Kind::One(connection))
    }

    /// Asks the sentinels now, so that whoever connects learns whether there is a master.
    pub(super) async fn master(sentinels: Sentinels) -> Result<Self, BusError> {
        let master = Arc::new(Master {
            sentinels,
            now: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        });
        master.open().await?;
        Ok(Self(Kind::Master(master)))
    }

    pub(super) fn cluster(connection: ClusterConnection) -> Self {
        Self(Kind::Cluster(connection, Silence::default()))
    }

    /// Whether an error on one key says nothing about the others: in a cluster the other masters go on.
    pub(crate) fn fails_in_part(&self) -> bool {
        matches!(self.0, Kind::Cluster(..))
    }

    /// Sends groups of commands, each on one key, and wants no answers but that all worked. In one pipeline where there is one
    /// server; one for each group, at once, in a cluster.
    ///
    /// # Errors
    /// When Redis is away or refuses; the other groups may have been done.
    pub async fn send_groups<const N: usize>(
        &self,
        groups: impl IntoIterator<Item = [Cmd; N]> + Send,
    ) -> Result<(), BusError> {
        if self.fails_in_part() {
            let pipelines = groups.into_iter().map(|group| {
                let mut cluster = self.clone();
                async move { pipeline(group).query_async::<()>(&mut cluster).await }
            });
            let sent = futures::future::join_all(pipelines).await;
            return Ok(sent.into_iter().collect::<Result<(), _>>()?);
        }
        let all = pipeline(groups.into_iter().flatten());
        Ok(all.query_async(&mut self.clone()).await?)
    }

    /// Whether Redis answers; of a cluster, whether any of its nodes does.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&mut self) -> Result<(), BusError> {
        let ping = redis::cmd("PING");
        match &mut self.0 {
            Kind::Cluster(cluster, _) => {
                let anywhere = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
                let _pong = cluster.route_command(ping, anywhere).await?;
            }
            Kind::One(_) | Kind::Master(_) => ping.exec_async(self).await?,
        }
        Ok(())
    }
}

fn pipeline(commands: impl IntoIterator<Item = Cmd>) -> Pipeline {
    let mut pipeline = redis::pipe();
    for command in commands {
        pipeline.add_command(command).ignore();
    }
    pipeline
}

impl ConnectionLike for Commands {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.0 {
            Kind::One(one) => one.req_packed_command(command),
            Kind::Cluster(cluster, silence) => async move {
                let key = silence::key_of(command);
                if silence.is_on(key) {
                    return Err(never_reached("its node does not answer"));
                }
                let answer = cluster.req_packed_command(command).await;
                silence.note(cluster, key, answer.as_ref().err());
                answer
            }
            .boxed(),
            Kind::Master(master) => async move {
                let (turn, mut open) = master.open().await?;
                let answer = open.req_packed_command(command).await;
                let lost = match &answer {
                    Ok(Value::ServerError(error)) => error.kind().is_some_and(is_no_master),
                    Ok(_) => false,
                    Err(error) => is_gone(error),
                };
                master.forget_if(lost, turn);
                answer
            }
            .boxed(),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.0 {
            Kind::One(one) => one.req_packed_commands(pipeline, offset, count),
            Kind::Cluster(cluster, silence) => async move {
                let key = pipeline.cmd_iter().next().and_then(silence::key_of);
                if silence.is_on(key) {
                    return Err(never_reached("its node does not answer"));
                }
                let answers = cluster.req_packed_commands(pipeline, offset, count).await;
                silence.note(cluster, key, answers.as_ref().err());
                answers
            }
            .boxed(),
            Kind::Master(master) => async move {
                let (turn, mut open) = master.open().await?;
                let answers = open.req_packed_commands(pipeline, offset, count).await;
                let lost = match &answers {
                    Ok(answers) => answers.iter().any(
                        |answer| matches!(answer, Value::ServerError(error) if error.kind().is_some_and(is_no_master)),
                    ),
                    Err(error) => is_gone(error),
                };
                master.forget_if(lost, turn);
                answers
            }
            .boxed(),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.0 {
            Kind::One(one) => one.get_db(),
            Kind::Cluster(cluster, _) => cluster.get_db(),
            // The connection of the moment may be none; nobody of ours uses another database than the first.
            Kind::Master(_) => 0,
        }
    }
}

fn is_no_master(kind: ServerErrorKind) -> bool {
    matches!(
        kind,
        ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading
    )
}

fn is_gone(error: &RedisError) -> bool {
    error.is_connection_dropped() || error.is_timeout() || error.is_unrecoverable_error()
}

/// The connection to whoever is master now. After an error that another master would not have made, the sentinels are asked again.
struct Master {
    sentinels: Sentinels,
    now: Mutex<Now>,
    /// Held by the one who asks; the others wait for what comes of it.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Now {
    /// Counts connections, so that a late error of an older one does not end a newer one.
    turn: u64,
    open: Option<MultiplexedConnection>,
    /// When the sentinels were asked in vain, and what was said.
    in_vain: Option<(Instant, String)>,
}

impl Master {
    fn now(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().expect("nothing panics while it holds this lock")
    }

    fn opened(&self) -> Option<(u64, MultiplexedConnection)> {
        let now = self.now();
        now.open.clone().map(|open| (now.turn, open))
    }

    async fn open(&self) -> Result<(u64, MultiplexedConnection), RedisError> {
        if let Some(open) = self.opened() {
            return Ok(open);
        }
        let _asks = self.asking.lock().await;
        if let Some(open) = self.opened() {
            return Ok(open);
        }
        if let Some((when, said)) = &self.now().in_vain
            && when.elapsed() < ASK_AGAIN
        {
            return Err(never_reached(said));
        }
        let found = async { direct(&self.sentinels.master().await?, COMMAND_TIMEOUT).await };
        match found.await {
            Ok(open) => {
                let mut now = self.now();
                now.turn += 1;
                now.open = Some(open.clone());
                now.in_vain = None;
                Ok((now.turn, open))
            }
            Err(error) => {
                let said = error.to_string();
                self.now().in_vain = Some((Instant::now(), said.clone()));
                Err(never_reached(&said))
            }
        }
    }

    fn forget_if(&self, lost: bool, turn: u64) {
        let mut now = self.now();
        if lost && now.turn == turn {
            now.open = None;
        }
    }
}

/// An error that says what is known: no command was sent.
fn never_reached(said: &str) -> RedisError {
    io::Error::new(io::ErrorKind::ConnectionRefused, format!("not sent: {said}")).into()
}
