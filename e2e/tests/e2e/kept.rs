//! What a stranger with one checkpoint from before is shown of a ledger that a local root rewrote and signed again with the real key,
//! and of the honest one; in the real programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use collector_core::ledger::{Draft, Ledger, LedgerOptions, TreeOptions};
use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::proof::Proof;
use daemoneye_lib::ledger::tree::TreeHash;
use daemoneye_lib::ledger::{LedgerFiles, LedgerRecord};
use e2e::{Home, wait_for};
use serde_json::Value;

use crate::first_light::Hidden;
use crate::ledger::copy_files;
use crate::proofs::{self, alerted, code, elsewhere, first_key, said, verified};

fn records(audit: &Path) -> Vec<LedgerRecord> {
    LedgerFiles::open(audit).unwrap().from(0).unwrap().map(Result::unwrap).collect()
}

/// Waits until the ledger tells of an alert.
pub(crate) fn in_ledger(audit: &Path, alert: &Value) {
    let told = |record: &LedgerRecord| {
        let payload: Value = serde_json::from_slice(&record.payload).unwrap_or_default();
        record.entry.action == "alert" && payload["alert"] == alert["id"]
    };
    wait_for("the alert's entry", || Ok(records(audit).iter().any(told).then_some(()))).unwrap();
}

/// The newest checkpoint, in a file.
fn keep(home: &Home, audit: &Path, file: &Path) -> u64 {
    let output = wait_for("a checkpoint", || {
        let output = home.cli(&["audit", "checkpoint", "--audit-dir", audit.to_str().unwrap()])?;
        Ok(output.status.success().then_some(output))
    })
    .unwrap();
    fs::write(file, &output.stdout).unwrap();
    Checkpoint::dangerous_unverified(&String::from_utf8(output.stdout).unwrap()).unwrap().size
}

/// What root can do who has the seed: all of it again, with another payload in one entry. Signed at the kept size and at the end.
fn rewritten(
    records: &[LedgerRecord],
    victim: u64,
    kept: u64,
    key: &str,
    dir: &Path,
    keys: &Path,
) -> (PathBuf, String) {
    let machine = key.split('/').nth(1).unwrap().to_owned();
    // It is read by nobody but its owner, who may be a user of procmond's own.
    let keys_dir = dir.with_extension("keys");
    fs::create_dir(&keys_dir).unwrap();
    fs::copy(keys.join("audit.seed"), keys_dir.join("audit.seed")).unwrap();
    let (hash, actor) = (TreeHash::Sha256, "procmond".to_owned());
    let tree = Some(TreeOptions { hash, machine, actor, keys_dir, credential: None });
    let (ledger, found) = Ledger::open(LedgerOptions { tree, ..LedgerOptions::new(dir) }).unwrap();
    assert_eq!(found.damage, None);
    let draft = |record: &LedgerRecord| {
        let payload = if record.entry.sequence == victim { b"{}".to_vec() } else { record.payload.to_vec() };
        let (actor, action) = (record.entry.actor.clone(), record.entry.action.clone());
        Draft { actor, action, timestamp_ms: record.entry.timestamp_ms, payload }
    };
    // The writer begins with the entry that names the key, as the first one did.
    let mut note = String::new();
    for part in [&records[1..usize::try_from(kept).unwrap()], &records[usize::try_from(kept).unwrap()..]] {
        if !part.is_empty() {
            ledger.append_batch(&part.iter().map(draft).collect::<Vec<_>>()).unwrap();
        }
        let signed = ledger.checkpoint().unwrap();
        if note.is_empty() {
            note = signed.unwrap();
        }
    }
    (dir.to_owned(), note)
}

