//! What `up` starts, in which order, and that it is ready.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bus::{Caller, CallerOptions, Calls as _};
use clap::ArgMatches;
use contracts::bus::Request;
use contracts::bus::reply::Outcome;
use contracts::bus::request::Command;
use contracts::v1::{GetQuoteRequest, GetQuoteResponse, QuoteState};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use prost::Message as _;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::children::ChildRole;
use super::home::Home;
use super::running::{Running, Supervisor};
use super::server::Server;
use super::{Options, banner, postgres, redis};
use crate::failure::Failure;
use crate::keys::{self, PrivateKey};
use crate::ops::{Board, Condition};
use crate::process::Stage;
use crate::role::engine::EngineSettings;
use crate::role::gateway::GatewaySettings;
use crate::role::recorder::RecorderSettings;
use crate::role::{self, migrate, token};
use crate::settings::{FeedSettings, TelemetrySettings, given};
use crate::{probe, say};

/// How long a store may take until it answers: after a crash Postgres reads its log first.
const STORE_WITHIN: Duration = Duration::from_secs(300);
/// How long the roles may take until all are ready; a long journal is read first.
const ROLES_WITHIN: Duration = Duration::from_secs(300);
/// How long the first price is waited for before the person is told that there is none yet.
const PRICE_WITHIN: Duration = Duration::from_secs(12);
/// How long the engine may take to say what it trades at.
const QUOTE_WITHIN: Duration = Duration::from_secs(1);
/// How long the ready token is good for.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Pause between two looks at whether something is ready.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// All that runs.
pub(super) struct Mesh<'a> {
    home: Home,
    options: Options,
    given: &'a ArgMatches,
    supervisor: Supervisor,
    board: Board,
    /// In the order in which they were started.
    running: Vec<Running>,
    probes: Vec<AbortOnDropHandle<()>>,
}

/// What is known once all is ready.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) listen: SocketAddr,
    pub(super) shards: u32,
    pub(super) feed: Option<Condition>,
    pub(super) token: String,
}

/// Where the stores are.
#[derive(Clone, Debug)]
struct Stores {
    redis: String,
    database: String,
}

impl<'a> Mesh<'a> {
    /// Nothing runs yet.
    pub(super) fn new(
        home: Home,
        options: Options,
        given: &'a ArgMatches,
        supervisor: Supervisor,
        board: Board,
    ) -> Self {
        Self {
            home,
            options,
            given,
            supervisor,
            board,
            running: Vec::new(),
            probes: Vec::new(),
        }
    }

    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// Starts everything and waits until it is ready.
    pub(super) async fn start(&mut self) -> Result<Started, Failure> {
        let stores = self.start_stores().await?;
        let pool = role::pool(&stores.database, "up", 2)?;
        let shards = migrate::migrate(&pool, self.options.shards.shards).await?;
        let (private, public) = keys::make(&self.home.keys())?;
        self.board.expect(&["redis", "postgres"]);
        self.probes = vec![
            AbortOnDropHandle::new(tokio::spawn(probe::redis(
                self.board.clone(),
                bus::Redis::open(&stores.redis)?,
            ))),
            AbortOnDropHandle::new(tokio::spawn(probe::postgres(self.board.clone(), pool.clone()))),
        ];
        if self.options.engines > 0 {
            self.board.expect(&["shards"]);
            let looking = probe::shards(self.board.clone(), pool);
            self.probes.push(AbortOnDropHandle::new(tokio::spawn(looking)));
        }
        say::line("starting engine, recorder, poller and gateway …");
        let listen = match self.options.separate_processes {
            true => self.start_children(&stores, &public)?,
            false => self.start_tasks(&stores, &public).await?,
        };
        self.until_ready(shards).await?;
        self.supervisor.settled();
        let feed = self.first_price(&stores.redis).await?;
        let account = ["demo".to_owned()];
        let scopes: Vec<String> = token::SCOPE_DEFAULT.split(',').map(ToOwned::to_owned).collect();
        let grant = token::Grant {
            principal: "demo",
            accounts: &account,
            scopes: &scopes,
            ttl: TOKEN_TTL,
        };
        let token = token::sign(&PrivateKey::read(&private)?, &self.options.gateway.issue, &grant)?;
        Ok(Started {
            listen,
            shards,
            feed,
            token,
        })
    }

