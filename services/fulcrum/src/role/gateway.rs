//! `fulcrum gateway`: gRPC, grpc-web and REST on one port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use gateway::{Config, Connections, Deadlines, Gateway, Limits, Rate, Streams, TlsConfig, TokenConfig, TokenKey};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::token::IssueSettings;
use crate::failure::Failure;
use crate::process::{self, Frame, Stage};
use crate::settings::{DatabaseSettings, OpsSettings, ParentSettings, RedisSettings, TelemetrySettings, duration};
use crate::{keys, probe};

/// Connections for history and for streams that catch up.
const CONNECTIONS_MAX: u32 = 16;

/// Runs one gateway. It keeps no state: any number may run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    listen: ListenSettings,
    #[command(flatten)]
    redis: RedisSettings,
    #[command(flatten)]
    database: DatabaseSettings,
    #[command(flatten)]
    keys: KeySettings,
    #[command(flatten)]
    gateway: GatewaySettings,
    #[command(flatten)]
    ops: OpsSettings,
    #[command(flatten)]
    telemetry: TelemetrySettings,
    #[command(flatten)]
    parent: ParentSettings,
}

/// Where clients come in.
#[derive(Args, Clone, Debug)]
pub(crate) struct ListenSettings {
    /// Where gRPC, grpc-web and REST are, all on one port. Port 0 takes a free one.
    #[arg(
        long,
        env = "FULCRUM_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS"
    )]
    pub(crate) listen: SocketAddr,
}

/// Which keys are believed.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeySettings {
    /// Public key that tokens are verified with, Ed25519 PEM; may be given several times, while a key is being replaced. The key
    /// id is taken from the key, as `fulcrum token` does; ID=FILE gives another, =FILE verifies tokens that name no key.
    #[arg(
        long,
        env = "FULCRUM_TOKEN_KEY",
        value_delimiter = ',',
        required = true,
        value_name = "FILE",
        value_parser = token_key
    )]
    token_key: Vec<KeySource>,
}

