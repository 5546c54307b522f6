//! Detection: a rule is a SELECT over `process_events`, decided event by event
//! or, as a window rule, over the events of a span of time.
//!
//! [`rules`] turns YAML files into [`LoadedRule`]s, every problem with its place; [`RuleSet::compile`] turns their SQL
//! straight from the syntax tree into a matcher over the columns of a batch, without a query plan, and a prefilter finds the
//! few rules that can match a row at all. A row matches exactly
//! where DataFusion's WHERE is TRUE for it; the differential test holds both to the same answer. What the matcher does not
//! know is refused by name at load, never approximated. A rule that needs more than one event is a window rule: DataFusion runs its
//! plan over the rows that it keeps.

mod blind;
mod call;
mod clock;
mod compile;
mod exceptions;
mod explain;
mod history;
mod matcher;
mod output;
mod pace;
mod prefilter;
mod refusal;
mod row;
pub mod rules;
mod set;
mod shortfall;
mod window;

pub use exceptions::{Exception, Exceptions, Judged};
pub use explain::{Exempted, Explanation, Part, ScanSaid, explain};
pub use history::history_sql;
pub use pace::{BUDGET, Mark};
pub use refusal::Refusal;
pub use rules::{Loaded, LoadedRule, RuleTest, TestFailure, TestReport};
pub use set::{RuleSet, RuleStats};
pub(crate) use window::RULE_ROWS;
pub use window::{Filling, GRACE_US, WindowStats};
