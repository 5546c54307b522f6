//! What the ledger promises: a chain over restarts, idempotent outbox entries, and that every changed byte is named.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::support::{Faults, FaultyDisk};
use collector_core::ledger::{Draft, Ledger, LedgerOptions};
use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::{
    AuditEntry, ChainError, LedgerFault, LedgerHeader, LedgerReader, LedgerVerifier, Patience, verify_dir,
};
use daemoneye_lib::proto::{AuditAppend, Sequence};
use daemoneye_lib::segment::{HEADER_BYTES, HeaderError, Kind, SegmentName, SegmentReader, encode};

fn options(dir: &Path) -> LedgerOptions {
    LedgerOptions { segment_bytes: 2048, ..LedgerOptions::new(dir) }
}

fn draft(n: u64) -> Draft {
    Draft {
        actor: "procmond".into(),
        action: "test".into(),
        timestamp_ms: 1_000 + i64::try_from(n).unwrap(),
        payload: format!("{{\"n\":{n}}}").into_bytes(),
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    daemoneye_lib::segment::list(dir, &SegmentName::ledger()).unwrap().into_iter().map(|(_, path)| path).collect()
}

fn append(id: u64) -> AuditAppend {
    AuditAppend {
        outbox_id: id,
        actor: "agent".into(),
        action: "alert".into(),
        timestamp_ms: 5,
        payload: b"{}".to_vec(),
    }
}

#[test]
fn the_chain_goes_on_over_restarts_and_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut head = None;
    for run in 0..4u64 {
        let (ledger, found) = Ledger::open(options(dir.path())).unwrap();
        assert_eq!((found.entries, found.torn_bytes, found.damage), (run * 20, 0, None));
        let drafts: Vec<Draft> = (run * 20..run * 20 + 20).map(draft).collect();
        let entries = ledger.append_batch(&drafts).unwrap();
        assert_eq!(entries.len(), 20);
        head = Some(ledger.head());
    }
    let mut calls = 0;
    let summary = verify_dir(dir.path(), |_| calls += 1).unwrap();
    assert_eq!((summary.entries, summary.head), (80, head.unwrap().hash));
    assert_eq!((summary.first_ms, summary.last_ms), (Some(1_000), Some(1_079)));
    assert!(calls > 0 && summary.segments > 4);
}

#[test]
fn an_outbox_id_is_taken_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(options(dir.path())).unwrap();
    let first = ledger.append_audit(&[append(1), append(2), append(2)]).unwrap();
    assert_eq!((first.last_outbox_id, first.last_sequence), (2, 1));
    // Entries of our own carry the bookmark on.
    ledger.append_ranges(&[(draft(0), Sequence::new(3, 44))]).unwrap();
    drop(ledger);
    let (ledger, _) = Ledger::open(options(dir.path())).unwrap();
    assert_eq!(ledger.head().covered, Some(Sequence::new(3, 44)));
    let again = ledger.append_audit(&[append(1), append(2), append(3)]).unwrap();
    assert_eq!((again.last_outbox_id, again.last_sequence), (3, 3));
    assert_eq!(again.last_hash.len(), 64);
    assert_eq!(verify_dir(dir.path(), |_| {}).unwrap().entries, 4);
}

#[test]
fn an_outbox_id_that_leaves_none_for_those_after_it_is_refused_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(options(dir.path())).unwrap();
    ledger.append_audit(&[append(3)]).unwrap();
    for id in [u64::MAX, (1 << 62) + (1 << 32) + 1] {
        let taken = ledger.append_audit(&[append(id)]).unwrap();
        assert_eq!(taken.last_outbox_id, 3, "{id}");
    }
    assert_eq!(ledger.append_audit(&[append(4)]).unwrap().last_outbox_id, 4);
    // As far as a first one may be, and on from there.
    let far = (1 << 62) + (1 << 32);
    assert_eq!(ledger.append_audit(&[append(far)]).unwrap().last_outbox_id, far);
    assert_eq!(ledger.append_audit(&[append(far + 1), append(u64::MAX)]).unwrap().last_outbox_id, far + 1);
    drop(ledger);

    let mut reader = LedgerReader::open(dir.path()).unwrap();
    let mut said = Vec::new();
    while let Some(record) = reader.advance().unwrap() {
        let payload: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
        said.push((record.entry.action.clone(), payload["outbox_id"].as_u64()));
    }
    let refused = |id: u64| ("audit-refused".to_owned(), Some(id));
    let alert = || ("alert".to_owned(), None);
    let first = [alert(), refused(u64::MAX), refused(far + 1), alert(), alert(), alert(), refused(u64::MAX)];
    assert_eq!(said, first);
    assert_eq!(Ledger::open(options(dir.path())).unwrap().0.head().outbox_id, far + 1);
}

