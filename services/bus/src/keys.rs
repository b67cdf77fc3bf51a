//! Every Redis key, in one place. What belongs to a shard carries the hash tag `{s<shard>}`, so that Redis Cluster keeps it together.

use uuid::Uuid;

/// The stream of price batches.
pub(crate) const PRICES: &str = "price_stream";
/// The namespace of reply lists; the engine answers nowhere else.
pub(crate) const REPLIES: &str = "replies:";

/// The list of requests of a shard.
pub(crate) fn requests(shard: u32) -> String {
    format!("{{s{shard}}}:requests")
}

/// The stream of committed journal entries of a shard.
pub(crate) fn events(shard: u32) -> String {
    format!("{{s{shard}}}:events")
}

/// Present while a leader serves the shard.
pub(crate) fn leader(shard: u32) -> String {
    format!("{{s{shard}}}:leader")
}

/// The reply list of one gateway process, named by its boot.
#[must_use]
pub fn replies(boot: Uuid) -> String {
    format!("{REPLIES}{}", boot.simple())
}

/// Whether the engine may answer there: the namespace, then 1 to 64 letters, digits and hyphens.
#[must_use]
pub fn is_reply_list(key: &str) -> bool {
    key.strip_prefix(REPLIES).is_some_and(|rest| {
        (1..=64).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_answers_only_to_reply_lists() {
        assert!(is_reply_list(&replies(Uuid::nil())));
        for foreign in [
            "",
            "replies:",
            "price_stream",
            "{s0}:requests",
            "replies:{s0}",
            "replies:a b",
            &format!("replies:{}", "a".repeat(65)),
        ] {
            assert!(!is_reply_list(foreign), "{foreign}");
        }
    }
}
