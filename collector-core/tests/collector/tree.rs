//! The tree over a ledger and what is signed of it: proofs from the files, repair of what is derived, refusal where history was
//! changed, and that each bit of it counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::ledger::poke;
use collector_core::CollectorError;
use collector_core::ledger::{Draft, Ledger, LedgerOptions, SigningError, TreeOptions};
use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::event::Content;
use daemoneye_lib::ledger::kept::{KeptRoots, Offered};
use daemoneye_lib::ledger::keys::{KeyEntry, rotation_note};
use daemoneye_lib::ledger::note::{NoteSigner, VerifierKey};
use daemoneye_lib::ledger::notes::{checkpoint_file, checkpoints_log, keys_file};
use daemoneye_lib::ledger::tiles::{StoredTree, TILE_BYTES, read_tile, tile_path, tiles_name, tree_file};
use daemoneye_lib::ledger::tree::{TreeHash, verify_consistency, verify_inclusion};
use daemoneye_lib::ledger::{
    AuditEntry, ChainVerifier, Demands, LedgerError, LedgerFault, LedgerFiles, LedgerHeader, LedgerReader,
    LedgerRecord, LedgerSummary, LedgerVerifier, Patience, RangeBuilder, verify_with,
};
use daemoneye_lib::proto::{AuditAppend, Sequence};
use daemoneye_lib::segment::{
    DurableNote, HEADER_BYTES, Kind, Parsed, RawRecord, SegmentName, SegmentReader, list, parse,
};

pub(crate) fn tree_options(keys_dir: &Path) -> TreeOptions {
    TreeOptions {
        hash: TreeHash::Sha256,
        machine: "4f3c".to_owned(),
        actor: "test".to_owned(),
        keys_dir: keys_dir.to_owned(),
        credential: None,
    }
}

/// A ledger in `audit` beside its keys in `keys`.
pub(crate) struct Home(tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        Self(if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap())
    }

    /// What holds `audit` and `keys`.
    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn audit(&self) -> PathBuf {
        self.0.path().join("audit")
    }

    /// Everything in `audit`.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(&self.audit())
    }

    /// Puts an older copy in the place of `audit`.
    pub(crate) fn put_back(&self, kept: &BTreeMap<PathBuf, Vec<u8>>) {
        restore(&self.audit(), kept)
    }

    /// As whoever is root does who also knows of the checkpoint beside the seed.
    pub(crate) fn forget_twin(&self) {
        fs::remove_file(self.0.path().join("keys/audit.signed")).unwrap()
    }

    pub(crate) fn options(&self) -> LedgerOptions {
        let tree = Some(tree_options(&self.0.path().join("keys")));
        LedgerOptions { segment_bytes: 4096, tree, ..LedgerOptions::new(self.audit()) }
    }

    pub(crate) fn open(&self) -> (Ledger, Option<String>) {
        let (ledger, found) = Ledger::open(self.options()).unwrap();
        (ledger, found.damage)
    }

    pub(crate) fn sound(&self) -> Ledger {
        let (ledger, damage) = self.open();
        assert_eq!(damage, None);
        ledger
    }

    pub(crate) fn verify(&self) -> Result<LedgerSummary, LedgerError> {
        self.demand(None, None)
    }

    fn demand(&self, key: Option<&VerifierKey>, checkpoint: Option<&str>) -> Result<LedgerSummary, LedgerError> {
        let checkpoint = checkpoint.map(str::to_owned);
        let demands = Demands { patience: Patience::NONE, key: key.cloned(), checkpoint, ..Demands::default() };
        verify_with(&self.audit(), &demands, |_| {})
    }

    fn key(&self) -> VerifierKey {
        fs::read_to_string(keys_file(&self.audit())).unwrap().lines().last().unwrap().parse().unwrap()
    }

    pub(crate) fn entries(&self, first: u64) -> impl Iterator<Item = LedgerRecord> {
        LedgerFiles::open(&self.audit()).unwrap().from(first).unwrap().map(Result::unwrap)
    }

    /// The tree over the first entries.
    fn tree(&self, size: u64) -> StoredTree {
        StoredTree::open(&self.audit(), TreeHash::Sha256, size).unwrap()
    }
}

pub(crate) fn drafts(count: u64) -> Vec<Draft> {
    (0..count)
        .map(|n| Draft { actor: "t".into(), action: "a".into(), timestamp_ms: 1, payload: n.to_string().into_bytes() })
        .collect()
}

