//! Questions of lists (`IN (SELECT …)`, `EXISTS`) in a form that holds little in memory and knows what NULL means.
//!
//! The planner's own join for `x NOT IN (SELECT y …)` gathers all rows that are asked about, on one thread, knows only one key, and
//! anywhere but alone takes an unknown answer for one. No row is absent from what has a NULL, NULL is absent only from nothing, and what is
//! left is a join of what is not there. What asks no column of the row is one value, which the planner would look for row by row.

use super::outer::{self, Single};
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{
    BinaryExpr, Case, Distinct, Expr, ExprSchemable as _, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Subquery,
    lit, not, not_exists, scalar_subquery, when,
};
use datafusion::optimizer::AnalyzerRule;
use std::sync::Arc;

/// How many rows are there, counted no further than one.
const UP_TO_ONE: &str = "rows up to one";

/// A list that would have to be read twice, or a value that no join knows.
pub(super) const NOT_ALONE: &str = "that is not joined to the rest by AND";

/// A row that is asked about and one of the list go by the same name, and the planner would take one for the other.
pub(super) const IN_BOTH: &str = "inside of NOT IN (SELECT …) and outside of it";

/// What a list has.
const NOTHING: i64 = 0;
/// It has values, and none is NULL.
const VALUES: i64 = 1;
/// One of them is NULL.
const NULL_TOO: i64 = 2;

/// Behind the rule that makes both sides of one type.
#[derive(Debug)]
pub(crate) struct Absent;

/// What an unknown answer is where a condition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    /// As good as false.
    No,
    /// As good as true.
    Yes,
    /// A third answer.
    Itself,
}

impl AnalyzerRule for Absent {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut lists = 0;
        let analyzed = plan.transform_up_with_subqueries(|node| {
            outer::check_values(&node)?;
            let node = outer::behind_join(node)?;
            let is_list = |expr: &Expr| Ok(matches!(expr, Expr::InSubquery(_) | Expr::Exists(_)));
            match &node.data {
                LogicalPlan::Filter(filter) if filter.predicate.exists(is_list)? => {
                    let mut lists = Lists { columns: filter.input.schema(), count: &mut lists };
                    let predicate = lists.told(filter.predicate.clone(), Unknown::No, true)?;
                    let told = Filter::try_new(predicate, Arc::clone(&filter.input))?;
                    Ok(Transformed::yes(LogicalPlan::Filter(told)))
                }
                _ => Ok(node),
            }
        });
        analyzed.map(|analyzed| analyzed.data)
    }

    fn name(&self) -> &'static str {
        "absent"
    }
}

impl Unknown {
    const fn below_not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Yes => Self::No,
            Self::Itself => Self::Itself,
        }
    }
}

struct Lists<'a> {
    /// Of the rows that are asked about.
    columns: &'a DFSchema,
    /// For names that nothing else has.
    count: &'a mut usize,
}

