//! `query`: one SELECT, streamed page by page.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::model::Degraded;
use daemoneye_lib::proto::{
    Lack, Problems, QueryDone, QueryRequest, Value, operator_request::Verb, operator_response::Answer,
};

use crate::agent::Session;
use crate::args::Query;
use crate::error::{CliError, describe};
use crate::private::NewFile;
use crate::render::{Output, Sheet};
use crate::settings::Settings;
use crate::value;

/// What is read of a statement: less than a request has room for, and far more than the agent accepts. It is the agent that
/// refuses what is too long, and writes that down.
const READ_BYTES: u64 = (daemoneye_lib::frame::OPERATOR_LIMIT_BYTES / 4 * 3) as u64;

pub(super) async fn run(arguments: Query, settings: &Settings) -> Result<Exit, CliError> {
    let sql = statement(arguments.sql)?;
    let params = value::parameters(&arguments.params)?;
    let page_rows = arguments.page.unwrap_or_default();
    let question =
        Question { params, page_rows, row_cap: arguments.row_cap, explain: arguments.explain, ..Question::new(sql) };
    let session = Session::open(settings).await?;
    let ended = match &arguments.output {
        Some(path) => write(&session, path, settings, question).await,
        None => print(&session, &mut Sheet::new(Output::stdout(), settings.format), question).await,
    };
    session.close().await;
    ended.map(|ended| ended.tell())
}

/// Into a new file, which stays only when there is an answer.
async fn write(session: &Session, path: &Path, settings: &Settings, question: Question) -> Result<Ended, CliError> {
    let io = |what: &str| {
        let what = format!("{what} {}; name another file", path.display());
        move |source| CliError::Io { what, source }
    };
    let file = NewFile::create(path).map_err(io("create"))?;
    let mut sheet = Sheet::new(Output::to(file.writer().map_err(io("write"))?), settings.format);
    let ended = print(session, &mut sheet, question).await.map_err(|error| error.writing(path))?;
    if let Ended::Done(_) = ended {
        file.keep().map_err(io("sync"))?;
    }
    Ok(ended)
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
    let read = std::io::stdin().take(READ_BYTES + 1).read_to_string(&mut text);
    read.map_err(|source| CliError::Io { what: "read the statement from standard input".to_owned(), source })?;
    if text.len() as u64 > READ_BYTES {
        return Err(CliError::Usage(format!("the statement has more than {READ_BYTES} bytes; shorten it")));
    }
    Ok(text)
}

/// What is asked for, and how much of it is printed.
pub(crate) struct Question {
    pub(crate) sql: String,
    pub(crate) params: Vec<Value>,
    pub(crate) page_rows: u32,
    pub(crate) row_cap: Option<u64>,
    /// What is read is told in place of the rows.
    pub(crate) explain: bool,
    /// Rows that are printed; one more that comes is only told about.
    pub(crate) most: u64,
}

impl Question {
    pub(crate) const fn new(sql: String) -> Self {
        Self { sql, params: Vec::new(), page_rows: 0, row_cap: None, explain: false, most: u64::MAX }
    }
}

/// Asks and prints; what every listing command uses.
pub(super) async fn list(settings: &Settings, question: Question) -> Result<Exit, CliError> {
    let session = Session::open(settings).await?;
    let mut sheet = Sheet::new(Output::stdout(), settings.format);
    let most = question.most;
    let exit = print(&session, &mut sheet, question).await?.tell();
    session.close().await;
    if sheet.left_out() > 0 {
        eprintln!("only the first {most} are shown; raise --limit for more");
    }
    Ok(exit)
}

/// The first column of the rows, as text: for questions that this program has itself.
pub(crate) async fn words(session: &Session, question: Question) -> Result<Vec<String>, CliError> {
    let mut answers = session.ask(Verb::Query(request(session, &question))).await?;
    let mut words = Vec::new();
    while let Some(response) = answers.next().await? {
        if let Some(Answer::Page(page)) = response.answer {
            words.extend(page.rows.iter().filter_map(|row| row.values.first()).map(value::text));
        }
    }
    Ok(words)
}

