//! What a stranger can be shown with one file and the ledger's key, in the real programs; and what a store is found to be that is
//! not what its ledger says.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::LedgerFiles;
use daemoneye_lib::ledger::heartbeat::{HEARTBEAT, HeartbeatEntry};
use daemoneye_lib::ledger::proof::Proof;
use e2e::{Home, procmonds, program, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::first_light::Hidden;
use crate::kept::in_ledger;
use crate::killed::kill_procmond;
use crate::ledger::copy_files;
use crate::lives::start_external;

/// The console where nothing of DaemonEye lies but the files that were carried there.
pub(crate) fn elsewhere(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(program("daemoneye-cli").unwrap());
    command.args(args).args(["--format", "json"]).current_dir(dir).env_clear().env("HOME", dir).output().unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    format!("{} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn code(exit: Exit) -> Option<i32> {
    Some(i32::from(exit.code()))
}

/// The key that signs, which the first start makes.
pub(crate) fn first_key(home: &Home) -> String {
    let key = wait_for("the ledger's key", || {
        let output = home.cli(&["audit", "key"])?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned()))
    });
    key.unwrap()
}

#[test]
fn of_a_process_that_goes_on_what_is_below_the_checkpoint_is_proven() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let (script, stop) = (home.path().join("again.sh"), home.path().join("stop"));
    let text = format!("[ -e {} ] && exit; sleep 1; exec sh {} $(($1 + 1))", stop.display(), script.display());
    fs::write(&script, text).unwrap();
    let mut busy = Command::new("sh").arg(&script).arg("0").spawn().unwrap();
    let asked = format!("SELECT entity_id, count(*) AS n FROM process_events WHERE pid = {} GROUP BY 1", busy.id());
    let entity = wait_for("its events", || {
        let rows = home.query(&asked)?;
        let many = rows.into_iter().find(|row| row["n"].as_u64() > Some(2));
        Ok(many.and_then(|row| row["entity_id"].as_str().map(str::to_owned)))
    });
    let (entity, key, proof) = (entity.unwrap(), first_key(&home), home.path().join("proof.json"));
    let args = ["audit", "prove", "--event", &entity, "--output", proof.to_str().unwrap()];
    // Right behind a checkpoint all of it is below.
    wait_for("a part of it below a checkpoint", || {
        let output = home.cli(&args)?;
        let is_part = output.status.success() && said(&output).contains("younger than the newest checkpoint");
        if !is_part && proof.exists() {
            fs::remove_file(&proof)?;
        }
        Ok(is_part.then_some(()))
    })
    .unwrap();
    fs::write(&stop, "").unwrap();
    busy.wait().unwrap();
    agent.stop().unwrap();
    let rows = rows(&elsewhere(home.path(), &["audit", "verify-proof", "proof.json", "--vkey", &key]));
    assert!(!verified(&rows, "event").is_empty(), "{rows:?}");
}

/// Makes a file once the newest checkpoint is over all that it is to prove, a heartbeat over an alert included.
pub(crate) fn made(args: &[&str], cli: impl Fn(&[&str]) -> Output) -> Output {
    let file = args.iter().skip_while(|arg| **arg != "--output").nth(1).unwrap();
    let made = wait_for("a checkpoint", || {
        let output = cli(args);
        let is_early = said(&output).contains("cannot be judged yet");
        if is_early {
            fs::remove_file(file)?;
        }
        Ok((output.status.code() != code(Exit::NotFound) && !is_early).then_some(output))
    });
    made.unwrap()
}

/// Every row of what was verified, by its first column.
pub(crate) fn verified<'a>(rows: &'a [Value], what: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["what"] == what).collect()
}

/// A hidden program that runs, once its event is stored.
fn stored(home: &Home) -> Hidden {
    let hidden = Hidden::start();
    let own = format!("SELECT entity_id FROM process_events WHERE executable_path = '{}'", hidden.path.display());
    wait_for("the event", || Ok(home.query(&own)?.pop())).unwrap();
    hidden
}

