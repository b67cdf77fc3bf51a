//! `fulcrum up` as a person has it: started, used, stopped, killed, started again.

mod running;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use running::{Up, command, command_of, http, until};
use rustix::process::{Pid, Signal, kill_process};

/// The order in which everything stops.
const ORDER: [&str; 6] = [
    "gateway-0",
    "poller-0",
    "recorder-0",
    "engine-0",
    "postgres-0",
    "redis-0",
];

/// Runs one that is not to come up.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command(arguments)
        .stderr(Stdio::piped())
        .output()
        .expect("our own program");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
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
