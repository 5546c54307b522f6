//! What belongs to rules beside their SQL: lists, overrides, exceptions, packs and states.

use std::fs;
use std::path::{Path, PathBuf};

use daemoneye_engine::detect::rules::{self, Checked, Lists, Loaded};
use daemoneye_engine::detect::{Exceptions, LoadedRule, RuleSet, explain};
use daemoneye_engine::ingest::{EventBatch, batch_from_json};
use daemoneye_engine::store::{AlertFilter, Store, StoreOptions};
use daemoneye_lib::model::{AlertStatus, Completeness, Degraded, RuleState, Severity};
use daemoneye_lib::proto::Sequence;
use serde_json::{Map, Value, json};

const ID: &str = "7e8a0a3e-2f5d-4c6e-9d0f-1a2b3c4d5e6f";
/// 2026-01-31T12:00:00Z.
const NOON_US: i64 = 1_769_860_800_000_000;

struct Dirs {
    dir: tempfile::TempDir,
}

impl Dirs {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["vendor", "local"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self) -> Loaded {
        rules::load_dirs(&["vendor", "local"].map(|name| self.dir.path().join(name)))
    }

    /// Nothing is wrong, and there is one rule.
    fn rule(&self) -> LoadedRule {
        let mut loaded = self.load();
        assert!(loaded.problems.is_empty(), "{:#?}", loaded.problems);
        assert_eq!(loaded.rules.len(), 1);
        loaded.rules.remove(0)
    }

    fn problems(&self) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        self.load().problems.iter().map(|problem| problem.to_string().replace(&dir, "")).collect()
    }
}

fn rule(condition: &str) -> String {
    format!("id: {ID}\nname: a rule\nseverity: low\nsql: SELECT pid, name FROM process_events WHERE {condition}\n")
}

fn batch(rows: &[Value]) -> EventBatch {
    let mut rows: Vec<Map<String, Value>> = rows.iter().map(|row| row.as_object().unwrap().clone()).collect();
    for (number, row) in (1..).zip(&mut rows) {
        row.entry("time").or_insert(json!(NOON_US));
        row.entry("entity_id").or_insert(json!(format!("{number:032x}")));
        row.entry("collector").or_insert("test".into());
        row.entry("epoch").or_insert(1.into());
        row.entry("seq").or_insert(number.into());
    }
    let at = |number| Sequence { epoch: 1, number };
    let batch = batch_from_json(&rows).unwrap();
    let last = u64::try_from(rows.len()).unwrap();
    EventBatch { batch, collector: "test".into(), first: at(1), last: at(last), gaps: Vec::new(), live: Vec::new() }
}

fn found(rule: LoadedRule, events: &EventBatch) -> Vec<Value> {
    let (set, refused) = RuleSet::compile(vec![rule]);
    assert!(refused.is_empty());
    set.evaluate(events, &Completeness::complete()).iter().map(|found| found.output()["name"].clone()).collect()
}

fn three() -> EventBatch {
    batch(&[json!({"name": "nginx", "pid": 1}), json!({"name": "bash", "pid": 2}), json!({"pid": 3})])
}

#[test]
fn a_rule_names_a_list_and_its_values_decide() {
    let dirs = Dirs::new();
    dirs.write("vendor/r.yaml", &rule("name IN (list('web_servers'), 'caddy')"));
    dirs.write("vendor/lists/web.yaml", "list: web_servers\ndescription: serve HTTP\nvalues: [nginx, httpd, nginx]\n");
    let first = dirs.rule();
    assert!(first.lists.named("web_servers").is_some());
    let (sql, hash) = (first.rule.sql.clone(), first.rule.hash.clone());
    assert!(sql.contains("list('web_servers')"), "{sql}");
    assert_eq!(found(first, &three()), ["nginx"]);

    dirs.write("vendor/lists/web.yaml", "list: web_servers\nvalues: [bash]\n");
    let changed = dirs.rule();
    assert_ne!(changed.rule.hash, hash, "another list is another version of the rule");
    assert_eq!(found(changed, &three()), ["bash"]);

    dirs.write("vendor/r.yaml", &rule("pid IN (list('numbers'))"));
    dirs.write("vendor/lists/web.yaml", "list: numbers\nvalues: [2, 3]\n");
    assert_eq!(found(dirs.rule(), &three()), [json!("bash"), Value::Null]);
}

