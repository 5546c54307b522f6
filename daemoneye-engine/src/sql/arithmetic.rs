//! `+`, `-` and `*` over whole numbers fail when the result does not fit: DataFusion's own wrap around, which is a wrong
//! answer. They become functions on the plan, after types are settled, so that what is folded while planning fails too.

use datafusion::arrow::compute::kernels::numeric::{add, mul, sub};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::physical_expr_common::datum::apply;
use std::sync::{Arc, LazyLock};

/// What every error of an overflow says.
pub(crate) const DOES_NOT_FIT: &str = "does not fit a whole number";

static ADD: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Checked::udf(Operation::Add));
static MULTIPLY: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Checked::udf(Operation::Multiply));
static SUBTRACT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Checked::udf(Operation::Subtract));

/// The expression with an operator that checks, where it calculates with whole numbers.
pub(crate) fn checked(expr: Expr, columns: &DFSchema) -> Result<Transformed<Expr>> {
    let (udf, left, right) = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let Some(udf) = function(op) else {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            };
            let of = left.get_type(columns)?;
            if !of.is_integer() || right.get_type(columns)? != of {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            }
            (udf, *left, *right)
        }
        Expr::Negative(inner) => {
            let of = inner.get_type(columns)?;
            if !of.is_signed_integer() {
                return Ok(Transformed::no(Expr::Negative(inner)));
            }
            (&SUBTRACT, Expr::Literal(ScalarValue::new_zero(&of)?, None), *inner)
        }
        other => return Ok(Transformed::no(other)),
    };
    let call = ScalarFunction::new_udf(Arc::clone(udf), vec![left, right]);
    Ok(Transformed::yes(Expr::ScalarFunction(call)))
}

const fn function(op: Operator) -> Option<&'static LazyLock<Arc<ScalarUDF>>> {
    match op {
        Operator::Minus => Some(&SUBTRACT),
        Operator::Multiply => Some(&MULTIPLY),
        Operator::Plus => Some(&ADD),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Multiply,
    Subtract,
}

/// Two whole numbers of one type. The result counts as nullable even over numbers that are not: what cannot be NULL is not
/// calculated where only `IS NOT NULL` is asked, and then does not fail.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operation: Operation,
    signature: Signature,
}

impl Checked {
    fn udf(operation: Operation) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::from(Self { operation, signature: Signature::any(2, Volatility::Immutable) }))
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &'static str {
        match self.operation {
            Operation::Add => "checked_add",
            Operation::Multiply => "checked_multiply",
            Operation::Subtract => "checked_subtract",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [left, right] if left == right => Ok(left.clone()),
            other => internal_err!("{} over {other:?}", self.name()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else { return internal_err!("{} takes two operands", self.name()) };
        let result = match self.operation {
            Operation::Add => apply(left, right, add),
            Operation::Multiply => apply(left, right, mul),
            Operation::Subtract => apply(left, right, sub),
        };
        result.map_err(|error| match error.find_root() {
            DataFusionError::ArrowError(error, _) if matches!(error.as_ref(), ArrowError::ArithmeticOverflow(_)) => {
                overflow(error)
            }
            _ => error,
        })
    }
}

/// In words for the person who typed the operator.
pub(crate) fn overflow(what: &impl std::fmt::Display) -> DataFusionError {
    DataFusionError::Execution(format!("{what}: that {DOES_NOT_FIT}; CAST an operand AS DOUBLE"))
}
