//! How each value is written as bytes, and read back. Integers are little-endian, lists and texts carry their length
//! first, a missing value is a zero byte.

use rust_decimal::Decimal;

use super::LedgerBalance;
use crate::account::{Account, Balance};
use crate::event::LedgerAccount;
use crate::ids::{AccountId, Currency, Symbol, TradeId};
use crate::instrument::{Instrument, TradingMode};
use crate::money::{Leverage, Money, Price, Quantity, Rate};
use crate::time::Timestamp;
use crate::trade::{Side, Trade};

/// A value with a byte form.
pub(super) trait Canonical: Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn read(from: &mut &[u8]) -> Option<Self>;
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = from.split_first_chunk::<N>()?;
    *from = tail;
    Some(*head)
}

macro_rules! integer {
    ($($name:ty),*) => {$(
        impl Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn read(from: &mut &[u8]) -> Option<Self> {
                take(from).map(<$name>::from_le_bytes)
            }
        }
    )*};
}
integer!(u8, u32, u64, i64);

impl Canonical for Decimal {
    /// Sign and scale in one byte, then 96 bits of digits.
    fn write(&self, out: &mut Vec<u8>) {
        let value = without_trailing_zeros(*self);
        let sign = if value.is_sign_negative() { 0x80 } else { 0 };
        out.push(u8::try_from(value.scale()).unwrap_or(u8::MAX) | sign);
        let [_, _, _, _, digits @ ..] = value.mantissa().unsigned_abs().to_be_bytes();
        out.extend_from_slice(&digits);
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        let [head] = take::<1>(from)?;
        let digits = take::<12>(from)?;
        let mantissa = digits.iter().fold(0_i128, |sum, &byte| (sum << 8) | i128::from(byte));
        let mut value = Decimal::try_from_i128_with_scale(mantissa, u32::from(head & 0x7F)).ok()?;
        value.set_sign_negative(head & 0x80 != 0);
        Some(value)
    }
}

/// `Decimal::normalize`, with a short way for the numbers that occur: it runs on every change of every entity.
fn without_trailing_zeros(value: Decimal) -> Decimal {
    if value.is_zero() {
        return Decimal::ZERO;
    }
    let Ok(mut digits) = u64::try_from(value.mantissa().unsigned_abs()) else {
        return value.normalize();
    };
    let mut scale = value.scale();
    while scale > 0 && digits.is_multiple_of(10) {
        digits /= 10;
        scale = scale.saturating_sub(1);
    }
    let [low, high] = [digits as u32, (digits >> 32) as u32];
    Decimal::from_parts(low, high, 0, value.is_sign_negative(), scale)
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    // Ids are at most 128 bytes long, which their constructors hold.
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text);
}

fn read_text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::from(u8::read(from)?);
    let (head, tail) = from.split_at_checked(len)?;
    *from = tail;
    std::str::from_utf8(head).ok()
}

macro_rules! text {
    ($($name:ty),*) => {$(
        impl Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                write_text(self.as_bytes(), out);
            }

            fn read(from: &mut &[u8]) -> Option<Self> {
                <$name>::new(read_text(from)?).ok()
            }
        }
    )*};
}
text!(AccountId, Symbol, Currency);

macro_rules! number {
    ($($name:ty: $from:expr),*) => {$(
        impl Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                self.get().write(out);
            }

            fn read(from: &mut &[u8]) -> Option<Self> {
                Canonical::read(from).and_then($from)
            }
        }
    )*};
}
number!(
    Money: |value| Some(Money::new(value)),
    Price: |value| Price::new(value).ok(),
    Quantity: |value| Quantity::new(value).ok(),
    Leverage: |value| Leverage::new(value).ok(),
    Rate: |value| Rate::new(value).ok(),
    TradeId: |value| Some(TradeId::new(value))
);

impl Canonical for Timestamp {
    fn write(&self, out: &mut Vec<u8>) {
        self.micros().write(out);
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        i64::read(from).map(Timestamp::from_micros)
    }
}

impl<T: Canonical> Canonical for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        match u8::read(from)? {
            0 => Some(None),
            1 => T::read(from).map(Some),
            _ => None,
        }
    }
}

impl<T: Canonical> Canonical for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).write(out);
        for item in self {
            item.write(out);
        }
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        // No allocation by a length that the bytes only claim.
        (0..u32::read(from)?).map(|_| T::read(from)).collect()
    }
}

/// A closed set of unit values, each with the byte it is written as.
macro_rules! choice {
    ($($name:ident { $($variant:ident = $byte:literal),* })*) => {$(
        impl Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                out.push(match self { $($name::$variant => $byte),* });
            }

            fn read(from: &mut &[u8]) -> Option<Self> {
                match u8::read(from)? {
                    $($byte => Some($name::$variant),)*
                    _ => None,
                }
            }
        }
    )*};
}
choice! {
    Side { Long = 1, Short = 2 }
    TradingMode { Enabled = 1, CloseOnly = 2, Halted = 3 }
}

impl Canonical for LedgerAccount {
    fn write(&self, out: &mut Vec<u8>) {
        let (byte, client) = match self {
            LedgerAccount::House => (1, None),
            LedgerAccount::Fee => (2, None),
            LedgerAccount::Cash => (3, None),
            LedgerAccount::Client(account) => (4, Some(account)),
            LedgerAccount::Margin(account) => (5, Some(account)),
        };
        out.push(byte);
        if let Some(account) = client {
            account.write(out);
        }
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        Some(match u8::read(from)? {
            1 => LedgerAccount::House,
            2 => LedgerAccount::Fee,
            3 => LedgerAccount::Cash,
            4 => LedgerAccount::Client(AccountId::read(from)?),
            5 => LedgerAccount::Margin(AccountId::read(from)?),
            _ => return None,
        })
    }
}

/// A struct written field by field. Every field is named once, so a new one does not compile until it has a place here.
macro_rules! record {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                let $name { $($field),* } = self;
                $($field.write(out);)*
            }

            fn read(from: &mut &[u8]) -> Option<Self> {
                Some($name { $($field: Canonical::read(from)?),* })
            }
        }
    };
}
record!(Balance { currency, free, locked });
record!(Account {
    id,
    balances,
    created_at,
    recently_closed
});
record!(LedgerBalance {
    account,
    currency,
    balance
});
record!(Trade {
    id,
    account,
    symbol,
    currency,
    side,
    quantity,
    opened_quantity,
    entry_price,
    margin,
    leverage,
    stop_loss,
    take_profit,
    liquidation_price,
    maintenance_rate,
    commission,
    realised_profit,
    opened_at,
});
record!(Instrument {
    symbol,
    base,
    quote,
    tick,
    step,
    quantity_min,
    quantity_max,
    leverage_min,
    leverage_max,
    leverage_step,
    margin_min,
    spread_markup_bps,
    maintenance_rate,
    commission_rate,
    stale_soft_us,
    stale_hard_us,
    band_bps,
    exposure_max,
    mode,
});
