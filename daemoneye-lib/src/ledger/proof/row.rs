//! The row of an event as a proof file has it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::{Hash, event};
use crate::columns::{self, Column};
use crate::event_json::Cell;
use crate::model::EventPointer;

/// Columns of an event that are not NULL, by name.
pub type EventColumns = BTreeMap<String, Value>;

/// A row that was read back.
#[derive(Debug)]
pub struct Row {
    cells: Vec<Cell<'static>>,
    /// Where it stands in its stream.
    pub pointer: EventPointer,
}

impl Row {
    /// Of columns by name, those that are not NULL.
    ///
    /// # Errors
    /// A sentence: an unknown column, a value that is none of the column's, or no position.
    pub fn read(columns: &EventColumns) -> Result<Self, String> {
        if let Some(name) = columns.keys().find(|name| columns::process_event_column(name).is_none()) {
            return Err(format!("process_events has no column {name}"));
        }
        let cell = |column: &'static Column| match columns.get(column.name) {
            None => Ok(Cell::Null),
            Some(value) => event::cell_of_json(column, value)
                .filter(|cell| event::cell_to_json(cell) == *value)
                .ok_or_else(|| format!("column {} does not have a value of its kind", column.name)),
        };
        let cells = columns::PROCESS_EVENTS.iter().map(cell).collect::<Result<Vec<_>, _>>()?;
        let number = |name: &str| columns.get(name).and_then(Value::as_u64).ok_or_else(|| format!("it has no {name}"));
        let collector = columns.get("collector").and_then(Value::as_str).ok_or("it has no collector")?.to_owned();
        let pointer = EventPointer { collector, epoch: number("epoch")?, number: number("seq")? };
        Ok(Self { cells, pointer })
    }

    /// Of the cells of a stored row, in the order of the table.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn columns<'a>(cells: impl Iterator<Item = Cell<'a>>) -> EventColumns {
        let named = columns::PROCESS_EVENTS.iter().zip(cells).filter(|(_, cell)| *cell != Cell::Null);
        named.map(|(column, cell)| (column.name.to_owned(), event::cell_to_json(&cell))).collect()
    }

    /// Hash of its canonical bytes.
    #[must_use]
    pub fn content(&self, schema: u32) -> Hash {
        event::content_hash(schema, self.cells.iter().cloned())
    }
}
