//! A store that was put back to an older copy, beside a ledger that went on.

use super::*;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("segments")).unwrap();
    fs::copy(from.join("state.redb"), to.join("state.redb")).unwrap();
    for file in fs::read_dir(from.join("segments")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join("segments").join(file.file_name())).unwrap();
    }
}

fn registers(ledger: &mut Ledger, committed: &str) {
    let payload = json!({ "collector": "procmond", "committed": committed }).to_string();
    ledger.entry("procmond", "registration", payload.as_bytes());
}

fn lasting(store: &Store, from: i64, until: i64) {
    let gap = CoverageGap {
        collector: "procmond".into(),
        reason: "kernel_lost".into(),
        from_us: T0 + from,
        to_us: T0 + until,
        count: Some(1),
        ..CoverageGap::default()
    };
    store.add_coverage(gap).unwrap();
}

/// A host whose store was copied when it had twenty events, went on to thirty-two, and was put back; it has gone on since.
fn restored(tells: bool) -> (tempfile::TempDir, tempfile::TempDir, Proven) {
    let (dir, mut ledger, records) = covered(4);
    let store = filled(dir.path(), records.get(..20).unwrap(), &[10]);
    store.seal().unwrap();
    raise(&store, records.get(3).unwrap(), "a");
    let alert = store.alerts(&Default::default()).unwrap().remove(0).id;
    lasting(&store, 0, 1_000_000);
    ledger.drain(&store);
    registers(&mut ledger, "1:20");
    drop(store);
    let back = tempfile::tempdir().unwrap();
    copy(dir.path(), back.path());
    // What comes behind the copy.
    let store = Store::open(options(dir.path())).unwrap();
    store.append(decode("procmond", records.get(20..32).unwrap()).unwrap()).unwrap();
    store.seal().unwrap();
    raise(&store, records.get(25).unwrap(), "b");
    store.set_alert_status(alert, AlertStatus::Closed, "operator:0", "").unwrap();
    lasting(&store, 2_000_000, 3_000_000);
    lasting(&store, 60_000_000, 61_000_000);
    ledger.drain(&store);
    registers(&mut ledger, "1:32");
    drop(store);
    // The log has what the store that is gone had not taken.
    let store = Store::open(options(back.path())).unwrap();
    registers(&mut ledger, "1:20");
    if tells {
        assert!(store.audit_heed(ledger.outbox_id).unwrap().is_some());
    }
    store.append(decode("procmond", records.get(32..).unwrap()).unwrap()).unwrap();
    store.seal().unwrap();
    lasting(&store, 4_000_000, 5_000_000);
    raise(&store, records.get(35).unwrap(), "c");
    ledger.drain(&store);
    let found = compare(&store, dir.path());
    (dir, back, found)
}

#[test]
fn what_came_behind_the_copy_that_a_store_was_put_back_to_is_told_apart_and_not_as_deleted() {
    let (_dir, _back, found) = restored(true);
    assert!(found.is_sound(), "{found:?}");
    let [of] = found.restored.as_slice() else { panic!("{found:?}") };
    // An alert, its status and two rows of coverage: the later one, and what became of the earlier one.
    assert_eq!((of.events, of.rows), (12, 3), "{found:?}");
    assert!(of.entry.is_some_and(|entry| of.since < entry), "{found:?}");
    assert_eq!((found.events, found.unproven, found.pending, found.overdue.len()), (27, 0, 0, 0), "{found:?}");
}

#[test]
fn a_store_that_lacks_what_it_had_without_a_word_of_a_copy_lacks_what_was_deleted() {
    let (_dir, _back, found) = restored(false);
    assert!(found.restored.is_empty() && found.problems.len() >= 3, "{found:?}");
}

/// A backup beside a ledger that went on: an alert and a row of coverage came behind it, another row grew, and the alert that it has
/// was closed. What it tells of that row waits in it still.
fn backup(change: impl FnOnce(&Path)) -> Proven {
    let (dir, mut ledger, records) = covered(4);
    let store = filled(dir.path(), &records, &[]);
    raise(&store, records.get(3).unwrap(), "a");
    let alert = store.alerts(&Default::default()).unwrap().remove(0).id;
    lasting(&store, 0, 1_000_000);
    ledger.drain(&store);
    store.seal().unwrap();
    drop(store);
    let back = tempfile::tempdir().unwrap();
    copy(dir.path(), back.path());
    let store = Store::open(options(dir.path())).unwrap();
    raise(&store, records.get(25).unwrap(), "b");
    store.set_alert_status(alert, AlertStatus::Closed, "operator:0", "").unwrap();
    lasting(&store, 2_000_000, 3_000_000);
    lasting(&store, 60_000_000, 61_000_000);
    ledger.drain(&store);
    drop(store);
    change(back.path());
    compare(&Store::open_offline(back.path()).unwrap(), dir.path())
}

#[derive(Debug)]
struct Alerts;

impl Named for Alerts {
    const NAME: &'static str = "daemoneye::alerts";
}

#[derive(Debug)]
struct Counter;

impl Named for Counter {
    const NAME: &'static str = "daemoneye::counter";
}

fn without_alerts(dir: &Path) {
    let database = redb::Database::open(dir.join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let alerts: TableDefinition<'_, u128, Raw<Alerts>> = TableDefinition::new("alerts");
    let index: TableDefinition<'_, (u8, i64, u128), ()> = TableDefinition::new("alerts_by_status");
    transaction.open_table(alerts).unwrap().retain(|_, _| false).unwrap();
    transaction.open_table(index).unwrap().retain(|_, ()| false).unwrap();
    transaction.commit().unwrap();
}

/// As if the copy were from before almost everything.
fn made_older(dir: &Path) {
    without_alerts(dir);
    let meta: TableDefinition<'_, &str, Raw<Counter>> = TableDefinition::new("meta");
    overwrite(dir, meta, "last_audit", &[1, 1]);
}

#[test]
fn what_came_behind_a_backup_is_told_as_later_and_what_it_had_as_deleted() {
    let found = backup(|_| {});
    assert!(found.is_sound(), "{found:?}");
    let [of] = found.restored.as_slice() else { panic!("{found:?}") };
    assert!(of.is_copy && of.entry.is_none() && of.since > 0, "{found:?}");
    assert_eq!((of.events, of.rows), (0, 3), "{found:?}");
    let found = backup(without_alerts);
    assert!(found.problems.len() == 1 && found.problems[0].what.contains("deleted"), "{found:?}");
    let found = backup(made_older);
    assert!(found.restored.is_empty() && found.problems.len() >= 3, "it has a row from behind: {found:?}");
}
