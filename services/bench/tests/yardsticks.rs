//! Each yardstick at the smallest size: it counts calls, loses none, and writes what it saw. Nothing is said about how long it took.

use std::path::Path;

use clap::Parser;
use serde_json::Value;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: bench::Options,
}

async fn run(arguments: &str, directory: &Path) -> Vec<Value> {
    let json = directory.join("out.json");
    let words = format!("bench {arguments} --json {}", json.display());
    let cli = Cli::try_parse_from(words.split(' ')).unwrap_or_else(|error| panic!("{error}"));
    bench::run(cli.options)
        .await
        .unwrap_or_else(|error| panic!("{arguments}: {error:#}"));
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    report["samples"].as_array().unwrap().clone()
}

fn is_sound(sample: &Value) {
    assert!(sample["calls"].as_u64().unwrap() > 0, "{sample:#}");
    assert_eq!(sample["lost"], 0, "{sample:#}");
    assert_eq!(sample["refused"], 0, "{sample:#}");
    assert!(sample["failed"].as_object().unwrap().is_empty(), "{sample:#}");
    assert!(
        sample["p50_us"].as_u64().unwrap() <= sample["p99_us"].as_u64().unwrap(),
        "{sample:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_echo_answers_in_both_loops() {
    let directory = tempfile::tempdir().unwrap();
    let plot = directory.path().join("plot.svg");
    for work in ["open", "open-close", "balance", "mix"] {
        let arguments = format!(
            "echo --work {work} --concurrency 1,70 --rate 200 --seconds 0.2 --warm-up 0.05 --plot {}",
            plot.display()
        );
        let samples = run(&arguments, directory.path()).await;
        assert_eq!(samples.len(), 3);
        samples.iter().for_each(is_sound);
        assert_eq!(samples[1]["concurrency"], 70);
        assert!(samples[0]["cpu_us"]["echo"].as_f64().unwrap() > 0.0);
        let begun = samples[2]["calls"].as_u64().unwrap();
        assert!((35..=45).contains(&begun), "200 a second for 0.2 s: {begun}");
    }
    assert!(std::fs::read_to_string(plot).unwrap().contains("polyline"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_carry_requests_and_replies_every_way() {
    let directory = tempfile::tempdir().unwrap();
    let samples = run(
        "redis --concurrency 1,16 --seconds 0.2 --warm-up 0.05",
        directory.path(),
    )
    .await;
    assert_eq!(samples.len(), 6);
    for sample in &samples {
        is_sound(sample);
        for part in bench::yardstick::lists::PARTS {
            assert!(sample["cpu_us"][part].as_f64().unwrap() > 0.0, "{part}: {sample:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_synced_at_every_size() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = format!("fsync --directory {} --seconds 0.05", directory.path().display());
    let samples = run(&arguments, directory.path()).await;
    assert_eq!(samples.len(), 4);
    samples.iter().for_each(is_sound);
    assert_eq!(samples[2]["calls"].as_u64().unwrap() % 256, 0);
}