/// Everything below a directory.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn restore(dir: &Path, kept: &BTreeMap<PathBuf, Vec<u8>>) {
    fs::remove_dir_all(dir).unwrap();
    for (path, bytes) in kept {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn every_entry_is_proven_against_every_checkpoint_also_after_restarts() {
    let home = Home::new();
    let mut notes = Vec::new();
    for count in [1, 300, 5, 500, 300] {
        let ledger = home.sound();
        ledger.append_batch(&drafts(count)).unwrap();
        notes.push(ledger.checkpoint().unwrap().unwrap());
        assert_eq!(ledger.checkpoint().unwrap(), None, "nothing is new");
    }
    let summary = home.verify().unwrap();
    // One entry more than was asked for: the one that names the key.
    assert_eq!((summary.entries, summary.checkpoints, summary.signed_entries), (1_107, 5, 1_107));
    let checkpoints: Vec<Checkpoint> =
        notes.iter().map(|note| Checkpoint::verified(note, &home.key()).unwrap()).collect();
    assert_eq!(summary.root, Some(checkpoints[4].root));
    assert_eq!(checkpoints[4].origin, "daemoneye/4f3c/audit");
    let mut newest = home.tree(1_107);
    for older in &checkpoints {
        let mut tree = home.tree(older.size);
        assert_eq!(tree.root().unwrap(), older.root);
        let proof = newest.consistency(older.size).unwrap().unwrap();
        let (old, new) = ((older.size, &older.root), (1_107, &checkpoints[4].root));
        verify_consistency(TreeHash::Sha256, old.0, old.1, new.0, new.1, &proof).unwrap();
        let mut entries = home.entries(0);
        for index in 0..older.size {
            let entry = entries.next().unwrap().entry;
            let leaf = TreeHash::Sha256.leaf(&entry.canonical_bytes());
            let proof = tree.inclusion(index).unwrap().unwrap();
            verify_inclusion(TreeHash::Sha256, &leaf, index, older.size, &older.root, &proof).unwrap();
        }
    }
}

#[test]
fn an_entry_is_found_by_its_number_wherever_it_lies() {
    let home = Home::new();
    home.sound().append_batch(&drafts(400)).unwrap();
    for first in [0, 1, 2, 57, 200, 399, 400] {
        assert_eq!(home.entries(first).next().unwrap().entry.sequence, first);
    }
    assert!(home.entries(401).next().is_none());
}

#[test]
fn an_event_is_found_by_its_position_and_one_that_nothing_covers_is_not_looked_for_everywhere() {
    let home = Home::new();
    let ledger = home.sound();
    // Of twenty numbers the first ten are covered; two ranges are written together.
    for pair in 0..100 {
        let mut builder = RangeBuilder::new("test");
        for number in [0, 20].into_iter().flat_map(|begin| (1..=10).map(move |number| 40 * pair + begin + number)) {
            builder.add(Sequence::new(1, number), Content::Event([1; 32]));
        }
        let ranges = builder.take();
        let drafts = ranges.iter().map(|range| (Draft::now("test", "event-range", range.payload()), range.end()));
        ledger.append_ranges(&drafts.collect::<Vec<_>>()).unwrap();
    }
    let files = LedgerFiles::open(&home.audit()).unwrap();
    for number in (1..=4_000).step_by(7) {
        let found = files.range_of("test", Sequence::new(1, number)).unwrap();
        let first = found.map(|(_, range)| range.first);
        let wanted = (number - 1) / 20 * 20 + 1;
        assert_eq!(first, (number - wanted < 10).then_some(wanted), "{number}");
    }
    let segments = list(&home.audit(), &SegmentName::ledger()).unwrap();
    assert!(segments.len() > 10, "{}", segments.len());
    segments[..3].iter().for_each(|(_, path)| fs::remove_file(path).unwrap());
    for (collector, epoch, number) in [("test", 1, 3_995), ("test", 1, 9_999), ("test", 2, 1), ("other", 1, 3_901)] {
        let found = files.range_of(collector, Sequence::new(epoch, number)).unwrap();
        assert!(found.is_none(), "{collector} {epoch}:{number}");
    }
    assert!(files.range_of("test", Sequence::new(1, 1)).is_err(), "the first files are gone");
}

#[test]
fn a_plain_chain_verifies_as_one_and_becomes_a_tree() {
    let home = Home::new();
    let plain = LedgerOptions { tree: None, ..home.options() };
    Ledger::open(plain).unwrap().0.append_batch(&drafts(600)).unwrap();
    let summary = home.verify().unwrap();
    assert_eq!((summary.entries, summary.root, summary.checkpoints), (600, None, 0));
    let ledger = home.sound();
    let note = ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    let checkpoint = Checkpoint::verified(&note, &home.key()).unwrap();
    assert_eq!((checkpoint.size, home.verify().unwrap().root), (601, Some(checkpoint.root)));
    assert_eq!(fs::metadata(tile_path(&home.audit(), 0, 1)).unwrap().len(), TILE_BYTES as u64);
}

#[test]
fn a_blake3_tree_stays_one() {
    let home = Home::new();
    let mut options = home.options();
    options.tree.as_mut().unwrap().hash = TreeHash::Blake3;
    let (ledger, _) = Ledger::open(options).unwrap();
    ledger.append_batch(&drafts(300)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    let ledger = home.sound();
    ledger.append_batch(&drafts(300)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    assert_eq!(fs::read_to_string(tree_file(&home.audit())).unwrap(), "blake3\n");
    assert_eq!(home.verify().unwrap().checkpoints, 2);
}

#[test]
fn tiles_that_are_missing_or_wrong_are_made_again_by_a_start() {
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(1_000)).unwrap();
    ledger.checkpoint().unwrap();
    drop(ledger);
    let tiles = home.audit().join("tile");
    let whole = files(&tiles);
    assert_eq!(whole.len(), 3);
    fs::remove_dir_all(&tiles).unwrap();
    assert!(home.tree(1_001).root().is_ok(), "a prover does without");
    assert!(home.verify().is_ok());
    drop(home.sound());
    assert_eq!(files(&tiles), whole);
    for (path, bytes) in &whole {
        let mut wrong = bytes.clone();
        wrong[100] ^= 1;
        fs::write(path, &wrong).unwrap();
        let error = home.verify().unwrap_err();
        assert!(matches!(error.what, LedgerFault::CorruptTile) && error.file == *path, "{error}");
        let durable = home.audit().join("tiles.durable");
        let noted = fs::read(&durable).unwrap();
        fs::remove_file(&durable).unwrap();
        assert!(home.verify().unwrap().unsynced_tiles > 0, "without the note nobody knows, and it is told");
        fs::write(&durable, noted).unwrap();
        drop(home.sound());
        assert_eq!(files(&tiles), whole);
    }
}

#[test]
fn a_wrong_tile_below_an_intact_one_makes_no_wrong_proof_and_many_missing_ones_come_back() {
    let home = Home::new();
    let (ledger, _) = Ledger::open(LedgerOptions { segment_bytes: 4 * 1024 * 1024, ..home.options() }).unwrap();
    ledger.append_batch(&drafts(70_000)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    let (size, path) = (70_001, tile_path(&home.audit(), 0, 5));
    let (right, root) = (fs::read(&path).unwrap(), home.tree(size).root().unwrap());
    poke(&path, 40, right[40] ^ 1);
    let mut tree = home.tree(size);
    assert_eq!(tree.tile(0, 5).unwrap().concat(), right);
    let entry = home.entries(5 * 256 + 1).next().unwrap().entry;
    let leaf = TreeHash::Sha256.leaf(&entry.canonical_bytes());
    let proof = tree.inclusion(entry.sequence).unwrap().unwrap();
    verify_inclusion(TreeHash::Sha256, &leaf, entry.sequence, size, &root, &proof).unwrap();
    fs::write(&path, right).unwrap();
    let tiles = home.audit().join("tile");
    let whole = files(&tiles);
    assert_eq!(whole.len(), 274);
    fs::remove_dir_all(&tiles).unwrap();
    drop(home.sound());
    assert!(files(&tiles) == whole && home.verify().is_ok());
}

#[test]
fn the_file_of_keys_is_made_again_with_all_of_them() {
    let home = Home::new();
    let ledger = home.sound();
    for _ in 0..2 {
        ledger.append_batch(&drafts(300)).unwrap();
        ledger.rotate_key().unwrap();
    }
    ledger.append_batch(&drafts(600)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    let whole = fs::read_to_string(keys_file(&home.audit())).unwrap();
    assert_eq!(whole.lines().count(), 3);
    let lines: Vec<&str> = whole.lines().collect();
    let [first, second, third] = lines[..] else { panic!("{whole}") };
    let others: [&[&str]; 6] =
        [&[], &[first], &[third, second, first], &[first, third, second], &[third, first, second], &[third, first]];
    for left in others {
        let text: String = left.iter().map(|line| format!("{line}\n")).collect();
        fs::write(keys_file(&home.audit()), text).unwrap();
        assert!(home.verify().is_err(), "{left:?}");
        drop(home.sound());
        assert_eq!(fs::read_to_string(keys_file(&home.audit())).unwrap(), whole, "{left:?} were left");
        home.verify().unwrap();
    }
    // The newest is written behind the entry that names it.
    fs::write(keys_file(&home.audit()), format!("{first}\n{second}\n")).unwrap();
    home.verify().unwrap();
    drop(home.sound());
    assert_eq!(fs::read_to_string(keys_file(&home.audit())).unwrap(), whole);
}

#[test]
fn whoever_reads_a_ledger_that_grows_and_changes_its_key_sees_a_prefix_of_one_history() {
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(300)).unwrap();
    let (mut note, key) = (ledger.checkpoint().unwrap().unwrap(), home.key());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..60 {
                ledger.append_batch(&drafts(1 + round * 7 % 50)).unwrap();
                match round % 12 {
                    5 => drop(ledger.rotate_key().unwrap()),
                    0 | 3 | 9 => drop(ledger.checkpoint().unwrap()),
                    _ => {}
                }
            }
        });
        let (mut seen, mut last, mut reads) = (0, false, 0);
        while !last {
            // Once more when all is written.
            last = writer.is_finished();
            let older = Checkpoint::dangerous_unverified(&note).unwrap();
            let demands = Demands { key: Some(key.clone()), checkpoint: Some(note), ..Demands::default() };
            let entries = verify_with(&home.audit(), &demands, |_| {}).unwrap().entries;
            assert!(entries >= seen.max(older.size), "{entries} after {seen}");
            note = fs::read_to_string(checkpoint_file(&home.audit())).unwrap();
            let newer = Checkpoint::dangerous_unverified(&note).unwrap();
            let mut tree = home.tree(newer.size);
            assert_eq!(tree.root().unwrap(), newer.root);
            let proof = tree.consistency(older.size).unwrap().unwrap();
            let (old, new) = ((older.size, &older.root), (newer.size, &newer.root));
            verify_consistency(TreeHash::Sha256, old.0, old.1, new.0, new.1, &proof).unwrap();
            (seen, reads) = (entries, reads + 1);
        }
        writer.join().unwrap();
        assert!(reads > 1 && seen == ledger.head().entries, "{reads} reads, {seen} entries");
    });
}

