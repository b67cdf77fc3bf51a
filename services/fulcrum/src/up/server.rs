//! The process of a store, which never outlives us, and is never run twice on the same data.
//!
//! We may be killed without a word. So a store runs under a small shell that waits at the end of a pipe we hold: when the pipe closes,
//! because we want it or because we are gone, the shell tells the store to stop. Should even the shell have been killed, the store's
//! own file with its process id says whom to stop before another is started.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::user::StoreUser;
use crate::failure::Failure;

/// `$1` is the signal that stops the store, the rest its command. Ends with the store and with its exit code.
const KEEPER: &str = r#"
signal=$1; shift
exec 3<&0 </dev/null
"$@" 3<&- & store=$!
{ read -r nothing <&3; kill -s "$signal" "$store"; } 2>/dev/null & watcher=$!
wait "$store"; status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"#;
/// How long a store may take to stop before it is killed: it writes out what it holds.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// Pause between two looks at a process.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much of a log is shown when a store does not run.
const TAIL_LINES: usize = 12;
const TAIL_BYTES: u64 = 8 * 1024;

/// How a store is run.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// For people.
    pub(super) name: &'static str,
    /// The program and its arguments.
    pub(super) command: Vec<OsString>,
    /// What it keeps its data in, and works in.
    pub(super) data: PathBuf,
    /// Its own file, whose first line is its process id.
    pub(super) pid_file: PathBuf,
    /// The signal, by name, that stops it in order.
    pub(super) signal: &'static str,
    /// Whom it runs as, when not as us.
    pub(super) user: Option<StoreUser>,
    /// Where its output goes.
    pub(super) log: PathBuf,
}

impl Server {
    /// Runs it until `stop`, then stops it in order.
    ///
    /// # Errors
    /// When it cannot be started, or ends by itself; with the end of its log.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<(), Failure> {
        stop_orphan(self.name, &self.pid_file, |pid| works_in(pid, &self.data)).await?;
        let mut log = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(&self.log)
            .with_context(|| format!("the log {}", self.log.display()))?;
        let begin = log.seek(SeekFrom::End(0)).context("the log")?;
        let mut keeper = self.spawn(&log)?;
        // Taken out, because waiting would close it.
        let pipe = keeper.stdin.take();
        let ended = tokio::select! {
            ended = keeper.wait() => ended.context("waiting for a store")?,
            () = stop.cancelled() => {
                drop(pipe);
                return self.stop(keeper).await;
            }
        };
        Err(anyhow::anyhow!(
            "{} ended ({ended}); the end of {}:\n{}",
            self.name,
            self.log.display(),
            tail(&mut log, begin)
        )
        .into())
    }

    fn spawn(&self, log: &File) -> anyhow::Result<Child> {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", KEEPER, "keeper", self.signal])
            .args(&self.command)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir(&self.data)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().context("the log")?)
            .stderr(log.try_clone().context("the log")?)
            // A terminal's interrupt goes to a whole group; the store is stopped by the pipe, in its turn.
            .process_group(0);
        if let Some(user) = &self.user {
            shell.uid(user.uid).gid(user.gid);
        }
        shell
            .spawn()
            .with_context(|| format!("{} cannot be started", self.name))
    }

    /// Waits for what the closed pipe told it to do.
    async fn stop(&self, mut keeper: Child) -> Result<(), Failure> {
        if tokio::time::timeout(STOP_WITHIN, keeper.wait()).await.is_ok() {
            return Ok(());
        }
        tracing::error!(limit = ?STOP_WITHIN, "{} does not stop; it is killed", self.name);
        if let Some(pid) = read_pid(&self.pid_file) {
            let _gone = kill_process(pid, Signal::KILL);
        }
        keeper.wait().await.context("waiting for a store")?;
        Ok(())
    }

    /// What it said lately.
    pub(super) fn log_tail(&self) -> String {
        File::open(&self.log)
            .map(|mut log| tail(&mut log, 0))
            .unwrap_or_default()
    }
}

