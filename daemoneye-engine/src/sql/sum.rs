//! `sum` over whole numbers, exact: DataFusion's wraps around. It adds in 128 bits and fails when the end does not fit, so that
//! values on the way may.

use super::arithmetic::overflow;
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature,
};
use std::collections::HashMap;
use std::sync::Arc;

/// Every sum of 64-bit numbers fits: 2⁶⁴ rows of 2⁶³ are less than 10³⁸.
const PARTIAL: DataType = DataType::Decimal128(38, 0);
/// Bytes of a distinct value with its count and its place in the table.
const SEEN_BYTES: usize = 40;

/// DataFusion's `sum` with exact whole numbers.
pub(crate) fn exact(inner: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Sum { inner }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sum {
    inner: Arc<AggregateUDF>,
}

const fn whole(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::UInt64)
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let of = args.return_type();
        if whole(of) { Ok(Box::new(Exact::new(of, args.is_distinct))) } else { self.inner.accumulator(args) }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !whole(args.return_type()) || args.is_distinct {
            return self.inner.state_fields(args);
        }
        Ok(vec![Arc::new(Field::new(format!("{}[sum]", args.name), PARTIAL, true))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !whole(args.return_type()) && self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if whole(args.return_type()) { self.accumulator(args) } else { self.inner.create_sliding_accumulator(args) }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

#[derive(Debug)]
struct Exact {
    of: DataType,
    total: i128,
    /// Without one the sum is NULL.
    values: u64,
    /// With DISTINCT: how often each value is there, because a window takes values back.
    seen: Option<HashMap<i128, u64>>,
}

impl Exact {
    fn new(of: &DataType, distinct: bool) -> Self {
        Self { of: of.clone(), total: 0, values: 0, seen: distinct.then(HashMap::new) }
    }

    fn put(&mut self, value: i128) {
        self.values = self.values.saturating_add(1);
        let times = self.seen.as_mut().map(|seen| seen.entry(value).or_default());
        let new = times.is_none_or(|times| {
            *times = times.saturating_add(1);
            *times == 1
        });
        if new {
            self.total = self.total.saturating_add(value);
        }
    }

    fn take_back(&mut self, value: i128) {
        self.values = self.values.saturating_sub(1);
        let last = self.seen.as_mut().is_none_or(|seen| match seen.get_mut(&value) {
            Some(times) if *times > 1 => {
                *times -= 1;
                false
            }
            _ => seen.remove(&value).is_some(),
        });
        if last {
            self.total = self.total.saturating_sub(value);
        }
    }
}

fn each(array: &dyn Array, mut with: impl FnMut(i128)) -> Result<()> {
    match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().iter().flatten().for_each(|value| with(value.into())),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().iter().flatten().for_each(|value| with(value.into())),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().iter().flatten().for_each(with),
        other => return internal_err!("a sum of whole numbers over {other}"),
    }
    Ok(())
}

fn scalar(of: &DataType, value: i128) -> Option<ScalarValue> {
    match of {
        DataType::UInt64 => u64::try_from(value).ok().map(|value| ScalarValue::UInt64(Some(value))),
        _ => i64::try_from(value).ok().map(|value| ScalarValue::Int64(Some(value))),
    }
}

impl Accumulator for Exact {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values.first().map_or(Ok(()), |values| each(values, |value| self.put(value)))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values.first().map_or(Ok(()), |values| each(values, |value| self.take_back(value)))
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.values == 0 {
            return ScalarValue::try_from(&self.of);
        }
        scalar(&self.of, self.total).ok_or_else(|| overflow(&format_args!("the sum is {}", self.total)))
    }

    fn size(&self) -> usize {
        let seen = self.seen.as_ref().map_or(0, HashMap::capacity);
        size_of::<Self>().saturating_add(seen.saturating_mul(SEEN_BYTES))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = match &self.seen {
            None => ScalarValue::Decimal128((self.values > 0).then_some(self.total), 38, 0),
            Some(seen) => {
                let values: Vec<ScalarValue> = seen.keys().filter_map(|value| scalar(&self.of, *value)).collect();
                ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.of))
            }
        };
        Ok(vec![state])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(states) = states.first() else { return Ok(()) };
        match states.as_list_opt::<i32>() {
            None => each(states, |value| self.put(value)),
            Some(lists) => lists.iter().flatten().try_for_each(|list| each(&list, |value| self.put(value))),
        }
    }
}
