//! The tables and columns that the agent has, for completion; what `.tables` and `.schema` ask.

use crate::agent::Session;
use crate::commands::query::{self, Question};
use crate::error::CliError;
use crate::value;
use daemoneye_lib::functions::PROCESSES_AT;

/// What the function in FROM gives.
const LIFETIMES: &str = "process_lifetimes";

/// How it is called.
pub(super) const CALL: &str = "processes_at('2026-01-31T12:00Z') or processes_at('now', '-30 minutes') stands in FROM: the rows of \
                               process_lifetimes that lived then";

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

/// Whether it is the function in FROM, with what it is called with or without.
pub(super) fn is_instant(name: &str) -> bool {
    let plain = name.split('(').next().unwrap_or_default();
    plain.trim_end().eq_ignore_ascii_case(PROCESSES_AT)
}

/// The columns of one table, or of what the function in FROM gives, with what they mean; or of all.
pub(super) fn schema(table: Option<&str>) -> Question {
    match table {
        Some(table) => {
            let columns = "name, type, unit, meaning, example";
            let sql = format!("SELECT {columns} FROM columns WHERE table_name = $1 ORDER BY position");
            let table = if is_instant(table) { LIFETIMES.to_owned() } else { table.to_ascii_lowercase() };
            Question { params: vec![value::of_text(table)], ..Question::new(sql) }
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
    fn the_function_in_from_has_the_columns_of_what_it_gives() {
        let asked = |name| schema(Some(name)).params;
        for name in ["processes_at", "Processes_At(", "processes_at ('now')"] {
            assert_eq!(asked(name), [value::of_text(LIFETIMES.to_owned())], "{name}");
        }
        assert_eq!(asked("Processes"), [value::of_text("processes".to_owned())]);
        assert!(CALL.contains(PROCESSES_AT) && CALL.contains(LIFETIMES));
        let known = daemoneye_lib::tables::table(LIFETIMES).unwrap();
        assert!(known.meaning.contains(PROCESSES_AT), "the documentation says the same");
    }

    #[test]
    fn columns_come_together_under_their_table() {
        let words = ["alerts.id", "alerts.time", "processes.pid", "7"].map(str::to_owned);
        let tables = Catalog::of(&words).0;
        let found: Vec<(&str, usize)> =
            tables.iter().map(|table| (table.name.as_str(), table.columns.len())).collect();
        assert_eq!(found, [("alerts", 2), ("processes", 1)]);
    }
}
