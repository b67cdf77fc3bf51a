//! How much one caller may ask for: a steady rate with a burst, per address before the token is looked at, per
//! principal after.
//!
//! The limits are generous and there to keep one caller from crowding out the others; they count in this process
//! alone.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::Status;
use tonic::body::Body;

use crate::around::Inner;
use crate::auth::Identity;
use crate::config::Rate;
use crate::failure::Failure;

/// Who is at the other end, as far as we believe it. An extension of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer(pub IpAddr);

impl Peer {
    /// The socket's address, or the entry that our own proxies wrote into `X-Forwarded-For`, `hops` from the right.
    ///
    /// What a client writes there itself stands further left and is never looked at. An IPv6 customer owns a whole /64.
    pub fn of(socket: SocketAddr, headers: &HeaderMap, hops: usize) -> Self {
        let entries = || {
            headers
                .get_all("x-forwarded-for")
                .iter()
                .filter_map(|it| it.to_str().ok())
        };
        let forwarded = hops.checked_sub(1).and_then(|back| {
            let all: Vec<&str> = entries().flat_map(|value| value.split(',')).map(str::trim).collect();
            all.iter().rev().nth(back).and_then(|entry| entry.parse().ok())
        });
        Self(match forwarded.unwrap_or(socket.ip()).to_canonical() {
            IpAddr::V6(whole) => {
                let mut prefix = whole.octets();
                prefix[8..].fill(0);
                IpAddr::V6(Ipv6Addr::from(prefix))
            }
            v4 => v4,
        })
    }
}

/// One limit for each key.
pub(crate) struct Limiter<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>,
    clock: DefaultClock,
    rate: Rate,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    /// A limit.
    pub fn new(rate: Rate) -> Self {
        let at_least_one = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(rate.per_second)).allow_burst(at_least_one(rate.burst));
        let limiter = RateLimiter::keyed(quota).with_middleware();
        Self {
            limiter,
            clock: DefaultClock::default(),
            rate,
        }
    }

    /// One more call: how many could follow at once, or how long to wait.
    fn take(&self, key: &K) -> Result<u32, Duration> {
        match self.limiter.check_key(key) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(not_until) => Err(not_until.wait_time_from(self.clock.now())),
        }
    }

    /// Forgets keys that are back at their full burst.
    pub fn tidy(&self) {
        self.limiter.retain_recent();
    }

    async fn admit(&self, key: &K, subject: String, request: Request<Body>, inner: Inner) -> Response<Body> {
        match self.take(key) {
            Ok(remaining) => {
                let mut response = inner.pass(request).await;
                self.show(response.headers_mut(), remaining, Duration::ZERO);
                response
            }
            Err(retry_after) => {
                // Rounded up: a client that comes back on the dot is let in.
                let retry_after =
                    Duration::from_millis(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX - 1) + 1);
                let mut response: Response<Body> =
                    Status::from(Failure::Throttled { subject, retry_after }).into_http();
                self.show(response.headers_mut(), 0, retry_after);
                response
            }
        }
    }

    fn show(&self, headers: &mut HeaderMap, remaining: u32, reset: Duration) {
        // A limit further in has written its figures already, and they are what a client can plan with.
        if headers.contains_key("ratelimit-limit") {
            return;
        }
        headers.insert("ratelimit-limit", HeaderValue::from(self.rate.burst.max(1)));
        headers.insert("ratelimit-remaining", HeaderValue::from(remaining));
        headers.insert(
            "ratelimit-reset",
            HeaderValue::from(reset.as_secs() + u64::from(reset.subsec_nanos() > 0)),
        );
    }
}

/// The layer before the token is looked at.
pub(crate) async fn by_address(limiter: Arc<Limiter<Peer>>, request: Request<Body>, inner: Inner) -> Response<Body> {
    match request.extensions().get::<Peer>().copied() {
        Some(peer) => limiter.admit(&peer, "address".to_owned(), request, inner).await,
        None => inner.pass(request).await,
    }
}

/// The layer after it.
pub(crate) async fn by_principal(
    limiter: Arc<Limiter<String>>,
    request: Request<Body>,
    inner: Inner,
) -> Response<Body> {
    match request
        .extensions()
        .get::<Arc<Identity>>()
        .map(|identity| identity.principal.clone())
    {
        Some(principal) => {
            let subject = format!("principal {principal}");
            limiter.admit(&principal, subject, request, inner).await
        }
        None => inner.pass(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_in_and_what_follows_is_told_when_to_come_back() {
        let limiter = Limiter::new(Rate {
            per_second: 1,
            burst: 3,
        });
        let taken: Vec<_> = (0..4).map(|_| limiter.take(&"a")).collect();
        assert_eq!(taken[..3], [Ok(2), Ok(1), Ok(0)]);
        let wait = taken[3].unwrap_err();
        assert!(
            wait > Duration::from_millis(500) && wait <= Duration::from_secs(1),
            "{wait:?}"
        );
        assert_eq!(limiter.take(&"b"), Ok(2), "another key is another limit");
    }

    #[test]
    fn fault_18_a_rotated_forwarded_header_does_not_make_a_new_caller() {
        let socket: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("1.1.1.1, 203.0.113.7"));
        assert_eq!(Peer::of(socket, &headers, 0).0, socket.ip());
        // Behind one proxy its own entry counts, the last one; what the client wrote before it does not.
        assert_eq!(
            Peer::of(socket, &headers, 1).0,
            "203.0.113.7".parse::<IpAddr>().unwrap()
        );
        headers.insert("x-forwarded-for", HeaderValue::from_static("9.9.9.9, 203.0.113.7"));
        assert_eq!(
            Peer::of(socket, &headers, 1).0,
            "203.0.113.7".parse::<IpAddr>().unwrap()
        );
        assert_eq!(Peer::of(socket, &headers, 5).0, socket.ip());
    }

    #[test]
    fn an_ipv6_network_is_one_caller() {
        let peer = |text: &str| Peer::of(SocketAddr::new(text.parse().unwrap(), 1), &HeaderMap::new(), 0);
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff::2"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_eq!(peer("::ffff:192.0.2.1").0, "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
