//! The private Redis: on a socket, every command in a file, nothing ever evicted.

use anyhow::Context as _;

use super::home::Home;
use super::server::Server;

/// The program; found on the search path.
const PROGRAM: &str = "redis-server";

/// Where clients find it.
pub(super) fn url(home: &Home) -> String {
    format!("redis+unix://{}", home.sockets().join("redis.sock").display())
}

/// How it is run.
pub(super) fn server(home: &Home) -> anyhow::Result<Server> {
    let data = home.store("redis")?;
    let pid_file = data.join("redis.pid");
    let socket = home.sockets().join("redis.sock");
    // A fresh link each time: the run directory may be new.
    super::link(&pid_file, &home.run.join("redis-0.pid"))?;
    let settings: [(&str, &std::ffi::OsStr); 13] = [
        ("port", "0".as_ref()),
        ("unixsocket", socket.as_os_str()),
        ("unixsocketperm", "700".as_ref()),
        ("dir", data.as_os_str()),
        ("pidfile", pid_file.as_os_str()),
        ("daemonize", "no".as_ref()),
        ("appendonly", "yes".as_ref()),
        ("appendfsync", "everysec".as_ref()),
        // The file of commands is enough; snapshots beside it would only cost forks.
        ("save", "".as_ref()),
        // It is written anew when it has doubled. Most of it is messages that were answered long ago, so what a smaller one would do is keep
        // a fork busy with compressing and copying what moves on within seconds; one of this size is read in a second or two.
        ("auto-aof-rewrite-min-size", "256mb".as_ref()),
        ("rdbcompression", "no".as_ref()),
        ("maxmemory-policy", "noeviction".as_ref()),
        ("loglevel", "notice".as_ref()),
    ];
    let mut command = vec![PROGRAM.into()];
    for (name, value) in settings {
        command.extend([format!("--{name}").into(), value.to_owned()]);
    }
    Ok(Server {
        name: "Redis",
        command,
        data,
        pid_file,
        signal: "TERM",
        user: home.user.clone(),
        log: home.log("redis"),
    })
}

/// Whether it serves.
pub(super) async fn answers(url: &str) -> anyhow::Result<()> {
    let redis = bus::Redis::open(url)?;
    redis.commands().await?.ping().await.context("PING")
}