/// How the gateway treats its callers.
#[derive(Args, Clone, Debug)]
pub(crate) struct GatewaySettings {
    #[command(flatten)]
    pub(crate) issue: IssueSettings,
    /// Origin that browsers may call from, for example https://trade.example.com; may be given several times. None but the
    /// gateway's own unless given.
    #[arg(long, env = "FULCRUM_CORS_ORIGIN", value_delimiter = ',', value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// Certificate for TLS on the port, PEM with its chain; read again when it changes. Without it the port is plaintext, for TLS
    /// that ends in front of it.
    #[arg(long, env = "FULCRUM_TLS_CERTIFICATE", requires = "tls_key", value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// Private key of the certificate, PEM.
    #[arg(long, env = "FULCRUM_TLS_KEY", requires = "tls_certificate", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Authorities, PEM: a client must then show a certificate of one of them, besides its token.
    #[arg(
        long,
        env = "FULCRUM_TLS_CLIENT_CA",
        requires = "tls_certificate",
        value_name = "FILE"
    )]
    tls_client_ca: Option<PathBuf>,
    /// Hides the interface definitions: gRPC reflection, `/openapi.json` and `/docs`.
    #[arg(long, env = "FULCRUM_NO_REFLECTION", value_parser = clap::builder::FalseyValueParser::new())]
    no_reflection: bool,
    /// How long a call may take when its client does not say.
    #[arg(long, env = "FULCRUM_DEADLINE_DEFAULT", default_value = "5s", value_name = "TIME", value_parser = duration)]
    deadline_default: Duration,
    /// The longest that a client may ask for.
    #[arg(long, env = "FULCRUM_DEADLINE_MAX", default_value = "30s", value_name = "TIME", value_parser = duration)]
    deadline_max: Duration,
    /// Calls a second that one principal may make for ever.
    #[arg(long, env = "FULCRUM_PRINCIPAL_RATE", default_value_t = 1_000, value_name = "COUNT")]
    principal_rate: u32,
    /// Calls that one principal may make at once after a pause.
    #[arg(long, env = "FULCRUM_PRINCIPAL_BURST", default_value_t = 2_000, value_name = "COUNT")]
    principal_burst: u32,
    /// Calls a second from one address, with a good token or not.
    #[arg(long, env = "FULCRUM_ADDRESS_RATE", default_value_t = 2_000, value_name = "COUNT")]
    address_rate: u32,
    /// Calls at once from one address after a pause.
    #[arg(long, env = "FULCRUM_ADDRESS_BURST", default_value_t = 4_000, value_name = "COUNT")]
    address_burst: u32,
    /// Proxies in front whose X-Forwarded-For is believed, counted from the right; 0 believes the connection alone.
    #[arg(long, env = "FULCRUM_FORWARDED_HOPS", default_value_t = 0, value_name = "COUNT")]
    forwarded_hops: usize,
    /// Most connections at once.
    #[arg(
        long,
        env = "FULCRUM_CONNECTIONS_MAX",
        default_value_t = 10_000,
        value_name = "COUNT"
    )]
    connections_max: usize,
    /// Most connections of one address at once. Not counted with --forwarded-hops, where all come from the proxies.
    #[arg(
        long,
        env = "FULCRUM_CONNECTIONS_ADDRESS_MAX",
        default_value_t = 2_500,
        value_name = "COUNT"
    )]
    connections_address_max: usize,
    /// How long a new connection may take to send its first request.
    #[arg(long, env = "FULCRUM_FIRST_REQUEST", default_value = "10s", value_name = "TIME", value_parser = duration)]
    first_request: Duration,
    /// After this a client is asked to connect anew, so that load spreads over new replicas.
    #[arg(long, env = "FULCRUM_CONNECTION_AGE_MAX", default_value = "30m", value_name = "TIME", value_parser = duration)]
    connection_age_max: Duration,
    /// How long after that its streams may go on before they are ended.
    #[arg(long, env = "FULCRUM_CONNECTION_AGE_GRACE", default_value = "5m", value_name = "TIME", value_parser = duration)]
    connection_age_grace: Duration,
    /// Most streams at once.
    #[arg(long, env = "FULCRUM_STREAMS_MAX", default_value_t = 10_000, value_name = "COUNT")]
    streams_max: usize,
    /// Most streams of one principal at once.
    #[arg(
        long,
        env = "FULCRUM_STREAMS_PRINCIPAL_MAX",
        default_value_t = 2_500,
        value_name = "COUNT"
    )]
    streams_principal_max: usize,
    /// How many events a slow reader of a stream may be behind before it is told that it missed some.
    #[arg(long, env = "FULCRUM_STREAM_QUEUE_MAX", default_value_t = 256, value_name = "COUNT")]
    stream_queue_max: usize,
    /// How many sequences back a stream may resume.
    #[arg(
        long,
        env = "FULCRUM_STREAM_REPLAY_MAX",
        default_value_t = 100_000,
        value_name = "COUNT"
    )]
    stream_replay_max: u64,
    /// Most calls in flight at once, from one address a quarter of it; fewer while fewer are answered in a fifth of a second.
    #[arg(long, env = "FULCRUM_IN_FLIGHT_MAX", default_value_t = 20_000, value_name = "COUNT")]
    in_flight_max: usize,
    /// Most requests that may wait on one shard; more are refused.
    #[arg(long, env = "FULCRUM_QUEUE_LENGTH_MAX", default_value_t = bus::QUEUE_LENGTH_MAX, value_name = "COUNT")]
    queue_length_max: usize,
    /// How long running calls have to finish when the gateway stops.
    #[arg(long, env = "FULCRUM_DRAIN", default_value = "10s", value_name = "TIME", value_parser = duration)]
    drain: Duration,
}

/// A key file and what the tokens it verifies call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeySource {
    file: PathBuf,
    id: KeyId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum KeyId {
    Derived,
    None,
    Given(String),
}

/// Reads where a key is: FILE, ID=FILE or =FILE.
pub(crate) fn token_key(text: &str) -> Result<KeySource, String> {
    let (id, file) = match text.split_once('=') {
        None => (KeyId::Derived, text),
        Some(("", file)) => (KeyId::None, file),
        Some((id, file)) => (KeyId::Given(id.to_owned()), file),
    };
    if file.is_empty() {
        return Err("a file is missing".to_owned());
    }
    Ok(KeySource { file: file.into(), id })
}

impl KeySource {
    /// Where it is.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Reads it.
    pub(crate) fn read(&self) -> anyhow::Result<TokenKey> {
        let key = keys::read_public(&self.file)?;
        Ok(match &self.id {
            KeyId::Derived => key,
            KeyId::None => TokenKey { id: None, ..key },
            KeyId::Given(id) => TokenKey {
                id: Some(id.clone()),
                ..key
            },
        })
    }
}

