//! Rules over the operator socket: check files without taking them, and read the directories again.

use std::collections::BTreeMap;
use std::path::Path;

use daemoneye_engine::detect::rules::{Checked, Lists};
use daemoneye_engine::detect::{LoadedRule, Refusal as RuleRefusal, TestReport, rules};
use daemoneye_eventbus::Caller;
use daemoneye_lib::model::RuleKind;
use daemoneye_lib::proto::{Fault, FaultKind, Refusal, RuleCheck, RuleText, RulesCheck, RulesChecked, RulesReloaded};

use super::{Operators, internal};
use crate::platform;

/// Files of one request; the request itself is at most 1 MiB.
const MAX_FILES: usize = 1000;

impl Operators {
    pub(super) async fn rules_reload(&self, caller: &Caller) -> Result<RulesReloaded, Fault> {
        let worker = self.live_only("rules reload")?;
        let actor = format!("operator:{}", platform::user_name(caller.peer.uid));
        let reloaded = worker.reload_rules(actor).await.map_err(|error| internal(&error))?;
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(RulesReloaded {
            loaded: count(reloaded.loaded),
            added: count(reloaded.added.len()),
            changed: count(reloaded.changed.len()),
            removed: count(reloaded.removed.len()),
            problems: reloaded.problems.iter().map(refusal).collect(),
        })
    }
}

/// Parses, plans and, when asked, tests each file; takes none of them. Rules may name the lists in force, those of the request's
/// context, and those among the files themselves; overrides stand beside those of the context, which come before them.
pub(super) async fn check(check: RulesCheck, in_force: Lists) -> Result<RulesChecked, Fault> {
    if check.files.len().saturating_add(check.context.len()) > MAX_FILES {
        return Err(Fault::new(FaultKind::TooLarge, format!("more than {MAX_FILES} rule files: send them in parts")));
    }
    let checked = tokio::task::spawn_blocking(move || {
        let texts = check.context.iter().chain(&check.files).map(|file| (Path::new(&file.name), file.yaml.as_str()));
        let lists = rules::lists_with(&in_force, texts);
        let mut rules: Vec<RuleCheck> =
            check.files.iter().map(|file| check_file(file, &check.context, &lists, check.run_tests)).collect();
        refuse_repeated_ids(&mut rules);
        rules
    });
    checked.await.map(|rules| RulesChecked { rules }).map_err(|error| internal(&error))
}

fn check_file(file: &RuleText, context: &[RuleText], lists: &Lists, run_tests: bool) -> RuleCheck {
    let other = |name: String, kind: &str| RuleCheck {
        name,
        file: file.name.clone(),
        kind: kind.to_owned(),
        ..RuleCheck::default()
    };
    let before = context.iter().map(|other| (Path::new(&other.name), other.yaml.as_str()));
    match rules::check_file_after(Path::new(&file.name), &file.yaml, lists, before) {
        Ok(Checked::Rule(rule)) => {
            let report = run_tests.then(|| rules::run_tests(&rule));
            checked(file, &rule, report.as_ref())
        }
        Ok(Checked::List(name)) => other(name, "list"),
        Ok(Checked::Override(rule)) => other(rule.to_string(), "override"),
        Ok(Checked::Pack(name)) => other(name, "pack"),
        Err(problems) => RuleCheck {
            file: file.name.clone(),
            problems: problems.iter().map(refusal).collect(),
            ..RuleCheck::default()
        },
    }
}

/// Each file alone may be right; together only the first with an id can be in force.
fn refuse_repeated_ids(rules: &mut [RuleCheck]) {
    let mut first_of: BTreeMap<String, String> = BTreeMap::new();
    for rule in rules.iter_mut().filter(|rule| !rule.id.is_empty()) {
        if let Some(first) = first_of.get(&rule.id) {
            rule.problems.push(Refusal {
                message: format!("the id {} is also that of {first}", rule.id),
                hint: format!("give the rule in {} or the one in {first} an id of its own", rule.file),
                file: rule.file.clone(),
                ..Refusal::default()
            });
        } else {
            first_of.insert(rule.id.clone(), rule.file.clone());
        }
    }
}

fn checked(file: &RuleText, rule: &LoadedRule, report: Option<&TestReport>) -> RuleCheck {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let failures = report.map(|report| report.failures.as_slice()).unwrap_or_default();
    let kind = match rule.rule.kind {
        RuleKind::Stream => "stream",
        RuleKind::Window => "window",
    };
    RuleCheck {
        id: rule.rule.id.to_string(),
        name: rule.rule.name.clone(),
        file: file.name.clone(),
        kind: kind.to_owned(),
        tests_passed: report.map_or(0, |report| count(report.passed)),
        tests_failed: count(failures.len()),
        problems: failures
            .iter()
            .map(|failure| Refusal {
                message: format!("test {:?}: {}", failure.test, failure.message),
                line: u32::try_from(failure.line).unwrap_or(u32::MAX),
                column: 1,
                hint: String::new(),
                file: file.name.clone(),
            })
            .collect(),
    }
}

/// A rule file's problem in the shape that goes over the socket.
pub(super) fn refusal(problem: &RuleRefusal) -> Refusal {
    let place = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Refusal {
        message: problem.message.clone(),
        line: place(problem.line),
        column: place(problem.column),
        hint: problem.hint.clone().unwrap_or_default(),
        file: problem.file.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_files_with_one_id_are_a_problem_of_the_second_that_names_both() {
        let yaml = "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: extra\ndescription: extra\nauthor: test\n\
            severity: low\ncategory: process_creation\nsql: SELECT pid FROM process_events WHERE name = 'x'\n";
        let file = |name: &str| RuleText { name: name.to_owned(), yaml: yaml.to_owned() };
        let request = RulesCheck { files: vec![file("one.yaml"), file("two.yaml")], ..RulesCheck::default() };
        let checked = check(request, Lists::default()).await.unwrap();
        assert!(checked.rules[0].problems.is_empty(), "{checked:?}");
        let problem = &checked.rules[1].problems[0];
        assert!(problem.hint.contains("one.yaml") && problem.hint.contains("two.yaml"), "{problem:?}");
    }

    #[tokio::test]
    async fn a_rule_may_name_the_lists_that_lie_beside_it_and_an_unknown_one_is_told_with_its_place() {
        let text = |name: &str, yaml: &str| RuleText { name: name.to_owned(), yaml: yaml.to_owned() };
        let rule = "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: extra\nseverity: low\n\
            sql: SELECT pid FROM process_events WHERE name IN (list('web_servers'))\n";
        let list = text("l.yaml", "list: web_servers\nvalues: [nginx]\n");
        let files = vec![text("r.yaml", rule)];
        let request = RulesCheck { files: files.clone(), context: vec![list.clone()], run_tests: false };
        assert!(check(request, Lists::default()).await.unwrap().rules[0].problems.is_empty());
        let request = RulesCheck { files: vec![list, files[0].clone()], ..RulesCheck::default() };
        let both = check(request, Lists::default()).await.unwrap().rules;
        assert_eq!((both[0].kind.as_str(), both[0].name.as_str()), ("list", "web_servers"));
        assert!(both[1].problems.is_empty(), "{both:?}");
        let alone = check(RulesCheck { files, ..RulesCheck::default() }, Lists::default()).await.unwrap();
        let problem = &alone.rules[0].problems[0];
        assert_eq!((problem.line, problem.column), (4, 52), "{problem:?}");
        assert_eq!(problem.message, "there is no list web_servers");
    }
}
