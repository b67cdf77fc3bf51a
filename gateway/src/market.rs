//! `MarketService`: instruments, quotes and candles; and the price that a venue quote becomes here.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bus::Calls;
use contracts::bus::VenueQuote;
use contracts::bus::request::Command;
use contracts::v1::market_service_server::MarketService;
use contracts::v1::{
    Candle, CandleInterval, ErrorReason, GetInstrumentRequest, GetInstrumentResponse, GetQuoteRequest,
    GetQuoteResponse, Instrument, ListCandlesRequest, ListCandlesResponse, ListInstrumentsRequest,
    ListInstrumentsResponse, QuoteState, StreamQuotesRequest, StreamQuotesResponse,
};
use rust_decimal::Decimal;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::auth::Scope;
use crate::failure::Failure;
use crate::history::Candles;
use crate::page::{self, Filter, Position};
use crate::room::{Call, Room};
use crate::stream::{self, Messages};
use crate::validate::{self, Checks};

/// How long a list of instruments is believed.
const LISTING_AGE_MAX: Duration = Duration::from_secs(1);
/// Largest price, in ticks: past it the engine takes no quote.
const PRICE_TICKS_MAX: u64 = 1_000_000_000_000;

/// The service.
pub(crate) struct Markets<C>(pub Arc<Room<C>>);

#[tonic::async_trait]
impl<C: Calls> MarketService for Markets<C> {
    async fn list_instruments(
        &self,
        request: Request<ListInstrumentsRequest>,
    ) -> Result<Response<ListInstrumentsResponse>, Status> {
        let call = Call::of(&request, Scope::View)?;
        let listing = self.0.listing(&call).await?;
        Ok(Response::new(ListInstrumentsResponse {
            instruments: listing.instruments.clone(),
        }))
    }

    async fn get_instrument(
        &self,
        request: Request<GetInstrumentRequest>,
    ) -> Result<Response<GetInstrumentResponse>, Status> {
        let call = Call::of(&request, Scope::View)?;
        let symbol = request.into_inner().symbol;
        let mut checks = Checks::new(&call.identity);
        checks.symbol("symbol", &symbol);
        checks.finish(None)?;
        let listing = self.0.listing(&call).await?;
        let instrument = listing.instruments.iter().find(|it| it.symbol == symbol).cloned();
        Ok(Response::new(GetInstrumentResponse {
            instrument: Some(instrument.ok_or_else(|| unknown(&symbol))?),
        }))
    }

    async fn get_quote(&self, request: Request<GetQuoteRequest>) -> Result<Response<GetQuoteResponse>, Status> {
        let call = Call::of(&request, Scope::View)?;
        let it = request.into_inner();
        let mut checks = Checks::new(&call.identity);
        checks.symbol("symbol", &it.symbol);
        checks.finish(None)?;
        let answer = self.0.read(&call, "", 0, Command::GetQuote(it)).await?;
        Ok(Response::new(answer.message))
    }

    type StreamQuotesStream = Messages<StreamQuotesResponse>;

    async fn stream_quotes(
        &self,
        request: Request<StreamQuotesRequest>,
    ) -> Result<Response<Self::StreamQuotesStream>, Status> {
        let call = Call::of(&request, Scope::View)?;
        let it = request.into_inner();
        let interval = validate::stream_quotes(&call.identity, &it)?;
        Ok(Response::new(stream::quotes::open(
            Arc::clone(&self.0),
            call,
            it.symbols,
            interval,
        )?))
    }

    async fn list_candles(
        &self,
        request: Request<ListCandlesRequest>,
    ) -> Result<Response<ListCandlesResponse>, Status> {
        let call = Call::of(&request, Scope::View)?;
        Ok(Response::new(self.candles(&call, request.into_inner()).await?))
    }
}

impl<C: Calls> Markets<C> {
    async fn candles(&self, call: &Call, it: ListCandlesRequest) -> Result<ListCandlesResponse, Failure> {
        let mut checks = Checks::new(&call.identity);
        checks.symbol("symbol", &it.symbol);
        if !CandleInterval::try_from(it.interval).is_ok_and(|it| it != CandleInterval::Unspecified) {
            checks.fail("interval", "is required: CANDLE_INTERVAL_1S to CANDLE_INTERVAL_1D");
        }
        let start_us = checks.time("start_time", it.start_time);
        let end_us = checks.time("end_time", it.end_time);
        if let (Some(start), Some(end)) = (start_us, end_us)
            && start >= end
        {
            checks.fail("end_time", "must be after start_time");
        }
        let size = checks.page(it.page_size, &it.page_token);
        checks.finish(None)?;
        let text = |time: Option<i64>| time.map(|it| it.to_string()).unwrap_or_default();
        let filter = Filter::of(
            "candles",
            &[&it.symbol, &it.interval.to_string(), &text(start_us), &text(end_us)],
        );
        let after = filter.position(&it.page_token)?;
        // Past the last candle of the page before. Only a list with a start has further pages.
        let from = after.map(|after| i64::try_from(after.major).unwrap_or(i64::MAX).saturating_add(1));

        let listing = self.0.listing(call).await?;
        listing.terms.get(&it.symbol).ok_or_else(|| unknown(&it.symbol))?;
        let wanted = Candles {
            symbol: &it.symbol,
            interval: it.interval,
            start_us: from.or(start_us),
            end_us,
            limit: size + usize::from(start_us.is_some()),
        };
        let rows = self.0.history.candles(&wanted).await?;
        let (candles, next_page_token) = page::cut(rows, size, filter, opened);
        Ok(ListCandlesResponse {
            candles,
            next_page_token,
        })
    }
}

