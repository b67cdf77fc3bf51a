//! The doors and the stack behind them: the only file that puts layers on top of each other.
//!
//! ```text
//! every request ─ CORS ─ request id ─┬─ application/grpc-web* ─ grpc-web ─┐
//!                                    ├─ application/grpc* ────────────────┼─ the room
//!                                    └─ anything else ─ REST ─────────────┘
//! ```

use std::convert::Infallible;
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
use http::{HeaderName, HeaderValue, Method, Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, Service as _, ServiceBuilder};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use uuid::Uuid;

use crate::GatewayError;
use crate::around::{Inner, around};
use crate::auth::{self, Verifier};
use crate::balance::Balances;
use crate::config::Config;
use crate::deadline;
use crate::entrance::{self, Entrance};
use crate::failure::Failure;
use crate::house::House;
use crate::limits::{self, Crowds, Limiter, Peer, Principals};
use crate::market::Markets;
use crate::methods;
use crate::metrics::Metrics;
use crate::operation::Operations;
use crate::rest::Rest;
use crate::room::Room;
use crate::trace::{self, Door, REQUEST_ID};
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

/// The connection that a request came in through. An extension of the request.
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

/// Everything behind the port: what a connection passes its requests to.
pub(crate) fn doors(
    config: &Config,
    front: &Front,
    health: HealthServer<impl Health>,
    leaving: &CancellationToken,
) -> Result<Inner, GatewayError> {
    let inside = behind(config, front, health, leaving)?;
    let hall = Hall {
        rest: Rest::new(config, front, inside.clone())?,
        inside,
        hops: config.limits.forwarded_hops,
    };
    let dispatch = Inner::new(tower::service_fn(move |request| {
        let hall = hall.clone();
        async move { Ok(dispatch(hall, request).await) }
    }));
    let named = around(name).layer(dispatch);
    Ok(Inner::new(cors(&config.cors_origins)?.layer(named)))
}

/// What lies between the doors and the room.
#[derive(Clone)]
struct Hall {
    inside: Inner,
    rest: Rest,
    hops: usize,
}

/// What all doors lead to: the stack, and what it ends in.
pub(crate) fn behind(
    config: &Config,
    front: &Front,
    health: HealthServer<impl Health>,
    leaving: &CancellationToken,
) -> Result<Inner, GatewayError> {
    stack(config, describing(config, health)?, front, leaving)
}

/// The room's stack, the same for all doors.
fn stack(config: &Config, others: Routes, front: &Front, leaving: &CancellationToken) -> Result<Inner, GatewayError> {
    let verifier = Arc::new(Verifier::new(&config.tokens)?);
    let addresses = Arc::clone(&front.addresses);
    let principals = Arc::clone(&front.principals);
    let crowds = front.crowds.clone();
    tokio::spawn(
        leaving
            .clone()
            .run_until_cancelled_owned(tidy(Arc::clone(&addresses), Arc::clone(&principals))),
    );

    let (metrics, deadlines, leaving) = (Arc::clone(&front.metrics), config.deadlines, leaving.clone());
    let (entrance, before, counted) = (front.entrance.clone(), front.entrance.clone(), Arc::clone(&metrics));
    let inmost = tower::service_fn(move |request: Request<Body>| {
        let (entrance, mut others) = (entrance.clone(), others.clone());
        async move {
            match methods::find(request.uri().path()) {
                Some(_) => Ok(entrance.enter(request).await),
                None => others.call(request).await,
            }
        }
    });
    Ok(ServiceBuilder::new()
        // First, because it is there to spare all that follows.
        .layer(around(move |request, inner| {
            entrance::turn_away(before.clone(), Arc::clone(&counted), request, inner)
        }))
        // Then this, so that even a refused call is traced and counted, and every error names its request.
        .layer(around(move |request, inner| {
            trace::observe(Arc::clone(&metrics), request, inner)
        }))
        // Before anything that can wait: whatever waits does so within the deadline.
        .layer(around(move |request, inner| {
            deadline::enforce(deadlines, leaving.clone(), request, inner)
        }))
        // Before the token is looked at: a flood of bad tokens must not buy signature checks.
        .layer(around(move |request, inner| {
            limits::by_address(Arc::clone(&addresses), request, inner)
        }))
        // After that limit, which counts what comes: this one counts what stays, and health and reflection ask for no token.
        .layer(around(move |request, inner| {
            limits::by_crowd(crowds.clone(), request, inner)
        }))
        // Before anything that depends on who calls.
        .layer(around(move |request, inner| {
            auth::authenticate(Arc::clone(&verifier), request, inner)
        }))
        // After it: one principal is one limit, through every door and from every address.
        .layer(around(move |request, inner| {
            limits::by_principal(Arc::clone(&principals), request, inner)
        }))
        // Last: a fault of ours ends one call, not the connection that others share.
        .service(Inner::new(
            ServiceBuilder::new()
                .map_response(|response: Response<_>| response.map(Body::new))
                .layer(CatchPanicLayer::custom(panicked))
                .service(inmost),
        )))
}

