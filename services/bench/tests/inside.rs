//! What is measured in one process, at the smallest size: everything has a figure, and every mark of it is judged. Nothing is said about
//! how long it took.

use std::path::Path;

use clap::Parser;
use serde_json::Value;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: bench::Options,
}

async fn run(arguments: &str, directory: &Path) -> Value {
    let json = directory.join("out.json");
    let words = format!("bench {arguments} --rounds 2 --json {}", json.display());
    let cli = Cli::try_parse_from(words.split(' ')).unwrap_or_else(|error| panic!("{error}"));
    bench::run(cli.options)
        .await
        .unwrap_or_else(|error| panic!("{arguments}: {error:#}"));
    serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
}

fn figure<'a>(report: &'a Value, what: &str) -> &'a Value {
    let figures = report["figures"].as_array().unwrap();
    let found = figures.iter().find(|it| it["what"].as_str().unwrap().contains(what));
    &found.unwrap_or_else(|| panic!("no {what} in {figures:#?}"))["seen"]
}

fn judged(report: &Value) -> Vec<u64> {
    let marks = report["marks"].as_array().unwrap();
    assert!(marks.iter().all(|mark| mark["verdict"] != "not_measured"), "{marks:#?}");
    marks.iter().map(|mark| mark["number"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_core_is_measured_at_every_size() {
    let directory = tempfile::tempdir().unwrap();
    let report = run("core --open-trades 3000", directory.path()).await;
    for size in ["0", "1k", "3k"] {
        for what in [
            "open a trade",
            "close it",
            "tick that fires nothing",
            "each of 1,000 liquidations",
        ] {
            let seen = figure(&report, &format!("core, {size} open: {what}"));
            assert_eq!(seen["count"], 2);
            assert!(seen["median"].as_f64().unwrap() > 0.0, "{what}: {seen}");
        }
    }
    assert!(figure(&report, "events replayed a second")["median"].as_f64().unwrap() > 0.0);
    assert_eq!(judged(&report), [11, 11, 11, 11, 12, 12, 16, 16]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_measured_with_and_without_a_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let report = run("recovery --open-trades 2000 --tail 100", directory.path()).await;
    for what in [
        "replay all",
        "load and verify",
        "replay 100 entries",
        "size of the snapshot",
    ] {
        assert!(figure(&report, what)["median"].as_f64().unwrap() > 0.0, "{what}");
    }
    assert_eq!(judged(&report), [14, 14]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_watched_while_snapshots_are_made() {
    let directory = tempfile::tempdir().unwrap();
    let report = run("snapshot --open-trades 4000", directory.path()).await;
    for what in ["commands before", "commands during", "longest stall during", "its size"] {
        assert!(figure(&report, what)["median"].as_f64().unwrap() > 0.0, "{what}");
    }
    assert_eq!(judged(&report), [15, 15, 15]);
}