#[test]
fn a_rewritten_ledger_that_is_signed_again_is_refused_with_a_checkpoint_that_left_the_host_before() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let hidden = Hidden::start();
    let own = format!("SELECT entity_id FROM process_events WHERE executable_path = '{}'", hidden.path.display());
    let rows = wait_for("the event", || Ok(home.query(&own)?.pop())).unwrap();
    let entity = rows["entity_id"].as_str().unwrap().to_owned();
    let key = first_key(&home);
    let away = tempfile::tempdir().unwrap();
    let file = |name: &str| away.path().join(name).to_str().unwrap().to_owned();
    // A checkpoint over it comes within a minute.
    wait_for("a checkpoint", || {
        let output = home.cli(&["audit", "prove", "--event", &entity, "--output", &file("alive.json")])?;
        if output.status.code() == code(Exit::NotFound) {
            return Ok(None);
        }
        assert!(output.status.success(), "{}", said(&output));
        Ok(Some(()))
    })
    .unwrap();
    let audit = home.data().join("audit");
    // What leaves the host is the one that the file is below: the next one may have come meanwhile.
    let alive: Value = serde_json::from_slice(&fs::read(file("alive.json")).unwrap()).unwrap();
    let note = alive["checkpoint"].as_str().unwrap();
    let kept = Checkpoint::dangerous_unverified(note).unwrap().size;
    fs::write(file("kept.note"), note).unwrap();
    hidden.stop();
    agent.stop().unwrap();

    let all = records(&audit);
    assert_eq!(all[0].entry.action, "key-created");
    assert!(all.len() as u64 > kept, "the end has a checkpoint of its own");
    let victim = all.iter().find(|record| record.entry.action == "event-range").unwrap().entry.sequence;
    assert!(victim < kept);
    let (forged, note) = rewritten(&all, victim, kept, &key, &home.path().join("forged"), &home.data().join("keys"));
    fs::write(away.path().join("forged.note"), note).unwrap();

    let prove = |audit: &Path, name: &str, more: &[&str]| -> Output {
        let (sequence, output) = (victim.to_string(), file(name));
        let args = ["audit", "prove", "--seq", &sequence, "--output", &output, "--audit-dir", audit.to_str().unwrap()];
        home.cli(&[&args[..], more].concat()).unwrap()
    };
    let verify = |name: &str, more: &[&str]| {
        elsewhere(away.path(), &[&["audit", "verify-proof", name, "--vkey", &key], more].concat())
    };
    let is = |output: &Output, exit: Exit, what: &str| {
        assert_eq!(output.status.code(), code(exit), "{}", said(output));
        assert!(said(output).contains(what), "{what}: {}", said(output));
    };
    let (before, its_own) = (file("kept.note"), file("forged.note"));

    // By itself the rewritten ledger is sound.
    is(&prove(&forged, "forged.json", &[]), Exit::Ok, "");
    is(&verify("forged.json", &[]), Exit::Ok, "");
    is(&verify("forged.json", &["--checkpoint", &before]), Exit::Usage, "--since");
    // Nor does a path help that leads from a checkpoint of its own.
    is(&prove(&forged, "refused.json", &["--since", &before]), Exit::Tampered, "entries before were replaced");
    assert!(!away.path().join("refused.json").exists());
    is(&prove(&forged, "since.json", &["--since", &its_own]), Exit::Ok, "");
    is(&verify("since.json", &[]), Exit::Ok, "");
    is(&verify("since.json", &["--checkpoint", &its_own]), Exit::Ok, "kept");
    is(&verify("since.json", &["--checkpoint", &before]), Exit::Tampered, "entries were replaced");

    is(&prove(&audit, "honest.json", &["--since", &before]), Exit::Ok, "");
    is(&verify("honest.json", &["--checkpoint", &before]), Exit::Ok, "below it 1 entries of the file, behind it 0");
    is(&verify("honest.json", &["--checkpoint", &its_own]), Exit::Tampered, "entries were replaced");
    is(&verify("alive.json", &["--checkpoint", &before]), Exit::Ok, "kept");
    let newest = file("newest.note");
    keep(&home, &audit, Path::new(&newest));
    is(&verify("alive.json", &["--checkpoint", &newest]), Exit::Usage, "ask for a newer file");
    is(&prove(&forged, "longer.json", &["--since", &newest]), Exit::Tampered, "");

    // All of a time, likewise.
    let time = ["--from", "1h", "--to", "0s", "--output"];
    for (audit, since, name, exit) in
        [(&forged, &its_own, "night.json", Exit::Tampered), (&audit, &before, "day.json", Exit::Degraded)]
    {
        let (output, dir) = (file(name), audit.to_str().unwrap());
        let made = [output.as_str(), "--since", since.as_str(), "--audit-dir", dir];
        let args = [&["audit", "prove"][..], &time[..], &made[..]].concat();
        is(&home.cli(&args).unwrap(), Exit::Ok, "");
        is(&verify(name, &["--checkpoint", &before]), exit, "");
    }

    // What nobody could verify here is not written.
    let keyless = home.path().join("keyless");
    fs::create_dir(&keyless).unwrap();
    copy_files(&audit, &keyless);
    fs::remove_file(keyless.join("keys")).unwrap();
    is(&prove(&keyless, "keyless.json", &[]), Exit::NotFound, "names no key");
    assert!(!away.path().join("keyless.json").exists());
}

