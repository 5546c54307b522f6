//! The tables and columns that the agent has, for `.tables`, `.schema` and completion.

use daemoneye_lib::proto::{QueryRequest, ResultColumn, operator_request::Verb, operator_response::Answer};

use crate::agent::Session;
use crate::error::CliError;
use crate::value;

/// Names of the tables; their columns are what the agent says.
const TABLES: &[&str] = &[
    "alert_deliveries",
    "alerts",
    "collectors",
    "coverage",
    "process_events",
    "processes",
    "rules",
    "scans",
    "system_info",
];

#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<ResultColumn>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Catalog(pub(super) Vec<Table>);

impl Catalog {
    pub(super) async fn load(session: &Session) -> Result<Self, CliError> {
        let mut tables = Vec::new();
        for name in TABLES {
            let columns = columns(session, name).await?;
            tables.push(Table { name: (*name).to_owned(), columns });
        }
        Ok(Self(tables))
    }

    /// One name a line.
    pub(super) fn tables(&self) -> String {
        self.0.iter().map(|table| format!("{}\n", value::harmless(&table.name))).collect()
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
        let line = |column: &ResultColumn| {
            let (name, word) = (value::harmless(&column.name), value::harmless(&column.r#type));
            format!("  {name:width$}  {word}\n")
        };
        format!("{}\n{}", value::harmless(&self.name), self.columns.iter().map(line).collect::<String>())
    }
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
