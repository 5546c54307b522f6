//! The functions that a session registers: DataFusion's own, by the allow-list, and bounded where the output can outgrow
//! the input. The memory pool does not see what an expression builds, so `concat` chained through WITH would otherwise
//! double until the process dies.

use super::names::{self, Class};
use super::{numbers, strict, sum};
use datafusion::arrow::array::{Array, AsArray as _, StringArray};
use datafusion::arrow::compute::kernels::concat_elements::concat_elements_utf8;
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::cast::as_string_array;
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, WindowUDF,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use std::sync::{Arc, LazyLock};

/// Bytes that one function may build for one batch of rows: a batch of 8,192 command lines is 2 MiB.
const MAX_TEXT_BYTES: usize = 64 * 1024 * 1024;
/// `a || b` after planning.
const TEXT_CONCAT: &str = "text_concat";

/// The registered functions.
pub(crate) struct Functions {
    pub(crate) scalar: Vec<Arc<ScalarUDF>>,
    pub(crate) aggregate: Vec<Arc<AggregateUDF>>,
    pub(crate) window: Vec<Arc<WindowUDF>>,
}

/// Built once: a session takes references.
pub(crate) static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let listed = |class: Class, name: &str, aliases: &[String]| {
        names::functions(class).any(|known| known == name || aliases.iter().any(|alias| alias == known))
    };
    let mut scalar: Vec<Arc<ScalarUDF>> = SessionStateDefaults::default_scalar_functions()
        .into_iter()
        .filter(|udf| listed(Class::Scalar, udf.name(), udf.aliases()))
        .map(bounded)
        .collect();
    scalar.push(Arc::new(ScalarUDF::from(TextConcat::new())));
    scalar.push(Arc::new(ScalarUDF::from(Fold::new())));
    scalar.extend(numbers::functions());
    scalar.extend(strict::functions());
    Functions {
        scalar,
        aggregate: SessionStateDefaults::default_aggregate_functions()
            .into_iter()
            .filter(|udf| listed(Class::Aggregate, udf.name(), udf.aliases()))
            .map(|udf| if udf.name() == "sum" { sum::exact(udf) } else { udf })
            .collect(),
        window: SessionStateDefaults::default_window_functions()
            .into_iter()
            .filter(|udf| {
                listed(Class::Window, udf.name(), udf.aliases()) || listed(Class::Aggregate, udf.name(), udf.aliases())
            })
            .collect(),
    }
});

impl Functions {
    /// The function of that name as the plan calls it.
    pub(crate) fn has_scalar(&self, name: &str) -> bool {
        self.scalar.iter().any(|udf| udf.name() == name)
    }

    /// The aggregate of that name.
    pub(crate) fn has_aggregate(&self, name: &str) -> bool {
        self.aggregate.iter().any(|udf| udf.name() == name)
    }

    /// The window function of that name.
    pub(crate) fn has_window(&self, name: &str) -> bool {
        self.window.iter().any(|udf| udf.name() == name) || self.has_aggregate(name)
    }
}

fn bounded(udf: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let growth = match udf.name() {
        "concat" => Growth::Sum,
        "concat_ws" => Growth::Join,
        "replace" => Growth::Replace,
        _ => return udf,
    };
    Arc::new(ScalarUDF::from(Bounded { inner: udf, growth }))
}

/// How large the output can get from the sizes of the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// All arguments together.
    Sum,
    /// All arguments and a separator between each two.
    Join,
    /// Every byte of the first argument replaced by the third.
    Replace,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arg_types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let sizes: Vec<usize> = args.args.iter().map(|arg| bytes(arg, rows)).collect();
        let sum = sizes.iter().fold(0_usize, |sum, size| sum.saturating_add(*size));
        let bound = match self.growth {
            Growth::Sum => sum,
            Growth::Join => sizes.first().copied().unwrap_or(0).saturating_mul(sizes.len()).saturating_add(sum),
            Growth::Replace => {
                let [text, from, with] = [0, 1, 2].map(|at| args.args.get(at));
                (0..rows).fold(0, |sum: usize, row| sum.saturating_add(replaced(row, text, from, with)))
            }
        };
        within(self.name(), bound)?;
        self.inner.invoke_with_args(args)
    }
}

