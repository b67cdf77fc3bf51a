//! The doors, and what they lead to.
//!
//! ```text
//! every request ─ its name ─┬─ application/grpc* ─────────────────────────────┐
//!                           └─ CORS ─┬─ application/grpc-web* ─ grpc-web ─────┼─ the gates ─ the room
//!                                    └─ anything else ─ REST ─────────────────┘
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::Calls;
use contracts::DESCRIPTOR_SET;
use contracts::v1::balance_service_server::BalanceServiceServer;
use contracts::v1::house_service_server::HouseServiceServer;
use contracts::v1::market_service_server::MarketServiceServer;
use contracts::v1::operation_service_server::OperationServiceServer;
use contracts::v1::trade_service_server::TradeServiceServer;
use contracts::v1::usage_service_server::UsageServiceServer;
use contracts::v1::wallet_service_server::WalletServiceServer;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, Service as _};
use tower_http::cors::{AllowOrigin, CorsLayer};
use uuid::Uuid;
use uuid::fmt::Simple;

use crate::GatewayError;
use crate::auth::Verifier;
use crate::balance::Balances;
use crate::config::Config;
use crate::entrance::{Desks, Entrance};
use crate::gates::{Came, Gate, Gates};
use crate::house::House;
use crate::inner::Inner;
use crate::limits::{Crowds, Limiter, Peer, Principals};
use crate::market::Markets;
use crate::metrics::Metrics;
use crate::operation::Operations;
use crate::rest::Rest;
use crate::room::Room;
use crate::trace::{Door, REQUEST_ID};
use crate::trade::Trades;
use crate::usage::Usages;
use crate::wallet::Wallets;

/// Largest message that is looked at, after decompression. Requests are far smaller.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Longest request id taken from a client.
const REQUEST_ID_MAX: usize = 128;
/// How long browsers may remember what they may send.
const CORS_AGE_MAX: Duration = Duration::from_secs(600);
/// How often limits forget those who went away.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// The connection that a request came in through. An extension of the request, until it is at a door.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    /// The address at its other end.
    pub peer: SocketAddr,
    /// Told when its time is over: its streams end.
    pub over: CancellationToken,
}

/// Puts a service behind its size limit and in front of its compressions.
macro_rules! offered {
    ($server:expr) => {
        $server
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .accept_compressed(Gzip)
            .accept_compressed(Zstd)
            .send_compressed(Gzip)
            .send_compressed(Zstd)
    };
}

/// What the stack and the room share.
pub(crate) struct Front {
    pub metrics: Arc<Metrics>,
    pub principals: Arc<Principals>,
    pub entrance: Entrance,
    pub crowds: Crowds,
    pub addresses: Arc<Limiter<Peer>>,
}

impl Front {
    /// With a room that is closed.
    pub fn new(config: &Config) -> Self {
        Self {
            metrics: Arc::new(Metrics::new()),
            principals: Arc::new(Principals::new(config.limits.principal)),
            entrance: Entrance::default(),
            crowds: Crowds::new(config.calls.in_flight_max),
            addresses: Arc::new(Limiter::new(config.limits.address)),
        }
    }
}

/// Everything behind the port: what a connection passes its requests to, each with its [`Socket`].
pub(crate) fn doors(
    config: &Config,
    front: &Front,
    health: HealthServer<impl Health>,
    leaving: &CancellationToken,
) -> Result<Inner, GatewayError> {
    let gates = gates(config, front, health, leaving)?;
    let inside = Inner::new({
        let gates = gates.clone();
        move |request| gates.clone().pass(request)
    });
    let rest = Arc::new(Rest::new(config, front, inside.clone())?);
    let browsers = tower::service_fn(move |request: Request<Body>| {
        let (rest, inside) = (Arc::clone(&rest), inside.clone());
        async move {
            match request.extensions().get::<Came>().map(|came| came.door) {
                Some(Door::GrpcWeb) => GrpcWebLayer::new().layer(inside).call(request).await,
                _ => Ok(rest.answer(request).await),
            }
        }
    });
    let browsers = Inner::service(cors(&config.cors_origins)?.layer(browsers));
    let hops = config.limits.forwarded_hops;
    Ok(Inner::new(move |request| {
        come_in(gates.clone(), browsers.clone(), hops, request)
    }))
}

/// Sends a request through its door, with a name, and its answer back with the same.
async fn come_in(gates: Gates, browsers: Inner, hops: usize, mut request: Request<Body>) -> Response<Body> {
    let id = name(request.headers());
    let socket = request.extensions_mut().remove::<Socket>();
    let door = door(&request);
    let came = Came {
        id: id.clone(),
        door,
        peer: socket.as_ref().map(|it| Peer::of(it.peer, request.headers(), hops)),
        counted: None,
        over: socket.map(|it| it.over),
    };
    request.extensions_mut().insert(came);
    let mut response = match door {
        // Not spoken by browsers, so that CORS has nothing to say about it.
        Door::Grpc => gates.pass(request).await,
        Door::GrpcWeb | Door::Rest => browsers.pass(request).await,
    };
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// What all doors lead to: the gates, and behind them the room once it is open.
pub(crate) fn gates(
    config: &Config,
    front: &Front,
    health: HealthServer<impl Health>,
    leaving: &CancellationToken,
) -> Result<Gates, GatewayError> {
    let (addresses, principals) = (Arc::clone(&front.addresses), Arc::clone(&front.principals));
    tokio::spawn(leaving.clone().run_until_cancelled_owned(tidy(addresses, principals)));
    Ok(Gates(Arc::new(Gate {
        metrics: Arc::clone(&front.metrics),
        entrance: front.entrance.clone(),
        deadlines: config.deadlines,
        leaving: leaving.clone(),
        addresses: Arc::clone(&front.addresses),
        crowds: front.crowds.clone(),
        verifier: Verifier::new(&config.tokens)?,
        principals: Arc::clone(&front.principals),
        others: describing(config, health)?,
    })))
}

async fn tidy(addresses: Arc<Limiter<Peer>>, principals: Arc<Principals>) {
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        addresses.tidy();
        principals.tidy();
    }
}

