//! `fulcrum up` as a person has it: started, used, stopped, killed, started again.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a start may take, the first one on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(120);
/// How long anything else may take.
const SOON: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The order in which everything stops.
const ORDER: [&str; 6] = [
    "gateway-0",
    "poller-0",
    "recorder-0",
    "engine-0",
    "postgres-0",
    "redis-0",
];

/// A running `fulcrum up`.
struct Up {
    process: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
    listen: SocketAddr,
    ops: SocketAddr,
    token: String,
    data: PathBuf,
    run: PathBuf,
}

impl Up {
    /// Starts one and waits until it says that it is up.
    fn start(arguments: &[&str]) -> Self {
        Self::start_by(command(arguments))
    }

    fn start_by(mut command: Command) -> Self {
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

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let authorization = format!("Authorization: Bearer {}\r\n", self.token);
        let (status, text) = http(self.listen, method, path, &authorization, body).expect("an answer");
        (
            status,
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}")),
        )
    }

    /// The free balance in USDC.
    fn free(&self) -> String {
        let (status, answer) = self.ask("GET", "/v1/accounts/demo/balances/USDC", "");
        assert_eq!(status, 200, "{answer}");
        answer["balance"]["free"]
            .as_str()
            .unwrap_or_else(|| panic!("no balance: {answer}"))
            .to_owned()
    }

    fn open_wallet(&self) {
        let (status, answer) = self.ask("POST", "/v1/accounts/demo/wallet:initialize", "{}");
        assert_eq!(status, 200, "{answer}");
    }

    fn ready(&self) -> (u16, String) {
        http(self.ops, "GET", "/readyz", "", "").unwrap_or((0, String::new()))
    }

    fn until_ready(&self) {
        until("ready", || self.ready().0 == 200);
    }

    /// Sends a signal and waits for the end; the exit code, and what it said since it was up.
    fn end(mut self, signal: Signal) -> (Option<i32>, Vec<String>) {
        self.signal(signal);
        let status = self.process.wait().expect("our child");
        let said = self.lines.iter().collect();
        until("nothing is left", || left(&[&self.data, &self.run]).is_empty());
        (status.code(), said)
    }

    fn signal(&self, signal: Signal) {
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

fn command(arguments: &[&str]) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_fulcrum")), arguments)
}

