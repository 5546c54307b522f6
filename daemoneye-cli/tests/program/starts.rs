//! The real program where no agent runs: it says what it is, fails with the right code and the right advice, and verifies
//! ledgers by itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use collector_core::ledger::{Draft, Ledger, LedgerOptions, TreeOptions};
use daemoneye_lib::ledger::tree::TreeHash;

/// Runs it with nothing of this user's environment or configuration.
pub(crate) fn cli(home: &Path, arguments: &[&str]) -> Output {
    let home = home.display().to_string();
    Command::new(env!("CARGO_BIN_EXE_daemoneye-cli"))
        .args(arguments)
        .env_clear()
        .env("HOME", &home)
        .env("XDG_CONFIG_HOME", format!("{home}/config"))
        .env("DAEMONEYE_CLI_RUNTIME_DIR", format!("{home}/run"))
        .env("DAEMONEYE_CLI_DATA_DIR", format!("{home}/data"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn it_tells_its_version_and_its_commands() {
    let home = tempfile::tempdir().unwrap();
    let version = cli(home.path(), &["--version"]);
    assert_eq!(stdout(&version), format!("daemoneye-cli {}\n", env!("CARGO_PKG_VERSION")));
    let help = cli(home.path(), &["--help"]);
    for command in ["query", "processes", "alerts", "rules", "health", "events", "audit", "config", "completions"] {
        assert!(stdout(&help).contains(command), "{command}");
    }
    for shell in ["bash", "zsh", "fish", "powershell"] {
        assert!(stdout(&cli(home.path(), &["completions", shell])).contains("daemoneye-cli"), "{shell}");
    }
}

#[test]
fn a_new_rule_is_told_by_its_file_or_as_a_document() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let new = |name: &str, format: &str| {
        stdout(&cli(home.path(), &["rules", "new", "A shell", "--output", &path(name), "--format", format]))
    };
    assert_eq!(new("a.yaml", "table"), format!("{}\n", path("a.yaml")));
    for (name, format) in [("b.yaml", "json"), ("c.yaml", "jsonl")] {
        let told: serde_json::Value = serde_json::from_str(&new(name, format)).unwrap();
        assert_eq!((&told["file"], &told["name"]), (&path(name).into(), &"A shell".into()));
        let text = std::fs::read_to_string(path(name)).unwrap();
        assert!(text.contains(&format!("id: {}\n", told["id"].as_str().unwrap())), "{text}");
    }
}

#[test]
fn without_an_agent_it_says_where_it_looked_and_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    for command in [&["query", "SELECT 1"][..], &["health"], &["alerts", "list"], &["rules", "reload"], &["processes"]]
    {
        let output = cli(home.path(), command);
        assert_eq!(code(&output), 6, "{command:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("cli.sock"), "{}", stderr(&output));
        assert!(stderr(&output).contains("daemoneye-agent run"), "{}", stderr(&output));
        assert_eq!(stdout(&output), "", "standard output is for results");
    }
}

#[test]
fn a_wrong_command_line_and_a_wrong_configuration_have_their_own_codes() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(code(&cli(home.path(), &["query", "--format", "xml", "SELECT 1"])), 2);
    assert_eq!(code(&cli(home.path(), &["rules", "validate"])), 2);
    let output = cli(home.path(), &["health", "--deadline-ms", "1"]);
    assert_eq!(code(&output), 78);
    assert!(stderr(&output).contains("deadline_ms = 1 from --deadline-ms is refused"), "{}", stderr(&output));
    assert_eq!(code(&cli(home.path(), &["query", "--store", "/nonexistent", "SELECT 1"])), 4);
}

#[test]
fn config_validate_names_every_mistake_of_a_file() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.yaml");
    std::fs::write(&file, "store:\n  seal_rows: 5\n").unwrap();
    let whose = cli(home.path(), &["config", "validate", &file.display().to_string()]);
    assert_eq!(code(&whose), 2);
    assert!(stderr(&whose).contains("--component"), "{}", stderr(&whose));

    std::fs::create_dir(home.path().join("daemoneye-agent")).unwrap();
    let file = home.path().join("daemoneye-agent/config.yaml");
    std::fs::write(&file, "store:\n  seal_row: 5\nquery:\n  concurrent: 1000\n").unwrap();
    let path = file.display().to_string();
    let output = cli(home.path(), &["config", "validate", &path]);
    assert_eq!(code(&output), 78);
    let text = stderr(&output);
    assert!(text.contains("did you mean store.seal_rows?"), "{text}");
    assert!(text.contains("query.concurrent = 1000"), "{text}");

    std::fs::write(&file, "store:\n  seal_rows: 5\n").unwrap();
    assert_eq!(code(&cli(home.path(), &["config", "validate", &path])), 0);
    assert_eq!(code(&cli(home.path(), &["config", "validate", "--component", "procmond", &path])), 78);
}

