//! What the write-ahead log promises: order, continuity, honest tails, told losses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::support::*;
use collector_core::wal::{SyncMode, Wal, WalOptions, reason};
use collector_core::{CollectorError, SourceEvent};
use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::Sequence;
use daemoneye_lib::segment::{HEADER_BYTES, Kind, SegmentName, SegmentReader, Tail, scan_dir};

/// Far more than a sync takes.
const LONG: std::time::Duration = std::time::Duration::from_secs(30);

fn segments(dir: &Path) -> Vec<PathBuf> {
    let listed = daemoneye_lib::segment::list(dir, &SegmentName::wal("test")).unwrap();
    listed.into_iter().map(|(_, path)| path).collect()
}

/// Every record synced before the next one is written.
async fn durable_log(dir: &Path, count: u64) -> Vec<u64> {
    let (wal, _) = Wal::open(small(dir)).unwrap();
    for n in 0..count {
        wal.append(&[event(n)]).unwrap();
        wal.synced().await.unwrap();
    }
    drop(wal);
    offsets(&segments(dir)[0])
}

fn offsets(path: &Path) -> Vec<u64> {
    let mut reader = SegmentReader::open(path, Kind::Wal).unwrap();
    let mut offsets = vec![reader.offset()];
    while let Ok(Some(_)) = reader.step().unwrap() {
        offsets.push(reader.offset());
    }
    offsets
}

#[test]
fn what_was_appended_is_read_back_byte_by_byte_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, recovered) = Wal::open(small(dir.path())).unwrap();
    let mut expected = Vec::new();
    for n in 0..300u64 {
        let event =
            SourceEvent::new("events.process.stop", 7, vec![u8::try_from(n % 251).unwrap(); (n % 97) as usize]);
        expected.push(event.clone());
        wal.append(&[event]).unwrap();
    }
    let records = all(&wal);
    assert_eq!(records.len(), 300);
    for (n, (record, event)) in records.iter().zip(&expected).enumerate() {
        assert_eq!(record.payload, event.payload);
        assert_eq!(record.topic, "events.process.stop");
        assert_eq!(record.sequence, Some(Sequence::new(recovered.epoch, n as u64 + 1)));
    }
    assert!(segments(dir.path()).len() > 3, "it rotated");
}

#[test]
fn the_epoch_grows_at_each_open_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = None;
    let mut epoch = 0;
    for run in 0..5u64 {
        let (wal, recovered) = Wal::open(small(dir.path())).unwrap();
        assert!(recovered.epoch > epoch);
        assert_eq!(recovered.last, last);
        epoch = recovered.epoch;
        last = wal.append(&events(run * 10..run * 10 + 10)).unwrap();
        assert_eq!(last, Some(Sequence::new(epoch, run * 10 + 10)));
    }
    let (wal, recovered) = Wal::open(small(dir.path())).unwrap();
    assert_eq!(recovered.records, 50);
    assert!(recovered.gaps.is_empty());
    assert_eq!(payloads(&all(&wal)).len(), 50);
    let from: Vec<_> = wal.replay_from(all(&wal)[29].sequence).unwrap().map(Result::unwrap).collect();
    assert_eq!(payloads(&from)[0], "payload 30");
}

#[tokio::test]
async fn an_epoch_is_not_given_twice_even_when_everything_was_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, first) = Wal::open(small(dir.path())).unwrap();
    let last = wal.append(&events(0..200)).unwrap().unwrap();
    wal.synced().await.unwrap();
    wal.trim(last).unwrap();
    drop(wal);
    let (wal, second) = Wal::open(small(dir.path())).unwrap();
    assert!(second.epoch > first.epoch);
    let next = wal.append(&events(0..1)).unwrap().unwrap();
    assert_eq!(next.number, last.number + 1);
}

/// What says that the newest record was synced; a power failure may take it.
fn note(dir: &Path) -> PathBuf {
    dir.join("test.durable")
}