fn command_of(program: &Path, arguments: &[&str]) -> Command {
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

/// Runs one that is not to come up.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command(arguments)
        .stderr(Stdio::piped())
        .output()
        .expect("our own program");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// One request over a connection of its own.
fn http(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Option<(u16, String)> {
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
fn chunks(mut rest: &str) -> String {
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
fn until(what: &str, mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < SOON, "waited in vain: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Processes that name one of these places, or work there.
fn left(places: &[&Path]) -> Vec<String> {
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

fn stopped(said: &[String]) -> Vec<&str> {
    said.iter()
        .filter_map(|line| line.strip_prefix("stopping ")?.split(' ').next())
        .collect()
}

fn pid_in(file: &Path) -> Option<Pid> {
    Pid::from_raw(fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok()?)
}

/// A data directory below one that everybody may pass.
fn data() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("our own directory");
    let data = directory.path().join("data").to_string_lossy().into_owned();
    (directory, data)
}

#[test]
fn up_is_ready_and_trades_and_ctrl_c_leaves_nothing() {
    let up = Up::start(&["--ephemeral", "--shards", "2"]);
    assert!(
        up.said
            .iter()
            .any(|line| line.contains("PRICES ARE A REPLAY, NOT LIVE")),
        "{:?}",
        up.said
    );
    up.until_ready();
    assert_eq!(http(up.ops, "GET", "/livez", "", "").unwrap().0, 200);
    let metrics = http(up.ops, "GET", "/metrics", "", "").unwrap().1;
    assert!(
        metrics.contains("# TYPE fulcrum_poller_quotes_total counter"),
        "{metrics}"
    );

    up.open_wallet();
    assert_eq!(up.free(), "5000.00");
    let order = r#"{"symbol":"SOL_USDC","side":"SIDE_LONG","margin":"100","leverage":"10"}"#;
    let (status, trade) = up.ask("POST", "/v1/accounts/demo/trades", order);
    assert_eq!(
        (status, trade["trade"]["status"].as_str()),
        (200, Some("TRADE_STATUS_OPEN")),
        "{trade}"
    );
    assert_eq!(up.free(), "4900.00");

    let (data, run) = (up.data.clone(), up.run.clone());
    let (code, said) = up.end(Signal::INT);
    assert_eq!(code, Some(0), "{said:?}");
    assert_eq!(stopped(&said), ORDER);
    assert!(!data.exists() && !run.exists(), "an ephemeral one leaves nothing");
}

#[test]
fn balances_are_the_same_after_a_stop_and_after_a_kill() {
    let (_directory, data) = data();
    let up = Up::start(&["--data-dir", &data]);
    up.open_wallet();
    let (code, _) = up.end(Signal::TERM);
    assert_eq!(code, Some(0));

    let up = Up::start(&["--data-dir", &data]);
    assert_eq!(up.free(), "5000.00");
    let (status, _) = up.ask(
        "POST",
        "/v1/accounts/demo/wallet:deposit",
        r#"{"amount":{"currencyCode":"USDC","amount":"1.50"}}"#,
    );
    assert_eq!(status, 200);
    // At once again, while what was killed is still going.
    up.signal(Signal::KILL);
    drop(up);
    let up = Up::start(&["--data-dir", &data]);
    assert_eq!(up.free(), "5001.50");

    let (code, message) = refused(&["--data-dir", &data]);
    assert_eq!(code, Some(1));
    assert!(message.contains("another `fulcrum up` uses"), "{message}");
    let (code, message) = refused(&["--ephemeral", "--listen", &up.listen.to_string()]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("--listen") && message.contains("in use"), "{message}");
    let (code, message) = refused(&["--ephemeral", "--ops-listen", &up.ops.to_string()]);
    assert_eq!(code, Some(1));
    assert!(
        message.contains("--ops-listen") && message.contains("in use"),
        "{message}"
    );
    assert_eq!(up.end(Signal::INT).0, Some(0));

    let (code, message) = refused(&["--data-dir", &data, "--shards", "3"]);
    assert_eq!(code, Some(1));
    assert!(message.contains("has 16 shards, not 3"), "{message}");
}

#[test]
fn what_is_killed_is_started_again() {
    let (_directory, data) = data();
    let up = Up::start(&[
        "--data-dir",
        &data,
        "--separate-processes",
        "--engines",
        "2",
        "--shards",
        "4",
    ]);
    up.until_ready();
    up.open_wallet();
    let metrics = http(up.ops, "GET", "/metrics", "", "").unwrap().1;
    assert!(metrics.contains("process=\"engine-1\""), "{metrics}");
    for name in [
        "engine-0",
        "engine-1",
        "gateway-0",
        "recorder-0",
        "poller-0",
        "redis-0",
        "postgres-0",
    ] {
        let file = up.run.join(format!("{name}.pid"));
        let before = pid_in(&file).unwrap_or_else(|| panic!("{name} has no process id"));
        kill_process(before, Signal::KILL).unwrap();
        until(name, || pid_in(&file).is_some_and(|pid| pid != before));
        up.until_ready();
    }
    until("the balance is told", || {
        let (status, answer) = up.ask("GET", "/v1/accounts/demo/balances/USDC", "");
        status == 200 && answer["balance"]["free"] == "5000.00"
    });

    // Killed itself, it takes its children along, and the next one starts all the same.
    up.signal(Signal::KILL);
    drop(up);
    let up = Up::start(&["--data-dir", &data, "--separate-processes", "--engines", "2"]);
    assert_eq!(up.free(), "5000.00");
    let (code, said) = up.end(Signal::INT);
    assert_eq!(code, Some(0), "{said:?}");
    assert_eq!(stopped(&said)[3..5], ["engine-1", "engine-0"]);
}

#[test]
fn data_of_another_postgres_is_refused_in_plain_words() {
    let (directory, data) = data();
    let postgres = directory.path().join("data/stores/postgres");
    fs::create_dir_all(&postgres).unwrap();
    fs::write(postgres.join("PG_VERSION"), "99\n").unwrap();
    let (code, message) = refused(&["--data-dir", &data]);
    assert_eq!(code, Some(1));
    assert!(
        message.contains("made by Postgres 99, which is not installed: install postgresql-99"),
        "{message}"
    );
}

#[test]
fn a_normal_user_can_do_it_too() {
    if !rustix::process::geteuid().is_root() {
        // Then every test here is run by one.
        return;
    }
    // nobody: without rights, but with the name that Postgres asks for.
    let user = 65_534;
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("fulcrum");
    fs::copy(env!("CARGO_BIN_EXE_fulcrum"), &program).unwrap();
    chown(directory.path(), Some(user), Some(user)).unwrap();
    let data = directory.path().join("data").to_string_lossy().into_owned();
    let mut command = command_of(&program, &["--data-dir", &data]);
    command.current_dir(directory.path()).uid(user).gid(user);
    let up = Up::start_by(command);
    up.open_wallet();
    assert_eq!(up.free(), "5000.00");
    assert_eq!(up.end(Signal::INT).0, Some(0));
}

#[test]
fn a_closed_directory_above_the_data_is_no_obstacle_to_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let data = directory.path().join("data").to_string_lossy().into_owned();
    let up = Up::start(&["--data-dir", &data]);
    let stores = fs::read_link(Path::new(&data).join("stores")).expect("stores outside");
    assert!(
        up.said.iter().any(|line| line.contains(&*stores.to_string_lossy())),
        "{:?}",
        up.said
    );
    assert_eq!(up.end(Signal::INT).0, Some(0));
    fs::remove_dir_all(stores).unwrap();
}

#[test]
fn a_taken_port_is_said_before_anything_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_directory, data) = data();
    let (code, message) = refused(&[
        "--data-dir",
        &data,
        "--listen",
        &taken.local_addr().unwrap().to_string(),
    ]);
    assert_eq!(code, Some(1));
    assert!(message.contains("in use"), "{message}");
    assert!(!Path::new(&data).exists());
}