#[test]
fn tiles_that_no_note_calls_synced_are_held_against_their_entries_and_a_start_does_not_read_them() {
    let home = Home::new();
    let (ledger, _) = Ledger::open(LedgerOptions { segment_bytes: 4 * 1024 * 1024, ..home.options() }).unwrap();
    ledger.append_batch(&drafts(20_000)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    let durable = home.audit().join("tiles.durable");
    let noted = || DurableNote::read(&home.audit(), &tiles_name()).unwrap().map_or(0, |note| note.number);
    assert!(noted() < 20_000, "one checkpoint syncs a few");
    // A power failure before any was synced.
    fs::remove_file(&durable).unwrap();
    let whole = files(&home.audit().join("tile"));
    let (wrong, missing) = (tile_path(&home.audit(), 0, 5), tile_path(&home.audit(), 0, 9));
    // The root of the newest checkpoint is made of tiles, so a wrong one is noticed at the start; a missing one is not needed.
    fs::remove_file(&missing).unwrap();
    let ledger = home.sound();
    assert!(!missing.exists(), "the start left it alone");
    poke(&wrong, 40, whole[&wrong][40] ^ 1);
    for _ in 0..6 {
        ledger.append_batch(&drafts(1)).unwrap();
        ledger.checkpoint().unwrap().unwrap();
    }
    assert_eq!(files(&home.audit().join("tile")), whole);
    assert_eq!(noted(), ledger.head().entries);
    assert_eq!(home.verify().unwrap().unsynced_tiles, 0);
}

#[test]
fn a_checkpoint_of_another_ledger_says_nothing_of_this_one() {
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(30)).unwrap();
    let own = ledger.checkpoint().unwrap().unwrap();
    let sign = |machine: &str, seed: u8, size| {
        let origin = format!("daemoneye/{machine}/audit");
        let signer = NoteSigner::new(&origin, &[seed; 32]).unwrap();
        Checkpoint { origin, size, root: [9; 32] }.sign(&signer).unwrap()
    };
    for size in [5, 31, 40] {
        let error = home.demand(None, Some(&sign("other", 1, size))).unwrap_err();
        assert!(matches!(error.what, LedgerFault::MisuseCheckpoint(_)), "{error}");
        assert_eq!(error.exit(), Exit::Usage);
        // One of this name that no key of the ledger signed: forged, or the ledger is.
        let error = home.demand(None, Some(&sign("4f3c", 1, size))).unwrap_err();
        assert!(matches!(error.what, LedgerFault::CorruptKeys(_)), "{error}");
    }
    for changed in [own.replace("\n31\n", "\n40\n"), own.replace("\n31\n", "\n30\n")] {
        let error = home.demand(None, Some(&changed)).unwrap_err();
        assert!(matches!(error.what, LedgerFault::MisuseCheckpoint(_)), "{error}");
    }
    assert!(home.demand(None, Some(&own)).is_ok());
}

