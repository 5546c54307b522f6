//! Rule directories: walked in order, a rule of a later one in place of an earlier one's with the same id; then lists, packs and
//! overrides of all of them together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemoneye_lib::model::DetectionRule;
use uuid::Uuid;

use super::super::Refusal;
use super::document::{Document, Kind};
use super::lists::{self, Lists};
use super::packs::{self, Pack};
use super::{Loaded, LoadedRule, MAX_FILE_BYTES, MAX_FILES, overrides, parse};
use crate::sql;

/// Deepest directory below a rule directory; a link in a circle ends here.
const MAX_DEPTH: usize = 8;

/// Reads every `*.yaml` and `*.yml` below the directories. Nothing that is wrong with one file or directory touches another.
#[must_use]
pub fn load_dirs(dirs: &[PathBuf]) -> Loaded {
    load_dirs_over(dirs, &[], &Lists::default())
}

/// As [`load_dirs`]; of two files of one directory with the same id, the one whose rule is in force stays, and a list of `lists` stays
/// as it is while one of its files cannot be taken.
#[must_use]
pub fn load_dirs_over(dirs: &[PathBuf], in_force: &[DetectionRule], lists: &Lists) -> Loaded {
    // Without a thread for all of them each rule finds its own.
    sql::on_large_stack(|| Ok(load_here(dirs, in_force, lists))).unwrap_or_else(|_| load_here(dirs, in_force, lists))
}

/// The files that a load of these directories reads: whoever waits for changes looks at them.
#[must_use]
pub fn files(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let mut loading = Loading::default();
    dirs.iter().flat_map(|dir| loading.files(dir)).collect()
}

/// As [`load_dirs`] of files that have been read: each list is what one directory holds. Overrides find the rules that are `there`
/// already too, which are of files of another kind; a rule of the directories with the id of one of them is refused.
#[must_use]
pub fn load_texts(dirs: &[Vec<(PathBuf, String)>], there: &[LoadedRule]) -> Loaded {
    let load = || {
        let mut loading = Loading::default();
        loading.rules.extend(there.iter().map(|rule| (rule.rule.id, rule.clone())));
        let documents = dirs.iter().map(|files| {
            let read = files.iter().map(|(file, text)| bounded(file, text).and_then(|()| Document::new(file, text)));
            loading.taken(read)
        });
        let documents = documents.collect();
        loading.finish(documents)
    };
    sql::on_large_stack(|| Ok(load())).unwrap_or_else(|_| load())
}

/// Does `work` on a thread that ends with it and may walk deep trees. Loading takes several times what the rules are then, and the
/// allocator gives that back when a thread ends, while one that waits for other work keeps it.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let (mut work, mut done) = (Some(work), None);
    let began = sql::on_large_stack(|| {
        done = work.take().map(|work| catch_unwind(AssertUnwindSafe(work)));
        Ok(())
    });
    match (done, work) {
        (Some(done), _) => done.unwrap_or_else(|panic| resume_unwind(panic)),
        (None, Some(work)) => work(),
        (None, None) => resume_unwind(Box::new(began.err())),
    }
}

fn load_here(dirs: &[PathBuf], in_force: &[DetectionRule], lists: &Lists) -> Loaded {
    let mut loading = Loading { in_force, before: Some(lists), ..Loading::default() };
    let documents: Vec<Vec<Document>> = dirs.iter().map(|dir| loading.documents(dir)).collect();
    loading.finish(documents)
}

fn of_kind(documents: &[Document], kind: Kind) -> impl Iterator<Item = &Document> {
    documents.iter().filter(move |document| document.kind == kind)
}

#[derive(Default)]
struct Loading<'a> {
    in_force: &'a [DetectionRule],
    /// The lists in force.
    before: Option<&'a Lists>,
    read: usize,
    rules: BTreeMap<Uuid, LoadedRule>,
    lists: Lists,
    packs: Vec<Pack>,
    problems: Vec<Refusal>,
}

