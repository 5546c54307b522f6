//! Sigma rules as they are written, events as Windows and we name them, and the answers that the specification gives. Every case is
//! decided by the row matcher and by DataFusion.

mod cases;
mod chains;
mod conditions;
mod correlations;
mod events;
mod hunts;
mod judge;
mod verdicts;
mod written;

use std::path::Path;

use daemoneye_engine::hunt::{Hunt, Line, Lines, Rows};
use daemoneye_engine::sigma::{Conversion, Lists, RuleFile, Verdict, convert};
use daemoneye_engine::sql::{check, evaluate};

/// A rule about `process_creation` on Windows with this detection.
pub(super) fn rule(detection: &str) -> String {
    let detection: String = detection.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "title: case\nid: 8d5f1f6e-6d0a-4c9b-9d6b-2f6f0c1a7e11\nlogsource: {{category: process_creation, product: windows}}\n\
         detection:\n{detection}"
    )
}

pub(super) fn lists() -> Lists {
    let list =
        |name: &str, values: &[&str]| (name.to_owned(), values.iter().map(|value| (*value).to_owned()).collect());
    Lists::from([list("admins", &["root", "adm*"]), list("tools", &["nmap", "nc.exe"]), list("empty", &[])])
}

pub(super) fn converted(rule: &str) -> Conversion {
    let mut all = convert(&[file("case.yml", rule)], &lists());
    assert_eq!(all.len(), 1, "{rule}");
    all.remove(0)
}

pub(super) fn file(name: &str, text: &str) -> RuleFile {
    RuleFile { path: Path::new("/rules").join(name), name: name.to_owned(), text: text.to_owned() }
}

/// Text alone is a command line.
fn lines(events: &[&str]) -> Lines {
    let mut rows = Rows::default();
    for (number, event) in (0..).zip(events) {
        let event = match event.strip_prefix('{') {
            Some(_) => (*event).to_owned(),
            None => serde_json::json!({ "CommandLine": event }).to_string(),
        };
        let taken = rows.take(number, event.as_bytes());
        let is_row =
            matches!(&taken, Line::Strange | Line::Taken) || matches!(&taken, Line::Without(lacks) if lacks.strange);
        assert!(is_row, "{event}: {taken:?}");
    }
    rows.finish().unwrap()
}

/// The numbers of the events that match: by the matcher, and by the same SQL in DataFusion.
pub(super) fn answers(name: &str, rule: &str, events: &[&str]) -> (Vec<u64>, Vec<u64>) {
    let conversion = converted(rule);
    let Some(converted) = conversion.rule else { panic!("{name}: {:?}", conversion.reasons) };
    // A rule does not see forks unless it asks for them.
    let sql = converted.rule.sql.replacen("SELECT time", "SELECT seq, time", 1);
    let sql = format!("{}\n)", sql.replacen("WHERE ", "WHERE (start_kind IS DISTINCT FROM 'fork') AND (", 1));
    let lines = lines(events);
    let by_query = {
        let batch = numbered(lines.batch());
        let found = evaluate(&check(&sql).unwrap(), "process_events", vec![batch]);
        let found = found.unwrap_or_else(|error| panic!("{name}: {error}\n{sql}"));
        found.iter().flat_map(integers).collect()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("case.yml");
    std::fs::write(&path, rule).unwrap();
    let (hunt, notes) = Hunt::load(&[path], &lists());
    assert_eq!(hunt.rules(), 1, "{name}: {notes:?}");
    let by_matcher = hunt.matches(lines).iter().map(|found| found.event).collect();
    (by_matcher, by_query)
}

/// The same rows, `seq` the row's number.
fn numbered(batch: &daemoneye_engine::RecordBatch) -> daemoneye_engine::RecordBatch {
    use datafusion::arrow::array::{ArrayRef, Int64Array};
    let at = batch.schema().index_of("seq").unwrap();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    let rows = i64::try_from(batch.num_rows()).unwrap();
    columns[at] = std::sync::Arc::new(Int64Array::from_iter_values(0..rows));
    daemoneye_engine::RecordBatch::try_new(batch.schema(), columns).unwrap()
}

fn integers(page: &daemoneye_engine::RecordBatch) -> Vec<u64> {
    use datafusion::arrow::array::AsArray as _;
    use datafusion::arrow::datatypes::Int64Type;
    let column = page.column(0).as_primitive::<Int64Type>();
    column.values().iter().map(|value| u64::try_from(*value).unwrap()).collect()
}

/// Asserts that exactly the events of `yes` match.
pub(super) fn decides(name: &str, rule: &str, yes: &[&str], no: &[&str]) {
    let events: Vec<&str> = yes.iter().chain(no).copied().collect();
    let wanted: Vec<u64> = (0..u64::try_from(yes.len()).unwrap()).collect();
    let (by_matcher, by_query) = answers(name, rule, &events);
    let sql = converted(rule).rule.map(|rule| rule.rule.sql.clone()).unwrap_or_default();
    assert_eq!(by_matcher, wanted, "{name}, matcher:\n{sql}\n{events:#?}");
    assert_eq!(by_query, wanted, "{name}, DataFusion:\n{sql}\n{events:#?}");
}

/// Asserts that the rule has this verdict, and that a reason holds the word.
pub(super) fn told(name: &str, rule: &str, verdict: Verdict, word: &str) {
    let conversion = converted(rule);
    let reasons: Vec<&str> = conversion.reasons.iter().map(|reason| reason.message.as_str()).collect();
    assert_eq!(conversion.verdict, verdict, "{name}: {reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains(word)), "{name}: {word:?} is not in {reasons:?}");
}
