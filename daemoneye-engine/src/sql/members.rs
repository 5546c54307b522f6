//! Lists of values that a column is in, kept apart where putting them together would forget NULL.
//!
//! The optimizer makes `x IN (1) AND x IN (2)` false and `x NOT IN (1) OR x NOT IN (2)` true, also where `x` is NULL and both are NULL,
//! and leaves out a NULL in the second list of `x IN (1) AND x NOT IN (2, NULL)`. It compares what stands before `IN`, so one of two
//! says it through a function that changes nothing.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::optimizer::{ApplyOrder, Optimizer};
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often lists were kept apart: what is kept apart once is not what is kept apart another time.
static TIMES: AtomicU64 = AtomicU64::new(0);

/// What is asked about, and whether the question is `NOT IN`; `None`: nobody knows what becomes of it.
type Question<'a> = (&'a Expr, Option<bool>);

/// Right before the optimizer puts lists together; what meets only after it is looked at in its next pass.
#[derive(Debug)]
struct Apart;

impl OptimizerRule for Apart {
    fn name(&self) -> &'static str {
        "lists_apart"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(apart)?.update_data(|expr| name.restore(expr)))
        })
    }
}

/// The optimizer's rules, where it forgets no NULL.
pub(crate) fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let rules = Optimizer::new().rules.into_iter();
    rules
        .flat_map(|rule| {
            let apart = (rule.name() == SimplifyExpressions::new().name()).then(|| Arc::new(Apart) as _);
            apart.into_iter().chain([rule])
        })
        .collect()
}

/// `AND` or `OR` whose sides ask about the same in a way that must not be put together, with the right side's question apart.
fn apart(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) = expr else {
        return Ok(Transformed::no(expr));
    };
    let (mut before, mut behind) = (Vec::new(), Vec::new());
    questions(&right, Some(false), op == Operator::Or, &mut behind)?;
    if !behind.is_empty() {
        questions(&left, Some(false), op == Operator::Or, &mut before)?;
    }
    // These two stay what they are: NULL is neither in the one list nor in both.
    let are_one = |one: Option<bool>, other: Option<bool>| match op {
        Operator::And => one == Some(true) && other == Some(true),
        _ => one == Some(false) && other == Some(false),
    };
    let forgets = |(asked, is_not): &Question<'_>| {
        before.iter().any(|(before, was_not)| !are_one(*was_not, *is_not) && before == asked)
    };
    let asked: Vec<Expr> =
        behind.iter().filter(|question| forgets(question)).map(|(asked, _)| (*asked).clone()).collect();
    let is_apart = !asked.is_empty();
    let right = if is_apart { Box::new(through(*right, &asked)?) } else { right };
    let expr = Expr::BinaryExpr(BinaryExpr { left, op, right });
    Ok(if is_apart { Transformed::yes(expr) } else { Transformed::no(expr) })
}

/// The questions of an expression. `=` is one where it becomes a list with others: `or`, beside it.
fn questions<'a>(expr: &'a Expr, is_not: Option<bool>, or: bool, found: &mut Vec<Question<'a>>) -> Result<()> {
    match expr {
        Expr::InList(list) => found.push((bare(&list.expr), is_not.map(|is_not| is_not != list.negated))),
        Expr::Not(inner) => return questions(inner, is_not.map(|is_not| !is_not), false, found),
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            questions(left, is_not, *op == Operator::Or, found)?;
            return questions(right, is_not, *op == Operator::Or, found);
        }
        _ => {
            if let Some(asked) = equal(expr) {
                if or {
                    found.push((asked, is_not));
                }
                return Ok(());
            }
            expr.apply_children(|inner| {
                questions(inner, None, false, found)?;
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
    }
    Ok(())
}

/// What is compared with a value. Casts of either go, or are brought to the other, while it is simplified.
fn equal(expr: &Expr) -> Option<&Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = expr else { return None };
    match (bare(left), bare(right)) {
        (column @ Expr::Column(_), Expr::Literal(..)) | (Expr::Literal(..), column @ Expr::Column(_)) => Some(column),
        _ => None,
    }
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => bare(&cast.expr),
        Expr::TryCast(cast) => bare(&cast.expr),
        expr => expr,
    }
}

/// The expression, whose questions about these go through a function of their own.
fn through(expr: Expr, asked: &[Expr]) -> Result<Expr> {
    let itself = Arc::new(ScalarUDF::from(Itself {
        time: TIMES.fetch_add(1, Ordering::Relaxed),
        signature: Signature::any(1, Volatility::Immutable),
    }));
    let itself = |expr: Expr| Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&itself), vec![expr]));
    expr.transform_up(|expr| match expr {
        Expr::InList(mut list) if asked.contains(bare(&list.expr)) => {
            list.expr = Box::new(itself(*list.expr));
            Ok(Transformed::yes(Expr::InList(list)))
        }
        expr if equal(&expr).is_some_and(|column| asked.contains(column)) => {
            let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return Ok(Transformed::no(expr)) };
            let side = |side: Box<Expr>| match bare(&side) {
                Expr::Column(_) => Box::new(itself(*side)),
                _ => side,
            };
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: side(left), op, right: side(right) })))
        }
        expr => Ok(Transformed::no(expr)),
    })
    .data()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Itself {
    time: u64,
    signature: Signature,
}

impl ScalarUDFImpl for Itself {
    fn name(&self) -> &'static str {
        "itself"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [of] => Ok(of.clone()),
            _ => internal_err!("{} takes one value", self.name()),
        }
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.pop() {
            Some(value) => Ok(value),
            None => internal_err!("{} takes one value", self.name()),
        }
    }
}
