//! The private Postgres: on a socket, with every setting as durable as it comes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use sqlx::{Connection as _, PgConnection};
use tokio::process::Command;

use super::home::Home;
use super::server::Server;

/// Where the programs of all versions are, on Debian and its kin.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The owner of everything in it, and the database.
const NAME: &str = "fulcrum";
/// Connections that the roles may open together, many engines among them.
const CONNECTIONS_MAX: u32 = 300;

/// Where clients find it.
pub(super) fn url(home: &Home) -> String {
    database(home, NAME)
}

fn database(home: &Home, database: &str) -> String {
    format!(
        "postgres://{NAME}@localhost/{database}?host={}",
        home.sockets().display()
    )
}

/// How it is run; makes its data directory the first time.
pub(super) async fn server(home: &Home) -> anyhow::Result<Server> {
    let data = home.stores.join("postgres");
    let binaries = binaries(&data)?;
    if !data.exists() {
        initialize(home, &binaries, &data).await?;
    }
    let pid_file = data.join("postmaster.pid");
    let own_pid = home.sockets().join("postgres.pid");
    super::link(&own_pid, &home.run.join("postgres-0.pid"))?;
    let settings = [
        ("listen_addresses", OsString::new()),
        ("unix_socket_directories", home.sockets().into()),
        ("unix_socket_permissions", "0700".into()),
        ("external_pid_file", own_pid.into()),
        ("max_connections", CONNECTIONS_MAX.to_string().into()),
        ("fsync", "on".into()),
        ("full_page_writes", "on".into()),
        ("synchronous_commit", "on".into()),
        // Many short statements, no long ones: compiling them costs more than it brings.
        ("jit", "off".into()),
        ("log_checkpoints", "off".into()),
        ("log_timezone", "UTC".into()),
        ("timezone", "UTC".into()),
    ];
    let mut command = vec![binaries.join("postgres").into(), "-D".into(), data.clone().into()];
    for (name, value) in settings {
        let mut setting = OsString::from(format!("{name}="));
        setting.push(value);
        command.extend(["-c".into(), setting]);
    }
    Ok(Server {
        name: "Postgres",
        command,
        data,
        pid_file,
        signal: "INT",
        user: home.user.clone(),
        log: home.log("postgres"),
    })
}

/// The programs: of the version that made the data, or of the newest.
fn binaries(data: &Path) -> anyhow::Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(VERSIONS)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, path)| path.join("postgres").exists() && path.join("initdb").exists())
        .collect();
    versions.sort();
    let made_by = fs::read_to_string(data.join("PG_VERSION")).ok();
    match made_by.as_deref().map(str::trim) {
        Some(version) => {
            let found = versions.iter().find(|(number, _)| number.to_string() == version);
            found.map(|(_, path)| path.clone()).with_context(|| {
                format!(
                    "{} was made by Postgres {version}, which is not installed: install postgresql-{version}",
                    data.display()
                )
            })
        }
        None => {
            let newest = versions.pop().map(|(_, path)| path);
            newest.with_context(|| format!("no Postgres under {VERSIONS}: install the package postgresql"))
        }
    }
}

/// Makes the data directory, whole or not at all.
async fn initialize(home: &Home, binaries: &Path, data: &Path) -> anyhow::Result<()> {
    let making = data.with_extension("new");
    if making.exists() {
        fs::remove_dir_all(&making).with_context(|| format!("removing {}", making.display()))?;
    }
    home.make_store(&making)?;
    let mut initdb = Command::new(binaries.join("initdb"));
    initdb
        .args([
            "-U",
            NAME,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--data-checksums",
            "-D",
        ])
        .arg(&making)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .current_dir("/")
        .stdin(std::process::Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(user) = &home.user {
        initdb.uid(user.uid).gid(user.gid);
    }
    let output = initdb.output().await.context("initdb cannot be run")?;
    ensure!(
        output.status.success(),
        "initdb failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&making, data).with_context(|| format!("making {}", data.display()))
}

/// Whether it serves.
pub(super) async fn answers(home: &Home) -> anyhow::Result<()> {
    Ok(PgConnection::connect(&database(home, "postgres"))
        .await?
        .close()
        .await?)
}

/// Makes the database, the first time.
pub(super) async fn make_database(home: &Home) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&database(home, "postgres")).await?;
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'fulcrum')")
        .fetch_one(&mut connection)
        .await?;
    if !there {
        sqlx::query("CREATE DATABASE fulcrum").execute(&mut connection).await?;
    }
    Ok(connection.close().await?)
}
