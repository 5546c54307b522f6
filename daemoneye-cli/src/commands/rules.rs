//! `rules list, validate, test, reload, new, backtest, explain, coverage, export`.

mod backtest;
mod coverage;
mod explain;
mod export;
mod new;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use daemoneye_lib::exit::Exit;
use daemoneye_lib::frame::OPERATOR_LIMIT_BYTES;
use daemoneye_lib::proto::{
    Empty, Refusal, Row, RuleCheck, RuleText, RulesCheck, operator_request::Verb, operator_response::Answer,
};
use serde_json::{Value as Json, json};

use super::query::{self, Question};
use crate::agent::Session;
use crate::args::Rules;
use crate::error::{CliError, describe};
use crate::render::{self, Format};
use crate::settings::Settings;
use crate::value;

/// Rule packs are a directory of directories; deeper trees are somebody's home directory by mistake.
const MAX_DEPTH: usize = 8;

/// What a request holds beside the texts of its files, in bytes: their names, some hundred of them.
const REQUEST_ROOM_BYTES: usize = 64 * 1024;

/// Files without an answer, after which no further one is asked for: each has waited for a whole deadline.
const MAX_SILENT: usize = 3;

/// What such a file is instead of a rule.
const UNCHECKED: &str = "not checked";
/// What the agent calls a file that changes a rule; its name is that rule's id.
const OVERRIDE: &str = "override";

pub(super) async fn run(verb: Rules, settings: &Settings) -> Result<Exit, CliError> {
    match verb {
        Rules::List => {
            // How a rule fares only a running agent knows.
            let (health, of) = match settings.store {
                Some(_) => ("CAST(NULL AS TEXT) AS health", ""),
                None => ("s.health", " LEFT JOIN rule_stats s ON s.rule_id = r.id"),
            };
            let columns = format!("r.id, r.name, r.severity, r.state, {health}, r.kind, r.version, r.tags, r.file");
            let sql = format!("SELECT {columns} FROM rules r{of} ORDER BY r.name");
            let exit = query::list(settings, Question::new(sql)).await?;
            // No files belong to a copied store.
            if settings.store.is_none() {
                tell_problems(settings).await?;
            }
            Ok(exit)
        }
        Rules::Validate { paths } => check(settings, &paths, false).await,
        Rules::Test { paths } => check(settings, &paths, true).await,
        Rules::Import(import) => super::import::run(&import, settings).await,
        Rules::Reload => reload(settings).await,
        Rules::New(arguments) => new::run(&arguments, settings),
        Rules::Backtest(arguments) => backtest::run(settings, &arguments).await,
        Rules::Explain(arguments) => explain::run(settings, &arguments).await,
        Rules::Coverage(arguments) => coverage::run(settings, &arguments).await,
        Rules::Export { dir } => export::run(settings, &dir).await,
    }
}

/// What was not taken stands in no list of rules.
async fn tell_problems(settings: &Settings) -> Result<(), CliError> {
    let session = Session::open(settings).await?;
    let sql = "SELECT concat(place, ': ', problem, coalesce(' (' || hint || ')', '')) FROM rule_problems ORDER BY file, line, column";
    let problems = query::words(&session, Question::new(sql.to_owned())).await?;
    session.close().await;
    for problem in problems {
        eprintln!("not taken: {problem}");
    }
    Ok(())
}

async fn check(settings: &Settings, paths: &[PathBuf], run_tests: bool) -> Result<Exit, CliError> {
    let (mut files, mut checks) = (Vec::new(), Vec::new());
    for path in paths {
        // What was named has to be there; the rest of a directory is judged file by file.
        if let Err(source) = std::fs::metadata(path)
            && matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        {
            return Err(CliError::Io { what: format!("read {}", path.display()), source });
        }
        collect(path, 0, &mut files, &mut checks)?;
    }
    if files.is_empty() && checks.is_empty() {
        return Err(CliError::NotFound("there is no .yaml file; name rule files or a directory of them".to_owned()));
    }
    // What cannot be read is a problem of that file; the others are checked.
    let mut texts = Vec::with_capacity(files.len());
    for file in &files {
        match text_of(file) {
            Ok(text) => texts.push(text),
            Err(problem) => checks.push(unreadable(file, &problem)),
        }
    }
    let (mut session, mut silent) = (Session::open_anywhere(settings).await?, 0_usize);
    for file in &texts {
        // A file that takes long costs no other one its verdict; an agent that answers none is not asked for ever.
        session.renew();
        checks.extend(match request(file, &texts, paths, run_tests) {
            Ok(_) if silent >= MAX_SILENT => vec![unchecked(file, &format!("{silent} files before it had no answer"))],
            Ok(request) => match check_file(&session, request).await {
                Err(CliError::AgentSilent(error)) => {
                    silent = silent.saturating_add(1);
                    vec![unchecked(file, &error.to_string())]
                }
                checked => checked?,
            },
            Err(too_large) => vec![*too_large],
        });
    }
    let is_started = session.is_started();
    session.close().await;
    let places: BTreeMap<String, usize> =
        (0..).zip(&files).map(|(at, file)| (file.display().to_string(), at)).collect();
    checks.sort_by_key(|check| places.get(&check.file).copied());
    refuse_repeated_ids(&mut checks);
    let notes = if is_started { ruleless(&checks, &texts) } else { BTreeMap::new() };
    print(settings, &checks, &notes, run_tests)
}

