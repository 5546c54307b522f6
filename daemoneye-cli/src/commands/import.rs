//! `rules import --sigma`: the agent's program converts, this command writes the rule files and tells what became of each rule.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;

use daemoneye_lib::exit::Exit;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::args::Import;
use crate::error::CliError;
use crate::render::{self, Format};
use crate::settings::Settings;
use crate::tool;

/// The verdicts in the order of the report.
const VERDICTS: [&str; 4] = ["compiled", "partial", "inert", "refused"];

pub(super) async fn run(import: &Import, settings: &Settings) -> Result<Exit, CliError> {
    let mut arguments = vec![OsString::from("import")];
    arguments.extend(tool::flag("--sigma", &import.sigma));
    arguments.extend(import.lists.iter().flat_map(|path| tool::flag("--lists", path)));
    let mut child = tool::start(arguments, Stdio::piped(), settings)?;
    let mut rules = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).lines();
        let broken = |source| CliError::Io { what: "read what became of the rules".to_owned(), source };
        while let Some(line) = lines.next_line().await.map_err(broken)? {
            let rule: Value = serde_json::from_str(&line).map_err(|_| CliError::AgentAnswer("converted rules"))?;
            rules.push(rule);
        }
    }
    let exit = tool::ended(&mut child).await?;
    if !matches!(exit, Exit::Ok | Exit::Degraded) {
        return Ok(exit);
    }
    if rules.is_empty() {
        let from = import.sigma.display();
        return Err(CliError::NotFound(format!(
            "there is no rule in {from}; name a Sigma rule or a directory of them"
        )));
    }
    if let Some(dir) = &import.output {
        let written = write(dir, &mut rules)?;
        let dir = dir.display();
        eprintln!("{written} rule files below {dir}; look at them: daemoneye-cli rules validate {dir}");
    }
    render::document(settings.format, &report(&rules, settings.format))?;
    Ok(exit)
}

/// Writes the rule files; what a former import wrote there under the same name is replaced.
fn write(dir: &Path, rules: &mut [Value]) -> Result<usize, CliError> {
    let (mut taken, mut written) = (BTreeSet::new(), 0_usize);
    for rule in rules {
        let (Some(below), Some(yaml)) = (below(rule), rule.get("yaml").and_then(Value::as_str)) else { continue };
        let below = if taken.insert(below.clone()) { below } else { other_name(&below, rule) };
        let path = dir.join(&below);
        let io = |source| CliError::Io { what: format!("write {}", path.display()), source };
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(io)?;
        std::fs::write(&path, yaml).map_err(io)?;
        written = written.saturating_add(1);
        if let Some(members) = rule.as_object_mut() {
            members.insert("output".to_owned(), json!(path));
        }
    }
    Ok(written)
}

/// Where the rule goes below the directory; never out of it.
fn below(rule: &Value) -> Option<PathBuf> {
    let below = PathBuf::from(rule.get("output")?.as_str()?);
    below.components().all(|part| matches!(part, Component::Normal(_))).then_some(below)
}

/// Two files that differ only in the end of their names.
fn other_name(below: &Path, rule: &Value) -> PathBuf {
    let stem = below.file_stem().unwrap_or_default().to_string_lossy();
    let id = rule.get("id").and_then(Value::as_str).unwrap_or_default();
    below.with_file_name(format!("{stem}-{id}.yaml"))
}

/// Counts, reasons by how often they were given, and the rules; a person sees only those that are not as they were.
fn report(rules: &[Value], format: Format) -> Value {
    let verdict = |rule: &Value| rule.get("verdict").and_then(Value::as_str).unwrap_or_default().to_owned();
    let counts: Map<String, Value> = VERDICTS
        .iter()
        .map(|word| ((*word).to_owned(), json!(rules.iter().filter(|rule| verdict(rule) == *word).count())))
        .collect();
    let mut reasons: BTreeMap<(String, String), usize> = BTreeMap::new();
    for rule in rules {
        let told = rule.get("reasons").and_then(Value::as_array).into_iter().flatten();
        for message in told.filter_map(|reason| reason.get("message").and_then(Value::as_str)) {
            let count = reasons.entry((verdict(rule), message.to_owned())).or_default();
            *count = count.saturating_add(1);
        }
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let reasons: Vec<Value> = reasons
        .into_iter()
        .map(|((verdict, reason), count)| json!({ "verdict": verdict, "count": count, "reason": reason }))
        .collect();
    let for_a_person = matches!(format, Format::Table | Format::Line);
    let shown = rules.iter().filter(|rule| !for_a_person || verdict(rule) != "compiled").cloned().map(|mut rule| {
        if let Some(members) = rule.as_object_mut() {
            members.remove("yaml");
            if for_a_person {
                members.retain(|name, _| matches!(name.as_str(), "file" | "reasons" | "title" | "verdict"));
                if let Some(reasons) = members.get_mut("reasons") {
                    *reasons = in_words(reasons).into();
                }
            }
        }
        rule
    });
    json!({ "rules": shown.collect::<Vec<_>>(), "reasons": reasons, "counts": counts })
}

/// Each reason with its line and column, where it has them.
fn in_words(reasons: &Value) -> String {
    let word = |reason: &Value| {
        let message = reason.get("message").and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| reason.get(name).and_then(Value::as_u64).unwrap_or_default();
        match (number("line"), number("column")) {
            (0, _) => message.to_owned(),
            (line, column) => format!("{line}:{column}: {message}"),
        }
    };
    reasons.as_array().into_iter().flatten().map(word).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_verdicts_and_reasons() {
        let of = |verdict: &str, reason: &str| json!({ "verdict": verdict, "reasons": [{ "line": 1, "column": 3, "message": reason }], "yaml": "x", "title": "t" });
        let rules = [of("inert", "a"), of("inert", "a"), of("refused", "b"), json!({ "verdict": "compiled" })];
        let report = report(&rules, Format::Json);
        assert_eq!(report["counts"], json!({ "compiled": 1, "partial": 0, "inert": 2, "refused": 1 }));
        assert_eq!(report["reasons"][0], json!({ "verdict": "inert", "count": 2, "reason": "a" }));
        assert_eq!(report["rules"].as_array().unwrap().len(), 4);
        assert!(report["rules"][0].get("yaml").is_none());
        let mut told = rules[2].clone();
        told["reasons"] =
            json!([{ "line": 8, "column": 5, "message": "b" }, { "line": 0, "column": 0, "message": "c" }]);
        let told = super::report(&[told], Format::Table);
        assert_eq!(told["rules"][0]["reasons"], "8:5: b; c");
    }

    #[test]
    fn a_rule_is_never_written_outside_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let rule = |output: &str| json!({ "output": output, "yaml": "y", "id": "7" });
        let mut rules = [rule("../a.yaml"), rule("/a.yaml"), rule("b/c.yaml"), rule("b/c.yaml")];
        assert_eq!(write(&out, &mut rules).unwrap(), 2);
        assert!(!dir.path().join("a.yaml").exists());
        assert!(out.join("b/c.yaml").exists() && out.join("b/c-7.yaml").exists());
    }
}