/// A hidden program that runs, and the alert of it. A process that starts before the collector has looked at everything names no
/// parent, and has no ancestors then.
pub(crate) fn alerted(home: &Home) -> (Hidden, Value) {
    let known = format!("SELECT pid FROM processes WHERE pid = {}", std::process::id());
    wait_for("this program among the processes", || Ok((home.query(&known)?.len() == 1).then_some(()))).unwrap();
    let hidden = Hidden::start();
    let path = hidden.path.to_str().unwrap().to_owned();
    let alert = wait_for("the alert", || {
        Ok(home.delivered()?.into_iter().find(|alert| alert["process"]["executable_path"] == path.as_str()))
    });
    (hidden, alert.unwrap())
}

#[test]
fn a_process_and_an_alert_are_proven_to_a_stranger_with_a_file_and_the_key() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let (hidden, alert) = alerted(&home);
    let (id, entity) = (alert["id"].as_str().unwrap(), alert["process"]["entity_id"].as_str().unwrap());
    let key = first_key(&home);
    let (proof, evidence) = (home.path().join("proof.json"), home.path().join("evidence.json"));
    // A checkpoint that reaches beyond both comes within a minute, and one beyond a heartbeat over the alert soon after.
    for args in [
        ["audit", "prove", "--event", entity, "--output", proof.to_str().unwrap()].as_slice(),
        ["alerts", "evidence", id, "--output", evidence.to_str().unwrap()].as_slice(),
    ] {
        let made = made(args, |args| home.cli(args).unwrap());
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
    assert!(verified(&rows, "target")[0]["detail"].as_str().unwrap().contains(entity), "{rows:?}");
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
    let starts =
        verified(&rows, "entry").into_iter().filter(|row| row["detail"].as_str().unwrap().starts_with("start by "));
    let says: Vec<&str> = starts.map(|row| row["payload"].as_str().unwrap()).collect();
    let settings = |says: &str| serde_json::from_str::<Value>(says).unwrap()["settings"]["sinks.file.enabled"].clone();
    assert!(says.iter().any(|says| settings(says) == "true"), "what was switched on at a start: {says:?}");

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
    let hidden = stored(&home);
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

#[test]
fn a_ledger_that_was_begun_anew_proves_what_comes_and_names_what_is_older_as_unproven() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let (hidden, alert) = alerted(&home);
    hidden.stop();
    let data = home.data();
    // What still waits goes into the new one.
    in_ledger(&data.join("audit"), &alert);
    agent.stop().unwrap();
    // Its log as well: a new ledger covers what the log still has.
    for name in ["audit", "keys", "wal"] {
        fs::rename(data.join(name), home.path().join(name)).unwrap();
    }
    let agent = home.start_ready().unwrap();
    let hidden = stored(&home);
    hidden.stop();
    agent.stop().unwrap();
    let output = home.cli(&["audit", "verify", "--store", data.to_str().unwrap(), "--format", "json"]).unwrap();
    assert_eq!(output.status.code(), code(Exit::Degraded), "{}", said(&output));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows[0]["result"], "events_uncovered", "{}", said(&output));
    for count in ["events", "uncovered", "rows_unproven"] {
        assert!(rows[0][count].as_u64() > Some(0), "{count}: {}", said(&output));
    }
    let told = said(&output);
    assert!(told.contains("events of procmond from") && told.contains("before all that this ledger covers"), "{told}");
    // Where others run programs as well there may be more than are named.
    let named = told.contains(&format!("alert {}", alert["id"].as_str().unwrap()));
    assert!(named || told.contains(" more alerts and rows"), "{told}");
}

/// Its heartbeats, and its entries' actions.
fn beats(home: &Home) -> (Vec<HeartbeatEntry>, Vec<String>) {
    let entries = LedgerFiles::open(&home.data().join("audit")).unwrap().from(0).unwrap().map(Result::unwrap);
    let entries: Vec<_> = entries.filter(|record| record.entry.actor == "procmond").collect();
    let beats = entries.iter().filter(|record| record.entry.action == HEARTBEAT);
    let beats = beats.map(|record| HeartbeatEntry::read(&record.payload).unwrap()).collect();
    (beats, entries.into_iter().map(|record| record.entry.action).collect())
}

