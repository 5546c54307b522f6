//! The tables and columns that the agent has, for `.tables`, `.schema` and completion.

use daemoneye_lib::columns::Column;
use daemoneye_lib::proto::{QueryRequest, ResultColumn, operator_request::Verb, operator_response::Answer};
use daemoneye_lib::tables;

use crate::agent::Session;
use crate::error::CliError;
use crate::value;

/// Width of `TIMESTAMP`, the longest type.
const TYPE_WIDTH: usize = 9;

#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<ResultColumn>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Catalog(pub(super) Vec<Table>);

impl Catalog {
    pub(super) async fn load(session: &Session) -> Result<Self, CliError> {
        let mut listed = Vec::new();
        for table in tables::TABLES {
            let columns = columns(session, table.name).await?;
            listed.push(Table { name: table.name.to_owned(), columns });
        }
        Ok(Self(listed))
    }

    /// One name a line, with what its rows are.
    pub(super) fn tables(&self) -> String {
        let width = self.0.iter().map(|table| table.name.chars().count()).max().unwrap_or_default();
        let line = |table: &Table| {
            let meaning = tables::table(&table.name).map_or("", |known| known.meaning);
            format!("{}\n", format!("{:width$}  {meaning}", value::harmless(&table.name)).trim_end())
        };
        self.0.iter().map(line).collect()
    }

    /// One table as it could be written, or all of them.
    pub(super) fn schema(&self, wanted: Option<&str>) -> Result<String, CliError> {
        let found: Vec<&Table> =
            self.0.iter().filter(|table| wanted.is_none_or(|name| table.name.eq_ignore_ascii_case(name))).collect();
        match (wanted, found.as_slice()) {
            (Some(name), []) => Err(CliError::NotFound(format!("there is no table {name}; .tables lists them"))),
            (_, found) => Ok(found.iter().map(|table| table.described()).collect::<Vec<_>>().join("\n")),
        }
    }
}

impl Table {
    fn described(&self) -> String {
        let width = self.columns.iter().map(|column| column.name.chars().count()).max().unwrap_or_default();
        let known: Vec<&Column> = tables::table(&self.name).into_iter().flat_map(tables::Table::columns).collect();
        let line = |column: &ResultColumn| {
            let (name, word) = (value::harmless(&column.name), value::harmless(&column.r#type));
            let about = known.iter().find(|known| known.name == column.name).map_or_else(String::new, about);
            format!("{}\n", format!("  {name:width$}  {word:TYPE_WIDTH$}  {about}").trim_end())
        };
        format!("{}\n{}", value::harmless(&self.name), self.columns.iter().map(line).collect::<String>())
    }
}

/// Meaning, unit and an example, as documented.
fn about(column: &&Column) -> String {
    let unit = if column.unit.is_empty() { String::new() } else { format!(" ({})", column.unit) };
    format!("{}{unit}, as in {}", column.meaning, column.example)
}

/// The columns of an answer without rows.
async fn columns(session: &Session, table: &str) -> Result<Vec<ResultColumn>, CliError> {
    let sql = format!("SELECT * FROM {table} LIMIT 0");
    let mut answers = session.ask(Verb::Query(QueryRequest { sql, ..QueryRequest::default() })).await?;
    let mut columns = Vec::new();
    while let Some(response) = answers.next().await? {
        if let Some(Answer::Page(page)) = response.answer {
            columns.extend(page.columns);
        }
    }
    Ok(columns)
}