#[test]
fn nothing_is_in_an_empty_list_and_everything_is_not_in_it() {
    let dirs = Dirs::new();
    dirs.write("vendor/l.yaml", "list: none\nvalues: []\n");
    dirs.write("vendor/r.yaml", &rule("name IN (list('none'))"));
    let rule_in = dirs.rule();
    assert!(found(rule_in, &three()).is_empty());
    dirs.write("vendor/r.yaml", &rule("name NOT IN (list('none'))"));
    assert_eq!(found(dirs.rule(), &three()).len(), 3, "also where the name is NULL");
    dirs.write("vendor/r.yaml", &rule("nmae IN (list('none'))"));
    assert!(dirs.problems()[0].contains("no column nmae"), "its other side is looked at all the same");
}

#[test]
fn a_local_list_replaces_a_vendors_or_extends_it() {
    let dirs = Dirs::new();
    dirs.write("vendor/r.yaml", &rule("name IN (list('web_servers'))"));
    dirs.write("vendor/l.yaml", "list: web_servers\nvalues: [nginx]\n");
    dirs.write("local/l.yaml", "list: web_servers\nextends: true\nvalues: [bash, nginx]\n");
    assert_eq!(found(dirs.rule(), &three()), ["nginx", "bash"]);
    let loaded = dirs.load();
    let list = loaded.lists.named("web_servers").unwrap();
    assert_eq!((list.json().as_str(), list.file_names().as_str()), ("[\"nginx\",\"bash\"]", "l.yaml,l.yaml"));
    dirs.write("local/l.yaml", "list: web_servers\nvalues: [bash]\n");
    assert_eq!(found(dirs.rule(), &three()), ["bash"]);
}

#[test]
fn what_is_wrong_with_lists_is_told_with_its_place() {
    let dirs = Dirs::new();
    dirs.write("vendor/r.yaml", &rule("name IN (list('web_srvers'))"));
    dirs.write("vendor/a.yaml", "list: web_servers\nvalues: [nginx]\n");
    dirs.write("vendor/b.yaml", "list: web_servers\nvalues: [nginx]\n");
    dirs.write("vendor/c.yaml", "list: Web\nvalues: [1.5, [x]]\nvaleus: 1\n");
    dirs.write("vendor/d.yaml", "list: web_server\nextends: true\nvalues: [x]\n");
    let problems = dirs.problems();
    for expected in [
        "vendor/b.yaml:1:7: the list web_servers also stands in vendor/a.yaml",
        "vendor/c.yaml:1:7: Web is no name of a list",
        "vendor/c.yaml:2:10: a value is text or a whole number, and this is a number",
        "vendor/c.yaml:2:15: a value is text or a whole number, and this is a list",
        "vendor/c.yaml:3:1: a list has no field valeus (did you mean values?)",
        "vendor/d.yaml:1:7: there is no list web_server to extend (did you mean web_servers?)",
        "vendor/r.yaml:4:58: there is no list web_srvers (did you mean web_servers?)",
    ] {
        let told = problems.iter().any(|problem| problem.starts_with(expected) || problem.contains(expected));
        assert!(told, "{expected} in {problems:#?}");
    }
    for (sql, message) in [
        ("list('a') = name", "a list stands inside IN (…) only"),
        ("name IN (list(name))", "a list is named by one text"),
        ("pid IN (list('web_servers'))", "an integer cannot be compared with text"),
    ] {
        dirs.write("vendor/r.yaml", &rule(sql));
        assert!(
            dirs.problems().iter().any(|problem| problem.contains(message)),
            "{message} in {:#?}",
            dirs.problems()
        );
    }
}