pub(crate) fn request(session: &Session, question: &Question) -> QueryRequest {
    QueryRequest {
        sql: question.sql.clone(),
        params: question.params.clone(),
        page_rows: question.page_rows,
        row_cap: question.row_cap,
        deadline_ms: u32::try_from(session.deadline().as_millis()).ok(),
        explain: question.explain,
    }
}

/// How an answer ended. What there is to say about it comes after its rows.
#[must_use]
pub(crate) enum Ended {
    Done(QueryDone),
    Refused { problems: Problems, sql: String },
}

impl Ended {
    /// Says what is missing or wrong.
    pub(crate) fn tell(&self) -> Exit {
        match self {
            Self::Done(done) => judge(done),
            Self::Refused { problems, sql } => refused(problems, sql),
        }
    }
}

pub(crate) async fn print(session: &Session, sheet: &mut Sheet, question: Question) -> Result<Ended, CliError> {
    let sql = question.sql.clone();
    let about = |error: CliError| error.about(&sql);
    let mut answers = session.ask(Verb::Query(request(session, &question))).await.map_err(about)?;
    sheet.limit(question.most);
    while let Some(response) = answers.next().await.map_err(about)? {
        match response.answer {
            // The columns come all the same.
            Some(Answer::Page(_)) if question.explain => {}
            Some(Answer::Page(page)) => {
                if !page.columns.is_empty() {
                    sheet.begin(page.columns.into_iter().map(|column| column.name).collect())?;
                }
                if !page.rows.is_empty() {
                    sheet.page(&page.rows)?;
                }
            }
            Some(Answer::QueryDone(done)) => {
                if question.explain {
                    sheet.explain(&done.explained_json)?;
                } else {
                    sheet.finish()?;
                }
                return Ok(Ended::Done(done));
            }
            Some(Answer::Problems(problems)) => return Ok(Ended::Refused { problems, sql: question.sql }),
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

pub(super) fn judge(done: &QueryDone) -> Exit {
    let degraded = done.completeness.as_ref().map(|known| known.degraded.as_slice()).unwrap_or_default();
    if degraded.is_empty() {
        return Exit::Ok;
    }
    eprintln!("degraded: {}; rows may be missing", degraded.join(", "));
    for reason in degraded {
        eprintln!("  {reason}: {}", advice(reason));
        done.lacks.iter().filter(|lack| lack.reason == *reason).for_each(|lack| eprintln!("    {}", told(lack)));
    }
    Exit::Degraded
}

/// One thing that is missing, with the time that it touches where it has one.
fn told(lack: &Lack) -> String {
    let what = value::harmless(&lack.what);
    match (lack.from_us, lack.to_us) {
        (0, 0) => what,
        (0, to) => format!("{what} (until {})", value::timestamp(to)),
        (from, 0) => format!("{what} (from {} on)", value::timestamp(from)),
        (from, to) if from == to => format!("{what} ({})", value::timestamp(from)),
        (from, to) => format!("{what} ({} to {})", value::timestamp(from), value::timestamp(to)),
    }
}

/// What makes an answer whole again, or tells what it lacks.
fn advice(reason: &str) -> &'static str {
    let is = |known: Degraded| known.as_str() == reason;
    match reason {
        _ if is(Degraded::Capped) => {
            "a limit cut it: narrow the query, raise --row-cap if you set it, or the agent's query.row_cap or query.memory_bytes; what retention has removed is in no store"
        }
        _ if is(Degraded::TimedOut) => "narrow the query, or raise --deadline-ms and the agent's query.deadline_ms",
        _ if is(Degraded::DataUnreadable) => "stored data cannot be read; `daemoneye-cli health` names the segment",
        _ if is(Degraded::CollectorUnavailable) || is(Degraded::EventsShed) => {
            "for when and why: daemoneye-cli query \"SELECT * FROM coverage\""
        }
        _ if is(Degraded::Late) => "events arrived after their time had been judged; ask again over a longer time",
        _ if is(Degraded::SchemaUnavailable) => {
            "a source does not give a column that is asked for; see `daemoneye-cli health`"
        }
        _ => "see `daemoneye-cli health`",
    }
}