/// The verifier's state in front of each entry, and the number of entries before.
fn checkpoints(dir: &Path) -> Vec<LedgerVerifier> {
    let mut reader = LedgerReader::resume(dir, LedgerVerifier::default(), Patience::NONE).unwrap();
    let mut states = vec![LedgerVerifier::default()];
    while reader.advance().unwrap().is_some() {
        states.push(reader.verifier().clone());
    }
    states
}

fn verify_from(dir: &Path, from: &LedgerVerifier) -> Result<u64, daemoneye_lib::ledger::LedgerError> {
    let mut reader = LedgerReader::resume(dir, from.clone(), Patience::NONE).unwrap();
    while reader.advance()?.is_some() {}
    Ok(reader.verifier().summary().entries)
}

pub(crate) fn poke(path: &Path, at: usize, byte: u8) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&[byte]).unwrap();
}

#[test]
fn every_flipped_byte_of_every_file_names_its_entry() {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..2u64 {
        let (ledger, _) = Ledger::open(options(dir.path())).unwrap();
        let drafts: Vec<Draft> = (run * 16..run * 16 + 16).map(draft).collect();
        ledger.append_batch(&drafts).unwrap();
        // Two segments in each run, and the spare that another thread prepares.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while segments(dir.path()).len() < 2 * usize::try_from(run).unwrap() + 3 {
            assert!(std::time::Instant::now() < deadline, "no spare");
            std::thread::yield_now();
        }
    }
    let states = checkpoints(dir.path());
    assert_eq!(states.len(), 33);
    for (index, path) in segments(dir.path()).into_iter().enumerate() {
        let number = index as u64 + 1;
        let whole = std::fs::read(&path).unwrap();
        for (at, byte) in whole.iter().copied().enumerate() {
            // The entry whose bytes these are, or the next one where the zeros begin.
            let before = states.iter().rposition(|s| {
                s.position() <= (number, (at as u64).max(HEADER_BYTES as u64)) && s.position() > (0, 0)
            });
            let before = before.unwrap_or(0);
            let in_header = at < HEADER_BYTES;
            let first_here = states
                .iter()
                .position(|s| s.position().0 == number)
                .map_or(states.len() - 1, |p| p - usize::from(number > 1));
            let expected = if in_header { first_here } else { before };
            // A state inside this segment has passed its header: the one before begins in front of it.
            let from = if in_header { first_here.saturating_sub(1) } else { before.saturating_sub(1) };
            poke(&path, at, byte ^ 0x40);
            let error = match verify_from(dir.path(), &states[from]) {
                Err(error) => error,
                Ok(entries) => panic!("byte {at} of segment {number} was not noticed ({entries} entries)"),
            };
            assert_eq!(error.sequence, expected as u64, "byte {at} of segment {number}: {error}");
            assert_eq!(error.exit(), Exit::Tampered);
            poke(&path, at, byte);
        }
    }
    assert_eq!(verify_from(dir.path(), &LedgerVerifier::default()).unwrap(), 32);
}

type Records = Vec<(LedgerHeader, Vec<u8>)>;