#[test]
fn a_process_and_an_alert_are_proven_to_a_stranger_with_one_checkpoint_also_over_a_change_of_the_key() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let (hidden, alert) = alerted(&home);
    let (id, entity) = (alert["id"].as_str().unwrap(), alert["process"]["entity_id"].as_str().unwrap());
    let key = first_key(&home);
    let away = tempfile::tempdir().unwrap();
    let file = |name: &str| away.path().join(name).to_str().unwrap().to_owned();
    let audit = home.data().join("audit");
    let (older, kept) = (file("older.note"), file("kept.note"));
    let older_size = keep(&home, &audit, Path::new(&older));
    // The entry that tells of the alert is the last one that is needed.
    wait_for("a checkpoint", || {
        let output = home.cli(&["audit", "prove", "--alert", id, "--output", &file("waits.json")])?;
        Ok((output.status.code() != code(Exit::NotFound)).then_some(()))
    })
    .unwrap();
    assert!(keep(&home, &audit, Path::new(&kept)) >= older_size);
    let rotated = home.cli(&["audit", "rotate-key"]).unwrap();
    assert!(rotated.status.success(), "{}", said(&rotated));

    for note in [&older, &kept] {
        for made in [
            ["audit", "prove", "--event", entity, "--output", &file("proof.json"), "--since", note].as_slice(),
            ["alerts", "evidence", id, "--output", &file("evidence.json"), "--since", note].as_slice(),
        ] {
            let output = proofs::made(made, |args| home.cli(args).unwrap());
            assert!(output.status.success(), "{}", said(&output));
        }
        for args in [["audit", "verify-proof", "proof.json"], ["alerts", "verify-evidence", "evidence.json"]] {
            let output = elsewhere(away.path(), &[&args[..], &["--vkey", &key, "--checkpoint", note]].concat());
            assert!(output.status.success(), "{}", said(&output));
            let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(verified(&rows, "kept").len(), 1, "{rows:?}");
        }
        strip(away.path(), &key);
        for name in ["proof.json", "evidence.json"] {
            fs::remove_file(away.path().join(name)).unwrap();
        }
    }
    hidden.stop();
    agent.stop().unwrap();
}

/// What is taken out of evidence is told.
fn strip(dir: &Path, key: &str) {
    let whole = Proof::of_file(&fs::read_to_string(dir.join("evidence.json")).unwrap()).unwrap();
    let verify = |proof: &Proof, what: &str| {
        fs::write(dir.join("stripped.json"), proof.to_file()).unwrap();
        for args in [["alerts", "verify-evidence"], ["audit", "verify-proof"]] {
            let output = elsewhere(dir, &[&args[..], &["stripped.json", "--vkey", key]].concat());
            assert_eq!(output.status.code(), code(Exit::Degraded), "{what}: {}", said(&output));
            assert!(said(&output).contains(what), "{what}: {}", said(&output));
        }
    };
    let mut without = whole.clone();
    without.events.pop();
    verify(&without, "an ancestor, is not in the file");
    without = whole;
    without.rule.clear();
    verify(&without, "the rule's text is not in the file");
}