fn opened(candle: &Candle) -> Position {
    let micros = candle
        .open_time
        .map_or(0, |it| it.seconds * 1_000_000 + i64::from(it.nanos) / 1_000);
    Position::of(u64::try_from(micros).unwrap_or_default(), 0)
}

/// There is no such instrument.
pub(crate) fn unknown(symbol: &str) -> Failure {
    let message = format!("{symbol} is not an instrument here: list the instruments to see which are");
    Failure::refused(ErrorReason::SymbolUnknown, message)
}

/// The instruments, as last heard from the engine.
#[derive(Default)]
pub(crate) struct Instruments {
    /// One asks at a time; the others wait for what it hears.
    asking: tokio::sync::Mutex<()>,
    heard: RwLock<Option<(Instant, Arc<Listing>)>>,
}

impl Instruments {
    /// What was heard last, however old.
    pub fn last(&self) -> Option<Arc<Listing>> {
        self.heard.read().ok()?.as_ref().map(|(_, listing)| Arc::clone(listing))
    }

    fn fresh(&self) -> Option<Arc<Listing>> {
        let heard = self.heard.read().ok()?;
        heard
            .as_ref()
            .filter(|(at, _)| at.elapsed() < LISTING_AGE_MAX)
            .map(|(_, listing)| Arc::clone(listing))
    }
}

/// Instruments, and their terms as numbers.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// By symbol.
    pub instruments: Vec<Instrument>,
    /// Of those whose terms make sense.
    pub terms: HashMap<String, Terms>,
}

impl From<Vec<Instrument>> for Listing {
    fn from(instruments: Vec<Instrument>) -> Self {
        let terms = instruments
            .iter()
            .filter_map(|it| Some((it.symbol.clone(), Terms::of(it)?)))
            .collect();
        Self { instruments, terms }
    }
}

impl<C: Calls> Room<C> {
    /// The instruments, not older than a second.
    pub async fn listing(&self, call: &Call) -> Result<Arc<Listing>, Failure> {
        if let Some(fresh) = self.instruments.fresh() {
            return Ok(fresh);
        }
        let _asking = self.instruments.asking.lock().await;
        if let Some(fresh) = self.instruments.fresh() {
            return Ok(fresh);
        }
        let answer = self
            .read(call, "", 0, Command::ListInstruments(ListInstrumentsRequest {}))
            .await?;
        let ListInstrumentsResponse { instruments } = answer.message;
        let listing = Arc::new(Listing::from(instruments));
        if let Ok(mut heard) = self.instruments.heard.write() {
            *heard = Some((Instant::now(), Arc::clone(&listing)));
        }
        Ok(listing)
    }
}

/// What a venue quote needs to become one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    tick: Decimal,
    spread_markup_bps: u32,
    soft_us: u64,
    hard_us: u64,
}

impl Terms {
    fn of(it: &Instrument) -> Option<Self> {
        let micros = |age: Option<prost_types::Duration>| {
            Duration::try_from(age?)
                .ok()
                .and_then(|age| u64::try_from(age.as_micros()).ok())
        };
        let tick = it.tick_size.parse().ok().filter(|tick| *tick > Decimal::ZERO)?;
        Some(Self {
            tick,
            spread_markup_bps: it.spread_markup_bps,
            soft_us: micros(it.stale_soft_age)?,
            hard_us: micros(it.stale_hard_age)?,
        })
    }

    /// The price we trade at, as text: the venue's with half the markup on each side, brought onto the tick grid
    /// against the client.
    ///
    /// bid = floor(venue bid × (1 − markup / 20,000)), ask = ceil(venue ask × (1 + markup / 20,000)), in ticks: the
    /// same as the engine's, so that a client sees what it would be filled at.
    pub fn tradable(&self, venue: &Prices) -> Option<(String, String)> {
        let half = Decimal::from(self.spread_markup_bps).checked_div(Decimal::from(20_000))?;
        let bid = venue.bid.checked_mul(Decimal::ONE.checked_sub(half)?)?;
        let ask = venue.ask.checked_mul(Decimal::ONE.checked_add(half)?)?;
        // Remainders are exact where a quotient would be rounded.
        let (below, above) = (bid.checked_rem(self.tick)?, ask.checked_rem(self.tick)?);
        let bid = bid.checked_sub(below)?;
        let ask = if above.is_zero() {
            ask
        } else {
            ask.checked_sub(above)?.checked_add(self.tick)?
        };
        let range = self.tick..=self.tick.checked_mul(Decimal::from(PRICE_TICKS_MAX))?;
        (range.contains(&bid) && range.contains(&ask)).then(|| (self.text(bid), self.text(ask)))
    }

