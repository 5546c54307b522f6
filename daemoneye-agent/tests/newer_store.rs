//! The real program on a store of a newer version: it says so and ends with its code. That nothing is changed is the engine's test.

use std::process::{Command, Stdio};

use daemoneye_engine::store::{Store, StoreOptions};
use redb::TableDefinition;

/// The value type of the table `meta`, as bytes: a version byte, then a varint.
#[derive(Debug)]
struct Counter;

impl redb::Value for Counter {
    type SelfType<'a> = &'a [u8];
    type AsBytes<'a> = &'a [u8];

    fn fixed_width() -> Option<usize> {
        None
    }
    fn from_bytes<'a>(data: &'a [u8]) -> &'a [u8]
    where
        Self: 'a,
    {
        data
    }
    fn as_bytes<'a, 'b: 'a>(value: &'a &'b [u8]) -> &'a [u8]
    where
        Self: 'b,
    {
        value
    }
    fn type_name() -> redb::TypeName {
        redb::TypeName::new("daemoneye::counter")
    }
}

const META: TableDefinition<'_, &str, Counter> = TableDefinition::new("meta");
#[test]
fn a_store_of_a_newer_version_is_named_and_ends_the_program_with_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    drop(Store::open(StoreOptions::new(&data)).unwrap());
    let database = redb::Database::open(data.join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("format_version", [1, 99].as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);

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