#[test]
fn half_a_note_in_the_log_is_cut_before_its_checkpoint_is_replaced() {
    use crate::support::{make_readable, make_unreadable};
    let home = Home::new();
    let ledger = home.sound();
    let first = ledger.checkpoint().unwrap().unwrap();
    let log = checkpoints_log(&home.audit());
    let whole = fs::read(&log).unwrap();
    fs::write(&log, [whole.as_slice(), &b"daemoneye/4f"[..]].concat()).unwrap();
    make_unreadable(&log);
    ledger.append_batch(&drafts(3)).unwrap();
    assert!(matches!(ledger.checkpoint(), Err(SigningError::Disk(_))));
    assert_eq!(fs::read_to_string(checkpoint_file(&home.audit())).unwrap(), first);
    fs::remove_file(&log).unwrap();
    make_readable(&log);
    ledger.checkpoint().unwrap().unwrap();
    assert_eq!(home.verify().unwrap().checkpoints, 2);
}

#[test]
fn another_history_overwrites_no_tile() {
    let home = Home::new();
    let begin = |payload: &[u8]| {
        let ledger = home.sound();
        let all: Vec<Draft> = drafts(900).into_iter().map(|d| Draft { payload: payload.to_vec(), ..d }).collect();
        ledger.append_batch(&all).unwrap();
        ledger
    };
    let ledger = begin(b"first");
    ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    let mut kept = files(&home.audit());
    kept.retain(|path, _| !path.to_string_lossy().contains("entries"));
    fs::remove_dir_all(home.audit()).unwrap();
    home.forget_twin();
    drop(begin(b"second"));
    for (path, bytes) in &kept {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let tiles = files(&home.audit().join("tile"));
    let (ledger, damage) = home.open();
    assert!(damage.unwrap().contains("another root"));
    assert_eq!(files(&home.audit().join("tile")), tiles);
    assert!(matches!(ledger.checkpoint(), Err(SigningError::Refused(_))));
}

#[test]
fn each_key_hands_over_to_the_next_and_any_of_them_verifies_everything() {
    let home = Home::new();
    let ledger = home.sound();
    let first = home.key();
    ledger.append_batch(&drafts(3)).unwrap();
    let before = ledger.checkpoint().unwrap().unwrap();
    let (second, _) = ledger.rotate_key().unwrap();
    assert_eq!(home.key(), second);
    ledger.append_batch(&drafts(3)).unwrap();
    drop(ledger);
    let ledger = home.sound();
    let (third, _) = ledger.rotate_key().unwrap();
    let after = ledger.checkpoint().unwrap();
    assert_eq!(after, None, "a rotation ends in a checkpoint");
    for key in [&first, &second, &third] {
        assert_eq!(home.demand(Some(key), Some(&before)).unwrap().checkpoints, 3);
    }
    let newest = fs::read_to_string(checkpoint_file(&home.audit())).unwrap();
    assert!(Checkpoint::verified(&newest, &third).is_ok() && Checkpoint::verified(&newest, &second).is_err());
    let stranger = Home::new();
    drop(stranger.sound());
    let error = home.demand(Some(&stranger.key()), None).unwrap_err();
    assert!(matches!(error.what, LedgerFault::CorruptKeys(_)), "{error}");
}

#[test]
fn a_rotation_that_a_crash_broke_off_is_finished_or_forgotten() {
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(3)).unwrap();
    ledger.checkpoint().unwrap();
    let (audit, keys) = (home.audit(), home.0.path().join("keys"));
    let (kept_audit, kept_keys) = (files(&audit), files(&keys));
    let (next, _) = ledger.rotate_key().unwrap();
    drop(ledger);
    // The entry is written, the seed waits, and nothing else has happened.
    let seed = keys.join("audit.seed");
    fs::rename(&seed, keys.join("audit.seed.next")).unwrap();
    fs::write(&seed, &kept_keys[&seed]).unwrap();
    private(&seed);
    for file in [keys_file(&audit), checkpoint_file(&audit), checkpoints_log(&audit)] {
        fs::write(&file, &kept_audit[&file]).unwrap();
    }
    let twin = keys.join("audit.signed");
    fs::write(&twin, &kept_keys[&twin]).unwrap();
    let ledger = home.sound();
    assert_eq!(home.key(), next);
    ledger.append_batch(&drafts(1)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    assert!(home.verify().is_ok() && !keys.join("audit.seed.next").exists());
    // A seed that the ledger never named.
    fs::write(keys.join("audit.seed.next"), [1; 32]).unwrap();
    drop(home.sound());
    assert!(!keys.join("audit.seed.next").exists());
    assert_eq!(home.key(), next);
}

fn private(path: &Path) {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    #[cfg(not(unix))]
    assert!(path.exists());
}

#[test]
fn a_ledger_whose_seed_is_gone_goes_on_and_signs_nothing() {
    let home = Home::new();
    let ledger = home.sound();
    ledger.checkpoint().unwrap();
    drop(ledger);
    fs::remove_file(home.0.path().join("keys/audit.seed")).unwrap();
    let (ledger, damage) = home.open();
    assert!(damage.unwrap().contains("seed"));
    ledger.append_batch(&drafts(3)).unwrap();
    assert!(matches!(ledger.checkpoint(), Err(SigningError::Refused(_))));
    assert!(matches!(ledger.rotate_key(), Err(SigningError::Refused(_))));
    assert_eq!(home.verify().unwrap().entries, 4);
}

#[test]
fn what_the_agent_may_not_say_is_replaced_by_an_entry_that_says_so() {
    let home = Home::new();
    let ledger = home.sound();
    let append = |id, actor: &str, action: &str| AuditAppend {
        outbox_id: id,
        actor: actor.into(),
        action: action.into(),
        timestamp_ms: 5,
        payload: b"{}".to_vec(),
    };
    let barred = ["key-created", "key-rotated", "event-range", "heartbeat"].map(|action| ("agent", action));
    let foreign = [("procmond", "event-range"), ("test", "start"), ("", "alert"), ("operator", "alert")];
    let good = [("agent", "alert"), ("operator:alice", "rules-reload"), ("agent", "start")];
    let all: Vec<AuditAppend> = (1..)
        .zip(good.into_iter().chain(barred).chain(foreign))
        .map(|(id, (actor, action))| append(id, actor, action))
        .collect();
    let taken = ledger.append_audit(&all).unwrap();
    assert_eq!((taken.last_outbox_id, ledger.head().entries), (11, 12), "nothing is sent a second time");
    let taken = ledger.append_audit(&[append(12, "agent", "key-rotated")]).unwrap();
    assert_eq!(taken.last_outbox_id, 12);
    let said: Vec<(String, String)> =
        home.entries(1).map(|LedgerRecord { entry, .. }| (entry.actor, entry.action)).collect();
    let pair = |(actor, action): (&str, &str)| (actor.to_owned(), action.to_owned());
    assert_eq!(said[..3], good.map(pair));
    assert!(said[3..].iter().all(|entry| *entry == pair(("agent", "audit-refused"))), "{said:?}");
    assert!(home.verify().is_ok());
}

#[test]
fn a_payload_of_the_agent_that_no_proof_can_hold_is_replaced_by_its_hash() {
    let home = Home::new();
    let (ledger, _) = Ledger::open(LedgerOptions { segment_bytes: 64 * 1024, ..home.options() }).unwrap();
    let object = |bytes: usize| format!("{{\"sql\":\"{}\"}}", "x".repeat(bytes)).into_bytes();
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000)).into_bytes();
    let bad = [b"".to_vec(), b"{\"a\":\"\xff\"}".to_vec(), b"{".to_vec(), b"[1]".to_vec(), object(49_200), deep];
    let good = [b"{}".to_vec(), object(49_000), "{\"who\":\"Zo\u{eb}\"}".into()];
    let append = |outbox_id, action: &str, payload: Vec<u8>| AuditAppend {
        outbox_id,
        actor: "agent".into(),
        action: action.into(),
        timestamp_ms: 5,
        payload,
    };
    let mut all: Vec<AuditAppend> =
        (1..).zip(bad.iter().chain(&good).cloned()).map(|(id, payload)| append(id, "alert", payload)).collect();
    all.push(append(10, &"a".repeat(2_000), b"{}".to_vec()));
    assert_eq!(ledger.append_audit(&all).unwrap().last_outbox_id, 10, "nothing is sent a second time");
    let entries: Vec<LedgerRecord> = home.entries(1).collect();
    for (payload, record) in bad.iter().zip(&entries) {
        assert_eq!(record.entry.action, "audit-refused");
        let said: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
        assert_eq!(said["payload_hash"], blake3::hash(payload).to_hex().as_str(), "{said}");
        assert_eq!((&said["action"], &said["payload_bytes"]), (&"alert".into(), &payload.len().into()), "{said}");
        assert!(said["why"].as_str().unwrap().contains("JSON"), "{said}");
    }
    for (payload, record) in good.iter().zip(&entries[bad.len()..]) {
        assert_eq!((record.entry.action.as_str(), &record.payload[..]), ("alert", &payload[..]));
    }
    assert_eq!(entries[9].entry.action, "audit-refused");
    assert!(home.verify().is_ok());
}