impl Loading<'_> {
    fn finish(mut self, mut documents: Vec<Vec<Document>>) -> Loaded {
        // What others refer to comes first: packs and lists, then rules, then what overrides them.
        documents.iter().for_each(|of_dir| self.packs(of_dir));
        documents.iter().for_each(|of_dir| self.lists(of_dir));
        if let Some(before) = self.before {
            self.lists.keep(before, &self.problems);
        }
        let there: BTreeSet<Uuid> = self.rules.keys().copied().collect();
        for of_dir in &mut documents {
            let mut of_this_dir = BTreeMap::new();
            // Each goes when its rule is there, which then has its place in memory.
            for document in of_dir.extract_if(.., |document| document.kind == Kind::Rule) {
                self.rule(&document, &mut of_this_dir);
            }
            for (id, (rule, at)) in of_this_dir {
                match self.rules.get(&id).filter(|_| there.contains(&id)) {
                    Some(kept) => self.problems.push(same_id(&rule, at, kept)),
                    None => drop(self.rules.insert(id, rule)),
                }
            }
        }
        documents.iter().for_each(|of_dir| self.overrides(of_dir));
        let Self { rules, lists, packs, problems, .. } = self;
        Loaded { rules: rules.into_values().collect(), lists, packs, problems }
    }

    /// The rule files below one directory, in the order of their paths.
    fn files(&mut self, dir: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        self.walk(dir, 0, &mut files);
        files.sort();
        files
    }

    /// What can be read as YAML below one directory, in the order of the paths.
    fn documents(&mut self, dir: &Path) -> Vec<Document> {
        let files = self.files(dir);
        let read = files.iter().map(|file| {
            let text = read(file).map_err(|refusal| vec![refusal])?;
            bounded(file, &text)?;
            Document::new(file, &text)
        });
        self.taken(read)
    }

    fn taken(&mut self, read: impl Iterator<Item = Result<Document, Vec<Refusal>>>) -> Vec<Document> {
        let mut documents = Vec::new();
        for document in read {
            match document {
                Ok(document) => documents.push(document),
                Err(problems) => self.problems.extend(problems),
            }
        }
        documents
    }

    fn packs(&mut self, documents: &[Document]) {
        for document in of_kind(documents, Kind::Pack) {
            match packs::read(document) {
                Ok(pack) if self.packs.iter().any(|other| other.dir == pack.dir) => {
                    let message = "the directory has another manifest of a pack";
                    self.problems.push(Refusal::whole(&document.file, message, Some("keep one of them")));
                }
                Ok(pack) => self.packs.push(pack),
                Err(problems) => self.problems.extend(problems),
            }
        }
    }

    fn lists(&mut self, documents: &[Document]) {
        let mut told = Vec::new();
        for document in of_kind(documents, Kind::List) {
            match lists::read(document) {
                Ok(list) => told.push(list),
                Err(problems) => self.problems.extend(problems),
            }
        }
        self.lists.take(told, &mut self.problems);
    }

    fn overrides(&mut self, documents: &[Document]) {
        let mut told = overrides::Told::default();
        for document in of_kind(documents, Kind::Override) {
            let read = overrides::read(document, &self.lists);
            match read.and_then(|over| told.look(&over).map(|()| over)) {
                Ok(over) => match self.rules.get_mut(&over.rule) {
                    Some(rule) => {
                        let exceptions = over.exceptions.clone();
                        match over.apply(rule) {
                            Ok(()) => told.add(exceptions),
                            Err(problems) => self.problems.extend(problems),
                        }
                    }
                    None => self.problems.push(over.without_rule(self.rules.values())),
                },
                Err(problems) => self.problems.extend(problems),
            }
        }
    }

    fn walk(&mut self, dir: &Path, depth: usize, files: &mut Vec<PathBuf>) {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => {
                // A sandbox lets in what was there when the agent started, not what has its name since.
                let hint = Some(match error.kind() {
                    ErrorKind::PermissionDenied => {
                        "make it readable; if it was replaced since the agent was started, restart the agent"
                    }
                    _ => "create the directory, make it readable, or take it out of the setting rules",
                });
                let message = format!("the directory cannot be read: {}", because(dir, &error));
                self.problems.push(Refusal::whole(dir, message, hint));
                return;
            }
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        paths.sort();
        for path in paths {
            // A dot begins what editors and package managers leave behind.
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                continue;
            }
            if path.is_dir() {
                if depth < MAX_DEPTH {
                    self.walk(&path, depth + 1, files);
                }
            } else if is_yaml(&path) {
                if self.read == MAX_FILES {
                    let message = format!("there are more than {MAX_FILES} rule files; the rest is not loaded");
                    self.problems.push(Refusal::whole(&path, message, Some("point rules at rule directories only")));
                }
                self.read += 1;
                if self.read <= MAX_FILES {
                    files.push(path);
                }
            }
        }
    }

    fn rule(&mut self, document: &Document, rules: &mut BTreeMap<Uuid, (LoadedRule, Place)>) {
        match parse::rule(document, &self.lists) {
            Ok(mut rule) => {
                Arc::make_mut(&mut rule.rule).pack = packs::name(&self.packs, &document.file);
                let (id, rule) = (rule.rule.id, (rule, document.place("id")));
                let Some(first) = rules.remove(&id) else { return drop(rules.insert(id, rule)) };
                let is_newer = self.is_in_force(&rule.0) && !self.is_in_force(&first.0);
                let (kept, refused) = if is_newer { (rule, first) } else { (first, rule) };
                self.problems.push(same_id(&refused.0, refused.1, &kept.0));
                rules.insert(id, kept);
            }
            Err(problems) => self.problems.extend(problems),
        }
    }

    fn is_in_force(&self, rule: &LoadedRule) -> bool {
        let of_this_file = |other: &&DetectionRule| other.file == rule.rule.file && other.pack == rule.rule.pack;
        self.in_force.iter().filter(|other| other.id == rule.rule.id).any(|other| of_this_file(&other))
    }
}

