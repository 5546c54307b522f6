//! `alerts list` and `alerts show`.

use daemoneye_lib::exit::Exit;
use daemoneye_lib::model::Completeness;
use daemoneye_lib::proto::{AlertShow, operator_request::Verb, operator_response::Answer};
use serde_json::Value as Json;

use super::proof;
use super::query::{self, Question};
use crate::agent::Session;
use crate::args::Alerts;
use crate::error::CliError;
use crate::render::{self, Format};
use crate::settings::Settings;
use crate::value;

/// A shorter beginning of an id would be a guess.
const MIN_PREFIX: usize = 4;
/// Ids that are listed when a beginning fits more than one.
const SHOWN_IDS: usize = 8;

pub(super) async fn run(verb: Alerts, settings: &Settings) -> Result<Exit, CliError> {
    match verb {
        Alerts::List { severity, limit, suppressed } => list(settings, severity, limit, suppressed).await,
        Alerts::Show { id } => show(settings, &id).await,
        Alerts::Evidence(arguments) => proof::evidence(*arguments, settings).await,
        Alerts::VerifyEvidence(arguments) => proof::verify_evidence(&arguments, settings),
    }
}

async fn list(settings: &Settings, severity: Option<String>, limit: u32, suppressed: bool) -> Result<Exit, CliError> {
    let columns = "id, time, severity, title, name, pid, count, status";
    let (condition, params) = match severity {
        Some(severity) => (" AND severity = $1", vec![value::of_text(severity)]),
        None => ("", Vec::new()),
    };
    // One row more tells whether there are more.
    let rows = format!("status {} 'suppressed'{condition}", if suppressed { "=" } else { "<>" });
    let sql = format!("SELECT {columns} FROM alerts WHERE {rows} ORDER BY time DESC LIMIT {}", u64::from(limit) + 1);
    query::list(settings, Question { params, most: limit.into(), ..Question::new(sql) }).await
}

async fn show(settings: &Settings, id: &str) -> Result<Exit, CliError> {
    let id = id.to_ascii_lowercase();
    if id.len() < MIN_PREFIX {
        return Err(CliError::Usage(format!("{id:?} is too short; give at least {MIN_PREFIX} characters of an id")));
    }
    let session = Session::open(settings).await?;
    let id = full(&session, id).await?;
    let answer = session.ask_once(Verb::AlertShow(AlertShow { id })).await?;
    session.close().await;
    let Answer::Alert(alert) = answer else { return Err(CliError::AgentAnswer("an alert")) };
    let mut document = serde_json::from_str(&alert.json).map_err(|_| CliError::AgentAnswer("an alert"))?;
    if matches!(settings.format, Format::Csv | Format::Line | Format::Table) {
        spell_completeness(&mut document);
    }
    render::document(settings.format, &document)?;
    Ok(Exit::Ok)
}

/// The one id that begins with `prefix`.
pub(super) async fn full(session: &Session, prefix: String) -> Result<String, CliError> {
    let sql = format!("SELECT id FROM alerts WHERE starts_with(id, $1) ORDER BY id LIMIT {}", SHOWN_IDS + 1);
    let params = vec![value::of_text(prefix.as_str())];
    let mut ids = query::words(session, Question { params, ..Question::new(sql) }).await?;
    match (ids.len(), ids.pop()) {
        (1, Some(id)) => Ok(id),
        (_, None) => {
            let text = format!("no alert has an id that begins with {prefix}; see `daemoneye-cli alerts list`");
            Err(CliError::NotFound(text))
        }
        (count, Some(last)) => {
            let rest = if count > SHOWN_IDS { "\n  and more".to_owned() } else { format!("\n  {last}") };
            let shown: String = ids.iter().map(|id| format!("\n  {id}")).collect();
            Err(CliError::Usage(format!(
                "{prefix} is the beginning of more than one id; give more of it:{shown}{rest}"
            )))
        }
    }
}

/// A list without reasons would read as nothing known; the word says that nothing is missing.
fn spell_completeness(document: &mut Json) {
    let Some(field) = document.get_mut("completeness") else { return };
    if let Ok(known) = serde_json::from_value::<Completeness>(field.clone()) {
        *field = known.describe().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn completeness_reads_as_words() {
        let mut document =
            serde_json::to_value(Completeness::complete()).map(|known| json!({ "completeness": known })).unwrap();
        spell_completeness(&mut document);
        assert_eq!(document, json!({ "completeness": "complete" }));
        let mut absent = json!({ "id": 1 });
        spell_completeness(&mut absent);
        assert_eq!(absent, json!({ "id": 1 }));
    }
}