/// Nothing but the first segment and, where it is given, the note.
fn damaged(dir: &Path, bytes: &[u8], durable: Option<&[u8]>) {
    std::fs::remove_dir_all(dir).unwrap();
    std::fs::create_dir(dir).unwrap();
    std::fs::write(dir.join("test-00001.wal"), bytes).unwrap();
    if let Some(durable) = durable {
        std::fs::write(note(dir), durable).unwrap();
    }
}

/// Opens the log and returns the numbers of what is left and of what is told to be gone.
fn left_and_told(dir: &Path) -> (Vec<u64>, Vec<u64>) {
    let (wal, recovered) = Wal::open(small(dir)).unwrap();
    let records = all(&wal);
    let left =
        records.iter().filter(|r| r.topic == "events.process.start").map(|r| r.sequence.unwrap().number).collect();
    let told = gaps(&records);
    assert_eq!(told, recovered.gaps);
    assert!(told.iter().all(|gap| gap.reason == reason::CORRUPT));
    let ranges = told.iter().filter_map(|gap| Some(gap.first?.number..=gap.last?.number));
    (left, ranges.flatten().collect())
}

#[tokio::test]
async fn a_log_cut_at_any_byte_is_a_torn_tail_above_what_was_synced_and_corruption_below() {
    let dir = tempfile::tempdir().unwrap();
    let offsets = durable_log(dir.path(), 6).await;
    let whole = std::fs::read(&segments(dir.path())[0]).unwrap();
    let durable = std::fs::read(note(dir.path())).unwrap();
    for cut in usize::try_from(offsets[3]).unwrap()..usize::try_from(offsets[6]).unwrap() {
        let kept = offsets.iter().filter(|o| **o <= cut as u64).count() as u64 - 1;
        damaged(dir.path(), &whole[..cut], Some(&durable));
        assert_eq!(scan_dir(dir.path(), &SegmentName::wal("test")).unwrap().tail, Tail::Corrupt, "cut at {cut}");
        assert_eq!(left_and_told(dir.path()), ((1..=kept).collect(), (kept + 1..=6).collect()), "cut at {cut}");
        damaged(dir.path(), &whole[..cut], None);
        assert_eq!(left_and_told(dir.path()), ((1..=kept).collect(), Vec::new()), "cut at {cut}, the note as well");
    }
}

#[tokio::test]
async fn every_flipped_bit_is_a_torn_tail_above_what_was_synced_and_corruption_below() {
    let dir = tempfile::tempdir().unwrap();
    let offsets = durable_log(dir.path(), 6).await;
    let whole = std::fs::read(&segments(dir.path())[0]).unwrap();
    let durable = std::fs::read(note(dir.path())).unwrap();
    let last = usize::try_from(offsets[5]).unwrap();
    for at in usize::try_from(offsets[3]).unwrap()..usize::try_from(offsets[6]).unwrap() {
        let hit = offsets.iter().filter(|o| **o <= at as u64).count() as u64;
        for bit in 0..8 {
            let mut bad = whole.clone();
            bad[at] ^= 1 << bit;
            damaged(dir.path(), &bad, Some(&durable));
            let scan = scan_dir(dir.path(), &SegmentName::wal("test")).unwrap();
            assert_eq!((scan.tail, scan.segments[0].records), (Tail::Corrupt, 5), "byte {at} bit {bit}");
            // The whole repair once for each byte.
            if bit != at % 8 {
                continue;
            }
            let expected = ((1..=6).filter(|n| *n != hit).collect(), vec![hit]);
            assert_eq!(left_and_told(dir.path()), expected, "byte {at} bit {bit}");
            damaged(dir.path(), &bad, None);
            let expected = if at < last { expected } else { ((1..=5).collect(), Vec::new()) };
            assert_eq!(left_and_told(dir.path()), expected, "byte {at} bit {bit}, the note is lost");
        }
    }
}

