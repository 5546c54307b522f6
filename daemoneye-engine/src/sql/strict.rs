//! The functions of rules in queries: strict, two-valued, and compiled once for the query.
//!
//! As registered they only have a name and a type; on the plan each call takes its values in and becomes the question that
//! the row matcher asks too.

use super::allowance::Allowance;
use super::matches::{self, ROWS_A_LOOK};
use crate::text::{FUNCTIONS, Fits};
use datafusion::arrow::array::BooleanBuilder;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::cast::as_string_array;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, internal_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Whether it is one of them.
pub(crate) fn is_strict(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

/// What is wrong with one value by itself.
pub(crate) fn mistake(name: &str, position: usize, value: &str) -> Option<String> {
    let fits = match (name, position) {
        ("cidr", _) => Fits::of_function(name, &[value]),
        ("re_match", 2) => Fits::of_function(name, &["", value]),
        ("re_match", _) => Some(Err((0, "re_match takes a text, a pattern and at most flags".to_owned()))),
        _ => None,
    };
    fits?.err().map(|(_, mistake)| mistake)
}

/// As the planner finds them.
pub(crate) fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    FUNCTIONS.iter().map(|name| Arc::new(ScalarUDF::from(Strict::new(name, None))))
}

/// The call with its values compiled.
pub(crate) fn settled(call: ScalarFunction, allowance: &Arc<Allowance>) -> Result<Transformed<Expr>> {
    let name = call.name();
    let Some(name) = FUNCTIONS.iter().find(|known| **known == name) else {
        return internal_err!("no function {name}");
    };
    let Some(values) = call.args.get(1..).unwrap_or_default().iter().map(matches::literal).collect::<Option<Vec<_>>>()
    else {
        return plan_err!("the values of {name} must be string literals or parameters that are not NULL");
    };
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    allowance.time()?;
    let fits = match (*name, values.as_slice()) {
        ("re_match", [pattern]) => Ok(Fits::of_expression(matches::compiled(pattern, false, allowance)?)),
        ("re_match", [pattern, flags]) if mistake(name, 2, flags).is_none() && !flags.is_empty() => {
            Ok(Fits::of_expression(matches::compiled(&format!("(?{flags}){pattern}"), false, allowance)?))
        }
        (name, values) => match Fits::of_function(name, values) {
            Some(fits) => fits,
            None => return internal_err!("no function {name}"),
        },
    };
    match fits {
        Ok(fits) => {
            let udf = Strict::new(name, Some((fits, Arc::clone(allowance))));
            let call = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(udf)), call.args);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        Err((_, mistake)) => plan_err!("{name}: {mistake}"),
    }
}

#[derive(Debug)]
struct Strict {
    name: &'static str,
    compiled: Option<(Fits, Arc<Allowance>)>,
    signature: Signature,
}

impl Strict {
    fn new(name: &'static str, compiled: Option<(Fits, Arc<Allowance>)>) -> Self {
        Self { name, compiled, signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl PartialEq for Strict {
    /// What it compiled to is decided by its arguments, which are compared with it.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.compiled.is_some() == other.compiled.is_some()
    }
}

impl Eq for Strict {}

impl Hash for Strict {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Strict {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let is_text =
            |of: &DataType| matches!(of, DataType::LargeUtf8 | DataType::Null | DataType::Utf8 | DataType::Utf8View);
        match types {
            [text, _, ..] if is_text(text) => Ok(DataType::Boolean),
            _ => plan_err!("{} takes a text and at least one value", self.name),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (Some((fits, allowance)), Some(text)) = (&self.compiled, args.args.first()) else {
            return internal_err!("{} was not compiled", self.name);
        };
        let text = matches::texts(text, args.number_rows)?;
        let mut found = BooleanBuilder::with_capacity(text.len());
        for (row, text) in as_string_array(&text)?.iter().enumerate() {
            if row.is_multiple_of(ROWS_A_LOOK) {
                allowance.time()?;
            }
            found.append_value(text.is_some_and(|text| fits.fits(text.into())));
        }
        Ok(ColumnarValue::Array(Arc::new(found.finish())))
    }
}
