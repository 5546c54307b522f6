//! `tables` and `columns`: what can be asked, from the list that the schemas are made of.

use daemoneye_lib::columns::Column;
use daemoneye_lib::tables::{TABLES, Table};
use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};
use std::sync::Arc;

/// Every table with its meaning.
pub(super) fn tables() -> Vec<ArrayRef> {
    let of = |word: fn(&Table) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(TABLES.iter().map(word)))
    };
    vec![of(|table| table.name), of(|table| table.meaning)]
}

/// Every column of every table.
pub(super) fn columns() -> Vec<ArrayRef> {
    let listed =
        |table: &'static Table| (1_i64..).zip(table.columns()).map(|(place, column)| (table.name, place, column));
    let rows: Vec<(&str, i64, &Column)> = TABLES.iter().flat_map(listed).collect();
    let of = |word: fn(&Column) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, _, column)| word(column))))
    };
    vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(table, _, _)| *table))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, place, _)| *place))),
        of(|column| column.name),
        of(|column| column.kind.sql()),
        Arc::new(
            rows.iter()
                .map(|(_, _, column)| Some(column.unit).filter(|unit| !unit.is_empty()))
                .collect::<StringArray>(),
        ),
        of(|column| column.sensitivity.words()),
        of(|column| column.meaning),
        of(|column| column.example),
    ]
}