#[tokio::test]
async fn a_new_run_vouches_for_the_end_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let offsets = durable_log(dir.path(), 3).await;
    drop(Wal::open(small(dir.path())).unwrap());
    std::fs::remove_file(note(dir.path())).unwrap();
    let path = segments(dir.path())[0].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[usize::try_from(offsets[2]).unwrap() + 30] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(left_and_told(dir.path()), (vec![1, 2], vec![3]));
    let (wal, recovered) = Wal::open(small(dir.path())).unwrap();
    assert!(recovered.gaps.is_empty() && recovered.corrupt.is_empty(), "told once: {recovered:?}");
    assert_eq!(
        wal.append(&events(9..10)).unwrap().unwrap().number,
        5,
        "neither the lost number nor the gap's is given again"
    );
}

#[tokio::test]
async fn what_is_damaged_is_not_repaired_unless_it_can_be_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let offsets = durable_log(dir.path(), 3).await;
    let path = segments(dir.path())[0].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[usize::try_from(offsets[1]).unwrap() + 30] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let aside = dir.path().join("test-00001.wal.damaged");
    std::fs::create_dir_all(aside.join("in the way")).unwrap();
    let error = Wal::open(small(dir.path())).err().unwrap();
    assert!(error.to_string().contains("keep aside"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "the only original is as it was");
    std::fs::remove_dir_all(&aside).unwrap();
    assert_eq!(left_and_told(dir.path()), (vec![1, 3], vec![2]));
    assert_eq!(std::fs::read(aside).unwrap(), bytes);
}

#[tokio::test]
async fn a_segment_that_is_gone_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(small(dir.path())).unwrap();
    wal.append(&events(0..200)).unwrap();
    wal.synced().await.unwrap();
    drop(wal);
    let gone = segments(dir.path())[1].clone();
    let scan = scan_dir(dir.path(), &SegmentName::wal("test")).unwrap();
    let (first, last) = (scan.segments[1].first.unwrap(), scan.segments[1].last.unwrap());
    std::fs::remove_file(gone).unwrap();
    let expected: Vec<u64> = (1..=200).filter(|n| !(first..=last).contains(n)).collect();
    assert_eq!(left_and_told(dir.path()), (expected.clone(), (first..=last).collect()));
    let (wal, recovered) = Wal::open(small(dir.path())).unwrap();
    assert!(recovered.gaps.is_empty() && recovered.corrupt.is_empty(), "{recovered:?}");
    assert_eq!(payloads(&all(&wal)).len(), expected.len());
}

#[tokio::test]
async fn a_header_that_is_gone_from_a_trimmed_log_invents_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(small(dir.path())).unwrap();
    let last = wal.append(&events(0..200)).unwrap().unwrap();
    wal.synced().await.unwrap();
    wal.trim(Sequence::new(last.epoch, 150)).unwrap();
    let before: Vec<_> = all(&wal).iter().map(|r| r.sequence.unwrap().number).collect();
    drop(wal);
    let path = segments(dir.path())[0].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..HEADER_BYTES].fill(0);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(left_and_told(dir.path()), (before, Vec::new()));
}

#[tokio::test]
async fn a_torn_tail_is_cut_even_with_good_records_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small(dir.path());
    options.sync = SyncMode::Never;
    let (wal, _) = Wal::open(options).unwrap();
    wal.append(&events(0..10)).unwrap();
    drop(wal);
    let path = segments(dir.path())[0].clone();
    let offsets = offsets(&path);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[usize::try_from(offsets[4]).unwrap() + 30] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let (wal, recovered) = Wal::open(small(dir.path())).unwrap();
    assert_eq!(recovered.records, 4);
    assert!(recovered.torn_bytes > 0 && recovered.gaps.is_empty() && recovered.corrupt.is_empty());
    assert_eq!(wal.append(&events(50..51)).unwrap().unwrap().number, 5);
    assert_eq!(payloads(&all(&wal)), ["payload 0", "payload 1", "payload 2", "payload 3", "payload 50"]);
}

