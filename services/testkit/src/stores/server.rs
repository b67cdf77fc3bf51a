//! One store's process, which never outlives the test: not when the test passes, panics or is killed with signal 9.
//!
//! A destructor does not run in a killed process, so the store runs under a small shell that waits at the end of a pipe we hold. The
//! kernel closes the pipe when we go, however that happens; the shell sees it and ends the store.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::template::User;

/// `$1` is the signal that ends the store; the rest is the store's own command.
const KEEPER: &str = r#"signal=$1; shift; "$@" & read -r nothing; kill -s "$signal" $!; wait $!"#;

/// How a store is stopped.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// Postgres's immediate shutdown: all its processes go at once, without a checkpoint, and leave no shared memory behind.
    Quit,
    /// No chance to do anything.
    Kill,
}

/// A running store; stopped when dropped.
#[derive(Debug)]
pub(super) struct Server {
    keeper: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command`, as `user` when one is given, with its output in a file in `directory`.
    pub(super) fn start(command: &[OsString], user: Option<User>, ending: Ending, directory: &Path) -> Self {
        let log = directory.join("log");
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("our own directory");
        let signal = match ending {
            Ending::Quit => "QUIT",
            Ending::Kill => "KILL",
        };
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", KEEPER, "keeper", signal])
            .args(command)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("an open file"))
            .stderr(output)
            // A terminal's interrupt goes to a whole group; the store is to go by the pipe alone.
            .process_group(0);
        if let Some(user) = user {
            shell.uid(user.uid).gid(user.gid);
        }
        Self {
            keeper: shell.spawn().expect("a shell"),
            log,
        }
    }

    /// What it said so far.
    pub(super) fn log(&mut self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Nothing is left to be done about an error here.
        let _ = self.keeper.wait();
    }
}

/// Whether any process works in a directory.
pub(super) fn works_in(directory: &Path) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok())
        .any(|its| its == directory)
}
