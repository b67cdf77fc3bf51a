//! What can be traded and under which rules.

use std::fmt;

use rust_decimal::Decimal;

use crate::currency;
use crate::grid;
use crate::ids::{Currency, Symbol};
use crate::money::{Leverage, Money, Price, Quantity, Rate};
use crate::refusal::{InvalidProblem, Refusal};

/// Most decimals of a tick; with those of a step they must fit into one exact product.
const TICK_SCALE_MAX: u32 = 12;
/// Most decimals of a quantity step.
const STEP_SCALE_MAX: u32 = 10;
/// Most decimals of a maintenance or commission rate.
const RATE_SCALE_MAX: u32 = 6;
/// Most that the digits of tick and step may multiply to: the largest notional then fits 28 digits exactly.
const UNIT_MAX: i128 = 1_000_000;
/// A markup or band of 10,000 bps is 100 %; half of a markup must leave a bid.
const MARKUP_BPS_MAX: u32 = 10_000;

/// One instrument and its parameters. Changing one is an event like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instrument {
    /// Its name, as the venue's feed writes it.
    pub symbol: Symbol,
    /// What is bought and sold.
    pub base: Currency,
    /// What it is paid in, and what margin, profit and commission are in: a currency of the catalogue.
    pub quote: Currency,
    /// Prices we trade at are multiples of this.
    pub tick: Price,
    /// Quantities are multiples of this.
    pub step: Quantity,
    /// Least quantity of a trade, of a partial close, and of what it leaves open.
    pub quantity_min: Quantity,
    /// Most quantity of a trade.
    pub quantity_max: Quantity,
    /// Least leverage.
    pub leverage_min: Leverage,
    /// Most leverage.
    pub leverage_max: Leverage,
    /// Leverage is a multiple of this.
    pub leverage_step: Leverage,
    /// Least margin of a trade, in the quote currency.
    pub margin_min: Money,
    /// Added to the venue's spread, in hundredths of a percent of the price, half on each side.
    pub spread_markup_bps: u32,
    /// Margin left over notional at which a trade is liquidated, below one. Zero liquidates when all is lost.
    pub maintenance_rate: Rate,
    /// Charged on the notional at the open and again at the close, below one.
    pub commission_rate: Rate,
    /// A price older than this, in microseconds, opens nothing.
    pub stale_soft_us: i64,
    /// A price older than this, in microseconds, closes and triggers nothing either.
    pub stale_hard_us: i64,
    /// A quote that jumps by more than this, in hundredths of a percent, waits for a second one to confirm it.
    pub band_bps: u32,
    /// Most open notional of one account in this instrument, in the quote currency.
    pub exposure_max: Money,
    /// What is allowed right now.
    pub mode: TradingMode,
}

/// What an instrument allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TradingMode {
    /// Everything.
    Enabled,
    /// Closing, by hand or by trigger, but no opening.
    CloseOnly,
    /// Neither, and no trigger fires.
    Halted,
}

impl fmt::Display for TradingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            TradingMode::Enabled => "enabled",
            TradingMode::CloseOnly => "close-only",
            TradingMode::Halted => "halted",
        })
    }
}

