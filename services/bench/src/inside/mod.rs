//! What the engine costs inside one process: no network, no database, no other task unless it is what is measured.
//!
//! Nobody waits here, so time is the processor time of one thread, which others on the machine disturb little; only the stalls of
//! [`snapshot`] are time that passes. Reading order: [`machine`] (the core alone, with many open trades), [`core`] (what it costs),
//! [`large`] (a shard with many open trades), [`journal`] (a journal in memory), [`recovery`], [`snapshot`], [`resident`] (memory).

pub mod core;
pub mod journal;
pub mod large;
pub mod machine;
pub mod recovery;
pub mod resident;
pub mod snapshot;

use std::time::Duration;

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};

use crate::report::Report;

/// Runs measurements on a thread of its own, without a runtime around it.
///
/// # Errors
/// When a measurement fails or panics.
pub async fn apart<F>(measure: F) -> anyhow::Result<Report>
where
    F: FnOnce(&mut Report) -> anyhow::Result<()> + Send + 'static,
{
    let measured = tokio::task::spawn_blocking(move || {
        let mut report = Report::default();
        measure(&mut report)?;
        anyhow::Ok(report)
    });
    measured.await.context("a measurement panicked")?
}

/// How long the calling thread has had a processor.
#[must_use]
pub fn thread_time() -> Duration {
    let ran = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(ran.tv_sec).unwrap_or_default(),
        u32::try_from(ran.tv_nsec).unwrap_or_default(),
    )
}

/// How long the calling thread could have run and had no processor; nothing where the system does not say.
#[must_use]
pub fn thread_waited() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_ascii_whitespace().nth(1).and_then(|it| it.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// What something gives, and the processor time it took on this thread.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = thread_time();
    let made = work();
    (made, thread_time().saturating_sub(before))
}

/// Nanoseconds of this thread for each of so many.
fn each_ns(count: usize, work: impl FnOnce()) -> f64 {
    let ((), took) = timed(work);
    took.as_secs_f64() * 1e9 / count.max(1) as f64
}

/// As tables name a size.
fn size(count: usize) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{}k", count / 1_000),
        _ => format!("{}M", count / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_is_seen_to_and_one_that_waits_is_not() {
        let (_, waited) = timed(|| std::thread::park_timeout(Duration::from_millis(30)));
        let begun = std::time::Instant::now();
        let (sum, worked) = timed(|| {
            let mut sum = 0_u64;
            while begun.elapsed() < Duration::from_millis(30) {
                sum = std::hint::black_box(sum.wrapping_add(1));
            }
            sum
        });
        assert!(sum > 0 && worked > Duration::ZERO);
        assert!(waited < Duration::from_millis(30), "{waited:?}");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!([0, 999, 10_000, 1_000_000].map(size), ["0", "999", "10k", "1M"]);
    }
}
