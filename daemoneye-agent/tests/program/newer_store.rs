//! The real program on a store of a newer version: it says so and ends with its code. That nothing is changed is the engine's test.

use std::process::{Command, Stdio};

use daemoneye_engine::store::{Store, StoreOptions};
use redb::TableDefinition;

#[path = "../../../daemoneye-engine/tests/store/raw.rs"]
mod raw;

#[test]
fn a_store_of_a_newer_version_is_named_and_ends_the_program_with_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    drop(Store::open(StoreOptions::new(&data)).unwrap());
    let version = TableDefinition::<&str, raw::Raw<raw::Counter>>::new("meta");
    raw::overwrite(&data, version, "format_version", &[1, 99]);

    let token = dir.path().join("token");
    std::fs::write(&token, [7; 32]).unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_daemoneye-agent"))
        .args(["run", "--procmond-mode", "external", "--procmond-token-file"])
        .arg(&token)
        .arg("--data-dir")
        .arg(&data)
        .arg("--runtime-dir")
        .arg(dir.path().join("run"))
        .env_clear()
        .env("HOME", dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(71), "{said}");
    assert!(said.contains(data.join("state.redb").to_str().unwrap()), "where: {said}");
    assert!(said.contains("version 99") && said.contains("use the newer build"), "what, and what to do: {said}");
}
