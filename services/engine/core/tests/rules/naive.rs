//! The rules a second time: integers, plain lists, and a look at every open trade on every quote.
//!
//! Slow and obvious on purpose. Nothing is shared with the core: a price is a count of ticks, a quantity a count of
//! steps, money a count of cents, and whether a trade is liquidated is read off the definition, not off a price that
//! was worked out when it opened. Only instruments with a power of ten as tick and as step are modelled.

#![allow(clippy::result_large_err)]

use engine_core::{Instrument, Refusal, Side, TradingMode};

/// A trade as the naive model knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trade {
    pub id: u64,
    pub account: usize,
    pub symbol: usize,
    pub side: Side,
    pub quantity: i128,
    pub entry: i128,
    pub margin: i128,
    pub stop_loss: Option<i128>,
    pub take_profit: Option<i128>,
    pub maintenance_ppm: i128,
}

/// A closing, in the same numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    pub trade: u64,
    pub reason: &'static str,
    pub quantity: i128,
    pub price: i128,
    pub released: i128,
    pub profit: i128,
    pub commission: i128,
    pub covered: i128,
    pub left: (i128, i128),
}

/// What a command or quote came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Opened(Trade, i128),
    Modified(u64, i128, Option<i128>, Option<i128>),
    Closed(Closing),
    Moved(i128),
    /// The reason, and the field when it is one field's fault.
    Refused(&'static str, &'static str),
}

/// Terms of one instrument, in integers.
#[derive(Clone, Debug)]
pub struct Terms {
    pub price_scale: u32,
    pub quantity_scale: u32,
    pub quantity_min: i128,
    pub quantity_max: i128,
    pub margin_min: i128,
    pub markup_bps: i128,
    pub maintenance_ppm: i128,
    pub commission_ppm: i128,
    pub soft_us: i64,
    pub hard_us: i64,
    pub band_bps: i128,
    pub exposure_max: i128,
    pub mode: TradingMode,
}

impl Terms {
    /// The same terms in integers.
    pub fn of(it: &Instrument) -> Terms {
        let (price_scale, quantity_scale) = (it.tick.get().scale(), it.step.get().scale());
        assert!(
            it.tick.get().mantissa() == 1 && it.step.get().mantissa() == 1,
            "powers of ten only"
        );
        Terms {
            price_scale,
            quantity_scale,
            quantity_min: scaled(it.quantity_min.get(), quantity_scale),
            quantity_max: scaled(it.quantity_max.get(), quantity_scale),
            margin_min: scaled(it.margin_min.get(), 2),
            markup_bps: it.spread_markup_bps.into(),
            maintenance_ppm: scaled(it.maintenance_rate.get(), 6),
            commission_ppm: scaled(it.commission_rate.get(), 6),
            soft_us: it.stale_soft_us,
            hard_us: it.stale_hard_us,
            band_bps: it.band_bps.into(),
            exposure_max: scaled(it.exposure_max.get(), 2),
            mode: it.mode,
        }
    }

    /// Cents of `value`, which is in ticks × steps, times `factor ÷ divisor`; half to even.
    fn cents(&self, value: i128, factor: i128, divisor: i128) -> i128 {
        half_even(
            value * factor * 100,
            10_i128.pow(self.price_scale + self.quantity_scale) * divisor,
        )
    }
}

/// A decimal as a count of units of `10^-scale`; it must be a whole number of them.
pub fn scaled(value: rust_decimal::Decimal, scale: u32) -> i128 {
    let up = 10_i128.pow(scale);
    let down = 10_i128.pow(value.scale());
    assert_eq!(
        value.mantissa() * up % down,
        0,
        "{value} has more than {scale} decimals"
    );
    value.mantissa() * up / down
}

fn half_even(top: i128, bottom: i128) -> i128 {
    let (whole, rest) = (top.div_euclid(bottom), top.rem_euclid(bottom));
    match (rest * 2).cmp(&bottom) {
        std::cmp::Ordering::Less => whole,
        std::cmp::Ordering::Greater => whole + 1,
        std::cmp::Ordering::Equal => whole + whole.rem_euclid(2),
    }
}

