//! A stranger's program reads the OpenAPI document and calls everything in it with whatever the schemas allow, and with what they do not:
//! no call is answered with a fault of ours, and every answer is of the shape, type and status that the document says.

mod binary;
mod doors;
mod mesh;

use std::process::Stdio;

use binary::{Up, root};
use doors::{Client, Door};
use mesh::within;
use serde_json::json;
use tokio::process::Command;

/// Calls made up for each operation besides those at the edges of its schema.
const EXAMPLES: &str = "12";
/// Fewer calls than this would mean that most of the document was passed over.
const CALLS_MIN: u32 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_has_only_the_document_finds_no_fault() {
    let directory = root().join("services/testkit/clients/schemathesis");
    let made = std::process::Command::new("make")
        .args(["--no-print-directory", "--silent", "setup", "build", "--directory"])
        .arg(&directory)
        .status();
    assert!(made.expect("make runs").success(), "schemathesis cannot be installed");
    // Prices for every instrument: one without a price is answered with 503, which here would pass for a fault.
    let up = Up::start(&["--feed", "replay", "--shards", "4"]).await;
    let token = up.token("demo");
    let client = Client::new(Door::Grpc, up.address, &token);
    client
        .call("InitializeWallet", json!({"account_id": "demo"}))
        .await
        .good();

    let run = Command::new(directory.join(".venv/bin/schemathesis"))
        .arg("--config-file")
        .arg(directory.join("schemathesis.toml"))
        .args(["run", &format!("http://{}/openapi.json", up.address)])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args([
            "--checks",
            "not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance",
        ])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            EXAMPLES,
            "--seed",
            "7",
        ])
        .args(["--request-timeout", "30", "--no-color", "--generation-database", "none"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("its calls", run).await.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // "  848 generated, 848 passed"
    let calls = said
        .lines()
        .find_map(|line| line.trim().split_once(" generated, ")?.0.parse::<u32>().ok());
    assert!(calls.is_some_and(|calls| calls >= CALLS_MIN), "{said}");
    up.stop().await;
}
