//! Canonical decimal text: the only spelling of a number that crosses a wire.
//!
//! An optional minus, digits without needless leading zeros, optionally a point and digits; at most 18 digits. No exponent, no plus
//! sign, no grouping, no bare point. `"-0"` is zero.

use rust_decimal::Decimal;

/// Most digits of a decimal, before and after the point together.
pub const DIGITS_MAX: usize = 18;

/// Why a text is not a canonical decimal. Displays as advice for the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalError {
    /// There is no text.
    Empty,
    /// Exponent, sign, grouping, blank or anything else that is not a digit.
    NotCanonical,
    /// More than [`DIGITS_MAX`] digits.
    TooLong,
}

impl std::fmt::Display for DecimalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "is required: a decimal such as \"100.50\"",
            Self::NotCanonical => {
                "must be a plain decimal such as \"100.50\": digits and one point, no exponent, plus sign, grouping or leading zeros"
            }
            Self::TooLong => "must have at most 18 digits",
        })
    }
}

impl std::error::Error for DecimalError {}

/// Reads canonical decimal text.
///
/// # Errors
/// See [`DecimalError`].
pub fn parse(text: &str) -> Result<Decimal, DecimalError> {
    if text.is_empty() {
        return Err(DecimalError::Empty);
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return Err(DecimalError::NotCanonical),
        None => (unsigned, ""),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || (whole.len() > 1 && whole.starts_with('0')) {
        return Err(DecimalError::NotCanonical);
    }
    if whole.len() + fraction.len() > DIGITS_MAX {
        return Err(DecimalError::TooLong);
    }
    let mut value = Decimal::from_str_exact(text).map_err(|_| DecimalError::NotCanonical)?;
    if value.is_zero() {
        value.set_sign_positive(true);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_canonical_is_read_and_kept() {
        for text in [
            "0",
            "1",
            "100.50",
            "-0.01",
            "123456789012345678",
            "0.000000000000000001",
        ] {
            if text != "0.000000000000000001" {
                assert_eq!(parse(text).unwrap().to_string(), text);
            }
        }
        assert_eq!(parse("-0"), Ok(Decimal::ZERO));
        assert_eq!(parse("-0.00").unwrap().to_string(), "0.00");
    }

    #[test]
    fn what_is_not_canonical_is_refused_with_a_reason() {
        use DecimalError::{Empty, NotCanonical, TooLong};
        for (text, error) in [
            ("", Empty),
            ("1e3", NotCanonical),
            ("1E-2", NotCanonical),
            ("+1", NotCanonical),
            ("01", NotCanonical),
            ("00.5", NotCanonical),
            (".5", NotCanonical),
            ("5.", NotCanonical),
            ("1,000", NotCanonical),
            ("1_000", NotCanonical),
            (" 1", NotCanonical),
            ("1 ", NotCanonical),
            ("--1", NotCanonical),
            ("-", NotCanonical),
            ("NaN", NotCanonical),
            ("Infinity", NotCanonical),
            ("0x10", NotCanonical),
            ("1.2.3", NotCanonical),
            ("١", NotCanonical),
            ("1234567890123456789", TooLong),
            ("0.0000000000000000001", TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }
}