/// The seed, whose key signs for another ledger's directory.
fn signer(seed: u8) -> NoteSigner {
    NoteSigner::new("daemoneye/4f3c/audit", &[seed; 32]).unwrap()
}

#[test]
fn a_ledger_that_only_names_the_key_that_was_given_is_refused() {
    let victim = signer(7).verifier().clone();
    let created = |key: &VerifierKey| {
        Draft::now("test", "key-created", KeyEntry { key: key.clone(), note: String::new() }.payload())
    };
    let home = Home::new();
    let (plain, _) = Ledger::open(LedgerOptions { tree: None, ..home.options() }).unwrap();
    plain.append_batch(&[created(&victim)]).unwrap();
    plain.append_batch(&drafts(20)).unwrap();
    drop(plain);
    assert!(matches!(home.demand(Some(&victim), None).unwrap_err().what, LedgerFault::CorruptTree(_)), "no tree");
    fs::write(tree_file(&home.audit()), "sha256\n").unwrap();
    let error = home.demand(Some(&victim), None).unwrap_err();
    assert!(matches!(&error.what, LedgerFault::CorruptKeys(what) if what.contains("no checkpoint")), "{error}");

    // A key of their own signs all of it, and hands over to the public one at last, which signs nothing.
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(20)).unwrap();
    let exported = ledger.checkpoint().unwrap().unwrap();
    let (seed, own) = (fs::read(home.0.path().join("keys/audit.seed")).unwrap(), home.key());
    let own_signer = NoteSigner::new("daemoneye/4f3c/audit", &seed.try_into().unwrap()).unwrap();
    let note = rotation_note(&own_signer, &victim).unwrap();
    let payload = KeyEntry { key: victim.clone(), note }.payload();
    ledger.append(Draft::now("test", "key-rotated", payload)).unwrap();
    drop(ledger);
    let whole = home.demand(Some(&own), None).unwrap();
    // Nor does what their key signs behind that, alone or in a log.
    let origin = own.name().to_owned();
    let late = Checkpoint { origin, size: whole.entries, root: whole.root.unwrap() };
    let note = late.sign(&own_signer).unwrap();
    for exported in [&exported, &note] {
        let error = home.demand(Some(&victim), Some(exported)).unwrap_err();
        assert!(matches!(&error.what, LedgerFault::CorruptKeys(what) if what.contains("no checkpoint")), "{error}");
    }
    for (trusted, is_vouched) in [(&victim, false), (&own, true)] {
        let mut kept = KeptRoots::of(vec![own.clone(), victim.clone()]);
        assert_eq!(kept.offer(&note, &late), Offered::Taken);
        let demands = Demands { key: Some(trusted.clone()), kept: kept.into(), ..Demands::default() };
        let kept_entries = verify_with(&home.audit(), &demands, |_| {}).map(|summary| summary.kept_entries);
        assert_eq!(kept_entries.ok(), is_vouched.then_some(Some(whole.entries)));
    }
}