#[tokio::test]
async fn corruption_is_kept_aside_told_once_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let offsets = durable_log(dir.path(), 6).await;
    let path = segments(dir.path())[0].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[usize::try_from(offsets[2]).unwrap() + 30] ^= 1;
    std::fs::write(&path, &bytes).unwrap();

    let (wal, recovered) = Wal::open(small(dir.path())).unwrap();
    assert_eq!(recovered.corrupt.len(), 1);
    assert_eq!(std::fs::read(&recovered.corrupt[0]).unwrap(), bytes, "kept as it was found");
    let records = all(&wal);
    assert_eq!(payloads(&records), ["payload 0", "payload 1", "payload 3", "payload 4", "payload 5"]);
    let gaps = gaps(&records);
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].reason, reason::CORRUPT);
    assert_eq!((gaps[0].first.unwrap().number, gaps[0].last.unwrap().number, gaps[0].count), (3, 3, Some(1)));
    drop(wal);
    let (wal, recovered) = Wal::open(small(dir.path())).unwrap();
    assert!(recovered.gaps.is_empty() && recovered.corrupt.is_empty(), "told once");
    assert_eq!(payloads(&all(&wal)).len(), 5);
}

#[tokio::test]
async fn a_destroyed_header_costs_no_record_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    durable_log(dir.path(), 6).await;
    let path = segments(dir.path())[0].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[3] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (wal, recovered) = Wal::open(small(dir.path())).unwrap();
    assert_eq!(recovered.corrupt.len(), 1, "kept aside");
    assert_eq!(payloads(&all(&wal)).len(), 6);
    let told = gaps(&all(&wal));
    assert_eq!(told.len(), 1, "no record is missing, but somebody changed the log");
    assert_eq!((told[0].reason.as_str(), told[0].count, told[0].first), (reason::CORRUPT, Some(0), None));
    assert_eq!(wal.append(&events(6..7)).unwrap().unwrap().number, 8);
}

#[tokio::test]
async fn a_record_found_bad_while_the_log_is_read_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(small(dir.path())).unwrap();
    wal.append(&events(0..6)).unwrap();
    wal.synced().await.unwrap();
    let path = segments(dir.path())[0].clone();
    let at = usize::try_from(offsets(&path)[2]).unwrap() + 30;
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff], at as u64).unwrap();

    for _ in 0..2 {
        assert_eq!(payloads(&all(&wal))[..3], ["payload 0", "payload 1", "payload 3"]);
        wal.append(&events(6..7)).unwrap();
    }
    let told = gaps(&all(&wal));
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].reason.as_str(), told[0].count), (reason::CORRUPT, Some(1)));
    assert_eq!((told[0].first.unwrap().number, told[0].last.unwrap().number), (3, 3));
}

#[tokio::test]
async fn trimming_deletes_whole_segments_below_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(small(dir.path())).unwrap();
    wal.append(&events(0..300)).unwrap();
    wal.synced().await.unwrap();
    let records = all(&wal);
    let upto = records[149].sequence.unwrap();
    let promised = wal.trimmable(upto).unwrap();
    assert!(wal.trim(upto).unwrap() > 0);
    let left = all(&wal);
    assert_eq!(left.last(), records.last());
    assert!(left[0].sequence.unwrap() <= Sequence::new(upto.epoch, upto.number + 1), "nothing above is gone");
    assert_eq!(wal.stats().trimmed, Some(promised));
    assert_eq!(left[0].sequence.unwrap().number, promised.number + 1);
    assert_eq!(wal.trim(upto).unwrap(), 0);
}

#[test]
fn at_the_bound_the_oldest_goes_and_its_range_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small(dir.path());
    options.max_bytes = 5 * 4096;
    let (wal, _) = Wal::open(options).unwrap();
    for n in 0..600 {
        wal.append(&[event(n)]).unwrap();
    }
    assert!(wal.stats().bytes <= 5 * 4096, "{:?}", wal.stats());
    let records = all(&wal);
    let gaps = gaps(&records);
    let oldest = records[0].sequence.unwrap().number;
    assert!(!gaps.is_empty() && gaps.iter().all(|g| g.reason == reason::BOUND));
    let told = gaps.last().unwrap();
    assert_eq!(told.last.unwrap().number + 1, oldest, "the last dropped range ends where the log begins");
    assert!(wal.stats().lost > 0);
}