/// What was not checked of a file, by file: overrides whose rule is not beside them. An agent that was started for this knows no rules.
fn ruleless(checks: &[RuleCheck], texts: &[RuleText]) -> BTreeMap<String, String> {
    let is_there =
        |id: &str| texts.iter().any(|text| word(text, "id:").is_some_and(|own| own.eq_ignore_ascii_case(id)));
    let overrides = checks.iter().filter(|check| check.kind == OVERRIDE && check.problems.is_empty());
    let note = |check: &RuleCheck| {
        let id = &check.name;
        format!(
            "whether there is a rule with the id {id}; name its file or directory too, or ask where the agent runs"
        )
    };
    overrides.filter(|check| !is_there(&check.name)).map(|check| (check.file.clone(), note(check))).collect()
}

fn unchecked(file: &RuleText, why: &str) -> RuleCheck {
    let problem = Refusal {
        message: format!("not checked: {why}"),
        hint: "raise --deadline-ms, or check it by itself".to_owned(),
        file: file.name.clone(),
        ..Refusal::default()
    };
    RuleCheck { file: file.name.clone(), kind: UNCHECKED.to_owned(), problems: vec![problem], ..RuleCheck::default() }
}

/// Each file was checked alone; together only the first with an id can be in force.
fn refuse_repeated_ids(checks: &mut [RuleCheck]) {
    let mut first_of: BTreeMap<String, String> = BTreeMap::new();
    for check in checks.iter_mut().filter(|check| !check.id.is_empty()) {
        if let Some(first) = first_of.get(&check.id) {
            check.problems.push(Refusal {
                message: format!("the id {} is also that of {first}", check.id),
                hint: format!("give the rule in {} or the one in {first} an id of its own", check.file),
                file: check.file.clone(),
                ..Refusal::default()
            });
        } else {
            first_of.insert(check.id.clone(), check.file.clone());
        }
    }
}

/// One file per request, with the lists that it names and, of an override, its rule and those of the same rule before it in its directory:
/// a request is small, a pack is not. What is too large for one is a problem of that file and of no other.
fn request(
    file: &RuleText,
    all: &[RuleText],
    paths: &[PathBuf],
    run_tests: bool,
) -> Result<RulesCheck, Box<RuleCheck>> {
    let named = |list: &&RuleText| {
        !std::ptr::eq(*list, file) && word(list, "list:").is_some_and(|name| file.yaml.contains(name))
    };
    let overridden = word(file, "override:");
    let (of, before) = (root(file, paths), all.iter().take_while(|other| !std::ptr::eq(*other, file)));
    let beside = |other: &&RuleText| {
        let is_same =
            overridden.is_some_and(|id| word(other, "override:").is_some_and(|other| other.eq_ignore_ascii_case(id)));
        is_same && root(other, paths) == of
    };
    let changed = |other: &&RuleText| {
        overridden.is_some_and(|id| word(other, "id:").is_some_and(|other| other.eq_ignore_ascii_case(id)))
    };
    let context = all.iter().filter(named).chain(all.iter().filter(changed)).chain(before.filter(beside));
    let context: Vec<RuleText> = context.cloned().collect();
    let bytes = |text: &RuleText| text.yaml.len().saturating_add(text.name.len());
    let total = context.iter().map(bytes).fold(bytes(file), usize::saturating_add);
    let room = OPERATOR_LIMIT_BYTES.saturating_sub(REQUEST_ROOM_BYTES);
    if total <= room {
        return Ok(RulesCheck { files: vec![file.clone()], run_tests, context });
    }
    let problem = Refusal {
        message: format!("with the lists that it names it has {total} bytes, and {room} can be checked at once"),
        hint: "one file holds one rule; split the lists, or load them and see rules list".to_owned(),
        file: file.name.clone(),
        ..Refusal::default()
    };
    Err(Box::new(RuleCheck { file: file.name.clone(), problems: vec![problem], ..RuleCheck::default() }))
}

