//! The ledger of a real run, damaged afterwards, judged by the console.
//!
//! Every byte of a ledger is flipped in process by `collector-core`'s ledger tests; here a sample goes through the program.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::LedgerReader;
use daemoneye_lib::ledger::checkpoint::Checkpoint;
use e2e::{Home, wait_for};

/// Offsets that are tried, spread evenly over what is written.
const SAMPLES: usize = 48;

fn verify(home: &Home, dir: &Path) -> Output {
    home.cli(&["audit", "verify", "--audit-dir", dir.to_str().unwrap(), "--format", "json"]).unwrap()
}

/// The tiles stay behind: they are derived.
pub(crate) fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn a_flipped_byte_is_found_and_the_first_bad_entry_named() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    wait_for("some entries", || {
        let verified = home.json(&["audit", "verify"])?;
        Ok((verified[0]["entries"].as_u64() > Some(4)).then_some(()))
    })
    .unwrap();
    assert_eq!(agent.stop().unwrap().0.code(), Some(0));

    let copy = home.path().join("copy");
    fs::create_dir(&copy).unwrap();
    copy_files(&home.data().join("audit"), &copy);
    assert!(verify(&home, &copy).status.success(), "an untouched copy verifies");

    let mut ends = Vec::new();
    let mut reader = LedgerReader::open(&copy).unwrap();
    while reader.advance().unwrap().is_some() {
        ends.push(reader.verifier().position());
    }

    let segment = copy.join("entries-00001.log");
    let sound = fs::read(&segment).unwrap();
    let written = sound.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut offsets: Vec<usize> = (0..SAMPLES).map(|n| n * (written - 1) / (SAMPLES - 1)).collect();
    if written + 100 < sound.len() {
        offsets.push(written + 100);
    }
    for offset in offsets {
        let mut damaged = sound.clone();
        damaged[offset] ^= 0x10;
        fs::write(&segment, &damaged).unwrap();
        let output = verify(&home, &copy);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(i32::from(Exit::Tampered.code())), "byte {offset}: {said}");
        let row: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let expected = ends.iter().filter(|end| **end <= (1, offset as u64)).count();
        assert_eq!(row[0]["entry"], expected, "byte {offset}: {row}");
        assert!(said.contains(&format!("ledger entry {expected}, ")), "byte {offset}: {said}");
    }
    fs::write(&segment, &sound).unwrap();
    assert!(verify(&home, &copy).status.success(), "restored, it verifies again");
}