/// As many SHA-256 as `count`.
fn hashes(count: u32) -> String {
    (0..count).map(|number| format!("  - '{}'\n", blake3::hash(&number.to_le_bytes()).to_hex())).collect()
}

#[test]
fn a_rule_that_names_thousands_of_values_is_explained_overridden_and_exported_as_any_other() {
    let dirs = Dirs::new();
    let list = |count| format!("list: bad\ndescription: known\nvalues:\n{}", hashes(count));
    dirs.write("vendor/bad.yaml", &list(3_000));
    dirs.write("vendor/bad2.yaml", &format!("list: bad\nextends: true\nvalues:\n{}  - x\n", hashes(3_500)));
    let condition = "executable_hash IN (list('bad'))";
    dirs.write("vendor/r.yaml", &rule(condition));
    let plain = dirs.rule();
    let bad = blake3::hash(&7_u32.to_le_bytes()).to_hex().to_string();
    let events =
        batch(&[json!({"executable_hash": bad, "name": "a"}), json!({"executable_hash": "good", "name": "b"})]);
    assert_eq!(found(plain.clone(), &events), ["a"]);
    for (row, matches) in [(0, true), (1, false)] {
        let said = explain(&plain, &events.batch, row).unwrap();
        assert_eq!(said.matches, Some(matches));
        assert!(said.condition.is_some_and(|part| part.sql.len() < 8_192), "a page and no more");
    }

    let counted = format!("SELECT user, count(*) AS n FROM process_events WHERE {condition} GROUP BY user");
    dirs.write("vendor/r.yaml", &format!("id: {ID}\nname: a rule\nseverity: low\nwindow: 1m\nsql: {counted}\n"));
    dirs.write("local/o.yaml", &format!("override: {ID}\nwindow: 5m\ndedup: [n]\n"));
    assert_eq!((dirs.rule().rule.dedup_window_s, dirs.rule().rule.dedup.clone()), (300, vec!["n".to_owned()]));

    let exported = Dirs::new();
    dirs.write("vendor/r.yaml", &rule(condition));
    fs::remove_file(dirs.dir.path().join("local/o.yaml")).unwrap();
    let loaded = dirs.load();
    let lists = rules::lists_to_yaml(&loaded.lists);
    assert!(lists.len() > 1 && lists.iter().all(|(_, text)| text.len() < 256 * 1024), "{}", lists.len());
    for (name, text) in lists {
        exported.write(&format!("vendor/lists/{name}"), &text);
    }
    exported.write("vendor/r.yaml", &rules::to_yaml(&loaded.rules[0]));
    let again = exported.load();
    assert!(again.problems.is_empty(), "{:?}", again.problems);
    let items = |loaded: &Loaded| loaded.lists.named("bad").unwrap().json();
    assert_eq!(items(&again), items(&loaded));
    assert_eq!(found(again.rules[0].clone(), &events), ["a"]);
}

#[test]
fn exported_exceptions_hide_the_same_on_another_host() {
    let dirs = Dirs::new();
    dirs.write("vendor/r.yaml", &rule("name IS NOT NULL"));
    let one = |at: usize, expires: &str| {
        format!("  - where: \"name = 'b{at}' -- #\\n\"\n    owner: ops\n    reason: 'a: b'\n    expires: {expires}\n")
    };
    let many: String = (0..256).map(|at| one(at, "never")).collect();
    dirs.write("local/a.yaml", &format!("override: {ID}\nseverity: high\nexceptions:\n{many}"));
    dirs.write("local/b.yaml", &format!("override: {ID}\nexceptions:\n{}", one(256, "2027-01-31T12:00:00.000001Z")));
    let before = dirs.rule();
    assert_eq!(before.exceptions.len(), 257);

    let exported = Dirs::new();
    let files = rules::exceptions_to_yaml(&before);
    assert_eq!(files.len(), 2, "a file holds 256");
    for (name, text) in files {
        exported.write(&format!("vendor/exceptions/{name}"), &text);
    }
    exported.write("vendor/r.yaml", &rules::to_yaml(&before));
    let after = exported.rule();
    let told = |rule: &LoadedRule| -> Vec<_> {
        let all = rule.exceptions.iter();
        all.map(|one| (one.id, one.owner.clone(), one.reason.clone(), one.expires_us)).collect()
    };
    assert!(told(&after) == told(&before), "the same in the same order");
    assert_eq!(after.rule.severity, before.rule.severity);
}

