//! Callers who read nothing.

use std::pin::pin;

use daemoneye_engine::generate::Generator;
use daemoneye_engine::ingest::decode;
use daemoneye_engine::store::StoreOptions;
use daemoneye_eventbus::Peer;
use daemoneye_lib::config::{AGENT, Sources, load};
use daemoneye_lib::proto::{DataExport, QueryDone, Role};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::settings::Settings;

/// Beyond what a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(60);
const EVENTS: usize = 20_000;

fn operators() -> (TempDir, Operators) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    store.append(decode("procmond", &Generator::new(7, 1).records(EVENTS)).unwrap()).unwrap();
    store.seal().unwrap();
    let flags = ["data_dir", "runtime_dir"].map(|key| (key.to_owned(), dir.path().display().to_string())).to_vec();
    let settings = Settings::read(load(&AGENT, &Sources { flags, ..Sources::default() }).unwrap(), &[]).unwrap();
    let mut operators = Operators::offline(Arc::new(store), settings).unwrap();
    operators.reader_wait = Duration::from_millis(20);
    (dir, operators)
}

fn caller() -> Caller {
    Caller { peer: Peer { uid: 0, gid: 0, pid: None }, role: Role::Operator, id: "test".to_owned() }
}

fn export(parquet: bool) -> DataExport {
    DataExport { sql: "SELECT * FROM process_events".to_owned(), params: Vec::new(), parquet }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_nobody_reads_ends_degraded_and_gives_its_turn_back() {
    let (_dir, operators) = operators();
    let (answers, mut unread) = mpsc::channel(1);
    let caller = caller();
    let mut work = pin!(operators.data_export(&caller, export(false), &answers, CancellationToken::new()));
    tokio::select! {
        biased;
        ended = &mut work => panic!("nobody has read how it ended: {ended:?}"),
        turn = timeout(DEADLINE, operators.whole_store.acquire()) => drop(turn.unwrap().unwrap()),
    }
    let read = async {
        let (mut rows, mut last) = (0, None);
        while last.is_none() {
            match unread.recv().await.unwrap().answer {
                Some(Answer::Page(page)) => rows += page.rows.len(),
                Some(Answer::QueryDone(done)) => last = Some(done),
                other => panic!("{other:?}"),
            }
        }
        (rows, last)
    };
    let (ended, (rows, done)) = tokio::join!(work, read);
    ended.unwrap();
    let QueryDone { rows: told, completeness, lacks, .. } = done.unwrap();
    assert!(rows < EVENTS && told == rows as u64, "{rows} came, {told} are told");
    assert_eq!(completeness.unwrap().degraded, ["timed_out"]);
    assert!(lacks[0].what.starts_with("reader: "), "{lacks:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_of_an_export_that_nobody_reads_is_given_up() {
    let (_dir, operators) = operators();
    let (answers, _unread) = mpsc::channel(1);
    let caller = caller();
    let work = operators.data_export(&caller, export(true), &answers, CancellationToken::new());
    let fault = timeout(DEADLINE, work).await.unwrap().unwrap_err();
    assert!(fault.kind() == FaultKind::Timeout && fault.message.starts_with("reader: "), "{fault:?}");
    assert_eq!(operators.whole_store.available_permits(), 1);
}

#[tokio::test]
async fn a_backup_that_nobody_reads_lets_its_files_go() {
    let (_dir, operators) = operators();
    let backup = operators.store.begin_backup().unwrap();
    let (answers, _unread) = mpsc::channel(1);
    let out = Out { answers, wait: operators.reader_wait };
    let sent = tokio::task::spawn_blocking(move || send(&backup, &out));
    let sent = timeout(DEADLINE, sent).await.unwrap().unwrap();
    assert!(matches!(sent, Err(Cut::Ended(Ended::Stopped))), "{sent:?}");
}

#[tokio::test]
async fn a_check_whose_progress_nobody_reads_goes_on_to_its_end_and_gives_its_turn_back() {
    let (_dir, operators) = operators();
    let (answers, mut unread) = mpsc::channel(1);
    let mut work = pin!(operators.data_fsck(&answers, CancellationToken::new()));
    tokio::select! {
        biased;
        ended = &mut work => panic!("nobody has read how it ended: {ended:?}"),
        turn = timeout(DEADLINE, operators.whole_store.acquire()) => drop(turn.unwrap().unwrap()),
    }
    let read = async {
        let mut found = None;
        while found.is_none() {
            if let Some(Answer::Data(shown)) = unread.recv().await.unwrap().answer {
                found = Some(shown);
            }
        }
        found.unwrap()
    };
    let (ended, found) = tokio::join!(work, read);
    ended.unwrap();
    assert!(found.sound, "{found:?}");
}
