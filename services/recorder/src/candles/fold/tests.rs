//! What folding quotes into candles must hold to, whatever order and batches they come in.

use proptest::prelude::*;

use super::*;

/// A midnight.
const DAY_US: i64 = 1_700_006_400_000_000;

fn quote(at_us: i64, bid: &str, ask: &str) -> VenueQuote {
    VenueQuote {
        symbol: "SOL_USDC".into(),
        bid: bid.into(),
        ask: ask.into(),
        venue_time_us: u64::try_from(at_us).unwrap(),
        ..VenueQuote::default()
    }
}

fn entry(quotes: Vec<VenueQuote>) -> PriceEntry {
    let published_at_us = u64::try_from(DAY_US + 86_400 * SECOND_US).unwrap();
    PriceEntry {
        id: "1-0".into(),
        batch: PriceBatch {
            quotes,
            published_at_us,
            ..PriceBatch::default()
        },
    }
}

/// Folds quotes given as seconds after midnight and whole mid price.
fn fold(newest: &mut Newest, quotes: &[(i64, i64)]) -> Fold {
    let quote = |&(second, mid): &(i64, i64)| {
        quote(
            DAY_US + second * SECOND_US,
            &(mid - 1).to_string(),
            &(mid + 1).to_string(),
        )
    };
    Fold::of(&[entry(quotes.iter().map(quote).collect())], newest)
}

/// Open, high, low, close and count of the candle of an interval that opens at a second.
fn candle(fold: &Fold, interval: CandleInterval, second: i64) -> Option<[i64; 5]> {
    let interval = i16::try_from(i32::from(interval)).unwrap();
    let key = Key {
        symbol: "SOL_USDC".into(),
        interval,
        open_us: DAY_US + second * SECOND_US,
    };
    let whole = |price: Decimal| i64::try_from(price).unwrap();
    let it = fold.candles.get(&key)?;
    Some([
        whole(it.open),
        whole(it.high),
        whole(it.low),
        whole(it.close),
        it.quotes,
    ])
}

#[test]
fn a_quote_counts_in_every_interval_it_falls_into() {
    let at = 5 * 3600 + 17 * 60 + 42;
    let fold = fold(&mut Newest::default(), &[(at, 200), (at, 210), (at + 1, 190)]);
    for (interval, open) in [
        (CandleInterval::CandleInterval1m, 5 * 3600 + 17 * 60),
        (CandleInterval::CandleInterval5m, 5 * 3600 + 15 * 60),
        (CandleInterval::CandleInterval15m, 5 * 3600 + 15 * 60),
        (CandleInterval::CandleInterval1h, 5 * 3600),
        (CandleInterval::CandleInterval4h, 4 * 3600),
        (CandleInterval::CandleInterval1d, 0),
    ] {
        assert_eq!(
            candle(&fold, interval, open),
            Some([200, 210, 190, 190, 3]),
            "{interval:?}"
        );
    }
    assert_eq!(
        candle(&fold, CandleInterval::CandleInterval1s, at),
        Some([200, 210, 200, 210, 2])
    );
    assert_eq!(
        candle(&fold, CandleInterval::CandleInterval1s, at + 1),
        Some([190, 190, 190, 190, 1])
    );
    assert_eq!((fold.folded, fold.refused), (3, 0));
}

#[test]
fn a_mid_price_is_exact() {
    let fold = Fold::of(
        &[entry(vec![quote(DAY_US, "199.99", "200.02")])],
        &mut Newest::default(),
    );
    let prices: Vec<_> = fold.candles.values().map(|candle| candle.close.to_string()).collect();
    assert_eq!(prices, ["200.005"; 7]);
}

