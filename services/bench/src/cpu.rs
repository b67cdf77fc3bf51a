//! Who used how much processor: by process and by thread, from the scheduler's own counts.
//!
//! `/proc/<pid>/task/<tid>/schedstat` counts the nanoseconds a thread has run. On a machine that is shared it is much steadier than a
//! rate: what others do makes us wait, not work (caches and clocks apart). What a thread did that ended between two readings is lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A unit of `/proc/stat`: Linux has counted in hundredths of a second for all programs since long ago.
const TICK: Duration = Duration::from_millis(10);

/// What is watched under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A process with all that descend from it.
    Process(u32),
    /// One thread of this process.
    Thread(u32),
}

/// Processes that count to a name of their own instead of to that of the family they are in; others may come while it is watched.
pub type Apart = Arc<Mutex<BTreeSet<u32>>>;

/// Names and what counts to them.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    subjects: Vec<(String, Subject)>,
    apart: Vec<(String, Apart)>,
}

/// What was counted at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Nanoseconds by name and thread.
    ran: BTreeMap<String, HashMap<u32, u64>>,
    machine: Duration,
    at: Instant,
}

/// What happened between two readings.
#[derive(Clone, Debug)]
pub struct Used {
    /// Processor time by name.
    pub by_name: BTreeMap<String, Duration>,
    /// Between the readings.
    pub wall: Duration,
    /// Part of the whole machine that was used by what is not watched, 0 to 1.
    pub others: f64,
}

impl Watch {
    /// Watches one more subject.
    pub fn add(&mut self, name: &str, subject: Subject) {
        self.subjects.push((name.to_owned(), subject));
    }

    /// Counts these to `name`, in whatever family they are.
    pub fn set_apart(&mut self, name: &str, processes: &Apart) {
        self.apart.push((name.to_owned(), Arc::clone(processes)));
    }

    /// Watches what another does, too.
    #[must_use]
    pub fn and(mut self, other: &Watch) -> Self {
        self.subjects.extend(other.subjects.iter().cloned());
        self.apart.extend(other.apart.iter().cloned());
        self
    }

    fn name_apart(&self, pid: u32) -> Option<&str> {
        let known = |processes: &Apart| processes.lock().is_ok_and(|it| it.contains(&pid));
        let (name, _) = self.apart.iter().find(|(_, processes)| known(processes))?;
        Some(name)
    }

    /// Counts now.
    #[must_use]
    pub fn read(&self) -> Reading {
        let parents = parents();
        let mut ran: BTreeMap<String, HashMap<u32, u64>> = BTreeMap::new();
        for (name, subject) in &self.subjects {
            ran.entry(name.clone()).or_default();
            match subject {
                Subject::Thread(tid) => ran
                    .entry(name.clone())
                    .or_default()
                    .extend(thread(std::process::id(), *tid)),
                Subject::Process(root) => {
                    for pid in family(*root, &parents) {
                        let name = self.name_apart(pid).unwrap_or(name);
                        ran.entry(name.to_owned()).or_default().extend(threads_of(pid));
                    }
                }
            }
        }
        Reading {
            ran,
            machine: machine().unwrap_or_default(),
            at: Instant::now(),
        }
    }
}

impl Reading {
    /// What was used since `before`.
    #[must_use]
    pub fn since(&self, before: &Reading) -> Used {
        let mut by_name = BTreeMap::new();
        for (name, threads) in &self.ran {
            let nanos = threads.iter().map(|(tid, ran)| {
                // Under whatever name: it may have been known for what it is in between.
                let had = before.ran.values().find_map(|it| it.get(tid)).copied();
                ran.saturating_sub(had.unwrap_or_default())
            });
            by_name.insert(name.clone(), Duration::from_nanos(nanos.sum()));
        }
        let wall = self.at.duration_since(before.at);
        let own: Duration = by_name.values().sum();
        let busy = self.machine.saturating_sub(before.machine);
        Used {
            others: others(busy, own, wall, cores()),
            by_name,
            wall,
        }
    }
}

