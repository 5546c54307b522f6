//! `health`: the agent's report about every part.

use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{Empty, operator_request::Verb, operator_response::Answer};
use serde_json::Value;

use crate::agent::Session;
use crate::error::CliError;
use crate::render;
use crate::settings::Settings;

pub(super) async fn run(settings: &Settings) -> Result<Exit, CliError> {
    let session = Session::open(settings).await?;
    let (document, healthy) = report(&session).await?;
    session.close().await;
    render::document(settings.format, &document)?;
    Ok(if healthy { Exit::Ok } else { Exit::Degraded })
}

/// The report, and whether everything in it is well.
pub(super) async fn report(session: &Session) -> Result<(Value, bool), CliError> {
    let Answer::Health(health) = session.ask_once(Verb::Health(Empty {})).await? else {
        return Err(CliError::AgentAnswer("a health report"));
    };
    let document = serde_json::from_str(&health.json).map_err(|_| CliError::AgentAnswer("a health report"))?;
    Ok((document, health.healthy))
}