#[derive(Clone, Debug)]
struct Feed {
    /// Venue bid and ask, in hundredths of a tick, and when.
    venue: (i128, i128),
    time: i64,
    seen: (i64, u64),
    pending: Option<((i128, i128), i64)>,
    agreeing: u32,
    recovering: bool,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct Naive {
    pub terms: Vec<Terms>,
    feeds: Vec<Option<Feed>>,
    /// Free cash, in cents; `None` has no wallet.
    pub free: Vec<Option<i128>>,
    closed: Vec<Vec<u64>>,
    pub trades: Vec<Trade>,
    opened: u64,
    pub house: i128,
    pub fee: i128,
    pub cash: i128,
}

/// An order to open, in the same numbers.
#[derive(Clone, Debug)]
pub struct Open {
    pub account: usize,
    pub symbol: usize,
    pub side: Side,
    /// Cents of margin, or else steps of quantity.
    pub margin: Option<i128>,
    pub quantity: i128,
    pub leverage: i128,
    pub stop_loss: Option<i128>,
    pub take_profit: Option<i128>,
    /// Expected price in ticks, and bps.
    pub slippage: Option<(i128, i128)>,
}

impl Naive {
    pub fn new(terms: Vec<Terms>, accounts: usize) -> Naive {
        let feeds = terms.iter().map(|_| None).collect();
        Naive {
            terms,
            feeds,
            free: vec![None; accounts],
            closed: vec![Vec::new(); accounts],
            ..Naive::default()
        }
    }

    /// A new process knows no quotes.
    pub fn forget(&mut self) {
        self.feeds.fill(None);
    }

    pub fn wallet(&mut self, account: usize) {
        if self.free[account].is_none() {
            self.free[account] = Some(500_000);
            self.cash -= 500_000;
        }
    }

    /// In when positive, out when negative.
    pub fn transfer(&mut self, account: usize, cents: i128) -> Outcome {
        let Some(free) = &mut self.free[account] else {
            return Outcome::Refused("ACCOUNT_NOT_FOUND", "");
        };
        if *free + cents < 0 {
            return Outcome::Refused("INSUFFICIENT_FUNDS", "");
        }
        *free += cents;
        self.cash -= cents;
        Outcome::Moved(cents)
    }

    /// Bid and ask in ticks, marked up and outward.
    fn prices(&self, symbol: usize, venue: (i128, i128)) -> (i128, i128) {
        let markup = self.terms[symbol].markup_bps;
        let bid = (venue.0 * (20_000 - markup)).div_euclid(100 * 20_000);
        let ask = -(-venue.1 * (20_000 + markup)).div_euclid(100 * 20_000);
        (bid, ask)
    }

    /// Takes in a venue quote in hundredths of a tick; says whether it is the price now.
    pub fn observe(&mut self, at: i64, symbol: usize, venue: (i128, i128), time: i64, id: u64) -> bool {
        let (band, hard) = (self.terms[symbol].band_bps, self.terms[symbol].hard_us);
        if venue.0 >= venue.1 || time - at > 2_000_000 || at - time > hard || self.prices(symbol, venue).0 < 1 {
            return false;
        }
        let beyond = |before: (i128, i128)| {
            let far = |a: i128, b: i128| (b - a).abs() * 10_000 > a * band;
            far(before.0, venue.0) || far(before.1, venue.1)
        };
        let Some(feed) = &mut self.feeds[symbol] else {
            let seen = (time, id);
            self.feeds[symbol] = Some(Feed {
                venue,
                time,
                seen,
                pending: None,
                agreeing: 1,
                recovering: false,
            });
            return true;
        };
        if at - feed.seen.0 > hard {
            feed.pending = None;
        } else if id <= feed.seen.1 || time < feed.seen.0 {
            return false;
        }
        feed.seen = (time, id);
        let confirms = feed.pending.take().is_some_and(|(first, _)| !beyond(first));
        if beyond(feed.venue) && !confirms {
            feed.pending = Some((venue, time));
            return false;
        }
        if at - feed.time > hard {
            feed.agreeing = 0;
            feed.recovering = true;
        }
        feed.agreeing = if confirms { 2 } else { feed.agreeing + 1 };
        if feed.agreeing >= 2 {
            feed.recovering = false;
        }
        (feed.venue, feed.time) = (venue, time);
        true
    }

