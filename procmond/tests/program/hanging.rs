//! Executables that cannot be hashed, or not soon: whatever becomes of them, no other process is told later.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::fuse::Fuse;
use crate::support::skip::skipped;
use crate::support::{Procmond, Running, copy, is, is_root, kernel_sources};

/// Programs that run while an executable keeps hashing waiting.
const OTHERS: usize = 40;

/// Less than the ten seconds that hashing waits for one file.
const HANGS: Duration = Duration::from_secs(8);

/// All of them are told.
fn others_are_told(procmond: &mut Procmond) {
    let others: Vec<u32> = (0..OTHERS)
        .map(|_| {
            let mut child = Command::new("/bin/true").arg("beside").stdin(Stdio::null()).spawn().unwrap();
            child.wait().unwrap();
            child.id()
        })
        .collect();
    for other in others {
        let stop = procmond.find("end of another", |event| is(event, "stop", other));
        assert_eq!(stop.get("exit_code").and_then(Value::as_i64), Some(0));
        procmond.find("start of another", |event| is(event, "start", other) && event["start_kind"] == "exec");
    }
}

#[test]
fn an_executable_on_a_file_system_that_does_not_answer_delays_nobody() {
    for source in kernel_sources() {
        let (dir, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let Some(silent) = Fuse::mount(at.path(), "/bin/sleep") else { return skipped("nothing can be mounted here") };
        let mut procmond = Procmond::ready(dir.path(), source, &[]);
        // A program that no thread of procmond has read when the file system falls silent.
        let known = Running::of(at.path().join("program"));
        procmond.find("hash", |event| event["pid"] == known.pid() && event["hash_status"] == "ok");
        drop(known);
        drop(procmond);
        let later = Running::of(at.path().join("program"));
        silent.fall_silent();
        let begun = Instant::now();
        let mut procmond = Procmond::start(dir.path(), source, &["--hashing-enabled=true"]);
        let own = procmond.child.id();
        procmond.wait_for("baseline of itself", |event| is(event, "start", own));
        others_are_told(&mut procmond);
        let known = |event: &&Value| event["pid"] == later.pid() && !event["hash_status"].is_null();
        let early = procmond.seen().iter().find(known).cloned();
        // On a machine that took longer the wait may be over.
        assert!(early.is_none() || begun.elapsed() > HANGS, "the read hangs while they are told: {early:?}");
        let answer = procmond.find("answer", |event| event["pid"] == later.pid() && !event["hash_status"].is_null());
        assert_eq!((answer["hash_status"].as_str(), answer["executable_hash"].as_str()), (Some("timeout"), None));
        drop(procmond);
        drop(silent);
    }
}

fn large(path: &Path, bytes: u64) {
    copy("/bin/sleep", path);
    // Not by this process: a test beside this one may fork while the file is open for writing, and then it is busy.
    assert!(Command::new("truncate").arg("-s").arg(bytes.to_string()).arg(path).status().unwrap().success());
}

#[test]
fn a_sparse_executable_and_one_that_is_replaced_while_it_is_hashed_delay_nobody() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (sparse, slow) = (dir.path().join("sparse"), dir.path().join("slow"));
    large(&sparse, 200 * 1024 * 1024 * 1024);
    // An unoptimised build hashes it within the time for one file, also on a machine that has ten other things to do.
    large(&slow, 1024 * 1024);
    let sum = Command::new("sha256sum").arg(&slow).output().unwrap();
    let mut procmond = Procmond::ready(&dir.path().join("data"), "auto", &[]);
    let (huge, long) = (Running::of(&sparse), Running::of(&slow));
    let told = procmond.find("answer", |event| event["pid"] == huge.pid() && !event["hash_status"].is_null());
    assert_eq!(told["hash_status"], "too_large");
    copy("/bin/true", &dir.path().join("other"));
    std::fs::rename(dir.path().join("other"), &slow).unwrap();
    others_are_told(&mut procmond);
    let answer = procmond.find("hash", |event| event["pid"] == long.pid() && !event["hash_status"].is_null());
    // Of what runs, not of what has taken its place.
    assert_eq!(answer["executable_hash"].as_str(), String::from_utf8(sum.stdout).unwrap().get(..64), "{answer}");
}
