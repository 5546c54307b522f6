//! Log lines on standard error, for a person or for a machine, each naming the program it came from: under
//! `daemoneye-agent run` three processes share one terminal.
//!
//! Standard output is never written to, and a closed standard error never ends the program.

use std::fmt;
use std::io::IsTerminal as _;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Target of lines that leave the host through the log and are logged at every level, `off` as well: a quieter log must not end what
/// witnesses elsewhere rely on.
pub const PUBLISHED: &str = "daemoneye::published";

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    Human,
    /// One JSON object per line.
    Json,
}

impl Format {
    /// The format that the setting `log.format` names; human for anything else.
    #[must_use]
    pub fn of_setting(word: &str) -> Self {
        if word == "json" { Self::Json } else { Self::Human }
    }
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is none of the known words.
    #[error("{0:?} is no log level; use off, error, warn, info, debug or trace")]
    MisuseLevel(String),
    /// This process already logs.
    #[error("logging was already started in this process")]
    MisuseTwice,
}

/// Starts logging for this process. Called once, before anything else logs.
///
/// # Errors
/// [`TelemetryError`] when the level is unknown or logging has been started before.
pub fn init(component: &'static str, level: &str, format: Format) -> Result<(), TelemetryError> {
    let level: LevelFilter = level.parse().map_err(|_| TelemetryError::MisuseLevel(level.to_owned()))?;
    let coloured = colours(std::io::stderr().is_terminal(), |name| std::env::var(name).ok());
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Line { component, format, coloured })
        .with_writer(std::io::stderr)
        // Reporting a failed write to standard error would itself write there, and panic.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(lines).with(filter(level)).try_init().map_err(|_| TelemetryError::MisuseTwice)
}

fn filter(level: LevelFilter) -> Targets {
    Targets::new().with_default(level).with_target(PUBLISHED, level.max(LevelFilter::INFO))
}

/// Whether colours may be used on a stream: only on a terminal, and not when `NO_COLOR` or `TERM=dumb` forbid it.
#[must_use]
pub fn colours(terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    let forbidden = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    terminal && !forbidden && variable("TERM").is_none_or(|term| term != "dumb")
}

struct Line {
    component: &'static str,
    format: Format,
    /// Whether the level has its colour.
    coloured: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match self.format {
            Format::Human => self.human(context, writer, event),
            Format::Json => self.json(writer, event),
        }
    }
}

impl Line {
    fn human<S, N>(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        let level = event.metadata().level();
        SystemTime.format_time(&mut writer)?;
        if self.coloured {
            let colour = match *level {
                tracing::Level::ERROR => 31,
                tracing::Level::WARN => 33,
                tracing::Level::INFO => 32,
                _ => 36,
            };
            write!(writer, " \u{1b}[{colour}m{level:>5}\u{1b}[0m {}: ", self.component)?;
        } else {
            write!(writer, " {level:>5} {}: ", self.component)?;
        }
        if let Some(span) = context.lookup_current() {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().map(|fields| fields.fields.as_str());
            if let Some(fields) = fields.filter(|fields| !fields.is_empty()) {
                write!(writer, "{}{{{fields}}}: ", span.name())?;
            }
        }
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }

    fn json(&self, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let mut line = Map::new();
        line.insert("time".to_owned(), Value::from(time));
        line.insert("level".to_owned(), Value::from(event.metadata().level().as_str().to_ascii_lowercase()));
        line.insert("component".to_owned(), Value::from(self.component));
        line.insert("target".to_owned(), Value::from(event.metadata().target()));
        for (name, value) in fields.0 {
            line.entry(name).or_insert(value);
        }
        let text = serde_json::to_string(&Value::Object(line)).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), Value::from(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), Value::from(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[test]
    fn what_leaves_the_host_through_the_log_is_logged_at_every_level() {
        use tracing::Level;
        for level in [LevelFilter::OFF, LevelFilter::WARN, LevelFilter::TRACE] {
            assert!(filter(level).would_enable(PUBLISHED, &Level::INFO), "{level}");
        }
        assert!(!filter(LevelFilter::WARN).would_enable("daemoneye", &Level::INFO));
        assert!(!filter(LevelFilter::OFF).would_enable("daemoneye", &Level::ERROR));
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(Line { component: "procmond", format, coloured: false })
            .finish();
        tracing::subscriber::with_default(subscriber, || tracing::warn!(pid = 7, user = "a\nb", "went away"));
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_human_line_names_the_program_and_stays_one_line() {
        let text = logged(Format::Human);
        assert!(text.contains(" WARN procmond: went away pid=7"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn a_json_line_is_one_object_with_typed_fields() {
        let value: Value = serde_json::from_str(&logged(Format::Json)).unwrap();
        assert_eq!(value["component"], "procmond");
        assert_eq!(value["level"], "warn");
        assert_eq!(value["message"], "went away");
        assert_eq!(value["pid"], 7);
        assert_eq!(value["user"], "a\nb");
    }

    #[test]
    fn colours_need_a_terminal_that_nobody_forbids() {
        let none = |_: &str| None;
        assert!(colours(true, none));
        assert!(!colours(false, none));
        assert!(!colours(true, |name| (name == "NO_COLOR").then(|| "1".to_owned())));
        assert!(!colours(true, |name| (name == "TERM").then(|| "dumb".to_owned())));
        assert!(colours(true, |name| (name == "NO_COLOR").then(String::new)));
    }
}
