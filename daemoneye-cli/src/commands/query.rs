//! `query`: one SELECT, streamed page by page.

use std::io::{IsTerminal as _, Read as _};

use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{
    Completeness, Problems, QueryDone, QueryRequest, Value, operator_request::Verb, operator_response::Answer,
};

use crate::agent::Session;
use crate::args::Query;
use crate::error::{CliError, describe};
use crate::render::{Output, Sheet};
use crate::settings::Settings;
use crate::value;

/// The agent takes no longer request, so reading more would only fail later.
const LIMIT_BYTES: u64 = daemoneye_lib::frame::OPERATOR_LIMIT_BYTES as u64;

pub(super) async fn run(arguments: Query, settings: &Settings) -> Result<Exit, CliError> {
    let sql = statement(arguments.sql)?;
    let params = arguments.params.iter().map(|text| value::parameter(text)).collect();
    let session = Session::open(settings).await?;
    let output = match &arguments.output {
        Some(path) => Output::file(path)?,
        None => Output::stdout(),
    };
    let exit = print(&session, settings, output, &sql, params, arguments.page.unwrap_or_default()).await?;
    session.close().await;
    Ok(exit)
}

fn statement(given: Option<String>) -> Result<String, CliError> {
    match given.as_deref() {
        Some(sql) if sql != "-" => return Ok(sql.to_owned()),
        None if std::io::stdin().is_terminal() => {
            return Err(CliError::Usage(
                "which statement? give a SELECT, or - to read it from standard input".to_owned(),
            ));
        }
        _ => {}
    }
    let mut text = String::new();
    let read = std::io::stdin().take(LIMIT_BYTES + 1).read_to_string(&mut text);
    read.map_err(|source| CliError::Io { what: "read the statement from standard input".to_owned(), source })?;
    if text.len() as u64 > LIMIT_BYTES {
        return Err(CliError::Usage(format!("the statement has more than {LIMIT_BYTES} bytes; shorten it")));
    }
    Ok(text)
}

/// Runs `sql` and prints its rows; what every listing command uses.
pub(super) async fn list(settings: &Settings, sql: &str, params: Vec<Value>) -> Result<Exit, CliError> {
    let session = Session::open(settings).await?;
    let exit = print(&session, settings, Output::stdout(), sql, params, 0).await?;
    session.close().await;
    Ok(exit)
}

async fn print(
    session: &Session,
    settings: &Settings,
    output: Output,
    sql: &str,
    params: Vec<Value>,
    page_rows: u32,
) -> Result<Exit, CliError> {
    let deadline_ms = u32::try_from(settings.deadline.as_millis()).ok();
    let request = QueryRequest { sql: sql.to_owned(), params, page_rows, row_cap: None, deadline_ms };
    let about = |error: CliError| error.about(sql);
    let mut answers = session.ask(Verb::Query(request)).await.map_err(about)?;
    let mut sheet = Sheet::new(output, settings.format);
    while let Some(response) = answers.next().await.map_err(|error| about(error.into()))? {
        match response.answer {
            Some(Answer::Page(page)) => {
                if !page.columns.is_empty() {
                    sheet.begin(page.columns.into_iter().map(|column| column.name).collect())?;
                }
                if !page.rows.is_empty() {
                    sheet.page(&page.rows)?;
                }
            }
            Some(Answer::QueryDone(done)) => {
                sheet.finish()?;
                return Ok(judge(&done));
            }
            Some(Answer::Problems(problems)) => return Ok(refused(&problems, sql)),
            _ => return Err(CliError::AgentAnswer("a page of rows")),
        }
    }
    Err(CliError::AgentAnswer("the end of the result"))
}

fn refused(problems: &Problems, sql: &str) -> Exit {
    eprint!("error: the statement is refused");
    for problem in &problems.problems {
        eprint!("{}", describe(problem, Some(sql), false));
    }
    eprintln!();
    Exit::Refused
}

fn judge(done: &QueryDone) -> Exit {
    match &done.completeness {
        Some(Completeness { degraded }) if !degraded.is_empty() => {
            eprintln!(
                "degraded: {} (rows may be missing; see `daemoneye-cli query \"SELECT * FROM coverage\"`)",
                degraded.join(", ")
            );
            Exit::Degraded
        }
        _ => Exit::Ok,
    }
}
