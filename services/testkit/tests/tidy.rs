//! Rules about the code that a compiler does not know: who may depend on whom, who may know what, and that every file says why it
//! exists. A rule that fails names the file and what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each of our crates may depend on among our crates. Everything else is an arrow that must not be there.
const ARROWS: &[(&str, &[&str])] = &[
    ("contracts", &[]),
    ("engine-core", &[]),
    ("transcode", &[]),
    ("latency", &[]),
    ("bus", &["contracts"]),
    ("engine", &["bus", "contracts", "engine-core", "latency"]),
    ("poller", &["bus", "contracts"]),
    ("recorder", &["bus", "contracts"]),
    ("openapi", &["transcode"]),
    ("gateway", &["bus", "contracts", "latency", "openapi", "transcode"]),
    ("bench", &["bus", "contracts", "engine", "engine-core"]),
    ("chaos", &["contracts", "testkit"]),
    (
        "fulcrum",
        &[
            "bench",
            "bus",
            "chaos",
            "contracts",
            "engine",
            "gateway",
            "latency",
            "poller",
            "recorder",
            "sim",
        ],
    ),
    (
        "fuzz",
        &[
            "bus",
            "contracts",
            "engine",
            "engine-core",
            "gateway",
            "poller",
            "transcode",
        ],
    ),
    ("sim", &["bus", "contracts", "engine", "engine-core", "gateway"]),
    ("testkit", &[]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace")
}

#[test]
fn crates_depend_only_on_what_they_may() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ARROWS
        .iter()
        .map(|(from, to)| (*from, to.iter().copied().collect()))
        .collect();
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(
        packages.len(),
        ARROWS.len(),
        "a crate came or went: change the table of arrows and docs/ARCHITECTURE.md"
    );
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let may = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the table of arrows"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"].as_str().expect("a name");
            // Tests may look anywhere; what ships may not.
            let ships = dependency["kind"].is_null() || dependency["kind"] == "build";
            if ships && allowed.contains_key(to) {
                assert!(
                    may.contains(to),
                    "{name} depends on {to}: the arrow is not in the design; move the code or change the design"
                );
            }
        }
    }
}

#[test]
fn the_core_is_pure() {
    for file in sources(&root().join("services/engine/core/src")) {
        let text = code_of(&file);
        for word in [
            "std::time",
            "SystemTime",
            "Instant::",
            "std::net",
            "std::fs",
            "std::env",
            "tokio",
            "async ",
            "rand::",
            "f32",
            "f64",
        ] {
            assert!(
                !text.contains(word),
                "{}: {word:?} has no place in the core",
                file.display()
            );
        }
    }
}

#[test]
fn every_source_file_says_why_it_exists() {
    for file in all_sources() {
        let text = std::fs::read_to_string(&file).expect("readable");
        let first = text
            .lines()
            .find(|line| !line.trim().is_empty() && !line.starts_with("#!["))
            .unwrap_or_default();
        assert!(
            first.starts_with("//!"),
            "{}: begin with //! and why the file exists",
            file.display()
        );
    }
}

#[test]
fn nobody_but_the_bus_spells_a_redis_key() {
    for file in all_sources()
        .into_iter()
        .filter(|file| !in_tests(file) && !file.starts_with(root().join("services/bus")))
    {
        let text = code_of(&file);
        for key in ["\"price_stream", ":requests\"", ":events\"", ":leader\"", "\"replies:"] {
            assert!(
                !text.contains(key),
                "{}: {key} belongs to bus/src/keys.rs",
                file.display()
            );
        }
    }
}

#[test]
fn one_file_each_reads_clocks_credentials_and_picks_statuses() {
    let rules: &[(&str, &str, &[&str])] = &[
        (
            "services/engine/src",
            "SystemTime::now",
            &["services/engine/src/inbox.rs"],
        ),
        (
            "gateway/src",
            "jsonwebtoken::",
            &["gateway/src/auth.rs", "gateway/src/token.rs"],
        ),
        ("gateway/src", "Code::FailedPrecondition", &["gateway/src/failure.rs"]),
        ("gateway/src", "Code::AlreadyExists", &["gateway/src/failure.rs"]),
        ("gateway/src", "ServiceBuilder::new", &["gateway/src/server.rs"]),
    ];
    for (place, word, owners) in rules {
        for file in sources(&root().join(place)).into_iter().filter(|file| !in_tests(file)) {
            let is_owner = owners.iter().any(|owner| *file == root().join(owner));
            assert!(
                is_owner || !code_of(&file).contains(word),
                "{}: {word} belongs to {owners:?} alone",
                file.display()
            );
        }
    }
}

