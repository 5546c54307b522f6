//! `data export`: rows into a new file, as Parquet (encoded by the agent), CSV or JSON Lines, in constant memory.

use std::io::Write as _;
use std::path::Path;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{DataExport, Value, operator_request::Verb, operator_response::Answer, value::Kind};
use jiff::Timestamp;

use super::super::query;
use crate::agent::Session;
use crate::args::Export;
use crate::error::CliError;
use crate::private::NewFile;
use crate::render::{Format, Output, Progress, Sheet, Unit};
use crate::settings::Settings;
use crate::value;

pub(super) async fn run(settings: &Settings, arguments: Export) -> Result<Exit, CliError> {
    let format = Shape::of(&arguments)?;
    let (sql, params) = statement(&arguments)?;
    let session = Session::open(settings).await?;
    let export = DataExport { sql: sql.clone(), params, parquet: format == Shape::Parquet };
    let done = write(&session, export, &arguments.output, format).await;
    session.close().await;
    done.map_err(|error| error.about(&sql))
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
                eprintln!("{} rows in {}", done.rows, path.display());
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
    // A condition may end in a comment.
    let mut conditions: Vec<String> = arguments.condition.iter().map(|condition| format!("({condition}\n)")).collect();
    for (time, comparison) in [(&arguments.from, ">="), (&arguments.to, "<")] {
        if let Some(text) = time {
            params.push(Value { kind: Some(Kind::TimestampUs(instant(text)?)) });
            conditions.push(format!("time {comparison} ${}", params.len()));
        }
    }
    let place = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    Ok((format!("SELECT * FROM {}{place}", arguments.table), params))
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
    fn the_name_of_the_file_tells_what_it_holds_unless_the_format_is_given() {
        assert_eq!(Shape::of(&export(&[])).unwrap(), Shape::Parquet);
        assert_eq!(Shape::of(&export(&["--format", "csv"])).unwrap(), Shape::Rows(Format::Csv));
        let unknown = Export { output: "x.bin".into(), ..export(&[]) };
        assert_eq!(Shape::of(&unknown).unwrap_err().exit(), Exit::Usage);
    }
}
