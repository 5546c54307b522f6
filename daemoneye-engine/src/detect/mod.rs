//! Detection: a rule is a SELECT over `process_events`, decided event by event.
//!
//! [`rules`] turns YAML files into [`LoadedRule`]s, every problem with its place; [`RuleSet::compile`] turns their SQL
//! straight from the syntax tree into a matcher over the columns of a batch, without a query plan. A row matches exactly
//! where DataFusion's WHERE is TRUE for it; the differential test holds both to the same answer. What the matcher does not
//! know is refused by name at load, never approximated. Rules that need more than one event are refused.

mod compile;
mod explain;
mod history;
mod matcher;
mod output;
mod pattern;
mod refusal;
mod row;
pub mod rules;
mod set;

pub use explain::{Explanation, Part, explain};
pub use history::history_sql;
pub use refusal::Refusal;
pub use rules::{Loaded, LoadedRule, RuleTest, TestFailure, TestReport};
pub use set::{RuleSet, RuleStats};
