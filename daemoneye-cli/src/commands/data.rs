//! `data stats, retention, vacuum, backup, export, fsck`.

mod backup;
mod condition;
mod export;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{
    DataFsck, DataRetention, DataShown, DataStats, DataVacuum, Row, operator_request::Verb, operator_response::Answer,
};
use serde_json::Value as Json;

use crate::agent::Session;
use crate::args::Data;
use crate::error::CliError;
use crate::render::{self, Format, Progress, Unit, bytes};
use crate::settings::Settings;
use crate::value;

pub(super) async fn run(verb: Data, settings: &Settings) -> Result<Exit, CliError> {
    match verb {
        Data::Stats => show(settings, Verb::DataStats(DataStats {})).await,
        Data::Retention => show(settings, Verb::DataRetention(DataRetention {})).await,
        Data::Backup { dir } => backup::run(settings, &dir).await,
        Data::Export(arguments) => export::run(settings, *arguments).await,
        Data::Fsck => {
            let shown = watch(settings, Verb::DataFsck(DataFsck {}), "checking segments", Unit::Bytes).await?;
            print(settings.format, &document(&shown)?, shown.sound)?;
            Ok(if shown.sound { Exit::Ok } else { Exit::Failure })
        }
        Data::Vacuum => {
            let shown = watch(settings, Verb::DataVacuum(DataVacuum {}), "merging segments", Unit::Rows).await?;
            render::document(settings.format, &document(&shown)?)?;
            Ok(if shown.sound { Exit::Ok } else { Exit::Degraded })
        }
    }
}

async fn show(settings: &Settings, verb: Verb) -> Result<Exit, CliError> {
    let session = Session::open(settings).await?;
    let answer = session.ask_once(verb).await?;
    session.close().await;
    let Answer::Data(shown) = answer else { return Err(CliError::AgentAnswer("a document")) };
    render::document(settings.format, &document(&shown)?)?;
    Ok(Exit::Ok)
}

pub(super) fn document(shown: &DataShown) -> Result<Json, CliError> {
    serde_json::from_str(&shown.json).map_err(|_| CliError::AgentAnswer("a document"))
}

/// Asks for something that takes long, and shows how far it is.
pub(super) async fn watch(
    settings: &Settings,
    verb: Verb,
    what: &'static str,
    unit: Unit,
) -> Result<DataShown, CliError> {
    watch_on(Session::open(settings).await?, verb, what, unit).await
}

/// The same over a connection that stands, which ends with it.
pub(super) async fn watch_on(
    session: Session,
    verb: Verb,
    what: &'static str,
    unit: Unit,
) -> Result<DataShown, CliError> {
    let mut answers = session.ask(verb).await?;
    let mut progress = Progress::new(what, unit);
    let shown = loop {
        match answers.next().await?.and_then(|response| response.answer) {
            Some(Answer::Progress(so_far)) => progress.show(so_far.done, so_far.total),
            Some(Answer::Data(shown)) => break shown,
            _ => return Err(CliError::AgentAnswer("a document")),
        }
    };
    drop((progress, answers));
    session.close().await;
    Ok(shown)
}

/// A person reads problems and one line about what was checked; a machine gets the document.
fn print(format: Format, found: &Json, sound: bool) -> Result<(), CliError> {
    if matches!(format, Format::Json | Format::JsonLines) {
        return render::document(format, found);
    }
    let problems = found.get("problems").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let columns = ["place", "what", "advice"];
    let cell = |problem: &Json, name: &str| problem.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
    let row =
        |problem: &Json| Row { values: columns.iter().map(|name| value::of_text(cell(problem, name))).collect() };
    if format == Format::Csv || !problems.is_empty() {
        render::rows(format, &columns, &problems.iter().map(row).collect::<Vec<_>>())?;
    }
    let number = |name: &str| found.get(name).and_then(Json::as_u64).unwrap_or_default();
    let further = number("further_problems");
    let verdict = match (sound, problems.is_empty()) {
        (true, _) => "everything is sound".to_owned(),
        (false, true) => "the check did not reach its end".to_owned(),
        (false, false) if problems.len() == 1 => "1 problem".to_owned(),
        (false, false) if further > 0 => {
            format!("{} problems, {further} of them not shown", problems.len() as u64 + further)
        }
        (false, false) => format!("{} problems", problems.len()),
    };
    eprintln!(
        "checked {} segments ({} rows, {}) and {} values of {} tables: {verdict}",
        number("segments"),
        number("segment_rows"),
        bytes(number("segment_bytes")),
        number("values"),
        number("tables"),
    );
    Ok(())
}
