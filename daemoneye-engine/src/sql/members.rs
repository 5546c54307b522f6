//! Questions about the same column that the optimizer must not put together, because it forgets NULL.
//!
//! It makes `x IN (1) AND x IN (2)` false and `x NOT IN (1) OR x NOT IN (2)` true, also where `x` is NULL and both are NULL, leaves out
//! a NULL in the second list of `x IN (1) AND x NOT IN (2, NULL)`, and takes `0 IN (a, b) AND 0 IN (c, d)` for lists of what both have.
//! It compares what stands before `IN`, and makes lists of `=`, `LIKE` and `CASE` as it goes. So while it simplifies, each question names
//! its columns through a function of its own that changes nothing: it simplifies each, and sees no two that ask the same.

use super::once::Once;
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::optimizer::{ApplyOrder, Optimizer};
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use std::collections::HashMap;
use std::sync::Arc;

/// Values that are compared one after the other; more are a list, which is looked up.
const FEW: usize = 3;

/// What is done around each simplification.
#[derive(Debug)]
enum Around {
    Before,
    Behind,
}

impl OptimizerRule for Around {
    fn name(&self) -> &'static str {
        match self {
            Self::Before => "questions_apart",
            Self::Behind => "questions_as_they_were",
        }
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = match self {
                Self::Before => Apart::default().walk(expr, false)?,
                Self::Behind => {
                    let own = expr.transform_up(as_it_was)?.transform_data(|expr| expr.transform_up(listed))?;
                    own.transform_data(|expr| expr.transform_up(few))?
                }
            };
            Ok(expr.update_data(|expr| name.restore(expr)))
        })
    }
}

/// The optimizer's rules, where it forgets no NULL and finds no value of a list twice.
pub(crate) fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = Vec::new();
    for rule in Optimizer::new().rules {
        if rule.name() == SimplifyExpressions::new().name() {
            rules.extend([Arc::new(Around::Before) as _, rule, Arc::new(Around::Behind) as _]);
        } else {
            rules.push(rule);
        }
    }
    rules.push(Arc::new(Once));
    rules
}

/// The questions of one expression, each with its function. The same question has the same one, so that what two sides have in common
/// is found; not the same behind NOT, which becomes another.
#[derive(Default)]
struct Apart {
    met: HashMap<(Expr, bool), Arc<ScalarUDF>>,
}

impl Apart {
    fn walk(&mut self, expr: Expr, negated: bool) -> Result<Transformed<Expr>> {
        let negated = negated != matches!(expr, Expr::Not(_));
        if !is_question(&expr) {
            return expr.map_children(|inner| self.walk(inner, negated));
        }
        let number = self.met.len();
        let asked = (expr.clone(), negated);
        let itself = self.met.entry(asked).or_insert_with(|| Arc::new(ScalarUDF::from(Itself::new(number))));
        through(expr, itself)
    }
}

fn is_question(expr: &Expr) -> bool {
    match expr {
        Expr::InList(_) | Expr::Like(_) | Expr::SimilarTo(_) | Expr::Between(_) => true,
        // Those that compare.
        Expr::BinaryExpr(BinaryExpr { op, .. }) => op.supports_propagation(),
        _ => false,
    }
}

/// The question with its columns through this function.
fn through(expr: Expr, itself: &Arc<ScalarUDF>) -> Result<Transformed<Expr>> {
    let itself = |args: Vec<Expr>| Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(itself), args));
    expr.transform_up(|expr| match expr {
        Expr::Column(_) | Expr::OuterReferenceColumn(..) => Ok(Transformed::yes(itself(vec![expr]))),
        // With a column beside it, a value is not calculated beforehand.
        Expr::InList(InList { expr, list, negated }) if !has_column(&expr) => {
            let column = list.iter().find(|value| has_column(value)).cloned();
            let expr = match column {
                Some(column) => Box::new(itself(vec![*expr, column])),
                None => expr,
            };
            Ok(Transformed::yes(Expr::InList(InList { expr, list, negated })))
        }
        expr => Ok(Transformed::no(expr)),
    })
}

pub(super) fn has_column(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::Column(_) | Expr::OuterReferenceColumn(..)))).unwrap_or(true)
}

fn as_it_was(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::ScalarFunction(mut call) if call.name() == ITSELF && !call.args.is_empty() => {
            Ok(Transformed::yes(call.args.swap_remove(0)))
        }
        expr => Ok(Transformed::no(expr)),
    }
}

/// `x = 1 OR x IN (2, 3)` as one list: both are true, false and NULL of the same.
fn listed(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) = expr else {
        return Ok(Transformed::no(expr));
    };
    if member(&left).is_none() || member(&left) != member(&right) {
        return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right })));
    }
    let (expr, mut list) = as_list(*left)?;
    list.extend(as_list(*right)?.1);
    Ok(Transformed::yes(Expr::InList(InList { expr: Box::new(expr), list, negated: false })))
}

/// The column that is asked whether it is one of some values.
fn member(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::InList(list) if !list.negated && list.list.iter().all(is_value) => Some(list.expr.as_ref()),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (is_value(left), is_value(right)) {
            (false, true) => Some(left.as_ref()),
            (true, false) => Some(right.as_ref()),
            _ => None,
        },
        _ => None,
    }
    .filter(|asked| matches!(asked, Expr::Column(_)))
}

const fn is_value(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(..))
}

/// The column and the values of a [`member`].
fn as_list(expr: Expr) -> Result<(Expr, Vec<Expr>)> {
    match expr {
        Expr::InList(list) => Ok((*list.expr, list.list)),
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) if is_value(&left) => Ok((*right, vec![*left])),
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) => Ok((*left, vec![*right])),
        other => internal_err!("{other} asks for no member"),
    }
}

/// A list of a few values as comparisons, which statistics and dictionaries answer.
fn few(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::InList(InList { expr: asked, list, negated }) = expr else { return Ok(Transformed::no(expr)) };
    if !matches!(*asked, Expr::Column(_)) || list.len() > FEW {
        return Ok(Transformed::no(Expr::InList(InList { expr: asked, list, negated })));
    }
    let one =
        |value: Expr| if negated { asked.as_ref().clone().not_eq(value) } else { asked.as_ref().clone().eq(value) };
    let all = list.into_iter().map(one).reduce(|all, next| if negated { all.and(next) } else { all.or(next) });
    match all {
        Some(all) => Ok(Transformed::yes(all)),
        None => internal_err!("a list of no value"),
    }
}

/// Nobody else's: it is there while expressions are simplified, and gone behind it.
const ITSELF: &str = "itself";

/// Its first argument.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Itself {
    number: usize,
    signature: Signature,
}

impl Itself {
    fn new(number: usize) -> Self {
        Self { number, signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Itself {
    fn name(&self) -> &'static str {
        ITSELF
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [of, ..] => Ok(of.clone()),
            _ => internal_err!("{ITSELF} takes a value"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.arg_fields {
            [of, ..] => Ok(Arc::clone(of)),
            _ => internal_err!("{ITSELF} takes a value"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(value) => Ok(value),
            None => internal_err!("{ITSELF} takes a value"),
        }
    }
}
