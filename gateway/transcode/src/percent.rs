//! Percent-decoding, once and strictly: a `%` that does not start an octet is a refusal, never a guess.

use std::borrow::Cow;

use crate::options::MultiSegment;

/// Why a text could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a '%' is not followed by two hexadecimal digits")]
    Escape,
    #[error("the decoded bytes are not UTF-8")]
    Utf8,
}

/// Decodes every escape, as for a variable of one segment.
pub(crate) fn decode(raw: &str) -> Result<Cow<'_, str>, Malformed> {
    decode_where(raw, false, |_| true)
}

/// Decodes a variable that spans segments: what would be ambiguous stays as it was written.
pub(crate) fn decode_segments(raw: &str, keep: MultiSegment) -> Result<Cow<'_, str>, Malformed> {
    match keep {
        MultiSegment::KeepSlash => decode_where(raw, false, |octet| octet != b'/'),
        MultiSegment::KeepReserved => decode_where(raw, false, |octet| !b":/?#[]@!$&'()*+,;=".contains(&octet)),
    }
}

/// Decodes a key or a value of a query, where `+` is a space.
pub(crate) fn decode_query(raw: &str) -> Result<Cow<'_, str>, Malformed> {
    decode_where(raw, true, |_| true)
}

fn decode_where(raw: &str, plus_is_space: bool, decodes: impl Fn(u8) -> bool) -> Result<Cow<'_, str>, Malformed> {
    let bytes = raw.as_bytes();
    let special = |byte: &u8| *byte == b'%' || (plus_is_space && *byte == b'+');
    let Some(first) = bytes.iter().position(special) else {
        return Ok(Cow::Borrowed(raw));
    };
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    loop {
        rest = match rest {
            [] => break,
            [b'+', tail @ ..] if plus_is_space => {
                out.push(b' ');
                tail
            }
            [b'%', high, low, tail @ ..] => {
                let octet = hex(*high)? << 4 | hex(*low)?;
                if decodes(octet) {
                    out.push(octet);
                } else {
                    out.extend_from_slice(&[b'%', *high, *low]);
                }
                tail
            }
            [b'%', ..] => return Err(Malformed::Escape),
            [other, tail @ ..] => {
                out.push(*other);
                tail
            }
        };
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| Malformed::Utf8)
}

fn hex(digit: u8) -> Result<u8, Malformed> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(Malformed::Escape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_segment_is_decoded_in_full() {
        for (raw, want) in [
            ("plain", Ok("plain")),
            ("a%20b", Ok("a b")),
            ("a+b", Ok("a+b")),
            ("a%2Fb%2fc", Ok("a/b/c")),
            ("a%3Ab%25", Ok("a:b%")),
            ("%E2%98%BA", Ok("☺")),
            ("100%2525", Ok("100%25")),
            ("%", Err(Malformed::Escape)),
            ("%4", Err(Malformed::Escape)),
            ("%zz", Err(Malformed::Escape)),
            ("%FF", Err(Malformed::Utf8)),
        ] {
            assert_eq!(decode(raw).as_deref(), want.as_ref().copied(), "{raw}");
        }
    }

    #[test]
    fn several_segments_keep_what_would_be_ambiguous() {
        for (raw, reserved, slash) in [
            ("a/b", "a/b", "a/b"),
            ("a%2Fb/c", "a%2Fb/c", "a%2Fb/c"),
            ("a%2fb", "a%2fb", "a%2fb"),
            ("a%3Ab%20c", "a%3Ab c", "a:b c"),
            ("%5B%40%5D", "%5B%40%5D", "[@]"),
            ("%E2%98%BA%7E", "☺~", "☺~"),
        ] {
            assert_eq!(
                decode_segments(raw, MultiSegment::KeepReserved).unwrap(),
                reserved,
                "{raw}"
            );
            assert_eq!(decode_segments(raw, MultiSegment::KeepSlash).unwrap(), slash, "{raw}");
        }
    }

    #[test]
    fn in_a_query_plus_is_a_space_and_its_escape_is_a_plus() {
        assert_eq!(decode_query("a+b%2Bc%20d").unwrap(), "a b+c d");
    }
}
