//! How much one caller may ask for: a steady rate with a burst, per address before the token is looked at, per
//! principal after.
//!
//! The limits are generous and there to keep one caller from crowding out the others; they count in this process
//! alone.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::config::Rate;
use crate::failure::Failure;
use crate::places::{Place, Places};
use crate::usage::Tally;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
/// When to come back after too much went on at once.
const CROWD_PAUSE: Duration = Duration::from_millis(500);

/// Who is at the other end, as far as we believe it.
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
        let rate = rate.sane();
        let some = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(some(rate.per_second)).allow_burst(some(rate.burst));
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

    /// How far its caller is from this limit.
    fn shown(&self, remaining: u32) -> Shown {
        Shown {
            rate: self.rate,
            remaining,
        }
    }
}

/// How far a caller is from the limit that it met last: of those it passes that is the one a client can plan with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    rate: Rate,
    remaining: u32,
}

impl Shown {
    /// Tells it.
    pub fn tell(self, headers: &mut HeaderMap) {
        let reset = self.rate.reset(self.remaining);
        headers.insert(LIMIT, HeaderValue::from(self.rate.burst));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(
            RESET,
            HeaderValue::from(reset.as_secs() + u64::from(reset.subsec_nanos() > 0)),
        );
    }
}

fn throttled(subject: String, wait: Duration) -> Failure {
    // Rounded up: a client that comes back on the dot is let in.
    let retry_after = Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX - 1) + 1);
    Failure::Throttled { subject, retry_after }
}

/// A call that its address was charged for; so many could follow it at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted(u32);

const ADDRESS: &str = "address";

impl Limiter<Peer> {
    /// Charges a call to its address, unless that was done in front of the room, and says in `shown` what is left.
    pub fn charge(&self, peer: &Peer, counted: Option<Counted>, shown: &mut Option<Shown>) -> Result<Counted, Failure> {
        let taken = counted.map_or_else(|| self.take(peer), |Counted(remaining)| Ok(remaining));
        *shown = Some(self.shown(taken.unwrap_or(0)));
        taken.map(Counted).map_err(|wait| throttled(ADDRESS.to_owned(), wait))
    }

    /// Tells the caller in front of the room, unless a limit further in has.
    pub fn show(&self, headers: &mut HeaderMap, counted: Option<Counted>) {
        if !headers.contains_key(LIMIT) {
            self.shown(counted.map_or(0, |Counted(remaining)| remaining))
                .tell(headers);
        }
    }
}

/// The principals' limit, and what each has used of it.
pub(crate) struct Principals {
    limiter: Limiter<String>,
    /// What each has used.
    pub tally: Tally,
}

impl Principals {
    /// Nobody has used anything.
    pub fn new(rate: Rate) -> Self {
        Self {
            limiter: Limiter::new(rate),
            tally: Tally::new(Instant::now()),
        }
    }

    /// The limit of each.
    pub fn rate(&self) -> Rate {
        self.limiter.rate
    }

    /// Charges a call to its principal, and says in `shown` what is left.
    pub fn charge(&self, principal: &String, shown: &mut Option<Shown>) -> Result<(), Failure> {
        let taken = self.limiter.take(principal);
        self.tally.note(principal, taken.ok(), Instant::now());
        *shown = Some(self.limiter.shown(taken.unwrap_or(0)));
        taken
            .map(|_| ())
            .map_err(|wait| throttled(format!("principal {principal}"), wait))
    }

    /// Forgets those who went away.
    pub fn tidy(&self) {
        self.limiter.tidy();
        self.tally.tidy(Instant::now());
    }
}

/// How much may go on at once, by address: what waits costs memory, whether it has a token or not.
#[derive(Clone)]
pub(crate) struct Crowds {
    calls: Arc<Places<Peer>>,
    left_open: Arc<Places<Peer>>,
    bodies: Arc<Places<Peer>>,
}

/// Most calls that anybody may leave open, token or not, in all and from one address: health watches and reflection.
const LEFT_OPEN_MAX: usize = 1_000;
const LEFT_OPEN_ADDRESS_MAX: usize = 100;
/// Most bodies of REST that are read at once, in all and from one address: each may grow to the largest message.
const BODIES_MAX: usize = 2_000;
const BODIES_ADDRESS_MAX: usize = 500;
/// The part of all calls in flight that may come from one address.
const CALLS_ADDRESS_SHARE: usize = 4;
/// Calls that may be left open, told apart by their path, because they are not of our own services.
const OPEN_ENDED: [&str; 2] = ["/grpc.health.v1.Health/Watch", "/grpc.reflection."];

impl Crowds {
    /// With this many calls in flight at most.
    pub fn new(calls_max: usize) -> Self {
        Self {
            calls: Places::new(calls_max, calls_max / CALLS_ADDRESS_SHARE),
            left_open: Places::new(LEFT_OPEN_MAX, LEFT_OPEN_ADDRESS_MAX),
            bodies: Places::new(BODIES_MAX, BODIES_ADDRESS_MAX),
        }
    }

    /// Lets the body of a REST request be read, if there are not too many already: it is read in front of the room.
    pub fn reading(&self, peer: Option<Peer>, request: Request<Body>) -> Result<Request<Body>, Failure> {
        let Some(peer) = peer.filter(|_| !request.body().is_end_stream()) else {
            return Ok(request);
        };
        let place = self.bodies.take(peer).map_err(|_| crowded("bodies being read"))?;
        Ok(request.map(|body| held(body, place)))
    }

    /// Lets a call in, if there are not too many already.
    pub fn join(&self, peer: Peer, path: &str) -> Result<Stay, Failure> {
        let in_flight = self.calls.take(peer).map_err(|_| crowded("calls in flight"))?;
        let left_open = OPEN_ENDED
            .iter()
            .any(|it| path.starts_with(it))
            .then(|| self.left_open.take(peer));
        let left_open = left_open.transpose().map_err(|_| crowded("calls that are left open"))?;
        Ok(Stay {
            _in_flight: Some(in_flight),
            left_open,
        })
    }
}

/// The places that a call takes: one until it is answered, and one that is left open keeps another until its answer ends.
#[derive(Debug, Default)]
pub(crate) struct Stay {
    _in_flight: Option<Place<Peer>>,
    left_open: Option<Place<Peer>>,
}

impl Stay {
    /// The call is answered.
    pub fn in_body(self, response: Response<Body>) -> Response<Body> {
        match self.left_open {
            Some(place) => response.map(|body| held(body, place)),
            None => response,
        }
    }
}

fn crowded(what: &str) -> Failure {
    Failure::Throttled {
        subject: what.to_owned(),
        retry_after: CROWD_PAUSE,
    }
}

fn held(body: Body, place: Place<Peer>) -> Body {
    Body::new(Held { body, _place: place })
}

/// A body that has a place until it ends.
struct Held {
    body: Body,
    _place: Place<Peer>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
    fn what_remains_comes_back_at_the_rate_and_no_further_than_the_burst() {
        let rate = Rate {
            per_second: 4,
            burst: 10,
        };
        assert_eq!(rate.reset(10), Duration::ZERO);
        assert_eq!(rate.reset(7), Duration::from_millis(750));
        assert_eq!(rate.after(3, Duration::from_millis(249)), 3);
        assert_eq!(rate.after(3, Duration::from_millis(250)), 4);
        assert_eq!(rate.after(3, Duration::from_secs(9)), 10);
        assert_eq!(rate.after(0, Duration::MAX), 10);
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
