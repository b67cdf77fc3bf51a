//! A simulated process: it runs, stands still, or is dead.
//!
//! Everything it does with the world goes through its gate. A process that stands still waits there, like one that got SIGSTOP; a
//! dead one waits for ever, so that nothing of it happens after its death, whatever its tasks still hold.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Paused,
    Dead,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Process(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    number: u64,
    phase: Mutex<Phase>,
    /// Rings when the phase changes. Not a watch channel: that one wakes its receivers in an order of chance.
    changed: Notify,
    /// Passes of the gate left until it dies; 0: it lives on.
    fuse: AtomicU32,
    /// How far its machine's wall clock is off. Microseconds.
    wall_off_us: AtomicI64,
}

impl Process {
    /// A running process.
    pub fn new(number: u64) -> Self {
        Self(Arc::new(Inner {
            number,
            phase: Mutex::new(Phase::Running),
            changed: Notify::new(),
            fuse: AtomicU32::new(0),
            wall_off_us: AtomicI64::new(0),
        }))
    }

    /// Its number in traces.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// The gate: passed at once by a running process, after its pause by a paused one, never by a dead one.
    pub async fn pass(&self) {
        let fuse = self.0.fuse.load(Ordering::Relaxed);
        if fuse > 0 {
            self.0.fuse.store(fuse - 1, Ordering::Relaxed);
            if fuse == 1 {
                self.kill();
            }
        }
        self.until(Phase::Running).await;
    }

    async fn until(&self, phase: Phase) {
        loop {
            let changes = self.0.changed.notified();
            if self.phase() == phase {
                return;
            }
            changes.await;
        }
    }

    fn phase(&self) -> Phase {
        *self.0.phase.lock().expect("nothing panics while it holds this lock")
    }

    /// It dies here and now.
    pub fn kill(&self) {
        self.turn(&[Phase::Running, Phase::Paused], Phase::Dead);
    }

    /// It dies after passing the gate so many times more.
    pub fn kill_after(&self, passes: u32) {
        self.0.fuse.store(passes.max(1), Ordering::Relaxed);
    }

    /// It stands still.
    pub fn pause(&self) {
        self.turn(&[Phase::Running], Phase::Paused);
    }

    /// It goes on.
    pub fn resume(&self) {
        self.turn(&[Phase::Paused], Phase::Running);
    }

    fn turn(&self, from: &[Phase], to: Phase) {
        let mut phase = self.0.phase.lock().expect("nothing panics while it holds this lock");
        if from.contains(&phase) {
            *phase = to;
            self.0.changed.notify_waiters();
        }
    }

    /// Whether it is dead.
    pub fn is_dead(&self) -> bool {
        self.phase() == Phase::Dead
    }

    /// Waits for its death.
    pub async fn died(&self) {
        self.until(Phase::Dead).await;
    }

    /// How far its machine's clock is off. Microseconds.
    pub fn wall_off_us(&self) -> i64 {
        self.0.wall_off_us.load(Ordering::Relaxed)
    }

    /// Sets its machine's clock wrong, or right again.
    pub fn set_wall_off_us(&self, off_us: i64) {
        self.0.wall_off_us.store(off_us, Ordering::Relaxed);
    }
}