    async fn start_stores(&mut self) -> Result<Stores, Failure> {
        let place = if self.home.ephemeral {
            "for this run only"
        } else {
            "kept"
        };
        say::line(format!("data in {} ({place})", self.home.root.display()));
        say::line("starting Redis and Postgres …");
        let redis_url = redis::url(&self.home);
        let redis_server = redis::server(&self.home)?;
        self.keep_store("redis-0", redis_server.clone());
        let server = postgres::server(&self.home).await?;
        self.keep_store("postgres-0", server.clone());
        until_answered(&redis_server, async || redis::answers(&redis_url).await).await?;
        until_answered(&server, async || postgres::answers(&self.home).await).await?;
        postgres::make_database(&self.home).await.context("the database")?;
        Ok(Stores {
            redis: redis_url,
            database: postgres::url(&self.home),
        })
    }

    fn keep_store(&mut self, name: &str, server: Server) {
        self.keep(name, move |stop| server.clone().run(stop).boxed());
    }

    fn keep<Start>(&mut self, name: &str, start: Start)
    where
        Start: Fn(CancellationToken) -> BoxFuture<'static, Result<(), Failure>> + Send + 'static,
    {
        self.running.push(self.supervisor.keep(name, start));
    }

    /// Every role a task of this process.
    async fn start_tasks(&mut self, stores: &Stores, public: &std::path::Path) -> Result<SocketAddr, Failure> {
        let board = self.board.clone();
        board.expect(&["recorder", "feed", "gateway"]);
        for n in 0..self.options.engines {
            let (settings, stores, board) = (self.options.engine.clone(), stores.clone(), board.clone());
            let name = format!("engine-{n}");
            self.keep(&name.clone(), move |shutdown| {
                let (settings, stores, name) = (settings.clone(), stores.clone(), name.clone());
                let stage = Stage {
                    board: board.clone(),
                    shutdown,
                };
                async move { role::engine::lead(&settings, &stores.redis, &stores.database, &name, &name, stage).await }
                    .boxed()
            });
        }
        let (settings, its, on) = (self.options.recorder.clone(), stores.clone(), board.clone());
        self.keep("recorder-0", move |shutdown| {
            let (settings, stores) = (settings.clone(), its.clone());
            let stage = Stage {
                board: on.clone(),
                shutdown,
            };
            async move { role::recorder::record(&settings, &stores.redis, &stores.database, stage).await }.boxed()
        });
        let (settings, its, on) = (self.options.feed.clone(), stores.clone(), board.clone());
        self.keep("poller-0", move |shutdown| {
            let (settings, stores) = (settings.clone(), its.clone());
            let stage = Stage {
                board: on.clone(),
                shutdown,
            };
            async move { role::poller::follow(&settings, &stores.redis, stage).await }.boxed()
        });
        let (tell, told) = oneshot::channel();
        let tell = Arc::new(std::sync::Mutex::new(Some(tell)));
        let (settings, its, key) = (self.options.gateway.clone(), stores.clone(), keys::read_public(public)?);
        let wanted = self.options.listen.listen;
        // A port that the system chose is kept when the gateway is started again.
        let chosen: Arc<OnceLock<SocketAddr>> = Arc::default();
        let remembered = Arc::clone(&chosen);
        self.keep("gateway-0", move |shutdown| {
            let (settings, stores, keys) = (settings.clone(), its.clone(), vec![key.clone()]);
            let stage = Stage { board: board.clone(), shutdown };
            let listen = remembered.get().copied().unwrap_or(wanted);
            let bound = tell.lock().expect("nothing panics while it holds this lock").take();
            async move { role::gateway::serve(&settings, listen, keys, &stores.redis, &stores.database, stage, bound).await }.boxed()
        });
        match told.await {
            Ok(address) => Ok(*chosen.get_or_init(|| address)),
            // The supervisor tells why.
            Err(_) => std::future::pending().await,
        }
    }

    /// Every role a process of its own.
    fn start_children(&mut self, stores: &Stores, public: &std::path::Path) -> Result<SocketAddr, Failure> {
        let listen = free_port(self.options.listen.listen)?;
        let shared = given::<TelemetrySettings>(self.given);
        let with = |more: Vec<OsString>| [more, shared.clone()].concat();
        let mut roles = Vec::new();
        for n in 0..self.options.engines {
            let name = format!("engine-{n}");
            let arguments = with(
                [
                    given::<EngineSettings>(self.given),
                    vec!["--name".into(), (&name).into()],
                ]
                .concat(),
            );
            roles.push((ChildRole::new(&self.home, &name, &["engine"], arguments), name));
        }
        let mut add = |name: &str, command: &[&str], arguments| {
            roles.push((
                ChildRole::new(&self.home, name, command, with(arguments)),
                name.to_owned(),
            ));
        };
        add("recorder-0", &["recorder"], given::<RecorderSettings>(self.given));
        add("poller-0", &["poller", "run"], given::<FeedSettings>(self.given));
        let mut arguments = given::<GatewaySettings>(self.given);
        arguments.extend([
            "--token-key".into(),
            public.into(),
            "--listen".into(),
            listen.to_string().into(),
        ]);
        add("gateway-0", &["gateway"], arguments);
        for (role, name) in roles {
            self.board.add_child(&name, role.ops.clone());
            let start = role.start(stores.redis.clone(), stores.database.clone());
            self.keep(&name, start);
        }
        Ok(listen)
    }

