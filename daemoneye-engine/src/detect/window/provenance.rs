//! Which events each row of an answer was made of.
//!
//! Every scan has a column that numbers the rows kept; it is carried through the plan beside the columns of the SELECT: as it is
//! through joins and projections, as its maximum through aggregates, DISTINCT and UNION, so that each row of the answer names
//! for each scan the latest event in it. The answer itself stays as it was.

use datafusion::common::{Column, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan, LogicalPlanBuilder, SubqueryAlias, lit};
use std::sync::Arc;

/// What the numbering columns begin with; the guard knows no column of this name, so no rule can read one.
pub(super) const PREFIX: &str = "__row";

/// The plan with the numbers of its events behind the columns of the answer, and how many of those there are.
pub(super) fn carried(plan: &LogicalPlan) -> Result<(LogicalPlan, usize)> {
    let mut carrier = Carrier { made: 0 };
    let (plan, numbers) = carrier.carry(plan)?;
    let answer = plan.schema().columns().into_iter().filter(|column| !column.name.starts_with(PREFIX));
    let answer: Vec<Expr> = answer.map(Expr::Column).collect();
    let count = numbers.len();
    let numbers =
        numbers.into_iter().enumerate().map(|(at, number)| Expr::Column(number).alias(format!("{PREFIX}_{at}_of")));
    let plan = LogicalPlanBuilder::from(plan).project(answer.into_iter().chain(numbers))?.build()?;
    Ok((plan, count))
}

struct Carrier {
    made: usize,
}

impl Carrier {
    fn name(&mut self) -> String {
        self.made = self.made.saturating_add(1);
        format!("{PREFIX}_n{}", self.made)
    }

    /// The node over inputs that carry numbers, and the columns in which it has them.
    fn carry(&mut self, node: &LogicalPlan) -> Result<(LogicalPlan, Vec<Column>)> {
        match node {
            LogicalPlan::TableScan(_) => {
                let numbers = node.schema().columns().into_iter().filter(|column| column.name.starts_with(PREFIX));
                Ok((node.clone(), numbers.collect()))
            }
            LogicalPlan::Projection(projection) => {
                let (input, numbers) = self.carry(&projection.input)?;
                let (named, numbers) = self.named(numbers);
                let exprs = projection.expr.iter().cloned().chain(named);
                Ok((LogicalPlanBuilder::from(input).project(exprs)?.build()?, numbers))
            }
            LogicalPlan::Aggregate(aggregate) => {
                let (input, numbers) = self.carry(&aggregate.input)?;
                let (latest, numbers) = self.latest(numbers);
                let exprs = aggregate.aggr_expr.iter().cloned().chain(latest).collect();
                let node = Aggregate::try_new(Arc::new(input), aggregate.group_expr.clone(), exprs)?;
                Ok((LogicalPlan::Aggregate(node), numbers))
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let (input, numbers) = self.carry(input)?;
                let (latest, numbers) = self.latest(numbers);
                let seen = input.schema().columns().into_iter().filter(|column| !column.name.starts_with(PREFIX));
                let node = Aggregate::try_new(Arc::new(input.clone()), seen.map(Expr::Column).collect(), latest)?;
                Ok((LogicalPlan::Aggregate(node), numbers))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let (input, numbers) = self.carry(&alias.input)?;
                let numbers = numbers.into_iter().map(|column| Column::new(Some(alias.alias.clone()), column.name));
                let numbers = numbers.collect();
                Ok((
                    LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?),
                    numbers,
                ))
            }
            LogicalPlan::Union(union) => self.union(&union.inputs),
            other => self.through(other),
        }
    }

    /// Filters, joins, windows, sorts and limits hand on the columns of their inputs.
    fn through(&mut self, node: &LogicalPlan) -> Result<(LogicalPlan, Vec<Column>)> {
        let (mut inputs, mut numbers) = (Vec::new(), Vec::new());
        for input in node.inputs() {
            let (input, of) = self.carry(input)?;
            inputs.push(input);
            numbers.extend(of);
        }
        let node = node.with_new_exprs(node.expressions(), inputs)?;
        numbers.retain(|column| node.schema().has_column(column));
        Ok((node, numbers))
    }

    /// Each branch gives its latest number in one column, for the branches must have as many columns.
    fn union(&mut self, branches: &[Arc<LogicalPlan>]) -> Result<(LogicalPlan, Vec<Column>)> {
        let name = self.name();
        let mut whole: Option<LogicalPlanBuilder> = None;
        for branch in branches {
            let (plan, numbers) = self.carry(branch)?;
            let seen = plan.schema().columns().into_iter().filter(|column| !column.name.starts_with(PREFIX));
            let seen: Vec<Expr> = seen.map(Expr::Column).collect();
            let latest = numbers.into_iter().map(Expr::Column).reduce(later);
            let latest = latest.unwrap_or_else(|| lit(ScalarValue::Int64(None)));
            let branch =
                LogicalPlanBuilder::from(plan).project(seen.into_iter().chain([latest.alias(name.clone())]))?;
            whole = Some(match whole {
                None => branch,
                Some(before) => before.union(branch.build()?)?,
            });
        }
        let plan = whole.map_or_else(|| LogicalPlanBuilder::empty(false).build(), LogicalPlanBuilder::build)?;
        Ok((plan, vec![Column::new_unqualified(name)]))
    }

    /// Under names of their own, so that two uses of one WITH entry do not meet.
    fn named(&mut self, numbers: Vec<Column>) -> (Vec<Expr>, Vec<Column>) {
        numbers.into_iter().map(|column| self.as_one(Expr::Column(column))).unzip()
    }

    fn latest(&mut self, numbers: Vec<Column>) -> (Vec<Expr>, Vec<Column>) {
        numbers.into_iter().map(|column| self.as_one(max(Expr::Column(column)))).unzip()
    }

    fn as_one(&mut self, expr: Expr) -> (Expr, Column) {
        let name = self.name();
        (expr.alias(name.clone()), Column::new_unqualified(name))
    }
}

fn later(a: Expr, b: Expr) -> Expr {
    datafusion::functions::core::expr_fn::greatest(vec![a, b])
}
