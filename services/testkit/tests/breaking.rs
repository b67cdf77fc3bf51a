//! `scripts/breaking` sees a break of the contract wherever it is run, and knows one that is meant.

mod binary;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use binary::root;
use tempfile::TempDir;

const BEFORE: &str =
    "syntax = \"proto3\";\npackage fulcrum.v1;\nmessage Thing {\n  string name = 1;\n  string size = 2;\n}\n";
const FILE: &str = "proto/fulcrum/v1/thing.proto";

/// A repository with a contract of one message, and the scripts of ours.
struct Repository {
    place: PathBuf,
    _room: TempDir,
}

impl Repository {
    fn new() -> Self {
        let room = tempfile::tempdir().expect("a directory");
        let place = room.path().join("here");
        std::fs::create_dir_all(place.join("proto/fulcrum/v1")).expect("a disk");
        std::fs::create_dir(place.join("scripts")).expect("a disk");
        std::fs::copy(root().join("buf.yaml"), place.join("buf.yaml")).expect("a disk");
        let repository = Self { place, _room: room };
        repository.git(&["init", "--quiet", "--initial-branch", "main"]);
        repository.write(BEFORE);
        repository.commit("proto: a thing");
        repository.bring_scripts();
        repository
    }

    /// A clone of it, as `git clone` with these options makes it.
    fn cloned(&self, options: &[&str]) -> Self {
        let room = tempfile::tempdir().expect("a directory");
        let place = room.path().join("clone");
        let from = format!("file://{}", self.place.display());
        let mut command = Command::new("git");
        command.args(["clone", "--quiet"]).args(options).arg(from).arg(&place);
        assert!(command.status().expect("git runs").success());
        let clone = Self { place, _room: room };
        clone.bring_scripts();
        clone
    }

    /// The script as it is now, and our buf; git does not see them.
    fn bring_scripts(&self) {
        std::fs::create_dir_all(self.place.join("scripts")).expect("a disk");
        std::fs::copy(root().join("scripts/breaking"), self.place.join("scripts/breaking")).expect("a disk");
        std::os::unix::fs::symlink(root().join("scripts/buf"), self.place.join("scripts/buf")).expect("a disk");
        std::os::unix::fs::symlink(root().join(".tools"), self.place.join(".tools")).expect("a disk");
        std::fs::write(self.place.join(".git/info/exclude"), "scripts\n.tools\n").expect("a disk");
    }

    fn write(&self, contract: &str) {
        std::fs::write(self.place.join(FILE), contract).expect("a disk");
    }

    /// Takes a field away.
    fn break_it(&self) {
        self.write(&BEFORE.replace("  string size = 2;\n", ""));
    }

    fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]);
        let done = command.args(arguments).current_dir(&self.place).status();
        assert!(done.expect("git runs").success(), "git {arguments:?}");
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
    }

    fn fits(&self) -> bool {
        let Output { status, stderr, stdout } = Command::new(Path::new("scripts/breaking"))
            .current_dir(&self.place)
            .output()
            .expect("a shell");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&stderr),
            String::from_utf8_lossy(&stdout)
        );
        assert_eq!(
            status.success(),
            !said.contains("\"size\""),
            "it fails for the field alone: {said}"
        );
        status.success()
    }
}

#[test]
fn adding_fits_and_taking_away_does_not() {
    let repository = Repository::new();
    assert!(repository.fits());
    repository.write(&BEFORE.replace("}\n", "  string colour = 3;\n}\n"));
    assert!(repository.fits(), "a field more");
    repository.break_it();
    assert!(!repository.fits(), "a field less, not committed");
}

#[test]
fn a_branch_is_compared_with_where_it_left_main() {
    let upstream = Repository::new();
    for remote in [true, false] {
        let clone = upstream.cloned(&[]);
        clone.git(&["switch", "--quiet", "--create", "work"]);
        if !remote {
            clone.git(&["remote", "remove", "origin"]);
        }
        clone.break_it();
        clone.commit("proto: less");
        clone.commit("something else");
        assert!(!clone.fits(), "with a remote: {remote}");
    }
}

#[test]
fn main_is_compared_with_what_stood_before_the_last_change() {
    let repository = Repository::new();
    repository.break_it();
    repository.commit("proto: less");
    repository.commit("something else");
    assert!(!repository.fits());
    assert!(
        !repository.cloned(&["--depth", "1"]).fits(),
        "a shallow clone is deepened"
    );
}

#[test]
fn a_shallow_clone_without_a_remote_is_compared_with_its_last_commit() {
    let upstream = Repository::new();
    upstream.commit("something else");
    let clone = upstream.cloned(&["--depth", "1"]);
    clone.git(&["remote", "remove", "origin"]);
    assert!(clone.fits());
    clone.break_it();
    assert!(!clone.fits());
}

#[test]
fn a_release_is_what_counts_when_there_is_one() {
    let repository = Repository::new();
    repository.git(&["tag", "v1.0.0"]);
    repository.break_it();
    repository.commit("proto: less");
    repository.write(&BEFORE.replace("  string size = 2;\n", "  string colour = 3;\n"));
    repository.commit("proto: and more");
    assert!(!repository.fits(), "two changes after the release");
}

#[test]
fn a_break_that_is_meant_is_the_new_measure() {
    let repository = Repository::new();
    repository.break_it();
    repository.commit("proto: less\n\nContract-break: nobody ever sent it");
    assert!(repository.fits());
    repository.write(&BEFORE.replace("string size = 2", "int64 size = 2"));
    assert!(repository.fits(), "it is gone, so this is new");
    repository.commit("proto: again");
    repository.break_it();
    assert!(!repository.fits(), "what came after it counts again");
}
