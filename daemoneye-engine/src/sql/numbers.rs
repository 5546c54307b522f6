//! `abs`, `ceil`, `floor` and `round`: DataFusion keeps them behind a feature with many more functions than are listed here.

use super::arithmetic::overflow;
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::compute::binary;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::cast::{as_float64_array, as_int64_array};
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature::Exact, Volatility,
};
use std::sync::Arc;

/// All of them.
pub(crate) fn functions() -> [Arc<ScalarUDF>; 4] {
    let (whole, real) = (DataType::Int64, DataType::Float64);
    let udf = |name, forms| {
        Arc::new(ScalarUDF::from(Number { name, signature: Signature::one_of(forms, Volatility::Immutable) }))
    };
    [
        udf("abs", vec![Exact(vec![whole.clone()]), Exact(vec![real.clone()])]),
        udf("ceil", vec![Exact(vec![real.clone()])]),
        udf("floor", vec![Exact(vec![real.clone()])]),
        udf("round", vec![Exact(vec![real.clone()]), Exact(vec![real, whole])]),
    ]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Number {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Number {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let result: ArrayRef = match (self.name, arrays.as_slice()) {
            ("abs", [of]) if of.data_type() == &DataType::Int64 => {
                Arc::new(as_int64_array(of)?.try_unary::<_, Int64Type, _>(|value| {
                    value.checked_abs().ok_or_else(|| overflow(&format!("abs({value})")))
                })?)
            }
            ("abs", [of]) => Arc::new(as_float64_array(of)?.unary::<_, Float64Type>(f64::abs)),
            ("ceil", [of]) => Arc::new(as_float64_array(of)?.unary::<_, Float64Type>(f64::ceil)),
            ("floor", [of]) => Arc::new(as_float64_array(of)?.unary::<_, Float64Type>(f64::floor)),
            ("round", [of]) => Arc::new(as_float64_array(of)?.unary::<_, Float64Type>(f64::round)),
            ("round", [of, digits]) => {
                Arc::new(binary::<_, _, _, Float64Type>(as_float64_array(of)?, as_int64_array(digits)?, rounded)?)
            }
            (name, _) => return internal_err!("{name} over {} values", arrays.len()),
        };
        Ok::<_, DataFusionError>(ColumnarValue::Array(result))
    }
}

/// To that many decimals; what has fewer, or no finite value so shifted, stays as it is.
fn rounded(value: f64, digits: i64) -> f64 {
    let scale = 10_f64.powi(i32::try_from(digits.clamp(-400, 400)).unwrap_or(0));
    let rounded = (value * scale).round() / scale;
    if rounded.is_finite() { rounded } else { value }
}
