//! Page tokens: where the next page starts, and for which filter and order.
//!
//! Opaque to clients, but no secret: the account of a page is always the authorised one, whatever a token says.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::Xxh3;

use crate::failure::Failure;

const VERSION: u8 = 2;
/// Where the value stands that a list is ordered by: after version, filter, major and minor. A checksum ends the token.
const VALUE_AT: usize = 1 + 8 + 8 + 8;
const CHECKSUM_BYTES: usize = 4;

/// Filter and order of a list, folded into a number: a token is good for the list it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter(u64);

impl Filter {
    /// Of these fields, in this order; `list` keeps the lists apart.
    pub fn of(list: &str, fields: &[&str]) -> Self {
        let mut hash = Xxh3::new();
        for field in std::iter::once(&list).chain(fields) {
            hash.update(&(field.len() as u64).to_be_bytes());
            hash.update(field.as_bytes());
        }
        Self(hash.digest())
    }

    /// A token for the page after this position.
    pub fn token(self, after: &Position) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.0.to_be_bytes());
        bytes.extend(after.major.to_be_bytes());
        bytes.extend(after.minor.to_be_bytes());
        bytes.extend(after.value.as_bytes());
        bytes.extend(checksum(&bytes));
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position in a token; nothing for the first page.
    pub fn position(self, token: &str) -> Result<Option<Position>, Failure> {
        if token.is_empty() {
            return Ok(None);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| foreign())?;
        let (told, sum) = bytes
            .len()
            .checked_sub(CHECKSUM_BYTES)
            .filter(|told| *told >= VALUE_AT)
            .map(|told| bytes.split_at(told))
            .ok_or_else(foreign)?;
        if told[0] != VERSION || sum != checksum(told) {
            return Err(foreign());
        }
        let number = |from: usize| u64::from_be_bytes(told[from..from + 8].try_into().expect("eight bytes"));
        if number(1) != self.0 {
            return Err(Failure::invalid(
                "page_token",
                "belongs to another filter or order: the other fields must stay the same",
            ));
        }
        Ok(Some(Position {
            value: std::str::from_utf8(&told[VALUE_AT..])
                .map_err(|_| foreign())?
                .to_owned(),
            major: number(9),
            minor: number(17),
        }))
    }
}

/// What is said of a token that was not made here.
pub(crate) fn foreign() -> Failure {
    Failure::invalid("page_token", "is not a token that this service gave out")
}

/// A place in a list: what its rows are ordered by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// First, as text; empty where rows are ordered by the numbers alone.
    pub value: String,
    /// Then.
    pub major: u64,
    /// Then.
    pub minor: u64,
}

impl Position {
    /// Of a list that is ordered by numbers.
    pub fn of(major: u64, minor: u64) -> Self {
        Self {
            value: String::new(),
            major,
            minor,
        }
    }
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = xxhash_rust::xxh3::xxh3_64(bytes).to_be_bytes();
    [a, b, c, d]
}

/// Cuts a page off rows that were asked for with one too many, and makes the token of the next.
pub(crate) fn cut<T>(
    mut rows: Vec<T>,
    size: usize,
    filter: Filter,
    position: impl Fn(&T) -> Position,
) -> (Vec<T>, String) {
    if rows.len() <= size {
        return (rows, String::new());
    }
    rows.truncate(size);
    let token = rows
        .last()
        .map(|last| filter.token(&position(last)))
        .unwrap_or_default();
    (rows, token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_back_to_its_position() {
        let filter = Filter::of("trades", &["demo", "1", ""]);
        for value in ["", "-1.50", "2026-01-03T00:00:00.123456Z"] {
            let position = Position {
                value: value.to_owned(),
                ..Position::of(42, 7)
            };
            assert_eq!(filter.position(&filter.token(&position)).unwrap(), Some(position));
        }
        assert_eq!(filter.position("").unwrap(), None);
    }

    #[test]
    fn a_token_of_another_filter_or_none_of_ours_is_refused_by_name() {
        let filter = Filter::of("trades", &["demo", "1", ""]);
        let other = Filter::of("trades", &["demo", "", "1"]);
        assert_ne!(filter, other, "fields do not run into each other");
        let token = filter.token(&Position::of(1, 0));
        let mut tampered = token.clone().into_bytes();
        tampered[20] ^= 1;
        let tampered = String::from_utf8_lossy(&tampered).into_owned();
        for (filter, token) in [
            (other, token.as_str()),
            (filter, tampered.as_str()),
            (filter, "x"),
            (filter, "****"),
            (filter, "AAAA"),
        ] {
            let Err(Failure::Invalid(violations)) = filter.position(token) else {
                panic!("{token} is refused")
            };
            assert_eq!(violations[0].field, "page_token");
        }
    }

    #[test]
    fn a_page_has_a_next_one_only_if_there_is_more() {
        let filter = Filter::of("x", &[]);
        let at = |row: &u64| Position::of(*row, 0);
        assert_eq!(cut(vec![3, 2], 2, filter, at), (vec![3, 2], String::new()));
        let (rows, token) = cut(vec![3, 2, 1], 2, filter, at);
        assert_eq!(
            (rows, filter.position(&token).unwrap()),
            (vec![3, 2], Some(Position::of(2, 0)))
        );
    }
}
