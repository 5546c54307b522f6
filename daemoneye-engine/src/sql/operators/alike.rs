//! Columns of a join that are called alike, and conditions that are pushed below it.
//!
//! The planner finds a condition's columns below an operator by their names, and takes the first of two: of `a RIGHT JOIN b … WHERE
//! a.pid IS NULL` it asked `b.pid`. So while it pushes conditions down, what has two columns of one name has something above it that lets
//! none through; what the join itself asks of its inputs goes on from below.

use super::passing::{Passage, through};
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use futures::stream::BoxStream;
use std::collections::HashSet;
use std::sync::Arc;

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// How the planner's rules are called that push conditions down.
const PUSHES: &str = "FilterPushdown";

/// The rules, each of those that push conditions down with ours around it.
pub(crate) fn kept_apart(rules: Vec<Rule>) -> Vec<Rule> {
    let around = |rule: Rule| -> Vec<Rule> {
        if rule.name().starts_with(PUSHES) {
            vec![Arc::new(Around::Before), rule, Arc::new(Around::Behind)]
        } else {
            vec![rule]
        }
    };
    rules.into_iter().flat_map(around).collect()
}

#[derive(Debug)]
enum Around {
    Before,
    Behind,
}

impl PhysicalOptimizerRule for Around {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            Ok(match self {
                Self::Before if mistakes(&node) => Transformed::yes(through(&node, Closed)),
                Self::Behind if node.name() == Closed::NAME => {
                    let below = node.children().first().map(|below| Arc::clone(below));
                    Transformed::yes(below.unwrap_or(node))
                }
                _ => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Before => "columns_apart",
            Self::Behind => "columns_as_they_were",
        }
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether a condition that comes from above could be asked of another column.
fn mistakes(node: &Arc<dyn ExecutionPlan>) -> bool {
    // It looks for the columns of what it hands on among all of those that it has.
    let filter = node.downcast_ref::<FilterExec>().filter(|filter| filter.projection().is_some());
    has_two(&node.schema()) || filter.is_some_and(|filter| has_two(&filter.input().schema()))
}

fn has_two(schema: &Schema) -> bool {
    let mut names = HashSet::new();
    !schema.fields().iter().all(|field| names.insert(field.name()))
}

/// No condition passes.
#[derive(Debug, Clone)]
struct Closed;

impl Passage for Closed {
    const NAME: &'static str = "Closed";

    fn pass(&self, input: SendableRecordBatchStream, _: &TaskContext) -> BoxStream<'static, Result<RecordBatch>> {
        input
    }
}