async fn check_file(session: &Session, request: RulesCheck) -> Result<Vec<RuleCheck>, CliError> {
    match session.ask_once(Verb::RulesCheck(request)).await? {
        Answer::RulesChecked(checked) => Ok(checked.rules),
        _ => Err(CliError::AgentAnswer("the result of the check")),
    }
}

/// The text of a rule file: never more than the agent would take, whatever the file turns out to be.
fn text_of(file: &Path) -> std::io::Result<RuleText> {
    let (most, mut yaml) = (OPERATOR_LIMIT_BYTES as u64, String::new());
    File::open(file)?.take(most.saturating_add(1)).read_to_string(&mut yaml).map_err(|problem| {
        // A character that the bound cut in two is no mistake of the text.
        let is_cut = std::fs::metadata(file).is_ok_and(|file| file.len() > most);
        if is_cut { too_large(most) } else { problem }
    })?;
    if yaml.len() as u64 > most {
        return Err(too_large(most));
    }
    Ok(RuleText { name: file.display().to_string(), yaml })
}

fn too_large(most: u64) -> std::io::Error {
    std::io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {most} bytes, and one file holds one rule"))
}

fn unreadable(path: &Path, problem: &std::io::Error) -> RuleCheck {
    let hint = match problem.kind() {
        ErrorKind::InvalidData => "a rule file is text in UTF-8",
        ErrorKind::PermissionDenied => "let this user read it",
        // To what is not there, or in a circle.
        _ if path.is_symlink() && !path.exists() => "the link leads nowhere; mend or remove it",
        ErrorKind::NotFound => "name rule files or a directory of them",
        _ => "",
    };
    let file = path.display().to_string();
    let message = format!("it cannot be read: {problem}");
    let problem = Refusal { message, hint: hint.to_owned(), file: file.clone(), ..Refusal::default() };
    RuleCheck { file, problems: vec![problem], ..RuleCheck::default() }
}

fn irregular(path: &Path) -> RuleCheck {
    let file = path.display().to_string();
    let message = "this is not a regular file".to_owned();
    let problem = Refusal { message, file: file.clone(), ..Refusal::default() };
    RuleCheck { file, problems: vec![problem], ..RuleCheck::default() }
}

/// The rule directory that a file is of: what was named, or where a file that was named lies.
fn root<'a>(file: &'a RuleText, paths: &'a [PathBuf]) -> Option<&'a Path> {
    let path = Path::new(&file.name);
    let named = paths.iter().find(|named| path.starts_with(named))?;
    if named == path { path.parent() } else { Some(named) }
}

/// The value of a field at the start of a line: what a list of the file is called, or which rule it overrides.
fn word<'a>(text: &'a RuleText, field: &str) -> Option<&'a str> {
    let value = text.yaml.lines().find_map(|line| line.strip_prefix(field))?;
    let name = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    (!name.is_empty()).then_some(name)
}

fn print(
    settings: &Settings,
    checks: &[RuleCheck],
    notes: &BTreeMap<String, String>,
    run_tests: bool,
) -> Result<Exit, CliError> {
    let bad = |check: &RuleCheck| !check.problems.is_empty() || check.tests_failed > 0;
    let mut columns = vec!["file", "rule", "result"];
    if run_tests {
        columns.extend(["passed", "failed"]);
    }
    let result = |check: &RuleCheck| match (bad(check), run_tests) {
        (true, _) => verdict(check),
        (false, true) => "passed",
        (false, false) => "valid",
    };
    let cells = |check: &RuleCheck| {
        let mut values =
            vec![value::of_text(&*check.file), value::of_text(&*check.name), value::of_text(result(check))];
        if run_tests {
            values.extend([value::of_number(check.tests_passed), value::of_number(check.tests_failed)]);
        }
        Row { values }
    };
    if matches!(settings.format, Format::Json | Format::JsonLines) {
        let shown = |check: &RuleCheck| object(check, result(check), notes.get(&check.file), run_tests);
        render::objects(settings.format, &checks.iter().map(shown).collect::<Vec<_>>())?;
    } else {
        render::rows(settings.format, &columns, &checks.iter().map(cells).collect::<Vec<_>>())?;
    }
    for (file, note) in notes {
        eprintln!("{UNCHECKED}: {file}: {note}");
    }
    for check in checks.iter().filter(|check| !check.problems.is_empty()) {
        let texts: String = check.problems.iter().map(|problem| describe(problem, None, false)).collect();
        eprintln!("{}:{texts}", verdict(check));
    }
    let bad: Vec<&RuleCheck> = checks.iter().filter(|check| bad(check)).collect();
    Ok(match bad.as_slice() {
        [] => Exit::Ok,
        bad if bad.iter().all(|check| check.kind == UNCHECKED) => Exit::Unreachable,
        _ => Exit::Refused,
    })
}

