//! What `daemoneye-agent run` says when it has started: what captures, what judges, where everything lies, how to stop.

use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;

use super::Worker;
use crate::sinks::format::Format;

/// Rules that are named; the others are counted.
const NAMED_RULES: usize = 2;

/// Prints the summary: on standard output when people read it, else on standard error, so that JSON and CSV stay clean.
pub(crate) async fn print(worker: &Arc<Worker>) {
    say(worker, &text(worker)).await;
}

/// Prints what captures, once the summary has been printed without it.
pub(crate) async fn print_sources(worker: &Arc<Worker>) {
    let lines: String = sources(worker).into_iter().map(|source| line("source", &source)).collect();
    say(worker, &lines).await;
}

async fn say(worker: &Arc<Worker>, text: &str) {
    let written = match worker.settings.stdout {
        Some(Format::Csv | Format::Json) => tokio::io::stderr().write_all(text.as_bytes()).await,
        Some(Format::Human) | None => {
            let mut out = tokio::io::stdout();
            match out.write_all(text.as_bytes()).await {
                Ok(()) => out.flush().await,
                failed => failed,
            }
        }
    };
    if let Err(error) = written {
        tracing::warn!(%error, "the summary was not printed");
    }
}

fn text(worker: &Worker) -> String {
    let settings = &worker.settings;
    let runtime = settings.runtime_dir.display();
    let mut text = format!("daemoneye-agent {}\n", daemoneye_lib::BUILD);
    for source in sources(worker) {
        text.push_str(&line("source", &source));
    }
    let query = "query \"SELECT time, pid, name FROM process_events LIMIT 5\"";
    for (name, value) in [
        ("rules", rules(worker)),
        ("sinks", sinks(worker)),
        ("data", settings.data_dir.display().to_string()),
        ("runtime", runtime.to_string()),
        ("stop", "Ctrl-C".to_owned()),
        ("try", format!("daemoneye-cli --runtime-dir {runtime} processes")),
        ("", format!("daemoneye-cli --runtime-dir {runtime} {query}")),
    ] {
        text.push_str(&line(name, &value));
    }
    text
}

fn line(name: &str, value: &str) -> String {
    format!("  {name:<8} {value}\n")
}

fn sources(worker: &Worker) -> Vec<String> {
    let collectors = worker.roster.all();
    if collectors.is_empty() {
        return vec!["waiting for procmond to register; its line follows".to_owned()];
    }
    collectors
        .iter()
        .map(|(id, collector)| {
            let capabilities = collector.register.capabilities.clone().unwrap_or_default();
            // The first note says what this source cannot see, often after its name; `health` has all of them.
            let named = format!("{}: ", capabilities.source);
            let plain = |note: &String| format!(", {}", note.strip_prefix(&named).unwrap_or(note));
            let limit = capabilities.notes.first().map_or_else(String::new, plain);
            let told = |ms| format!(", a snapshot every {ms} ms");
            let every = worker.settings.procmond.snapshot_interval_ms.map_or_else(String::new, told);
            format!("{id}: {}{every}{limit}", capabilities.source)
        })
        .collect()
}

fn rules(worker: &Worker) -> String {
    let names = worker.rules.names();
    if names.is_empty() {
        return "none loaded: give --rules DIR".to_owned();
    }
    let named = names.iter().take(NAMED_RULES).map(String::as_str).collect::<Vec<_>>().join(", ");
    let rest = names.len().saturating_sub(NAMED_RULES);
    let problems = match worker.rules.problems().len() {
        0 => String::new(),
        count => format!("; {count} problems, see above"),
    };
    if rest == 0 {
        format!("{} loaded: {named}{problems}", names.len())
    } else {
        format!("{} loaded: {named} and {rest} more{problems}", names.len())
    }
}

fn sinks(worker: &Worker) -> String {
    let stdout = worker.settings.stdout.map(|format| format!("stdout ({})", format.as_str()));
    let file =
        worker.settings.file.as_ref().map(|file| format!("file ({}) {}", file.format.as_str(), file.path.display()));
    let all: Vec<String> = stdout.into_iter().chain(file).collect();
    if all.is_empty() { "none: alerts are only kept".to_owned() } else { all.join(", ") }
}
