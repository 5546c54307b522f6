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

    pub(super) async fn rules_check(&self, request: RulesCheck) -> Result<RulesChecked, Fault> {
        // Thousands of rules are not copied for a file that they do not concern.
        let concerned = request.files.iter().any(|file| file.yaml.contains("override"));
        let loaded = self.worker.as_ref().filter(|_| concerned).map(|worker| worker.rules.loaded());
        check(request, self.lists(), loaded).await
    }
}

/// Parses, plans and, when asked, tests each file; takes none of them. Rules may name the lists in force, those of the request's
/// context, and those among the files themselves; overrides stand beside those of the context, which come before them, and may be of
/// a rule that is `loaded` or in the request. Over a copied store nobody knows what is loaded.
async fn check(check: RulesCheck, in_force: Lists, loaded: Option<Vec<LoadedRule>>) -> Result<RulesChecked, Fault> {
    if check.files.len().saturating_add(check.context.len()) > MAX_FILES {
        return Err(Fault::new(FaultKind::TooLarge, format!("more than {MAX_FILES} rule files: send them in parts")));
    }
    let checked = tokio::task::spawn_blocking(move || {
        let texts = check.context.iter().chain(&check.files).map(|file| (Path::new(&file.name), file.yaml.as_str()));
        let lists = rules::lists_with(&in_force, texts);
        let loaded = loaded.map(|loaded| with_those_of(&check, &lists, loaded));
        let beside = Beside { files: &check.context, lists: &lists, loaded: loaded.as_deref() };
        let mut rules: Vec<RuleCheck> =
            check.files.iter().map(|file| check_file(file, &beside, check.run_tests)).collect();
        refuse_repeated_ids(&mut rules);
        rules
    });
    checked.await.map(|rules| RulesChecked { rules }).map_err(|error| internal(&error))
}

/// What a file is checked beside.
struct Beside<'a> {
    files: &'a [RuleText],
    lists: &'a Lists,
    loaded: Option<&'a [LoadedRule]>,
}

/// The rules that are loaded and those of the request: an override may come with its rule.
fn with_those_of(check: &RulesCheck, lists: &Lists, mut loaded: Vec<LoadedRule>) -> Vec<LoadedRule> {
    for file in check.files.iter().chain(&check.context) {
        if let Ok(Checked::Rule(rule)) = rules::check_file(Path::new(&file.name), &file.yaml, lists) {
            loaded.push(*rule);
        }
    }
    loaded
}

fn check_file(file: &RuleText, beside: &Beside<'_>, run_tests: bool) -> RuleCheck {
    let other = |name: String, kind: &str| RuleCheck {
        name,
        file: file.name.clone(),
        kind: kind.to_owned(),
        ..RuleCheck::default()
    };
    let before = beside.files.iter().map(|other| (Path::new(&other.name), other.yaml.as_str()));
    match rules::check_file_after(Path::new(&file.name), &file.yaml, beside.lists, before, beside.loaded) {
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
        let checked = check(request, Lists::default(), None).await.unwrap();
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
        assert!(check(request, Lists::default(), None).await.unwrap().rules[0].problems.is_empty());
        let request = RulesCheck { files: vec![list, files[0].clone()], ..RulesCheck::default() };
        let both = check(request, Lists::default(), None).await.unwrap().rules;
        assert_eq!((both[0].kind.as_str(), both[0].name.as_str()), ("list", "web_servers"));
        assert!(both[1].problems.is_empty(), "{both:?}");
        let alone = check(RulesCheck { files, ..RulesCheck::default() }, Lists::default(), None).await.unwrap();
        let problem = &alone.rules[0].problems[0];
        assert_eq!((problem.line, problem.column), (4, 52), "{problem:?}");
        assert_eq!(problem.message, "there is no list web_servers");
    }

    #[tokio::test]
    async fn an_override_is_of_a_rule_that_is_loaded_or_comes_with_it_or_nobody_knows() {
        const ID: &str = "3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01";
        let text = |name: &str, yaml: String| RuleText { name: name.to_owned(), yaml };
        let rule = text(
            "rule.yaml",
            format!("id: {ID}\nname: extra\nseverity: low\nsql: SELECT pid FROM process_events WHERE name = 'x'\n"),
        );
        let over = text("over.yaml", format!("override: {ID}\nseverity: high\n"));
        let told = async |context: &[&RuleText], loaded: Option<Vec<LoadedRule>>| {
            let context = context.iter().map(|&text| text.clone()).collect();
            let request = RulesCheck { files: vec![over.clone()], context, run_tests: false };
            check(request, Lists::default(), loaded).await.unwrap().rules.remove(0).problems
        };
        let problems = told(&[], Some(Vec::new())).await;
        assert_eq!((problems.len(), problems[0].line), (1, 1), "{problems:?}");
        assert_eq!(problems[0].message, format!("no rule that is loaded has the id {ID}"), "as a reload says");
        assert!(told(&[&rule], Some(Vec::new())).await.is_empty());
        let loaded = rules::check_file(Path::new("rule.yaml"), &rule.yaml, &Lists::default());
        let Ok(Checked::Rule(loaded)) = loaded else { panic!("{loaded:?}") };
        assert!(told(&[], Some(vec![*loaded])).await.is_empty());
        assert!(told(&[], None).await.is_empty());
    }
}
