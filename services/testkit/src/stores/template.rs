//! A Postgres data directory made once a machine and copied for each server: `initdb` takes a second, a copy a twentieth of it.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{run, temporary, there};

/// Where the programs of all versions are, on Debian and its kin.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Whom Postgres runs as when we are root, which it refuses.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    /// User id.
    pub(super) uid: u32,
    /// Group id.
    pub(super) gid: u32,
}

/// The user that Postgres must run as; none when our own will do.
pub(super) fn user() -> Option<User> {
    static USER: OnceLock<Option<User>> = OnceLock::new();
    *USER.get_or_init(|| {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").expect("a list of users");
        let found = ["postgres", "nobody"].iter().find_map(|name| named(&users, name));
        Some(found.expect("as root, a user named postgres or nobody to run Postgres as"))
    })
}

fn named(users: &str, name: &str) -> Option<User> {
    let line = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|line| line[0] == name)?;
    Some(User {
        uid: line.get(2)?.parse().ok()?,
        gid: line.get(3)?.parse().ok()?,
    })
}

/// Gives a directory of ours to that user.
pub(super) fn give(path: &Path) {
    if let Some(user) = user() {
        chown(path, Some(user.uid), Some(user.gid)).expect("root may give a directory away");
    }
}

/// Path of a program of the newest Postgres here, or its bare name where distributions put them on the search path.
pub(super) fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir(VERSIONS)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions
        .filter(|path| there(&path.join("bin").join(name)))
        .max_by_key(number);
    newest.map_or_else(|| name.into(), |version| version.join("bin").join(name))
}

/// Makes `data` a fresh data directory.
pub(super) fn copy_to(data: &Path) {
    run(as_user(Command::new("cp").args(["-R", "-p"]).arg(template()).arg(data)));
}

fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let initdb = binary("initdb");
        let version = Command::new(&initdb)
            .arg("--version")
            .output()
            .expect("Postgres, with its initdb")
            .stdout;
        let version = String::from_utf8_lossy(&version)
            .split_whitespace()
            .nth(2)
            .unwrap_or("unknown")
            .to_owned();
        // Made beside its final place and moved there whole, because other test processes want it at the same time.
        let making = temporary("template");
        let uid = std::fs::metadata(making.path()).expect("just made").uid();
        let made = making.path().join("data");
        let place = making
            .path()
            .with_file_name(format!("fulcrum-template-{version}-{uid}"));
        let ours = std::fs::metadata(&place).is_ok_and(|it| it.uid() == uid);
        if !ours {
            let arguments = [
                "-U",
                "fulcrum",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--wal-segsize=1",
                "--no-sync",
            ];
            run(as_user(Command::new(initdb).args(arguments).arg("-D").arg(&made)));
            if std::fs::rename(&made, &place).is_err() && !there(&place) {
                panic!("{} cannot be made", place.display());
            }
        }
        place
    })
}

fn as_user(command: &mut Command) -> &mut Command {
    command.current_dir("/");
    match user() {
        Some(user) => command.uid(user.uid).gid(user.gid),
        None => command,
    }
}
