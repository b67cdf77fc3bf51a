//! Memory of open trades and accounts: how much more of it the process holds, page by page.
//!
//! The resident set is what a machine runs out of: it counts what an allocator wastes and what tables keep free. It only tells the truth
//! in a process that has freed little so far, so this is measured before anything else, and nothing is let go in between.

use anyhow::Context as _;

use super::large::{Content, Large};
use super::machine::Machine;
use super::size;
use crate::marks::{Limit, Mark};
use crate::report::Report;
use crate::sample::Spread;

/// Operations of an account that are remembered in what is judged: its wallet, and deposits.
const OPERATIONS: usize = 2;
/// Size of a page. Bytes.
const PAGE: u64 = 4_096;

/// Measures so many open trades, and so many accounts. Judges mark 16.
///
/// # Errors
/// When the system does not say how much memory we have.
pub fn run(trades: usize, accounts: usize, report: &mut Report) -> anyhow::Result<()> {
    // The shell of a process that just started is made now, not while it is measured.
    drop(Machine::with(1_000));
    let begun = resident()?;
    let machine = Machine::of_accounts(trades.div_ceil(10));
    let of_accounts = resident()?;
    let mut machine = machine;
    (0..trades).for_each(|n| drop(machine.open(n)));
    let of_trades = resident()?;
    let shard = Large::build(accounts, Content::Deposits(OPERATIONS - 1), |_, _| ());
    let of_shard = resident()?;
    let full = Large::build(trades, Content::Trades, |_, _| ());
    let of_full = resident()?;
    let each = |from: u64, to: u64, count: usize| Spread::of(&[to.saturating_sub(from) as f64 / count.max(1) as f64]);
    let in_core = each(begun, of_accounts, trades.div_ceil(10));
    report.figure("an account of the core, with a balance", "B", in_core);
    let whole = each(of_shard, of_full, trades);
    report.figure(
        &format!(
            "an open trade of {} with its share of an account and its remembered operation",
            size(trades)
        ),
        "B",
        whole,
    );
    report.judged(Mark::judge(
        16,
        &format!("memory of an open trade, B, of {}", size(trades)),
        Limit::AtMost(400.0),
        each(of_accounts, of_trades, trades),
    ));
    report.judged(Mark::judge(
        16,
        &format!(
            "memory of an account with {OPERATIONS} remembered operations, B, of {}",
            size(accounts)
        ),
        Limit::AtMost(1_024.0),
        each(of_trades, of_shard, accounts),
    ));
    drop((machine, shard, full));
    Ok(())
}

/// Bytes of this process in memory.
fn resident() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").context("/proc/self/statm")?;
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|it| it.parse().ok())
        .context("/proc/self/statm is not as expected")?;
    Ok(pages * PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_written_to_is_seen() {
        let before = resident().unwrap();
        let held = vec![7_u8; 64 << 20];
        assert!(resident().unwrap() >= before + (32 << 20), "{}", held.len());
    }
}