    /// A price with all decimals of the tick.
    fn text(&self, price: Decimal) -> String {
        let mut shown = price.normalize();
        shown.rescale(shown.scale().max(self.tick.normalize().scale()));
        shown.to_string()
    }

    /// How long until a quote of that time is less current than now; nothing when it cannot become so.
    pub fn ages_in(&self, venue_time_us: u64, now_us: u64) -> Option<Duration> {
        let next = |age_us: u64| {
            venue_time_us
                .saturating_add(age_us)
                .saturating_add(1)
                .checked_sub(now_us)
        };
        let steps = [next(self.soft_us), next(self.hard_us)];
        steps
            .into_iter()
            .flatten()
            .filter(|left| *left > 0)
            .min()
            .map(Duration::from_micros)
    }

    /// How current a quote of that time is.
    pub fn state(&self, venue_time_us: u64, now_us: u64) -> QuoteState {
        let age = now_us.saturating_sub(venue_time_us);
        if age > self.hard_us {
            QuoteState::Halted
        } else if age > self.soft_us {
            QuoteState::Stale
        } else {
            QuoteState::Fresh
        }
    }
}

/// A venue quote that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prices {
    /// What the venue's best buyer pays.
    pub bid: Decimal,
    /// What its best seller asks.
    pub ask: Decimal,
}

impl Prices {
    /// Nothing for a side that is missing, zero or negative, and for a crossed quote.
    pub fn of(quote: &VenueQuote) -> Option<Self> {
        let price = |text: &str| text.parse::<Decimal>().ok().filter(|price| *price > Decimal::ZERO);
        let it = Self {
            bid: price(&quote.bid)?,
            ask: price(&quote.ask)?,
        };
        (it.bid < it.ask).then_some(it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(tick: &str, spread_markup_bps: u32) -> Terms {
        Terms {
            tick: tick.parse().unwrap(),
            spread_markup_bps,
            soft_us: 5_000_000,
            hard_us: 30_000_000,
        }
    }

    fn prices(bid: &str, ask: &str) -> Option<Prices> {
        Prices::of(&VenueQuote {
            bid: bid.into(),
            ask: ask.into(),
            ..Default::default()
        })
    }

    #[test]
    fn a_venue_quote_gets_half_the_markup_on_each_side_and_moves_onto_the_grid_against_the_client() {
        for (tick, markup, venue, ours) in [
            ("0.01", 0, ("200", "200.02"), ("200.00", "200.02")),
            ("0.01", 0, ("200.009", "200.011"), ("200.00", "200.02")),
            ("0.01", 10, ("200", "200.02"), ("199.90", "200.13")),
            ("0.05", 0, ("1.0499999", "1.0500001"), ("1.00", "1.10")),
            ("5", 0, ("104", "106"), ("100", "110")),
        ] {
            let got = terms(tick, markup).tradable(&prices(venue.0, venue.1).unwrap());
            assert_eq!(
                got,
                Some((ours.0.to_owned(), ours.1.to_owned())),
                "{venue:?} at {tick} + {markup}"
            );
        }
        assert_eq!(
            terms("1", 0).tradable(&prices("0.5", "2").unwrap()),
            None,
            "less than a tick of bid"
        );
    }

    #[test]
    fn bad_quotes_are_no_quotes() {
        for (bid, ask) in [
            ("", "1"),
            ("1", ""),
            ("0", "1"),
            ("-1", "1"),
            ("2", "1"),
            ("1", "1"),
            ("x", "1"),
            ("NaN", "1"),
        ] {
            assert_eq!(prices(bid, ask), None, "{bid}/{ask}");
        }
    }

    #[test]
    fn a_quote_ages_from_fresh_to_stale_to_halted() {
        let terms = terms("0.01", 0);
        let state = |age_us: u64| terms.state(100_000_000, 100_000_000 + age_us);
        assert_eq!(state(0), QuoteState::Fresh);
        assert_eq!(state(5_000_000), QuoteState::Fresh);
        assert_eq!(state(5_000_001), QuoteState::Stale);
        assert_eq!(state(30_000_001), QuoteState::Halted);
        assert_eq!(terms.state(2, 1), QuoteState::Fresh, "a venue's clock may be ahead");
        // And is looked at again when it changes, not before and not for nothing.
        for (age_us, changes) in [
            (0, true),
            (4_999_999, true),
            (5_000_001, true),
            (30_000_000, true),
            (30_000_001, false),
        ] {
            let now_us = 100_000_000 + age_us;
            let then = terms
                .ages_in(100_000_000, now_us)
                .map(|it| u64::try_from(it.as_micros()).unwrap());
            assert_eq!(then.is_some(), changes, "{age_us}");
            if let Some(then) = then {
                assert_ne!(terms.state(100_000_000, now_us + then), state(age_us), "{age_us}");
                assert_eq!(terms.state(100_000_000, now_us + then - 1), state(age_us), "{age_us}");
            }
        }
    }
}