#[test]
fn config_show_tells_values_and_origins_and_that_the_agents_are_missing() {
    let home = tempfile::tempdir().unwrap();
    let output = cli(home.path(), &["config", "show", "--origin", "--format", "csv", "--log-level", "error"]);
    assert_eq!(code(&output), 3);
    let text = stdout(&output);
    assert!(text.contains("daemoneye-cli,log.level,error,--log-level\n"), "{text}");
    assert!(text.contains("daemoneye-cli,deadline_ms,30000,default\n"), "{text}");
    assert!(text.contains("run,DAEMONEYE_CLI_RUNTIME_DIR\n"), "{text}");
    assert!(stderr(&output).contains("the agent's settings are missing"), "{}", stderr(&output));
}

#[cfg(unix)]
#[test]
fn without_a_home_directory_only_what_needs_a_default_of_it_fails() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt as _;

    // Where any user may run it; copied by another process, because one of ours that is started meanwhile would hold it open.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_daemoneye-cli")).arg(dir.path().join("cli")).status();
    assert!(copied.unwrap().success());
    let bare = |arguments: &[&str]| {
        let mut command = Command::new(dir.path().join("cli"));
        command.args(arguments).env_clear().stdin(Stdio::null());
        // Root's directories need no home directory.
        if nix::unistd::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        command.output().unwrap()
    };
    let away = bare(&["events", "follow", "--runtime-dir", "/nonexistent/run"]);
    assert_eq!(code(&away), 6, "{}", stderr(&away));
    assert_eq!(code(&bare(&["completions", "bash"])), 0);
    let unknown = bare(&["health"]);
    assert_eq!(code(&unknown), 78, "{}", stderr(&unknown));
    assert!(stderr(&unknown).contains("runtime_dir has no default on this host"), "{}", stderr(&unknown));
    let ledger = bare(&["audit", "verify", "--runtime-dir", "/nonexistent/run"]);
    assert_eq!(code(&ledger), 78, "{}", stderr(&ledger));
    assert!(stderr(&ledger).contains("--data-dir"), "{}", stderr(&ledger));
    let shown = bare(&["config", "show", "--format", "csv", "--runtime-dir", "/nonexistent/run"]);
    assert!(stdout(&shown).contains("daemoneye-cli,data_dir,\n"), "{}", stdout(&shown));
}

#[test]
fn a_file_that_does_not_exist_has_one_code_everywhere() {
    let home = tempfile::tempdir().unwrap();
    for command in [
        &["config", "validate", "/nonexistent"][..],
        &["config", "validate", "--component", "procmond", "/nonexistent/config.yaml"],
        &["query", "--store", "/nonexistent", "SELECT 1"],
        &["rules", "validate", "/nonexistent.yaml"],
        &["rules", "validate", "/dev/null/rule.yaml"],
    ] {
        let output = cli(home.path(), command);
        assert_eq!(code(&output), 4, "{command:?}: {}", stderr(&output));
    }
    let output = cli(home.path(), &["config", "validate", "/nonexistent"]);
    assert!(stderr(&output).contains("cannot read /nonexistent: No such file"), "{}", stderr(&output));
}

/// With a tree, a key beside it, and a checkpoint over all of it.
pub(crate) fn ledger(directory: &Path) {
    let ledger = signed(directory);
    for (action, payload) in [("start", "{}"), ("config", "{\"a\":1}"), ("stop", "{}")] {
        ledger.append(Draft::now("procmond", action, payload.as_bytes().to_vec())).unwrap();
    }
    ledger.checkpoint().unwrap().unwrap();
}

pub(crate) fn signed(directory: &Path) -> Ledger {
    let tree = TreeOptions {
        hash: TreeHash::Sha256,
        machine: "4f3c".to_owned(),
        actor: "procmond".to_owned(),
        keys_dir: directory.with_file_name("keys"),
        credential: None,
    };
    Ledger::open(LedgerOptions { tree: Some(tree), ..LedgerOptions::new(directory) }).unwrap().0
}

pub(crate) fn result(output: &Output) -> (i32, String) {
    let all: serde_json::Value = serde_json::from_str(&stdout(output)).unwrap();
    (code(output), all.pointer("/0/result").and_then(serde_json::Value::as_str).unwrap().to_owned())
}

#[test]
fn a_plain_chain_is_no_verified_ledger() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("data").join("audit");
    let (plain, _) = Ledger::open(LedgerOptions::new(&directory)).unwrap();
    plain.append(Draft::now("procmond", "start", b"{}".to_vec())).unwrap();
    drop(plain);
    let verify = || cli(home.path(), &["audit", "verify", "--format", "json"]);
    assert_eq!(result(&verify()), (3, "plain_chain".to_owned()));
    assert!(stderr(&verify()).contains("names a key"), "{}", stderr(&verify()));
    // Nor with a tree over it that nobody signs.
    std::fs::write(directory.join("tree"), "sha256\n").unwrap();
    assert_eq!(result(&verify()), (3, "plain_chain".to_owned()));
}