/// Our services: what the entrance leads to.
pub(crate) fn desks<C: Calls>(room: &Arc<Room<C>>) -> Desks {
    Desks::default()
        .with(offered!(TradeServiceServer::new(Trades(Arc::clone(room)))))
        .with(offered!(WalletServiceServer::new(Wallets(Arc::clone(room)))))
        .with(offered!(BalanceServiceServer::new(Balances(Arc::clone(room)))))
        .with(offered!(MarketServiceServer::new(Markets(Arc::clone(room)))))
        .with(offered!(HouseServiceServer::new(House(Arc::clone(room)))))
        .with(offered!(OperationServiceServer::new(Operations(Arc::clone(room)))))
        .with(offered!(UsageServiceServer::new(Usages(Arc::clone(room)))))
}

/// Health, and what describes our services.
fn describing(config: &Config, health: HealthServer<impl Health>) -> Result<Routes, GatewayError> {
    let mut routes = Routes::builder();
    routes.add_service(health);
    if config.reflection {
        let described = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let wrong = |cause: tonic_reflection::server::Error| GatewayError::Config(format!("reflection: {cause}"));
        routes
            .add_service(described().build_v1().map_err(wrong)?)
            // What older tools ask for.
            .add_service(described().build_v1alpha().map_err(wrong)?);
    }
    Ok(routes.routes().prepare())
}

fn door(request: &Request<Body>) -> Door {
    let media_type = request
        .headers()
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    if media_type.starts_with(b"application/grpc-web") {
        Door::GrpcWeb
    } else if media_type.starts_with(b"application/grpc") {
        Door::Grpc
    } else {
        Door::Rest
    }
}

/// The id of a request: the client's if it is a sane one.
fn name(headers: &HeaderMap) -> HeaderValue {
    let sane = |id: &&HeaderValue| {
        let id = id.as_bytes();
        !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.iter().all(u8::is_ascii_graphic)
    };
    let given = headers.get(REQUEST_ID).filter(sane).cloned();
    let mut id = given.unwrap_or_else(|| {
        let mut digits = [0; Simple::LENGTH];
        let digits = Uuid::new_v4().simple().encode_lower(&mut digits);
        HeaderValue::from_str(digits).expect("hex digits are a header value")
    });
    // To HTTP/2 that means one that is not worth a place in its table, where each would push out what the next call has too.
    id.set_sensitive(true);
    id
}

/// Which origins browsers may call from, and what they may send and read.
fn cors(origins: &[String]) -> Result<CorsLayer, GatewayError> {
    let origin = |text: &String| {
        let wrong = || GatewayError::Config(format!("CORS origin {text:?} is not like https://host[:port]"));
        let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
        if !matches!(scheme, "http" | "https") || host.is_empty() || host.contains(['/', '*']) {
            return Err(wrong());
        }
        text.parse::<HeaderValue>().map_err(|_| wrong())
    };
    let origins: Vec<HeaderValue> = origins.iter().map(origin).collect::<Result<_, _>>()?;
    let sent = [
        "x-grpc-web",
        "x-user-agent",
        "grpc-timeout",
        "x-request-timeout",
        REQUEST_ID,
        "traceparent",
        "tracestate",
    ];
    let also_sent = ["idempotency-key", "last-event-id", "accept", "grpc-accept-encoding"];
    let read = [
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "grpc-retry-pushback-ms",
        REQUEST_ID,
        "retry-after",
    ];
    let also_read = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"];
    let sent = sent
        .into_iter()
        .chain(also_sent)
        .map(HeaderName::from_static)
        .chain([CONTENT_TYPE, AUTHORIZATION]);
    let read = read.into_iter().chain(also_read).map(HeaderName::from_static);
    Ok(CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(sent.collect::<Vec<_>>())
        .expose_headers(read.collect::<Vec<_>>())
        .max_age(CORS_AGE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_chooses_the_door() {
        for (media_type, want) in [
            ("application/grpc", Door::Grpc),
            ("application/grpc+proto", Door::Grpc),
            ("application/grpc-web", Door::GrpcWeb),
            ("application/grpc-web-text+proto", Door::GrpcWeb),
            ("application/json", Door::Rest),
            ("text/html", Door::Rest),
        ] {
            let request = Request::builder()
                .header(CONTENT_TYPE, media_type)
                .body(Body::empty())
                .unwrap();
            assert_eq!(door(&request), want, "{media_type}");
        }
        assert_eq!(door(&Request::new(Body::empty())), Door::Rest);
    }

    #[test]
    fn origins_are_exact() {
        assert!(cors(&["https://trade.example.com".into(), "http://localhost:5173".into()]).is_ok());
        for bad in ["*", "https://*", "trade.example.com", "https://a/b", "ftp://a", ""] {
            assert!(cors(&[bad.into()]).is_err(), "{bad:?}");
        }
    }
}
