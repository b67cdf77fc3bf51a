//! The grid of ticks and steps: which multiple of a unit a number is, exactly, in integers.
//!
//! Triggers are keyed by whole ticks and quotes are brought onto the grid before anyone trades, so "has the price
//! reached it" is a comparison of two integers. A division that rounds would decide some of them wrongly.

use rust_decimal::Decimal;

/// Largest price, in ticks. With a tick of 0.1 that is 100 billion.
pub const PRICE_TICKS_MAX: i64 = 1_000_000_000_000;
/// Largest quantity, in steps.
pub const QUANTITY_STEPS_MAX: i64 = 10_000_000_000;

/// How many whole units fit into `value`, downwards. `None` when the unit is not positive or the answer not an `i64`.
pub fn floor(value: Decimal, unit: Decimal) -> Option<i64> {
    let (numerator, denominator) = fraction(value, unit)?;
    i64::try_from(numerator.checked_div_euclid(denominator)?).ok()
}

/// How many units cover `value`, upwards.
pub fn ceil(value: Decimal, unit: Decimal) -> Option<i64> {
    let (numerator, denominator) = fraction(value, unit)?;
    let whole = numerator.checked_div_euclid(denominator)?;
    let whole = if numerator.checked_rem_euclid(denominator)? == 0 {
        whole
    } else {
        whole.checked_add(1)?
    };
    i64::try_from(whole).ok()
}

/// How many units `value` is, or `None` when it is not a whole number of them.
pub fn exact(value: Decimal, unit: Decimal) -> Option<i64> {
    let (numerator, denominator) = fraction(value, unit)?;
    if numerator.checked_rem_euclid(denominator)? != 0 {
        return None;
    }
    i64::try_from(numerator.checked_div_euclid(denominator)?).ok()
}

/// `count` units as a decimal.
pub fn value(count: i64, unit: Decimal) -> Option<Decimal> {
    let mantissa = i128::from(count).checked_mul(unit.mantissa())?;
    Decimal::try_from_i128_with_scale(mantissa, unit.scale()).ok()
}

/// `value / unit` as a fraction of integers with a positive denominator.
fn fraction(value: Decimal, unit: Decimal) -> Option<(i128, i128)> {
    let (top, bottom) = (value.mantissa(), unit.mantissa());
    if bottom <= 0 {
        return None;
    }
    let (up, down) = (
        unit.scale().saturating_sub(value.scale()),
        value.scale().saturating_sub(unit.scale()),
    );
    Some((
        top.checked_mul(power_of_ten(up)?)?,
        bottom.checked_mul(power_of_ten(down)?)?,
    ))
}

/// Ten to the `exponent`, while it fits.
pub(crate) fn power_of_ten(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::parse;

    fn decimal(text: &str) -> Decimal {
        parse(text).expect("a number")
    }

    #[test]
    fn numbers_fall_on_the_grid_or_beside_it() {
        let tick = decimal("0.05");
        for (value, down, up, whole) in [
            ("1.00", 20, 20, Some(20)),
            ("1.0499999999999999999999999", 20, 21, None),
            ("1.05", 21, 21, Some(21)),
            ("0.01", 0, 1, None),
            ("-0.01", -1, 0, None),
            ("100", 2000, 2000, Some(2000)),
        ] {
            let value = decimal(value);
            assert_eq!(
                (floor(value, tick), ceil(value, tick), exact(value, tick)),
                (Some(down), Some(up), whole)
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        assert_eq!(floor(Decimal::MAX, decimal("0.000001")), None);
        assert_eq!(floor(Decimal::ONE, Decimal::ZERO), None);
        assert_eq!(value(7, decimal("0.25")), Some(decimal("1.75")));
    }
}