fn panicked(cause: Box<dyn std::any::Any + Send>) -> Response<Body> {
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied());
    Status::from(Failure::Internal(format!(
        "a handler panicked: {}",
        text.unwrap_or("no text")
    )))
    .into_http()
}

async fn tidy(addresses: Arc<Limiter<Peer>>, principals: Arc<Principals>) {
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        addresses.tidy();
        principals.tidy();
    }
}

/// Our services: what the entrance leads to.
pub(crate) fn inside<C: Calls>(room: &Arc<Room<C>>) -> Inner {
    let mut routes = Routes::builder();
    routes
        .add_service(offered!(TradeServiceServer::new(Trades(Arc::clone(room)))))
        .add_service(offered!(WalletServiceServer::new(Wallets(Arc::clone(room)))))
        .add_service(offered!(BalanceServiceServer::new(Balances(Arc::clone(room)))))
        .add_service(offered!(MarketServiceServer::new(Markets(Arc::clone(room)))))
        .add_service(offered!(HouseServiceServer::new(House(Arc::clone(room)))))
        .add_service(offered!(OperationServiceServer::new(Operations(Arc::clone(room)))))
        .add_service(offered!(UsageServiceServer::new(Usages(Arc::clone(room)))));
    Inner::new(routes.routes().prepare())
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

/// Sends a request through its door.
async fn dispatch(hall: Hall, mut request: Request<Body>) -> Response<Body> {
    if let Some(socket) = request.extensions().get::<Socket>() {
        let peer = Peer::of(socket.peer, request.headers(), hall.hops);
        request.extensions_mut().insert(peer);
    }
    let door = door(&request);
    request.extensions_mut().insert(door);
    match door {
        Door::Grpc => hall.inside.pass(request).await,
        Door::GrpcWeb => settled(GrpcWebLayer::new().layer(hall.inside).call(request).await),
        Door::Rest => hall.rest.answer(request).await,
    }
}

pub(crate) fn settled(answer: Result<Response<Body>, Infallible>) -> Response<Body> {
    match answer {
        Ok(response) => response,
        Err(never) => match never {},
    }
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

/// Gives every request an id, the client's if it is a sane one, and the response the same.
async fn name(mut request: Request<Body>, inner: Inner) -> Response<Body> {
    let sane = |id: &&HeaderValue| {
        let id = id.as_bytes();
        !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.iter().all(u8::is_ascii_graphic)
    };
    let given = request.headers().get(REQUEST_ID).filter(sane).cloned();
    let id = given.unwrap_or_else(|| {
        HeaderValue::from_str(&Uuid::new_v4().simple().to_string()).expect("hex digits are a header value")
    });
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = inner.pass(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
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
