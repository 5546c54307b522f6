//! What somebody does to a ledger who writes its files and has no seed, and that nothing of it is signed or passes for signed.

use std::fs;
use std::path::Path;

use collector_core::ledger::{Draft, Ledger, LedgerOptions, SigningError};
use daemoneye_lib::ledger::LedgerRecord;
use daemoneye_lib::ledger::notes::{checkpoint_file, checkpoints_log, keys_file};
use daemoneye_lib::ledger::tiles::tree_file;

use crate::tree::{Home, drafts};

/// The checkpoint that is kept beside the seed.
const TWIN: &str = "keys/audit.signed";

/// Chains the entries again as `change` leaves them, with all links, hashes and checksums right.
fn rewrite(home: &Home, change: impl Fn(&mut Vec<Draft>)) {
    let again = |LedgerRecord { entry, payload, .. }: LedgerRecord| Draft {
        actor: entry.actor,
        action: entry.action,
        timestamp_ms: entry.timestamp_ms,
        payload: payload.to_vec(),
    };
    let mut entries: Vec<Draft> = home.entries(0).map(again).collect();
    change(&mut entries);
    let elsewhere = Home::new();
    let plain = LedgerOptions { tree: None, ..elsewhere.options() };
    Ledger::open(plain).unwrap().0.append_batch(&entries).unwrap();
    let is_chain = |path: &Path| path.file_name().unwrap().to_string_lossy().starts_with("entries");
    for entry in fs::read_dir(home.audit()).unwrap() {
        let path = entry.unwrap().path();
        if is_chain(&path) {
            fs::remove_file(path).unwrap();
        }
    }
    for entry in fs::read_dir(elsewhere.audit()).unwrap() {
        let path = entry.unwrap().path();
        if is_chain(&path) {
            fs::copy(&path, home.audit().join(path.file_name().unwrap())).unwrap();
        }
    }
    forget(&home.audit().join("tiles.durable"));
    if home.audit().join("tile").exists() {
        fs::remove_dir_all(home.audit().join("tile")).unwrap();
    }
}

fn forget(path: &Path) {
    if path.exists() {
        fs::remove_file(path).unwrap();
    }
}

fn signs_nothing(home: &Home, why: &str) {
    let (ledger, damage) = home.open();
    let damage = damage.unwrap();
    assert!(damage.contains(why), "{damage}");
    ledger.append_batch(&drafts(3)).unwrap();
    assert!(matches!(ledger.checkpoint(), Err(SigningError::Refused(_))), "{damage}");
    assert!(matches!(ledger.rotate_key(), Err(SigningError::Refused(_))), "{damage}");
}

/// A ledger with a checkpoint over its first entries and one over all.
fn signed(first: u64, more: u64) -> (Home, String) {
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(first)).unwrap();
    let older = ledger.checkpoint().unwrap().unwrap();
    ledger.append_batch(&drafts(more)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    (home, older)
}

#[test]
fn a_rewritten_history_without_its_checkpoints_is_not_signed() {
    let (home, _) = signed(20, 20);
    rewrite(&home, |entries| entries[9].payload = b"nothing".to_vec());
    forget(&checkpoint_file(&home.audit()));
    forget(&checkpoints_log(&home.audit()));
    signs_nothing(&home, "audit.signed");
}

#[test]
fn a_rewritten_history_is_not_signed_where_the_checkpoint_beside_the_seed_is_gone_as_well() {
    let (home, _) = signed(20, 3_000);
    rewrite(&home, |entries| entries[9].payload = b"nothing".to_vec());
    forget(&checkpoint_file(&home.audit()));
    forget(&checkpoints_log(&home.audit()));
    forget(&home.dir().join(TWIN));
    signs_nothing(&home, "checkpoints are gone");
}

#[test]
fn a_history_that_was_rewritten_behind_an_older_checkpoint_is_not_signed() {
    let (home, older) = signed(20, 20);
    rewrite(&home, |entries| entries[30].payload = b"nothing".to_vec());
    fs::write(checkpoint_file(&home.audit()), &older).unwrap();
    fs::write(checkpoints_log(&home.audit()), format!("{older}\n")).unwrap();
    signs_nothing(&home, "audit.signed");
}

