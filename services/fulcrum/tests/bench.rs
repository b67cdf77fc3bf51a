//! `fulcrum bench` at the smallest size, on a mesh that it starts and stops itself: everything is measured, and nothing is lost.

use std::process::Command;

use serde_json::Value;

#[test]
fn all_of_it_runs_on_a_mesh_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (json, plot) = (directory.path().join("out.json"), directory.path().join("plot.svg"));
    let output = Command::new(env!("CARGO_BIN_EXE_fulcrum"))
        .args([
            "bench",
            "all",
            "--self-contained",
            "--rounds=1",
            "--seconds=0.2",
            "--warm-up=0.1",
        ])
        .args(["--accounts=32", "--shards=2", "--pile=200"])
        .args([
            "--open-trades=2000",
            "--tail=100",
            "--tick-rate=300,900",
            "--subscribers=70",
        ])
        .arg(format!("--json={}", json.display()))
        .arg(format!("--plot={}", plot.display()))
        .output()
        .unwrap();
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}\n{complained}");
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let samples = report["samples"].as_array().unwrap();
    for work in ["open", "open-close", "balance", "mix"] {
        for door in ["grpc", "grpc-web", "rest"] {
            let name = format!("mesh {work} {door}");
            let sample = samples.iter().find(|it| it["what"] == name);
            let sample = sample.unwrap_or_else(|| panic!("no {name} in {said}"));
            assert!(sample["calls"].as_u64().unwrap() > 0, "{sample:#}");
            assert!(sample["failed"].as_object().unwrap().is_empty(), "{sample:#}");
            for process in [
                "gateway",
                "engine",
                "redis",
                "postgres",
                "recorder's postgres",
                "recorder",
                "poller",
            ] {
                assert!(sample["cpu_us"][process].is_number(), "{process}: {sample:#}");
            }
        }
    }
    for number in 1..=17 {
        let marks = report["marks"].as_array().unwrap();
        assert!(
            marks
                .iter()
                .any(|mark| mark["number"] == number && mark["verdict"] != "not_measured"),
            "no mark {number} in {said}"
        );
    }
    let figures = report["figures"].as_array().unwrap();
    for what in [
        "open ÷",
        "the peer's opens",
        "until it had them all",
        "what it makes Postgres do",
    ] {
        let found = figures.iter().any(|it| it["what"].as_str().unwrap().contains(what));
        assert!(found, "no {what} in {said}");
    }
    assert!(std::fs::read_to_string(plot).unwrap().contains("mesh open-close grpc"));
}