#[test]
fn a_loss_stays_told_when_the_segment_that_told_it_is_lost_as_well() {
    for sync in [SyncMode::Group, SyncMode::Never] {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(WalOptions { sync, max_bytes: 5 * 4096, ..small(dir.path()) }).unwrap();
        // Many times what the log holds, so that the first gaps have fallen to the bound, and what told them again too.
        for n in 0..3000 {
            wal.append(&[event(n)]).unwrap();
        }
        // What fell last is told behind the next sync.
        let began = std::time::Instant::now();
        loop {
            wal.append(&[]).unwrap();
            let records = all(&wal);
            let gone = records[0].sequence.unwrap().number - 1;
            let told = gaps(&records);
            assert!(told.iter().all(|gap| gap.reason == reason::BOUND), "{told:?}");
            if told.iter().map(|gap| gap.count.unwrap()).sum::<u64>() == gone {
                assert_eq!(told.iter().filter_map(|gap| gap.first).min().unwrap().number, 1, "{told:?}");
                break;
            }
            assert!(began.elapsed() < LONG, "{gone} are gone: {told:?}");
            std::thread::yield_now();
        }
    }
}

/// How many records are gone from the log and how many of them it tells, as the next run finds it.
fn gone_and_told(dir: &Path) -> (u64, u64) {
    let (wal, _) = Wal::open(small(dir)).unwrap();
    let records = all(&wal);
    let told = gaps(&records).iter().map(|gap| gap.count.unwrap()).sum();
    (records[0].sequence.unwrap().number - 1, told)
}

#[test]
fn a_stop_leaves_no_word_of_a_loss_unsaid() {
    for sync in [SyncMode::Group, SyncMode::Always, SyncMode::Never] {
        // More than one segment's worth: with some of them the last word needs a segment of its own.
        for count in 700..760 {
            let dir = tempfile::tempdir().unwrap();
            let (wal, _) = Wal::open(WalOptions { sync, max_bytes: 5 * 4096, ..small(dir.path()) }).unwrap();
            for n in 0..count {
                wal.append(&[event(n)]).unwrap();
            }
            drop(wal);
            let (gone, told) = gone_and_told(dir.path());
            assert_eq!(gone, told, "{sync:?} {count}");
        }
    }
}

#[test]
fn trimming_takes_nothing_whose_loss_is_not_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
    let (wal, _) = Wal::open(WalOptions { disk, max_bytes: 5 * 4096, ..small(dir.path()) }).unwrap();
    // Gaps fall to the bound, and are told again behind a sync.
    for n in 0..700 {
        wal.append(&[event(n)]).unwrap();
    }
    faults.hold_syncs(true);
    let mut last = None;
    for n in 700..1000 {
        last = wal.append(&[event(n)]).unwrap();
    }
    wal.trim(last.unwrap()).unwrap();
    // As a kill at this instant leaves it.
    let left = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        // One that is being prepared may go meanwhile.
        if file.path().extension().is_some_and(|extension| extension == "tmp") {
            continue;
        }
        std::fs::copy(file.path(), left.path().join(file.file_name())).unwrap();
    }
    faults.hold_syncs(false);
    let (gone, told) = gone_and_told(left.path());
    assert!(gone <= told, "{gone} are gone, {told} are told");
}

#[test]
fn what_the_agent_has_of_a_dropped_segment_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalOptions { max_bytes: 5 * 4096, ..small(dir.path()) }).unwrap();
    let mut middle = wal.append(&[event(0)]).unwrap().unwrap();
    for n in 1..10 {
        middle = wal.append(&[event(n)]).unwrap().unwrap();
    }
    // Its segment stays: the rest of it is still wanted.
    assert_eq!(wal.trim(middle).unwrap(), 0);
    for n in 10..200 {
        wal.append(&[event(n)]).unwrap();
    }
    let told = gaps(&all(&wal));
    let first = told.iter().filter_map(|gap| gap.first).min().unwrap();
    assert_eq!(first.number, middle.number + 1, "{told:?}");
    for gap in &told {
        assert_eq!(gap.count, Some(gap.last.unwrap().number - gap.first.unwrap().number + 1), "{gap:?}");
    }
}