/// Rewrites the only segment with the records that `change` leaves, all checksums right.
fn forge(dir: &Path, change: impl Fn(&mut Records)) {
    let path = segments(dir)[0].clone();
    let mut reader = SegmentReader::open(&path, Kind::Ledger).unwrap();
    let mut records = Vec::new();
    while let Ok(Some(raw)) = reader.step().unwrap() {
        records.push((raw.header::<LedgerHeader>().unwrap(), raw.payload.to_vec()));
    }
    change(&mut records);
    let length = std::fs::metadata(&path).unwrap().len();
    let mut bytes = std::fs::read(&path).unwrap()[..HEADER_BYTES].to_vec();
    let mut crc = 0;
    for (header, payload) in &records {
        crc = encode(&mut bytes, crc, 0, header, payload).unwrap();
    }
    bytes.resize(usize::try_from(length).unwrap(), 0);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_forger_who_repairs_the_checksums_is_caught_by_the_chain() {
    let expect = |change: &dyn Fn(&mut Records), sequence: u64, wanted: &dyn Fn(&ChainError) -> bool| {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(options(dir.path())).unwrap();
        ledger.append_batch(&(0..5).map(draft).collect::<Vec<_>>()).unwrap();
        drop(ledger);
        forge(dir.path(), change);
        let error = verify_from(dir.path(), &LedgerVerifier::default()).unwrap_err();
        assert_eq!(error.sequence, sequence);
        assert!(matches!(&error.what, LedgerFault::CorruptChain(chain) if wanted(chain)), "{error}");
    };
    expect(&|r| r[2].1 = b"other".to_vec(), 2, &|e| matches!(e, ChainError::CorruptPayload { .. }));
    expect(&|r| r[2].0.entry.actor = "nobody".into(), 2, &|e| matches!(e, ChainError::CorruptEntryHash { .. }));
    expect(&|r| drop(r.remove(2)), 2, &|e| matches!(e, ChainError::CorruptOrder { .. }));
    expect(&|r| r[2].0.entry = AuditEntry::link(2, [7; 32], 0, "x", "y", &r[2].1), 2, &|e| {
        matches!(e, ChainError::CorruptPreviousHash { .. })
    });
}

#[test]
fn a_missing_or_replaced_segment_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(options(dir.path())).unwrap();
    ledger.append_batch(&(0..30).map(draft).collect::<Vec<_>>()).unwrap();
    drop(ledger);
    let files = segments(dir.path());
    let second = std::fs::read(&files[1]).unwrap();
    std::fs::remove_file(&files[1]).unwrap();
    let error = verify_from(dir.path(), &LedgerVerifier::default()).unwrap_err();
    assert!(matches!(error.what, LedgerFault::CorruptSegmentMissing), "{error}");
    std::fs::write(&files[1], std::fs::read(&files[2]).unwrap()).unwrap();
    let error = verify_from(dir.path(), &LedgerVerifier::default()).unwrap_err();
    assert!(matches!(error.what, LedgerFault::CorruptOrder), "{error}");
    std::fs::write(&files[1], second).unwrap();
    std::fs::write(&files[0], [0; 10]).unwrap();
    let error = verify_from(dir.path(), &LedgerVerifier::default()).unwrap_err();
    assert!(matches!(error.what, LedgerFault::CorruptHeader(HeaderError::CorruptShort)), "{error}");
}

/// Four entries, each synced by itself, and the states in front of them.
fn four_entries(dir: &Path) -> Vec<LedgerVerifier> {
    let (ledger, _) = Ledger::open(options(dir)).unwrap();
    for n in 0..4 {
        ledger.append(draft(n)).unwrap();
    }
    drop(ledger);
    checkpoints(dir)
}

fn flip_inside(dir: &Path, states: &[LedgerVerifier], entry: usize) {
    let path = segments(dir)[0].clone();
    let at = usize::try_from(states[entry].position().1).unwrap() + 40;
    let byte = std::fs::read(&path).unwrap()[at];
    poke(&path, at, byte ^ 1);
}

#[test]
fn a_torn_tail_is_cut_and_damage_below_is_left_for_the_verifier() {
    let dir = tempfile::tempdir().unwrap();
    let states = four_entries(dir.path());
    flip_inside(dir.path(), &states, 3);
    // A power failure may have taken the note, and then nothing says that the last entry was synced.
    std::fs::remove_file(dir.path().join("entries.durable")).unwrap();
    let (ledger, found) = Ledger::open(options(dir.path())).unwrap();
    assert!(found.entries == 3 && found.torn_bytes > 0 && found.damage.is_none(), "{found:?}");
    ledger.append(draft(9)).unwrap();
    drop(ledger);
    assert_eq!(verify_dir(dir.path(), |_| {}).unwrap().entries, 4);

    let dir = tempfile::tempdir().unwrap();
    let states = four_entries(dir.path());
    flip_inside(dir.path(), &states, 1);
    let (ledger, found) = Ledger::open(options(dir.path())).unwrap();
    assert!(found.entries == 4 && found.damage.is_some(), "{found:?}");
    ledger.append(draft(9)).unwrap();
    drop(ledger);
    assert_eq!(verify_from(dir.path(), &LedgerVerifier::default()).unwrap_err().sequence, 1, "still named");
}