/// Everything of a data directory but the ledger, which is procmond's.
fn copy_store(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("segments")).unwrap();
    fs::copy(from.join("state.redb"), to.join("state.redb")).unwrap();
    copy_files(&from.join("segments"), &to.join("segments"));
}

#[test]
fn entries_of_a_store_that_was_restored_from_a_copy_reach_the_ledger() {
    let home = Home::new().unwrap();
    let audit = home.data().join("audit");
    let agent = home.start_ready().unwrap();
    let (hidden, first) = alerted(&home);
    in_ledger(&audit, &first);
    hidden.stop();
    agent.stop().unwrap();
    let copy = home.path().join("copy");
    copy_store(&home.data(), &copy);

    let agent = home.start_ready().unwrap();
    for _ in 0..3 {
        let (hidden, alert) = alerted(&home);
        in_ledger(&audit, &alert);
        hidden.stop();
    }
    agent.stop().unwrap();
    fs::remove_dir_all(home.data().join("segments")).unwrap();
    copy_store(&copy, &home.data());

    let agent = home.start_ready().unwrap();
    let (hidden, alert) = alerted(&home);
    in_ledger(&audit, &alert);
    hidden.stop();
    agent.stop().unwrap();
    let told: Vec<String> = records(&audit)
        .into_iter()
        .filter(|record| record.entry.action == "outbox-renumbered")
        .map(|record| String::from_utf8_lossy(&record.payload).into_owned())
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let verified = home.cli(&["audit", "verify", "--audit-dir", audit.to_str().unwrap()]).unwrap();
    assert!(verified.status.success(), "{}", said(&verified));
    // What came behind the copy is not there, and nobody calls that deleted.
    let compared = home.cli(&["audit", "verify", "--store", home.data().to_str().unwrap()]).unwrap();
    assert_eq!(compared.status.code(), Some(i32::from(Exit::Degraded.code())), "{}", said(&compared));
    assert!(said(&compared).contains("restored: the store is older than the ledger"), "{}", said(&compared));
}

#[test]
fn procmonds_log_of_two_histories_finds_that_a_copy_was_put_in_the_place_of_the_ledger() {
    let home = Home::new().unwrap();
    let mut log = String::new();
    let mut run = || {
        let agent = home.start_ready().unwrap();
        wait_for("a checkpoint", || Ok(home.cli(&["audit", "checkpoint"])?.status.success().then_some(()))).unwrap();
        let (_, transcript) = agent.stop().unwrap();
        log.push_str(&transcript);
        log.clone()
    };
    run();
    let (data, copy, gone) = (home.data(), home.path().join("copy"), home.path().join("gone"));
    let put = |from: &Path, to: &Path| {
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    put(&data, &copy);
    let both = run();
    let lost = both.lines().rfind(|line| line.contains("ledger signed")).unwrap().to_owned();
    fs::rename(&data, &gone).unwrap();
    put(&copy, &data);
    // Past what is gone.
    let records = |data: &Path| records(&data.join("audit")).len();
    let all = loop {
        let all = run();
        if records(&data) > records(&gone) {
            break all;
        }
    };
    let newest = all.lines().rfind(|line| line.contains("ledger signed")).unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let audit = data.join("audit");
    let verify = |checkpoint: &str, exit: Exit| {
        let args = ["audit", "verify", "--audit-dir", audit.to_str().unwrap(), "--checkpoint", checkpoint];
        let output = home.cli(&args).unwrap();
        assert_eq!(output.status.code(), code(exit), "{checkpoint}: {}", said(&output));
    };
    verify(&file("newest.note", newest), Exit::Ok);
    verify(&file("lost.note", &lost), Exit::Tampered);
    let log = file("agent.log", &all);
    verify(&log, Exit::Tampered);
    let proof = home.path().join("refused.json");
    let args = ["audit", "prove", "--seq", "0", "--output", proof.to_str().unwrap(), "--since", &log];
    let output = home.cli(&[&args[..], &["--audit-dir", audit.to_str().unwrap()]].concat()).unwrap();
    assert_eq!(output.status.code(), code(Exit::Tampered), "{}", said(&output));
    assert!(!proof.exists());
}
