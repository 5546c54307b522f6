//! The rules in force: loaded from their directories, versioned by the store, compiled into one set that is swapped as a
//! whole.
//!
//! A file that does not load rejects that file only; the version of its rule that ran before goes on running. Nothing here
//! ever leaves the agent without rules because of a typing error.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use daemoneye_engine::detect::rules::{Lists, Pack};
use daemoneye_engine::detect::{Exception, Exceptions, GRACE_US, Judged, LoadedRule, Refusal, RuleSet, rules};
use daemoneye_engine::ingest::EventBatch;
use daemoneye_engine::store::{RuleMatch, Store, StoreError};
use daemoneye_lib::model::{Completeness, Degraded, DetectionRule, RuleState};
use uuid::Uuid;

use super::rule_marks::Told;
use crate::clock;

/// Where vendor and local rules lie when the settings name no directory.
const INSTALLED: &[&str] = &["/usr/share/daemoneye/rules", "/etc/daemoneye/rules.d"];

/// What a reload did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reloaded {
    pub(crate) loaded: usize,
    pub(crate) added: Vec<String>,
    pub(crate) changed: Vec<String>,
    pub(crate) removed: Vec<String>,
    /// Exceptions that are new or read otherwise than before.
    pub(crate) exceptions: Vec<Arc<Exception>>,
    /// Ids of exceptions that are gone.
    pub(crate) exceptions_gone: Vec<Uuid>,
    pub(crate) problems: Vec<Refusal>,
}

impl Reloaded {
    /// Whether anything differs from before.
    pub(crate) fn is_change(&self) -> bool {
        !(self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()) || self.changes_exceptions()
    }

    /// Whether what rules do not mean differs.
    pub(crate) fn changes_exceptions(&self) -> bool {
        !(self.exceptions.is_empty() && self.exceptions_gone.is_empty())
    }
}

/// What decides about events, swapped as a whole: no batch meets the rules of one load and the exceptions of another.
#[derive(Default)]
pub(crate) struct InForce {
    set: Arc<RuleSet>,
    exceptions: Exceptions,
}

impl InForce {
    /// The compiled rules.
    pub(crate) const fn set(&self) -> &Arc<RuleSet> {
        &self.set
    }

    /// What they do not mean.
    pub(crate) const fn exceptions(&self) -> &Exceptions {
        &self.exceptions
    }
}

/// What was read, beside what is in force.
#[derive(Default)]
struct Loaded {
    rules: Vec<LoadedRule>,
    lists: Lists,
    packs: Vec<Pack>,
    problems: Vec<Refusal>,
    fingerprint: u64,
}

/// The rules in force.
pub(crate) struct Rules {
    dirs: Vec<PathBuf>,
    in_force: RwLock<Arc<InForce>>,
    loaded: Mutex<Loaded>,
    /// The rules that read a column that no collector fills.
    blind: RwLock<BTreeSet<Uuid>>,
    /// What was told of slow rules and ended exceptions.
    pub(super) told: Told,
    /// Held while a batch is judged and enters the store, and while a set gets the last of it from there and takes over.
    turn: Mutex<()>,
}

impl Rules {
    /// No rules yet; directories from the settings, else the installed ones that exist.
    pub(crate) fn new(configured: &[PathBuf]) -> Self {
        let dirs = if configured.is_empty() {
            INSTALLED.iter().map(PathBuf::from).filter(|dir| dir.is_dir()).collect()
        } else {
            configured.to_vec()
        };
        Self {
            dirs,
            in_force: RwLock::default(),
            loaded: Mutex::default(),
            blind: RwLock::default(),
            told: Told::default(),
            turn: Mutex::default(),
        }
    }

    /// Where rules are read from.
    pub(crate) fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// What is in force.
    pub(crate) fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is found in a batch; no event is younger than `now_us`.
    pub(crate) fn judge(&self, batch: &EventBatch, completeness: &Completeness, now_us: i64) -> Judged {
        let in_force = self.in_force();
        in_force.set().set_clock(now_us, clock::now_us());
        self.sift(&in_force, in_force.set().evaluate(batch, completeness))
    }

    /// What window rules find when time passes and no event comes.
    pub(crate) fn advance(&self, now_us: i64) -> Judged {
        let in_force = self.in_force();
        in_force.set().set_clock(now_us, clock::now_us());
        self.sift(&in_force, in_force.set().advance(now_us.saturating_sub(GRACE_US)))
    }

