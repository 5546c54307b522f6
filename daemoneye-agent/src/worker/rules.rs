//! The rules in force: loaded from their directories, versioned by the store, compiled into one set that is swapped as a
//! whole.
//!
//! A file that does not load rejects that file only; the version of its rule that ran before goes on running. Nothing here
//! ever leaves the agent without rules because of a typing error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use daemoneye_engine::detect::{LoadedRule, Refusal, RuleSet, rules};
use daemoneye_engine::store::{Store, StoreError};
use daemoneye_lib::model::RuleState;

/// Where vendor and local rules lie when the settings name no directory.
const INSTALLED: &[&str] = &["/usr/share/daemoneye/rules", "/etc/daemoneye/rules.d"];
/// Directories below a rules directory that are looked at for changes; a pack is two deep.
const WATCH_DEPTH: usize = 4;

/// What a reload did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reloaded {
    pub(crate) loaded: usize,
    pub(crate) added: Vec<String>,
    pub(crate) changed: Vec<String>,
    pub(crate) removed: Vec<String>,
    pub(crate) problems: Vec<Refusal>,
}

impl Reloaded {
    /// Whether anything differs from before.
    pub(crate) fn is_change(&self) -> bool {
        !(self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty())
    }
}

/// What was read, beside the compiled set.
#[derive(Default)]
struct Loaded {
    rules: Vec<LoadedRule>,
    problems: Vec<Refusal>,
    fingerprint: Vec<(PathBuf, u64, Option<SystemTime>)>,
}

/// The rules in force.
pub(crate) struct Rules {
    dirs: Vec<PathBuf>,
    set: RwLock<Arc<RuleSet>>,
    loaded: Mutex<Loaded>,
}

impl Rules {
    /// No rules yet; directories from the settings, else the installed ones that exist.
    pub(crate) fn new(configured: &[PathBuf]) -> Self {
        let dirs = if configured.is_empty() {
            INSTALLED.iter().map(PathBuf::from).filter(|dir| dir.is_dir()).collect()
        } else {
            configured.to_vec()
        };
        Self { dirs, set: RwLock::default(), loaded: Mutex::default() }
    }

    /// Where rules are read from.
    pub(crate) fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// The set in force.
    pub(crate) fn set(&self) -> Arc<RuleSet> {
        Arc::clone(&self.set.read().unwrap_or_else(PoisonError::into_inner))
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

    /// Reads the directories again and swaps the set. Blocking.
    pub(crate) fn reload(&self, store: &Store) -> Result<Reloaded, StoreError> {
        // Taken first: a write during the load is then seen as a change and read again.
        let print = fingerprint(&self.dirs);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = rules::load_dirs_over(&self.dirs, &store.rules()?);
        keep_previous(&loaded.rules, &mut fresh);
        let versions = store.set_rules(fresh.rules.iter().map(|rule| rule.rule.clone()).collect())?;
        for rule in &mut fresh.rules {
            if let Some(versioned) = versions.iter().find(|versioned| versioned.id == rule.rule.id) {
                rule.rule = versioned.clone();
            }
        }
        let (set, refused) = RuleSet::compile(fresh.rules.clone());
        fresh.problems.extend(refused);
        let reloaded = difference(&loaded.rules, &fresh, set.len());
        set.continue_counters_of(&self.set());
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
        *loaded = Loaded { rules: fresh.rules, problems: fresh.problems, fingerprint: print };
        Ok(reloaded)
    }
}

fn runs(rule: &LoadedRule) -> bool {
    rule.rule.state == RuleState::Active
}

/// A file with a problem keeps the rule that it held before.
fn keep_previous(before: &[LoadedRule], fresh: &mut rules::Loaded) {
    for rule in before {
        let broken = fresh.problems.iter().any(|problem| problem.file == rule.path);
        if broken && !fresh.rules.iter().any(|other| other.rule.id == rule.rule.id) {
            fresh.rules.push(rule.clone());
        }
    }
    fresh.rules.sort_by_key(|rule| rule.rule.id);
}

fn difference(before: &[LoadedRule], fresh: &rules::Loaded, running: usize) -> Reloaded {
    let by_id = |rules: &[LoadedRule]| -> BTreeMap<_, _> {
        rules.iter().map(|rule| (rule.rule.id, (rule.rule.hash.clone(), rule.rule.name.clone()))).collect()
    };
    let (old, new) = (by_id(before), by_id(&fresh.rules));
    let mut reloaded = Reloaded { loaded: running, problems: fresh.problems.clone(), ..Reloaded::default() };
    for (id, (hash, name)) in &new {
        match old.get(id) {
            None => reloaded.added.push(name.clone()),
            Some((before, _)) if before != hash => reloaded.changed.push(name.clone()),
            Some(_) => {}
        }
    }
    reloaded.removed = old.iter().filter(|(id, _)| !new.contains_key(id)).map(|(_, (_, name))| name.clone()).collect();
    reloaded
}

/// Path, length and time of change of every file below the directories.
fn fingerprint(dirs: &[PathBuf]) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
    let mut files = Vec::new();
    for dir in dirs {
        list(dir, WATCH_DEPTH, &mut files);
    }
    files.sort();
    files
}

fn list(dir: &Path, depth: usize, files: &mut Vec<(PathBuf, u64, Option<SystemTime>)>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if files.len() >= rules::MAX_FILES {
            return;
        }
        // Follows links, as the loader does.
        let Ok(about) = std::fs::metadata(&path) else { continue };
        if about.is_dir() {
            if depth > 0 {
                list(&path, depth - 1, files);
            }
        } else {
            files.push((path, about.len(), about.modified().ok()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_engine::store::StoreOptions;

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
}
