//! Which shard an account lives on: the one mapping that gateway, engine and recorder share.

/// The number of shards a deployment has unless it was migrated with another.
pub const SHARDS_DEFAULT: u32 = 16;
/// The largest number of shards.
pub const SHARDS_MAX: u32 = 1024;

/// The shard of an account, 0 to `shards` − 1: FNV-1a (64 bit) of the id, folded by a multiply, for ever the same.
///
/// # Panics
/// Never for `shards` ≥ 1; a deployment has at least one shard.
#[must_use]
pub fn of_account(account_id: &str, shards: u32) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in account_id.bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    // FNV's high bits are weak for short ids; a Fibonacci multiply spreads them before the range is cut.
    let spread = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let shard = (u128::from(spread) * u128::from(shards)) >> 64;
    u32::try_from(shard).expect("smaller than `shards`, which is a u32")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapping_never_changes() {
        // Written down once: another value here would send accounts to shards that do not know them.
        let now: Vec<u32> = ["demo", "alice", "bob", "acct-000001"]
            .map(|id| of_account(id, 16))
            .to_vec();
        assert_eq!(now, GOLDEN);
    }

    const GOLDEN: [u32; 4] = [3, 4, 1, 0];

    #[test]
    fn accounts_spread_evenly() {
        let mut counts = [0u32; 16];
        for n in 0..16_000 {
            counts[of_account(&format!("account-{n}"), 16) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