    /// Takes out what exceptions hide. The alerts of a rule that lacks a column say so.
    fn sift(&self, in_force: &InForce, matches: Vec<RuleMatch>) -> Judged {
        let mut judged = in_force.exceptions().judge(matches);
        if !judged.shown.is_empty() {
            let blind = self.blind.read().unwrap_or_else(PoisonError::into_inner);
            for found in judged.shown.iter_mut().filter(|found| blind.contains(&found.rule.id)) {
                found.completeness.degrade(Degraded::SchemaUnavailable);
            }
        }
        judged
    }

    /// From here on these lack a column.
    pub(super) fn mark_blind(&self, rules: BTreeSet<Uuid>) {
        self.set().mark_blind(&rules);
        *self.blind.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// The set in force.
    pub(crate) fn set(&self) -> Arc<RuleSet> {
        Arc::clone(self.in_force().set())
    }

    /// Calls `look` with what was read last: the rules, also those that do not run, the lists and the packs.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&[LoadedRule], &Lists, &[Pack]) -> T) -> T {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        look(&loaded.rules, &loaded.lists, &loaded.packs)
    }

    /// Until it is dropped no other set takes over that has to know what is in the store.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was not taken at the last load.
    pub(crate) fn problems(&self) -> Vec<Refusal> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).problems.clone()
    }

    /// Every rule that is loaded, those that do not run among them.
    pub(crate) fn loaded(&self) -> Vec<LoadedRule> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).rules.clone()
    }

    /// Names of the rules that run.
    pub(crate) fn names(&self) -> Vec<String> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.rules.iter().filter(|rule| runs(rule)).map(|rule| rule.rule.name.clone()).collect()
    }

    /// Whether a file was added, removed or written since the last load.
    pub(crate) fn changed_on_disk(&self) -> bool {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).fingerprint != fingerprint(&self.dirs)
    }

    /// What the directories hold, with versions; what cannot be taken stays as it was, if need be as before the last start.
    fn load(&self, before: &Loaded, store: &Store) -> Result<rules::Loaded, StoreError> {
        let begins = before.rules.is_empty();
        let lists = if begins { rules::kept_lists(store)? } else { before.lists.clone() };
        let mut fresh = rules::load_dirs_over(&self.dirs, &store.rules()?, &lists);
        if begins {
            keep_previous(&rules::kept_rules(store, &fresh.problems, &lists)?, &mut fresh);
        } else {
            keep_previous(&before.rules, &mut fresh);
        }
        let versioned = store.set_rules(fresh.rules.iter().map(|rule| DetectionRule::clone(&rule.rule)).collect())?;
        let versions: BTreeMap<Uuid, u32> = versioned.into_iter().map(|rule| (rule.id, rule.version)).collect();
        for rule in &mut fresh.rules {
            match versions.get(&rule.rule.id) {
                Some(version) if *version != rule.rule.version => Arc::make_mut(&mut rule.rule).version = *version,
                _ => {}
            }
        }
        rules::keep(&fresh, store)?;
        fresh.rules.iter_mut().for_each(LoadedRule::settle);
        Ok(fresh)
    }

    /// Reads the directories again and swaps the set. Blocking.
    pub(crate) fn reload(&self, store: &Store) -> Result<Reloaded, StoreError> {
        // Taken first: a write during the load is then seen as a change and read again.
        let print = fingerprint(&self.dirs);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut fresh, (set, refused)) = rules::apart(|| {
            self.load(&loaded, store).map(|fresh| {
                let compiled = RuleSet::compile(fresh.rules.clone());
                (fresh, compiled)
            })
        })?;
        let set = set.sharing_time();
        fresh.problems.extend(refused);
        let before = self.in_force();
        let mut reloaded = difference(&loaded.rules, &fresh, set.len());
        set.continue_counters_of(before.set());
        let in_force = InForce { set: Arc::new(set), exceptions: Exceptions::of(&fresh.rules) };
        compare_exceptions(before.exceptions(), in_force.exceptions(), &mut reloaded);
        let turn = in_force.set().lacks_past().then(|| {
            in_force.set().set_clock(store.believed_us(), clock::now_us());
            // Most of it while ingest goes on, and on a thread that ends: what reading history took is given back then.
            let filling = rules::apart(|| in_force.set().fill(store));
            let turn = self.turn();
            in_force.set().catch_up(store, filling);
            turn
        });
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(in_force);
        drop(turn);
        let rules::Loaded { rules, lists, packs, problems } = fresh;
        *loaded = Loaded { rules, lists, packs, problems, fingerprint: print };
        Ok(reloaded)
    }
}