#[test]
fn a_list_stays_as_it_was_while_one_of_its_files_is_broken() {
    let dirs = Dirs::new();
    dirs.write("vendor/r.yaml", &rule("name IN (list('web_servers'))"));
    dirs.write("vendor/l.yaml", "list: web_servers\nvalues: [nginx]\n");
    dirs.write("local/l.yaml", "list: web_servers\nextends: true\nvalues: [bash]\n");
    let before = dirs.load();
    let again = || {
        let both = ["vendor", "local"].map(|name| dirs.dir.path().join(name));
        rules::load_dirs_over(&both, &[], &before.lists)
    };
    for broken in ["list: web_servers\nextends: true\nvalues: bash\n", "list: [\n"] {
        dirs.write("local/l.yaml", broken);
        let now = again();
        assert_eq!(now.problems.len(), 1, "{:?}", now.problems);
        assert_eq!(now.rules[0].rule.hash, before.rules[0].rule.hash, "no new version");
        assert_eq!(found(now.rules[0].clone(), &three()), ["nginx", "bash"]);
    }
    fs::remove_file(dirs.dir.path().join("local/l.yaml")).unwrap();
    assert_eq!(found(again().rules[0].clone(), &three()), ["nginx"]);
}

#[test]
fn an_override_changes_a_vendors_rule_and_not_its_file() {
    let dirs = Dirs::new();
    dirs.write("vendor/r.yaml", &rule("name = 'bash'"));
    let plain = dirs.rule().rule;
    let path = dirs.write("local/o.yaml", &format!("override: {ID}\nseverity: high\ndedup: [uid]\nwindow: 60\n"));
    let changed = dirs.rule();
    assert_eq!((changed.rule.severity, changed.rule.dedup_window_s), (Severity::High, 60));
    assert_eq!((changed.rule.dedup.as_slice(), changed.rule.file.as_str()), (["uid".to_owned()].as_slice(), "r.yaml"));
    assert_ne!(changed.rule.hash, plain.hash, "its alerts name what decided them");
    assert_eq!((&changed.overrides[0].path, changed.override_names().as_str()), (&path, "o.yaml"));
    for (word, state) in [
        ("enabled: false", RuleState::Disabled),
        ("state: draft", RuleState::Draft),
        ("state: disabled", RuleState::Disabled),
        ("enabled: true", RuleState::Active),
    ] {
        dirs.write("local/o.yaml", &format!("override: {ID}\n{word}\n"));
        let rule = dirs.rule().rule;
        assert_eq!((rule.state, rule.hash.as_str()), (state, plain.hash.as_str()), "{word}");
    }
}

#[test]
fn what_is_wrong_with_an_override_is_told_with_its_place() {
    let dirs = Dirs::new();
    dirs.write("vendor/r.yaml", &rule("name = 'bash'"));
    dirs.write("local/a.yaml", &format!("override: {}\nenabled: false\n", ID.replace("5e6f", "5e6e")));
    let text = format!(
        "override: {ID}\nseverty: low\nstate: actve\nexceptions:\n  - where: |\n      pid = 4\n      AND nmae = 'x'\n    owner: alice\n    \
         reason: known\n    expires: soon\n  - where: pid = 'x'\n    reason: known\n"
    );
    dirs.write("local/b.yaml", &text);
    let problems = dirs.problems();
    for expected in [
        "local/a.yaml:1:11: no rule that is loaded has the id 7e8a0a3e-2f5d-4c6e-9d0f-1a2b3c4d5e6e (did you mean 7e8a0a3e",
        "local/b.yaml:2:1: an override has no field severty (did you mean severity?)",
        "local/b.yaml:3:8: there is no state actve",
        "local/b.yaml:7:11: process_events has no column nmae (did you mean name?)",
        "local/b.yaml:10:14: soon is not a time (write 2027-01-31, 2027-01-31T12:00:00Z or never)",
        "local/b.yaml:11:12: an integer cannot be compared with text",
        "local/b.yaml:11:5: the field owner is missing",
        "local/b.yaml:11:5: the field expires is missing",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected} in {problems:#?}");
    }
    let rule = dirs.load().rules.remove(0);
    assert!(rule.exceptions.is_empty() && rule.rule.state == RuleState::Active);
}

