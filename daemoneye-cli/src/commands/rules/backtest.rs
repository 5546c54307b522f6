//! `rules backtest FILE`: what a rule would have found in stored events.

use std::path::Path;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{
    DataShown, Row, RuleText, RulesBacktest, operator_request::Verb, operator_response::Answer,
};
use jiff::Timestamp;
use serde_json::Value as Json;

use crate::agent::Session;
use crate::args::RulesBacktest as Arguments;
use crate::error::CliError;
use crate::render::{self, Format, Progress, Unit};
use crate::settings::Settings;
use crate::value;

pub(super) async fn run(settings: &Settings, arguments: &Arguments) -> Result<Exit, CliError> {
    let now = Timestamp::now().as_microsecond();
    let from_us = value::instant(&arguments.since, now)?;
    let to_us = arguments.until.as_deref().map_or(Ok(now), |text| value::instant(text, now))?;
    if from_us >= to_us {
        let message = if arguments.until.is_some() {
            "--until lies before --since; there is no time between them"
        } else {
            "--since lies not before now; give 7d, 12h or 30m, or a time that is past"
        };
        return Err(CliError::Usage(message.to_owned()));
    }
    let asked = RulesBacktest { file: Some(read(&arguments.file)?), from_us, to_us };
    let session = Session::open(settings).await?;
    let shown = ask(&session, asked).await;
    session.close().await;
    let shown = shown?;
    let document: Json = serde_json::from_str(&shown.json).map_err(|_| CliError::AgentAnswer("a backtest"))?;
    if settings.format == Format::Table {
        print(&document)?;
    } else {
        render::document(settings.format, &document)?;
    }
    Ok(verdict(arguments, &document, shown.sound))
}

fn read(path: &Path) -> Result<RuleText, CliError> {
    super::text_of(path).map_err(|source| CliError::Io { what: format!("read {}", path.display()), source })
}

async fn ask(session: &Session, asked: RulesBacktest) -> Result<DataShown, CliError> {
    let mut answers = session.ask(Verb::RulesBacktest(asked)).await?;
    let mut progress = Progress::new("backtest", Unit::Rows);
    loop {
        match answers.next().await?.and_then(|response| response.answer) {
            Some(Answer::Progress(so_far)) => progress.show(so_far.done, so_far.total),
            Some(Answer::Data(shown)) => return Ok(shown),
            _ => return Err(CliError::AgentAnswer("a backtest")),
        }
    }
}

fn number(document: &Json, name: &str) -> u64 {
    document.get(name).and_then(Json::as_u64).unwrap_or_default()
}

/// 1 when a bound that was given is exceeded, 3 when something was missing.
fn verdict(arguments: &Arguments, document: &Json, sound: bool) -> Exit {
    let most = number(document, "most_alerts_a_day");
    if let Some(bound) = arguments.max_alerts_per_day.filter(|bound| most > *bound) {
        eprintln!("the rule would have raised {most} alerts on one day, and {bound} are allowed");
        return Exit::Failure;
    }
    let lost = document.pointer("/difference/only_in_use").and_then(Json::as_u64).unwrap_or_default();
    if arguments.fail_on_loss && lost > 0 {
        eprintln!("the rule does not find {lost} events that the version in use finds");
        return Exit::Failure;
    }
    if sound {
        return Exit::Ok;
    }
    for lack in document.get("lacks").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
        eprintln!("degraded: {}", value::harmless(lack));
    }
    Exit::Degraded
}

fn print(document: &Json) -> Result<(), CliError> {
    let (hits, alerts) = (number(document, "hits"), number(document, "alerts"));
    println!("{hits} of {} events match, {alerts} alerts", number(document, "events"));
    let hidden = number(document, "hidden");
    if hidden > 0 {
        println!("exceptions hide {hidden} more matches");
    }
    if let Some(in_use) = document.get("in_use").filter(|in_use| in_use.is_object()) {
        let only = |name: &str| {
            let count = document.pointer(&format!("/difference/{name}")).and_then(Json::as_u64);
            count.map_or_else(|| "too many to tell".to_owned(), |count| count.to_string())
        };
        println!(
            "version {} in use: {} hits, {} alerts; only the new one: {}, only the one in use: {}",
            number(in_use, "version"),
            number(in_use, "hits"),
            number(in_use, "alerts"),
            only("only_new"),
            only("only_in_use"),
        );
    }
    if let Some(ns) = document.pointer("/cost/ns_per_event").and_then(Json::as_u64) {
        let sample = document.pointer("/cost/sample_events").and_then(Json::as_u64).unwrap_or_default();
        println!(
            "{ns} ns for an event (over {sample} events); the backtest took {} ms",
            number(document, "elapsed_ms")
        );
    }
    let days = document.get("days").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    if !days.is_empty() {
        println!();
        let cell = |day: &Json| day.get("day").and_then(Json::as_str).unwrap_or_default().to_owned();
        let counts = |day: &Json, name: &str| value::of_number(number(day, name));
        let row =
            |day: &Json| Row { values: vec![value::of_text(cell(day)), counts(day, "hits"), counts(day, "alerts")] };
        render::rows(Format::Table, &["day", "hits", "alerts"], &days.iter().map(row).collect::<Vec<_>>())?;
        println!();
        render::rows(Format::Table, &["column", "hits", "value"], &top(document))?;
    }
    Ok(())
}

fn top(document: &Json) -> Vec<Row> {
    let columns = document.get("top").and_then(Json::as_object).into_iter().flatten();
    let values = columns.flat_map(|(column, values)| {
        values.as_array().into_iter().flatten().map(move |value| (column.as_str(), value))
    });
    let text = |counted: &Json| counted.get("value").and_then(Json::as_str).unwrap_or_default().to_owned();
    values
        .map(|(column, counted)| Row {
            values: vec![
                value::of_text(column),
                value::of_number(number(counted, "count")),
                value::of_text(text(counted)),
            ],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bound_that_is_exceeded_fails_the_command() {
        let arguments = |max, fail_on_loss| Arguments {
            file: "r.yaml".into(),
            since: "7d".into(),
            until: None,
            max_alerts_per_day: max,
            fail_on_loss,
        };
        let document = json!({ "most_alerts_a_day": 5, "difference": { "only_in_use": 2 }, "lacks": ["x"] });
        assert_eq!(verdict(&arguments(Some(4), false), &document, true), Exit::Failure);
        assert_eq!(verdict(&arguments(Some(5), false), &document, true), Exit::Ok);
        assert_eq!(verdict(&arguments(None, true), &document, true), Exit::Failure);
        assert_eq!(verdict(&arguments(None, false), &document, false), Exit::Degraded);
    }
}
