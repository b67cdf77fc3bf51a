//! Streams of quotes over a room whose engine is played.

use bus::CallError;
use contracts::bus::{Reply, Request, reply};
use contracts::v1::{Instrument, ListInstrumentsResponse, QuoteState};
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::super::quote_hub::tests::entry;
use super::*;
use crate::auth::{Identity, Scope};
use crate::gates::Mark;
use crate::server::Front;

/// Knows what can be traded, and nothing else.
#[derive(Clone)]
struct Lists;

impl Calls for Lists {
    async fn call(&self, _: Request, _: Instant) -> Result<Reply, CallError> {
        let instruments = ["A", "B"].map(instrument).to_vec();
        let response = ListInstrumentsResponse { instruments }.encode_to_vec();
        Ok(Reply {
            outcome: Some(reply::Outcome::Response(response.into())),
            ..Default::default()
        })
    }

    fn is_full(&self) -> bool {
        false
    }
}

fn instrument(symbol: &str) -> Instrument {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    Instrument {
        symbol: symbol.into(),
        tick_size: "1".into(),
        stale_soft_age: seconds(5),
        stale_hard_age: seconds(30),
        ..Default::default()
    }
}

fn room() -> Arc<Room<Lists>> {
    let redis = bus::Redis::open("redis://127.0.0.1:1").unwrap();
    let database = sqlx::PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
    let tokens = crate::TokenConfig {
        keys: Vec::new(),
        issuer: String::new(),
        audience: String::new(),
    };
    let config = crate::Config::new("127.0.0.1:0".parse().unwrap(), redis, database, tokens);
    crate::room(&config, &Front::new(&config), 1, Lists, &CancellationToken::new())
}

fn watch(room: &Arc<Room<Lists>>, symbols: &[&str], interval: Duration) -> Messages<StreamQuotesResponse> {
    let mut request = tonic::Request::new(());
    let identity = Identity::sample(&["demo"], "view");
    let mark = Mark {
        arrived: std::time::Instant::now(),
        traceparent: "".into(),
    };
    request
        .extensions_mut()
        .insert(Call::new(Arc::new(identity), None, mark));
    let call = Call::of(&request, Scope::View).unwrap();
    let symbols = symbols.iter().map(|&it| it.to_owned()).collect();
    open(Arc::clone(room), call, symbols, interval).unwrap()
}

/// Quotes of a symbol with these numbers, in one batch each; the bid is ten times the number.
fn publish(room: &Room<Lists>, symbol: &str, numbers: std::ops::RangeInclusive<u64>) {
    let now_s = now_us() / 1_000_000;
    let batches: Vec<_> = numbers
        .map(|number| {
            entry(
                symbol,
                &(number * 10).to_string(),
                &(number * 10 + 5).to_string(),
                now_s,
                number,
            )
        })
        .collect();
    room.quotes.observe(&batches, now_us());
}

async fn next(stream: &mut Messages<StreamQuotesResponse>) -> StreamQuotesResponse {
    stream.next().await.unwrap().unwrap()
}

async fn next_quote(stream: &mut Messages<StreamQuotesResponse>) -> (String, u64) {
    let quote = next(stream).await.quote.expect("a quote");
    assert_eq!(quote.bid, (quote.update_id * 10).to_string());
    (quote.symbol, quote.update_id)
}

#[tokio::test]
async fn without_an_interval_every_tick_is_told_in_its_order() {
    let room = room();
    publish(&room, "A", 1..=3);
    let mut stream = watch(&room, &[], Duration::ZERO);
    assert_eq!(next_quote(&mut stream).await, ("A".into(), 3), "the newest first");
    // As many between two wake-ups as there are: the reader runs on this thread, and does not until it is waited for.
    publish(&room, "A", 4..=40);
    publish(&room, "B", 1..=2);
    publish(&room, "A", 41..=41);
    for number in 4..=40 {
        assert_eq!(next_quote(&mut stream).await, ("A".into(), number));
    }
    for number in 1..=2 {
        assert_eq!(next_quote(&mut stream).await, ("B".into(), number));
    }
    assert_eq!(next_quote(&mut stream).await, ("A".into(), 41));
}