#[test]
fn the_last_entry_that_was_acknowledged_is_not_taken_for_a_torn_one() {
    // Right after it was written, and after a run that wrote nothing and whose note is lost.
    for another_run in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let states = four_entries(dir.path());
        if another_run {
            drop(Ledger::open(options(dir.path())).unwrap());
            std::fs::remove_file(dir.path().join("entries.durable")).unwrap();
        }
        flip_inside(dir.path(), &states, 3);
        let (_, found) = Ledger::open(options(dir.path())).unwrap();
        assert!(found.damage.is_some() && found.torn_bytes == 0, "{found:?}");
        assert_eq!(verify_from(dir.path(), &LedgerVerifier::default()).unwrap_err().sequence, 3, "still named");
    }
}

#[test]
fn entries_that_were_cut_off_the_end_are_missed() {
    let dir = tempfile::tempdir().unwrap();
    let states = four_entries(dir.path());
    let path = segments(dir.path())[0].clone();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(states[2].position().1).unwrap();
    let cut = verify_dir(dir.path(), |_| {}).unwrap_err();
    assert!(matches!(cut.what, LedgerFault::CorruptEnd { synced: 4 }), "{cut}");
    assert_eq!((cut.sequence, cut.exit(), cut.offset), (2, Exit::Tampered, states[2].position().1));
    let (_, found) = Ledger::open(options(dir.path())).unwrap();
    assert_eq!(found.damage.as_deref(), Some("entries 2 to 3 are missing at the end"));
}

#[test]
fn the_verifier_reads_while_the_writer_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(options(dir.path())).unwrap();
    ledger.append(draft(0)).unwrap();
    let ledger = Arc::new(ledger);
    let writer = {
        let ledger = Arc::clone(&ledger);
        std::thread::spawn(move || {
            for n in 1..400 {
                ledger.append(draft(n)).unwrap();
            }
        })
    };
    let mut seen = 0;
    while !writer.is_finished() {
        let entries = verify_dir(dir.path(), |_| {}).unwrap().entries;
        assert!(entries >= seen);
        seen = entries;
    }
    writer.join().unwrap();
    assert_eq!(verify_dir(dir.path(), |_| {}).unwrap().entries, 400);
}

#[test]
fn an_entry_that_cannot_be_written_leaves_the_chain_where_it_was_and_a_failed_sync_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let mut options = options(dir.path());
    options.disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
    let (ledger, _) = Ledger::open(options).unwrap();
    ledger.append(draft(0)).unwrap();
    faults.full.store(true, Ordering::SeqCst);
    assert!(ledger.append(draft(1)).unwrap_err().is_disk_full());
    faults.full.store(false, Ordering::SeqCst);
    ledger.append(draft(2)).unwrap();
    assert_eq!(verify_dir(dir.path(), |_| {}).unwrap().entries, 2);
    faults.no_sync.store(true, Ordering::SeqCst);
    assert_eq!(ledger.append(draft(3)).unwrap_err().exit(), Exit::SyncFailed);
    faults.no_sync.store(false, Ordering::SeqCst);
    assert_eq!(ledger.append(draft(4)).unwrap_err().exit(), Exit::SyncFailed);
}

#[test]
fn an_entry_that_no_segment_can_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(options(dir.path())).unwrap();
    assert!(ledger.append(Draft { payload: vec![b'x'; 3000], ..draft(0) }).is_err());
    ledger.append(draft(0)).unwrap();
    assert_eq!(verify_dir(dir.path(), |_| {}).unwrap().entries, 1);
}

#[cfg(unix)]
#[test]
fn the_group_may_read_and_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit");
    let (ledger, _) = Ledger::open(options(&audit)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&audit), mode(&segments(&audit)[0])), (0o750, 0o640));
    drop(ledger);
}

#[test]
fn where_it_stands_is_told_while_an_append_waits_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
    let (ledger, _) = Ledger::open(LedgerOptions { disk, ..options(dir.path()) }).unwrap();
    ledger.append(draft(0)).unwrap();
    faults.hold_syncs(true);
    std::thread::scope(|scope| {
        let appending = scope.spawn(|| ledger.append_ranges(&[(draft(1), Sequence::new(1, 9))]).unwrap());
        faults.until_a_sync_waits();
        assert_eq!(
            (ledger.head().entries, ledger.head().covered),
            (1, None),
            "what no sync has taken is not there yet"
        );
        faults.hold_syncs(false);
        appending.join().unwrap();
    });
    assert_eq!((ledger.head().entries, ledger.head().covered), (2, Some(Sequence::new(1, 9))));
}
