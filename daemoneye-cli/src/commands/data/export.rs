//! `data export`: rows into a new file, as Parquet (encoded by the agent), CSV or JSON Lines, in constant memory.

use std::io::Write as _;
use std::path::Path;

use daemoneye_lib::columns;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{DataExport, Value, operator_request::Verb, operator_response::Answer, value::Kind};
use daemoneye_lib::tables::{self, TABLES, Table};
use jiff::Timestamp;

use super::super::query;
use super::condition;
use crate::agent::Session;
use crate::args::Export;
use crate::error::CliError;
use crate::private::NewFile;
use crate::render::{Format, Output, Progress, Sheet, Unit, counted};
use crate::settings::Settings;
use crate::value;

pub(super) async fn run(settings: &Settings, arguments: Export) -> Result<Exit, CliError> {
    // A file of that name is what nobody means, and an answer that is cut off leaves no file.
    if arguments.output.as_os_str() == "-" {
        let text = "an export is a file; name one, or write rows to standard output with: daemoneye-cli query --format csv \
                    (or jsonl)";
        return Err(CliError::Usage(text.to_owned()));
    }
    let format = Shape::of(&arguments)?;
    if let Some(condition) = &arguments.condition {
        condition::alone(condition)?;
    }
    let (sql, params) = statement(&arguments)?;
    let session = Session::open(settings).await?;
    let export = DataExport { sql: sql.clone(), params, parquet: format == Shape::Parquet };
    let done = write(&session, export, &arguments.output, format).await;
    session.close().await;
    let done = done.map_err(|error| error.writing(&arguments.output));
    done.map_err(|error| match &arguments.condition {
        Some(written) => condition::about(error, &sql, written),
        None => error.about(&sql),
    })
}

/// What the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Parquet,
    Rows(Format),
}

impl Shape {
    fn of(arguments: &Export) -> Result<Self, CliError> {
        let end = arguments.output.extension().map(|end| end.to_string_lossy().into_owned());
        match arguments.format.as_deref().or(end.as_deref()) {
            Some("parquet") => Ok(Self::Parquet),
            Some("csv") => Ok(Self::Rows(Format::Csv)),
            Some("jsonl") => Ok(Self::Rows(Format::JsonLines)),
            _ => {
                let text = format!(
                    "{} does not tell what it is to hold; add --format parquet, csv or jsonl",
                    arguments.output.display()
                );
                Err(CliError::Usage(text))
            }
        }
    }
}

async fn write(session: &Session, export: DataExport, path: &Path, shape: Shape) -> Result<Exit, CliError> {
    let io = |what: &'static str| move |source| CliError::Io { what: format!("{what} {}", path.display()), source };
    let mut answers = session.ask(Verb::DataExport(export)).await?;
    let file = NewFile::create(path).map_err(io("create a new file"))?;
    let mut raw = file.writer().map_err(io("write"))?;
    let format = if let Shape::Rows(format) = shape { format } else { Format::Csv };
    let mut sheet = Sheet::new(Output::to(file.writer().map_err(io("write"))?), format);
    let mut progress = Progress::new("export", Unit::Rows);
    let mut rows = 0_u64;
    loop {
        match answers.next().await?.and_then(|response| response.answer) {
            Some(Answer::FilePart(part)) => raw.write_all(&part.bytes).map_err(io("write"))?,
            Some(Answer::Progress(so_far)) => progress.show(so_far.done, so_far.total),
            Some(Answer::Page(page)) => {
                if !page.columns.is_empty() {
                    sheet.begin(page.columns.into_iter().map(|column| column.name).collect())?;
                }
                sheet.page(&page.rows)?;
                rows = rows.saturating_add(page.rows.len() as u64);
                progress.show(rows, 0);
            }
            Some(Answer::QueryDone(done)) => {
                drop(progress);
                if shape != Shape::Parquet {
                    sheet.finish()?;
                }
                file.keep().map_err(io("sync"))?;
                eprintln!("{} in {}", counted(done.rows), path.display());
                return Ok(query::judge(&done));
            }
            _ => return Err(CliError::AgentAnswer("rows or the end of them")),
        }
    }
}

/// The statement that was given, or one over a table with the conditions that were.
fn statement(arguments: &Export) -> Result<(String, Vec<Value>), CliError> {
    let mut params = value::parameters(&arguments.params)?;
    if let Some(sql) = &arguments.sql {
        return Ok((sql.clone(), params));
    }
    // A condition may end in a comment; it closes nothing that it has not opened.
    let mut conditions: Vec<String> = arguments.condition.iter().map(|condition| format!("({condition}\n)")).collect();
    if let Some(text) = &arguments.from {
        let (last, _) = bounded(&arguments.table, "--from")?;
        params.push(Value { kind: Some(Kind::TimestampUs(instant(text)?)) });
        conditions.push(format!("{last} >= ${}", params.len()));
    }
    if let Some(text) = &arguments.to {
        let (_, first) = bounded(&arguments.table, "--to")?;
        params.push(Value { kind: Some(Kind::TimestampUs(instant(text)?)) });
        conditions.push(format!("{first} < ${}", params.len()));
    }
    let place = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    Ok((format!("SELECT * FROM {}{place}", arguments.table), params))
}

/// The columns that `--from` and `--to` bound.
type Bounds = (&'static str, &'static str);

