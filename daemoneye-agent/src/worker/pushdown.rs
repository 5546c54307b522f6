//! What collectors may leave out because no rule in force reads it.
//!
//! A collector that announces the selection of columns is rehearsed first: it answers vectors of which the right answers are known
//! here, and only one that answers all of them is told what the rules need, after each load again. What it may leave out is narrowed
//! by the paths of executables, as far as it announces the questions. Nothing is left to it beyond that: every event comes, and a
//! rule that reads a column gets it wherever it can match.

mod vectors;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use daemoneye_engine::detect::LoadedRule;
use daemoneye_lib::proto::{
    CollectionCapabilities, CollectorRequest, ColumnSelection, DetectionResult, DetectionTask, PathTest, Register,
    TaskType, collector_request::Verb, collector_response::Answer,
};

use super::{Worker, rules};

/// How long a collector may take to answer: it looks nothing up.
const DEADLINE: Duration = Duration::from_secs(10);
/// Tests of a path that a collector is given at most; it asks them all for each exec, so beyond them it reads everything.
const MAX_TESTS: usize = 256;

/// How it stands with one collector.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Pushdown {
    /// It answered a vector wrongly, so it is told nothing and does all that its settings say.
    Refused(String),
    /// It does what the rules need.
    Selected(Selected),
}

/// What a collector does for rules.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Selected {
    /// The columns that it can leave empty.
    pub(crate) optional: Vec<String>,
    /// Those that it does leave empty.
    pub(crate) left_empty: Vec<String>,
    /// Where it fills the others of them; none: everywhere.
    pub(crate) only_where: Vec<PathTest>,
}

impl fmt::Display for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.left_empty.is_empty() {
            return write!(f, "leaves out {}: no rule in force reads it", self.left_empty.join(", "));
        }
        if self.only_where.is_empty() {
            return f.write_str("leaves out nothing");
        }
        let tests: Vec<String> = self.only_where.iter().map(ToString::to_string).collect();
        write!(f, "fills {} only where {}", self.optional.join(", "), tests.join(" or "))
    }
}

impl fmt::Display for Pushdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "leaves out nothing: it failed its conformance vectors: {why}"),
            Self::Selected(selected) => selected.fmt(f),
        }
    }
}

/// Rehearses a collector that has registered, and tells it what the rules need.
pub(super) async fn greet(worker: &Arc<Worker>, register: &Register) {
    let Some(can) = &register.capabilities else { return };
    if !can.tasks.contains(&TaskType::SelectColumns.into()) {
        return;
    }
    let id = &register.collector_id;
    match rehearse(worker, id, can).await {
        Ok(optional) => worker.roster.pushed(id, Pushdown::Selected(Selected { optional, ..Selected::default() })),
        Err(why) => {
            tracing::warn!(collector = %id, why, "failed its conformance vectors; it is not told what the rules need");
            return worker.roster.pushed(id, Pushdown::Refused(why));
        }
    }
    // Rules that are not loaded yet are told when they are.
    if !worker.is_late() {
        push(worker).await;
    }
}

/// Returns what it can leave empty.
async fn rehearse(worker: &Worker, id: &str, can: &CollectionCapabilities) -> Result<Vec<String>, String> {
    let mut optional = Vec::new();
    for vector in vectors::of(can) {
        let result = select(worker, id, vector.selection()).await?;
        vector.judge(&result)?;
        optional.extend(result.left_empty);
    }
    optional.sort_unstable();
    optional.dedup();
    Ok(optional)
}

/// Tells the collectors that can be told what the rules in force need.
pub(super) async fn push(worker: &Arc<Worker>) {
    // The one that asks last tells last.
    let _one_at_a_time = worker.pushing.lock().await;
    for (id, can, optional) in worker.roster.selecting() {
        let selection = worker.rules.read(|loaded, _, _| needed(loaded, &can, &optional));
        let only_where = selection.only_where.clone();
        match select(worker, &id, selection).await {
            Ok(result) if result.success => {
                let selected = Selected { optional, left_empty: result.left_empty, only_where };
                tracing::debug!(collector = %id, %selected, "told what the rules need");
                worker.roster.pushed(&id, Pushdown::Selected(selected));
            }
            Ok(result) => tracing::warn!(collector = %id, error = result.error, "does not take what the rules need"),
            Err(error) => tracing::warn!(collector = %id, error, "was not told what the rules need"),
        }
    }
}