/// Stops the process that a file names, if it still runs and is ours: what a killed predecessor left behind.
///
/// # Errors
/// When it does not go.
pub(super) async fn stop_orphan(name: &str, pid_file: &Path, is_ours: impl Fn(Pid) -> bool) -> anyhow::Result<()> {
    let Some(pid) = read_pid(pid_file).filter(|pid| is_ours(*pid)) else {
        return Ok(());
    };
    tracing::info!(
        pid = pid.as_raw_nonzero().get(),
        "stopping the {name} that an earlier run left behind"
    );
    for (signal, patience) in [
        (Signal::INT, Duration::from_secs(20)),
        (Signal::KILL, Duration::from_secs(10)),
    ] {
        let _gone = kill_process(pid, signal);
        let asked = Instant::now();
        while asked.elapsed() < patience {
            if test_kill_process(pid).is_err() || !is_ours(pid) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    bail!(
        "an earlier run left {name} behind as process {}, and it does not stop",
        pid.as_raw_nonzero()
    );
}

/// The process id in the first line of a file.
pub(super) fn read_pid(file: &Path) -> Option<Pid> {
    Pid::from_raw(fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok()?)
}

/// Whether a process works in a directory, which tells ours from another that got the same number.
fn works_in(pid: Pid, directory: &Path) -> bool {
    let its = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
    its.is_ok_and(|its| fs::canonicalize(directory).is_ok_and(|ours| its == ours))
}

fn tail(log: &mut File, begin: u64) -> String {
    let mut read = || {
        let end = log.seek(SeekFrom::End(0))?;
        log.seek(SeekFrom::Start(begin.max(end.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    last.iter()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(directory: &Path, script: &str) -> Server {
        Server {
            name: "a store",
            command: ["/bin/sh", "-c", script].map(OsString::from).to_vec(),
            data: directory.to_owned(),
            pid_file: directory.join("pid"),
            signal: "TERM",
            user: None,
            log: directory.join("log"),
        }
    }

    async fn pid_of(server: &Server) -> Pid {
        loop {
            if let Some(pid) = read_pid(&server.pid_file) {
                return pid;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    #[tokio::test]
    async fn a_store_that_ends_says_what_its_log_says() {
        let directory = tempfile::tempdir().unwrap();
        let server = server(directory.path(), "echo the disk is full; exit 7");
        fs::write(&server.log, "from yesterday\n").unwrap();
        let failure = server.run(CancellationToken::new()).await.unwrap_err().to_string();
        assert!(
            failure.contains("the disk is full") && failure.contains("7"),
            "{failure}"
        );
        assert!(!failure.contains("yesterday"), "{failure}");
    }

    #[tokio::test]
    async fn a_store_is_stopped_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let script = "trap 'echo in order; exit 0' TERM; echo $$ > pid; while :; do sleep 0.02; done";
        let server = server(directory.path(), script);
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.clone().run(stop.clone()));
        let pid = pid_of(&server).await;
        stop.cancel();
        running.await.unwrap().unwrap();
        assert!(test_kill_process(pid).is_err());
        assert!(server.log_tail().contains("in order"));
    }

    #[tokio::test]
    async fn an_orphan_is_stopped_before_another_is_started() {
        let directory = tempfile::tempdir().unwrap();
        let server = server(directory.path(), "echo $$ > pid.new; mv pid.new pid; exec sleep 600");
        let mut orphan = std::process::Command::new("/bin/sh")
            .args(["-c", "exec sleep 600"])
            .current_dir(directory.path())
            .spawn()
            .unwrap();
        fs::write(&server.pid_file, orphan.id().to_string()).unwrap();
        let reaped = std::thread::spawn(move || orphan.wait().unwrap());
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.clone().run(stop.clone()));
        let ended = tokio::task::spawn_blocking(move || reaped.join().unwrap())
            .await
            .unwrap();
        assert!(!ended.success());
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_stranger_with_the_same_number_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let pid_file = directory.path().join("pid");
        fs::write(&pid_file, std::process::id().to_string()).unwrap();
        stop_orphan("a store", &pid_file, |pid| works_in(pid, directory.path()))
            .await
            .unwrap();
    }
}