#[test]
fn a_time_is_proven_to_a_stranger_and_one_in_which_the_collector_was_killed_is_no_silence() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let key = first_key(&home);
    agent.kill_all().unwrap();
    kill_procmond(&home);
    wait_for("its end", || Ok(procmonds(&home.data())?.is_empty().then_some(()))).unwrap();
    let killed = beats(&home).0.len();
    let agent = home.start_ready().unwrap();
    let hidden = stored(&home);
    hidden.stop();
    agent.stop().unwrap();
    let (beats, actions) = beats(&home);
    assert_eq!(actions.iter().filter(|action| *action == "start").count(), 2, "{actions:?}");
    assert!(beats[killed..].windows(2).all(|pair| pair[0].to_ms == pair[1].from_ms), "{beats:?}");
    let watched = beats.last().unwrap();
    assert_eq!((watched.state.as_str(), watched.trouble.as_str()), ("running", ""), "{beats:?}");

    let away = tempfile::tempdir().unwrap();
    let audit = home.data().join("audit");
    let prove = |from: &str, to: &str, name: &str| {
        let file = away.path().join(name);
        let args = ["audit", "prove", "--from", from, "--to", to, "--output", file.to_str().unwrap(), "--audit-dir"];
        let output = home.cli(&[&args[..], &[audit.to_str().unwrap()]].concat()).unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    let time = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
    prove(&time(watched.from_ms), &time(watched.to_ms), "watched.json");
    prove("1h", "0s", "all.json");
    drop(home);

    let verify = |name: &str| {
        let output = elsewhere(away.path(), &["audit", "verify-proof", name, "--vkey", &key]);
        let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), rows, said(&output))
    };
    let (status, rows, output) = verify("watched.json");
    assert_eq!(status, code(Exit::Failure), "{output}");
    assert!(verified(&rows, "silence")[0]["detail"].as_str().unwrap().starts_with("no: somebody watched"), "{output}");
    assert_eq!(verified(&rows, "events")[0]["detail"], watched.events.to_string(), "{output}");
    assert!(watched.events > 0, "{output}");
    let (status, rows, output) = verify("all.json");
    assert_eq!(status, code(Exit::Degraded), "{output}");
    // Up to a second behind the events, which may be behind the heartbeat.
    assert_ne!(verified(&rows, "event-ranges")[0]["detail"], "0", "{output}");
    for why in ["the ledger begins later", "the collector ended without a word", "the collector was stopped"] {
        let gaps = verified(&rows, "gap");
        assert!(gaps.iter().any(|gap| gap["detail"].as_str().unwrap().contains(why)), "{why}: {output}");
    }

    let mut lacking = Proof::of_file(&fs::read_to_string(away.path().join("all.json")).unwrap()).unwrap();
    lacking.entries.remove(lacking.entries.len() / 2);
    fs::write(away.path().join("lacking.json"), lacking.to_file()).unwrap();
    let (status, _, output) = verify("lacking.json");
    assert_eq!(status, code(Exit::Tampered), "{output}");
}

/// A process table that was recorded, of a host on which nothing happens.
fn recorded_table(at: &Path) {
    fs::create_dir_all(at.join("sys/kernel/random")).unwrap();
    fs::create_dir_all(at.join("42")).unwrap();
    fs::create_dir(at.join("self")).unwrap();
    fs::write(at.join("sys/kernel/random/boot_id"), "11111111-2222-3333-4444-555555555555\n").unwrap();
    fs::write(at.join("stat"), "btime 1700000000\n").unwrap();
    let stat = "42 (quiet) S 1 42 42 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 100 0 25 0 7 0 7\n";
    fs::write(at.join("42/stat"), stat).unwrap();
}

