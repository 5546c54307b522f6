//! Results on standard output or in a file, page by page, in one of five shapes.

mod document;
mod explain;
mod line;
mod progress;
mod table;

pub(crate) use progress::{Progress, Unit, bytes};

use std::io::{self, BufWriter, IsTerminal as _, Write};

use daemoneye_lib::proto::{Row, Value};

use crate::error::CliError;
use crate::value;
use table::Table;

/// Shape of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    Json,
    JsonLines,
    Line,
    Table,
}

impl Format {
    /// As they are written.
    pub(crate) const WORDS: &[(&str, Self)] = &[
        ("table", Self::Table),
        ("line", Self::Line),
        ("json", Self::Json),
        ("jsonl", Self::JsonLines),
        ("csv", Self::Csv),
    ];

    pub(crate) fn of_setting(word: &str) -> Self {
        Self::WORDS.iter().find(|(known, _)| *known == word).map_or(Self::Table, |(_, format)| *format)
    }

    pub(crate) fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, format)| *format == self).map_or("table", |(word, _)| *word)
    }
}

/// So many rows, for a person.
pub(crate) fn counted(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

/// Where results go.
pub(crate) struct Output {
    writer: Box<dyn Write>,
    terminal: bool,
}

impl Output {
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { writer: Box::new(BufWriter::new(stdout)), terminal }
    }

    /// Somewhere that is no terminal.
    pub(crate) fn to(writer: impl Write + 'static) -> Self {
        Self { writer: Box::new(BufWriter::new(writer)), terminal: false }
    }

    /// What a person sees later, as wide as the terminal.
    pub(crate) fn shown_later(writer: impl Write + 'static) -> Self {
        Self { writer: Box::new(writer), terminal: true }
    }

    /// Raw text.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), CliError> {
        self.writer.write_all(text.as_bytes()).and_then(|()| self.writer.flush()).map_err(CliError::Output)
    }
}

/// Rows under columns. Holds one page at most.
pub(crate) struct Sheet {
    output: Output,
    format: Format,
    columns: Vec<String>,
    rows: u64,
    most: u64,
    left_out: u64,
    table: Table,
}

impl Sheet {
    pub(crate) fn new(output: Output, format: Format) -> Self {
        let table = Table::new(output.terminal);
        Self { output, format, columns: Vec::new(), rows: 0, most: u64::MAX, left_out: 0, table }
    }

    /// Prints at most this many rows and counts the others.
    pub(crate) const fn limit(&mut self, most: u64) {
        self.most = most;
    }

    /// Rows that were printed.
    pub(crate) const fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows that came and were not printed.
    pub(crate) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Names the columns; called once, before the first row.
    pub(crate) fn begin(&mut self, columns: Vec<String>) -> Result<(), CliError> {
        self.columns = columns;
        if self.format == Format::Csv {
            let columns = self.columns.clone();
            self.csv(columns.iter().map(String::as_str))?;
        }
        Ok(())
    }

    /// Writes a page and flushes it, so that a reader sees what there is.
    pub(crate) fn page(&mut self, rows: &[Row]) -> Result<(), CliError> {
        let room = usize::try_from(self.most.saturating_sub(self.rows)).unwrap_or(usize::MAX);
        let (rows, others) = rows.split_at_checked(room).unwrap_or((rows, &[]));
        self.left_out += others.len() as u64;
        if rows.is_empty() {
            return Ok(());
        }
        match self.format {
            Format::Table => {
                let text = self.table.page(&self.columns, rows);
                self.write(&text)?;
            }
            Format::Csv => {
                for row in rows {
                    let fields: Vec<String> = row.values.iter().map(value::text).collect();
                    self.csv(fields.iter().map(String::as_str))?;
                }
            }
            Format::Json | Format::JsonLines => self.json(rows)?,
            Format::Line => {
                let gap = if self.rows == 0 { "" } else { "\n" };
                let text = line::page(&self.columns, rows);
                self.write(&format!("{gap}{text}"))?;
            }
        }
        self.rows += rows.len() as u64;
        self.output.writer.flush().map_err(CliError::Output)
    }

    /// Writes what a query read in place of its rows.
    pub(crate) fn explain(&mut self, json: &str) -> Result<(), CliError> {
        let read = serde_json::from_str(json).map_err(|_| CliError::AgentAnswer("what the query read"))?;
        if self.format == Format::Table { self.text(&explain::text(&read)) } else { self.document(&read) }
    }

    /// Writes a document in place of rows.
    fn document(&mut self, document: &serde_json::Value) -> Result<(), CliError> {
        if self.format == Format::Csv {
            self.begin(["key", "value"].map(str::to_owned).to_vec())?;
            return self.page(&document::leaves(document));
        }
        self.text(&document::text(self.format, document))
    }

    fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.write(text)?;
        self.output.writer.flush().map_err(CliError::Output)
    }

    /// Writes what belongs after the last row.
    pub(crate) fn finish(&mut self) -> Result<u64, CliError> {
        match self.format {
            Format::Json if self.rows == 0 => self.write("[]\n")?,
            Format::Json => self.write("\n]\n")?,
            Format::Table if self.rows == 0 => {
                let header = self.table.page(&self.columns, &[]);
                self.write(&header)?;
            }
            Format::Csv | Format::JsonLines | Format::Line | Format::Table => {}
        }
        self.output.writer.flush().map_err(CliError::Output)?;
        Ok(self.rows)
    }

    fn json(&mut self, rows: &[Row]) -> Result<(), CliError> {
        for (at, row) in rows.iter().enumerate() {
            let first = self.rows == 0 && at == 0;
            let (before, after) = match (self.format, first) {
                (Format::Json, true) => ("[\n  ", ""),
                (Format::Json, false) => (",\n  ", ""),
                _ => ("", "\n"),
            };
            let object = object(&self.columns, &row.values);
            self.write(&format!("{before}{object}{after}"))?;
        }
        Ok(())
    }

    /// Raw where a program reads; a terminal would obey what a name holds.
    fn csv<'a>(&mut self, fields: impl Iterator<Item = &'a str>) -> Result<(), CliError> {
        let mut line = csv::Writer::from_writer(Vec::new());
        let written = if self.output.terminal {
            line.write_record(fields.map(value::harmless))
        } else {
            line.write_record(fields)
        };
        let bytes = written.ok().and_then(|()| line.into_inner().ok()).unwrap_or_default();
        self.output.writer.write_all(&bytes).map_err(CliError::Output)
    }

    fn write(&mut self, text: &str) -> Result<(), CliError> {
        self.output.writer.write_all(text.as_bytes()).map_err(CliError::Output)
    }
}

/// One row as an object whose keys stand in the order of the SELECT.
fn object(columns: &[String], values: &[Value]) -> String {
    let fields = columns.iter().zip(values).map(|(column, cell)| {
        let (key, cell) = (serde_json::Value::from(column.as_str()), value::json(cell));
        format!("{key}:{cell}")
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

/// Writes a JSON document (health, an alert) for a person or a machine.
pub(crate) fn document(format: Format, document: &serde_json::Value) -> Result<(), CliError> {
    Sheet::new(Output::stdout(), format).document(document)
}

/// Writes objects for a machine, of which a member may have parts, as [`rows`] writes rows.
pub(crate) fn objects(format: Format, objects: &[serde_json::Value]) -> Result<(), CliError> {
    match format {
        Format::JsonLines => objects.iter().try_for_each(|object| document(format, object)),
        _ => document(Format::Json, &objects.into()),
    }
}

/// Writes all `rows` at once: for answers that are small by nature.
pub(crate) fn rows(format: Format, columns: &[&str], rows: &[Row]) -> Result<(), CliError> {
    let mut sheet = Sheet::new(Output::stdout(), format);
    sheet.begin(columns.iter().map(|&column| column.to_owned()).collect())?;
    if !rows.is_empty() {
        sheet.page(rows)?;
    }
    sheet.finish().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn rendered(format: Format, pages: &[Vec<Row>]) -> String {
        rendered_on(false, format, pages)
    }

    fn rendered_on(terminal: bool, format: Format, pages: &[Vec<Row>]) -> String {
        let shared = Shared::default();
        let output = Output { writer: Box::new(shared.clone()), terminal };
        let mut sheet = Sheet::new(output, format);
        sheet.begin(vec!["name".into(), "pid".into()]).unwrap();
        for page in pages {
            sheet.page(page).unwrap();
        }
        sheet.finish().unwrap();
        let bytes = shared.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn row(name: &str, pid: i64) -> Row {
        Row { values: vec![value::of_text(name), value::of_number(pid)] }
    }

    #[test]
    fn pages_join_into_one_document_in_every_format() {
        let pages = [vec![row("a,\"b\"", 1)], vec![row("c\nd", 2)]];
        let json: serde_json::Value = serde_json::from_str(&rendered(Format::Json, &pages)).unwrap();
        assert_eq!(json[1]["name"], "c\nd");
        assert_eq!(rendered(Format::JsonLines, &pages).lines().count(), 2);
        assert_eq!(rendered(Format::Csv, &pages), "name,pid\n\"a,\"\"b\"\"\",1\n\"c\nd\",2\n");
        assert_eq!(rendered(Format::Line, &pages), "name = a,\"b\"\n pid = 1\n\nname = c\\nd\n pid = 2\n");
        let table = rendered(Format::Table, &pages);
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(table.contains("c\\nd"), "{table}");
        assert_eq!(table.matches("name").count(), 1, "{table}");
    }

    #[test]
    fn a_terminal_gets_no_raw_control_characters_and_a_pipe_gets_every_byte_of_csv() {
        let pages = [vec![row("a\u{1b}[2Jb", 1)]];
        assert_eq!(rendered_on(false, Format::Csv, &pages), "name,pid\na\u{1b}[2Jb,1\n");
        assert_eq!(rendered_on(true, Format::Csv, &pages), "name,pid\na\\u{1b}[2Jb,1\n");
        for format in [Format::Csv, Format::Json, Format::JsonLines, Format::Line, Format::Table] {
            let text = rendered_on(true, format, &pages);
            assert!(!text.contains('\u{1b}'), "{format:?}: {text:?}");
        }
    }

    #[test]
    fn an_empty_result_is_still_a_document() {
        assert_eq!(rendered(Format::Json, &[]), "[]\n");
        assert_eq!(rendered(Format::JsonLines, &[]), "");
        assert_eq!(rendered(Format::Line, &[]), "");
        assert_eq!(rendered(Format::Csv, &[]), "name,pid\n");
        assert!(rendered(Format::Table, &[]).contains("name"));
    }
}
