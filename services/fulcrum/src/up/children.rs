//! A role as a process of its own: the same program, with another command.
//!
//! A child is told to stop by a signal in its turn, and stops by itself when its standard input ends, which is when we are gone.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::home::Home;
use super::server::stop_orphan;
use crate::failure::Failure;

/// How long a child may take to stop: longer than a gateway drains unless told otherwise.
const STOP_WITHIN: Duration = Duration::from_secs(45);

/// How a role is run.
#[derive(Clone, Debug)]
pub(super) struct ChildRole {
    /// `<role>-<n>`.
    name: String,
    arguments: Vec<OsString>,
    pid_file: PathBuf,
    log: PathBuf,
    /// Where its ops endpoint is.
    pub(super) ops: PathBuf,
}

impl ChildRole {
    /// The role `command`, with its arguments, as process `name`.
    pub(super) fn new(home: &Home, name: &str, command: &[&str], arguments: Vec<OsString>) -> Self {
        let ops = home.run.join(format!("{name}.ops"));
        let mut all: Vec<OsString> = command.iter().map(Into::into).collect();
        let mut ops_listen = OsString::from("--ops-listen=unix:");
        ops_listen.push(&ops);
        all.extend([ops_listen, "--until-stdin-ends".into()]);
        all.extend(arguments);
        Self {
            name: name.to_owned(),
            arguments: all,
            pid_file: home.run.join(format!("{name}.pid")),
            log: home.log(name),
            ops,
        }
    }

    /// Runs it, as often as it is asked to.
    pub(super) fn start(
        self,
        redis: String,
        database: String,
    ) -> impl Fn(CancellationToken) -> BoxFuture<'static, Result<(), Failure>> {
        move |stop| self.clone().run(redis.clone(), database.clone(), stop).boxed()
    }

    async fn run(self, redis: String, database: String, stop: CancellationToken) -> Result<(), Failure> {
        stop_orphan(&self.name, &self.pid_file, |pid| self.is(pid)).await?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("the log {}", self.log.display()))?;
        let mut child = Command::new(std::env::current_exe().context("our own program")?)
            .args(&self.arguments)
            .env("FULCRUM_REDIS_URL", redis)
            .env("FULCRUM_DATABASE_URL", database)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().context("the log")?)
            .stderr(log)
            // A terminal's interrupt goes to a whole group; children are stopped in their turn.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.name))?;
        // Taken out, because waiting would close it; closed when we go, however we go.
        let _pipe = child.stdin.take();
        if let Some(pid) = child.id() {
            fs::write(&self.pid_file, format!("{pid}\n")).with_context(|| self.pid_file.display().to_string())?;
        }
        let ended = tokio::select! {
            ended = child.wait() => ended.context("waiting for a child")?,
            () = stop.cancelled() => {
                let stopped = self.stop(&mut child).await;
                // Nothing depends on it: the next start looks whether the process is ours.
                let _gone = fs::remove_file(&self.pid_file);
                return stopped;
            }
        };
        match ended.signal() {
            Some(signal) => {
                tracing::warn!("{} was ended by signal {signal}", self.name);
                Err(Failure::exited(&self.name, None))
            }
            None => Err(Failure::exited(&self.name, ended.code()).context(format!("see {}", self.log.display()))),
        }
    }

    async fn stop(&self, child: &mut Child) -> Result<(), Failure> {
        if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _gone = kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(STOP_WITHIN, child.wait()).await {
            Ok(ended) => {
                let ended = ended.context("waiting for a child")?;
                if ended.success() {
                    Ok(())
                } else {
                    Err(Failure::exited(&self.name, ended.code()))
                }
            }
            Err(_) => {
                tracing::error!(limit = ?STOP_WITHIN, "{} does not stop; it is killed", self.name);
                Ok(child.kill().await.context("killing a child")?)
            }
        }
    }

    /// Whether a process is this child of an earlier run: its arguments name our place for its ops endpoint.
    fn is(&self, pid: Pid) -> bool {
        let arguments = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(&*self.ops.to_string_lossy())
    }
}
