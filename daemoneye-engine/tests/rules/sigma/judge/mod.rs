//! Rules and events by chance, decided by `hunt` and by an evaluator that shares nothing with us: Python with its standard library.
//!
//! Where there is no Python the test says so and is skipped, unless `DAEMONEYE_PYTHON` names one. One corpus is always the same, and one
//! new in each run, whose seed is printed: `DAEMONEYE_SEED` gives it again.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::process::Command;

use daemoneye_engine::hunt::{Hunt, Line, Rows};

use super::lists;

const PYTHON: &str = "DAEMONEYE_PYTHON";
const RULES: usize = 400;
const EVENTS: usize = 600;

/// What a script says about the corpus in a directory.
fn said(python: &str, script: &str, arguments: &[&str], dir: &Path) -> String {
    let run = Command::new(python).arg("-c").arg(script).arg(dir).args(arguments).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// The Python to ask, or why there is none.
fn python() -> Result<String, String> {
    let asked = std::env::var(PYTHON).ok();
    let python = asked.clone().unwrap_or_else(|| "python3".to_owned());
    let found = Command::new(&python).args(["-c", "import sys; sys.exit(sys.version_info < (3, 10))"]).output();
    match (found, asked) {
        (Ok(found), _) if found.status.success() => Ok(python),
        (found, Some(_)) => panic!("{PYTHON} is {python}, which is no Python of 3.10 or later: {found:?}"),
        (_, None) => Err(format!("there is no {python} of 3.10 or later")),
    }
}

#[test]
fn hunt_and_an_independent_evaluator_find_the_same() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return println!("skipped: {why}"),
    };
    let by_chance = || (RandomState::new().hash_one(0) >> 32).to_string();
    for seed in ["1".to_owned(), std::env::var("DAEMONEYE_SEED").unwrap_or_else(|_| by_chance())] {
        println!("DAEMONEYE_SEED={seed}");
        judged(&python, &seed);
    }
}

fn judged(python: &str, seed: &str) {
    let dir = tempfile::tempdir().unwrap();
    said(python, include_str!("corpus.py"), &[&RULES.to_string(), &EVENTS.to_string(), seed], dir.path());
    let theirs = said(python, include_str!("evaluator.py"), &[], dir.path());
    let theirs: BTreeSet<(String, u64)> = theirs
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(rule, event)| (rule.to_owned(), event.parse().unwrap()))
        .collect();

    let (hunt, notes) = Hunt::load(&[dir.path().join("rules")], &lists());
    let refused: Vec<_> = notes.iter().filter(|note| note.is_refusal).collect();
    let mut rows = Rows::default();
    let events = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
    for (number, line) in (0..).zip(events.lines()) {
        let read = rows.take(number, line.as_bytes());
        assert!(
            matches!(&read, Line::Taken | Line::Strange) || matches!(&read, Line::Without(lacks) if lacks.strange),
            "{read:?}: {line}"
        );
    }
    let found = hunt.matches(rows.finish().unwrap());
    let ours: BTreeSet<(String, u64)> = found.iter().map(|found| (found.rule_id.to_owned(), found.event)).collect();

    // What is refused is said; of the corpus that is what matches every event, and nothing else.
    let silent: BTreeSet<usize> = refused.iter().filter_map(|note| in_file(&note.text)).collect();
    for note in &refused {
        assert!(note.text.contains("every event would match"), "{}", note.text);
    }
    let is_told = |(rule, _): &&(String, u64)| !silent.contains(&numbered(rule));
    let differ: Vec<_> = theirs
        .iter()
        .filter(is_told)
        .collect::<BTreeSet<_>>()
        .symmetric_difference(&ours.iter().collect())
        .take(12)
        .map(|(rule, event)| {
            let file = dir.path().join(format!("rules/{:05}.yml", numbered(rule)));
            let text = std::fs::read_to_string(file).unwrap().replace('\n', " ");
            let line = events.lines().nth(usize::try_from(*event).unwrap()).unwrap();
            format!("ours: {}\n{text}\n{line}", ours.contains(&(rule.clone(), *event)))
        })
        .collect();
    assert!(differ.is_empty(), "seed {seed}: {}", differ.join("\n\n"));
    let matched: BTreeSet<_> = ours.iter().map(|(rule, _)| rule).collect();
    assert!(
        ours.len() > 10_000 && matched.len() > RULES / 3,
        "seed {seed}: {} matches of {} rules",
        ours.len(),
        matched.len()
    );
}

/// The number of the rule with an id.
fn numbered(rule: &str) -> usize {
    usize::from_str_radix(rule.rsplit('-').next().unwrap(), 16).unwrap()
}

/// The number of the rule that a note is about, by the name of its file.
fn in_file(note: &str) -> Option<usize> {
    let (before, _) = note.split_once(".yml")?;
    before.rsplit(['/', '\\']).next()?.parse().ok()
}
