//! `rules coverage`: which tactics and techniques of ATT&CK the loaded rules name. For a person by tactic, for machines by
//! technique, and as a layer for the ATT&CK Navigator.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{Row, operator_request::Verb, operator_response::Answer};
use serde_json::{Value as Json, json};

use super::super::query::{self, Question};
use crate::agent::Session;
use crate::args::RulesCoverage;
use crate::error::CliError;
use crate::private::NewFile;
use crate::render;
use crate::settings::Settings;
use crate::value;

/// The tactics in the order of ATT&CK, as they stand in tags.
const TACTICS: [&str; 14] = [
    "reconnaissance",
    "resource_development",
    "initial_access",
    "execution",
    "persistence",
    "privilege_escalation",
    "defense_evasion",
    "credential_access",
    "discovery",
    "lateral_movement",
    "collection",
    "command_and_control",
    "exfiltration",
    "impact",
];
/// Versions of the layer's format and of the Navigator that reads it.
const LAYER: &str = "4.5";
const NAVIGATOR: &str = "5.1.0";

/// What the tags of the active rules say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Coverage {
    rules: usize,
    untagged: Vec<String>,
    tactics: BTreeMap<String, Covered>,
    techniques: BTreeMap<String, BTreeSet<String>>,
}

/// What one tactic has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Covered {
    rules: BTreeSet<String>,
    /// Of rules that name no other tactic, so they belong to this one.
    techniques: BTreeSet<String>,
    /// Of rules that name others too: tags do not say to which of them each technique belongs, and ATT&CK's matrix is not part of this
    /// program.
    shared: BTreeSet<String>,
}

impl Covered {
    /// What may belong to it, beside what does.
    fn perhaps(&self) -> impl Iterator<Item = &str> {
        self.shared.difference(&self.techniques).map(String::as_str)
    }
}

pub(super) async fn run(settings: &Settings, arguments: &RulesCoverage) -> Result<Exit, CliError> {
    let session = Session::open(settings).await?;
    let rules = rules(&session).await?;
    session.close().await;
    let coverage = Coverage::of(&rules);
    if let Some(path) = &arguments.navigator {
        write(path, &coverage.layer())?;
        eprintln!("open {} in the ATT&CK Navigator: Open Existing Layer, Upload from local", path.display());
    }
    if arguments.techniques {
        coverage.print_techniques(settings)?;
    } else {
        coverage.print_tactics(settings)?;
        if coverage.tactics.values().any(|covered| covered.perhaps().next().is_some()) {
            eprintln!(
                "perhaps: techniques of rules that name several tactics, under each of them; which they belong to the matrix of the \
                 ATT&CK Navigator shows (--navigator FILE)"
            );
        }
    }
    let named = coverage.tactics.len();
    eprintln!(
        "{} active rules name {} techniques in {named} of {} tactics",
        coverage.rules,
        coverage.techniques.len(),
        TACTICS.len()
    );
    if !coverage.untagged.is_empty() {
        eprintln!("without a tag of ATT&CK: {}", coverage.untagged.join(", "));
    }
    Ok(Exit::Ok)
}

/// Names and tags of the active rules.
async fn rules(session: &Session) -> Result<Vec<(String, String)>, CliError> {
    let question = Question::new("SELECT name, tags FROM rules WHERE state = 'active' ORDER BY name".to_owned());
    let mut answers = session.ask(Verb::Query(query::request(session, &question))).await?;
    let mut rules = Vec::new();
    while let Some(response) = answers.next().await? {
        match response.answer {
            Some(Answer::Page(page)) => rules.extend(page.rows.iter().filter_map(|row| match row.values.as_slice() {
                [name, tags] => Some((value::text(name), value::text(tags))),
                _ => None,
            })),
            Some(Answer::QueryDone(_)) => return Ok(rules),
            _ => return Err(CliError::AgentAnswer("the rules")),
        }
    }
    Err(CliError::AgentAnswer("the end of the rules"))
}

impl Coverage {
    fn of(rules: &[(String, String)]) -> Self {
        let mut coverage = Self { rules: rules.len(), ..Self::default() };
        for (name, tags) in rules {
            coverage.take(name, tags);
        }
        coverage
    }

    fn take(&mut self, name: &str, tags: &str) {
        let tags: Vec<String> =
            tags.split(',').filter_map(|tag| Some(tag.trim().strip_prefix("attack.")?.to_ascii_lowercase())).collect();
        let (techniques, tactics): (Vec<_>, Vec<_>) = tags.into_iter().partition(|tag| is_technique(tag));
        if techniques.is_empty() && tactics.is_empty() {
            self.untagged.push(name.to_owned());
        }
        let techniques: Vec<String> = techniques.iter().map(|tag| tag.to_ascii_uppercase()).collect();
        let tactics: BTreeSet<String> = tactics.iter().map(|tactic| tactic.replace('-', "_")).collect();
        let is_one = tactics.len() == 1;
        for tactic in tactics {
            let covered = self.tactics.entry(tactic).or_default();
            covered.rules.insert(name.to_owned());
            let of = if is_one { &mut covered.techniques } else { &mut covered.shared };
            of.extend(techniques.iter().cloned());
        }
        for technique in techniques {
            self.techniques.entry(technique).or_default().insert(name.to_owned());
        }
    }