#[test]
fn nothing_is_left_half_done() {
    // Spelt in two halves, so that this file does not find itself.
    let words = [
        ["todo", "!("],
        ["unimplemented", "!("],
        ["#[ign", "ore"],
        ["FIX", "ME"],
        ["HACK", ":"],
    ]
    .map(|halves| halves.concat());
    for file in all_sources() {
        let text = std::fs::read_to_string(&file).expect("readable");
        for word in &words {
            assert!(!text.contains(word), "{}: {word}", file.display());
        }
    }
}

/// The faults of a published system of the same shape, by their numbers on its list. Each has a test that would show it here; the
/// restarts of its neighbours, Redis and Postgres, have no number.
#[test]
fn every_known_fault_has_a_test() {
    const FAULTS: u32 = 18;
    let mut known: Vec<String> = (1..=FAULTS).map(|number| format!("fault_{number:02}_")).collect();
    known.extend(["redis", "postgres"].map(|store| format!("restarts_of_neighbours_{store}_")));
    let named: Vec<String> = all_sources().iter().flat_map(|file| tests_of(file)).collect();
    for fault in known {
        assert!(
            named.iter().any(|name| name.starts_with(&fault)),
            "no test is named {fault}…: one was there; bring it back, or write down why the fault cannot exist any more"
        );
    }
}

/// What users complain about in other transcoders, gateways and the libraries under them. Each has a test that is named after it and shows
/// that here it is otherwise.
#[test]
fn every_known_complaint_has_a_test() {
    const COMPLAINTS: [&str; 15] = [
        "the_error_body_is_lost",
        "a_wrong_query_parameter_is_a_404_without_a_reason",
        "a_failed_stream_is_a_200_with_an_empty_array",
        "streams_are_not_json_and_the_last_delimiter_is_missing",
        "nobody_knows_how_numbers_enums_and_unset_fields_are_written",
        "encoded_slashes_and_colons_are_decoded_twice_or_split",
        "a_415_hides_a_404_or_a_405",
        "the_stream_runs_on_for_a_client_that_has_gone_and_timeouts_are_not_carried",
        "repeated_keys_and_raw_bodies_are_parsed_by_other_rules_than_the_body",
        "the_outcome_hides_in_headers_and_trailers_that_a_browser_cannot_see",
        "the_deadline_is_parsed_and_not_enforced_or_enforced_as_cancelled",
        "cors_hides_the_grpc_status_and_errors_without_a_body_are_lost",
        "shutdown_hangs_on_clients_that_stay",
        "a_blocking_command_of_redis_is_given_up_after_half_a_second",
        "anything_but_grpc_web_on_the_port_is_a_bad_request",
    ];
    let places = [
        "gateway/tests/it/complaints.rs",
        "gateway/transcode/tests/complaints.rs",
    ];
    let named: BTreeSet<String> = places.iter().flat_map(|file| tests_of(&root().join(file))).collect();
    for complaint in COMPLAINTS {
        assert!(
            named.contains(complaint),
            "no test is named {complaint}: one was there; bring it back"
        );
    }
}

/// Names of the functions of a file that a test attribute stands before, with nothing but attributes between.
fn tests_of(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("readable");
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= ["#[test]", "#[tokio::test"].iter().any(|it| line.starts_with(it));
            continue;
        }
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some((name, _)) = function.and_then(|it| it.split_once('('))
            && is_test
        {
            names.push(name.to_owned());
        }
        is_test = false;
    }
    names
}

#[test]
fn names_say_what_a_thing_is() {
    for file in all_sources() {
        let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        assert!(
            !["utils", "util", "helpers", "helper", "common", "misc"].contains(&name),
            "{}: name the noun",
            file.display()
        );
    }
}

/// The file without comments and without its `mod tests`.
fn code_of(file: &Path) -> String {
    let text = std::fs::read_to_string(file).expect("readable");
    let shipped = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    shipped
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn in_tests(file: &Path) -> bool {
    let relative = file.strip_prefix(root()).unwrap_or(file);
    relative.components().any(|part| part.as_os_str() == "tests")
        || file.ends_with("tests.rs")
        || relative.starts_with("services/testkit")
}

fn all_sources() -> Vec<PathBuf> {
    ["proto", "services", "gateway"]
        .iter()
        .flat_map(|place| sources(&root().join(place)))
        .collect()
}

fn sources(place: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut places = vec![place.to_owned()];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display())) {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !["target", "node_modules", ".venv"].contains(&name) {
                places.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