    /// The prices if they are good enough under an age limit, or the refusal.
    fn usable(&self, at: i64, symbol: usize, limit: i64) -> Result<(i128, i128), Outcome> {
        match &self.feeds[symbol] {
            Some(feed) if (at - feed.time).max(0) <= limit && feed.pending.is_none() && !feed.recovering => {
                Ok(self.prices(symbol, feed.venue))
            }
            _ => Err(Outcome::Refused("STALE_PRICE", "")),
        }
    }

    /// The definition: what is left of the margin is no more than what must be.
    pub fn is_dead(&self, trade: &Trade, price: i128) -> bool {
        let terms = &self.terms[trade.symbol];
        let cent = 10_i128.pow(terms.price_scale + terms.quantity_scale) / 100;
        let left = trade.margin * cent + sign(trade.side) * (price - trade.entry) * trade.quantity;
        left * 1_000_000 <= trade.maintenance_ppm * trade.quantity * price
    }

    /// Looks at every open trade; the order is stop-losses, take-profits, liquidations, each by number.
    pub fn fire(&mut self, at: i64, symbol: usize) -> Vec<Outcome> {
        let settled = self.feeds[symbol].as_ref().is_some_and(|feed| feed.agreeing >= 2);
        let usable = self.usable(at, symbol, self.terms[symbol].hard_us);
        let (Ok(prices), true, true) = (usable, settled, self.terms[symbol].mode != TradingMode::Halted) else {
            return Vec::new();
        };
        let mut fired = Vec::new();
        for trade in self.trades.iter().filter(|trade| trade.symbol == symbol) {
            let (sign, price) = (sign(trade.side), closing_price(trade.side, prices));
            if trade.stop_loss.is_some_and(|stop| sign * (price - stop) <= 0) {
                fired.push((0, trade.id));
            } else if trade.take_profit.is_some_and(|take| sign * (price - take) >= 0) {
                fired.push((1, trade.id));
            } else if self.is_dead(trade, price) {
                fired.push((2, trade.id));
            }
        }
        fired.sort_unstable();
        let reasons = ["stop-loss", "take-profit", "liquidation"];
        fired
            .into_iter()
            .map(|(kind, id)| self.settle(id, reasons[kind], None, prices))
            .collect()
    }

