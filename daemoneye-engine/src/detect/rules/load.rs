//! Rule directories: walked in order, a rule of a later one in place of an earlier one's with the same id.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use daemoneye_lib::model::DetectionRule;
use uuid::Uuid;

use super::super::Refusal;
use super::{Loaded, LoadedRule, MAX_FILE_BYTES, MAX_FILES, parse};
use crate::sql;

/// Deepest directory below a rule directory; a link in a circle ends here.
const MAX_DEPTH: usize = 8;

/// Reads every `*.yaml` and `*.yml` below the directories. Nothing that is wrong with one file or directory touches another.
#[must_use]
pub fn load_dirs(dirs: &[PathBuf]) -> Loaded {
    load_dirs_over(dirs, &[])
}

/// As [`load_dirs`]; of two files of one directory with the same id, the one whose rule is in force stays.
#[must_use]
pub fn load_dirs_over(dirs: &[PathBuf], in_force: &[DetectionRule]) -> Loaded {
    // Without a thread for all of them each rule finds its own.
    sql::on_large_stack(|| Ok(load_here(dirs, in_force))).unwrap_or_else(|_| load_here(dirs, in_force))
}

fn load_here(dirs: &[PathBuf], in_force: &[DetectionRule]) -> Loaded {
    let mut loading = Loading { in_force, ..Loading::default() };
    for dir in dirs {
        let mut files = Vec::new();
        loading.walk(dir, 0, &mut files);
        files.sort();
        let mut of_this_dir = BTreeMap::new();
        for file in files {
            loading.file(&file, &mut of_this_dir);
        }
        loading.rules.extend(of_this_dir);
    }
    Loaded { rules: loading.rules.into_values().collect(), problems: loading.problems }
}

#[derive(Default)]
struct Loading<'a> {
    in_force: &'a [DetectionRule],
    files: usize,
    rules: BTreeMap<Uuid, LoadedRule>,
    problems: Vec<Refusal>,
}

impl Loading<'_> {
    fn walk(&mut self, dir: &Path, depth: usize, files: &mut Vec<PathBuf>) {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => {
                let hint = Some("create the directory, make it readable, or take it out of the setting rules");
                self.problems.push(Refusal::whole(dir, format!("the directory cannot be read: {error}"), hint));
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
            } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
                if self.files == MAX_FILES {
                    let message = format!("there are more than {MAX_FILES} rule files; the rest is not loaded");
                    self.problems.push(Refusal::whole(&path, message, Some("point rules at rule directories only")));
                }
                self.files += 1;
                if self.files <= MAX_FILES {
                    files.push(path);
                }
            }
        }
    }

    fn file(&mut self, file: &Path, rules: &mut BTreeMap<Uuid, LoadedRule>) {
        let text = match read(file) {
            Ok(text) => text,
            Err(refusal) => return self.problems.push(refusal),
        };
        match parse(file, &text) {
            Ok(rule) => {
                let id = rule.rule.id;
                let Some(first) = rules.remove(&id) else { return drop(rules.insert(id, rule)) };
                let (kept, refused) =
                    if self.is_in_force(&rule) && !self.is_in_force(&first) { (rule, first) } else { (first, rule) };
                self.problems.push(same_id(&refused, &kept));
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

fn same_id(refused: &LoadedRule, kept: &LoadedRule) -> Refusal {
    let (refused_file, kept_file) = (refused.path.display(), kept.path.display());
    let message = format!("the id {} is also that of {kept_file}", refused.rule.id);
    let hint = format!("{kept_file} stays in force; give the rule in {refused_file} an id of its own");
    Refusal::whole(&refused.path, message, Some(&hint))
}

/// Never more than the bound, whatever the file turns out to be.
fn read(file: &Path) -> Result<String, Refusal> {
    let unreadable = |error: std::io::Error| {
        Refusal::whole(file, format!("the file cannot be read: {error}"), Some("make it readable UTF-8 text"))
    };
    let is_file = fs::metadata(file).map_err(unreadable)?.is_file();
    if !is_file {
        return Err(Refusal::whole(file, "this is not a regular file", None));
    }
    let mut text = String::new();
    let opened = fs::File::open(file).map_err(unreadable)?;
    let bytes = opened.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(bytes).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(Refusal::whole(
            file,
            format!("the file is larger than {MAX_FILE_BYTES} bytes"),
            Some("one file holds one rule"),
        ));
    }
    Ok(text)
}