#[test]
fn entries_that_no_signature_is_over_are_counted_and_too_many_of_them_are_no_verified_ledger() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("data").join("audit");
    ledger(&directory);
    let note = std::fs::read_to_string(directory.join("checkpoint")).unwrap();
    let log = std::fs::read_to_string(directory.join("checkpoints.log")).unwrap();
    let more = |count: usize| {
        let drafts: Vec<Draft> = (0..count).map(|_| Draft::now("procmond", "start", b"{}".to_vec())).collect();
        let ledger = signed(&directory);
        ledger.append_batch(&drafts).unwrap();
        ledger
    };
    drop(more(20));
    let verify = |args: &[&str]| cli(home.path(), &[&["audit", "verify", "--format", "json"], args].concat());
    let short = verify(&[]);
    assert_eq!(result(&short), (0, "verified".to_owned()));
    assert!(stderr(&short).contains("20 entries lie behind the last checkpoint"), "{}", stderr(&short));
    let newest = more(2_000).checkpoint().unwrap().unwrap();
    assert_eq!(result(&verify(&[])), (0, "verified".to_owned()));
    let (kept, kept_newest) = (home.path().join("kept.note"), home.path().join("newest.note"));
    std::fs::write(&kept, &note).unwrap();
    std::fs::write(&kept_newest, newest).unwrap();
    // What a forger leaves who has no key: an older checkpoint, and what he likes behind it.
    std::fs::write(directory.join("checkpoint"), note).unwrap();
    std::fs::write(directory.join("checkpoints.log"), log).unwrap();
    let vkey = std::fs::read_to_string(directory.join("keys")).unwrap();
    for args in [&[][..], &["--vkey", vkey.trim()], &["--checkpoint", kept.to_str().unwrap()]] {
        let long = verify(args);
        assert_eq!(result(&long), (3, "unsigned_end".to_owned()), "{args:?}");
        assert!(stderr(&long).contains("2020 entries lie behind the last checkpoint"), "{}", stderr(&long));
    }
    let whole = verify(&["--checkpoint", kept_newest.to_str().unwrap()]);
    assert_eq!(result(&whole), (0, "verified".to_owned()), "{}", stderr(&whole));
    std::fs::remove_file(directory.join("checkpoint")).unwrap();
    std::fs::remove_file(directory.join("checkpoints.log")).unwrap();
    assert_eq!(result(&verify(&[])), (3, "unsigned_end".to_owned()));
}

#[test]
fn a_kept_checkpoint_says_how_far_it_reaches() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("data").join("audit");
    ledger(&directory);
    let kept = home.path().join("kept.note");
    std::fs::copy(directory.join("checkpoint"), &kept).unwrap();
    let again = signed(&directory);
    again.append(Draft::now("procmond", "start", b"{}".to_vec())).unwrap();
    again.checkpoint().unwrap().unwrap();
    drop(again);
    let output = cli(home.path(), &["audit", "verify", "--format", "json", "--checkpoint", kept.to_str().unwrap()]);
    let all: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&all[0]["kept_entries"], &all[0]["entries"]), (&4.into(), &5.into()), "{all}");
    assert!(stderr(&output).contains("over 4 entries; 1 came behind it"), "{}", stderr(&output));
}

#[test]
fn audit_verify_reads_the_files_itself_and_names_the_first_bad_entry() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("data").join("audit");
    ledger(&directory);
    let verified = cli(home.path(), &["audit", "verify", "--format", "json"]);
    assert_eq!(code(&verified), 0, "{}", stderr(&verified));
    assert!(stdout(&verified).contains("\"entries\":4"), "{}", stdout(&verified));

    let file = directory.join("entries-00001.log");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(6).position(|window| window == b"config").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let copy = directory.display().to_string();
    let tampered = cli(home.path(), &["audit", "verify", "--audit-dir", &copy]);
    assert_eq!(code(&tampered), 76, "{}", stderr(&tampered));
    assert!(stderr(&tampered).contains("ledger entry 2"), "{}", stderr(&tampered));
    let tampered = cli(home.path(), &["audit", "verify", "--audit-dir", &copy, "--format", "jsonl"]);
    assert_eq!(code(&tampered), 76, "{}", stderr(&tampered));
    let told: serde_json::Value = serde_json::from_str(&stdout(&tampered)).unwrap();
    assert_eq!((&told["result"], &told["entry"]), (&"tampered".into(), &2.into()), "{told}");
    assert_eq!(told["file"], file.display().to_string());
    assert!(told["problem"].as_str().unwrap().contains("checksum") && told["offset"].as_u64() > Some(64), "{told}");
}

