//! What a stranger can be shown with one file and the ledger's key, in the real programs; and what a store is found to be that is
//! not what its ledger says.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use daemoneye_lib::exit::Exit;
use e2e::{Home, program, wait_for};
use serde_json::Value;

use crate::first_light::Hidden;

/// The console where nothing of DaemonEye lies but the files that were carried there.
fn elsewhere(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(program("daemoneye-cli").unwrap());
    command.args(args).args(["--format", "json"]).current_dir(dir).env_clear().env("HOME", dir).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn code(exit: Exit) -> Option<i32> {
    Some(i32::from(exit.code()))
}

/// The key that signs, which the first start makes.
fn first_key(home: &Home) -> String {
    let key = wait_for("the ledger's key", || {
        let output = home.cli(&["audit", "key"])?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned()))
    });
    key.unwrap()
}

/// Every row of what was verified, by its first column.
fn verified<'a>(rows: &'a [Value], what: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["what"] == what).collect()
}

#[test]
fn a_process_and_an_alert_are_proven_to_a_stranger_with_a_file_and_the_key() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let hidden = Hidden::start();
    let path = hidden.path.to_str().unwrap().to_owned();
    let alert = wait_for("the alert", || {
        Ok(home.delivered()?.into_iter().find(|alert| alert["process"]["executable_path"] == path.as_str()))
    });
    let alert = alert.unwrap();
    let (id, entity) = (alert["id"].as_str().unwrap(), alert["process"]["entity_id"].as_str().unwrap());
    let key = first_key(&home);
    let (proof, evidence) = (home.path().join("proof.json"), home.path().join("evidence.json"));
    // A checkpoint that reaches beyond both comes within a minute.
    for args in [
        ["audit", "prove", "--event", entity, "--output", proof.to_str().unwrap()].as_slice(),
        ["alerts", "evidence", id, "--output", evidence.to_str().unwrap()].as_slice(),
    ] {
        let made = wait_for("a checkpoint", || {
            let output = home.cli(args)?;
            Ok((output.status.code() != code(Exit::NotFound)).then_some(output))
        });
        let made = made.unwrap();
        assert!(made.status.success(), "{}", said(&made));
    }
    hidden.stop();
    agent.stop().unwrap();

    let away = tempfile::tempdir().unwrap();
    fs::rename(&proof, away.path().join("proof.json")).unwrap();
    fs::rename(&evidence, away.path().join("evidence.json")).unwrap();
    drop(home);
    let output = elsewhere(away.path(), &["audit", "verify-proof", "proof.json", "--vkey", &key]);
    assert!(output.status.success(), "{}", said(&output));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let events = verified(&rows, "event");
    assert!(
        !events.is_empty() && events.iter().all(|row| row["detail"].as_str().unwrap().contains(entity)),
        "{rows:?}"
    );

    let output = elsewhere(away.path(), &["alerts", "verify-evidence", "evidence.json", "--vkey", &key]);
    assert!(output.status.success(), "{}", said(&output));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(verified(&rows, "alert")[0]["detail"].as_str().unwrap().contains(id), "{rows:?}");
    assert_eq!(verified(&rows, "rule").len(), 1, "{rows:?}");
    assert!(verified(&rows, "event").len() >= 2, "its parent is an ancestor: {rows:?}");
    assert!(verified(&rows, "entry").iter().any(|row| row["detail"].as_str().unwrap().starts_with("start by ")));

    refuses_changed_files(away.path(), &key);
    let other = "daemoneye/m/audit+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let output = elsewhere(away.path(), &["audit", "verify-proof", "proof.json", "--vkey", other]);
    assert!(!output.status.success(), "{}", said(&output));
}

/// A bit of a sample of bytes, one after the other; every byte is flipped in the library's tests.
fn refuses_changed_files(dir: &Path, key: &str) {
    let commands = [("proof.json", ["audit", "verify-proof"]), ("evidence.json", ["alerts", "verify-evidence"])];
    for (file, [noun, verb]) in commands {
        let sound = fs::read(dir.join(file)).unwrap();
        for sample in 0..40 {
            let (at, mut changed) = (sample * (sound.len() - 1) / 39, sound.clone());
            changed[at] ^= 1 << (sample % 7);
            fs::write(dir.join("changed.json"), changed).unwrap();
            let output = elsewhere(dir, &[noun, verb, "changed.json", "--vkey", key]);
            assert_eq!(output.status.code(), code(Exit::Tampered), "byte {at} of {file}: {}", said(&output));
        }
    }
}

#[test]
fn a_store_is_held_against_its_ledger_alive_and_copied_and_what_is_missing_is_named() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let hidden = Hidden::start();
    let own = format!("SELECT entity_id FROM process_events WHERE executable_path = '{}'", hidden.path.display());
    wait_for("the event", || Ok(home.query(&own)?.pop())).unwrap();
    let live = wait_for("ranges", || {
        let rows = home.json(&["audit", "verify", "--rows"])?;
        Ok((rows[0]["events"].as_u64() > Some(0)).then_some(rows))
    });
    assert_eq!(live.unwrap()[0]["result"], "verified");
    hidden.stop();
    agent.stop().unwrap();

    let data = home.data();
    let copied = home.json(&["audit", "verify", "--store", data.to_str().unwrap()]).unwrap();
    assert!(copied[0]["events"].as_u64() > Some(0) && copied[0]["pending"] == 0, "{copied}");
    assert_eq!(copied[0]["unproven"], 0, "{copied}");

    let segments = fs::read_dir(data.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let victim = segments
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("process_events"))
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    fs::remove_file(&victim).unwrap();
    let output = home.cli(&["audit", "verify", "--store", data.to_str().unwrap(), "--format", "json"]).unwrap();
    assert_eq!(output.status.code(), code(Exit::Tampered), "{}", said(&output));
    let problems: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let named = |what: &str| problems.iter().any(|row| row["problem"].as_str().unwrap().starts_with(what));
    assert!(named("deleted") && problems.iter().any(|row| row["place"].as_str().unwrap().starts_with("procmond:")));
}