/// Drafts are evaluated too, and raise nothing.
pub(super) fn runs(rule: &LoadedRule) -> bool {
    matches!(rule.rule.state, RuleState::Active | RuleState::Draft)
}

/// A file with a problem, or in a directory that cannot be read, keeps the rule that it held before; one that overrides keeps it as it was
/// overridden, since a vendor's rule that somebody has switched off or replaced must not come back with a typing error.
fn keep_previous(before: &[LoadedRule], fresh: &mut rules::Loaded) {
    let broken = |path: &PathBuf| fresh.problems.iter().any(|problem| problem.concerns(path));
    let keeps = |rule: &&LoadedRule| {
        let there = fresh.rules.iter().any(|other| other.rule.id == rule.rule.id);
        broken(&rule.path) || (there && rule.overrides.iter().any(|file| broken(&file.path)))
    };
    let kept: Vec<LoadedRule> = before.iter().filter(keeps).cloned().collect();
    for rule in kept {
        fresh.rules.retain(|other| other.rule.id != rule.rule.id);
        fresh.rules.push(rule);
    }
    fresh.rules.sort_by_key(|rule| rule.rule.id);
}

fn compare_exceptions(before: &Exceptions, now: &Exceptions, reloaded: &mut Reloaded) {
    let words = |exception: &Exception| (exception.expires_us, exception.owner.clone(), exception.reason.clone());
    let old: BTreeMap<Uuid, _> = before.iter().map(|exception| (exception.id, words(exception))).collect();
    let stands = |exception: &&Arc<Exception>| old.get(&exception.id).is_some_and(|old| *old == words(exception));
    reloaded.exceptions = now.iter().filter(|exception| !stands(exception)).cloned().collect();
    let gone = |id: &&Uuid| !now.iter().any(|exception| exception.id == **id);
    reloaded.exceptions_gone = old.keys().filter(gone).copied().collect();
}

fn difference(before: &[LoadedRule], fresh: &rules::Loaded, running: usize) -> Reloaded {
    let by_id = |rules: &[LoadedRule]| -> BTreeMap<_, _> {
        let words = |rule: &LoadedRule| ((rule.rule.hash.clone(), rule.rule.state), rule.rule.name.clone());
        rules.iter().map(|rule| (rule.rule.id, words(rule))).collect()
    };
    let (old, new) = (by_id(before), by_id(&fresh.rules));
    let mut reloaded = Reloaded { loaded: running, problems: fresh.problems.clone(), ..Reloaded::default() };
    for (id, (words, name)) in &new {
        match old.get(id) {
            None => reloaded.added.push(name.clone()),
            Some((before, _)) if before != words => reloaded.changed.push(name.clone()),
            Some(_) => {}
        }
    }
    reloaded.removed = old.iter().filter(|(id, _)| !new.contains_key(id)).map(|(_, (_, name))| name.clone()).collect();
    reloaded
}

