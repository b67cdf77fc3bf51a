//! The targets: each reads bytes as its reader does in production, checks what must hold for whatever was understood, and says
//! whether it was.

use std::sync::LazyLock;

use bytes::Bytes;
use contracts::bus::SnapshotChunk;
use engine::shard::Shard;
use engine::window::Limits;
use engine_core::{Leverage, Money, Percent, Price, Quantity, Rate, Timestamp};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use poller::frame::{self, Frame};
use prost::Message as _;
use rust_decimal::Decimal;
use tonic::body::Body;
use tower::{Service as _, service_fn};
use transcode::{Options, Services, Transcoder};

use crate::life::{Life, START_US, Step, follower, journaled, sums_to_zero, through_snapshot};
use crate::seeds;

/// A message from the queue: understood or a dead letter; and when understood, answered.
pub(crate) fn envelope(bytes: &[u8]) -> bool {
    let Ok(request) = engine::inbox::read(&Bytes::copy_from_slice(bytes), seeds::SHARD, seeds::SHARDS) else {
        return false;
    };
    let mut shard = Shard::new(seeds::SHARD);
    let now = Timestamp::from_micros(START_US);
    shard.configure(now, &engine::default_instruments());
    let handled = shard.handle(now, &request);
    assert!(handled.reply.outcome.is_some(), "an answer says something");
    assert!(handled.entry.as_ref().is_none_or(sums_to_zero));
    true
}

/// A REST call: an answer in HTTP, and an error always in JSON. The first byte chooses GET or POST, the path ends with the line.
pub(crate) fn rest(bytes: &[u8]) -> bool {
    static TRANSCODER: LazyLock<Transcoder> = LazyLock::new(|| {
        Transcoder::decode(contracts::DESCRIPTOR_SET, Services::All, Options::default()).expect("its rules are sound")
    });
    let Some((verb, rest)) = bytes.split_first() else {
        return false;
    };
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (path, body) = rest.split_at(end);
    let method = if verb % 2 == 0 { Method::GET } else { Method::POST };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::new(Full::new(Bytes::copy_from_slice(
            body.get(1..).unwrap_or_default(),
        ))));
    let Ok(request) = request else { return false };
    // A room that answers every call with an empty message.
    let room = service_fn(|_: Request<Body>| async {
        let mut response = Response::new(Body::new(Full::new(Bytes::from_static(&[0, 0, 0, 0, 0]))));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static("0"));
        Ok::<_, std::convert::Infallible>(response)
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let response = match TRANSCODER.clone().into_service(room).call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status();
        if status.is_success() {
            return true;
        }
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).expect("an error is JSON");
        assert!(json["code"].is_number(), "{status}: {json}");
        false
    })
}

/// Decimal text: refused, or a number that is written and read again as the same.
pub(crate) fn decimal(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    fn again<T: PartialEq + std::fmt::Debug + std::fmt::Display, E: std::fmt::Debug>(
        text: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> bool {
        parse(text).is_ok_and(|number| {
            assert!(
                !text.contains(['e', 'E', '+', ' ', '_']),
                "{text:?} was read as {number}"
            );
            let written = number.to_string();
            assert_eq!(parse(&written).expect("its own text"), number, "{text:?}");
            true
        })
    }
    [
        again(text, Money::parse),
        again(text, Price::parse),
        again(text, Quantity::parse),
        again(text, Leverage::parse),
        again(text, Rate::parse),
        again(text, Percent::parse),
        again(text, contracts::decimal::parse),
    ]
    .contains(&true)
}

/// A frame of the venue: garbage, refused, or a quote that can be traded on.
pub(crate) fn frame(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Frame::Quote(quote) = frame::parse(text) else {
        return false;
    };
    assert!(Decimal::ZERO < quote.bid && quote.bid < quote.ask, "{quote:?}");
    assert!(!quote.symbol.is_empty());
    true
}

/// A journal row: corrupt, or a state whose hash is what its parts say.
pub(crate) fn journal_row(bytes: &[u8]) -> bool {
    let mut shard = follower();
    if shard.replay(bytes).is_err() {
        return false;
    }
    assert_eq!(shard.state().hash(), shard.state().recompute_hash());
    true
}

/// A chunk of a snapshot: corrupt, or a shard that its own snapshot restores.
pub(crate) fn snapshot_chunk(bytes: &[u8]) -> bool {
    let chunk = Bytes::copy_from_slice(bytes);
    let Ok(shard) = Shard::restore(0, Limits::default(), 1_000_000, [chunk]) else {
        return false;
    };
    SnapshotChunk::decode(bytes).expect("what the engine reads, others can read");
    assert_eq!(shard.state().hash(), shard.state().recompute_hash());
    assert_eq!(through_snapshot(&shard).hash(), shard.hash());
    true
}

/// An `authorization` header: refused, or the principal of a token that was signed for it.
pub(crate) fn token(bytes: &[u8]) -> bool {
    let Ok(header) = HeaderValue::from_bytes(bytes) else {
        return false;
    };
    let Ok(principal) = gateway::principal(&seeds::token_config(), &header) else {
        return false;
    };
    assert_eq!(principal, seeds::PRINCIPAL, "nobody signed another one");
    true
}

/// A life of a shard, six bytes a step: money is conserved, replay equals live, and so does what a snapshot restores.
pub(crate) fn commands(bytes: &[u8]) -> bool {
    let (mut life, mut replica) = (Life::begin(), follower());
    for step in bytes.chunks_exact(6) {
        let step = Step::read(step.try_into().expect("six bytes"));
        let entries = life.take(&step);
        assert!(entries.iter().all(sums_to_zero), "{step:?}");
        if !entries.is_empty() {
            replica.replay(&journaled(entries)).expect("what was journaled replays");
        }
        assert_eq!(life.shard.hash(), replica.hash(), "{step:?}");
    }
    assert_eq!(life.shard.state().hash(), life.shard.state().recompute_hash());
    assert_eq!(through_snapshot(&replica).hash(), life.shard.hash());
    bytes.len() >= 6
}