/// Cuts the last entries away, and everything that says that there were more.
fn cut(home: &Home, entries: u64) {
    let mut reader = LedgerReader::resume(&home.audit(), LedgerVerifier::default(), Patience::NONE).unwrap();
    for _ in 0..entries {
        reader.advance().unwrap().unwrap();
    }
    let (segment, offset) = reader.verifier().position();
    for (number, path) in list(&home.audit(), &SegmentName::ledger()).unwrap() {
        match number.cmp(&segment) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => {
                fs::OpenOptions::new().write(true).open(path).unwrap().set_len(offset).unwrap()
            }
            std::cmp::Ordering::Greater => fs::remove_file(path).unwrap(),
        }
    }
    fs::remove_file(home.audit().join("entries.durable")).unwrap();
}

fn forget_checkpoints(home: &Home) {
    fs::remove_file(checkpoint_file(&home.audit())).unwrap();
    fs::remove_file(checkpoints_log(&home.audit())).unwrap();
}

#[test]
fn truncation_is_found_by_the_ledgers_own_checkpoint_and_by_an_exported_one() {
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(30)).unwrap();
    let exported = ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    cut(&home, 20);
    let error = home.verify().unwrap_err();
    assert!(matches!(error.what, LedgerFault::CorruptRollback { size: 31 }), "{error}");
    assert_eq!((error.sequence, error.exit()), (20, Exit::Tampered));
    let (ledger, damage) = home.open();
    assert!(damage.unwrap().contains("over 31 entries"));
    assert!(matches!(ledger.checkpoint(), Err(SigningError::Refused(_))), "nothing is signed over it");
    drop(ledger);
    forget_checkpoints(&home);
    let unsigned = home.verify().unwrap().unsigned;
    assert!(unsigned.lacks_checkpoint() && !unsigned.has_checkpoint, "nothing of it is signed any more");
    let error = home.demand(None, Some(&exported)).unwrap_err();
    assert!(matches!(error.what, LedgerFault::CorruptRollback { size: 31 }), "{error}");
}

#[test]
fn an_older_copy_is_found_by_an_exported_checkpoint() {
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(30)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    let copy = files(&home.audit());
    ledger.append_batch(&drafts(30)).unwrap();
    let exported = ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    restore(&home.audit(), &copy);
    assert!(home.verify().is_ok(), "of itself it cannot know");
    let error = home.demand(None, Some(&exported)).unwrap_err();
    assert!(matches!(error.what, LedgerFault::CorruptRollback { size: 61 }), "{error}");
    // And it cannot be made to grow past it with something else, also where the seed's directory was put back with it.
    home.forget_twin();
    let ledger = home.sound();
    ledger.append_batch(&drafts(60)[1..]).unwrap();
    ledger.checkpoint().unwrap();
    let error = home.demand(None, Some(&exported)).unwrap_err();
    assert!(matches!(error.what, LedgerFault::CorruptFork { from: 0, size: 61 }), "{error}");
    assert_eq!((error.sequence, error.exit()), (0, Exit::Tampered));
    assert!(error.to_string().contains("between entry 0 and entry 60"), "{error}");
}

#[test]
fn a_local_root_who_rewrites_everything_and_signs_again_is_found_by_an_exported_checkpoint() {
    let home = Home::new();
    let ledger = home.sound();
    let printed = home.key();
    ledger.append_batch(&drafts(40)).unwrap();
    let exported = ledger.checkpoint().unwrap().unwrap();
    let again = |LedgerRecord { entry: e, payload, .. }: LedgerRecord| {
        let (actor, action, timestamp_ms, payload) = (e.actor, e.action, e.timestamp_ms, payload.to_vec());
        Draft { actor, action, timestamp_ms, payload }
    };
    let entries: Vec<Draft> = home.entries(0).map(again).collect();
    drop(ledger);
    // The same entries but one, chained, hashed and signed again with the real seed.
    fs::remove_dir_all(home.audit()).unwrap();
    home.forget_twin();
    let mut forged = entries[1..].to_vec();
    forged[20].payload = b"nothing happened".to_vec();
    let ledger = home.sound();
    ledger.append_batch(&forged).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    assert_eq!(home.demand(Some(&printed), None).unwrap().entries, 41, "nothing on the host tells");
    let error = home.demand(Some(&printed), Some(&exported)).unwrap_err();
    assert!(matches!(error.what, LedgerFault::CorruptFork { from: 0, size: 41 }), "{error}");
    // With a seed of their own they do not even get that far.
    fs::remove_dir_all(home.audit()).unwrap();
    fs::remove_dir_all(home.0.path().join("keys")).unwrap();
    let ledger = home.sound();
    ledger.append_batch(&forged).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    let error = home.demand(Some(&printed), None).unwrap_err();
    assert!(matches!(error.what, LedgerFault::CorruptKeys(_)), "{error}");
}

