//! The `request_id` of a mutation: a UUIDv7, whose own time bounds how long a repeat is recognised.

use uuid::Uuid;

/// How far in the future a `request_id` may be, for clocks that run ahead. Milliseconds.
pub const AHEAD_MAX_MS: u64 = 5 * 60 * 1000;

/// Reads a `request_id`.
///
/// # Errors
/// Advice for the sender when the text is not a UUIDv7.
pub fn parse(text: &str) -> Result<Uuid, &'static str> {
    let id =
        Uuid::try_parse(text).map_err(|_| "must be a UUIDv7, for example \"0190163d-8694-739b-aea5-966c26f8ad91\"")?;
    if id.get_version_num() != 7 {
        return Err("must be a UUID of version 7: its time bounds how long a repeat is recognised");
    }
    Ok(id)
}

/// The time in a UUIDv7, milliseconds since the epoch.
#[must_use]
pub fn time_ms(id: Uuid) -> u64 {
    u64::try_from(id.as_u128() >> 80).expect("48 bits fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_7_uuid_carries_its_time() {
        let id = parse("0190163d-8694-739b-aea5-966c26f8ad91").unwrap();
        assert_eq!(time_ms(id), 0x0190_163d_8694);
    }

    #[test]
    fn other_versions_and_garbage_are_refused() {
        for text in [
            "",
            "1",
            "a3bb189e-8bf9-4888-9912-ace4e6543002",
            "0190163d-8694-739b-aea5",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
