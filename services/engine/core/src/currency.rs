//! The currencies a wallet can hold, and how finely each is divided.

use rust_decimal::Decimal;

use crate::ids::Currency;
use crate::money::Money;

/// One currency: its code and how many decimals its ledger keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrencySpec {
    /// The code, for example `USDC`.
    pub code: &'static str,
    /// Decimals in the ledger: 2 means cents.
    pub exponent: u32,
}

/// Every currency we hold. The first is the one a demo account is given.
pub const CATALOGUE: [CurrencySpec; 4] = [
    CurrencySpec {
        code: "USDC",
        exponent: 2,
    },
    CurrencySpec {
        code: "BTC",
        exponent: 8,
    },
    CurrencySpec {
        code: "ETH",
        exponent: 8,
    },
    CurrencySpec {
        code: "SOL",
        exponent: 8,
    },
];

/// What a new demo wallet is given, in the first currency of the catalogue: 5,000.00 USDC.
pub const DEMO_GRANT: Money = Money::new(Decimal::from_parts(500_000, 0, 0, false, 2));

/// The decimals the ledger keeps for a currency, or `None` when we do not hold it.
pub fn exponent(currency: &Currency) -> Option<u32> {
    let code = currency.as_str();
    CATALOGUE
        .iter()
        .find(|spec| spec.code == code)
        .map(|spec| spec.exponent)
}
