//! The venue and its poller: prices that walk, and what goes wrong with feeds.

use contracts::bus::{PriceBatch, VenueQuote};
use tokio_util::sync::CancellationToken;

use crate::coverage::Corner;
use crate::journal::wait;
use crate::world::{Inner, START_US, World};

/// What the venue does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Quotes come.
    #[default]
    Usual,
    /// None come.
    Frozen,
    /// Some are left out, numbers and all.
    Gap,
    /// The last batch comes again and again between the new ones.
    Repeats,
    /// A batch comes after the one that follows it.
    Reorders,
    /// One price is far off, once.
    Spike,
}

/// What is traded: symbol, first price in hundredths, decimals of its tick.
pub const SYMBOLS: [(&str, u64, u32); 3] = [
    ("BTC_USDC", 6_000_000, 1),
    ("ETH_USDC", 200_000, 2),
    ("SOL_USDC", 20_000, 2),
];

/// The venue's memory.
#[derive(Debug)]
struct Venue {
    /// In hundredths.
    prices: [u64; SYMBOLS.len()],
    update_id: u64,
    held_back: Option<PriceBatch>,
    last: PriceBatch,
}

/// Publishes until told to end.
pub async fn run(world: World, over: CancellationToken) {
    let mut venue = Venue {
        prices: SYMBOLS.map(|(_, price, _)| price),
        update_id: 0,
        held_back: None,
        last: PriceBatch::default(),
    };
    while !over.is_cancelled() {
        world.with(|inner| {
            for batch in venue.next(inner) {
                if !inner.redis_weather.is_away(inner.now_us) {
                    let now = inner.now_us;
                    inner.redis.publish_prices(batch, now);
                }
            }
        });
        world.price_bell().notify_waiters();
        let pause = world.with(|inner| inner.dice.between(100, 350));
        wait(pause).await;
    }
}

impl Venue {
    fn next(&mut self, inner: &mut Inner) -> Vec<PriceBatch> {
        let mood = inner.mood;
        if mood == Mood::Frozen {
            inner.coverage.visit(Corner::FeedFroze);
            return Vec::new();
        }
        let batch = self.batch(inner);
        if mood == Mood::Gap && inner.dice.chance(500) {
            inner.coverage.visit(Corner::FeedGap);
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.last, batch.clone());
        if let Some(held_back) = self.held_back.take() {
            inner.coverage.visit(Corner::FeedReordered);
            return vec![batch, held_back];
        }
        match mood {
            Mood::Repeats => {
                inner.coverage.visit(Corner::FeedRepeated);
                vec![before, batch]
            }
            Mood::Reorders => {
                self.held_back = Some(batch);
                Vec::new()
            }
            _ => vec![batch],
        }
    }

    fn batch(&mut self, inner: &mut Inner) -> PriceBatch {
        let now_us = START_US.unsigned_abs() + inner.now_us;
        let mut quotes = Vec::new();
        for (index, (symbol, first, decimals)) in SYMBOLS.iter().enumerate() {
            if inner.dice.chance(250) {
                continue;
            }
            let price = &mut self.prices[index];
            // Up to 0.4 % at once, and pulled back towards where it began, so that a run has both quiet and liquidations.
            let step = *price * inner.dice.between(0, 40) / 10_000;
            let up = if *price > *first {
                inner.dice.chance(450)
            } else {
                inner.dice.chance(550)
            };
            *price = if up { *price + step } else { *price - step };
            let mut shown = *price;
            if inner.mood == Mood::Spike {
                inner.coverage.visit(Corner::FeedSpike);
                inner.mood = Mood::Usual;
                shown = shown * 13 / 10;
            }
            self.update_id += 1;
            quotes.push(VenueQuote {
                symbol: (*symbol).to_owned(),
                bid: text(shown, *decimals),
                ask: text(shown + shown / 5_000 + 10, *decimals),
                venue_time_us: now_us - inner.dice.between(0, 80) * 1_000,
                update_id: self.update_id,
                ..VenueQuote::default()
            });
        }
        PriceBatch {
            quotes,
            source: "live".to_owned(),
            published_at_us: now_us,
            ..PriceBatch::default()
        }
    }
}

/// A price in hundredths as decimal text.
pub fn text(hundredths: u64, decimals: u32) -> String {
    let (whole, part) = (hundredths / 100, hundredths % 100);
    if decimals == 1 {
        format!("{whole}.{}", part / 10)
    } else {
        format!("{whole}.{part:02}")
    }
}
