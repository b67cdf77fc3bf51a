//! Names and numbers that point at things. Each has its own type, so that mixing two does not compile.

use std::fmt;
use std::sync::Arc;

/// Longest account id, in bytes.
pub const ACCOUNT_ID_LEN_MAX: usize = 128;
/// Longest symbol, in bytes.
pub const SYMBOL_LEN_MAX: usize = 31;
/// Longest currency code, in bytes.
pub const CURRENCY_LEN_MAX: usize = 15;

/// Why a text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing in it.
    #[error("must not be empty")]
    Empty,
    /// Longer than this kind of id may be.
    #[error("must be at most {max} bytes long")]
    TooLong {
        /// The limit, in bytes.
        max: usize,
    },
    /// Something other than visible ASCII.
    #[error("must be visible ASCII without spaces")]
    BadCharacter,
}

fn checked(text: &str, max: usize) -> Result<&str, IdError> {
    match text {
        "" => Err(IdError::Empty),
        text if text.len() > max => Err(IdError::TooLong { max }),
        text if !text.bytes().all(|byte| byte.is_ascii_graphic()) => Err(IdError::BadCharacter),
        text => Ok(text),
    }
}

/// Whose money it is: 1 to 128 bytes of visible ASCII. A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(Arc<str>);

impl AccountId {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Says no to an empty, long or unprintable id.
    pub fn new(text: &str) -> Result<AccountId, IdError> {
        checked(text, ACCOUNT_ID_LEN_MAX).map(|text| AccountId(Arc::from(text)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A short text held in place: quotes and ledger lines carry several, and none of them should cost an allocation.
/// The unused tail is zero and the bytes come before the length, so comparing two compares their text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Short<const N: usize> {
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize> Short<N> {
    fn new(text: &str) -> Result<Short<N>, IdError> {
        let text = checked(text, N)?;
        let mut bytes = [0; N];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Ok(Short {
            bytes,
            len: u8::try_from(text.len()).map_err(|_| IdError::TooLong { max: N })?,
        })
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn as_str(&self) -> &str {
        // Only `new` makes one, and only out of ASCII.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

/// An instrument's name as the venue writes it, for example `SOL_USDC`: 1 to 31 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(Short<SYMBOL_LEN_MAX>);

impl Symbol {
    /// The same as bytes, which costs nothing to get at.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Says no to an empty, long or unprintable name.
    pub fn new(text: &str) -> Result<Symbol, IdError> {
        Short::new(text).map(Symbol)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// A currency's code, for example `USDC`: 1 to 15 bytes. Whether we hold it is [`crate::currency`]'s business.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency(Short<CURRENCY_LEN_MAX>);

impl Currency {
    /// The same as bytes, which costs nothing to get at.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Says no to an empty, long or unprintable code.
    pub fn new(text: &str) -> Result<Currency, IdError> {
        Short::new(text).map(Currency)
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// A trade's number within a shard: 1, 2, 3 and so on, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TradeId(u64);

impl TradeId {
    /// The largest of a trade that can be open: nobody lives to see it given.
    pub const MAX: TradeId = TradeId(u64::MAX / 4);

    /// Any number names a trade, whether or not there is one.
    pub const fn new(number: u64) -> TradeId {
        TradeId(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

macro_rules! written_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }
    )*};
}
written_as_text!(AccountId, Symbol, Currency);

impl fmt::Display for TradeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TradeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_is_not_a_name() {
        assert_eq!(AccountId::new(""), Err(IdError::Empty));
        assert_eq!(AccountId::new("two words"), Err(IdError::BadCharacter));
        assert_eq!(Symbol::new(&"X".repeat(32)), Err(IdError::TooLong { max: 31 }));
        assert_eq!(Currency::new("\u{20ac}"), Err(IdError::BadCharacter));
    }

    #[test]
    fn short_names_come_back_and_order_as_text() {
        let longest = "X".repeat(SYMBOL_LEN_MAX);
        for text in ["SOL_USDC", "SPCX.US_USDC", longest.as_str()] {
            assert_eq!(Symbol::new(text).map(|symbol| symbol.to_string()).as_deref(), Ok(text));
        }
        let [short, long, later] = ["BTC", "BTC_USDC", "ETH"].map(|text| Symbol::new(text).expect("a symbol"));
        assert!(short < long && long < later);
    }
}
