//! What account ids, symbols and trade ids look like.

/// Longest account id.
pub const ACCOUNT_ID_MAX: usize = 64;
/// Longest symbol.
pub const SYMBOL_MAX: usize = 32;
/// The account id that stands for the only account of the caller's token.
pub const ME: &str = "me";

/// Checks an account id: lower-case letters, digits, `-` and `_`, first a letter or digit, 1 to 64 characters, not `me`.
///
/// # Errors
/// Advice for the sender.
pub fn check_account_id(text: &str) -> Result<(), &'static str> {
    let first = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let rest = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_');
    if first && rest && text.len() <= ACCOUNT_ID_MAX && text != ME {
        Ok(())
    } else {
        Err("must be 1 to 64 lower-case letters, digits, \"-\" or \"_\", beginning with a letter or digit")
    }
}

/// Checks the look of a symbol or currency code: capital letters, digits, `_` and `.`, 1 to 32 characters.
///
/// # Errors
/// Advice for the sender.
pub fn check_symbol(text: &str) -> Result<(), &'static str> {
    let all = text
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'.');
    if !text.is_empty() && text.len() <= SYMBOL_MAX && all {
        Ok(())
    } else {
        Err("must be 1 to 32 capital letters, digits, \"_\" or \".\", for example \"SOL_USDC\"")
    }
}

/// Writes a trade id: shard, hyphen, number in the shard.
#[must_use]
pub fn trade_id(shard: u32, number: u64) -> String {
    format!("{shard}-{number}")
}

/// Reads a trade id into shard and number.
///
/// # Errors
/// Advice for the sender.
pub fn parse_trade_id(text: &str) -> Result<(u32, u64), &'static str> {
    let parts = text
        .split_once('-')
        .and_then(|(shard, number)| Some((shard.parse().ok()?, number.parse().ok()?)));
    match parts {
        Some((shard, number)) if trade_id(shard, number) == text && number > 0 => Ok((shard, number)),
        _ => Err("must be a trade id such as \"7-1042\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["demo", "a", "0", "acct-1_x", &"a".repeat(64)] {
            assert!(check_account_id(good).is_ok(), "{good}");
        }
        for bad in ["", "me", "Demo", "-a", "a b", "a/b", "é", "{s1}", &"a".repeat(65)] {
            assert!(check_account_id(bad).is_err(), "{bad}");
        }
        assert!(check_symbol("SPCX.US_USDC").is_ok());
        assert!(check_symbol("sol_usdc").is_err());
    }

    #[test]
    fn a_trade_id_has_one_spelling() {
        assert_eq!(parse_trade_id("7-1042"), Ok((7, 1042)));
        for bad in ["", "7", "-1", "7-", "07-1", "7-01", "7-+1", "7-0", "a-b", "7-1-2"] {
            assert!(parse_trade_id(bad).is_err(), "{bad}");
        }
        assert_eq!(trade_id(0, 1), "0-1");
    }
}