#[test]
fn a_ledger_that_was_made_a_plain_chain_is_not_taken_up_with_the_seed_that_is_there() {
    for twin in [true, false] {
        let (home, _) = signed(20, 20);
        rewrite(&home, |entries| drop(entries.remove(0)));
        let audit = home.audit();
        for path in [tree_file(&audit), keys_file(&audit), checkpoint_file(&audit), checkpoints_log(&audit)] {
            forget(&path);
        }
        if !twin {
            forget(&home.dir().join(TWIN));
        }
        signs_nothing(&home, "keys/audit.s");
        assert!(home.entries(0).all(|record| record.entry.action != "key-created"), "no key is named anew");
    }
}

#[test]
fn an_older_copy_of_the_ledger_is_not_signed_on() {
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(20)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    let copy = home.files();
    ledger.append_batch(&drafts(20)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    home.put_back(&copy);
    signs_nothing(&home, "audit.signed");
}

#[test]
fn a_crash_before_the_first_checkpoint_is_no_damage() {
    let home = Home::new();
    home.sound().append_batch(&drafts(5)).unwrap();
    let ledger = home.sound();
    assert!(ledger.checkpoint().unwrap().is_some());
    drop(ledger);
    // Before the ledger named the key that had been made.
    let home = Home::new();
    let plain = LedgerOptions { tree: None, ..home.options() };
    Ledger::open(plain).unwrap().0.append_batch(&drafts(300)).unwrap();
    fs::create_dir(home.dir().join("keys")).unwrap();
    fs::write(home.dir().join("keys/audit.seed.next"), [7; 32]).unwrap();
    assert!(home.sound().checkpoint().unwrap().is_some());
}

#[test]
fn a_crash_between_a_checkpoint_and_its_twin_is_no_damage_and_mended_by_the_start() {
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(20)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    let twin = home.dir().join(TWIN);
    let older = fs::read(&twin).unwrap();
    ledger.append_batch(&drafts(400)).unwrap();
    let newest = ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    fs::write(&twin, older).unwrap();
    drop(home.sound());
    assert_eq!(fs::read_to_string(&twin).unwrap(), newest);
    // A build before kept none.
    fs::remove_file(&twin).unwrap();
    drop(home.sound());
    assert_eq!(fs::read_to_string(&twin).unwrap(), newest);
}

#[test]
fn a_twin_of_another_history_stops_the_signing() {
    let (home, _) = signed(20, 20);
    let (other, _) = signed(10, 10);
    fs::copy(other.dir().join(TWIN), home.dir().join(TWIN)).unwrap();
    signs_nothing(&home, "another root");
    fs::write(home.dir().join(TWIN), "nothing").unwrap();
    signs_nothing(&home, "audit.signed");
}

/// Each thing in each file's place: what a verification says, which neither hangs nor takes the memory of what it reads.
#[cfg(target_os = "linux")]
#[test]
fn what_is_no_file_of_a_ledger_is_refused_and_not_read() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::symlink;
    let (home, _) = signed(300, 20);
    let audit = home.audit();
    let segment = audit.join("entries-00002.log");
    let tile = audit.join("tile/0/000");
    let durable = audit.join("entries.durable");
    let paths = [
        checkpoint_file(&audit),
        checkpoints_log(&audit),
        keys_file(&audit),
        tree_file(&audit),
        segment,
        tile,
        durable,
    ];
    for path in paths {
        let whole = fs::read(&path).unwrap();
        for what in ["device", "pipe", "link", "large", "dir"] {
            fs::remove_file(&path).unwrap();
            match what {
                "device" => symlink("/dev/zero", &path).unwrap(),
                "pipe" => mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
                "link" => {
                    let elsewhere = home.dir().join("elsewhere");
                    fs::write(&elsewhere, &whole).unwrap();
                    symlink(&elsewhere, &path).unwrap();
                }
                "large" => {
                    fs::write(&path, &whole).unwrap();
                    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(200 << 30).unwrap();
                }
                _ => fs::create_dir(&path).unwrap(),
            }
            let error = home.verify().unwrap_err();
            assert_ne!(error.exit(), daemoneye_lib::exit::Exit::Ok, "{what} at {}: {error}", path.display());
            match what {
                "dir" => fs::remove_dir(&path).unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
            fs::write(&path, &whole).unwrap();
        }
    }
    assert!(home.verify().is_ok());
}