    fn print_tactics(&self, settings: &Settings) -> Result<(), CliError> {
        let none = Covered::default();
        // Words that ATT&CK does not have come last, so that a typing error is seen.
        let others = self.tactics.keys().map(String::as_str).filter(|tactic| !TACTICS.contains(tactic));
        let row = |tactic: &str| {
            let covered = self.tactics.get(tactic).unwrap_or(&none);
            let techniques: Vec<&str> = covered.techniques.iter().map(String::as_str).collect();
            let perhaps: Vec<&str> = covered.perhaps().collect();
            Row {
                values: vec![
                    value::of_text(tactic),
                    value::of_number(covered.rules.len()),
                    value::of_number(techniques.len()),
                    value::of_text(techniques.join(" ")),
                    value::of_text(perhaps.join(" ")),
                ],
            }
        };
        let rows: Vec<Row> = TACTICS.into_iter().chain(others).map(row).collect();
        render::rows(settings.format, &["tactic", "rules", "techniques", "technique_ids", "perhaps"], &rows)
    }

    fn print_techniques(&self, settings: &Settings) -> Result<(), CliError> {
        let row = |(technique, rules): (&String, &BTreeSet<String>)| {
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            let count = value::of_number(rules.len());
            Row { values: vec![value::of_text(technique.as_str()), count, value::of_text(rules.join("; "))] }
        };
        let rows: Vec<Row> = self.techniques.iter().map(row).collect();
        render::rows(settings.format, &["technique", "rules", "rule_names"], &rows)
    }

    /// A layer: the score of a technique is the number of its rules.
    fn layer(&self) -> Json {
        let most = self.techniques.values().map(BTreeSet::len).max().unwrap_or_default();
        let techniques = self.techniques.iter().map(|(technique, rules)| {
            let comment = rules.iter().map(String::as_str).collect::<Vec<_>>().join("; ");
            json!({ "techniqueID": technique, "score": rules.len(), "comment": comment, "enabled": true })
        });
        json!({
            "name": "DaemonEye",
            "versions": { "layer": LAYER, "navigator": NAVIGATOR },
            "domain": "enterprise-attack",
            "description": format!("What the {} active rules of this agent name.", self.rules),
            "filters": { "platforms": ["Linux"] },
            "gradient": { "colors": ["#d9f0d3", "#1b7837"], "minValue": 1, "maxValue": most.max(2) },
            "techniques": techniques.collect::<Vec<_>>(),
        })
    }
}

/// `t1059` or `t1059.004`.
fn is_technique(tag: &str) -> bool {
    let rest = tag.strip_prefix('t').unwrap_or_default();
    let (main, sub) = rest.split_once('.').map_or((rest, None), |(main, sub)| (main, Some(sub)));
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(main, 4) && sub.is_none_or(|sub| digits(sub, 3))
}

fn write(path: &Path, layer: &Json) -> Result<(), CliError> {
    let io = |what: &str| {
        let what = format!("{what} {}; name another file", path.display());
        move |source| CliError::Io { what, source }
    };
    let text = serde_json::to_string_pretty(layer).map_err(std::io::Error::other).map_err(io("write"))?;
    let file = NewFile::create(path).map_err(io("create"))?;
    file.writer().and_then(|mut writer| writer.write_all(text.as_bytes())).map_err(io("write"))?;
    file.keep().map_err(io("sync"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coverage() -> Coverage {
        let rule = |name: &str, tags: &str| (name.to_owned(), tags.to_owned());
        Coverage::of(&[
            rule("a", "attack.execution,attack.t1059.004, attack.persistence"),
            rule("b", "attack.execution,attack.T1059.004,attack.t1105"),
            rule("c", "own.tag"),
        ])
    }

    #[test]
    fn a_technique_is_counted_under_a_tactic_only_where_a_rule_names_no_other() {
        let coverage = coverage();
        let execution = &coverage.tactics["execution"];
        assert_eq!((execution.rules.len(), execution.techniques.len()), (2, 2));
        assert_eq!(execution.perhaps().count(), 0, "it belongs here, by the other rule");
        let persistence = &coverage.tactics["persistence"];
        assert_eq!((persistence.rules.len(), persistence.techniques.len()), (1, 0));
        assert_eq!(persistence.perhaps().collect::<Vec<_>>(), ["T1059.004"]);
        assert_eq!(coverage.techniques["T1059.004"].len(), 2);
        assert_eq!(coverage.untagged, ["c"]);
    }

    #[test]
    fn a_layer_scores_each_technique_by_its_rules() {
        let layer = coverage().layer();
        assert_eq!(layer["domain"], "enterprise-attack");
        assert_eq!(layer["techniques"][0]["techniqueID"], "T1059.004");
        assert_eq!(layer["techniques"][0]["score"], 2);
        assert_eq!(layer["techniques"].as_array().unwrap().len(), 2);
    }
}
