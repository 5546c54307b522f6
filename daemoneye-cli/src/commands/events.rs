//! `events follow`: events as they come.

use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{
    EventsFollow, Problems, ResultPage, Row, operator_request::Verb, operator_response::Answer,
};

use crate::agent::Session;
use crate::args::Events;
use crate::error::{CliError, describe};
use crate::render::{Format, Output, Sheet};
use crate::settings::Settings;

/// What a person sees; machines get every column.
const SHOWN: &[&str] = &["time", "event_type", "pid", "ppid", "user", "name", "command_line"];

pub(super) async fn run(verb: Events, settings: &Settings) -> Result<Exit, CliError> {
    let Events::Follow { condition } = verb;
    let session = Session::open(settings).await?;
    let mut sheet = Sheet::new(Output::stdout(), settings.format);
    let followed = tokio::select! {
        result = follow(&session, settings, &condition, &mut sheet) => result,
        // Ctrl-C is how following ends; what was printed becomes a whole document.
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    session.close().await;
    sheet.finish()?;
    followed.map(|()| Exit::Ok)
}

async fn follow(session: &Session, settings: &Settings, condition: &str, sheet: &mut Sheet) -> Result<(), CliError> {
    let about = |error: CliError| error.about(condition);
    let request = EventsFollow { r#where: condition.to_owned() };
    let mut answers = session.ask(Verb::EventsFollow(request)).await.map_err(about)?;
    let mut kept = None;
    while let Some(response) = answers.next().await.map_err(about)? {
        let page = match response.answer {
            Some(Answer::Page(page)) => page,
            Some(Answer::Problems(missed)) => {
                eprintln!("degraded:{}", told(&missed));
                continue;
            }
            _ => return Err(CliError::AgentAnswer("a page of events")),
        };
        let kept = match &kept {
            Some(kept) => kept,
            None => {
                let chosen = choose(settings.format, &page);
                let name = |at: &usize| page.columns.get(*at).map(|column| column.name.clone());
                sheet.begin(chosen.iter().filter_map(name).collect())?;
                kept.insert(chosen)
            }
        };
        let project = |row: &Row| Row { values: kept.iter().filter_map(|at| row.values.get(*at).cloned()).collect() };
        let rows: Vec<Row> = page.rows.iter().map(project).collect();
        if !rows.is_empty() {
            sheet.page(&rows)?;
        }
    }
    // Following has no end of its own.
    Err(CliError::AgentStopped)
}

/// What was not shown because this side read too slowly.
fn told(missed: &Problems) -> String {
    missed.problems.iter().map(|problem| describe(problem, None, false)).collect()
}

/// Positions of the columns that are printed, in their order.
fn choose(format: Format, page: &ResultPage) -> Vec<usize> {
    if format != Format::Table {
        return (0..page.columns.len()).collect();
    }
    let position = |name: &&str| page.columns.iter().position(|column| column.name == **name);
    SHOWN.iter().filter_map(position).collect()
}
