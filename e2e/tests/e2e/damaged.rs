//! History whose bytes have changed on the disk, under the real programs: found by itself, named, and skipped.

use std::fs;
use std::path::PathBuf;

use e2e::{Home, wait_for};

#[test]
fn a_segment_that_was_changed_is_found_by_itself_named_and_skipped() {
    let home = Home::new().unwrap().set("STORE__SEAL_MS", "300");
    let agent = home.start_ready().unwrap();
    let sealed = wait_for("two seals", || {
        Ok(home.health().ok().filter(|health| health["ingest"]["seals"].as_u64() > Some(1)).map(drop))
    });
    if let Err(error) = sealed {
        panic!("{error:#}\n{}", agent.transcript());
    }
    let (status, transcript) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0), "{transcript}");
    let mut files: Vec<PathBuf> =
        fs::read_dir(home.data().join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "parquet"));
    files.sort();
    assert!(files.len() >= 2, "{files:?}");
    let mut bytes = fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&files[0], bytes).unwrap();

    let agent = home.start_ready().unwrap();
    let name = files[0].file_name().unwrap().to_str().unwrap();
    let told = "SELECT detail FROM coverage WHERE reason = 'segment_damaged'";
    let found = wait_for("the damaged segment", || Ok(home.query(told).ok().filter(|rows| !rows.is_empty())));
    let found = found.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.transcript()));
    assert!(found[0]["detail"].as_str().unwrap().starts_with(name), "{found:?}");
    let findings = home.health().unwrap()["findings"].to_string();
    assert!(findings.contains(name) && findings.contains("backup"), "{findings}");
    let answer = home.cli(&["query", "SELECT count(*) AS n FROM process_events", "--format", "json"]).unwrap();
    assert_eq!(answer.status.code(), Some(3), "{}", String::from_utf8_lossy(&answer.stderr));
    let rows: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert!(rows[0]["n"].as_u64() > Some(0), "the others answer: {rows}");
}