/// What a stranger is told of a time: the exit code, and each row.
fn told_of(
    home: &Home,
    away: &Path,
    key: &str,
    name: &str,
    (from_ms, to_ms): (i64, i64),
) -> (Option<i32>, Vec<Value>) {
    let (file, audit) = (away.join(name), home.data().join("audit"));
    if file.exists() {
        fs::remove_file(&file).unwrap();
    }
    let time = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
    let (from, to) = (time(from_ms), time(to_ms));
    let args = ["audit", "prove", "--from", &from, "--to", &to, "--output", file.to_str().unwrap(), "--audit-dir"];
    let output = home.cli(&[&args[..], &[audit.to_str().unwrap()]].concat()).unwrap();
    assert!(output.status.success(), "{}", said(&output));
    verified_elsewhere(away, key, name)
}

fn verified_elsewhere(away: &Path, key: &str, name: &str) -> (Option<i32>, Vec<Value>) {
    let output = elsewhere(away, &["audit", "verify-proof", name, "--vkey", key]);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

fn says_silence(rows: &[Value], word: &str) -> bool {
    verified(rows, "silence").iter().any(|row| row["detail"].as_str().unwrap().starts_with(word))
}

#[test]
fn silence_of_a_quiet_host_is_proven_to_a_stranger_and_none_of_a_time_in_which_the_collector_was_blind() {
    let home = Home::new().unwrap();
    let table = home.path().join("table");
    recorded_table(&table);
    // So short that the test need not last minutes.
    let home = home
        .set("PROCMOND__SOURCE", "procfs")
        .variable("PROCMOND_PROC_ROOT", table.to_str().unwrap())
        .variable("PROCMOND_LEDGER__HEARTBEAT_MS", "2000");
    let agent = home.start_ready().unwrap();
    let key = first_key(&home);
    let away = tempfile::tempdir().unwrap();
    let told = |name: &str, time: (i64, i64)| told_of(&home, away.path(), &key, name, time);
    // On a machine that is busy a look or a heartbeat may be late, which shows nothing: then a later one has to.
    let silent = wait_for("silence", || {
        let quiet = beats(&home).0.into_iter().rfind(|beat| {
            beat.state == "running"
                && (beat.announced, beat.events) == (Some(false), 0)
                && told("quiet.json", (beat.from_ms, beat.to_ms)).0 == code(Exit::Ok)
        });
        Ok(quiet)
    });
    let silent = silent.unwrap();
    assert!(silent.cycles > 0 && silent.every_ms == Some(2_000), "{silent:?}");

    let collector = Pid::from_raw(home.procmond_pid().unwrap());
    let before = beats(&home).0.last().unwrap().to_ms;
    kill(collector, Signal::SIGSTOP).unwrap();
    wait_for("four heartbeats' time", || {
        Ok((jiff::Timestamp::now().as_millisecond() > before + 4 * 2_000).then_some(()))
    })
    .unwrap();
    kill(collector, Signal::SIGCONT).unwrap();
    let stopped = wait_for("the heartbeat over it", || {
        let over = |beat: &HeartbeatEntry| beat.from_ms >= before && beat.to_ms > before + 4 * 2_000;
        Ok(beats(&home).0.into_iter().find(over))
    });
    let stopped = stopped.unwrap();
    fs::remove_dir_all(&table).unwrap();
    let failed = wait_for("a look that fails", || Ok(beats(&home).0.into_iter().find(|beat| beat.errors > 0)));
    let failed = failed.unwrap();
    agent.stop().unwrap();

    for (beat, why) in
        [(&stopped, "one heartbeat for so long a time"), (&failed, "the source did not watch all the time")]
    {
        let (status, rows) = told("blind.json", (beat.from_ms, beat.to_ms));
        assert_eq!(status, code(Exit::Degraded), "{rows:?}");
        assert!(says_silence(&rows, "not shown"), "{rows:?}");
        let gaps = verified(&rows, "gap");
        assert!(gaps.iter().any(|gap| gap["detail"].as_str().unwrap().contains(why)), "{why}: {rows:?}");
    }
    let (status, _) = told("quiet.json", (silent.from_ms, silent.to_ms));
    assert_eq!(status, code(Exit::Ok));
    drop(home);
    let (status, rows) = verified_elsewhere(away.path(), &key, "quiet.json");
    assert_eq!((status, says_silence(&rows, "yes")), (code(Exit::Ok), true), "{rows:?}");
    assert_eq!((&verified(&rows, "events")[0]["detail"], verified(&rows, "gap").len()), (&"0".into(), 0), "{rows:?}");
}

/// The console as an operator of the packaged services calls it, who names no directory.
fn as_packaged(home: &Home, args: &[&str]) -> Output {
    let mut command = home.cli_command(&[args, &["--format", "json"]].concat()).unwrap();
    command.env_remove("DAEMONEYE_CLI_DATA_DIR").output().unwrap()
}

fn rows(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_ledger_of_a_collector_with_a_data_directory_of_its_own_is_found_alive_and_copied() {
    let home = Home::new().unwrap();
    let collectors = home.path().join("procmond");
    let audit = collectors.join("audit");
    fs::create_dir_all(&audit).unwrap();
    let home = home.set("PROCMOND__AUDIT_DIR", audit.to_str().unwrap());
    let (home, agent, mut collector) = start_external(home, &collectors);
    let hidden = Hidden::start();
    let path = hidden.path.to_str().unwrap().to_owned();
    let alert = wait_for("the alert", || {
        Ok(home.delivered()?.into_iter().find(|alert| alert["process"]["executable_path"] == path.as_str()))
    });
    let id = alert.unwrap()["id"].as_str().unwrap().to_owned();
    let evidence = home.path().join("evidence.json");
    let args = ["alerts", "evidence", &id, "--output", evidence.to_str().unwrap()];
    let made = made(&args, |args| as_packaged(&home, args));
    assert!(made.status.success(), "{}", said(&made));
    let key = rows(&as_packaged(&home, &["audit", "key"]))[0]["vkey"].as_str().unwrap().to_owned();
    let kept = rows(&as_packaged(&home, &["audit", "checkpoint"]));
    assert!(kept[0]["entries"].as_u64() > Some(0) && kept[0]["root"].as_str().unwrap().len() == 64, "{kept:?}");
    // A directory is no checkpoint, and a file that is there stays.
    let at = home.path().to_str().unwrap();
    let output =
        elsewhere(home.path(), &["alerts", "verify-evidence", "evidence.json", "--vkey", &key, "--checkpoint", at]);
    assert_eq!(output.status.code(), code(Exit::Unreadable), "{}", said(&output));
    assert_eq!(
        elsewhere(home.path(), &["audit", "verify-proof", at, "--vkey", &key]).status.code(),
        output.status.code()
    );
    let output = as_packaged(&home, &args);
    assert!(!output.status.success() && said(&output).contains("name another with --output"), "{}", said(&output));
    rows(&elsewhere(home.path(), &["alerts", "verify-evidence", "evidence.json", "--vkey", &key]));
    let live = wait_for("ranges", || {
        let live = rows(&as_packaged(&home, &["audit", "verify", "--rows"]));
        Ok((live[0]["events"].as_u64() > Some(0)).then_some(live))
    });
    assert_eq!(live.unwrap()[0]["directory"], audit.to_str().unwrap());
    // Another ledger than the one that the agent compares with.
    let older = home.path().join("older");
    fs::create_dir(&older).unwrap();
    copy_files(&audit, &older);
    let output = as_packaged(&home, &["audit", "verify", "--rows", "--audit-dir", older.to_str().unwrap()]);
    assert_eq!(output.status.code(), code(Exit::Usage), "{}", said(&output));
    hidden.stop();
    assert_eq!(agent.stop().unwrap().0.code(), Some(0));
    collector.stop();

    let (data, audit) = (home.data(), audit.to_str().unwrap());
    let store = ["audit", "verify", "--store", data.to_str().unwrap()];
    let copied = rows(&as_packaged(&home, &[store.as_slice(), &["--audit-dir", audit]].concat()));
    // What the collector recorded behind the agent's end is in its log alone.
    assert!(copied[0]["events"].as_u64() > Some(0) && copied[0]["result"] == "verified", "{copied:?}");
    let output = as_packaged(&home, &store);
    assert_eq!(output.status.code(), code(Exit::NotFound), "{}", said(&output));
    assert!(said(&output).contains("--audit-dir"), "{}", said(&output));
}