#[test]
fn what_the_agent_has_committed_goes_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small(dir.path());
    options.max_bytes = 5 * 4096;
    let (wal, _) = Wal::open(options).unwrap();
    for n in 0..600 {
        let last = wal.append(&[event(n)]).unwrap().unwrap();
        wal.trim(last).unwrap();
    }
    assert_eq!(wal.stats().lost, 0);
    assert!(gaps(&all(&wal)).is_empty());
}

/// Counts the errors that are logged on this thread.
#[derive(Clone, Default)]
struct Errors(Arc<std::sync::atomic::AtomicU64>);

impl tracing::Subscriber for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }
    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}
    fn event(&self, _event: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn enter(&self, _span: &tracing::span::Id) {}
    fn exit(&self, _span: &tracing::span::Id) {}
}

#[test]
fn a_full_disk_is_complained_about_once_a_minute_and_not_at_every_batch() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let mut options = small(dir.path());
    options.disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
    let (wal, _) = Wal::open(options).unwrap();
    faults.full.store(true, Ordering::SeqCst);
    let errors = Errors::default();
    tracing::subscriber::with_default(errors.clone(), || {
        for n in 0..20 {
            wal.append(&[event(n)]).unwrap();
        }
    });
    assert_eq!(errors.0.load(Ordering::SeqCst), 1);
}

#[test]
fn a_full_disk_loses_events_tells_it_as_soon_as_there_is_room_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let mut options = small(dir.path());
    options.disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
    let (wal, _) = Wal::open(options.clone()).unwrap();
    wal.append(&events(0..3)).unwrap();
    faults.full.store(true, Ordering::SeqCst);
    assert_eq!(wal.append(&events(3..8)).unwrap(), None);
    assert_eq!(wal.append(&events(8..10)).unwrap(), None);
    faults.full.store(false, Ordering::SeqCst);
    wal.append(&events(10..11)).unwrap();
    let records = all(&wal);
    assert_eq!(payloads(&records), ["payload 0", "payload 1", "payload 2", "payload 10"]);
    let told = gaps(&records);
    assert_eq!((told.len(), told[0].reason.as_str(), told[0].count), (1, reason::DISK, Some(7)));
    assert_eq!((told[0].from_us, told[0].to_us), (1_003, 1_009));
    drop(wal);
    let (wal, recovered) = Wal::open(options).unwrap();
    assert_eq!((recovered.torn_bytes, recovered.gaps.len()), (0, 0), "half-written bytes were covered");
    assert_eq!(all(&wal).len(), 5);
}

#[test]
fn an_oversized_event_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(small(dir.path())).unwrap();
    let huge = SourceEvent::new("events.process.start", 5, vec![0; 8000]);
    wal.append(&[event(0), huge, event(1)]).unwrap();
    let records = all(&wal);
    assert_eq!(payloads(&records), ["payload 0", "payload 1"]);
    assert_eq!(gaps(&records)[0].reason, reason::OVERSIZE);
}

#[tokio::test]
async fn a_failed_sync_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let mut options = small(dir.path());
    options.disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
    let (wal, _) = Wal::open(options).unwrap();
    faults.no_sync.store(true, Ordering::SeqCst);
    wal.append(&events(0..1)).unwrap();
    let error = wal.synced().await.unwrap_err();
    assert_eq!(error.exit(), Exit::SyncFailed);
    faults.no_sync.store(false, Ordering::SeqCst);
    let error = wal.append(&events(1..2)).unwrap_err();
    assert!(matches!(error, CollectorError::SyncFailed { .. }), "a later success would be a lie");
}

