//! A running `fulcrum up`, for tests: started, asked, ended.
#![allow(dead_code, reason = "each suite uses its part")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a start may take, the first one on a busy machine.
pub const START_WITHIN: Duration = Duration::from_secs(120);
/// How long anything else may take.
pub const SOON: Duration = Duration::from_secs(60);
/// Pause between two looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A running `fulcrum up`.
pub struct Up {
    pub process: Child,
    pub lines: mpsc::Receiver<String>,
    pub said: Vec<String>,
    pub listen: SocketAddr,
    pub ops: SocketAddr,
    pub token: String,
    pub data: PathBuf,
    pub run: PathBuf,
}

impl Up {
    /// Starts one and waits until it says that it is up.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_by(command(arguments))
    }

    pub fn start_by(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("our own program");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| send.send(line))
        });
        let mut said = Vec::new();
        loop {
            let line = lines.recv_timeout(START_WITHIN);
            let line = line.unwrap_or_else(|_| panic!("it did not come up; it said: {}", said.join("\n")));
            let last = line.starts_with("Ctrl-C stops everything");
            said.push(line);
            if last {
                break;
            }
        }
        let after = |label: &str| {
            let line = said.iter().find(|line| line.trim_start().starts_with(label));
            let line = line.unwrap_or_else(|| panic!("no {label} in {}", said.join("\n")));
            line.trim_start()[label.len()..]
                .split_whitespace()
                .next()
                .expect("a word")
                .to_owned()
        };
        let data: PathBuf = after("data in").into();
        let ops = after("ops");
        Self {
            listen: after("gRPC").parse().expect("an address"),
            ops: ops
                .trim_start_matches("http://")
                .trim_end_matches("/livez")
                .parse()
                .expect("an address"),
            token: after("TOKEN=").clone(),
            run: fs::read_link(data.join("run")).expect("a run directory"),
            data,
            process,
            lines,
            said,
        }
    }

    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.ask_with("", method, path, body)
    }

    /// With more headers, each with its end of line.
    pub fn ask_with(&self, headers: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let authorization = format!("Authorization: Bearer {}\r\n{headers}", self.token);
        let (status, text) = http(self.listen, method, path, &authorization, body).expect("an answer");
        (
            status,
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}")),
        )
    }

    /// The free balance in USDC.
    pub fn free(&self) -> String {
        let (status, answer) = self.ask("GET", "/v1/accounts/demo/balances/USDC", "");
        assert_eq!(status, 200, "{answer}");
        answer["balance"]["free"]
            .as_str()
            .unwrap_or_else(|| panic!("no balance: {answer}"))
            .to_owned()
    }

    pub fn open_wallet(&self) {
        let (status, answer) = self.ask("POST", "/v1/accounts/demo/wallet:initialize", "{}");
        assert_eq!(status, 200, "{answer}");
    }

    pub fn ready(&self) -> (u16, String) {
        http(self.ops, "GET", "/readyz", "", "").unwrap_or((0, String::new()))
    }

    pub fn until_ready(&self) {
        until("ready", || self.ready().0 == 200);
    }

    /// Sends a signal and waits for the end; the exit code, and what it said since it was up.
    pub fn end(mut self, signal: Signal) -> (Option<i32>, Vec<String>) {
        self.signal(signal);
        let status = self.process.wait().expect("our child");
        let said = self.lines.iter().collect();
        until("nothing is left", || left(&[&self.data, &self.run]).is_empty());
        (status.code(), said)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.process.id().cast_signed()).unwrap(), signal).expect("it runs");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind: the stores go with it.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

pub fn command(arguments: &[&str]) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_fulcrum")), arguments)
}

pub fn command_of(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args([
            "up",
            "--feed",
            "replay",
            "--listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
            "--log",
            "info",
        ])
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FULCRUM_")) {
        command.env_remove(name);
    }
    command
}

/// One request over a connection of its own.
pub fn http(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = match head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        true => chunks(body),
        false => body.to_owned(),
    };
    Some((status, body))
}

/// A body that came in chunks.
pub fn chunks(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    body
}

/// Waits for something.
pub fn until(what: &str, mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < SOON, "waited in vain: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Processes that name one of these places, or work there.
pub fn left(places: &[&Path]) -> Vec<String> {
    let names_it = |text: &str| places.iter().any(|place| text.contains(&*place.to_string_lossy()));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("proc").flatten() {
        let is_process = entry
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|byte| byte.is_ascii_digit());
        if !is_process || entry.file_name().to_string_lossy() == std::process::id().to_string() {
            continue;
        }
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        let works_in = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if names_it(&arguments) || names_it(&works_in.to_string_lossy()) {
            found.push(arguments);
        }
    }
    found
}
