//! The tables and columns that the agent has, for completion; what `.tables` and `.schema` ask.

use crate::agent::Session;
use crate::commands::query::{self, Question};
use crate::error::CliError;
use crate::value;

#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Catalog(pub(super) Vec<Table>);

impl Catalog {
    pub(super) async fn load(session: &Session) -> Result<Self, CliError> {
        let sql = "SELECT concat(table_name, '.', name) FROM columns ORDER BY table_name, position";
        let words = query::words(session, Question::new(sql.to_owned())).await?;
        Ok(Self::of(&words))
    }

    /// From `table.column`, where columns of a table follow each other.
    fn of(words: &[String]) -> Self {
        let mut tables: Vec<Table> = Vec::new();
        for (table, column) in words.iter().filter_map(|word| word.split_once('.')) {
            match tables.last_mut().filter(|last| last.name == table) {
                Some(last) => last.columns.push(column.to_owned()),
                None => tables.push(Table { name: table.to_owned(), columns: vec![column.to_owned()] }),
            }
        }
        Self(tables)
    }
}

/// Every table with what its rows are.
pub(super) fn tables() -> Question {
    Question::new("SELECT name, meaning FROM tables ORDER BY name".to_owned())
}

/// The columns of one table with what they mean, or of all.
pub(super) fn schema(table: Option<&str>) -> Question {
    match table {
        Some(table) => {
            let columns = "name, type, unit, meaning, example";
            let sql = format!("SELECT {columns} FROM columns WHERE table_name = $1 ORDER BY position");
            Question { params: vec![value::of_text(table.to_ascii_lowercase())], ..Question::new(sql) }
        }
        None => {
            let columns = "table_name, name, type, unit";
            Question::new(format!("SELECT {columns} FROM columns ORDER BY table_name, position"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_together_under_their_table() {
        let words = ["alerts.id", "alerts.time", "processes.pid", "7"].map(str::to_owned);
        let tables = Catalog::of(&words).0;
        let found: Vec<(&str, usize)> =
            tables.iter().map(|table| (table.name.as_str(), table.columns.len())).collect();
        assert_eq!(found, [("alerts", 2), ("processes", 1)]);
    }
}
