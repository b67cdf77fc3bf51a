//! The bridge between two vocabularies: bus and public messages on one side, the core's types on the other.
//!
//! [`command`] reads requests, [`answer`] writes responses, [`refusal`] writes failures, [`event`] writes and reads the journal. Nothing
//! outside this directory sees both.

pub mod answer;
pub mod command;
pub mod event;
pub mod refusal;

use contracts::v1;
use engine_core::{Currency, Instrument, Money, Price, Quantity, Timestamp, exponent};
use rust_decimal::Decimal;

/// Writes a number with at least `scale` decimals and no needless zeros beyond them.
fn text(value: Decimal, scale: u32) -> String {
    let mut shown = value.normalize();
    if shown.scale() < scale {
        shown.rescale(scale);
    }
    if shown.is_zero() {
        shown.set_sign_positive(true);
    }
    shown.to_string()
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
    text(
        price.get(),
        instrument.map_or(0, |it| it.tick.get().normalize().scale()),
    )
}

/// A quantity with all decimals of the instrument's step.
pub fn quantity_text(quantity: Option<Quantity>, instrument: Option<&Instrument>) -> String {
    quantity.map_or_else(
        || "0".to_owned(),
        |quantity| {
            text(
                quantity.get(),
                instrument.map_or(0, |it| it.step.get().normalize().scale()),
            )
        },
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