fn exception(expires: &str) -> String {
    format!(
        "override: {ID}\nexceptions:\n  - where: name = 'nginx' OR pid IN (list('known'))\n    owner: alice\n    reason: it does that\n    \
         expires: {expires}\n"
    )
}

#[test]
fn two_exceptions_with_one_condition_in_one_directory_are_refused_with_both_places() {
    let dirs = Dirs::new();
    dirs.write("vendor/r.yaml", &rule("pid > 0"));
    let one = |condition: &str, owner: &str, expires: &str| {
        format!("  - where: {condition}\n    owner: {owner}\n    reason: known\n    expires: {expires}\n")
    };
    let (first, second) = (one("name = 'nginx'", "alice", "2099-02-01"), one("name = 'nginx'", "bob", "never"));
    let head = format!("override: {ID}\nexceptions:\n");
    let path = dirs.write("local/a.yaml", &format!("{head}{first}{}{second}", one("pid = 7", "alice", "never")));
    let twice = "the exception in line 11 has the condition of the one in local/a.yaml:3 (keep one of them";
    let problems = dirs.problems();
    assert!(problems.len() == 1 && problems[0].starts_with(&format!("local/a.yaml:11:5: {twice}")), "{problems:#?}");
    let told = rules::check_file(&path, &fs::read_to_string(&path).unwrap(), &Lists::default()).unwrap_err();
    assert_eq!((told.len(), told[0].line, told[0].column), (1, 11, 5), "validate says the same");

    dirs.write("local/a.yaml", &format!("{head}{first}"));
    dirs.write("local/b.yaml", &format!("{head}{second}{}", one("pid = 8", "bob", "never")));
    let problems = dirs.problems();
    let twice = "local/b.yaml:3:5: the exception in line 3 has the condition of the one in local/a.yaml:3";
    assert!(problems.len() == 1 && problems[0].starts_with(twice), "{problems:#?}");
    let loaded = dirs.load();
    let owners = |loaded: &Loaded| -> Vec<String> {
        loaded.rules[0].exceptions.iter().map(|exception| exception.owner.clone()).collect()
    };
    assert_eq!(owners(&loaded), ["alice"], "a file that is refused changes nothing");
    let read = |name: &str| fs::read_to_string(dirs.dir.path().join(name)).unwrap();
    let (a, b) = (read("local/a.yaml"), read("local/b.yaml"));
    let before = [(Path::new("local/a.yaml"), a.as_str())];
    let check = |before: &[(&Path, &str)]| {
        rules::check_file_after(Path::new("local/b.yaml"), &b, &Lists::default(), before.iter().copied(), None)
    };
    assert_eq!(check(&before).unwrap_err()[0].line, 3);
    assert!(matches!(check(&[]), Ok(Checked::Override(_))));

    // Another directory may say it anew, as it may anything else; its owner and expiry count, once.
    fs::remove_file(dirs.dir.path().join("local/a.yaml")).unwrap();
    dirs.write("vendor/o.yaml", &format!("{head}{first}"));
    let rule = dirs.rule();
    assert_eq!(owners(&dirs.load()), ["bob", "bob"]);
    let exceptions = Exceptions::of(std::slice::from_ref(&rule));
    let (set, _) = RuleSet::compile(vec![rule]);
    let judged = exceptions.judge(set.evaluate(&three(), &Completeness::complete()));
    let store = Store::open(StoreOptions::new(dirs.dir.path().join("data"))).unwrap();
    store.commit_hidden(&judged.hidden).unwrap();
    assert_eq!(store.hidden().unwrap().iter().map(|count| count.matches).collect::<Vec<_>>(), [1]);
}