#[tokio::test]
async fn only_what_is_synced_is_settled_and_whoever_waits_for_the_rest_waits_in_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let mut options = small(dir.path());
    options.disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
    let (wal, _) = Wal::open(options.clone()).unwrap();
    let reader = wal.reader();
    let first = wal.append(&events(0..3)).unwrap();
    assert!(reader.settle(first, LONG).await);
    assert_eq!(reader.settled(), first);

    faults.hold_syncs(true);
    let second = wal.append(&events(3..4)).unwrap();
    assert!(!reader.settle(second, std::time::Duration::from_millis(20)).await);
    assert_eq!((reader.settled(), reader.visible()), (first, second));
    faults.hold_syncs(false);
    assert!(reader.settle(second, LONG).await);

    faults.no_sync.store(true, Ordering::SeqCst);
    let third = wal.append(&events(4..5)).unwrap();
    assert!(!reader.settle(third, LONG).await, "what a failed sync leaves is never settled");
    drop(wal);
    faults.no_sync.store(false, Ordering::SeqCst);
    options.sync = SyncMode::Never;
    let (wal, _) = Wal::open(options).unwrap();
    let last = wal.append(&events(5..6)).unwrap();
    assert_eq!(wal.reader().settled(), last, "nothing is promised, so nothing is waited for");
}

#[tokio::test]
async fn with_always_only_what_is_synced_may_be_seen() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let mut options = small(dir.path());
    options.sync = SyncMode::Always;
    options.disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
    let (wal, _) = Wal::open(options).unwrap();
    wal.append(&events(0..5)).unwrap();
    wal.synced().await.unwrap();
    assert_eq!(all(&wal).len(), 5);
    faults.no_sync.store(true, Ordering::SeqCst);
    wal.append(&events(5..9)).unwrap();
    wal.synced().await.unwrap_err();
    assert_eq!(all(&wal).len(), 5);
}

#[test]
fn a_batch_is_one_write() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let mut options = small(dir.path());
    options.segment_bytes = 64 * 1024;
    options.disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
    let (wal, _) = Wal::open(options).unwrap();
    // The spare is written by another thread: wait until it stands.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while segments(dir.path()).len() < 2 {
        assert!(std::time::Instant::now() < deadline, "no spare");
        std::thread::yield_now();
    }
    let before = faults.writes.load(Ordering::SeqCst);
    wal.append(&events(0..256)).unwrap();
    assert_eq!(faults.writes.load(Ordering::SeqCst) - before, 1);
}

#[test]
fn a_second_collector_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = Wal::open(small(dir.path())).unwrap();
    let Err(error) = Wal::open(small(dir.path())) else { panic!("two collectors on one log") };
    assert_eq!(error.exit(), Exit::InUse);
    drop(first);
    Wal::open(small(dir.path())).unwrap();
}

#[cfg(unix)]
#[test]
fn directory_and_files_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let wal_dir = dir.path().join("wal");
    let (wal, _) = Wal::open(small(&wal_dir)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&wal_dir), 0o700);
    assert_eq!(mode(&segments(&wal_dir)[0]), 0o600);
    drop(wal);
}

#[test]
fn options_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small(dir.path());
    options.max_bytes = 2 * options.segment_bytes;
    let Err(error) = Wal::open(options) else { panic!("taken") };
    assert_eq!(error.exit(), Exit::Config);
}

#[test]
fn a_reader_follows_the_writer_over_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(small(dir.path())).unwrap();
    let mut cursor = wal.reader().cursor(None);
    let mut seen = Vec::new();
    for n in 0..400 {
        wal.append(&[event(n)]).unwrap();
        if n % 7 == 0 {
            seen.extend(cursor.run(5, 10_000).unwrap());
        }
    }
    loop {
        let run = cursor.run(64, 100_000).unwrap();
        if run.is_empty() {
            break;
        }
        seen.extend(run);
    }
    let expected: Vec<String> = (0..400).map(|n| format!("payload {n}")).collect();
    assert_eq!(payloads(&seen), expected);
    assert_eq!(cursor.place(), wal.reader().end());
}