impl Lists<'_> {
    /// The condition with its lists asked for, `alone` where all of it is what a row has to pass.
    fn told(&mut self, condition: Expr, unknown: Unknown, alone: bool) -> Result<Expr> {
        Ok(match condition {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let alone = alone && op == Operator::And;
                let [left, right] =
                    [self.told(*left, unknown, alone)?, self.told(*right, unknown, alone)?].map(Box::new);
                Expr::BinaryExpr(BinaryExpr { left, op, right })
            }
            Expr::Not(inner) => match *inner {
                Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                    self.question(InSubquery { expr, subquery, negated: !negated }, unknown, alone)?
                }
                inner => not(self.told(inner, unknown.below_not(), false)?),
            },
            Expr::InSubquery(list) => self.question(list, unknown, alone)?,
            Expr::Exists(exists) => Self::existence(exists)?,
            Expr::IsTrue(inner) => self.told(*inner, Unknown::No, false)?.is_true(),
            Expr::IsNotTrue(inner) => self.told(*inner, Unknown::No, false)?.is_not_true(),
            Expr::IsFalse(inner) => self.told(*inner, Unknown::Yes, false)?.is_false(),
            Expr::IsNotFalse(inner) => self.told(*inner, Unknown::Yes, false)?.is_not_false(),
            Expr::Case(Case { expr: None, when_then_expr, else_expr }) => {
                let mut branches = Vec::new();
                for (when, then) in when_then_expr {
                    let when = self.told(*when, Unknown::No, false)?;
                    branches.push((Box::new(when), Box::new(self.told(*then, unknown, false)?)));
                }
                let otherwise = else_expr.map(|other| self.told(*other, unknown, false)).transpose()?;
                Expr::Case(Case::new(None, branches, otherwise.map(Box::new)))
            }
            other => other.map_children(|inner| Ok(Transformed::yes(self.told(inner, Unknown::Itself, false)?)))?.data,
        })
    }

    fn existence(Exists { subquery, negated }: Exists) -> Result<Expr> {
        let is = match outer::single(&subquery.subquery)? {
            Some(Single { having: None, .. }) => lit(true),
            Some(Single { having: Some(having), .. }) => scalar_subquery(having).is_true(),
            None if subquery.outer_ref_columns.is_empty() => {
                let all = count(lit(1_i64)).alias(UP_TO_ONE);
                let any = Expr::Column(Column::new_unqualified(UP_TO_ONE)).gt(lit(0_i64)).alias("any");
                let plan = LogicalPlanBuilder::from(Arc::clone(&subquery.subquery)).limit(0, Some(1))?;
                scalar_subquery(Arc::new(plan.aggregate(Vec::<Expr>::new(), [all])?.project([any])?.build()?))
            }
            None => {
                outer::check(&subquery.subquery, outer::For::Existence)?;
                return Ok(Expr::Exists(Exists { subquery, negated }));
            }
        };
        Ok(if negated { not(is) } else { is })
    }

    fn question(&mut self, list: InSubquery, unknown: Unknown, alone: bool) -> Result<Expr> {
        let InSubquery { expr: value, subquery: listed, negated } = &list;
        let turned = |is: Expr| if *negated { not(is) } else { is };
        if let Some(Single { value: one, having }) = outer::single(&listed.subquery)? {
            let is = value.as_ref().clone().eq(scalar_subquery(one));
            return Ok(turned(match having {
                Some(having) => when(scalar_subquery(having), is).otherwise(lit(false))?,
                None => is,
            }));
        }
        let looks_at_row = !listed.outer_ref_columns.is_empty();
        if looks_at_row {
            outer::check(&listed.subquery, outer::For::List)?;
        }
        let looks_further = value.exists(|expr| {
            let list = matches!(expr, Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_));
            Ok(list || matches!(expr, Expr::OuterReferenceColumn(..)))
        })?;
        if !looks_at_row && !looks_further && !value.any_column_refs() {
            return Ok(turned(self.of_one(value, listed)?));
        }
        let may_be_null = listed.subquery.schema().fields().first().is_some_and(|field| field.is_nullable());
        let is_certain = !may_be_null && !value.nullable(self.columns)?;
        let as_planned = Expr::InSubquery(list.clone());
        if is_certain || unknown == if *negated { Unknown::Yes } else { Unknown::No } {
            return Ok(as_planned);
        }
        if looks_further || (!looks_at_row && takes_some(&listed.subquery)?) {
            // The planner's own form says the same there, and nowhere else.
            return if alone { Ok(as_planned) } else { plan_err!("NOT IN (SELECT …) {NOT_ALONE}") };
        }
        let absent = self.absent(value, listed)?;
        Ok(match unknown {
            Unknown::No => absent,
            Unknown::Yes => not(absent),
            Unknown::Itself => {
                let present = Expr::InSubquery(InSubquery { negated: false, ..list.clone() });
                let neither = lit(ScalarValue::Boolean(None));
                when(present, lit(!negated)).when(absent, lit(*negated)).otherwise(neither)?
            }
        })
    }

    /// Whether the value is absent, without a third answer.
    fn absent(&mut self, value: &Expr, listed: &Subquery) -> Result<Expr> {
        let outer = self.outer(value)?;
        if !listed.outer_ref_columns.is_empty() {
            if let Some(table) = outer::in_both(value, &listed.subquery)? {
                return plan_err!("{table} {IN_BOTH}");
            }
            let columns = listed.subquery.schema().columns().into_iter();
            let met = columns.map(|column| Expr::Column(column).eq(outer.clone()).is_not_false());
            let plan = LogicalPlanBuilder::from(Arc::clone(&listed.subquery));
            return Ok(not_exists(Arc::new(plan.filter(met.fold(lit(true), Expr::and))?.build()?)));
        }
        let (plan, column) = self.named(listed)?;
        let missing = not_exists(Arc::new(plan.filter(column.eq(outer))?.build()?));
        let (plan, column) = self.named(listed)?;
        let (all, known) = (count(lit(1_i64)).alias("all"), count(column).alias("known"));
        let [of_all, of_known] = ["all", "known"].map(|name| Expr::Column(Column::new_unqualified(name)));
        let has = when(of_all.clone().eq(lit(0_i64)), lit(NOTHING))
            .when(of_all.eq(of_known), lit(VALUES))
            .otherwise(lit(NULL_TOO))?;
        let has = plan.aggregate(Vec::<Expr>::new(), [all, known])?.project([has.alias("has")])?.build()?;
        let below = when(value.clone().is_null(), lit(VALUES)).otherwise(lit(NULL_TOO))?;
        Ok(missing.and(scalar_subquery(Arc::new(has)).lt(below)))
    }

    /// Whether a value that is the same for all rows is in the list, which is read once.
    fn of_one(&mut self, value: &Expr, listed: &Subquery) -> Result<Expr> {
        let (plan, column) = self.named(listed)?;
        let met = when(column.clone().eq(value.clone()), lit(1_i64)).end()?;
        let counts = [count(lit(1_i64)).alias("all"), count(column).alias("known"), count(met).alias("met")];
        let [all, known, met] = ["all", "known", "met"].map(|name| Expr::Column(Column::new_unqualified(name)));
        let is = when(met.gt(lit(0_i64)), lit(true))
            .when(all.clone().eq(lit(0_i64)), lit(false))
            .when(value.clone().is_not_null().and(all.eq(known)), lit(false))
            .otherwise(lit(ScalarValue::Boolean(None)))?;
        let is = plan.aggregate(Vec::<Expr>::new(), counts)?.project([is.alias("is")])?.build()?;
        Ok(scalar_subquery(Arc::new(is)))
    }

    /// The list and its column, under a name of its own.
    fn named(&mut self, listed: &Subquery) -> Result<(LogicalPlanBuilder, Expr)> {
        let is_taken = |name: &str| self.columns.iter().any(|(of, _)| of.is_some_and(|of| of.table() == name));
        let list = loop {
            *self.count = self.count.saturating_add(1);
            let list = format!("list {}", self.count);
            if !is_taken(&list) {
                break list;
            }
        };
        let columns = listed.subquery.schema().columns();
        let name = columns.first().map(|column| column.name.clone()).unwrap_or_default();
        let values = columns.into_iter().map(|column| Expr::Column(column).alias(name.as_str()));
        let plan = LogicalPlanBuilder::from(Arc::clone(&listed.subquery)).project(values)?.alias(list.as_str())?;
        Ok((plan, Expr::Column(Column::new(Some(list), name))))
    }

    /// The value as a list sees it that looks at each row.
    fn outer(&self, value: &Expr) -> Result<Expr> {
        let value = value.clone().transform(|expr| match expr {
            Expr::Column(column) => {
                let (_, field) = self.columns.qualified_field_from_column(&column)?;
                Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column)))
            }
            other => Ok(Transformed::no(other)),
        });
        value.map(|value| value.data)
    }
}

/// Whether a list that is read twice could have other rows each time.
fn takes_some(list: &LogicalPlan) -> Result<bool> {
    let (mut some, mut up_to_one) = (false, false);
    list.apply_with_subqueries(|node| {
        some |= match node {
            LogicalPlan::Limit(_) => !up_to_one,
            LogicalPlan::Window(_) | LogicalPlan::Distinct(Distinct::On(_)) => true,
            _ => false,
        };
        up_to_one =
            matches!(node, LogicalPlan::Aggregate(of) if of.schema.has_column_with_unqualified_name(UP_TO_ONE));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(some)
}
