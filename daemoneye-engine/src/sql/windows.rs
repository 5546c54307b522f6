//! Functions with OVER, as they run: each value is paid for and each row looks at the clock.
//!
//! A window keeps its rows and makes one value for each of them in one go. A running `string_agg` over ten thousand command
//! lines is gigabytes, and a sliding `median` minutes; neither asks the memory pool or yields.

use super::allowance::Allowance;
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::cast::as_string_array;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::function::{
    AccumulatorArgs, ExpressionArgs, PartitionEvaluatorArgs, StateFieldsArgs, WindowUDFFieldArgs,
};
use datafusion::logical_expr::window_state::WindowAggState;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, LimitEffect, PartitionEvaluator, Signature,
    WindowFunctionDefinition, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

/// Window functions whose value is a number that does not grow with the rows.
const COUNTING: &[&str] = &["cume_dist", "dense_rank", "ntile", "percent_rank", "rank", "row_number"];

/// The call with its function watched.
pub(crate) fn watched(mut call: Box<WindowFunction>, allowance: &Arc<Allowance>) -> Box<WindowFunction> {
    let allowance = Arc::clone(allowance);
    let fixed = call.params.args.iter().map(literal_bytes).fold(0, usize::saturating_add);
    call.fun = match call.fun {
        WindowFunctionDefinition::AggregateUDF(inner) => {
            WindowFunctionDefinition::AggregateUDF(Arc::new(AggregateUDF::from(Aggregate { inner, allowance })))
        }
        WindowFunctionDefinition::WindowUDF(inner) if COUNTING.contains(&inner.name()) => {
            WindowFunctionDefinition::WindowUDF(inner)
        }
        WindowFunctionDefinition::WindowUDF(inner) => {
            WindowFunctionDefinition::WindowUDF(Arc::new(WindowUDF::from(Window { inner, fixed, allowance })))
        }
    };
    call
}

/// A default value is repeated in each row that has no other.
fn literal_bytes(expr: &Expr) -> usize {
    match expr {
        Expr::Literal(value, _) => text_bytes(value),
        Expr::Cast(cast) => literal_bytes(&cast.expr),
        _ => 0,
    }
}

/// What the pool does not know of: numbers are as large as the rows that are paid for already.
fn text_bytes(value: &ScalarValue) -> usize {
    match value {
        ScalarValue::Binary(Some(bytes)) | ScalarValue::LargeBinary(Some(bytes)) => bytes.len(),
        value => value.try_as_str().flatten().map_or(0, str::len),
    }
}

#[derive(Debug)]
struct Aggregate {
    inner: Arc<AggregateUDF>,
    allowance: Arc<Allowance>,
}

impl PartialEq for Aggregate {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Aggregate {}

impl Hash for Aggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Aggregate {
    fn over(&self, inner: Box<dyn Accumulator>) -> Box<dyn Accumulator> {
        Box::new(Running { inner, allowance: Arc::clone(&self.allowance) })
    }
}

impl AggregateUDFImpl for Aggregate {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(fields)
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.accumulator(args).map(|inner| self.over(inner))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.create_sliding_accumulator(args).map(|inner| self.over(inner))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }
}

#[derive(Debug)]
struct Running {
    inner: Box<dyn Accumulator>,
    allowance: Arc<Allowance>,
}

impl Accumulator for Running {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.allowance.time()?;
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.allowance.time()?;
        let value = self.inner.evaluate()?;
        self.allowance.memory(text_bytes(&value))?;
        Ok(value)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

#[derive(Debug)]
struct Window {
    inner: Arc<WindowUDF>,
    /// Bytes of its literal arguments.
    fixed: usize,
    allowance: Arc<Allowance>,
}

impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner && self.fixed == other.fixed
    }
}

impl Eq for Window {}

impl Hash for Window {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl WindowUDFImpl for Window {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn expressions(&self, args: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.expressions(args)
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        let repeats = args.ignore_nulls();
        let inner = self.inner.partition_evaluator_factory(args)?;
        Ok(Box::new(Evaluating { inner, fixed: self.fixed, repeats, allowance: Arc::clone(&self.allowance) }))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        self.inner.field(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        self.inner.inner().limit_effect(args)
    }
}

#[derive(Debug)]
struct Evaluating {
    inner: Box<dyn PartitionEvaluator>,
    fixed: usize,
    /// With IGNORE NULLS one value can stand in every row.
    repeats: bool,
    allowance: Arc<Allowance>,
}

impl Evaluating {
    /// Bytes that the rows can get beside those of the values themselves.
    fn grown(&self, values: &[ArrayRef], rows: usize) -> usize {
        let longest = if self.repeats { values.first().map_or(0, longest_text) } else { 0 };
        self.fixed.saturating_add(longest).saturating_mul(rows)
    }
}

fn longest_text(of: &ArrayRef) -> usize {
    as_string_array(of).map_or(0, |texts| texts.iter().flatten().map(str::len).max().unwrap_or(0))
}

impl PartitionEvaluator for Evaluating {
    fn memoize(&mut self, state: &mut WindowAggState) -> Result<()> {
        self.inner.memoize(state)
    }

    fn get_range(&self, row: usize, rows: usize) -> Result<Range<usize>> {
        self.inner.get_range(row, rows)
    }

    fn is_causal(&self) -> bool {
        self.inner.is_causal()
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        self.allowance.time()?;
        self.allowance.memory(self.grown(values, rows))?;
        self.inner.evaluate_all(values, rows)
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        self.allowance.time()?;
        let value = self.inner.evaluate(values, range)?;
        self.allowance.memory(text_bytes(&value))?;
        Ok(value)
    }

    fn evaluate_all_with_rank(&self, rows: usize, ranks: &[Range<usize>]) -> Result<ArrayRef> {
        self.allowance.time()?;
        self.inner.evaluate_all_with_rank(rows, ranks)
    }

    fn supports_bounded_execution(&self) -> bool {
        self.inner.supports_bounded_execution()
    }

    fn uses_window_frame(&self) -> bool {
        self.inner.uses_window_frame()
    }

    fn include_rank(&self) -> bool {
        self.inner.include_rank()
    }
}
