//! What foreign rules and events must come through: each reader takes any text or bytes without a panic or an overflow, and what it
//! takes holds together. The fuzz targets and a test of the engine drive this.

use daemoneye_engine::detect::rules;
use daemoneye_engine::hunt::{Line, Rows};
use daemoneye_engine::sigma::{Lists, RuleFile, convert};

/// A rule file of ours: what loads says its own tests and comes back from an export.
pub(crate) fn rule_file(text: &str) {
    let Ok(rule) = rules::parse("fuzz/rule.yaml".as_ref(), text) else { return };
    let again = rules::parse("fuzz/rule.yaml".as_ref(), &rules::to_yaml(&rule));
    assert!(again.is_ok_and(|again| again.rule.sql == rule.rule.sql), "an export is no rule any more: {text}");
}

/// A Sigma file: what has a rule has SQL that the guard takes.
pub(crate) fn sigma(text: &str) {
    let file = RuleFile { path: "fuzz.yml".into(), name: "fuzz.yml".to_owned(), text: text.to_owned() };
    for rule in convert(&[file], &Lists::default()).into_iter().filter_map(|conversion| conversion.rule) {
        assert!(rules::parse("fuzz/rule.yaml".as_ref(), &rule.source).is_ok(), "a converted rule is none: {text}");
    }
}

/// A line of events: what is taken is a row, be it one of which nothing is known.
pub(crate) fn hunted(line: &[u8]) {
    let mut rows = Rows::default();
    let taken = matches!(rows.take(0, line), Line::Taken | Line::Without(_) | Line::Strange);
    let batch = rows.finish().map(|lines| lines.batch().num_rows());
    assert_eq!(batch.ok(), Some(usize::from(taken)), "a row for each line that is taken");
}
