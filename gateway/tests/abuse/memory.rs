//! The memory of this process, as the system counts it.

use tokio::sync::{Mutex, MutexGuard};

static ALONE: Mutex<()> = Mutex::const_new(());

/// How much a story may add at its worst moment, attackers and neighbour included: a sixteenth of what a gateway in
/// the cluster gets, and far less than any of the stories would take from a server without limits.
pub const GROWTH_MAX: u64 = 64 << 20;

/// Memory from here on, with no other story running.
pub struct Watch {
    before: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Watch {
    /// Waits for the others to end.
    pub async fn begin() -> Self {
        let alone = ALONE.lock().await;
        // The peak is counted anew from here.
        std::fs::write("/proc/self/clear_refs", "5").expect("the peak can be set back");
        Self {
            before: resident(),
            _alone: alone,
        }
    }

    /// How much there was more at the worst moment.
    pub fn growth(&self) -> u64 {
        read("VmHWM").saturating_sub(self.before)
    }

    /// How much there is more now.
    pub fn held(&self) -> u64 {
        resident().saturating_sub(self.before)
    }

    /// Says how much was used, and that it was not too much.
    #[track_caller]
    pub fn end(self, story: &str) {
        self.end_within(story, GROWTH_MAX);
    }

    /// The same with a bound of the story's own.
    #[track_caller]
    pub fn end_within(self, story: &str, most: u64) {
        let growth = self.growth();
        println!(
            "{story}: {} KiB more at the worst moment, at most {}",
            growth >> 10,
            most >> 10
        );
        assert!(growth <= most, "{story}: {growth} bytes more at the worst moment");
    }
}

fn resident() -> u64 {
    read("VmRSS")
}

fn read(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the system says");
    let line = status
        .lines()
        .find(|line| line.starts_with(name))
        .expect("a line of it");
    let kib: u64 = line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}
