//! Decimal text: the one grammar in which an amount, price or quantity is written, and what can be wrong with it.
//!
//! Stricter than the decimal library on purpose. `1e2`, `+1`, `.5`, `5.`, `1_000` and `007` are refused, because a
//! sender that writes them is not the sender we tested with, and a lenient reader hides its fault until money moves.

use rust_decimal::Decimal;

/// Longest decimal text accepted, in bytes: 28 digits, a sign and a point fit with room to spare.
pub const TEXT_LEN_MAX: usize = 40;

/// Why a text or a decimal is not the number asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// Not of the form `-?digits(.digits)?`, or with a leading zero.
    #[error("not a plain decimal number such as 100.50")]
    Malformed,
    /// More digits than can be held exactly (28), which would force a rounding.
    #[error("more digits than can be held exactly")]
    TooManyDigits,
    /// Zero or less where the number must be greater than zero.
    #[error("must be greater than zero")]
    NotPositive,
    /// Less than zero where the number must not be.
    #[error("must not be negative")]
    Negative,
    /// Beyond the largest value this number may have.
    #[error("too large")]
    TooLarge,
}

/// Reads plain decimal text, exactly or not at all. `-0` is zero.
pub fn parse(text: &str) -> Result<Decimal, NumberError> {
    parse_short(text).map_or_else(|| parse_any(text), Ok)
}

/// The same in one pass for the numbers that occur, of which a replay reads some twenty for each trade; nothing for a longer text, or for
/// one that is to be refused.
fn parse_short(text: &str) -> Option<Decimal> {
    /// A point, and digits of which any number fits into 64 bits.
    const LEN_MAX: usize = 19;
    let unsigned = text.strip_prefix('-').unwrap_or(text).as_bytes();
    if unsigned.len() > LEN_MAX {
        return None;
    }
    let (mut number, mut whole, mut decimals, mut point) = (0_u64, 0_u32, 0_u32, false);
    for &byte in unsigned {
        match byte {
            b'0'..=b'9' => {
                let digit = u64::from(byte.wrapping_sub(b'0'));
                number = number.checked_mul(10)?.checked_add(digit)?;
                let part = if point { &mut decimals } else { &mut whole };
                *part = part.saturating_add(1);
            }
            b'.' if !point => point = true,
            _ => return None,
        }
    }
    let leading_zero = whole > 1 && unsigned.first() == Some(&b'0');
    if whole == 0 || leading_zero || point != (decimals > 0) {
        return None;
    }
    let [low, high] = [number as u32, (number >> 32) as u32];
    let is_negative = number > 0 && unsigned.len() < text.len();
    Some(Decimal::from_parts(low, high, 0, is_negative, decimals))
}

fn parse_any(text: &str) -> Result<Decimal, NumberError> {
    if text.len() > TEXT_LEN_MAX {
        return Err(NumberError::TooManyDigits);
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (unsigned, None),
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if !digits(whole) || leading_zero || fraction.is_some_and(|part| !digits(part)) {
        return Err(NumberError::Malformed);
    }
    let value = Decimal::from_str_exact(text).map_err(|_| NumberError::TooManyDigits)?;
    Ok(if value.is_zero() { value.abs() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_read_exactly() {
        for text in ["0", "100.50", "-0.01", "0.00000001", "7922816251426433759354395033"] {
            assert_eq!(parse(text).map(|value| value.to_string()).as_deref(), Ok(text));
        }
        assert_eq!(parse("-0").map(|value| value.to_string()).as_deref(), Ok("0"));
    }

    #[test]
    fn a_short_number_is_read_as_a_long_one_is() {
        let parts = [
            "",
            "0",
            "00",
            "1",
            "10",
            "007",
            "123456789",
            "999999999999999999",
            "18446744073709551615",
        ];
        for sign in ["", "-", "--", "+"] {
            for whole in parts {
                for rest in parts.map(|part| format!(".{part}")).iter().chain([&String::new()]) {
                    let text = format!("{sign}{whole}{rest}");
                    let parts = |value: Decimal| (value.mantissa(), value.scale(), value.is_sign_negative());
                    if let Some(short) = parse_short(&text) {
                        assert_eq!(Ok(parts(short)), parse_any(&text).map(parts), "{text:?}");
                    }
                }
            }
        }
        for text in [
            "0",
            "-0",
            "0.00",
            "20000.10",
            "-7.5",
            "999999999999999999",
            "0.00000000000000001",
        ] {
            assert!(parse_short(text).is_some(), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "", "-", ".5", "5.", "+1", "1e2", "1E2", "1_000", "007", "00", " 1", "1 ", "0x10", "NaN", "1,5", "--1",
        ] {
            assert_eq!(parse(text), Err(NumberError::Malformed), "{text:?}");
        }
        for text in ["79228162514264337593543950336", "0.00000000000000000000000000001"] {
            assert_eq!(parse(text), Err(NumberError::TooManyDigits), "{text:?}");
        }
    }
}
