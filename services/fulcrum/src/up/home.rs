//! The data directory: what is where, whose it is, and that nobody else uses it.
//!
//! ```text
//! <data-dir>/
//!   keys/      the pair that signs and verifies tokens
//!   logs/      one file a process
//!   stores/    redis/ and postgres/; a link to a place outside when the stores' user cannot come here
//!   run        a link to a short place under /tmp: sockets and process ids
//! ```
//!
//! The run directory is elsewhere because the path of a Unix socket may have about a hundred bytes.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use tempfile::TempDir;

use super::user::StoreUser;

/// How often a lock is tried again, and how long between.
const LOCK_TRIES: u32 = 10;
/// Pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Where stores go that their user could not reach in the data directory.
const ELSEWHERE: &str = "/var/lib/fulcrum";
/// Where run directories are: short, and there on every machine.
const RUN: &str = "/tmp";
/// A log that is larger at the start is put aside. Bytes.
const LOG_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Where everything is kept.
#[derive(Args, Clone, Debug)]
pub(crate) struct DataSettings {
    /// Directory for keys, logs, Redis and Postgres. Made when it is not there.
    #[arg(long, env = "FULCRUM_DATA_DIR", default_value = ".fulcrum", value_name = "DIRECTORY")]
    data_dir: PathBuf,
}

impl DataSettings {
    /// Where the keys are.
    pub(crate) fn keys(&self) -> PathBuf {
        self.data_dir.join("keys")
    }
}

/// The data directory, ours alone while this lives.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) root: PathBuf,
    pub(super) stores: PathBuf,
    pub(super) run: PathBuf,
    pub(super) user: Option<StoreUser>,
    /// Whether everything goes with the process.
    pub(super) ephemeral: bool,
    _locks: [File; 2],
    // After the locks are released nobody may find half a directory, but an ephemeral one nobody looks for.
    _temporary: Option<TempDir>,
}

impl Home {
    /// Opens it, or makes it; for an ephemeral one, a new one that goes with the value.
    pub(super) fn open(settings: &DataSettings, ephemeral: bool) -> anyhow::Result<Self> {
        let user = StoreUser::find()?;
        let temporary = match ephemeral {
            true => Some(
                tempfile::Builder::new()
                    .prefix("fulcrum-data-")
                    .tempdir_in(RUN)
                    .context("a temporary directory")?,
            ),
            false => None,
        };
        let root = match &temporary {
            Some(directory) => directory.path().to_owned(),
            None => std::path::absolute(&settings.data_dir).context("--data-dir")?,
        };
        make(&root)?;
        if user.is_some() {
            // The stores' user passes through; what is private in here is closed by itself.
            fs::set_permissions(&root, Permissions::from_mode(0o711)).context("the data directory")?;
        }
        let root_lock = lock(&root)?;
        for name in ["keys", "logs"] {
            make(&root.join(name))?;
        }
        let stores = stores(&root, user.as_ref())?;
        let stores_lock = lock(&stores)?;
        let run = run(&root)?;
        let sockets = run.join("s");
        make(&sockets)?;
        if let Some(user) = &user {
            fs::set_permissions(&run, Permissions::from_mode(0o711)).context("the run directory")?;
            user.give(&sockets)?;
        }
        Ok(Self {
            root,
            stores,
            run,
            user,
            ephemeral,
            _locks: [root_lock, stores_lock],
            _temporary: temporary,
        })
    }

    /// Where the stores' sockets are; theirs.
    pub(super) fn sockets(&self) -> PathBuf {
        self.run.join("s")
    }

    /// Where the keys are.
    pub(super) fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// The log of a process; a large one from earlier is put aside.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        let path = self.root.join("logs").join(format!("{name}.log"));
        if fs::metadata(&path).is_ok_and(|it| it.len() > LOG_BYTES_MAX) {
            // Should it fail, the log goes on where it is.
            let _kept = fs::rename(&path, path.with_extension("log.old"));
        }
        path
    }

    /// The directory of one store, its user's own.
    pub(super) fn store(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.stores.join(name);
        self.make_store(&path)?;
        Ok(path)
    }

    /// Makes a directory that is the stores' user's own.
    pub(super) fn make_store(&self, path: &Path) -> anyhow::Result<()> {
        make(path)?;
        self.user.as_ref().map_or(Ok(()), |user| user.give(path))
    }

    /// Removes what is only of use while we run.
    pub(super) fn tidy(&self) {
        for path in [&self.run, &self.root.join("run")] {
            let removed = if path.is_symlink() {
                fs::remove_file(path)
            } else {
                fs::remove_dir_all(path)
            };
            if let Err(error) = removed {
                tracing::warn!(%error, "{} is left behind", path.display());
            }
        }
    }
}