/// Where a table has its time. What lasts reaches into a time when it ends after its beginning and begins before its end.
fn bounds(table: &Table) -> Option<Bounds> {
    let has = |name| table.columns().any(|column| column.name == name);
    if has("time") {
        return Some(("time", "time"));
    }
    (has("from_time") && has("to_time")).then_some(("to_time", "from_time"))
}

/// The same for the table that `option` is given for. The agent would show a place in a statement that nobody typed.
fn bounded(name: &str, option: &str) -> Result<Bounds, CliError> {
    // What is no table of this build's is for the agent to name.
    let Some(table) = tables::table(&name.to_ascii_lowercase()) else { return Ok(("time", "time")) };
    bounds(table).ok_or_else(|| {
        let others = TABLES.iter().filter(|other| bounds(other).is_some()).map(|other| other.name);
        let mut text = format!(
            "{option} goes by the column time, and {} has none; these have one: {}",
            table.name,
            others.collect::<Vec<_>>().join(", ")
        );
        let is_time = |column: &&columns::Column| column.kind == columns::Kind::Timestamp;
        let times: Vec<&str> = table.columns().filter(is_time).map(|column| column.name).collect();
        if let Some(first) = times.first() {
            let columns = times.join(" or ");
            text.push_str(&format!(
                "\nbound {columns} in its place, as with --where \"{first} >= TIMESTAMP '2026-01-31T12:00:00Z'\""
            ));
        }
        CliError::Usage(text)
    })
}

fn instant(text: &str) -> Result<i64, CliError> {
    let timestamp: Result<Timestamp, _> = text.parse();
    timestamp
        .map(|time| time.as_microsecond())
        .map_err(|error| CliError::Usage(format!("{text:?} is no time: {error}; write it as 2026-01-31T12:00:00Z")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn export(line: &[&str]) -> Export {
        let line = ["daemoneye-cli", "data", "export", "--output", "x.parquet"].iter().chain(line);
        match crate::args::Arguments::try_parse_from(line).unwrap().command {
            crate::args::Command::Data(crate::args::Data::Export(export)) => *export,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn conditions_become_one_statement_with_bound_times() {
        let (sql, params) = statement(&export(&["--param", "7"])).unwrap();
        assert_eq!((sql.as_str(), params.len()), ("SELECT * FROM process_events", 1));
        let given =
            export(&["--where", "uid = 0 -- root", "--from", "2026-01-31T12:00:00Z", "--to", "2026-02-01T00:00:00Z"]);
        let (sql, params) = statement(&given).unwrap();
        assert_eq!(sql, "SELECT * FROM process_events WHERE (uid = 0 -- root\n) AND time >= $1 AND time < $2");
        assert_eq!(params.first().unwrap().kind, Some(Kind::TimestampUs(1_769_860_800_000_000)));
        assert!(statement(&export(&["--from", "yesterday"])).is_err());
    }

    #[test]
    fn times_bound_what_the_table_has_or_are_refused_with_what_to_do() {
        let line = |table: &str| {
            let line = ["--table", table, "--from", "2026-01-31T12:00:00Z", "--to", "2026-02-01T00:00:00Z"];
            statement(&export(&line)).map(|(sql, _)| sql)
        };
        assert_eq!(line("Alerts").unwrap(), "SELECT * FROM Alerts WHERE time >= $1 AND time < $2");
        assert_eq!(line("coverage").unwrap(), "SELECT * FROM coverage WHERE to_time >= $1 AND from_time < $2");
        assert!(line("nowhere").is_ok(), "the agent says what it is not");
        let refused = line("alert_deliveries").unwrap_err();
        assert_eq!(refused.exit(), Exit::Usage);
        let text = refused.to_string();
        for part in ["--from", "alert_deliveries has none", "process_events, ", "coverage", "created or next_try"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let only =
            statement(&export(&["--table", "metrics", "--to", "2026-01-31T12:00:00Z"])).unwrap_err().to_string();
        assert!(only.starts_with("--to ") && !only.contains("--where"), "{only}");
        assert!(statement(&export(&["--table", "rules"])).is_ok(), "without a time every table is exported");
    }

    #[test]
    fn the_help_names_every_table_that_can_be_bounded_by_time() {
        let mut command = <crate::args::Arguments as clap::CommandFactory>::command();
        let export = command.find_subcommand_mut("data").unwrap().find_subcommand_mut("export").unwrap();
        let help = export.get_after_help().unwrap().to_string();
        let line = help.lines().find(|line| line.starts_with("--from and --to")).unwrap();
        let words: Vec<&str> = line.split(|c: char| !c.is_ascii_lowercase() && c != '_').collect();
        for table in TABLES {
            assert_eq!(words.contains(&table.name), bounds(table).is_some(), "{}", table.name);
        }
    }

    #[test]
    fn the_name_of_the_file_tells_what_it_holds_unless_the_format_is_given() {
        assert_eq!(Shape::of(&export(&[])).unwrap(), Shape::Parquet);
        assert_eq!(Shape::of(&export(&["--format", "csv"])).unwrap(), Shape::Rows(Format::Csv));
        let unknown = Export { output: "x.bin".into(), ..export(&[]) };
        assert_eq!(Shape::of(&unknown).unwrap_err().exit(), Exit::Usage);
    }
}