fn printed(home: &Home, args: &[&str]) -> String {
    let output = home.cli(args).unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The Python that has these modules, or why there is none.
pub(crate) fn python(modules: &str) -> Result<String, String> {
    let asked = std::env::var("DAEMONEYE_PYTHON").ok();
    let python = asked.clone().unwrap_or_else(|| "python3".to_owned());
    match (Command::new(&python).args(["-c", &format!("import {modules}")]).output(), asked) {
        (Ok(found), _) if found.status.success() => Ok(python),
        (found, Some(_)) => panic!("DAEMONEYE_PYTHON is {python}, which cannot import {modules}: {found:?}"),
        (_, None) => Err(format!("{python} has no {modules}: see .ci/judges.txt")),
    }
}

#[test]
fn a_checkpoint_that_left_the_host_outlives_a_rotation_and_finds_a_ledger_that_was_put_back() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    wait_for("a checkpoint", || Ok(home.cli(&["audit", "checkpoint"])?.status.success().then_some(()))).unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let key = printed(&home, &["audit", "key"]);
    assert_eq!(key.lines().count(), 1, "{key}");
    let first = file("first.note", &printed(&home, &["audit", "checkpoint"]));
    let older = home.path().join("older");
    fs::create_dir(&older).unwrap();
    copy_files(&home.data().join("audit"), &older);

    let new_key = printed(&home, &["audit", "rotate-key"]);
    assert_ne!(new_key, key);
    assert_eq!(printed(&home, &["audit", "key"]), new_key);
    let second = file("second.note", &printed(&home, &["audit", "checkpoint"]));
    assert!(printed(&home, &["audit", "checkpoint", "--qr"]).lines().count() > 20);
    for (vkey, checkpoint) in [(&key, &first), (&key, &second), (&new_key, &first), (&new_key, &second)] {
        let args = ["audit", "verify", "--vkey", vkey.trim(), "--checkpoint", checkpoint];
        let verified = home.json(&args).unwrap();
        assert!(verified[0]["checkpoints"].as_u64() > Some(1), "{verified}");
    }
    // procmond's log holds each checkpoint as well, as what leaves the host with the system's log.
    let (status, transcript) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0));
    let logged = transcript.lines().rfind(|line| line.contains("ledger signed")).unwrap().to_owned();
    let logged = file("logged", &logged);
    printed(&home, &["audit", "verify", "--data-dir", home.data().to_str().unwrap(), "--checkpoint", &logged]);

    for checkpoint in [&second, &logged] {
        let args = ["audit", "verify", "--audit-dir", older.to_str().unwrap(), "--checkpoint", checkpoint];
        let output = home.cli(&args).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(i32::from(Exit::Tampered.code())), "{said}");
        assert!(said.contains("an older copy was put in its place"), "{said}");
    }

    let tiles = home.path().join("tiles");
    let data = home.data();
    printed(&home, &["audit", "export", "--tiles", tiles.to_str().unwrap(), "--data-dir", data.to_str().unwrap()]);
    match python("cryptography") {
        Err(reason) => eprintln!("skipped: {reason}"),
        Ok(python) => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/verify_tiles.py");
            let output = Command::new(python).arg(script).arg(&tiles).arg(new_key.trim()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// Over how many entries the checkpoints in these lines are.
fn sizes(text: &str) -> Vec<u64> {
    let notes = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let notes = notes.filter_map(|line| Some(line.get("checkpoint")?.as_str()?.to_owned()));
    notes.map(|note| Checkpoint::dangerous_unverified(&note).unwrap().size).collect()
}

#[test]
fn every_checkpoint_goes_to_a_sink_that_asks_and_its_file_finds_a_ledger_that_was_put_back() {
    let home = Home::new().unwrap().set("SINKS__FILE__CHECKPOINTS", "true");
    let file = home.data().join("alerts.jsonl");
    let (audit, older) = (home.data().join("audit"), home.path().join("older"));
    let logged = || -> Vec<u64> {
        let log = fs::read_to_string(audit.join("checkpoints.log")).unwrap_or_default();
        let size = |note: &str| note.lines().nth(1).and_then(|size| size.parse().ok());
        log.split("\n\n").filter_map(size).collect()
    };
    let delivered = || sizes(&fs::read_to_string(&file).unwrap_or_default());
    let agent = home.start_ready().unwrap();
    wait_for("a checkpoint in the file", || Ok((!delivered().is_empty()).then_some(()))).unwrap();
    // Three more at once: no two looks are between them.
    for _ in 0..2 {
        printed(&home, &["audit", "rotate-key"]);
    }
    fs::create_dir(&older).unwrap();
    copy_files(&audit, &older);
    assert_eq!(agent.stop().unwrap().0.code(), Some(0));
    let (first, stopped) = (delivered().remove(0), logged());
    let agent = home.start_ready().unwrap();
    let wanted: Vec<u64> = stopped.into_iter().filter(|size| *size >= first).collect();
    wait_for("the checkpoint of the stop", || Ok(delivered().starts_with(&wanted).then_some(()))).unwrap();
    assert_eq!(agent.stop().unwrap().0.code(), Some(0));

    let verify = |dir: &Path| {
        let [dir, file] = [dir, &file].map(|path| path.to_str().unwrap().to_owned());
        home.cli(&["audit", "verify", "--audit-dir", &dir, "--checkpoint", &file]).unwrap()
    };
    let now = verify(&audit);
    assert!(now.status.success(), "{}", String::from_utf8_lossy(&now.stderr));
    assert_eq!(verify(&older).status.code(), Some(i32::from(Exit::Tampered.code())));
}

#[test]
fn a_ledger_whose_key_is_gone_raises_one_alert_with_what_to_do() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    wait_for("a checkpoint", || Ok(home.cli(&["audit", "checkpoint"])?.status.success().then_some(()))).unwrap();
    agent.stop().unwrap();
    let raised = |home: &Home| -> anyhow::Result<Vec<serde_json::Value>> {
        let alerts = home.delivered()?.into_iter();
        Ok(alerts.filter(|alert| alert["title"] == "Audit ledger damaged or not signed").collect())
    };
    assert!(raised(&home).unwrap().is_empty(), "a sound ledger raises none");
    fs::remove_file(home.data().join("keys/audit.seed")).unwrap();
    let agent = home.start_ready().unwrap();
    let first = wait_for("the alert", || Ok(raised(&home)?.pop())).unwrap();
    assert_eq!(first["severity"], "high", "{first}");
    assert!(first["row"]["cause"].as_str().unwrap().contains("seed"), "{first}");
    assert!(first["row"]["remedy"].as_str().unwrap().contains("audit verify"), "{first}");
    let found = home.health().unwrap()["findings"].to_string();
    assert!(found.contains("damaged or not signed"), "{found}");
    agent.stop().unwrap();
    // The next start finds it again, and tells nobody twice.
    let agent = home.start_ready().unwrap();
    wait_for("the second time", || Ok(agent.transcript().contains("is damaged or not signed").then_some(()))).unwrap();
    let alerts = home.query("SELECT id FROM alerts WHERE title = 'Audit ledger damaged or not signed'").unwrap();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    agent.stop().unwrap();
    assert_eq!(raised(&home).unwrap().len(), 1);
}

/// Alerts about the ledger that say this.
fn alerts_of(home: &Home, word: &str) -> anyhow::Result<Vec<serde_json::Value>> {
    let alerts = home.delivered()?.into_iter();
    let says = |alert: &serde_json::Value| alert["row"]["cause"].as_str().is_some_and(|cause| cause.contains(word));
    Ok(alerts.filter(|alert| alert["title"] == "Audit ledger damaged or not signed" && says(alert)).collect())
}

#[test]
fn a_ledger_that_was_put_back_or_begun_anew_raises_one_alert_and_an_operator_accepts_it() {
    let home = Home::new().unwrap();
    let run = || {
        let agent = home.start_ready().unwrap();
        wait_for("a checkpoint", || Ok(home.cli(&["audit", "checkpoint"])?.status.success().then_some(()))).unwrap();
        agent.stop().unwrap();
    };
    run();
    // With their owner, who is not root where the tests are; and both, or procmond itself tells it.
    let both = ["audit", "keys"].map(|name| (home.data().join(name), home.path().join(name)));
    for (now, older) in &both {
        assert!(Command::new("cp").arg("-a").arg(now).arg(older).status().unwrap().success());
    }
    run();
    run();
    assert!(alerts_of(&home, "").unwrap().is_empty(), "one that goes on raises none");
    for (now, older) in &both {
        fs::rename(now, older.with_extension("newer")).unwrap();
        fs::rename(older, now).unwrap();
    }

    let agent = home.start_ready().unwrap();
    let first = wait_for("the alert", || Ok(alerts_of(&home, "procmond")?.pop())).unwrap();
    let [had, has] = ["had_entries", "has_entries"].map(|name| first["row"][name].as_u64().unwrap());
    assert!(had > 0 && has > 0, "{first}");
    let finding = |home: &Home| home.health().unwrap()["findings"].to_string();
    let told = finding(&home);
    assert!(told.contains(&format!("had {had} entries")) && told.contains("accept-ledger"), "{told}");
    agent.stop().unwrap();
    // It is told until somebody accepts it, and raised once.
    let agent = home.start_ready().unwrap();
    assert!(finding(&home).contains("accept-ledger"));
    let accepted = home.json(&["audit", "accept-ledger"]).unwrap();
    assert_eq!((&accepted[0]["had_entries"], &accepted[0]["has_entries"]), (&had.into(), &has.into()));
    assert!(!finding(&home).contains("accept-ledger"));
    wait_for("the entry", || {
        let told = home.query("SELECT actor FROM audit_entries WHERE action = 'ledger-accepted'")?;
        Ok((told.len() == 1).then_some(()))
    })
    .unwrap();
    assert_eq!(home.json(&["audit", "accept-ledger"]).unwrap(), serde_json::json!([]), "once");
    agent.stop().unwrap();
    assert_eq!(alerts_of(&home, "").unwrap().len(), 1);

    // Moved away as docs/audit.md says.
    for name in ["audit", "keys"] {
        fs::rename(home.data().join(name), home.path().join(format!("{name}.before"))).unwrap();
    }
    let agent = home.start_ready().unwrap();
    wait_for("the second alert", || Ok((alerts_of(&home, "")?.len() == 2).then_some(()))).unwrap();
    // That it was raised is noted behind it, and then the ledger can be accepted.
    wait_for("the other ledger", || {
        Ok((home.json(&["audit", "accept-ledger"])?.as_array().is_some_and(|all| all.len() == 1)).then_some(()))
    })
    .unwrap();
    agent.stop().unwrap();
}

#[test]
fn a_ledger_whose_checkpoints_were_removed_raises_an_alert_and_is_not_signed() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    wait_for("a checkpoint", || Ok(home.cli(&["audit", "checkpoint"])?.status.success().then_some(()))).unwrap();
    agent.stop().unwrap();
    let audit = home.data().join("audit");
    assert_eq!(
        fs::read(audit.join("checkpoint")).unwrap(),
        fs::read(home.data().join("keys/audit.signed")).unwrap(),
        "what was signed is kept beside the seed"
    );
    fs::remove_file(audit.join("checkpoint")).unwrap();
    fs::remove_file(audit.join("checkpoints.log")).unwrap();
    let agent = home.start_ready().unwrap();
    let alert = wait_for("the alert", || {
        let alerts = home.delivered()?.into_iter();
        Ok(alerts.rev().find(|alert| alert["title"] == "Audit ledger damaged or not signed"))
    });
    let alert = alert.unwrap();
    assert!(alert["row"]["cause"].as_str().unwrap().contains("audit.signed"), "{alert}");
    agent.stop().unwrap();
    assert!(!audit.join("checkpoint").exists(), "nothing is signed, also at the end");
    let output = verify(&home, &audit);
    let row: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &row[0]["result"]), (Some(3), &"unsigned_end".into()), "{row}");
}
