//! `alerts list` and `alerts show`.

use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{AlertShow, operator_request::Verb, operator_response::Answer};

use super::query;
use crate::agent::Session;
use crate::args::Alerts;
use crate::error::CliError;
use crate::render;
use crate::settings::Settings;
use crate::value;

pub(super) async fn run(verb: Alerts, settings: &Settings) -> Result<Exit, CliError> {
    match verb {
        Alerts::List { severity, limit } => list(settings, severity, limit).await,
        Alerts::Show { id } => show(settings, id).await,
    }
}

async fn list(settings: &Settings, severity: Option<String>, limit: u32) -> Result<Exit, CliError> {
    let columns = "id, time, severity, title, name, pid, count, status";
    let (condition, params) = match severity {
        Some(severity) => (" WHERE severity = $1", vec![value::of_text(severity)]),
        None => ("", Vec::new()),
    };
    let sql = format!("SELECT {columns} FROM alerts{condition} ORDER BY time DESC LIMIT {limit}");
    query::list(settings, &sql, params).await
}

async fn show(settings: &Settings, id: String) -> Result<Exit, CliError> {
    let session = Session::open(settings).await?;
    let answer = session.ask_once(Verb::AlertShow(AlertShow { id })).await?;
    session.close().await;
    let Answer::Alert(alert) = answer else { return Err(CliError::AgentAnswer("an alert")) };
    let document = serde_json::from_str(&alert.json).map_err(|_| CliError::AgentAnswer("an alert"))?;
    render::document(settings.format, &document)?;
    Ok(Exit::Ok)
}
