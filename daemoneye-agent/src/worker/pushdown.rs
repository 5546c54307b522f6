//! What collectors may leave out because no rule in force reads it.
//!
//! A collector that announces the selection of columns is rehearsed first: it answers vectors of which the right answers are known
//! here, and only one that answers all of them is told what the rules need, after each load again. Nothing is left to it beyond that:
//! every event comes, and a rule that reads a column gets it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use daemoneye_lib::columns::process_event_column;
use daemoneye_lib::proto::{
    CollectorRequest, ColumnSelection, DetectionResult, DetectionTask, Register, TaskType, collector_request::Verb,
    collector_response::Answer,
};

use super::{Worker, rules};

/// How long a collector may take to answer: it looks nothing up.
const DEADLINE: Duration = Duration::from_secs(10);
/// What the columns of hashes say about the algorithm.
const ALGORITHM: &str = "sha256";

/// How it stands with one collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pushdown {
    /// It answered a vector wrongly, so it is told nothing and does all that its settings say.
    Refused(String),
    /// It does what the rules need; what it leaves empty.
    Selected(Vec<String>),
}

/// A selection, an executable, and its hash where the selection has one.
struct Vector {
    columns: &'static [&'static str],
    content: &'static [u8],
    hash: Option<&'static str>,
}

/// The hashes are those of FIPS 180-4's examples.
const VECTORS: &[Vector] = &[
    Vector { columns: &[], content: b"abc", hash: None },
    Vector { columns: &["pid", "command_line", "user"], content: b"", hash: None },
    Vector {
        columns: &["executable_hash"],
        content: b"abc",
        hash: Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    },
    Vector {
        columns: &["name", "hash_status"],
        content: b"",
        hash: Some("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    },
];

impl Vector {
    /// Nothing that was asked for is left out, and a hash is the hash.
    fn judge(&self, result: &DetectionResult) -> Result<(), String> {
        if !result.success {
            return Err(format!("it cannot answer: {}", result.error));
        }
        let asked = self.columns.join(", ");
        if let Some(column) = result.left_empty.iter().find(|column| process_event_column(column).is_none()) {
            return Err(format!("it would leave out {column}, and there is no such column"));
        }
        if let Some(column) = result.left_empty.iter().find(|column| self.columns.contains(&column.as_str())) {
            return Err(format!("asked for {asked} it would leave out {column}"));
        }
        let hash = result.hash.as_ref().map(|hash| (hash.algorithm.as_str(), hash.hash.as_str()));
        match self.hash {
            Some(expected) if hash != Some((ALGORITHM, expected)) => {
                Err(format!("asked for {asked} it does not hash as {ALGORITHM} does"))
            }
            _ => Ok(()),
        }
    }
}

/// Rehearses a collector that has registered, and tells it what the rules need.
pub(super) async fn greet(worker: &Arc<Worker>, register: &Register) {
    let tasks = register.capabilities.as_ref().map(|capabilities| capabilities.tasks.as_slice()).unwrap_or_default();
    if !tasks.contains(&i32::from(TaskType::SelectColumns)) {
        return;
    }
    let id = &register.collector_id;
    for vector in VECTORS {
        let columns = vector.columns.iter().map(ToString::to_string).collect();
        let result = select(worker, id, columns, Some(vector.content)).await;
        if let Err(why) = result.and_then(|result| vector.judge(&result)) {
            tracing::warn!(collector = %id, why, "failed its conformance vectors; it is not told what the rules need");
            return worker.roster.pushed(id, Pushdown::Refused(why));
        }
    }
    worker.roster.pushed(id, Pushdown::Selected(Vec::new()));
    // Rules that are not loaded yet are told when they are.
    if !worker.is_late() {
        push(worker).await;
    }
}

/// Tells the collectors that can be told what the rules in force need.
pub(super) async fn push(worker: &Arc<Worker>) {
    // The one that asks last tells last.
    let _one_at_a_time = worker.pushing.lock().await;
    for id in worker.roster.selecting() {
        let needed = worker.rules.read(|loaded, _, _| {
            let running = loaded.iter().filter(|rule| rules::runs(rule));
            running.flat_map(|rule| rule.reads()).collect::<BTreeSet<_>>()
        });
        let columns: Vec<String> = needed.into_iter().map(ToOwned::to_owned).collect();
        match select(worker, &id, columns, None).await {
            Ok(result) if result.success => {
                tracing::debug!(collector = %id, left_empty = ?result.left_empty, "told what the rules need");
                worker.roster.pushed(&id, Pushdown::Selected(result.left_empty));
            }
            Ok(result) => tracing::warn!(collector = %id, error = result.error, "does not take what the rules need"),
            Err(error) => tracing::warn!(collector = %id, error, "was not told what the rules need"),
        }
    }
}

async fn select(
    worker: &Worker,
    id: &str,
    columns: Vec<String>,
    rehearsal: Option<&[u8]>,
) -> Result<DetectionResult, String> {
    let task = DetectionTask {
        task_id: "columns".to_owned(),
        task_type: TaskType::SelectColumns.into(),
        selection: Some(ColumnSelection { columns, rehearsal: rehearsal.map(<[u8]>::to_vec) }),
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
    use super::*;
    use daemoneye_lib::proto::HashResult;

    #[test]
    fn a_collector_that_leaves_out_what_is_asked_for_or_hashes_otherwise_fails_its_vectors() {
        let answer = |left_empty: &[&str], algorithm: &str, hash: &str| DetectionResult {
            success: true,
            left_empty: left_empty.iter().map(ToString::to_string).collect(),
            hash: Some(HashResult { algorithm: algorithm.into(), hash: hash.into(), ..HashResult::default() }),
            ..DetectionResult::default()
        };
        let hashes = ["executable_hash", "hash_algorithm", "hash_status"];
        for vector in VECTORS {
            let left_empty: &[&str] = if vector.hash.is_some() { &[] } else { &hashes };
            vector.judge(&answer(left_empty, ALGORITHM, vector.hash.unwrap_or_default())).unwrap();
        }
        let [.., abc, _] = VECTORS else { panic!() };
        let right = abc.hash.unwrap();
        for (wrong, why) in [
            (answer(&hashes, ALGORITHM, right), "would leave out executable_hash"),
            (answer(&[], "sha512", right), "does not hash as sha256"),
            (answer(&[], ALGORITHM, &right.replace("ba", "ab")), "does not hash as sha256"),
            (answer(&["nothing"], ALGORITHM, right), "no such column"),
            (DetectionResult { error: "no".into(), ..DetectionResult::default() }, "cannot answer: no"),
        ] {
            let told = abc.judge(&wrong).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