/// A row for a machine, with what is wrong and where: it does not read standard error.
fn object(check: &RuleCheck, result: &str, unchecked: Option<&String>, run_tests: bool) -> Json {
    let problem = |problem: &Refusal| {
        let Refusal { message, line, column, hint, file } = problem;
        json!({ "file": file, "line": line, "column": column, "message": message, "hint": hint })
    };
    let problems: Vec<Json> = check.problems.iter().map(problem).collect();
    let mut object = json!({ "file": check.file, "rule": check.name, "result": result, "problems": problems });
    if let Some(members) = object.as_object_mut() {
        if run_tests {
            members.insert("passed".to_owned(), check.tests_passed.into());
            members.insert("failed".to_owned(), check.tests_failed.into());
        }
        members.extend(unchecked.map(|note| ("not_checked".to_owned(), json!(note))));
    }
    object
}

/// A rule whose own tests fail is in order as a rule: it would be loaded.
fn verdict(check: &RuleCheck) -> &'static str {
    if check.kind == UNCHECKED {
        return UNCHECKED;
    }
    let failed = usize::try_from(check.tests_failed).unwrap_or(usize::MAX);
    if failed > 0 && check.problems.len() <= failed { "failed" } else { "refused" }
}

async fn reload(settings: &Settings) -> Result<Exit, CliError> {
    let session = Session::open(settings).await?;
    let answer = session.ask_once(Verb::RulesReload(Empty {})).await?;
    session.close().await;
    let Answer::RulesReloaded(reloaded) = answer else {
        return Err(CliError::AgentAnswer("the result of the reload"));
    };
    let counts = [reloaded.loaded, reloaded.added, reloaded.changed, reloaded.removed];
    let row = Row { values: counts.map(value::of_number).to_vec() };
    render::rows(settings.format, &["loaded", "added", "changed", "removed"], &[row])?;
    if reloaded.problems.is_empty() {
        return Ok(Exit::Ok);
    }
    let texts: String = reloaded.problems.iter().map(|problem| describe(problem, None, false)).collect();
    eprintln!("some files are refused; rules that a file of that name held before stay in force:{texts}");
    Ok(Exit::Refused)
}

