//! `config show` and `config validate`.

use std::path::{Path, PathBuf};

use daemoneye_lib::config::{self, COMPONENTS, Component, PROCMOND, Sources};
use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{ConfigEntry, ConfigShow, Row, operator_request::Verb, operator_response::Answer};

use crate::agent::Session;
use crate::args;
use crate::error::CliError;
use crate::render;
use crate::settings::Settings;
use crate::value;

pub(super) async fn run(verb: args::Config, settings: &Settings) -> Result<Exit, CliError> {
    match verb {
        args::Config::Show { origin } => show(settings, origin).await,
        args::Config::Validate { component, file } => validate(settings, component.as_deref(), file),
    }
}

async fn show(settings: &Settings, origin: bool) -> Result<Exit, CliError> {
    let mut entries = own(settings);
    let exit = match agents(settings).await {
        Ok(theirs) => {
            if theirs.iter().all(|entry| entry.component != PROCMOND.name) {
                eprintln!("procmond's settings are missing: this agent does not start it; look at its service");
            }
            entries.extend(theirs);
            Exit::Ok
        }
        Err(error) if error.is_away() => {
            eprintln!("the agent's settings are missing: {error}");
            Exit::Degraded
        }
        Err(error) => return Err(error),
    };
    let mut columns = vec!["component", "key", "value"];
    if origin {
        columns.push("origin");
    }
    let cells = |entry: ConfigEntry| {
        let mut values = vec![value::of_text(entry.component), value::of_text(entry.key), value::of_text(entry.value)];
        if origin {
            values.push(value::of_text(entry.origin));
        }
        Row { values }
    };
    render::rows(settings.format, &columns, &entries.into_iter().map(cells).collect::<Vec<_>>())?;
    Ok(exit)
}

fn own(settings: &Settings) -> Vec<ConfigEntry> {
    let entries = settings.config.entries().into_iter();
    entries
        .map(|entry| ConfigEntry {
            component: settings.config.component().name.to_owned(),
            key: entry.key.to_owned(),
            is_default: entry.is_default(),
            value: if settings.is_missing(entry.key) { String::new() } else { entry.value },
            origin: entry.origin,
            doc: entry.doc.to_owned(),
        })
        .collect()
}

async fn agents(settings: &Settings) -> Result<Vec<ConfigEntry>, CliError> {
    let session = Session::open(settings).await?;
    let answer = session.ask_once(Verb::ConfigShow(ConfigShow {})).await?;
    session.close().await;
    match answer {
        Answer::Config(shown) => Ok(shown.entries),
        _ => Err(CliError::AgentAnswer("settings")),
    }
}

fn validate(settings: &Settings, component: Option<&str>, file: PathBuf) -> Result<Exit, CliError> {
    if let Err(source) = std::fs::metadata(&file) {
        return Err(CliError::Io { what: format!("read {}", file.display()), source });
    }
    let component = component.and_then(named).or_else(|| of_directory(&file));
    let Some(component) = component else {
        let text = format!(
            "whose file is {}? its directory is named after no program; add --component {}",
            file.display(),
            COMPONENTS.iter().map(|component| component.name).collect::<Vec<_>>().join(", or ")
        );
        return Err(CliError::Usage(text));
    };
    let shown = file.display().to_string();
    config::load(component, &Sources::of_file(file))?;
    let cells = [component.name, shown.as_str(), "valid"].map(value::of_text);
    render::rows(settings.format, &["component", "file", "result"], &[Row { values: cells.to_vec() }])?;
    Ok(Exit::Ok)
}

fn named(name: &str) -> Option<&'static Component> {
    COMPONENTS.iter().copied().find(|component| component.name == name)
}

/// `/etc/procmond/config.yaml` is procmond's.
fn of_directory(file: &Path) -> Option<&'static Component> {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let directory = absolute.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    directory.and_then(named)
}