    pub fn open(&mut self, at: i64, order: &Open) -> Outcome {
        let invalid = |field| Outcome::Refused("INVALID_ARGUMENT", field);
        let Some(free) = self.free[order.account] else {
            return Outcome::Refused("ACCOUNT_NOT_FOUND", "");
        };
        let terms = &self.terms[order.symbol];
        if !(1..=100).contains(&order.leverage) {
            return invalid("leverage");
        }
        match order.margin {
            Some(margin) if margin <= 0 => return invalid("margin"),
            None if !(terms.quantity_min..=terms.quantity_max).contains(&order.quantity) => return invalid("quantity"),
            _ => {}
        }
        if terms.mode != TradingMode::Enabled {
            return Outcome::Refused("MARKET_CLOSED", "");
        }
        let prices = match self.usable(at, order.symbol, terms.soft_us) {
            Ok(prices) => prices,
            Err(refusal) => return refusal,
        };
        let sign = sign(order.side);
        let entry = if order.side == Side::Long { prices.1 } else { prices.0 };
        if let Some((expected, bps)) = order.slippage
            && sign * (entry - expected) * 10_000 > bps * expected
        {
            return Outcome::Refused("PRICE_MOVED", "");
        }
        let unit = 10_i128.pow(terms.price_scale + terms.quantity_scale);
        let (quantity, margin) = match order.margin {
            Some(margin) => {
                let quantity = (margin * order.leverage * unit).div_euclid(100 * entry);
                if !(terms.quantity_min..=terms.quantity_max).contains(&quantity) {
                    return invalid("margin");
                }
                (quantity, margin)
            }
            None => (order.quantity, terms.cents(order.quantity * entry, 1, order.leverage)),
        };
        if margin < terms.margin_min {
            return invalid(if order.margin.is_some() { "margin" } else { "quantity" });
        }
        let mine = self
            .trades
            .iter()
            .filter(|it| it.account == order.account && it.symbol == order.symbol);
        let held: i128 = mine.map(|it| it.quantity * it.entry).sum();
        if (held + quantity * entry) * 100 > terms.exposure_max * unit {
            return Outcome::Refused("MAX_EXPOSURE_REACHED", "");
        }
        let trade = Trade {
            id: self.opened + 1,
            account: order.account,
            symbol: order.symbol,
            side: order.side,
            quantity,
            entry,
            margin,
            stop_loss: order.stop_loss,
            take_profit: order.take_profit,
            maintenance_ppm: terms.maintenance_ppm,
        };
        let price = closing_price(order.side, prices);
        if self.is_dead(&trade, price) {
            return invalid("leverage");
        }
        if let Some(field) = self.wrong_stop(&trade, order.stop_loss, order.take_profit, price) {
            return invalid(field);
        }
        let fee = terms.cents(quantity * entry, terms.commission_ppm, 1_000_000);
        if margin + fee > free {
            return Outcome::Refused("INSUFFICIENT_MARGIN", "");
        }
        self.free[order.account] = Some(free - margin - fee);
        self.fee += fee;
        self.opened += 1;
        self.trades.push(trade.clone());
        Outcome::Opened(trade, fee)
    }

    /// The field that would fire at once, or never.
    fn wrong_stop(&self, trade: &Trade, stop: Option<i128>, take: Option<i128>, price: i128) -> Option<&'static str> {
        let sign = sign(trade.side);
        let at_once = stop.is_some_and(|stop| sign * (price - stop) <= 0);
        // Never: dead one tick before the stop-loss is reached.
        let never = stop.is_some_and(|stop| self.is_dead(trade, stop + sign));
        if at_once || never {
            return Some("stop_loss");
        }
        take.is_some_and(|take| sign * (price - take) >= 0)
            .then_some("take_profit")
    }

    fn find(&self, account: usize, id: u64) -> Result<usize, Outcome> {
        if self.free[account].is_none() {
            return Err(Outcome::Refused("ACCOUNT_NOT_FOUND", ""));
        }
        let open = self.trades.iter().position(|it| it.id == id && it.account == account);
        open.ok_or_else(|| {
            let closed = self.closed[account].iter().rev().take(16).any(|closed| *closed == id);
            Outcome::Refused(if closed { "TRADE_CLOSED" } else { "TRADE_NOT_FOUND" }, "")
        })
    }

    /// Closes a quantity, or all of it.
    pub fn close(&mut self, at: i64, account: usize, id: u64, part: Option<i128>, percent: bool) -> Outcome {
        let place = match self.find(account, id) {
            Ok(place) => place,
            Err(refusal) => return refusal,
        };
        let (open, symbol) = (self.trades[place].quantity, self.trades[place].symbol);
        let terms = &self.terms[symbol];
        if let Some(part) = part.filter(|part| *part != open) {
            let rest = open - part;
            if part < terms.quantity_min || rest < terms.quantity_min {
                return Outcome::Refused("INVALID_ARGUMENT", if percent { "percent" } else { "quantity" });
            }
        }
        if terms.mode == TradingMode::Halted {
            return Outcome::Refused("MARKET_CLOSED", "");
        }
        let prices = match self.usable(at, symbol, terms.hard_us) {
            Ok(prices) => prices,
            Err(refusal) => return refusal,
        };
        let before = self.clone();
        let outcome = self.settle(id, "client", part, prices);
        if matches!(&outcome, Outcome::Closed(it) if it.left.0 > 0 && it.left.1 <= 0) {
            *self = before;
            return Outcome::Refused("INVALID_ARGUMENT", "portion");
        }
        outcome
    }