/// Files as they are named; `*.yaml` and `*.yml` below directories, sorted.
fn collect(
    path: &Path,
    depth: usize,
    files: &mut Vec<PathBuf>,
    problems: &mut Vec<RuleCheck>,
) -> Result<(), CliError> {
    if !path.is_dir() {
        // What was named may be a pipe; one that merely lies there would be waited for without end.
        if depth > 0 && std::fs::metadata(path).is_ok_and(|file| !file.is_file()) {
            problems.push(irregular(path));
        } else {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    if depth > MAX_DEPTH {
        return Err(CliError::Usage(format!("{} lies too deep; name a rule directory", path.display())));
    }
    let listed = std::fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>());
    let mut inner = match listed {
        Ok(inner) => inner,
        Err(problem) => {
            problems.push(unreadable(path, &problem));
            return Ok(());
        }
    };
    inner.sort();
    for path in inner {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let is_rule = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        // A link may lead in a circle; whoever wants its target names it.
        let leads_nowhere = path.is_symlink() && is_rule && !path.exists();
        if !hidden && (leads_nowhere || (!path.is_symlink() && (path.is_dir() || is_rule))) {
            collect(&path, depth + 1, files, problems)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_read_is_a_problem_of_that_file_and_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("a.yaml"), b"name: \xff\xfe\n").unwrap();
        std::fs::write(at("b.yaml"), "name: x\n").unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("c.yaml")).unwrap();
        std::os::unix::fs::symlink(at("circle.yaml"), at("circle.yaml")).unwrap();
        let (mut files, mut problems) = (Vec::new(), Vec::new());
        collect(dir.path(), 0, &mut files, &mut problems).unwrap();
        assert_eq!((&*files, problems.len()), (&["a.yaml", "b.yaml", "c.yaml", "circle.yaml"].map(at)[..], 0));
        let hint = |name: &str| {
            let check = unreadable(&at(name), &text_of(&at(name)).unwrap_err());
            assert_eq!(check.file, at(name).display().to_string());
            check.problems.into_iter().map(|problem| problem.hint).collect::<String>()
        };
        assert!(hint("a.yaml").contains("UTF-8") && hint("c.yaml").contains("leads nowhere"));
        assert_eq!(hint("circle.yaml"), hint("c.yaml"));
        assert!(text_of(&at("b.yaml")).is_ok());
        for filler in ["x", "\u{e9}"] {
            std::fs::write(at("d.yaml"), "x".to_owned() + &filler.repeat(2 * OPERATOR_LIMIT_BYTES)).unwrap();
            let told = unreadable(&at("d.yaml"), &text_of(&at("d.yaml")).unwrap_err());
            assert!(told.problems[0].message.contains("more than 1048576 bytes"), "{told:?}");
        }
        let endless = text_of(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(endless.kind(), ErrorKind::FileTooLarge);
        std::fs::create_dir(at("in")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("in/e.yaml")).unwrap();
        let (mut files, mut problems) = (Vec::new(), Vec::new());
        collect(&at("in"), 0, &mut files, &mut problems).unwrap();
        assert!(files.is_empty() && problems[0].problems[0].message.contains("not a regular file"), "{problems:?}");
    }

    #[test]
    fn a_file_is_checked_with_the_lists_that_it_names_or_said_to_be_too_large_by_itself() {
        let text = |name: &str, yaml: String| RuleText { name: name.to_owned(), yaml };
        let list = |name: &str, bytes: usize| {
            text(
                &format!("{name}.yaml"),
                format!("description: x\nlist: '{name}' # known\nvalues: ['{}']\n", "x".repeat(bytes)),
            )
        };
        let all = [
            text("r.yaml", "sql: SELECT 1 FROM process_events WHERE name IN (list('bad'))\n".to_owned()),
            list("bad", 600_000),
            list("other", 10),
            text("all.yaml", "sql: name IN (list('bad'), list('huge'))\n".to_owned()),
            list("huge", 600_000),
        ];
        let named = |file: &RuleText| -> Vec<String> {
            request(file, &all, &[], false).unwrap().context.into_iter().map(|list| list.name).collect()
        };
        assert_eq!(named(&all[0]), ["bad.yaml"]);
        assert_eq!(named(&all[1]), Vec::<String>::new());
        let too_large = request(&all[3], &all, &[], false).unwrap_err();
        assert_eq!((too_large.file.as_str(), too_large.problems.len()), ("all.yaml", 1));
    }

    #[test]
    fn an_override_is_checked_with_its_rule_and_without_one_that_is_said() {
        let text = |name: &str, yaml: &str| RuleText { name: name.to_owned(), yaml: yaml.to_owned() };
        let all =
            [text("over.yaml", "override: A1\n"), text("rule.yaml", "id: a1 # known\n"), text("b.yaml", "id: b2\n")];
        let sent = request(&all[0], &all, &["over.yaml".into(), "rule.yaml".into()], false).unwrap().context;
        assert_eq!(sent.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["rule.yaml"]);
        let check = RuleCheck {
            file: "over.yaml".to_owned(),
            name: "a1".to_owned(),
            kind: OVERRIDE.to_owned(),
            ..RuleCheck::default()
        };
        assert!(ruleless(std::slice::from_ref(&check), &all).is_empty());
        let notes = ruleless(std::slice::from_ref(&check), &all[2..]);
        assert!(notes["over.yaml"].starts_with("whether there is a rule with the id a1"), "{notes:?}");
        let shown = object(&check, "valid", notes.get("over.yaml"), false);
        assert_eq!((&shown["not_checked"], shown.get("passed")), (&json!(notes["over.yaml"]), None));
    }

    #[test]
    fn an_override_is_checked_beside_those_of_its_rule_that_come_before_it_in_its_directory() {
        let text = |name: &str, id: &str| RuleText { name: name.to_owned(), yaml: format!("override: {id}\n") };
        let all = [
            text("vendor/a.yaml", "a1"),
            text("local/b.yaml", "a1"),
            text("local/c.yaml", "b2"),
            text("local/in/d.yaml", "'A1' # again"),
            text("local/e.yaml", "a1"),
            text("other.yaml", "a1"),
        ];
        let paths = ["vendor", "local", "other.yaml"].map(PathBuf::from);
        let beside = |file: &RuleText| -> Vec<String> {
            request(file, &all, &paths, false).unwrap().context.into_iter().map(|other| other.name).collect()
        };
        assert_eq!(beside(&all[4]), ["local/b.yaml", "local/in/d.yaml"]);
        assert_eq!(beside(&all[1]), Vec::<String>::new());
        assert_eq!(beside(&all[5]), Vec::<String>::new());
    }
}
