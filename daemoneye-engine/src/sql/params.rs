//! `$1`, `$2`, …: bound as typed values into the plan. Their text never meets the parser.

use super::{Checked, SqlRefusal, instant};
use crate::schema::TIME_ZONE;
use daemoneye_lib::proto::{Value, value::Kind};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use jiff::Timestamp;

/// So many values are looked at to tell which one a statement does not fit: each costs a plan.
const LOOKED_AT: usize = 16;

/// The values, if there are exactly as many as the statement needs; an instant that is `now` as the time that it is.
pub(crate) fn bind(checked: &Checked, values: &[Value]) -> Result<Vec<ScalarValue>, SqlRefusal> {
    if values.len() != checked.parameters() {
        return Err(SqlRefusal::whole(
            format!("parameters of the statement: {}, values given: {}", checked.parameters(), values.len()),
            "give one value for each of $1, $2, …; on the command line: --param VALUE, as often as there are values",
        ));
    }
    for (number, at) in &checked.instants {
        instant::bound(*number, *at, number.checked_sub(1).and_then(|place| values.get(place)))?;
    }
    let mut scalars: Vec<ScalarValue> = values.iter().map(scalar).collect();
    for (number, _) in &checked.instants {
        if let Some(value) = number.checked_sub(1).and_then(|place| scalars.get_mut(place))
            && value.try_as_str().flatten().is_some_and(instant::is_now)
        {
            *value =
                ScalarValue::TimestampMicrosecond(Some(Timestamp::now().as_microsecond()), Some(TIME_ZONE.into()));
        }
    }
    Ok(scalars)
}

/// Which value the plan does not fit: the first without which it does.
pub(crate) fn misfit(plan: &LogicalPlan, state: &SessionState, values: &[ScalarValue]) -> Option<usize> {
    let fits = |without: Option<usize>| {
        let scalar = |(at, value): (usize, &ScalarValue)| {
            if Some(at) == without { ScalarValue::Null } else { value.clone() }
        };
        let values: Vec<ScalarValue> = values.iter().enumerate().map(scalar).collect();
        let bound = plan.clone().with_param_values(ParamValues::from(values));
        bound.and_then(|bound| state.optimize(&bound)).is_ok()
    };
    if values.len() > LOOKED_AT || fits(None) {
        return None;
    }
    (0..values.len()).find(|at| fits(Some(*at))).map(|at| at.saturating_add(1))
}

fn scalar(value: &Value) -> ScalarValue {
    match &value.kind {
        None => ScalarValue::Null,
        Some(Kind::Boolean(value)) => ScalarValue::Boolean(Some(*value)),
        Some(Kind::Integer(value)) => ScalarValue::Int64(Some(*value)),
        Some(Kind::Real(value)) => ScalarValue::Float64(Some(*value)),
        Some(Kind::Text(value)) => ScalarValue::Utf8(Some(value.clone())),
        Some(Kind::TimestampUs(value)) => ScalarValue::TimestampMicrosecond(Some(*value), Some(TIME_ZONE.into())),
        Some(Kind::Blob(value)) => ScalarValue::Binary(Some(value.clone())),
    }
}