/// Bytes of one argument over all rows.
fn bytes(value: &ColumnarValue, rows: usize) -> usize {
    match value {
        ColumnarValue::Array(array) => match array.as_string_view_opt() {
            // Rows may share a value, which what is built from them does not.
            Some(views) => views.lengths().fold(0, |sum: usize, length| sum.saturating_add(length as usize)),
            None => array.get_buffer_memory_size(),
        },
        ColumnarValue::Scalar(scalar) => scalar.size().saturating_mul(rows),
    }
}

/// Bytes that one row can have with what stands in it replaced: an empty text stands between all letters.
fn replaced(
    row: usize,
    text: Option<&ColumnarValue>,
    from: Option<&ColumnarValue>,
    with: Option<&ColumnarValue>,
) -> usize {
    let [text, from, with] = [text, from, with].map(|value| length(value, row));
    let times = text.checked_div(from.max(1)).unwrap_or_default().saturating_add(1);
    text.saturating_add(times.saturating_mul(with))
}

/// Bytes of one row's text.
fn length(value: Option<&ColumnarValue>, row: usize) -> usize {
    match value {
        None => 0,
        Some(ColumnarValue::Scalar(scalar)) => scalar.try_as_str().flatten().map_or(0, str::len),
        Some(ColumnarValue::Array(array)) if array.is_null(row) => 0,
        Some(ColumnarValue::Array(array)) => match (array.as_string_opt::<i32>(), array.as_string_view_opt()) {
            (Some(texts), _) => texts.value(row).len(),
            (None, Some(texts)) => texts.value(row).len(),
            (None, None) => array.get_buffer_memory_size(),
        },
    }
}

fn within(function: &str, bytes: usize) -> Result<()> {
    if bytes <= MAX_TEXT_BYTES {
        return Ok(());
    }
    Err(DataFusionError::ResourcesExhausted(format!(
        "{function} would build up to {bytes} bytes of text at once, more than {MAX_TEXT_BYTES}"
    )))
}

/// `a || b`: NULL when either is, bounded as `concat` is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TextConcat {
    signature: Signature,
}

impl TextConcat {
    fn new() -> Self {
        Self { signature: Signature::uniform(2, vec![DataType::Utf8], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for TextConcat {
    fn name(&self) -> &str {
        TEXT_CONCAT
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let sum = args.args.iter().fold(0_usize, |sum, arg| sum.saturating_add(bytes(arg, rows)));
        within("||", sum)?;
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else {
            return Err(DataFusionError::Internal("|| takes two operands".to_owned()));
        };
        let joined = concat_elements_utf8(as_string_array(left)?, as_string_array(right)?)?;
        Ok(ColumnarValue::Array(Arc::new(joined)))
    }
}

/// `ci_fold(a)`: ASCII letters small, so that two columns compare as the `ci_` functions compare one with a value.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Fold {
    signature: Signature,
}

impl Fold {
    fn new() -> Self {
        Self { signature: Signature::uniform(1, vec![DataType::Utf8], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Fold {
    fn name(&self) -> &str {
        "ci_fold"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [texts] = arrays.as_slice() else {
            return Err(DataFusionError::Internal("ci_fold takes one text".to_owned()));
        };
        let folded = as_string_array(texts)?.iter().map(|text| text.map(str::to_ascii_lowercase));
        Ok(ColumnarValue::Array(Arc::new(folded.collect::<StringArray>())))
    }
}

/// Plans `||` as [`TextConcat`].
#[derive(Debug)]
pub(crate) struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if expr.op != BinaryOperator::StringConcat {
            return Ok(PlannerResult::Original(expr));
        }
        let Some(udf) = FUNCTIONS.scalar.iter().find(|udf| udf.name() == TEXT_CONCAT) else {
            return Ok(PlannerResult::Original(expr));
        };
        let call = ScalarFunction::new_udf(Arc::clone(udf), vec![expr.left, expr.right]);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}