    /// Waits until everything but the prices is there, and our own engines lead every shard: what a killed predecessor led counts as led
    /// for a few seconds more.
    async fn until_ready(&self, shards: u32) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let readiness = self.board.readiness().await;
            let led: usize = readiness
                .checks
                .iter()
                .map(|(name, it)| if name.starts_with("engine") { leads(it) } else { 0 })
                .sum();
            // Every role has its condition, and both stores; the poller's own is the feed, for which nobody waits here.
            let needed = readiness
                .checks
                .iter()
                .filter(|(name, _)| *name != "feed" && *name != "poller-0")
                // A gateway is ready once somebody leads.
                .filter(|(name, _)| self.options.engines > 0 || !name.starts_with("gateway"));
            let mut missing: Vec<String> = needed
                .filter(|(_, it)| !it.is_ready())
                .map(|(name, _)| name.clone())
                .collect();
            if self.options.engines > 0 && led < shards as usize {
                missing.push(format!("{} of {shards} shards without a leader", shards as usize - led));
            }
            if missing.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > ROLES_WITHIN {
                let failure = anyhow::anyhow!(
                    "not ready after {} s: {}; the logs are in {}",
                    ROLES_WITHIN.as_secs(),
                    missing.join(", "),
                    self.home.root.join("logs").display()
                );
                return Err(failure.into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The feed, once the engine trades on its prices or they were waited for long enough: the first trade that is printed should
    /// open when it is pasted.
    async fn first_price(&self, redis: &str) -> Result<Option<Condition>, Failure> {
        let begun = Instant::now();
        let patience = begun + PRICE_WITHIN;
        let feed = loop {
            let feed = self.board.readiness().await.checks.remove("feed");
            if feed.as_ref().is_some_and(Condition::is_ready) || Instant::now() > patience {
                break feed;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let asking = CancellationToken::new();
        let _asked = asking.clone().drop_guard();
        let caller = Caller::start(&bus::Redis::open(redis)?, CallerOptions::default(), asking);
        while self.options.engines > 0 && !is_fresh(&caller).await && Instant::now() < patience {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(feed)
    }

    /// Stops everything, the last started first.
    pub(super) async fn stop(&mut self) {
        // They would only complain about what is gone.
        self.probes.clear();
        while let Some(running) = self.running.pop() {
            say::line(format!("stopping {} …", running.name()));
            running.stop().await;
        }
        self.home.tidy();
        say::line("stopped");
    }
}

/// How many shards an engine says it leads; a child says it one level down.
fn leads(engine: &Condition) -> usize {
    let own = engine.detail("leads");
    let leads = own.or_else(|| engine.detail("checks")?.get("engine")?.get("leads"));
    leads.and_then(|it| it.as_array()).map_or(0, Vec::len)
}

/// Waits until a store answers. What it says when it ends is told by its supervisor.
async fn until_answered(server: &Server, ask: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while let Err(error) = ask().await {
        if begun.elapsed() > STORE_WITHIN {
            bail!(
                "{} does not answer: {error:#}; the end of {}:\n{}",
                server.name,
                server.log.display(),
                server.log_tail()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// The address with a port that is free now, when any would do: a child cannot tell us which one it took.
fn free_port(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    match address.port() {
        0 => Ok(std::net::TcpListener::bind(address)
            .and_then(|it| it.local_addr())
            .context("a free port")?),
        _ => Ok(address),
    }
}

/// Whether the engine would open a trade in the instrument of the banner.
async fn is_fresh(caller: &Caller) -> bool {
    let question = GetQuoteRequest {
        symbol: banner::SYMBOL.to_owned(),
    };
    let request = Request {
        command: Some(Command::GetQuote(question)),
        ..Request::default()
    };
    let reply = caller.call(request, Instant::now() + QUOTE_WITHIN).await;
    let Ok(Some(Outcome::Response(response))) = reply.map(|reply| reply.outcome) else {
        return false;
    };
    let answer = GetQuoteResponse::decode(response).unwrap_or_default();
    answer.quote.is_some_and(|quote| quote.state() == QuoteState::Fresh)
}
