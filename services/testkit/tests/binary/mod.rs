//! The real program: `fulcrum up` in a process of its own, as a person starts it, on a free port and in a directory that goes with it.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

/// How long the program may take to start or to stop before the test gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it may take to stop when the test has failed already.
const DROP_PATIENCE: Duration = Duration::from_secs(30);

/// The workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace")
}

/// The program, as fresh as the code: the one that `FULCRUM_BINARY` names, or one built now.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(given) = std::env::var_os("FULCRUM_BINARY") {
            return given.into();
        }
        // This test's own place tells the profile: target/debug/deps/….
        let own = std::env::current_exe().expect("our own place");
        let directory = own.ancestors().nth(2).expect("target/<profile>").to_owned();
        let profile = directory.file_name().and_then(|name| name.to_str()).expect("a name");
        let profile = if profile == "debug" { "dev" } else { profile };
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "fulcrum", "--profile", profile])
            .current_dir(root())
            .status()
            .expect("cargo runs");
        assert!(built.success(), "fulcrum cannot be built");
        directory.join("fulcrum")
    })
}

/// A mesh in processes of its own.
pub struct Up {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    /// Where the gateway is.
    pub address: SocketAddr,
    /// The data directory.
    pub data: PathBuf,
}

impl Up {
    /// Starts it with these options more, and waits until it says that it is up.
    pub async fn start(options: &[&str]) -> Self {
        let mut child = tokio::process::Command::new(program())
            .args(["up", "--ephemeral", "--listen", "127.0.0.1:0", "--ops-listen", "off"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program runs");
        let mut output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut said = Vec::new();
        let starting = async {
            while let Some(line) = output.next_line().await.expect("readable") {
                let last = line.starts_with("Ctrl-C");
                said.push(line);
                if last {
                    return;
                }
            }
            panic!("it ended before it was up: {said:#?}");
        };
        tokio::time::timeout(PATIENCE, starting).await.expect("it starts");
        let after = |label: &str| {
            let words = said
                .iter()
                .find_map(|line| line.trim().strip_prefix(label)?.split_whitespace().next());
            words.unwrap_or_else(|| panic!("no {label} in {said:#?}")).to_owned()
        };
        Self {
            child,
            output,
            address: after("gRPC ").parse().expect("an address"),
            data: after("data   ").into(),
        }
    }

    /// A token for an account, made as a person makes one.
    pub fn token(&self, account: &str) -> String {
        let made = Command::new(program())
            .args(["token", "--account", account, "--data-dir"])
            .arg(&self.data)
            .output();
        let made = made.expect("the program runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).expect("text").trim().to_owned()
    }

    /// The process of a role, with `--separate-processes`.
    pub fn process(&self, role: &str) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data.join("run").join(format!("{role}.pid"))).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// Stops it as Ctrl-C does, and waits until it has ended in order.
    pub async fn stop(mut self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs");
        kill_process(Pid::from_raw(id).expect("an id"), Signal::INT).expect("it runs");
        // Nobody may wait because we do not read.
        let stopping = async {
            while let Ok(Some(_)) = self.output.next_line().await {}
            self.child.wait().await.expect("it ends")
        };
        let ended = tokio::time::timeout(PATIENCE, stopping).await.expect("it stops");
        assert!(ended.success(), "{ended}");
        assert!(!self.data.exists(), "an ephemeral directory goes with it");
    }
}

/// A test that fails leaves nothing behind either: the stores and the directory go in order, as after [`Up::stop`].
impl Drop for Up {
    fn drop(&mut self) {
        let Some(id) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else {
            return;
        };
        let _gone = kill_process(id, Signal::INT);
        let begun = std::time::Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < DROP_PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