/// What the rules that run read, and where they read what a collector can leave empty.
fn needed(loaded: &[LoadedRule], can: &CollectionCapabilities, optional: &[String]) -> ColumnSelection {
    let (mut columns, mut paths) = (BTreeSet::new(), Some(Vec::new()));
    for rule in loaded.iter().filter(|rule| rules::runs(rule)) {
        let reads = rule.reads();
        if optional.iter().any(|column| reads.contains(column.as_str())) {
            paths = paths.zip(rule.paths()).map(|(before, own)| [before, own].concat());
        }
        columns.extend(reads);
    }
    let mut only_where = paths.unwrap_or_default();
    only_where.sort_unstable_by(|left, right| (left.question, &left.text).cmp(&(right.question, &right.text)));
    only_where.dedup();
    let is_asked = |test: &PathTest| can.path_questions.contains(&test.question);
    if only_where.len() > MAX_TESTS || !only_where.iter().all(is_asked) {
        only_where.clear();
    }
    let columns = columns.into_iter().map(ToOwned::to_owned).collect();
    ColumnSelection { columns, only_where, ..ColumnSelection::default() }
}

async fn select(worker: &Worker, id: &str, selection: ColumnSelection) -> Result<DetectionResult, String> {
    let task = DetectionTask {
        task_id: "columns".to_owned(),
        task_type: TaskType::SelectColumns.into(),
        selection: Some(selection),
        ..DetectionTask::default()
    };
    let request = CollectorRequest { verb: Some(Verb::ExecuteTask(task)) };
    match worker.broker.call(id, request, DEADLINE).await.map_err(|error| error.to_string())?.answer {
        Some(Answer::Task(result)) => Ok(result),
        _ => Err("it answers something else".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use daemoneye_engine::detect::rules::parse;
    use daemoneye_lib::proto::PathQuestion;

    fn rule(number: u32, select: &str) -> LoadedRule {
        let yaml = format!(
            "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7{number:03}\nname: a rule\nseverity: low\nsql: SELECT {select}\n"
        );
        parse(Path::new("pack/rule.yaml"), &yaml).unwrap()
    }

    fn only_where(rules: &[&str], questions: &[PathQuestion]) -> Vec<String> {
        let rules: Vec<LoadedRule> = (0..).zip(rules).map(|(number, select)| rule(number, select)).collect();
        let path_questions = questions.iter().map(|question| (*question).into()).collect();
        let can = CollectionCapabilities { path_questions, ..CollectionCapabilities::default() };
        let selection = needed(&rules, &can, &["executable_hash".to_owned(), "hash_status".to_owned()]);
        selection.only_where.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_collector_is_told_where_hashes_are_read_only_when_every_rule_and_it_itself_can_tell() {
        const ALL: [PathQuestion; 3] = [PathQuestion::Contains, PathQuestion::Equals, PathQuestion::BaseName];
        let temporary = "executable_hash FROM process_events WHERE executable_path LIKE '/tmp/%' AND uid = 0";
        let sudo = "pid FROM process_events WHERE executable_path = '/usr/bin/sudo' AND executable_hash <> 'x'";
        let plain = "pid FROM process_events WHERE name = 'x'";
        let everywhere = "pid FROM process_events WHERE executable_hash = 'x'";
        let window = "user, count(*) AS n FROM process_events WHERE executable_path LIKE '/srv/%' \
                      GROUP BY user HAVING max(executable_hash) <> 'x'\nwindow: 1m";
        assert_eq!(
            only_where(&[temporary, sudo, plain, window], &ALL),
            [
                "executable_path contains \"/srv/\"",
                "executable_path contains \"/tmp/\"",
                "executable_path is \"/usr/bin/sudo\""
            ]
        );
        assert!(only_where(&[temporary, sudo, everywhere], &ALL).is_empty());
        assert!(only_where(&[temporary, sudo], &[PathQuestion::Contains]).is_empty(), "one that it does not announce");
        assert_eq!(only_where(&[temporary, plain], &[PathQuestion::Contains]).len(), 1);
        assert!(only_where(&[plain], &ALL).is_empty());
        let listed: Vec<String> = (0..=MAX_TESTS).map(|number| format!("'/opt/{number}'")).collect();
        let many = format!("executable_hash FROM process_events WHERE executable_path IN ({})", listed.join(", "));
        assert!(only_where(&[&many], &ALL).is_empty(), "more than it is given");
    }
}