#[test]
fn what_an_exception_hides_is_no_alert_and_stays_queryable_with_its_hits() {
    let dirs = Dirs::new();
    dirs.write("vendor/r.yaml", &rule("pid > 0"));
    dirs.write("local/l.yaml", "list: known\nvalues: [3]\n");
    dirs.write("local/o.yaml", &exception("2026-02-01"));
    let loaded = vec![dirs.rule()];
    let exceptions = Exceptions::of(&loaded);
    let (set, _) = RuleSet::compile(loaded);
    let judge = |events: &EventBatch| exceptions.judge(set.evaluate(events, &Completeness::complete()));
    let store = Store::open(StoreOptions::new(dirs.dir.path().join("data"))).unwrap();

    let judged = judge(&three());
    assert_eq!((judged.shown.len(), judged.hidden.len()), (1, 2));
    for _replay in 0..2 {
        store.commit_hidden(&judged.hidden).unwrap();
        store.commit_matches(judged.shown.clone()).unwrap();
    }
    let suppressed = AlertFilter { statuses: vec![AlertStatus::Suppressed], ..AlertFilter::default() };
    let hidden = store.alerts(&suppressed).unwrap();
    assert_eq!(hidden.len(), 2);
    let exception = exceptions.iter().next().unwrap();
    assert!(hidden.iter().all(|alert| alert.suppressed_by == Some(exception.id)), "{hidden:#?}");
    assert_eq!(store.alerts(&AlertFilter::default()).unwrap().len(), 3);
    let counts = store.hidden().unwrap();
    assert_eq!((counts[0].exception, counts[0].matches, counts[0].last_us), (exception.id, 2, NOON_US));

    // It ends by the time of the event, so that a replay decides the same.
    let late = batch(&[json!({"name": "nginx", "pid": 1, "time": "2026-02-01T00:00:00Z"})]);
    let judged = judge(&late);
    assert_eq!((judged.shown.len(), judged.hidden.len()), (1, 0));
    assert!(exception.is_expired(NOON_US + 86_400_000_000) && !exception.is_expired(NOON_US));
    assert_eq!(store.commit_matches(judged.shown).unwrap().len(), 1, "what was hidden before stands in nobody's way");
}

#[test]
fn an_exception_that_hides_everything_is_limited_as_alerts_are_and_takes_no_room_from_them() {
    let dirs = Dirs::new();
    dirs.write("vendor/r.yaml", &rule("pid > 0"));
    dirs.write("local/o.yaml", &exception("never").replace("name = 'nginx' OR pid IN (list('known'))", "pid < 100"));
    let loaded = vec![dirs.rule()];
    let exceptions = Exceptions::of(&loaded);
    let (set, _) = RuleSet::compile(loaded);
    let rows: Vec<Value> = (1..=120).map(|pid| json!({"pid": pid})).collect();
    let judged = exceptions.judge(set.evaluate(&batch(&rows), &Completeness::complete()));
    let options = StoreOptions { rate_per_rule: 25, ..StoreOptions::new(dirs.dir.path().join("data")) };
    let store = Store::open(options).unwrap();
    store.commit_hidden(&judged.hidden).unwrap();
    assert_eq!(store.hidden().unwrap()[0].matches, 99);
    let suppressed = AlertFilter { statuses: vec![AlertStatus::Suppressed], ..AlertFilter::default() };
    assert_eq!(store.alerts(&suppressed).unwrap().len(), 26, "25 and the summary of the rest");
    let alerts = store.commit_matches(judged.shown).unwrap();
    assert_eq!((judged.hidden.len(), alerts.len()), (99, 21));
    let with = store.deliveries().unwrap();
    assert!(with.iter().all(|delivery| alerts.iter().any(|alert| alert.id == delivery.alert_id)), "nobody is told");
}

