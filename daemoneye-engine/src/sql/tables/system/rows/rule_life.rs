//! Columns of the tables about rules, in the order of `daemoneye_lib::tables`.

use super::super::super::{RuleExceptionRow, RuleListRow, RulePackRow, RuleStatsRow};
use super::{count, integer, text, texts, time};
use crate::detect::Refusal;
use crate::store::RuleText;
use datafusion::arrow::array::ArrayRef;

pub(super) fn versions(rows: &[RuleText]) -> Vec<ArrayRef> {
    let overrides = |row: &RuleText| {
        let files = row.overrides.iter().map(|(file, text)| (file.clone(), text.as_str().into()));
        serde_json::Value::Object(files.collect()).to_string()
    };
    vec![
        text(rows, |row| row.rule.to_string()),
        count(rows, |row| row.version.into()),
        text(rows, |row| row.hash.clone()),
        time(rows, |row| Some(row.since_us)),
        text(rows, |row| row.path.clone()),
        text(rows, |row| row.text.clone()),
        text(rows, overrides),
    ]
}

pub(super) fn stats(rows: &[RuleStatsRow]) -> Vec<ArrayRef> {
    vec![
        text(rows, |row| row.rule_id.clone()),
        text(rows, |row| row.name.clone()),
        count(rows, |row| row.version.into()),
        text(rows, |row| row.state.clone()),
        text(rows, |row| row.health.clone()),
        texts(rows, |row| row.reason.clone()),
        count(rows, |row| row.evaluations),
        count(rows, |row| row.rows),
        count(rows, |row| row.matches),
        count(rows, |row| row.hidden),
        count(rows, |row| row.folded),
        count(rows, |row| row.time_us),
        count(rows, |row| row.over_budget),
        count(rows, |row| row.degraded),
        count(rows, |row| row.overflows),
        time(rows, |row| row.last_match_us),
        text(rows, |row| row.overrides.clone()),
    ]
}

pub(super) fn exceptions(rows: &[RuleExceptionRow]) -> Vec<ArrayRef> {
    vec![
        text(rows, |row| row.id.clone()),
        text(rows, |row| row.rule_id.clone()),
        text(rows, |row| row.rule.clone()),
        text(rows, |row| row.condition.clone()),
        text(rows, |row| row.owner.clone()),
        text(rows, |row| row.reason.clone()),
        time(rows, |row| row.expires_us),
        text(rows, |row| if row.expired { "expired" } else { "active" }.to_owned()),
        count(rows, |row| row.hits),
        time(rows, |row| row.last_hit_us),
        text(rows, |row| row.file.clone()),
        count(rows, |row| row.line),
    ]
}

pub(super) fn lists(rows: &[RuleListRow]) -> Vec<ArrayRef> {
    vec![
        text(rows, |row| row.name.clone()),
        text(rows, |row| row.description.clone()),
        count(rows, |row| row.size),
        text(rows, |row| row.items.clone()),
        count(rows, |row| row.rules),
        text(rows, |row| row.files.clone()),
    ]
}

pub(super) fn packs(rows: &[RulePackRow]) -> Vec<ArrayRef> {
    vec![
        text(rows, |row| row.name.clone()),
        texts(rows, |row| row.version.clone()),
        texts(rows, |row| row.description.clone()),
        texts(rows, |row| row.author.clone()),
        count(rows, |row| row.rules),
        count(rows, |row| row.running),
    ]
}

pub(super) fn problems(rows: &[Refusal]) -> Vec<ArrayRef> {
    let place = |row: &Refusal, number: u64| i64::try_from(number).ok().filter(|_| row.line > 0);
    vec![
        text(rows, Refusal::place),
        text(rows, |row| row.file.display().to_string()),
        integer(rows, |row| place(row, row.line)),
        integer(rows, |row| place(row, row.column)),
        text(rows, |row| row.message.clone()),
        texts(rows, |row| row.hint.clone()),
    ]
}
