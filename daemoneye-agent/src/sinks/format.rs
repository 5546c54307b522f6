//! An alert as text: for people, as JSON lines, as CSV. The content is the same on every sink.

use std::fmt::Write as _;

use daemoneye_lib::model::Alert;
use serde_json::Value;

/// How a sink writes an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    Human,
    Json,
}

/// Columns of the CSV form, in order.
const CSV_COLUMNS: &[&str] = &[
    "id",
    "time",
    "severity",
    "title",
    "rule_id",
    "rule_version",
    "name",
    "pid",
    "ppid",
    "user",
    "executable_path",
    "command_line",
    "parent_name",
    "entity_id",
    "count",
    "completeness",
    "host",
    "tags",
];

/// Longest command line on a terminal, in characters; the whole one stands in the store.
const HUMAN_COMMAND_CHARS: usize = 300;

impl Format {
    /// The format of a settings word; the settings table admits no other words.
    pub(crate) fn named(word: &str) -> Self {
        match word {
            "csv" => Self::Csv,
            "human" => Self::Human,
            _ => Self::Json,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Human => "human",
            Self::Json => "json",
        }
    }

    /// What stands above the first alert of an empty file or a fresh terminal.
    pub(crate) fn heading(self) -> String {
        match self {
            Self::Csv => csv_line(CSV_COLUMNS.iter().map(|name| (*name).to_owned())),
            Self::Human | Self::Json => String::new(),
        }
    }

    /// One alert with its line end.
    pub(crate) fn render(self, alert: &Alert) -> Result<String, serde_json::Error> {
        match self {
            Self::Csv => Ok(csv_line(CSV_COLUMNS.iter().map(|column| csv_value(alert, column)))),
            Self::Human => Ok(human(alert)),
            Self::Json => serde_json::to_string(alert).map(|json| json + "\n"),
        }
    }
}

/// RFC 3339 in UTC; a time that no calendar has is shown as its number.
pub(crate) fn timestamp(time_us: i64) -> String {
    jiff::Timestamp::from_microsecond(time_us).map_or_else(|_| time_us.to_string(), |time| format!("{time:.6}"))
}

fn csv_line(values: impl Iterator<Item = String>) -> String {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    // Writing to memory cannot fail.
    let _written = writer.write_record(values);
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn csv_value(alert: &Alert, column: &str) -> String {
    match column {
        "id" => alert.id.to_string(),
        "time" => timestamp(alert.time_us),
        "severity" => alert.severity.as_str().to_owned(),
        "title" => alert.title.clone(),
        "rule_id" => alert.rule_id.to_string(),
        "rule_version" => alert.rule_version.to_string(),
        "count" => alert.count.to_string(),
        "completeness" => alert.completeness.describe(),
        "host" => alert.host.clone(),
        "tags" => alert.tags.join(" "),
        of_the_process => process(alert, of_the_process),
    }
}

fn process(alert: &Alert, column: &str) -> String {
    match alert.process.get(column) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Two lines: what happened, and to whom. Characters that could drive a terminal are shown, not sent.
fn human(alert: &Alert) -> String {
    let mut text = String::new();
    let command = process(alert, "command_line");
    let shown = if command.is_empty() { process(alert, "executable_path") } else { command };
    let mut shown: String = printable(&shown).chars().take(HUMAN_COMMAND_CHARS + 1).collect();
    if shown.chars().count() > HUMAN_COMMAND_CHARS {
        shown.pop();
        shown.push('…');
    }
    let time = jiff::Timestamp::from_microsecond(alert.time_us).map_or_else(
        |_| alert.time_us.to_string(),
        |time| time.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string(),
    );
    let severity = alert.severity.as_str().to_uppercase();
    let name = printable(&process(alert, "name"));
    let pid = process(alert, "pid");
    // Writing to a string cannot fail.
    let _first = writeln!(text, "{time} {severity:<8} {}  {name} (pid {pid}): {shown}", printable(&alert.title));
    let _second = write!(text, "         rule {}  alert {}", alert.rule_id, alert.id);
    if alert.count > 1 {
        let _count = write!(text, "  ×{}", alert.count);
    }
    if !alert.completeness.is_complete() {
        let _completeness = write!(text, "  {}", alert.completeness.describe());
    }
    text.push('\n');
    text
}

/// Control characters as escapes, and those that reorder text: a process name must not be able to repaint the terminal.
fn printable(text: &str) -> String {
    let reorders = |c: char| matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() || reorders(c) {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::sample;

    #[test]
    fn csv_survives_commas_quotes_and_line_ends_in_a_command_line() {
        let mut alert = sample::alert(1);
        let nasty = "sh -c \"a,b\"\nrm";
        alert.process.insert("command_line".into(), nasty.into());
        let text = Format::Csv.heading() + &Format::Csv.render(&alert).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 1);
        assert_eq!(&rows[0][11], nasty);
        assert_eq!(&rows[0][0], alert.id.to_string());
    }

    #[test]
    fn json_lines_are_single_lines_that_read_back() {
        let mut alert = sample::alert(2);
        alert.process.insert("command_line".into(), "a\nb".into());
        let text = Format::Json.render(&alert).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<Alert>(&text).unwrap(), alert);
    }

    #[test]
    fn a_process_cannot_send_escapes_to_the_terminal() {
        let mut alert = sample::alert(3);
        alert.process.insert("command_line".into(), "\u{1b}[2Jx\u{202e}y\r".into());
        let text = Format::Human.render(&alert).unwrap();
        assert!(text.contains("\\u{1b}[2Jx\\u{202e}y\\r"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
        assert_eq!(text.lines().count(), 2);
    }
}
