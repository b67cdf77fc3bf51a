//! The arithmetic of leveraged trading, pure and in one notation, apart from the rules that use it.
//!
//! `s` is +1 for a long and −1 for a short, `E` the entry price, `P` the current closing price, `Q` the quantity,
//! `M` the isolated margin, `L` the leverage, `m` the maintenance rate and `f` a closing fee rate.
//!
//! The functions on decimals are the textbook forms, kept to 28 digits, for display and for the published examples in
//! `tests/golden.rs`. What decides about money, [`liquidation_ticks`], is done in integers and is exact.

use rust_decimal::Decimal;

use crate::grid::{PRICE_TICKS_MAX, power_of_ten};
use crate::money::Money;
use crate::trade::Side;

/// `s`.
fn sign(side: Side) -> Decimal {
    match side {
        Side::Long => Decimal::ONE,
        Side::Short => Decimal::NEGATIVE_ONE,
    }
}

/// `s (P − E) Q`: what a trade has earned, in the quote currency, unrounded. `None` past the largest decimal.
pub fn profit(side: Side, entry: Decimal, price: Decimal, quantity: Decimal) -> Option<Decimal> {
    let gain = match side {
        Side::Long => price.checked_sub(entry)?,
        Side::Short => entry.checked_sub(price)?,
    };
    gain.checked_mul(quantity)
}

/// `(M + cum − s Q E) / (Q m − s Q)`: the price at which the margin left equals the maintenance margin.
///
/// This is the isolated form published by Binance; `cum` is the maintenance amount of tiered rates, zero when there
/// is one rate. For a long with more margin than notional the answer is zero or less: no price does it.
pub fn liquidation_price(
    side: Side,
    entry: Decimal,
    quantity: Decimal,
    margin: Decimal,
    maintenance_rate: Decimal,
    cum: Decimal,
) -> Option<Decimal> {
    let signed = sign(side).checked_mul(quantity)?;
    let top = margin.checked_add(cum)?.checked_sub(signed.checked_mul(entry)?)?;
    let bottom = quantity.checked_mul(maintenance_rate)?.checked_sub(signed)?;
    top.checked_div(bottom)
}

/// `(E − s M / Q) / (1 − s (m + f))`: the same with a fee for closing counted in (OKX, Gate).
pub fn liquidation_price_with_fee(
    side: Side,
    entry: Decimal,
    quantity: Decimal,
    margin: Decimal,
    maintenance_rate: Decimal,
    fee_rate: Decimal,
) -> Option<Decimal> {
    let sign = sign(side);
    let top = entry.checked_sub(sign.checked_mul(margin)?.checked_div(quantity)?)?;
    let bottom = Decimal::ONE.checked_sub(sign.checked_mul(maintenance_rate.checked_add(fee_rate)?)?)?;
    top.checked_div(bottom)
}

/// `E (1 − s / L + s m)`: the form that counts maintenance at the entry price (Bybit). With `m` zero it is the price
/// at which the margin is gone, and equal to [`liquidation_price`].
pub fn liquidation_price_from_entry(
    side: Side,
    entry: Decimal,
    leverage: Decimal,
    maintenance_rate: Decimal,
) -> Option<Decimal> {
    let distance = Decimal::ONE.checked_div(leverage)?.checked_sub(maintenance_rate)?;
    let share = Decimal::ONE.checked_sub(sign(side).checked_mul(distance)?)?;
    entry.checked_mul(share)
}

/// `cum` of the tier that starts at `floor`: `previous + floor × (m − previous m)`, so that the maintenance margin
/// `notional × m − cum` has no jump between tiers.
pub fn maintenance_amount(previous: Decimal, floor: Decimal, rate: Decimal, previous_rate: Decimal) -> Option<Decimal> {
    previous.checked_add(floor.checked_mul(rate.checked_sub(previous_rate)?)?)
}

/// A position on its grid: what [`liquidation_ticks`] needs to be exact.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// The direction.
    pub side: Side,
    /// The entry price, in ticks.
    pub entry_ticks: i64,
    /// The quantity, in steps.
    pub steps: i64,
    /// The tick.
    pub tick: Decimal,
    /// The step.
    pub step: Decimal,
    /// What is locked.
    pub margin: Money,
    /// The maintenance rate, below one.
    pub maintenance_rate: Decimal,
}

/// The numbers are too large or too fine to be held exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// The first price, in ticks going against the trade, where `M + s (P − E) Q <= m Q P`; `Ok(None)` when none is.
///
/// For a long the largest such multiple of the tick, for a short the smallest. One integer division, so it is never a
/// tick off, whatever the decimals.
pub fn liquidation_ticks(position: &Position) -> Result<Option<i64>, TooLarge> {
    exact_liquidation(position).ok_or(TooLarge)
}

fn exact_liquidation(position: &Position) -> Option<Option<i64>> {
    let &Position {
        side,
        entry_ticks,
        steps,
        tick,
        step,
        margin,
        maintenance_rate,
    } = position;
    // Both sides of the inequality times 10^(scale of tick + of step + of margin + of rate): integers throughout.
    let margin_unit = power_of_ten(margin.get().scale())?;
    let rate_unit = power_of_ten(maintenance_rate.scale())?;
    let lot = i128::from(steps)
        .checked_mul(tick.mantissa().checked_mul(step.mantissa())?)?
        .checked_mul(margin_unit)?;
    let notional = lot.checked_mul(i128::from(entry_ticks))?;
    let locked = margin
        .get()
        .mantissa()
        .checked_mul(power_of_ten(tick.scale().checked_add(step.scale())?)?)?;
    let ticks = match side {
        // P <= (E Q − M) / (Q (1 − m)), floored.
        Side::Long => {
            let top = notional.checked_sub(locked)?.checked_mul(rate_unit)?;
            top.checked_div_euclid(lot.checked_mul(rate_unit.checked_sub(maintenance_rate.mantissa())?)?)?
        }
        // P >= (E Q + M) / (Q (1 + m)), raised: the negative of the floor of the negative.
        Side::Short => {
            let top = notional.checked_add(locked)?.checked_mul(rate_unit)?.checked_neg()?;
            top.checked_div_euclid(lot.checked_mul(rate_unit.checked_add(maintenance_rate.mantissa())?)?)?
                .checked_neg()?
        }
    };
    // No quote is ever outside the range, so a trigger outside of it is a trigger that cannot be reached.
    Some(
        i64::try_from(ticks)
            .ok()
            .filter(|ticks| (1..=PRICE_TICKS_MAX).contains(ticks)),
    )
}
