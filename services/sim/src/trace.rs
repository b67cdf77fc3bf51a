//! What happened in a run, as a hash that two runs are compared by, and on request as lines for people.

use std::cell::RefCell;

use xxhash_rust::xxh3::xxh3_64_with_seed;

thread_local! {
    /// Lines of the run on this thread; the log of the engines goes here too, so that both stand in one order.
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// The trace of one run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    notes: u64,
}

impl Trace {
    /// Notes that something happened. `who` and `what` go into the hash, `detail` is for people and costs nothing unless asked for.
    pub fn note(&mut self, at_us: u64, what: &'static str, who: u64, number: u64, detail: impl FnOnce() -> String) {
        let numbers = [at_us, who, number, self.hash].map(u64::to_le_bytes);
        self.hash = xxh3_64_with_seed(numbers.as_flattened(), xxh3_64_with_seed(what.as_bytes(), 0));
        self.notes += 1;
        line(|| {
            let (ms, us) = (at_us / 1_000, at_us % 1_000);
            format!("{ms:>7}.{us:03} {what:<22} {who:>3} {number:>6}  {}", detail())
        });
    }

    /// Hash over everything noted.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How much was noted.
    pub fn notes(&self) -> u64 {
        self.notes
    }
}

/// Keeps lines from now on, on this thread.
pub fn keep_lines() {
    LINES.set(Some(Vec::new()));
}

/// Takes the lines kept since.
pub fn take_lines() -> Vec<String> {
    LINES.take().unwrap_or_default()
}

/// Keeps a line, if lines are kept.
pub fn line(text: impl FnOnce() -> String) {
    LINES.with_borrow_mut(|lines| {
        if let Some(lines) = lines {
            lines.push(text());
        }
    });
}