/// The part of a machine that was busy with other things than ours.
fn others(busy: Duration, own: Duration, wall: Duration, cores: usize) -> f64 {
    let capacity = wall.as_secs_f64() * cores as f64;
    if capacity > 0.0 {
        (busy.saturating_sub(own).as_secs_f64() / capacity).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

/// How many processors there are.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The number of the calling thread.
#[must_use]
pub fn this_thread() -> u32 {
    fs::read_link("/proc/thread-self")
        .ok()
        .and_then(|path| path.file_name()?.to_str()?.parse().ok())
        .unwrap_or_default()
}

fn threads_of(pid: u32) -> Vec<(u32, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    tasks
        .filter_map(|task| thread(pid, task.file_name().to_str()?.parse().ok()?))
        .collect()
}

fn thread(pid: u32, tid: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?;
    Some((tid, ran_ns(&text)?))
}

/// The first number of a `schedstat`: nanoseconds on a processor.
fn ran_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

/// Parent of each process.
fn parents() -> HashMap<u32, u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, parent(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
    })
    .collect()
}

/// The parent in a `stat`, whose second field is a name in parentheses that may hold anything.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn family(root: u32, parents: &HashMap<u32, u32>) -> BTreeSet<u32> {
    let mut family = BTreeSet::from([root]);
    loop {
        let before = family.len();
        family.extend(
            parents
                .iter()
                .filter(|(_, parent)| family.contains(parent))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if family.len() == before {
            return family;
        }
    }
}

/// Time for which all processors together were busy since the start.
fn machine() -> Option<Duration> {
    busy(&fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of `/proc/stat`: user, nice, system, idle, waiting for disks, interrupts, soft interrupts, stolen. All but the two
/// idle ones is time that we could not have; stolen time is another machine's.
fn busy(stat: &str) -> Option<Duration> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u32> = line
        .split_ascii_whitespace()
        .take(8)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let idle: u32 = fields.iter().skip(3).take(2).sum();
    Some(TICK * (fields.iter().sum::<u32>() - idle))
}

/// The process whose number stands in a file.
#[must_use]
pub fn pid_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file)
        .ok()?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedstat_begins_with_the_time_on_a_processor() {
        assert_eq!(ran_ns("123456789 42 7\n"), Some(123_456_789));
        assert_eq!(ran_ns(""), None);
        assert_eq!(ran_ns("x 1 2"), None);
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_hide_the_parent() {
        assert_eq!(parent("42 (postgres: (a) b) S 7 42 42 0 -1"), Some(7));
        assert_eq!(parent("nonsense"), None);
    }

    #[test]
    fn a_family_is_all_that_descend_and_nobody_else() {
        let parents = HashMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (1, 0)]);
        assert_eq!(family(2, &parents), BTreeSet::from([2, 3, 4]));
    }

    #[test]
    fn idle_time_is_not_busy_and_stolen_time_is() {
        let stat = "cpu  100 0 50 1000 20 0 5 45 0 0\ncpu0 1 2 3\n";
        assert_eq!(busy(stat), Some(Duration::from_secs(2)));
        assert_eq!(busy("intr 1"), None);
    }

    #[test]
    fn others_are_what_is_neither_idle_nor_ours() {
        let seconds = Duration::from_secs;
        assert!((others(seconds(3), seconds(1), seconds(2), 2) - 0.5).abs() < 1e-9);
        assert_eq!(
            others(seconds(1), seconds(2), seconds(2), 2).to_bits(),
            0.0_f64.to_bits()
        );
        assert_eq!(
            others(seconds(1), seconds(0), seconds(0), 2).to_bits(),
            0.0_f64.to_bits()
        );
    }

    #[test]
    fn what_is_set_apart_counts_to_its_own_name_only() {
        let us = std::process::id();
        let mut watch = Watch::default();
        watch.add("all", Subject::Process(us));
        let apart = Apart::default();
        watch.set_apart("some", &apart);
        let before = watch.read();
        assert!(before.ran["all"].contains_key(&us));
        apart.lock().unwrap().insert(us);
        let after = watch.read();
        assert!(after.ran["some"].contains_key(&us) && !after.ran["all"].contains_key(&us));
        let used = after.since(&before);
        assert!(
            used.by_name["some"] <= used.wall * 64,
            "what it had used before is not counted again"
        );
    }

    #[test]
    fn this_thread_is_seen_to_work() {
        let mut watch = Watch::default();
        watch.add("us", Subject::Thread(this_thread()));
        watch.add("all", Subject::Process(std::process::id()));
        let before = watch.read();
        let begun = Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed() < Duration::from_millis(30) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        let used = watch.read().since(&before);
        assert!(used.by_name["us"] > Duration::ZERO);
        assert!(used.by_name["all"] >= used.by_name["us"]);
        assert!(used.wall >= Duration::from_millis(30));
    }
}