/// Over path, length and time of change of every file that a load reads; of thousands of files these themselves are a megabyte.
fn fingerprint(dirs: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in rules::files(dirs) {
        let about = std::fs::metadata(&path).map_or((0, None), |about| (about.len(), about.modified().ok()));
        (path, about).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_engine::store::StoreOptions;

    const ID: &str = "3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01";
    const RULE: &str = "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: extra\ndescription: extra\nauthor: test\n\
        severity: low\ncategory: process_creation\nsql: SELECT pid FROM process_events WHERE name = 'never-there'\n";

    #[test]
    fn a_newcomer_with_the_id_of_a_rule_in_force_is_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("data"))).unwrap();
        let pack = dir.path().join("rules");
        std::fs::create_dir(&pack).unwrap();
        std::fs::write(pack.join("m.yaml"), RULE).unwrap();
        let rules = Rules::new(std::slice::from_ref(&pack));
        rules.reload(&store).unwrap();
        std::fs::write(pack.join("a.yaml"), RULE.replace("name: extra", "name: newcomer")).unwrap();
        for rules in [rules, Rules::new(std::slice::from_ref(&pack))] {
            let reloaded = rules.reload(&store).unwrap();
            assert_eq!(rules.names(), ["extra"]);
            let problem = &reloaded.problems[0];
            assert!(problem.file.ends_with("a.yaml"), "{problem}");
            let hint = problem.hint.as_deref().unwrap();
            assert!(hint.contains("a.yaml") && hint.contains("m.yaml"), "{hint}");
        }
    }

    #[test]
    fn a_broken_file_is_reported_and_the_rule_that_it_held_goes_on_running() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("data"))).unwrap();
        let pack = dir.path().join("rules");
        std::fs::create_dir(&pack).unwrap();
        let file = pack.join("extra.yaml");
        std::fs::write(&file, RULE).unwrap();
        let rules = Rules::new(std::slice::from_ref(&pack));
        let first = rules.reload(&store).unwrap();
        assert_eq!((first.loaded, first.added.len(), first.problems.len()), (1, 1, 0), "{first:?}");
        assert!(!rules.changed_on_disk());

        std::fs::write(&file, "id: [").unwrap();
        assert!(rules.changed_on_disk());
        let broken = rules.reload(&store).unwrap();
        assert_eq!((broken.loaded, broken.removed.len()), (1, 0), "{broken:?}");
        assert!(broken.problems[0].to_string().contains("extra.yaml"), "{broken:?}");
        assert_eq!(rules.names(), ["extra"]);

        std::fs::write(&file, RULE.replace("severity: low", "severity: high")).unwrap();
        let changed = rules.reload(&store).unwrap();
        assert_eq!((changed.changed.len(), changed.problems.len()), (1, 0), "{changed:?}");
        assert_eq!(store.rules().unwrap()[0].version, 2);

        std::fs::remove_file(&file).unwrap();
        assert_eq!(rules.reload(&store).unwrap().removed, ["extra"]);
        assert!(rules.set().is_empty());
    }

    #[test]
    fn a_broken_override_leaves_the_rule_as_it_was_overridden() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("data"))).unwrap();
        let pack = dir.path().join("rules");
        std::fs::create_dir(&pack).unwrap();
        std::fs::write(pack.join("extra.yaml"), RULE).unwrap();
        let local = pack.join("local.yaml");
        let text = "override: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nenabled: false\n";
        std::fs::write(&local, text).unwrap();
        let rules = Rules::new(std::slice::from_ref(&pack));
        assert_eq!(rules.reload(&store).unwrap().loaded, 0);
        std::fs::write(&local, text.replace("enabled", "enabeld")).unwrap();
        let broken = rules.reload(&store).unwrap();
        assert_eq!((broken.loaded, broken.problems.len(), broken.is_change()), (0, 1, false), "{broken:?}");
        assert!(
            broken.problems[0].to_string().contains("local.yaml:2:1: an override has no field enabeld"),
            "{broken:?}"
        );
        std::fs::remove_file(&local).unwrap();
        assert_eq!(rules.reload(&store).unwrap().changed, ["extra"]);
        assert_eq!(rules.names(), ["extra"]);
        assert_eq!(store.rules().unwrap()[0].version, 1, "whether it runs is no part of its text");
    }

    #[test]
    fn a_directory_that_cannot_be_read_keeps_its_rules_and_overrides_also_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("data"))).unwrap();
        let [vendor, local] = ["vendor", "local"].map(|name| dir.path().join(name));
        for place in [&vendor, &local] {
            std::fs::create_dir(place).unwrap();
        }
        let other = "6f1f3a77-3f0a-4b6c-9a9e-2d0b7c1e5a10";
        std::fs::write(vendor.join("extra.yaml"), RULE).unwrap();
        std::fs::write(vendor.join("off.yaml"), RULE.replace(ID, other).replace("name: extra", "name: off")).unwrap();
        std::fs::write(local.join("own.yaml"), RULE.replace("severity: low", "severity: high")).unwrap();
        let exception = "exceptions:\n  - {where: pid = 4, owner: alice, reason: known, expires: never}\n";
        std::fs::write(local.join("o.yaml"), format!("override: {other}\nenabled: false\n{exception}")).unwrap();
        let dirs = [vendor.clone(), local.clone()];
        let rules = Rules::new(&dirs);
        assert_eq!(rules.reload(&store).unwrap().problems.len(), 0);
        let words =
            |rules: &Rules| rules.loaded().iter().map(|one| (one.rule.clone(), one.exceptions.len())).collect();
        let before: Vec<_> = words(&rules);

        std::fs::rename(&local, dir.path().join("elsewhere")).unwrap();
        std::fs::write(&local, "no directory").unwrap();
        for rules in [rules, Rules::new(&dirs)] {
            assert!(rules.changed_on_disk());
            let reloaded = rules.reload(&store).unwrap();
            assert_eq!((reloaded.problems.len(), reloaded.removed.len()), (1, 0), "{reloaded:?}");
            let now: Vec<_> = words(&rules);
            assert_eq!(now, before);
            assert_eq!(rules.names(), ["extra"]);
            // The vendor may go on changing what nobody overrides.
            assert!(!rules.changed_on_disk());
        }
    }

    #[test]
    fn broken_files_leave_rules_overrides_and_lists_as_they_were_also_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("data"))).unwrap();
        let pack = dir.path().join("rules");
        std::fs::create_dir(&pack).unwrap();
        let write = |name: &str, text: &str| std::fs::write(pack.join(name), text).unwrap();
        write("extra.yaml", &RULE.replace("name = 'never-there'", "name IN (list('odd'))"));
        write("odd.yaml", "list: odd\nvalues: [a]\n");
        write("odder.yaml", "list: odd\nextends: true\nvalues: [b]\n");
        write("off.yaml", &format!("override: {ID}\nenabled: false\nseverity: high\n"));
        let rules = Rules::new(std::slice::from_ref(&pack));
        assert!(rules.reload(&store).unwrap().problems.is_empty());
        let before = rules.loaded()[0].rule.clone();
        let text = store.rule_text(before.id, 1).unwrap().unwrap();
        assert_eq!(before.state, RuleState::Disabled);
        for broken in ["off.yaml", "odder.yaml", "extra.yaml"] {
            write(broken, "id: [");
            let rules = Rules::new(std::slice::from_ref(&pack));
            assert!(!rules.reload(&store).unwrap().problems.is_empty());
            assert_eq!(rules.loaded()[0].rule, before, "{broken}");
        }
        write("off.yaml", &format!("override: {ID}\nenabled: true\n"));
        let reloaded = rules.reload(&store).unwrap();
        assert_eq!(rules.loaded()[0].rule, before, "its own file is still broken: {reloaded:?}");
        assert_eq!(store.rule_text(before.id, 1).unwrap().unwrap(), text);
    }

    #[test]
    fn a_change_is_seen_wherever_a_load_reads_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("data"))).unwrap();
        let pack = dir.path().join("rules");
        let deep = pack.join("1/2/3/4/5/6");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("extra.yaml"), RULE).unwrap();
        let rules = Rules::new(std::slice::from_ref(&pack));
        assert_eq!(rules.reload(&store).unwrap().added, ["extra"]);
        std::fs::write(pack.join("notes.txt"), "x").unwrap();
        std::fs::write(pack.join(".hidden.yaml"), "x").unwrap();
        assert!(!rules.changed_on_disk());
        std::fs::write(deep.join("extra.yaml"), RULE.replace("low", "medium")).unwrap();
        assert!(rules.changed_on_disk());
    }

    #[test]
    fn exceptions_that_come_and_go_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("data"))).unwrap();
        let pack = dir.path().join("rules");
        std::fs::create_dir(&pack).unwrap();
        std::fs::write(pack.join("extra.yaml"), RULE).unwrap();
        let rules = Rules::new(std::slice::from_ref(&pack));
        let changes = |text: &str| {
            std::fs::write(pack.join("local.yaml"), text).unwrap();
            let reloaded = rules.reload(&store).unwrap();
            assert!(reloaded.problems.is_empty(), "{reloaded:?}");
            (reloaded.exceptions.len(), reloaded.exceptions_gone.len())
        };
        let base = "override: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\n";
        let one = format!("{base}exceptions:\n  - {{where: pid = 4, owner: alice, reason: known, expires: never}}\n");
        assert_eq!(changes(&one), (1, 0));
        assert_eq!(changes(&one), (0, 0));
        assert_eq!(changes(&one.replace("never", "2027-01-31")), (1, 0), "another expiry");
        assert_eq!(changes(&one.replace("pid = 4", "pid = 5")), (1, 1), "another condition is another exception");
        assert_eq!(changes(base), (0, 1));
    }
}