#[test]
fn entries_that_were_replaced_below_a_checkpoint_stop_the_signing() {
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(40)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    let kept = [checkpoint_file(&home.audit()), checkpoints_log(&home.audit())]
        .map(|path| (path.clone(), fs::read(path).unwrap()));
    fs::remove_dir_all(home.audit()).unwrap();
    home.forget_twin();
    let ledger = home.sound();
    ledger.append_batch(&drafts(50)).unwrap();
    drop(ledger);
    for (path, bytes) in kept {
        fs::write(path, bytes).unwrap();
    }
    let (ledger, damage) = home.open();
    assert!(damage.unwrap().contains("another root"));
    assert!(matches!(ledger.checkpoint(), Err(SigningError::Refused(_))));
    let error = home.verify().unwrap_err();
    assert!(matches!(error.what, LedgerFault::CorruptFork { size: 41, .. }), "{error}");
}

/// Each bit as the codec sees it, and each byte, in turn another bit of it, as the verifier sees the file.
#[test]
fn each_bit_of_a_thousand_entries_counts() {
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(999)).unwrap();
    drop(ledger);
    assert_eq!(home.verify().unwrap().entries, 1_000);
    let mut reader = LedgerReader::resume(&home.audit(), LedgerVerifier::default(), Patience::NONE).unwrap();
    let mut states = vec![LedgerVerifier::default()];
    while reader.advance().unwrap().is_some() {
        let (segment, end) = reader.verifier().position();
        let before = states.last().unwrap().position();
        let begin = if before.0 == segment { before.1 } else { HEADER_BYTES as u64 };
        states.push(reader.verifier().clone());
        let place = |at| usize::try_from(at).unwrap();
        let file = home.audit().join(SegmentName::ledger().file(segment));
        let mut record = fs::read(file).unwrap()[place(begin)..place(end)].to_vec();
        for bit in 0..record.len() * 8 {
            record[bit / 8] ^= 1 << (bit % 8);
            let whole = matches!(parse(&record, record.len() as u64), Parsed::Record(_));
            assert!(!whole, "bit {bit} of entry {} was not noticed", states.len() - 2);
            record[bit / 8] ^= 1 << (bit % 8);
        }
    }
    assert_eq!(states.len(), 1_001);
    for (number, path) in list(&home.audit(), &SegmentName::ledger()).unwrap() {
        flip_each_byte(&home.audit(), &states, number, &path);
    }
    assert!(home.verify().is_ok(), "restored, it verifies again");
}

/// Checksums are repaired by whoever changes a file on purpose, so here they do not count: each bit of an entry and of its payload is
/// found by the chain, and, where that is hashed again as well, by the tree.
#[test]
fn each_bit_counts_also_where_checksums_and_links_are_repaired() {
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(999)).unwrap();
    let note = ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    let checkpoint = Checkpoint::verified(&note, &home.key()).unwrap();
    let (mut tree, mut chain, mut counted) = (home.tree(1_000), ChainVerifier::default(), 0);
    for (_, path) in list(&home.audit(), &SegmentName::ledger()).unwrap() {
        let mut reader = SegmentReader::open(&path, Kind::Ledger).unwrap();
        while let Ok(Some(raw)) = reader.step().unwrap() {
            let whole = raw.header::<LedgerHeader>().unwrap().entry;
            let proof = tree.inclusion(whole.sequence).unwrap().unwrap();
            for bit in 0..(raw.header.len() + raw.payload.len()) * 8 {
                let (mut header, mut payload) = (raw.header.to_vec(), raw.payload.to_vec());
                match bit / 8 {
                    at if at < header.len() => header[at] ^= 1 << (bit % 8),
                    at => payload[at - header.len()] ^= 1 << (bit % 8),
                }
                let forged = RawRecord { header: header.into(), ..raw.clone() };
                let Ok(LedgerHeader { entry, .. }) = forged.header() else { continue };
                if entry == whole && payload == *raw.payload {
                    // The writer's bookmarks, which are no evidence.
                    continue;
                }
                counted += 1;
                let sequence = whole.sequence;
                assert!(chain.clone().step(&entry, Some(&payload)).is_err(), "bit {bit} of entry {sequence}");
                // Every proof takes eleven hashes.
                if bit % 64 != 0 {
                    continue;
                }
                let (before, at) = (whole.previous_hash, entry.timestamp_ms);
                let hashed = AuditEntry::link(entry.sequence, before, at, entry.actor, entry.action, &payload);
                if hashed != whole {
                    let leaf = TreeHash::Sha256.leaf(&hashed.canonical_bytes());
                    let proven = verify_inclusion(TreeHash::Sha256, &leaf, sequence, 1_000, &checkpoint.root, &proof);
                    assert!(proven.is_err(), "bit {bit} of entry {sequence} in the tree");
                }
            }
            chain.step(&whole, Some(&raw.payload)).unwrap();
        }
    }
    assert!(chain.entries() == 1_000 && counted > 500_000, "{counted}");
}

/// Each byte of a segment up to behind its last record, each bit of its header, judged from the entry before it.
fn flip_each_byte(dir: &Path, states: &[LedgerVerifier], number: u64, path: &Path) {
    let whole = fs::read(path).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 16).min(whole.len());
    let mut before = 0;
    for (at, byte) in whole.iter().enumerate().take(end) {
        while states.get(before + 1).is_some_and(|state| state.position() <= (number, at as u64)) {
            before += 1;
        }
        for bit in if at < HEADER_BYTES { 0..8 } else { at % 8..at % 8 + 1 } {
            poke(path, at, byte ^ (1 << bit));
            let from = states[before.saturating_sub(1)].clone();
            let mut reader = LedgerReader::resume(dir, from, Patience::NONE).unwrap();
            let found = loop {
                match reader.advance() {
                    Ok(Some(_)) => {}
                    Ok(None) => break false,
                    Err(_) => break true,
                }
            };
            assert!(found, "bit {bit} of byte {at} of segment {number} was not noticed");
        }
        poke(path, at, *byte);
    }
}