/// Makes a directory for us alone, unless it is there.
fn make(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("the directory {} cannot be made", path.display()))
}

/// Locks a directory against another `up`; the lock goes with the process, however it ends.
fn lock(directory: &Path) -> anyhow::Result<File> {
    let owner = fs::metadata(directory)
        .with_context(|| directory.display().to_string())?
        .uid();
    let us = rustix::process::geteuid().as_raw();
    ensure!(
        owner == us || us == 0,
        "{} belongs to another user (id {owner}): run as that user, or choose another --data-dir",
        directory.display()
    );
    let path = directory.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    // A child that was forked a moment ago, by anybody in this process, holds our descriptors until it has become another program: so
    // a lock that was just given back may look taken for that moment.
    let mut locked = file.try_lock();
    for _ in 0..LOCK_TRIES {
        if !matches!(locked, Err(fs::TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(LOCK_PAUSE);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            bail!(
                "another `fulcrum up` uses {}: stop it first, or choose another --data-dir",
                directory.display()
            )
        }
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

/// Where the stores keep their data: in the data directory, or, when their user cannot come there, where it can.
fn stores(root: &Path, user: Option<&StoreUser>) -> anyhow::Result<PathBuf> {
    let inside = root.join("stores");
    if let Ok(outside) = fs::read_link(&inside) {
        // Never made anew behind a link: that would be an empty ledger where there was a full one.
        ensure!(
            outside.is_dir(),
            "{} points to {}, which is gone: bring it back, or delete {} to begin with nothing",
            inside.display(),
            outside.display(),
            root.display()
        );
        return Ok(outside);
    }
    let Some(user) = user else {
        make(&inside)?;
        return Ok(inside);
    };
    let fresh = !inside.exists();
    make(&inside)?;
    user.give(&inside)?;
    if user.reaches(&inside) {
        return Ok(inside);
    }
    ensure!(
        fresh,
        "user {}, whom Postgres runs as, cannot reach {}: open the directories above it (chmod o+x), or move the data directory",
        user.name,
        inside.display()
    );
    make(Path::new(ELSEWHERE))?;
    fs::set_permissions(ELSEWHERE, Permissions::from_mode(0o711)).context(ELSEWHERE)?;
    let outside = Path::new(ELSEWHERE).join(format!("stores-{:08x}", rand::random::<u32>()));
    make(&outside)?;
    user.give(&outside)?;
    ensure!(
        user.reaches(&outside),
        "user {}, whom Postgres runs as, cannot reach {}",
        user.name,
        outside.display()
    );
    fs::remove_dir(&inside).context("the stores' place")?;
    symlink(&outside, &inside).context("the link to the stores")?;
    Ok(outside)
}

/// The run directory: the one that an earlier process left, or a new one.
fn run(root: &Path) -> anyhow::Result<PathBuf> {
    let link = root.join("run");
    let us = rustix::process::geteuid().as_raw();
    if let Ok(old) = fs::read_link(&link) {
        // Everybody may write to its parent, so somebody else's may stand there now.
        if fs::symlink_metadata(&old).is_ok_and(|it| it.is_dir() && it.uid() == us) {
            return Ok(old);
        }
        fs::remove_file(&link).context("the link to the run directory")?;
    }
    let fresh = tempfile::Builder::new()
        .prefix("fulcrum-")
        .tempdir_in(RUN)
        .context("the run directory")?
        .keep();
    symlink(&fresh, &link).context("the link to the run directory")?;
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(directory: &Path) -> DataSettings {
        DataSettings {
            data_dir: directory.join("data"),
        }
    }

    #[test]
    fn a_data_directory_is_for_one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(&settings(directory.path()), false).unwrap();
        let second = Home::open(&settings(directory.path()), false).unwrap_err().to_string();
        assert!(second.contains("another `fulcrum up` uses"), "{second}");
        let run = home.run.clone();
        drop(home);
        let home = Home::open(&settings(directory.path()), false).unwrap();
        assert_eq!(home.run, run, "what a killed process left is found again");
        home.tidy();
        assert!(!run.exists());
        drop(home);
        let home = Home::open(&settings(directory.path()), false).unwrap();
        assert_ne!(home.run, run);
        home.tidy();
    }

    #[test]
    fn stores_that_are_gone_are_not_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        symlink(directory.path().join("moved"), directory.path().join("data/stores")).unwrap();
        let error = Home::open(&settings(directory.path()), false).unwrap_err().to_string();
        assert!(error.contains("which is gone"), "{error}");
    }

    #[test]
    fn an_ephemeral_one_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(&settings(directory.path()), true).unwrap();
        let root = home.root.clone();
        assert!(root.is_dir());
        home.tidy();
        drop(home);
        assert!(!root.exists() && !directory.path().join("data").exists());
    }
}
