//! Rows of the tables about rules that the agent knows and the store does not.

use crate::detect::Refusal;

/// Everything about the rules that are loaded.
#[derive(Debug, Clone, Default)]
pub struct RuleLife {
    /// Rows of `rule_stats`.
    pub stats: Vec<RuleStatsRow>,
    /// Rows of `rule_exceptions`.
    pub exceptions: Vec<RuleExceptionRow>,
    /// Rows of `rule_lists`.
    pub lists: Vec<RuleListRow>,
    /// Rows of `rule_packs`.
    pub packs: Vec<RulePackRow>,
    /// Rows of `rule_problems`.
    pub problems: Vec<Refusal>,
}

/// One row of `rule_stats`; the columns say what each field means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is the column of its name, and those are documented in daemoneye_lib::tables"
)]
pub struct RuleStatsRow {
    pub rule_id: String,
    pub name: String,
    pub version: u32,
    pub state: String,
    pub health: String,
    pub reason: Option<String>,
    pub evaluations: u64,
    pub rows: u64,
    pub matches: u64,
    pub hidden: u64,
    pub folded: u64,
    pub time_us: u64,
    pub over_budget: u64,
    pub degraded: u64,
    pub overflows: u64,
    pub last_match_us: Option<i64>,
    pub overrides: String,
}

/// One row of `rule_exceptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is the column of its name, and those are documented in daemoneye_lib::tables"
)]
pub struct RuleExceptionRow {
    pub id: String,
    pub rule_id: String,
    pub rule: String,
    pub condition: String,
    pub owner: String,
    pub reason: String,
    pub expires_us: Option<i64>,
    pub expired: bool,
    pub hits: u64,
    pub last_hit_us: Option<i64>,
    pub file: String,
    pub line: u64,
}

/// One row of `rule_lists`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is the column of its name, and those are documented in daemoneye_lib::tables"
)]
pub struct RuleListRow {
    pub name: String,
    pub description: String,
    pub size: u64,
    pub items: String,
    pub rules: u64,
    pub files: String,
}

/// One row of `rule_packs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is the column of its name, and those are documented in daemoneye_lib::tables"
)]
pub struct RulePackRow {
    pub name: String,
    pub version: Option<String>,
    pub description: Option<String>,
    pub author: Option<String>,
    pub rules: u64,
    pub running: u64,
}