    fn settle(&mut self, id: u64, reason: &'static str, part: Option<i128>, prices: (i128, i128)) -> Outcome {
        let place = self.trades.iter().position(|it| it.id == id).expect("it is open");
        let trade = self.trades[place].clone();
        let terms = &self.terms[trade.symbol];
        let quantity = part.unwrap_or(trade.quantity);
        let price = closing_price(trade.side, prices);
        let gross = terms.cents(sign(trade.side) * (price - trade.entry) * quantity, 1, 1);
        let left = trade.quantity - quantity;
        let mut released = if left == 0 {
            trade.margin
        } else {
            half_even(trade.margin * quantity, trade.quantity)
        };
        released += (-(released + gross)).clamp(0, trade.margin - released);
        let worth = released + gross;
        let covered = (-worth).max(0);
        let commission = terms
            .cents(price * quantity, terms.commission_ppm, 1_000_000)
            .min(worth.max(0));
        let paid = worth.max(0) - commission;
        *self.free[trade.account].as_mut().expect("it has a wallet") += paid;
        self.house -= gross + covered;
        self.fee += commission;
        if left == 0 {
            self.trades.remove(place);
            self.closed[trade.account].push(id);
        } else {
            self.trades[place].quantity = left;
            self.trades[place].margin = trade.margin - released;
        }
        let profit = paid - released;
        let left = (left, trade.margin - released);
        Outcome::Closed(Closing {
            trade: id,
            reason,
            quantity,
            price,
            released,
            profit,
            commission,
            covered,
            left,
        })
    }

    /// `Some(None)` takes a stop away, `None` keeps it.
    pub fn modify(
        &mut self,
        at: i64,
        account: usize,
        id: u64,
        stop: Option<Option<i128>>,
        take: Option<Option<i128>>,
        add: Option<i128>,
    ) -> Outcome {
        let invalid = |field| Outcome::Refused("INVALID_ARGUMENT", field);
        let place = match self.find(account, id) {
            Ok(place) => place,
            Err(refusal) => return refusal,
        };
        if stop.is_none() && take.is_none() && add.is_none() {
            return invalid("trade");
        }
        if add.is_some_and(|add| add <= 0) {
            return invalid("add_margin");
        }
        let (added, free) = (add.unwrap_or(0), self.free[account].expect("it was found"));
        if added > free {
            return Outcome::Refused("INSUFFICIENT_MARGIN", "");
        }
        let mut trade = self.trades[place].clone();
        trade.margin += added;
        if stop.flatten().is_some() || take.flatten().is_some() {
            let prices = match self.usable(at, trade.symbol, self.terms[trade.symbol].hard_us) {
                Ok(prices) => prices,
                Err(refusal) => return refusal,
            };
            let price = closing_price(trade.side, prices);
            if let Some(field) = self.wrong_stop(&trade, stop.flatten(), take.flatten(), price) {
                return invalid(field);
            }
        }
        trade.stop_loss = stop.unwrap_or(trade.stop_loss);
        trade.take_profit = take.unwrap_or(trade.take_profit);
        self.free[account] = Some(free - added);
        self.trades[place] = trade.clone();
        Outcome::Modified(id, trade.margin, trade.stop_loss, trade.take_profit)
    }
}

fn sign(side: Side) -> i128 {
    match side {
        Side::Long => 1,
        Side::Short => -1,
    }
}

fn closing_price(side: Side, (bid, ask): (i128, i128)) -> i128 {
    match side {
        Side::Long => bid,
        Side::Short => ask,
    }
}

/// A refusal of the core in the model's words.
pub fn refused(refusal: &Refusal) -> Outcome {
    let field = match refusal {
        Refusal::Invalid { field, .. } => field,
        _ => "",
    };
    Outcome::Refused(refusal.reason(), field)
}
