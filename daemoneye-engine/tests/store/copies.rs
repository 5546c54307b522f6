//! Copies of a directory that is in use, and what a check of one finds.

use std::fs;
use std::process::Command;

use daemoneye_engine::store::{AlertFilter, RuleText, Store};
use daemoneye_lib::model::AlertStatus;
use redb::{Database, ReadableTable as _, TableDefinition, WriteTransaction};

use super::damage::copy;
use super::events::{matches, open, rule, run};
use super::golden;
use super::raw::{Named, Raw};

#[test]
fn a_copy_whose_end_is_some_changes_newer_than_its_beginning_answers() {
    let (dir, copied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path());
    let state = dir.path().join("state.redb");
    let (mut all, mut closed) = (Vec::new(), 0);
    for step in 0..12 {
        all.extend(store.commit_matches(matches(&rule("r"), &run(1, step * 100 + 1..=step * 100 + 100))).unwrap());
        let beginning = fs::read(&state).unwrap()[..4_096].to_vec();
        for alert in all.iter().rev().take(30) {
            store.set_alert_status(alert.id, AlertStatus::Closed, "operator:alice", "known").unwrap();
        }
        let mut bytes = fs::read(&state).unwrap();
        bytes[..4_096].copy_from_slice(&beginning);
        fs::write(copied.path().join("state.redb"), bytes).unwrap();
        let copy = Store::open_offline(copied.path()).unwrap();
        let alerts = copy.alerts(&AlertFilter::default()).unwrap();
        assert_eq!(alerts.len(), all.len(), "as it was at the beginning of the copy");
        assert_eq!(alerts.iter().filter(|alert| alert.status == AlertStatus::Closed).count(), closed);
        closed += 30;
    }
}

/// What the real tables call their values.
#[derive(Debug)]
struct RuleValue;
#[derive(Debug)]
struct SegmentValue;
#[derive(Debug)]
struct LifetimeValue;

impl Named for RuleValue {
    const NAME: &'static str = "daemoneye::detection_rules";
}
impl Named for SegmentValue {
    const NAME: &'static str = "daemoneye::segments";
}
impl Named for LifetimeValue {
    const NAME: &'static str = "daemoneye::process_lifetimes_open";
}

const BY_KEY: TableDefinition<'_, (u128, i64), u128> = TableDefinition::new("alerts_by_key");
const RULES: TableDefinition<'_, u128, Raw<RuleValue>> = TableDefinition::new("detection_rules");
const SEGMENTS: TableDefinition<'_, (&str, i64, u64), Raw<SegmentValue>> = TableDefinition::new("segments");
const LIFETIMES: TableDefinition<'_, u128, Raw<LifetimeValue>> = TableDefinition::new("process_lifetimes_open");

type Change = fn(&WriteTransaction);

#[test]
fn a_check_follows_every_reference_both_ways() {
    let (dir, copied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path());
    let rules = store.set_rules(vec![rule("r"), rule("s")]).unwrap();
    let text = RuleText { rule: rules[0].id, version: rules[0].version, ..golden::text() };
    store.keep_rule_texts(std::iter::once(text), std::iter::empty()).unwrap();
    for (rule, numbers) in rules.iter().zip([1..=3, 4..=6]) {
        store.commit_matches(matches(rule, &run(1, numbers))).unwrap();
    }
    store.append(run(1, 1..=6)).unwrap();
    store.seal().unwrap();
    drop(store);
    let changes: [(&str, Change); 6] = [
        ("nothing", |_| {}),
        ("the index by key does not have it", |change| {
            change.open_table(BY_KEY).unwrap().retain(|_, _| false).unwrap();
        }),
        ("no alert has this key and time", |change| {
            let mut keys = change.open_table(BY_KEY).unwrap();
            let all: Vec<_> =
                keys.iter().unwrap().map(Result::unwrap).map(|(at, id)| (at.value(), id.value())).collect();
            for (to, from) in all.iter().zip(all.iter().rev()) {
                keys.insert(to.0, from.1).unwrap();
            }
        }),
        ("there is no such rule", |change| {
            change.open_table(RULES).unwrap().retain(|_, _| false).unwrap();
        }),
        ("is registered twice", |change| {
            let mut segments = change.open_table(SEGMENTS).unwrap();
            let ((table, first_us, id), row) = {
                let (at, row) = segments.first().unwrap().unwrap();
                let (table, first_us, id) = at.value();
                ((table.to_owned(), first_us, id), row.value().to_vec())
            };
            segments.insert((table.as_str(), first_us, id + 100), row.as_slice()).unwrap();
        }),
        ("it holds another process", |change| {
            let mut lifetimes = change.open_table(LIFETIMES).unwrap();
            let (entity, lifetime) = {
                let (entity, lifetime) = lifetimes.pop_first().unwrap().unwrap();
                (entity.value(), lifetime.value().to_vec())
            };
            lifetimes.insert(entity ^ 1, lifetime.as_slice()).unwrap();
        }),
    ];
    for (wanted, change) in changes {
        let to = copied.path().join(wanted.replace(' ', "-"));
        copy(dir.path(), &to);
        let db = Database::open(to.join("state.redb")).unwrap();
        let transaction = db.begin_write().unwrap();
        change(&transaction);
        transaction.commit().unwrap();
        drop(db);
        let found = Store::open_offline(&to).unwrap().fsck(&mut |_, _| true).unwrap();
        let told = found.problems.iter().any(|problem| problem.what.contains(wanted));
        assert!(told || (wanted == "nothing" && found.is_sound()), "{wanted}: {found:?}");
    }
}

#[test]
fn a_check_of_a_backup_says_when_its_manifest_is_none() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append(run(1, 1..=3)).unwrap();
    let manifest = dir.path().join("backup-manifest.json");
    let problems = || Store::open_offline(dir.path()).unwrap().fsck(&mut |_, _| true).unwrap().problems;
    assert!(problems().is_empty());
    fs::write(&manifest, b"{\"files\": [\xff]}").unwrap();
    assert!(problems()[0].what.contains("it cannot be read"), "{:?}", problems());
    fs::write(&manifest, b"{\"files\": []}").unwrap();
    assert!(problems()[0].what.contains("no list of files with state.redb"), "{:?}", problems());
    fs::remove_file(&manifest).unwrap();
    assert!(Command::new("mkfifo").arg(&manifest).status().unwrap().success());
    assert!(problems()[0].what.contains("no regular file"), "{:?}", problems());
}
