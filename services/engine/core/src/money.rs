//! Numbers with a meaning: money, prices, quantities, leverage, rates and percentages.
//!
//! Each wraps a [`Decimal`] behind a constructor that can say no, so past the edge nobody checks again. There is no
//! `Mul` between them and no way in from a float; products live in [`crate::formula`], where their rounding is said.

use std::fmt;

use rust_decimal::{Decimal, RoundingStrategy};

use crate::number::{self, NumberError};

/// An amount in one currency's own unit, exact: 12.50 means twelve and a half USDC.
///
/// Signed, because a loss is money too. There is no `Mul<Money>` and no `From<f64>`: a float never becomes money.
/// Adding two amounts is checked; rounding happens once, where the ledger is written, and says its direction there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(Decimal);

impl Money {
    /// Nothing.
    pub const ZERO: Money = Money(Decimal::ZERO);

    /// Any decimal is an amount.
    pub const fn new(value: Decimal) -> Money {
        Money(value)
    }

    /// Reads plain decimal text, for example `-0.01`.
    pub fn parse(text: &str) -> Result<Money, NumberError> {
        number::parse(text).map(Money)
    }

    /// The amount as a decimal.
    pub const fn get(self) -> Decimal {
        self.0
    }

    /// The sum, or `None` past the largest decimal.
    #[must_use]
    pub fn checked_add(self, other: Money) -> Option<Money> {
        self.0.checked_add(other.0).map(Money)
    }

    /// The difference, or `None` past the largest decimal.
    #[must_use]
    pub fn checked_sub(self, other: Money) -> Option<Money> {
        self.0.checked_sub(other.0).map(Money)
    }

    /// The same amount in the other direction; always exists.
    #[must_use]
    pub fn negated(self) -> Money {
        let mut value = self.0;
        value.set_sign_positive(value.is_sign_negative() || value.is_zero());
        Money(value)
    }

    /// Greater than zero.
    pub fn is_positive(self) -> bool {
        self.0 > Decimal::ZERO
    }

    /// Less than zero; zero with a sign is still zero.
    pub fn is_negative(self) -> bool {
        self.0 < Decimal::ZERO
    }

    /// Neither.
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// Half to even, to `exponent` decimals: the one rounding the ledger knows.
    #[must_use]
    pub fn rounded(self, exponent: u32) -> Money {
        Money(
            self.0
                .round_dp_with_strategy(exponent, RoundingStrategy::MidpointNearestEven),
        )
    }

    /// Whether the amount needs no more than `exponent` decimals. Trailing zeros do not count.
    pub fn fits(self, exponent: u32) -> bool {
        fits(self.0, exponent)
    }
}

/// Whether a decimal needs no more than `exponent` decimals; 1.500 needs one.
pub(crate) fn fits(value: Decimal, exponent: u32) -> bool {
    value.scale() <= exponent || value.normalize().scale() <= exponent
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.normalize().fmt(f)
    }
}

macro_rules! positive {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Decimal);

        impl $name {
            /// Says no to zero and to anything below it.
            pub fn new(value: Decimal) -> Result<$name, NumberError> {
                if value > Decimal::ZERO { Ok($name(value)) } else { Err(NumberError::NotPositive) }
            }

            /// Reads plain decimal text greater than zero.
            pub fn parse(text: &str) -> Result<$name, NumberError> {
                number::parse(text).and_then($name::new)
            }

            /// The value as a decimal.
            pub const fn get(self) -> Decimal {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.normalize().fmt(f)
            }
        }
    };
}

positive!(
    /// Units of the quote currency for one unit of the base, greater than zero.
    Price
);
positive!(
    /// Units of the base currency, greater than zero.
    Quantity
);
positive!(
    /// Notional over margin, greater than zero: 10 means a tenth of the notional is locked.
    Leverage
);

/// A share of something, zero or more: 0.005 is half a percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(Decimal);

impl Rate {
    /// No share at all.
    pub const ZERO: Rate = Rate(Decimal::ZERO);

    /// Says no to anything below zero.
    pub fn new(value: Decimal) -> Result<Rate, NumberError> {
        if value >= Decimal::ZERO {
            Ok(Rate(value))
        } else {
            Err(NumberError::Negative)
        }
    }

    /// Reads plain decimal text, zero or more.
    pub fn parse(text: &str) -> Result<Rate, NumberError> {
        number::parse(text).and_then(Rate::new)
    }

    /// The value as a decimal.
    pub const fn get(self) -> Decimal {
        self.0
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.normalize().fmt(f)
    }
}

/// Parts of a hundred of a trade, greater than zero and at most 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(Decimal);

impl Percent {
    /// Says no outside 0 < p <= 100.
    pub fn new(value: Decimal) -> Result<Percent, NumberError> {
        match value {
            value if value <= Decimal::ZERO => Err(NumberError::NotPositive),
            value if value > Decimal::ONE_HUNDRED => Err(NumberError::TooLarge),
            value => Ok(Percent(value)),
        }
    }

    /// Reads plain decimal text, for example `12.5`.
    pub fn parse(text: &str) -> Result<Percent, NumberError> {
        number::parse(text).and_then(Percent::new)
    }

    /// The value as a decimal.
    pub const fn get(self) -> Decimal {
        self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.normalize().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constructors_say_no() {
        assert_eq!(Price::parse("0"), Err(NumberError::NotPositive));
        assert_eq!(Quantity::parse("-1"), Err(NumberError::NotPositive));
        assert_eq!(Leverage::parse("1e2"), Err(NumberError::Malformed));
        assert_eq!(Rate::parse("-0.1"), Err(NumberError::Negative));
        assert_eq!(Percent::parse("100.01"), Err(NumberError::TooLarge));
        assert!(Rate::parse("0").is_ok() && Percent::parse("100").is_ok());
    }

    #[test]
    fn rounding_is_half_to_even() {
        for (amount, rounded) in [
            ("0.005", "0"),
            ("0.015", "0.02"),
            ("-0.025", "-0.02"),
            ("2.6750000001", "2.68"),
        ] {
            assert_eq!(
                Money::parse(amount).map(|money| money.rounded(2)),
                Money::parse(rounded)
            );
        }
    }

    #[test]
    fn trailing_zeros_are_not_decimals() {
        assert!(Money::new(Decimal::new(150_000, 4)).fits(0));
        assert!(!Money::new(Decimal::new(150_001, 4)).fits(3));
        assert_eq!(Money::ZERO.negated().to_string(), "0");
    }
}