/// Line and column.
type Place = (u64, u64);

fn same_id(refused: &LoadedRule, (line, column): Place, kept: &LoadedRule) -> Refusal {
    let (refused_file, kept_file) = (refused.path.display(), kept.path.display());
    let message = format!("the id {} is also that of {kept_file}", refused.rule.id);
    let hint = format!("{kept_file} stays in force; give the rule in {refused_file} an id of its own");
    Refusal { line, column, ..Refusal::whole(&refused.path, message, Some(&hint)) }
}

/// Whether its name is that of a rule file.
pub(crate) fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|end| ["yaml", "yml"].iter().any(|known| end.eq_ignore_ascii_case(known)))
}

/// Why a file or directory cannot be read; a link is no directory that is missing.
pub(crate) fn because(path: &Path, error: &std::io::Error) -> String {
    let is_dangling = error.kind() == std::io::ErrorKind::NotFound && path.is_symlink();
    if is_dangling { "it is a link to what is not there".to_owned() } else { error.to_string() }
}

/// What to do about a file that cannot be read. Nothing is there to be made readable where a link leads to nothing, or in a circle.
fn remedy(file: &Path, error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::InvalidData => "a rule file is text in UTF-8",
        ErrorKind::PermissionDenied => "let the user that the agent runs as read it",
        _ if file.is_symlink() && !file.exists() => "the link leads nowhere; mend or remove it",
        _ => "make it readable, or remove it",
    }
}

/// Never more than the bound, whatever the file turns out to be.
fn read(file: &Path) -> Result<String, Refusal> {
    let unreadable = |error: std::io::Error| {
        let message = format!("the file cannot be read: {}", because(file, &error));
        Refusal::whole(file, message, Some(remedy(file, &error)))
    };
    let is_file = fs::metadata(file).map_err(unreadable)?.is_file();
    if !is_file {
        return Err(Refusal::whole(file, "this is not a regular file", None));
    }
    let mut text = String::new();
    let opened = fs::File::open(file).map_err(unreadable)?;
    opened.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

pub(super) fn bounded(file: &Path, text: &str) -> Result<(), Vec<Refusal>> {
    if u64::try_from(text.len()).unwrap_or(u64::MAX) <= MAX_FILE_BYTES {
        return Ok(());
    }
    let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
    Err(vec![Refusal::whole(file, message, Some("one file holds one rule"))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_nowhere_or_in_a_circle_is_to_be_mended_and_not_made_readable() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink(at("nowhere"), at("a.yaml")).unwrap();
        std::os::unix::fs::symlink(at("b.yaml"), at("b.yaml")).unwrap();
        fs::write(at("c.yaml"), b"name: \xff\n").unwrap();
        let hint = |name: &str| read(&at(name)).unwrap_err().hint.unwrap();
        assert!(hint("a.yaml").contains("leads nowhere") && hint("b.yaml") == hint("a.yaml"), "{}", hint("b.yaml"));
        assert_eq!(hint("c.yaml"), "a rule file is text in UTF-8");
    }
}
