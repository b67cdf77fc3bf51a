//! Whom the stores run as: ourselves, but for root, which Postgres refuses, somebody with no rights.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

/// Who runs the stores for root: the user made for it, or anybody who owns nothing.
const NAMES: [&str; 2] = ["postgres", "nobody"];

/// A user that the stores run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoreUser {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl StoreUser {
    /// The one to use; none when we are not root and run the stores ourselves.
    pub(super) fn find() -> anyhow::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
        let found = NAMES.iter().find_map(|name| Self::named(&users, name));
        found
            .map(Some)
            .context("as root, a user named postgres or nobody is needed to run Postgres, which refuses root")
    }

    fn named(users: &str, name: &str) -> Option<Self> {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self {
            name: name.to_owned(),
            uid,
            gid,
        })
    }

    /// Gives the user a directory.
    pub(super) fn give(&self, path: &Path) -> anyhow::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("giving {} to user {}", path.display(), self.name))
    }

    /// Whether the user gets as far as a directory of theirs; each directory above may be closed.
    pub(super) fn reaches(&self, path: &Path) -> bool {
        let mut test = Command::new("/bin/sh");
        test.args(["-c", "test -w \"$1\"", "sh"])
            .arg(path)
            .uid(self.uid)
            .gid(self.gid)
            .current_dir("/");
        test.status().is_ok_and(|status| status.success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\npostgresql:x:5:6::/:/x\npostgres:x:101:104::/var/lib/postgresql:/bin/bash\n";
        let user = StoreUser::named(users, "postgres").unwrap();
        assert_eq!((user.uid, user.gid), (101, 104));
        assert_eq!(StoreUser::named(users, "nobody"), None);
    }
}