#[test]
fn a_draft_is_evaluated_and_counted_and_never_alerts() {
    let dirs = Dirs::new();
    dirs.write("vendor/r.yaml", &format!("{}state: draft\n", rule("pid > 1")));
    let loaded = vec![dirs.rule()];
    let exceptions = Exceptions::of(&loaded);
    let (set, _) = RuleSet::compile(loaded);
    let judged = exceptions.judge(set.evaluate(&three(), &Completeness::complete()));
    assert!(judged.shown.is_empty() && judged.hidden.is_empty());
    assert_eq!((set.stats()[0].evaluations, set.stats()[0].matches), (1, 2));
    dirs.write("vendor/r.yaml", &format!("{}state: draft\nenabled: true\n", rule("pid > 1")));
    assert!(dirs.problems()[0].contains("enabled and state say the same twice"));
}

#[test]
fn a_manifest_names_the_pack_of_its_directory_and_those_below() {
    let dirs = Dirs::new();
    dirs.write("vendor/linux/pack.yaml", "pack: linux-base\nversion: 1.2.0\ndescription: Linux hosts\n");
    dirs.write("vendor/linux/deep/r.yaml", &rule("pid > 1"));
    assert_eq!(dirs.rule().rule.pack, "linux-base");
    let loaded = dirs.load();
    assert_eq!((loaded.packs[0].name.as_str(), loaded.packs[0].version.as_str()), ("linux-base", "1.2.0"));
    dirs.write("vendor/linux/pack.yaml", "pack: linux-base\nversion: 1.2\n");
    dirs.write("vendor/linux/pack2.yaml", "pack: other\nversion: '1'\n");
    let problems = dirs.problems();
    assert!(problems[0].starts_with("vendor/linux/pack.yaml:2:10: version is text"), "{problems:#?}");
}

#[test]
fn each_kind_of_file_is_known_by_its_fields() {
    let check = |text: &str| rules::check_file(Path::new("x.yaml"), text, &Lists::default());
    assert!(matches!(check("list: a\nvalues: []\n"), Ok(Checked::List(name)) if name == "a"));
    assert!(matches!(check(&format!("override: {ID}\n")), Ok(Checked::Override(id)) if id.to_string() == ID));
    assert!(matches!(check("pack: p\nversion: '1'\n"), Ok(Checked::Pack(name)) if name == "p"));
    assert!(matches!(check(&rule("pid > 1")), Ok(Checked::Rule(_))));
    let told = check(&format!("{}list: a\n", rule("pid > 1"))).unwrap_err();
    assert!(told[0].message.contains("a rule has no field list"), "{told:#?}");
}

const COUNTED: &str =
    "SELECT user, count(*) AS n FROM process_events WHERE name = 'ssh' GROUP BY user HAVING count(*) >= 2";

fn counted() -> String {
    format!("id: {ID}\nname: a rule\nseverity: low\nwindow: 1m\nsql: {COUNTED}\n")
}

/// An event `at` seconds after noon.
fn ssh(at: i64, cwd: &str) -> Value {
    json!({"time": NOON_US + at * 1_000_000, "event_type": "start", "name": "ssh", "user": "root", "pid": at, "cwd": cwd,
        "collector": "test", "epoch": 1, "seq": at + 1, "entity_id": format!("{at:032x}")})
}

#[test]
fn an_exception_of_a_window_rule_sees_what_the_rule_itself_does_not_read() {
    let dirs = Dirs::new();
    dirs.write("vendor/rule.yaml", &counted());
    let plain = RuleSet::compile(vec![dirs.rule()]).0;
    dirs.write(
        "local/known.yaml",
        &format!("override: {ID}\nexceptions:\n  - {{where: cwd = '/srv/backup', owner: alice, reason: known, expires: never}}\n"),
    );
    let rule = dirs.rule();
    let (exceptions, set) = (Exceptions::of(std::slice::from_ref(&rule)), RuleSet::compile(vec![rule.clone()]).0);
    let judged = |events: &[Value]| {
        let judged = exceptions.judge(set.evaluate(&batch(events), &Completeness::complete()));
        (judged.shown.len(), judged.hidden.len())
    };
    assert_eq!(judged(&[ssh(0, "/srv/backup"), ssh(1, "/srv/backup")]), (0, 1));
    assert_eq!(judged(&[ssh(2, "/home/mallory")]), (1, 0));

    let _found = plain.evaluate(&batch(&[ssh(0, "/srv/backup")]), &Completeness::complete());
    let (excepted, alike) = (RuleSet::compile(vec![rule.clone()]).0, RuleSet::compile(vec![rule]).0);
    excepted.continue_counters_of(&plain);
    assert!(excepted.lacks_past(), "the rows that were kept lack cwd");
    alike.continue_counters_of(&set);
    assert!(!alike.lacks_past());
}

