//! The real program with a log of kept checkpoints: a ledger is held against every one of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use collector_core::ledger::Draft;
use daemoneye_lib::ledger::checkpoint::{Checkpoint, origin};
use daemoneye_lib::ledger::note::NoteSigner;

use crate::starts::{cli, code, ledger, result, signed, stderr, stdout};

/// Puts a file or directory in the place of another.
fn put(from: &Path, to: &Path) {
    let _absent = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Appends so many entries and signs.
fn more(audit: &Path, action: &str, count: usize) -> String {
    let ledger = signed(audit);
    let drafts: Vec<Draft> = (0..count).map(|_| Draft::now("procmond", action, b"{}".to_vec())).collect();
    ledger.append_batch(&drafts).unwrap();
    ledger.checkpoint().unwrap().unwrap()
}

/// A line as procmond logs it.
fn logged(note: &str) -> String {
    format!("2026-01-31T12:00:00Z  INFO daemoneye::published: ledger signed checkpoint={note:?}\n")
}

/// A ledger of 10 entries in whose place a copy of its first 4 was put and written on: the checkpoints over 4 of both, over 7 of the
/// history that is gone, over 6 and 10 of the one that is there.
struct Forked {
    home: tempfile::TempDir,
    both: String,
    gone: String,
    there: [String; 2],
}

impl Forked {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        let audit = data.join("audit");
        ledger(&audit);
        let both = std::fs::read_to_string(audit.join("checkpoint")).unwrap();
        let copy = home.path().join("copy");
        put(&data, &copy);
        let gone = more(&audit, "config", 3);
        put(&copy, &data);
        let there = [more(&audit, "start", 2), more(&audit, "start", 4)];
        Self { home, both, gone, there }
    }

    fn log(&self, text: &str) -> PathBuf {
        let path = self.home.path().join("log");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn verify(&self, log: &str) -> Output {
        self.verify_with(log, &[])
    }

    /// With the key that was kept.
    fn verify_by_key(&self, log: &str) -> Output {
        let key = stdout(&cli(self.home.path(), &["audit", "key"]));
        self.verify_with(log, &["--vkey", key.trim()])
    }

    fn verify_with(&self, log: &str, more: &[&str]) -> Output {
        let log = self.log(log);
        let args = ["audit", "verify", "--format", "json", "--checkpoint", log.to_str().unwrap()];
        cli(self.home.path(), &[&args, more].concat())
    }

    /// All that was ever logged.
    fn whole_log(&self) -> String {
        [&self.both, &self.gone, &self.there[0], &self.there[1]].map(|note| logged(note)).concat()
    }
}

#[test]
fn a_log_with_the_checkpoints_of_two_histories_finds_the_one_that_was_replaced() {
    let forked = Forked::new();
    assert_eq!(result(&forked.verify(&forked.gone)), (76, "tampered".to_owned()));
    assert_eq!(result(&forked.verify(&forked.there[1])), (0, "verified".to_owned()));
    let whole = forked.verify(&forked.whole_log());
    assert_eq!(result(&whole), (76, "tampered".to_owned()), "{}", stderr(&whole));
    assert!(
        stderr(&whole).contains("contradicts is over 7 entries, the last before it that fits over 4"),
        "{whole:?}"
    );
    // Nor where the ledger says nothing of itself any more.
    for name in ["checkpoint", "checkpoints.log", "keys"] {
        std::fs::remove_file(forked.home.path().join("data/audit").join(name)).unwrap();
    }
    let bare = forked.verify(&forked.whole_log());
    assert_eq!(result(&bare), (76, "tampered".to_owned()), "{}", stderr(&bare));
}

#[test]
fn what_nobody_signed_or_another_ledger_did_says_nothing_in_a_log_and_is_counted() {
    let forked = Forked::new();
    let forger = NoteSigner::new(&origin("4f3c"), &[9; 32]).unwrap();
    let forge = |size| Checkpoint { origin: origin("4f3c"), size, root: [9; 32] }.sign(&forger).unwrap();
    let other = NoteSigner::new(&origin("other"), &[9; 32]).unwrap();
    let other = Checkpoint { origin: origin("other"), size: 5, root: [9; 32] }.sign(&other).unwrap();
    let beside = [forge(5), forge(10), forge(99), other].map(|note| logged(&note)).concat();
    let honest = [&forked.both, &forked.there[0], &forked.there[1]].map(|note| logged(note)).concat();
    // Or the ledger was begun anew, in the place of the one that they are of.
    let output = forked.verify(&format!("{honest}{beside}"));
    assert_eq!(result(&output), (3, "checkpoints_unsigned".to_owned()), "{}", stderr(&output));
    assert!(stderr(&output).contains("give that with --vkey"), "{}", stderr(&output));
    let output = forked.verify_by_key(&format!("{honest}{beside}"));
    assert_eq!(result(&output), (0, "verified".to_owned()), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("3 checkpoints") && said.contains("1 checkpoints") && said.contains("against 3"), "{said}");
    assert!(stdout(&output).contains("\"kept_entries\":10"), "{output:?}");
    let output = forked.verify(&format!("{}{beside}", forked.whole_log()));
    assert_eq!(result(&output), (76, "tampered".to_owned()), "{}", stderr(&output));
    // Alone it is a claim about this ledger that does not hold.
    assert_eq!(code(&forked.verify(&beside)), 76);
}

#[test]
fn a_log_of_any_number_of_checkpoints_finds_the_one_that_was_replaced() {
    let forked = Forked::new();
    let forger = NoteSigner::new(&origin("4f3c"), &[9; 32]).unwrap();
    let forged = Checkpoint { origin: origin("4f3c"), size: 7, root: [9; 32] }.sign(&forger).unwrap();
    let many: String = (100..100_100).map(|size| forged.replacen("\n7\n", &format!("\n{size}\n"), 1)).collect();
    let [both, gone, there] = [&forked.both, &forked.gone, &forked.there[1]].map(|note| logged(note));
    let output = forked.verify_by_key(&format!("{both}{many}{gone}{there}"));
    assert_eq!(result(&output), (76, "tampered".to_owned()), "{}", stderr(&output));
    assert!(stderr(&output).contains("over 7 entries, the last before it that fits over 4"), "{}", stderr(&output));
}

#[test]
fn checkpoints_count_whatever_the_file_of_keys_lacks() {
    let forked = Forked::new();
    let audit = forked.home.path().join("data/audit");
    let ledger = signed(&audit);
    ledger.rotate_key().unwrap();
    drop(ledger);
    let rotated = more(&audit, "start", 2);
    let size = Checkpoint::dangerous_unverified(&rotated).unwrap().size;
    let keys = std::fs::read_to_string(audit.join("keys")).unwrap();
    assert_eq!(keys.lines().count(), 2);
    // The newest may be missing: it is written behind the entry that names it.
    std::fs::write(audit.join("keys"), format!("{}\n", keys.lines().next().unwrap())).unwrap();
    let output = forked.verify(&format!("{}{}{}", logged(&rotated), logged(&forked.there[0]), logged(&forked.both)));
    assert_eq!(result(&output), (0, "verified".to_owned()), "{}", stderr(&output));
    assert!(stdout(&output).contains(&format!("\"kept_entries\":{size}")), "{output:?}");
}

#[test]
fn a_proof_since_a_log_goes_on_from_every_checkpoint_in_it_or_is_not_made() {
    let forked = Forked::new();
    let home = forked.home.path();
    let file = |name: &str| home.join(name).to_str().unwrap().to_owned();
    let prove = |log: &str, name: &str| {
        let log = forked.log(log);
        let args = ["audit", "prove", "--seq", "2", "--output", &file(name), "--since", log.to_str().unwrap()];
        cli(home, &args)
    };
    let refused = prove(&forked.whole_log(), "refused.json");
    assert_eq!(code(&refused), 76, "{}", stderr(&refused));
    assert!(stderr(&refused).contains("entries before were replaced"), "{}", stderr(&refused));
    assert!(!home.join("refused.json").exists());
    let honest = [&forked.both, &forked.there[0]].map(|note| logged(note)).concat();
    let made = prove(&honest, "since.json");
    assert_eq!(code(&made), 0, "{}", stderr(&made));

    let key = stdout(&cli(home, &["audit", "key"]));
    let verify = |log: &str| {
        let log = forked.log(log);
        let args = [
            "audit",
            "verify-proof",
            &file("since.json"),
            "--vkey",
            key.trim(),
            "--checkpoint",
            log.to_str().unwrap(),
        ];
        cli(home, &args)
    };
    let held = verify(&format!("{honest}{}", logged(&forked.there[1])));
    assert_eq!(code(&held), 0, "{}", stderr(&held));
    assert!(
        stdout(&held).contains("10 entries: the ledger goes on") && stderr(&held).contains("leads to 1 of"),
        "{held:?}"
    );
    let of_gone = verify(&logged(&forked.gone));
    assert_eq!(code(&of_gone), 2, "{}", stderr(&of_gone));
}
