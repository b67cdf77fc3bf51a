//! One role as a process of its own: the real program, which can be killed, stopped in order, and made to stand still.
//!
//! No process outlives the run, however that ends: a role stops when the pipe on its standard input closes, and one that stands still is
//! woken by a small shell at the end of another pipe.

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// How long a role may take to end after it was told to.
const STOP_WITHIN: Duration = Duration::from_secs(90);
/// Wakes the process `$1` when the pipe closes.
const WAKER: &str = r#"read -r nothing; kill -s CONT "$1""#;
/// Lines of a log that are shown.
const TAIL_LINES: usize = 20;

/// How a role is run.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its environment besides our own.
    pub environment: Vec<(OsString, OsString)>,
    /// Where its output goes.
    pub log: PathBuf,
}

/// A role that runs, or did until a moment ago.
#[derive(Debug)]
pub struct Process {
    /// How it is run.
    pub recipe: Recipe,
    child: Option<Child>,
}

impl Process {
    /// One that does not run yet.
    #[must_use]
    pub fn new(recipe: Recipe) -> Self {
        Self { recipe, child: None }
    }

    /// Runs it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.recipe.log);
        let log = log.with_context(|| self.recipe.log.display().to_string())?;
        let child = Command::new(&self.recipe.program)
            .args(&self.recipe.arguments)
            .envs(self.recipe.environment.iter().map(|(name, value)| (name, value)))
            // Held as long as the child is, and closed when we go, which the role takes as its end.
            .stdin(Stdio::piped())
            .stdout(log.try_clone().context("the log")?)
            .stderr(log)
            // A terminal's interrupt goes to a whole group; roles are ended by us.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.with_context(|| self.recipe.program.display().to_string())?);
        Ok(())
    }

    /// Whether it was started and its end not seen yet.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// How it ended, if it did by itself since the last look.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let ended = child.try_wait().context("looking at a child")?;
        if ended.is_some() {
            self.child = None;
        }
        Ok(ended)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not.
    pub async fn end(&mut self) -> anyhow::Result<ExitStatus> {
        let child = self.child.as_mut().context("it does not run")?;
        // Not `Child::wait`, which closes the pipe and so would end it.
        let ended = async {
            loop {
                if let Some(ended) = child.try_wait()? {
                    return std::io::Result::Ok(ended);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let Ok(ended) = tokio::time::timeout(STOP_WITHIN, ended).await else {
            bail!("it does not end; its log:\n{}", self.log_tail());
        };
        self.child = None;
        ended.context("waiting for a child")
    }

    /// Kills it with signal 9.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.end().await?;
        Ok(())
    }

    /// Tells it to stop in order.
    ///
    /// # Errors
    /// When it does not run.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Makes it stand still as long as the answer lives.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> anyhow::Result<Paused> {
        let pid = self.pid()?;
        let waker = Command::new("/bin/sh")
            .args(["-c", WAKER, "waker", &pid.as_raw_nonzero().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("a shell")?;
        let paused = Paused { pid, _waker: waker };
        kill_process(pid, Signal::STOP).context("it runs")?;
        Ok(paused)
    }

    /// All it said.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.recipe.log).unwrap_or_default()
    }

    /// The end of what it said.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.pid()?, signal).context("it runs")
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let pid = self.child.as_ref().and_then(Child::id);
        pid.and_then(|pid| Pid::from_raw(pid.cast_signed()))
            .context("it does not run")
    }
}

/// A process that stands still until this is dropped.
#[derive(Debug)]
pub struct Paused {
    pid: Pid,
    /// Its pipe closes with this value and with our process.
    _waker: Child,
}

impl Drop for Paused {
    fn drop(&mut self) {
        // Gone already: then there is nothing to wake.
        let _gone = kill_process(self.pid, Signal::CONT);
    }
}