#[test]
fn an_override_of_the_window_or_of_dedup_plans_a_window_rule_anew() {
    let dirs = Dirs::new();
    dirs.write("vendor/rule.yaml", &counted());
    let found = |events: &[Value]| {
        let set = RuleSet::compile(vec![dirs.rule()]).0;
        set.evaluate(&batch(events), &Completeness::complete())
    };
    let apart = [ssh(0, "/"), ssh(600, "/")];
    assert!(found(&apart).is_empty());
    dirs.write("local/longer.yaml", &format!("override: {ID}\nwindow: 1h\ndedup: [user, n]\n"));
    assert_eq!(found(&apart).len(), 1);
    assert_eq!(dirs.rule().rule.dedup, ["user", "n"]);
    dirs.write("local/longer.yaml", &format!("override: {ID}\nwindow: 1h\ndedup: [cwd]\n"));
    let found = found(&apart);
    let event = daemoneye_engine::ingest::row_to_json(&found[0].batch, found[0].row);
    assert_eq!(event["cwd"], "/", "what tells alerts apart is kept");
    dirs.write("local/longer.yaml", &format!("override: {ID}\ndedup: [nobody]\n"));
    assert_eq!(dirs.problems().len(), 1);
    assert!(
        dirs.problems()[0].contains("longer.yaml:2:8: process_events has no column nobody"),
        "{:?}",
        dirs.problems()
    );
    dirs.write("local/longer.yaml", &format!("override: {ID}\ndedup: []\n"));
    assert_eq!(dirs.rule().rule.dedup, ["user"], "what it groups by");
}

#[test]
fn an_alert_of_an_event_that_came_late_says_so() {
    let dirs = Dirs::new();
    dirs.write("vendor/rule.yaml", &rule("name = 'ssh'"));
    let set = RuleSet::compile(vec![dirs.rule()]).0;
    let found =
        set.evaluate(&batch(&[ssh(0, "/"), ssh(60, "/"), ssh(56, "/"), ssh(50, "/")]), &Completeness::complete());
    let late: Vec<bool> = found.iter().map(|found| found.completeness.degraded.contains(&Degraded::Late)).collect();
    assert_eq!(late, [false, false, false, true]);
    let found = set.evaluate(&batch(&[ssh(40, "/")]), &Completeness::complete());
    assert_eq!(found[0].completeness.degraded, [Degraded::Late]);
}

#[test]
fn a_rule_is_tried_out_under_what_overrides_the_loaded_one() {
    let dirs = Dirs::new();
    dirs.write("vendor/r.yaml", &rule("pid > 0"));
    dirs.write("local/l.yaml", "list: known\nvalues: [3]\n");
    dirs.write("local/o.yaml", &(exception("never") + "dedup: [pid]\nseverity: high\n"));
    let loaded = dirs.rule();
    let file = rules::parse(Path::new("r.yaml"), &(rule("pid > 1") + "window: 7\n")).unwrap();
    let tried = file.overridden_as(&loaded, &loaded.source, &Lists::default());
    assert_eq!((tried.exceptions.len(), tried.rule.severity), (1, Severity::High));
    assert_eq!(tried.rule.dedup, ["pid"]);
    assert_eq!(tried.rule.dedup_window_s, 7, "what no override sets is the file's own");
    assert!(tried.rule.sql.ends_with("pid > 1"));
}