#[test]
fn each_bit_of_a_tile_and_of_the_notes_of_what_is_synced_counts() {
    let home = Home::new();
    let ledger = home.sound();
    ledger.append_batch(&drafts(259)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    drop(ledger);
    let audit = home.audit();
    let path = tile_path(&audit, 0, 0);
    let (whole, hashes) = (fs::read(&path).unwrap(), read_tile(&audit, 0, 0).unwrap().unwrap());
    for bit in 0..whole.len() * 8 {
        let at = bit / 8;
        poke(&path, at, whole[at] ^ (1 << (bit % 8)));
        assert!(read_tile(&audit, 0, 0).unwrap().unwrap() != hashes, "bit {bit}");
        // The whole way, of some: that walks over all entries.
        if bit % 97 == 0 {
            let error = home.verify().unwrap_err();
            assert!(matches!(error.what, LedgerFault::CorruptTile) && error.file == path, "bit {bit}: {error}");
        }
        poke(&path, at, whole[at]);
    }
    for length in [0, 1, TILE_BYTES - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(read_tile(&audit, 0, 0).unwrap(), None, "cut, it is none and is made again");
    }
    fs::write(&path, &whole).unwrap();
    for name in [SegmentName::ledger(), tiles_name()] {
        let path = DurableNote::path(&audit, &name);
        let whole = fs::read(&path).unwrap();
        assert!(DurableNote::read(&audit, &name).unwrap().is_some());
        for bit in 0..whole.len() * 8 {
            poke(&path, bit / 8, whole[bit / 8] ^ (1 << (bit % 8)));
            assert_eq!(DurableNote::read(&audit, &name).unwrap(), None, "bit {bit} of {}", path.display());
            poke(&path, bit / 8, whole[bit / 8]);
        }
    }
    assert!(home.verify().is_ok());
}

#[test]
fn each_bit_of_what_is_signed_counts() {
    let home = Home::new();
    let ledger = home.sound();
    for count in [3, 3] {
        ledger.append_batch(&drafts(count)).unwrap();
        ledger.checkpoint().unwrap().unwrap();
    }
    ledger.rotate_key().unwrap();
    drop(ledger);
    let audit = home.audit();
    for path in [tree_file(&audit), keys_file(&audit), checkpoint_file(&audit), checkpoints_log(&audit)] {
        let whole = fs::read(&path).unwrap();
        for (at, byte) in whole.iter().enumerate() {
            for bit in 0..8 {
                poke(&path, at, byte ^ (1 << bit));
                assert!(home.verify().is_err(), "bit {bit} of byte {at} of {} was not noticed", path.display());
            }
            poke(&path, at, *byte);
        }
    }
    assert!(home.verify().is_ok());
}

#[test]
fn a_full_disk_keeps_the_old_checkpoint_and_the_next_call_makes_up_for_it() {
    use crate::support::{Faults, FaultyDisk};
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    let home = Home::new();
    let faults = Arc::new(Faults::default());
    let options = LedgerOptions { disk: Arc::new(FaultyDisk(Arc::clone(&faults))), ..home.options() };
    let (ledger, _) = Ledger::open(options).unwrap();
    ledger.append_batch(&drafts(600)).unwrap();
    faults.full.store(true, Ordering::SeqCst);
    let refused = ledger.checkpoint();
    assert!(matches!(&refused, Err(SigningError::Disk(error)) if error.is_disk_full()), "{refused:?}");
    assert!(matches!(ledger.rotate_key(), Err(SigningError::Disk(CollectorError::Io { .. }))));
    faults.full.store(false, Ordering::SeqCst);
    ledger.append_batch(&drafts(1)).unwrap();
    ledger.checkpoint().unwrap().unwrap();
    assert_eq!(files(&home.audit().join("tile")).len(), 2);
    assert_eq!(home.verify().unwrap().checkpoints, 1);
}

#[test]
fn a_full_disk_during_a_rotation_loses_no_key_and_makes_one_only() {
    use crate::support::{Faults, FaultyDisk};
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    for retried in [true, false] {
        let home = Home::new();
        let faults = Arc::new(Faults::default());
        let options = LedgerOptions {
            disk: Arc::new(FaultyDisk(Arc::clone(&faults))),
            segment_bytes: 4 * 1024 * 1024,
            ..home.options()
        };
        let (ledger, _) = Ledger::open(options).unwrap();
        ledger.append_batch(&drafts(300)).unwrap();
        ledger.checkpoint().unwrap().unwrap();
        let old = home.key();
        // Entries go into room that is there already; new files do not.
        faults.no_new.store(true, Ordering::SeqCst);
        let (key, note) = ledger.rotate_key().unwrap();
        assert_eq!((note, home.key()), (None, old.clone()));
        ledger.append_batch(&drafts(300)).unwrap();
        assert!(matches!(ledger.checkpoint(), Err(SigningError::Disk(_))), "nothing is signed before the key is kept");
        assert!(matches!(ledger.rotate_key(), Err(SigningError::Disk(_))));
        faults.no_new.store(false, Ordering::SeqCst);
        if retried {
            ledger.checkpoint().unwrap().unwrap();
        }
        drop(ledger);
        for _ in 0..2 {
            let ledger = home.sound();
            assert_eq!(home.key(), key);
            ledger.append_batch(&drafts(300)).unwrap();
            ledger.checkpoint().unwrap().unwrap();
        }
        assert!(home.demand(Some(&old), None).is_ok() && home.demand(Some(&key), None).is_ok());
    }
}