#[tokio::test]
async fn with_an_interval_the_newest_alone_is_told() {
    let room = room();
    let mut stream = watch(&room, &["A"], Duration::from_millis(1));
    publish(&room, "A", 1..=1);
    assert_eq!(next_quote(&mut stream).await, ("A".into(), 1));
    publish(&room, "A", 2..=40);
    assert_eq!(next_quote(&mut stream).await, ("A".into(), 40));
}

#[tokio::test]
async fn a_reader_too_slow_for_every_tick_is_told_how_many_it_missed_and_goes_on_with_the_newest() {
    let room = room();
    let mut slow = watch(&room, &["A"], Duration::ZERO);
    publish(&room, "A", 1..=1);
    assert_eq!(next_quote(&mut slow).await, ("A".into(), 1));
    // More than is kept for it, and of a symbol that it does not watch, which it misses nothing of.
    publish(&room, "A", 2..=5_000);
    publish(&room, "B", 1..=5_000);
    let (mut last, mut gaps) = (1, Vec::new());
    while last < 5_000 {
        let message = next(&mut slow).await;
        match (message.quote, message.gap) {
            (Some(quote), None) => {
                let missed: u64 = gaps.last().copied().unwrap_or_default();
                assert!(
                    quote.update_id == last + 1 || quote.update_id == last + 1 + missed,
                    "{last}, then {quote:?}"
                );
                last = quote.update_id;
            }
            (None, Some(gap)) => {
                assert_eq!(gap.symbol, "A");
                gaps.push(gap.missed);
            }
            other => panic!("one of the two: {other:?}"),
        }
    }
    assert_eq!(gaps.len(), 1, "one gap, however large");
    publish(&room, "A", 5_001..=5_002);
    assert_eq!(
        next_quote(&mut slow).await,
        ("A".into(), 5_001),
        "and then every tick again"
    );
    assert_eq!(next_quote(&mut slow).await, ("A".into(), 5_002));
}

#[tokio::test]
async fn a_reader_that_came_before_the_first_quote_misses_none_in_silence_either() {
    let room = room();
    let mut slow = watch(&room, &[], Duration::ZERO);
    publish(&room, "A", 1..=1);
    assert_eq!(next_quote(&mut slow).await, ("A".into(), 1));
    publish(&room, "B", 1..=5_000);
    let gap = next(&mut slow).await.gap.expect("a gap");
    assert_eq!((gap.symbol.as_str(), gap.missed), ("B", 4_999));
    assert_eq!(next_quote(&mut slow).await, ("B".into(), 5_000));
}

#[tokio::test]
async fn a_quote_that_goes_stale_comes_again_and_an_idle_reader_is_woken_for_nothing_else() {
    let room = room();
    let terms = crate::market::Listing::from(["A", "B"].map(instrument).to_vec());
    publish(&room, "A", 1..=1);
    let (mut conflation, now) = (Conflation::new(Duration::from_secs(1)), Instant::now());
    let second = 1_000_000;
    let made_us = room.quotes.snapshot(&[])[0].1.venue_time_us;
    let symbols = ["A".to_owned()];
    for (age_us, state, ages_in) in [
        (0, QuoteState::Fresh, Some(5 * second + 1)),
        (6 * second, QuoteState::Stale, Some(24 * second + 1)),
        (31 * second, QuoteState::Halted, None),
    ] {
        let at = now + Duration::from_micros(age_us);
        let shown = Shown::of(&room.quotes, &terms, &symbols, made_us + age_us);
        let mark = shown.quotes[0].0;
        assert_eq!(
            (mark.state, conflation.next(at, shown.marks())),
            (state, Next::Tell("A"))
        );
        conflation.told("A", mark, at);
        let next = conflation.next(at, shown.marks());
        assert_eq!(next, Next::Idle);
        let pause = Pause {
            until: ages_in.map(|it| at + Duration::from_micros(it) + AGED),
            listen: true,
        };
        assert_eq!(
            shown.pause(next, at),
            pause,
            "nothing wakes it before it ages, or at all"
        );
    }
    // A quote that comes before its time: the others would come too early as well.
    publish(&room, "A", 2..=2);
    let at = now + Duration::from_micros(31 * second) + Duration::from_millis(1);
    let shown = Shown::of(&room.quotes, &terms, &symbols, made_us);
    let next = conflation.next(at, shown.marks());
    let due = now + Duration::from_micros(31 * second) + Duration::from_secs(1);
    assert_eq!(
        shown.pause(next, at),
        Pause {
            until: Some(due),
            listen: false
        }
    );
}