#[test]
fn a_bad_quote_is_refused() {
    let good = || quote(DAY_US, "199", "201");
    for (what, bad) in [
        (
            "no bid",
            VenueQuote {
                bid: String::new(),
                ..good()
            },
        ),
        (
            "no ask",
            VenueQuote {
                ask: String::new(),
                ..good()
            },
        ),
        (
            "zero",
            VenueQuote {
                bid: "0".into(),
                ..good()
            },
        ),
        (
            "negative",
            VenueQuote {
                bid: "-199".into(),
                ..good()
            },
        ),
        (
            "unreadable",
            VenueQuote {
                ask: "2.01e2".into(),
                ..good()
            },
        ),
        (
            "crossed",
            VenueQuote {
                bid: "202".into(),
                ..good()
            },
        ),
        (
            "locked",
            VenueQuote {
                bid: "201".into(),
                ..good()
            },
        ),
        (
            "no time",
            VenueQuote {
                venue_time_us: 0,
                ..good()
            },
        ),
        (
            "no symbol",
            VenueQuote {
                symbol: String::new(),
                ..good()
            },
        ),
        (
            "odd symbol",
            VenueQuote {
                symbol: "SOL\0".into(),
                ..good()
            },
        ),
        (
            "tomorrow",
            VenueQuote {
                venue_time_us: good().venue_time_us + 2 * 86_400_000_000,
                ..good()
            },
        ),
        (
            "never",
            VenueQuote {
                venue_time_us: u64::MAX,
                ..good()
            },
        ),
    ] {
        let mut newest = Newest::default();
        let fold = Fold::of(&[entry(vec![bad, good()])], &mut newest);
        assert_eq!((fold.folded, fold.refused), (1, 1), "{what}");
        assert!(
            !newest.is_late("SOL_USDC", DAY_US),
            "{what}: a quote that is refused makes none late"
        );
    }
}

#[test]
fn a_late_quote_widens_a_candle_and_does_not_close_it() {
    let mut newest = Newest::default();
    let minute = CandleInterval::CandleInterval1m;
    let together = fold(&mut newest.clone(), &[(10, 200), (50, 210), (30, 150), (61, 220)]);
    assert_eq!(candle(&together, minute, 0), Some([200, 210, 150, 210, 3]));

    // The same when it comes in a later batch: the store is told not to replace the close.
    fold(&mut newest, &[(10, 200), (50, 210)]);
    let later = fold(&mut newest, &[(30, 150)]);
    assert!(later.candles.values().all(|candle| candle.late));
    let after = fold(&mut newest, &[(30, 150), (51, 205)]);
    let key = after.candles.keys().find(|key| key.interval == 2).unwrap();
    assert!(!after.candles[key].late, "a quote in time closes it again");
    assert_eq!(candle(&after, minute, 0), Some([150, 205, 150, 205, 2]));
}

#[test]
fn what_the_table_knows_tells_a_late_quote_after_a_restart() {
    let mut newest = Newest::default();
    newest.start("SOL_USDC", DAY_US + 60 * SECOND_US);
    assert!(
        fold(&mut newest, &[(59, 200)])
            .candles
            .values()
            .all(|candle| candle.late)
    );
    assert!(
        fold(&mut newest, &[(60, 200)])
            .candles
            .values()
            .all(|candle| !candle.late)
    );
}

/// What the table does with a fold, on a map.
fn merge(table: &mut BTreeMap<Key, Candle>, fold: Fold) {
    for (key, next) in fold.candles {
        let Some(candle) = table.get_mut(&key) else {
            table.insert(key, next);
            continue;
        };
        candle.high = candle.high.max(next.high);
        candle.low = candle.low.min(next.low);
        candle.quotes += next.quotes;
        if !next.late {
            candle.close = next.close;
        }
    }
}

proptest! {
    #[test]
    fn candles_do_not_depend_on_how_the_stream_is_cut(
        quotes in prop::collection::vec((0_i64..200, 2_i64..1_000), 1..60),
        cuts in prop::collection::vec(1_usize..9, 60),
    ) {
        let (mut whole, mut cut) = (BTreeMap::new(), BTreeMap::new());
        merge(&mut whole, fold(&mut Newest::default(), &quotes));
        let (mut newest, mut rest) = (Newest::default(), quotes.as_slice());
        for size in cuts {
            let (part, after) = rest.split_at(size.min(rest.len()));
            merge(&mut cut, fold(&mut newest, part));
            rest = after;
        }
        merge(&mut cut, fold(&mut newest, rest));
        // Whether all quotes were late is about the fold, not the table.
        let columns = |table: BTreeMap<Key, Candle>| -> Vec<_> {
            table.into_iter().map(|(key, candle)| (key, Candle { late: false, ..candle })).collect()
        };
        prop_assert_eq!(columns(whole), columns(cut));
    }
}