impl Instrument {
    /// Holds the parameters against each other, so that every later calculation with them is exact and ends.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let exponent = currency::exponent(&self.quote).ok_or_else(|| Refusal::CurrencyUnknown {
            currency: self.quote.clone(),
        })?;
        let invalid = |field, problem| Err(Refusal::Invalid { field, problem });
        let scale = |value: Decimal| value.normalize().scale();
        if scale(self.tick.get()) > TICK_SCALE_MAX || self.tick.get() > Decimal::ONE_THOUSAND {
            return invalid("tick", InvalidProblem::TooLarge);
        }
        if scale(self.step.get()) > STEP_SCALE_MAX || self.step.get() > Decimal::ONE_THOUSAND {
            return invalid("step", InvalidProblem::TooLarge);
        }
        let unit = self
            .tick
            .get()
            .normalize()
            .mantissa()
            .checked_mul(self.step.get().normalize().mantissa());
        if unit.is_none_or(|unit| unit > UNIT_MAX) {
            let problem = InvalidProblem::Inconsistent("has too many significant digits for this tick");
            return invalid("step", problem);
        }
        for (field, quantity) in [("quantity_min", self.quantity_min), ("quantity_max", self.quantity_max)] {
            match grid::exact(quantity.get(), self.step.get()) {
                None => return invalid(field, InvalidProblem::OffStep { step: self.step.get() }),
                Some(steps) if steps > grid::QUANTITY_STEPS_MAX => return invalid(field, InvalidProblem::TooLarge),
                Some(_) => {}
            }
        }
        if self.quantity_min > self.quantity_max {
            return invalid(
                "quantity_max",
                InvalidProblem::Inconsistent("must not be less than quantity_min"),
            );
        }
        if self.leverage_min > self.leverage_max {
            return invalid(
                "leverage_max",
                InvalidProblem::Inconsistent("must not be less than leverage_min"),
            );
        }
        if self.leverage_max.get() > Decimal::ONE_THOUSAND || scale(self.leverage_step.get()) > RATE_SCALE_MAX {
            return invalid("leverage_max", InvalidProblem::TooLarge);
        }
        for (field, rate) in [
            ("maintenance_rate", self.maintenance_rate),
            ("commission_rate", self.commission_rate),
        ] {
            if rate.get() >= Decimal::ONE {
                return invalid(field, InvalidProblem::Inconsistent("must be less than one"));
            }
            if scale(rate.get()) > RATE_SCALE_MAX {
                return invalid(field, InvalidProblem::TooLarge);
            }
        }
        for (field, amount) in [("margin_min", self.margin_min), ("exposure_max", self.exposure_max)] {
            if !amount.is_positive() {
                return invalid(field, InvalidProblem::NotPositive);
            }
            if !amount.fits(exponent) {
                let currency = self.quote.clone();
                return invalid(
                    field,
                    InvalidProblem::TooManyDecimals {
                        max: exponent,
                        currency,
                    },
                );
            }
        }
        if self.spread_markup_bps > MARKUP_BPS_MAX {
            return invalid("spread_markup_bps", InvalidProblem::TooLarge);
        }
        if self.stale_soft_us <= 0 {
            return invalid("stale_soft_us", InvalidProblem::NotPositive);
        }
        if self.stale_hard_us < self.stale_soft_us {
            return invalid(
                "stale_hard_us",
                InvalidProblem::Inconsistent("must not be less than stale_soft_us"),
            );
        }
        if self.band_bps == 0 {
            return invalid("band_bps", InvalidProblem::NotPositive);
        }
        Ok(())
    }
}

/// What a fresh installation trades: Backpack's three spot markets, leverage 1 to 100, liquidation when all is lost.
#[must_use]
pub fn default_instruments() -> Vec<Instrument> {
    let spot = |base: &str, tick: Decimal, step: Decimal, quantity_max: i64| {
        Some(Instrument {
            symbol: Symbol::new(&format!("{base}_USDC")).ok()?,
            base: Currency::new(base).ok()?,
            quote: Currency::new("USDC").ok()?,
            tick: Price::new(tick).ok()?,
            step: Quantity::new(step).ok()?,
            quantity_min: Quantity::new(step).ok()?,
            quantity_max: Quantity::new(Decimal::from(quantity_max)).ok()?,
            leverage_min: Leverage::new(Decimal::ONE).ok()?,
            leverage_max: Leverage::new(Decimal::ONE_HUNDRED).ok()?,
            leverage_step: Leverage::new(Decimal::ONE).ok()?,
            margin_min: Money::new(Decimal::ONE),
            spread_markup_bps: 0,
            maintenance_rate: Rate::ZERO,
            commission_rate: Rate::ZERO,
            stale_soft_us: 5_000_000,
            stale_hard_us: 30_000_000,
            band_bps: 1_000,
            exposure_max: Money::new(Decimal::from(10_000_000)),
            mode: TradingMode::Enabled,
        })
    };
    let instruments = [
        spot("BTC", Decimal::new(1, 1), Decimal::new(1, 5), 1_000),
        spot("ETH", Decimal::new(1, 2), Decimal::new(1, 4), 10_000),
        spot("SOL", Decimal::new(1, 2), Decimal::new(1, 3), 1_000_000),
    ];
    instruments
        .into_iter()
        .map(|instrument| instrument.expect("the constants above are in range"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_instruments_pass_their_own_check() {
        let instruments = default_instruments();
        assert_eq!(instruments.len(), 3);
        for instrument in instruments {
            assert_eq!(instrument.check(), Ok(()), "{}", instrument.symbol);
        }
    }
}
