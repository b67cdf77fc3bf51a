//! The bridge between two vocabularies: bus and public messages on one side, the core's types on the other.
//!
//! [`command`] reads requests, [`page`] those for a list, [`answer`] writes responses, [`refusal`] writes failures, [`event`] writes and
//! reads the journal, the latter by `borrowed`. Nothing outside this directory sees both.

pub mod answer;
pub(crate) mod borrowed;
pub mod command;
pub mod event;
pub mod page;
pub mod refusal;

use contracts::v1;
use engine_core::{Currency, Instrument, Money, Price, Quantity, Timestamp, exponent};
use rust_decimal::Decimal;

/// Writes a number with at least `scale` decimals and no needless zeros beyond them.
fn text(value: Decimal, scale: u32) -> String {
    short_text(value, scale).unwrap_or_else(|| long_text(value, scale))
}

fn long_text(value: Decimal, scale: u32) -> String {
    let mut shown = value.normalize();
    if shown.scale() < scale {
        shown.rescale(scale);
    }
    if shown.is_zero() {
        shown.set_sign_positive(true);
    }
    shown.to_string()
}

/// The same for the numbers that occur, of which each trade writes some thirty; nothing for one of more than 18 digits.
fn short_text(value: Decimal, scale: u32) -> Option<String> {
    const DIGITS_MAX: u32 = 18;
    let mut rest = u64::try_from(value.mantissa().unsigned_abs()).ok()?;
    let mut decimals = value.scale();
    while decimals > scale && rest.is_multiple_of(10) {
        rest /= 10;
        decimals -= 1;
    }
    if decimals < scale {
        rest = rest.checked_mul(10_u64.checked_pow(scale - decimals)?)?;
        decimals = scale;
    }
    if rest >= 10_u64.pow(DIGITS_MAX) || decimals > DIGITS_MAX {
        return None;
    }
    // From its end: a digit and perhaps the point at a time, and a sign.
    let mut written = [0; 2 * DIGITS_MAX as usize];
    let mut begin = written.len();
    let mut put = |byte| {
        begin -= 1;
        written[begin] = byte;
    };
    let is_negative = value.is_sign_negative() && rest > 0;
    let mut count = 0;
    while count <= decimals || rest > 0 {
        if count == decimals && count > 0 {
            put(b'.');
        }
        put(b'0' + u8::try_from(rest % 10).ok()?);
        rest /= 10;
        count += 1;
    }
    if is_negative {
        put(b'-');
    }
    std::str::from_utf8(&written[begin..]).ok().map(str::to_owned)
}

/// How many decimals a unit needs, a tick or a step, and so all its multiples.
fn decimals_of(unit: Decimal) -> u32 {
    let Ok(mut rest) = u64::try_from(unit.mantissa()) else {
        return unit.normalize().scale();
    };
    let mut decimals = unit.scale();
    while decimals > 0 && rest.is_multiple_of(10) {
        rest /= 10;
        decimals -= 1;
    }
    decimals
}

/// An amount with all decimals of its currency.
pub fn amount_text(amount: Money, currency: &Currency) -> String {
    text(amount.get(), exponent(currency).unwrap_or(0))
}

/// An amount as the public API has it.
pub fn money(amount: Money, currency: &Currency) -> v1::Money {
    v1::Money {
        currency_code: currency.as_str().to_owned(),
        amount: amount_text(amount, currency),
    }
}

/// A price with all decimals of the instrument's tick.
pub fn price_text(price: Price, instrument: Option<&Instrument>) -> String {
    text(price.get(), instrument.map_or(0, |it| decimals_of(it.tick.get())))
}

/// A quantity with all decimals of the instrument's step.
pub fn quantity_text(quantity: Option<Quantity>, instrument: Option<&Instrument>) -> String {
    quantity.map_or_else(
        || "0".to_owned(),
        |quantity| text(quantity.get(), instrument.map_or(0, |it| decimals_of(it.step.get()))),
    )
}

/// A number as short as it can be.
pub fn plain(value: Decimal) -> String {
    text(value, 0)
}

/// A moment as the public API has it.
pub fn time(at: Timestamp) -> prost_types::Timestamp {
    let micros = at.micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).expect("below a billion"),
    }
}

/// A moment from microseconds on the wire; past the range it is the last one.
pub fn moment(micros: u64) -> Timestamp {
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// A duration as the public API has it.
pub fn duration(micros: i64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).expect("below a billion"),
    }
}

/// Microseconds of a duration; 0 when absent.
pub fn duration_us(duration: Option<&prost_types::Duration>) -> i64 {
    duration.map_or(0, |it| {
        it.seconds
            .saturating_mul(1_000_000)
            .saturating_add(i64::from(it.nanos) / 1_000)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_decimals_of_their_unit() {
        let usdc = Currency::new("USDC").unwrap();
        for (value, shown) in [
            ("5000", "5000.00"),
            ("0.1", "0.10"),
            ("-0.00", "0.00"),
            ("1.230", "1.23"),
            ("-7.5", "-7.50"),
        ] {
            assert_eq!(amount_text(Money::parse(value).unwrap(), &usdc), shown);
        }
        assert_eq!(plain("10.00".parse().unwrap()), "10");
        assert_eq!(quantity_text(None, None), "0");
    }

    #[test]
    fn short_numbers_are_written_as_long_ones_are() {
        let digits = [
            0_i64,
            1,
            7,
            10,
            100,
            1_050,
            99_999,
            123_456_789,
            500_000_000_000_000_000,
        ];
        for (digits, scale, decimals) in digits
            .into_iter()
            .flat_map(|digits| [digits, -digits])
            .flat_map(|digits| (0..=9).map(move |scale| (digits, scale)))
            .flat_map(|(digits, scale)| (0..=9).map(move |decimals| (digits, scale, decimals)))
        {
            let value = Decimal::new(digits, scale);
            if let Some(short) = short_text(value, decimals) {
                assert_eq!(short, long_text(value, decimals), "{value} with {decimals} decimals");
            }
        }
        for written in ["0", "-0.5", "20000.10", "999999999999999999", "0.000000000000000001"] {
            assert!(short_text(written.parse().unwrap(), 0).is_some(), "{written}");
        }
        assert_eq!(short_text(Decimal::MAX, 0), None);
        assert_eq!(text(Decimal::MAX, 2), Decimal::MAX.to_string());
    }

    #[test]
    fn times_before_the_epoch_keep_their_nanos_positive() {
        assert_eq!(
            time(Timestamp::from_micros(-1)),
            prost_types::Timestamp {
                seconds: -1,
                nanos: 999_999_000
            }
        );
        assert_eq!(duration_us(Some(&duration(5_250_000))), 5_250_000);
    }
}
