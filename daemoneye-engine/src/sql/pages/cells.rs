//! One cell of a batch as a value of the protocol.

use daemoneye_lib::proto::{Value, value::Kind};
use datafusion::arrow::array::{Array, AsArray, PrimitiveArray};
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::arrow::util::display::array_value_to_string;

/// The value of one cell; what the protocol has no kind for (dates, intervals, decimals, lists) becomes text.
#[must_use]
pub fn value_at(array: &dyn Array, row: usize) -> Value {
    Value { kind: if row >= array.len() || array.is_null(row) { None } else { kind(array, row) } }
}

fn kind(array: &dyn Array, row: usize) -> Option<Kind> {
    match array.data_type() {
        // A column of nothing but NULL has no validity bits, so `is_null` says no.
        DataType::Null => None,
        DataType::Boolean => array.as_boolean_opt().map(|array| Kind::Boolean(array.value(row))),
        DataType::Int8 => integer::<Int8Type>(array, row),
        DataType::Int16 => integer::<Int16Type>(array, row),
        DataType::Int32 => integer::<Int32Type>(array, row),
        DataType::Int64 => integer::<Int64Type>(array, row),
        DataType::UInt8 => integer::<UInt8Type>(array, row),
        DataType::UInt16 => integer::<UInt16Type>(array, row),
        DataType::UInt32 => integer::<UInt32Type>(array, row),
        // What does not fit 64 signed bits is shown, not wrapped.
        DataType::UInt64 => integer::<UInt64Type>(array, row).or_else(|| shown(array, row)),
        DataType::Float16 => real::<Float16Type>(array, row),
        DataType::Float32 => real::<Float32Type>(array, row),
        DataType::Float64 => real::<Float64Type>(array, row),
        DataType::Utf8 => array.as_string_opt::<i32>().map(|array| Kind::Text(array.value(row).to_owned())),
        DataType::LargeUtf8 => array.as_string_opt::<i64>().map(|array| Kind::Text(array.value(row).to_owned())),
        DataType::Utf8View => array.as_string_view_opt().map(|array| Kind::Text(array.value(row).to_owned())),
        DataType::Binary => array.as_binary_opt::<i32>().map(|array| Kind::Blob(array.value(row).to_vec())),
        DataType::LargeBinary => array.as_binary_opt::<i64>().map(|array| Kind::Blob(array.value(row).to_vec())),
        DataType::BinaryView => array.as_binary_view_opt().map(|array| Kind::Blob(array.value(row).to_vec())),
        DataType::FixedSizeBinary(_) => {
            array.as_fixed_size_binary_opt().map(|array| Kind::Blob(array.value(row).to_vec()))
        }
        DataType::Timestamp(unit, _) => timestamp(array, *unit, row),
        DataType::Duration(unit) => duration(array, *unit, row),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary_opt()?;
            let key = *dictionary.normalized_keys().get(row)?;
            value_at(dictionary.values().as_ref(), key).kind
        }
        _ => shown(array, row),
    }
}

fn integer<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> Option<Kind>
where
    T::Native: TryInto<i64>,
{
    native::<T>(array, row)?.try_into().ok().map(Kind::Integer)
}

fn real<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> Option<Kind>
where
    T::Native: Into<f64>,
{
    Some(Kind::Real(native::<T>(array, row)?.into()))
}

fn native<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> Option<T::Native> {
    array.as_primitive_opt::<T>().map(|array: &PrimitiveArray<T>| array.value(row))
}

fn timestamp(array: &dyn Array, unit: TimeUnit, row: usize) -> Option<Kind> {
    let us = match unit {
        TimeUnit::Second => native::<TimestampSecondType>(array, row)?.saturating_mul(1_000_000),
        TimeUnit::Millisecond => native::<TimestampMillisecondType>(array, row)?.saturating_mul(1_000),
        TimeUnit::Microsecond => native::<TimestampMicrosecondType>(array, row)?,
        TimeUnit::Nanosecond => native::<TimestampNanosecondType>(array, row)?.div_euclid(1_000),
    };
    Some(Kind::TimestampUs(us))
}

/// As PostgreSQL writes it: `2 days 03:04:05.6`.
fn duration(array: &dyn Array, unit: TimeUnit, row: usize) -> Option<Kind> {
    let us = match unit {
        TimeUnit::Second => native::<DurationSecondType>(array, row)?.saturating_mul(1_000_000),
        TimeUnit::Millisecond => native::<DurationMillisecondType>(array, row)?.saturating_mul(1_000),
        TimeUnit::Microsecond => native::<DurationMicrosecondType>(array, row)?,
        TimeUnit::Nanosecond => native::<DurationNanosecondType>(array, row)? / 1_000,
    };
    let (seconds, us, sign) =
        (us.unsigned_abs() / 1_000_000, us.unsigned_abs() % 1_000_000, if us < 0 { "-" } else { "" });
    let days = match seconds / 86_400 {
        0 => String::new(),
        1 => "1 day ".to_owned(),
        days => format!("{days} days "),
    };
    let clock = format!("{:02}:{:02}:{:02}.{us:06}", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    Some(Kind::Text(format!("{sign}{days}{}", clock.trim_end_matches('0').trim_end_matches('.'))))
}

fn shown(array: &dyn Array, row: usize) -> Option<Kind> {
    array_value_to_string(array, row).ok().map(Kind::Text)
}
