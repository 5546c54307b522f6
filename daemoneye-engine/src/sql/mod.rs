//! SQL over the store: what is accepted ([`check`]), what it reads ([`QueryEngine`]'s tables) and how much it may cost.
//!
//! Three gates, none of which may be skipped: caps on the token stream before anything recursive sees the text; an
//! allow-list walk of the syntax tree that names every node kind; an allow-list walk of the logical plan. A statement is
//! one SELECT over our tables with our functions, or it is refused with its position and what to write instead. Nothing
//! here writes, reads a file by name, or waits without a bound.

mod absent;
mod allowance;
pub(crate) mod arithmetic;
mod check;
mod coerce;
mod completeness;
mod dialect;
mod engine;
mod execute;
mod explain;
mod export;
mod functions;
mod half;
mod instant;
pub(crate) mod lists;
mod lower;
mod matches;
mod members;
mod memo;
pub(crate) mod names;
mod niceness;
mod numbers;
mod once;
mod operators;
mod outer;
mod pages;
mod params;
mod patterns;
mod place;
mod plan;
mod refusal;
mod runtime;
mod scratch;
mod session;
mod settle;
mod sieve;
mod strict;
mod sum;
mod suspects;
mod tables;
mod thrift;
mod times;
mod tokens;
mod units;
mod walk;
pub(crate) mod window;
mod windows;
mod wording;

pub use check::{Checked, check};
pub(crate) use check::{Parsed, check_rule, on_large_stack};
pub(crate) use completeness::of_gap;
pub use engine::{QueryEngine, QueryLimits, QueryRun, READER_WAIT};
pub use export::ParquetExport;
pub(crate) use export::batch;
pub(crate) use niceness::lower as lower_priority;
pub use pages::{page_columns, value_at};
pub(crate) use patterns::{MAX_PATTERN_BYTES, words as expression_words};
pub use plan::check_plan;
pub use refusal::{QueryError, SqlRefusal};
pub use scratch::Scratch;
pub use session::evaluate;
pub(crate) use tables::bloom_filter;
pub use tables::{
    CollectorRow, NoCollectors, RuleExceptionRow, RuleLife, RuleListRow, RulePackRow, RuleStatsRow, SystemTables,
    TABLES, table_columns,
};
pub(crate) use times::{interval_us, microseconds};
