//! A rule's own sample events, run through the same matcher as the real ones.

use super::super::row::Columns;
use super::super::window;
use super::{LoadedRule, RuleTest, TestFailure, TestReport};
use crate::ingest::batch_from_json;

/// Runs every test of a rule.
#[must_use]
pub fn run_tests(loaded: &LoadedRule) -> TestReport {
    let mut report = TestReport { rule: loaded.rule.name.clone(), passed: 0, failures: Vec::new() };
    for test in &loaded.tests {
        match run(loaded, test) {
            Ok(()) => report.passed += 1,
            Err(message) => {
                report.failures.push(TestFailure { test: test.name.clone(), line: test.line, message });
            }
        }
    }
    report
}

fn run(loaded: &LoadedRule, test: &RuleTest) -> Result<(), String> {
    let events: Vec<_> = std::iter::once(&test.event).chain(&test.then).cloned().collect();
    let batch = batch_from_json(&events).map_err(|error| error.to_string())?;
    let matched = match &loaded.window {
        Some(plan) => window::matches(&loaded.rule, plan, &batch)?,
        None => {
            let columns = Columns::of(&batch);
            (0..columns.rows()).any(|row| loaded.compiled.matches(&columns, row))
        }
    };
    match (test.expect, matched) {
        (true, false) => Err("the event must match and does not".to_owned()),
        (false, true) => Err("the event must not match and does".to_owned()),
        (true, true) | (false, false) => Ok(()),
    }
}