#[cfg(unix)]
#[test]
fn files_of_the_log_are_this_users_and_those_of_the_ledger_are_its_groups() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let (wal, audit) = (dir.path().join("wal"), dir.path().join("audit"));
    let held = Wal::open(small(&wal)).unwrap();
    let (ledger, _) =
        collector_core::ledger::Ledger::open(collector_core::ledger::LedgerOptions::new(&audit)).unwrap();
    collector_core::private_file(&wal.join("tracker.checkpoint")).unwrap();
    std::fs::set_permissions(wal.join("tracker.checkpoint"), std::fs::Permissions::from_mode(0o644)).unwrap();
    collector_core::private_file(&wal.join("tracker.checkpoint")).unwrap();
    for (dir, most) in [(&wal, 0o600), (&audit, 0o640)] {
        let modes: Vec<u32> = std::fs::read_dir(dir)
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().permissions().mode() & 0o777)
            .collect();
        assert!(modes.len() >= 2 && modes.iter().all(|mode| mode & !most == 0), "{}: {modes:?}", dir.display());
    }
    drop((held, ledger));
}

/// A file system of a few pages, for as long as it lives.
#[cfg(target_os = "linux")]
struct Tmpfs(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl Tmpfs {
    fn mount(kib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(dir))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Tmpfs {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg(self.0.path()).status().ok();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_system_without_room_costs_only_what_came_meanwhile() {
    let Some(disk) = Tmpfs::mount(64) else {
        return crate::skip::skipped("only root may mount a small file system");
    };
    let dir = disk.0.path().join("wal");
    let (wal, _) = Wal::open(small(&dir)).unwrap();
    let (mut n, mut lost, mut last) = (0, Vec::new(), None);
    while lost.len() < 50 {
        match wal.append(&[event(n)]).unwrap() {
            Some(written) => last = Some(written),
            None => lost.push(n),
        }
        n += 1;
        assert!(n < 10_000, "the disk does not fill up");
    }
    wal.synced().await.unwrap();
    wal.trim(last.unwrap()).unwrap();
    while wal.append(&[event(n)]).unwrap().is_none() {
        lost.push(n);
        n += 1;
        assert!(lost.len() < 1_000, "what was trimmed gives no room");
    }
    wal.synced().await.unwrap();
    drop(wal);
    let (wal, recovered) = Wal::open(small(&dir)).unwrap();
    assert!(recovered.gaps.is_empty() && recovered.torn_bytes == 0, "{recovered:?}");
    let records = all(&wal);
    let kept: Vec<u64> =
        payloads(&records).iter().map(|payload| payload.strip_prefix("payload ").unwrap().parse().unwrap()).collect();
    assert_eq!(kept.last(), Some(&n), "what came when there was room again");
    let told = gaps(&records);
    assert!(told.iter().all(|gap| gap.reason == reason::DISK));
    assert_eq!(told.iter().map(|gap| gap.count.unwrap()).sum::<u64>(), lost.len() as u64);
    let time = |n: u64| 1_000 + i64::try_from(n).unwrap();
    assert_eq!(told.first().unwrap().from_us, time(lost[0]));
    assert_eq!(told.last().unwrap().to_us, time(*lost.last().unwrap()));
}

#[test]
fn the_end_does_not_wait_for_a_disk_that_hangs_and_nobody_opens_the_log_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let options = || WalOptions { disk: Arc::new(FaultyDisk(Arc::clone(&faults))), ..small(dir.path()) };
    let (wal, _) = Wal::open(options()).unwrap();
    wal.append(&events(0..3)).unwrap();
    let hung = faults.watchdog();
    faults.hold_syncs(true);
    wal.append(&events(3..6)).unwrap();
    faults.until_a_sync_waits();
    drop(wal);
    assert!(!hung.load(Ordering::SeqCst) && faults.waiting() > 0);
    assert!(matches!(Wal::open(options()), Err(CollectorError::MisuseInUse(_))));
    faults.hold_syncs(false);
    let began = std::time::Instant::now();
    let wal = loop {
        match Wal::open(options()) {
            Ok((wal, _)) => break wal,
            Err(error) => assert!(began.elapsed() < std::time::Duration::from_secs(30), "{error}"),
        }
    };
    assert_eq!(payloads(&all(&wal)).len(), 6);
}