impl GatewaySettings {
    /// Where the certificates are, if the port speaks TLS.
    pub(crate) fn tls(&self) -> Option<TlsConfig> {
        let (certificate, key) = self.tls_certificate.clone().zip(self.tls_key.clone())?;
        Some(TlsConfig {
            client_ca: self.tls_client_ca.clone(),
            ..TlsConfig::new(certificate, key)
        })
    }

    fn config(&self, listen: SocketAddr, keys: Vec<TokenKey>, redis: &str, database: &str) -> Result<Config, Failure> {
        let tokens = TokenConfig {
            keys,
            issuer: self.issue.token_issuer.clone(),
            audience: self.issue.token_audience.clone(),
        };
        let pool = super::pool(database, "gateway", CONNECTIONS_MAX)?;
        let mut config = Config::new(listen, bus::Redis::open(redis)?, pool, tokens);
        config.cors_origins.clone_from(&self.cors_origin);
        config.tls = self.tls();
        config.reflection = !self.no_reflection;
        config.deadlines = Deadlines {
            default: self.deadline_default,
            max: self.deadline_max,
        };
        config.limits = Limits {
            principal: Rate {
                per_second: self.principal_rate,
                burst: self.principal_burst,
            },
            address: Rate {
                per_second: self.address_rate,
                burst: self.address_burst,
            },
            forwarded_hops: self.forwarded_hops,
        };
        config.connections = Connections {
            count_max: self.connections_max,
            address_max: self.connections_address_max,
            first_request: self.first_request,
            age_max: self.connection_age_max,
            age_grace: self.connection_age_grace,
            ..Connections::default()
        };
        config.streams = Streams {
            count_max: self.streams_max,
            principal_max: self.streams_principal_max,
            queue_max: self.stream_queue_max,
            replay_max: self.stream_replay_max,
        };
        config.calls = bus::CallerOptions {
            in_flight_max: self.in_flight_max,
            queue_length_max: self.queue_length_max,
        };
        config.drain = self.drain;
        Ok(config)
    }
}

/// Runs the command.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let frame = Frame {
        telemetry: options.telemetry,
        ops: options.ops,
        parent: options.parent,
    };
    let keys = options
        .keys
        .token_key
        .iter()
        .map(KeySource::read)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (redis, database) = (options.redis.redis_url, options.database.database_url);
    frame
        .run("gateway", async |stage| {
            stage.board.expect(&["redis", "postgres", "gateway"]);
            let _redis = AbortOnDropHandle::new(tokio::spawn(probe::redis(
                stage.board.clone(),
                bus::Redis::open(&redis)?,
            )));
            let looking = probe::postgres(stage.board.clone(), super::pool(&database, "gateway", 1)?);
            let _postgres = AbortOnDropHandle::new(tokio::spawn(looking));
            let listen = options.listen.listen;
            serve(&options.gateway, listen, keys, &redis, &database, stage, None).await
        })
        .await
}

/// Runs a gateway, tells `bound` where it listens, and says on the board whether it would answer.
pub(crate) async fn serve(
    settings: &GatewaySettings,
    listen: SocketAddr,
    keys: Vec<TokenKey>,
    redis: &str,
    database: &str,
    stage: Stage,
    bound: Option<oneshot::Sender<SocketAddr>>,
) -> Result<(), Failure> {
    let (settings, redis, database) = (settings.clone(), redis.to_owned(), database.to_owned());
    process::alone("gateway", async move {
        let gateway = Gateway::bind(settings.config(listen, keys, &redis, &database)?).await?;
        let address = gateway.local_addr();
        tracing::info!(%address, "the gateway listens");
        if let Some(bound) = bound {
            let _unheard = bound.send(address);
        }
        let watching = probe::gateway(stage.board.clone(), gateway.readiness(), address);
        let _watching = AbortOnDropHandle::new(tokio::spawn(watching));
        Ok(gateway.serve(stage.shutdown).await?)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_called_otherwise() {
        let source = |text| token_key(text).unwrap().id;
        assert_eq!(source("a.pem"), KeyId::Derived);
        assert_eq!(source("=a.pem"), KeyId::None);
        assert_eq!(source("old=a.pem"), KeyId::Given("old".to_owned()));
        assert!(token_key("old=").is_err() && token_key("").is_err());
    }
}