#[test]
fn a_ledger_without_the_note_of_its_end_verifies_with_a_warning() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("data").join("audit");
    ledger(&directory);
    let note = directory.join("entries.durable");
    let verify = || cli(home.path(), &["audit", "verify", "--format", "json"]);
    assert_eq!(result(&verify()), (0, "verified".to_owned()));
    std::fs::write(&note, "short").unwrap();
    assert_eq!(result(&verify()), (3, "end_unknown".to_owned()));
    std::fs::remove_file(&note).unwrap();
    let absent = verify();
    assert_eq!(result(&absent), (3, "end_unknown".to_owned()));
    assert!(stderr(&absent).contains("entries.durable is missing"), "{}", stderr(&absent));
}

#[test]
fn a_ledger_that_is_not_there_is_not_a_verified_one() {
    let home = tempfile::tempdir().unwrap();
    let absent = cli(home.path(), &["audit", "verify"]);
    assert_eq!(code(&absent), 4, "{}", stderr(&absent));
    std::fs::create_dir_all(home.path().join("data").join("audit")).unwrap();
    let empty = cli(home.path(), &["audit", "verify"]);
    assert_ne!(code(&empty), 0, "{}", stderr(&empty));
}

#[test]
fn a_store_that_is_gone_is_no_store_that_fits_its_ledger() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    ledger(&data.join("audit"));
    let (data, audit) = (data.to_str().unwrap(), data.join("audit"));
    for args in [vec!["--store", data], vec!["--store", "/no-such-dir", "--audit-dir", audit.to_str().unwrap()]] {
        let verified = cli(home.path(), &[&["audit", "verify"], args.as_slice()].concat());
        assert_eq!(code(&verified), 4, "{} {}", stdout(&verified), stderr(&verified));
        assert!(stderr(&verified).contains("is no data directory"), "{}", stderr(&verified));
    }
    let data = cli(home.path(), &["audit", "verify", "--audit-dir", data]);
    assert_eq!(code(&data), 4, "{}", stderr(&data));
    assert!(stderr(&data).contains(&format!("name --audit-dir {}", audit.display())), "{}", stderr(&data));
}

#[test]
fn a_foreign_file_steers_no_terminal() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("proof");
    std::fs::write(&file, "{\"\\n\\u001b]0;pwned\\u0007\\u001b[2Jverified\": 1}\n").unwrap();
    ledger(&home.path().join("data").join("audit"));
    let key = stdout(&cli(home.path(), &["audit", "key"]));
    for args in [["audit", "verify-proof"], ["alerts", "verify-evidence"]] {
        let output = cli(home.path(), &[args[0], args[1], file.to_str().unwrap(), "--vkey", key.trim()]);
        assert!(code(&output) != 0 && stderr(&output).contains("is no proof as"), "{}", stderr(&output));
        assert!(!output.stderr.iter().any(|byte| *byte == 0x1b || *byte == 7), "{}", stderr(&output));
    }
}

#[test]
fn a_socket_path_that_does_not_fit_is_a_wrong_configuration() {
    let home = tempfile::tempdir().unwrap();
    let long = home.path().join("r".repeat(200)).display().to_string();
    let output = cli(home.path(), &["health", "--runtime-dir", &long]);
    assert_eq!(code(&output), 78, "{}", stderr(&output));
    assert!(stderr(&output).contains("shorter runtime directory"), "{}", stderr(&output));
}

#[cfg(unix)]
#[test]
fn what_may_not_be_read_is_neither_absent_nor_down() {
    use std::os::unix::fs::PermissionsExt as _;

    let home = tempfile::tempdir().unwrap();
    let closed = home.path().join("closed");
    ledger(&closed.join("audit"));
    let bound = std::os::unix::net::UnixListener::bind(closed.join("cli.sock")).unwrap();
    let mode = |mode| std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    if std::fs::read_dir(&closed).is_ok() {
        println!("skipped: this user may read everything");
        return mode(0o700);
    }
    let path = closed.display().to_string();
    let verify = cli(home.path(), &["audit", "verify", "--data-dir", &path]);
    let health = cli(home.path(), &["health", "--runtime-dir", &path]);
    mode(0o700);
    drop(bound);
    assert_eq!((code(&verify), code(&health)), (72, 6), "{} {}", stderr(&verify), stderr(&health));
    for output in [verify, health] {
        let text = stderr(&output);
        assert!(text.contains("group ") && text.contains("sudo"), "{text}");
        assert!(!text.contains("is it running") && !text.contains("there is no"), "{text}");
    }
}
