//! The real program on a store of a newer version: it says so, ends with its code, and changes nothing.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is the failure")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use daemoneye_engine::store::{Store, StoreOptions};
use redb::{ReadableDatabase as _, TableDefinition};

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
const NEWER: &[u8] = &[1, 99];

fn version(data: &Path) -> Vec<u8> {
    let database = redb::ReadOnlyDatabase::open(data.join("state.redb")).unwrap();
    let meta = database.begin_read().unwrap().open_table(META).unwrap();
    meta.get("format_version").unwrap().unwrap().value().to_vec()
}

/// Every file below `dir` with its bytes, but for the lock, which says who looked last.
fn files(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            files(&path, found);
        } else if entry.file_name() != "agent.lock" && entry.file_name() != "state.redb" {
            found.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
}

#[test]
fn a_store_of_a_newer_version_is_named_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    drop(Store::open(StoreOptions::new(&data)).unwrap());
    let database = redb::Database::open(data.join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("format_version", NEWER).unwrap();
    transaction.commit().unwrap();
    drop(database);
    std::fs::write(data.join("segments/9.parquet"), b"of a newer build").unwrap();
    let mut before = BTreeMap::new();
    files(&data, &mut before);

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
    let mut after = BTreeMap::new();
    files(&data, &mut after);
    assert_eq!(after, before);
    assert_eq!(version(&data), NEWER);
}
