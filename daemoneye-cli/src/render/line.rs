//! One `name = value` per line, a blank line between two rows: what has many columns reads best so.

use daemoneye_lib::proto::{Row, Value};

use crate::value;

/// The rows as text, their names to the right. A value is one line: what would end it, or move a terminal, is escaped.
pub(super) fn page(columns: &[String], rows: &[Row]) -> String {
    let names: Vec<String> = columns.iter().map(|column| value::harmless(column)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let field =
        |(name, cell): (&String, &Value)| format!("{name:>width$} = {}\n", value::harmless(&value::text(cell)));
    let block = |row: &Row| names.iter().zip(&row.values).map(field).collect();
    rows.iter().map(block).collect::<Vec<String>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_one_line_whatever_it_holds() {
        let columns = ["pid", "line", "\u{1b}[2J"].map(str::to_owned);
        let row = |text: &str| Row { values: vec![value::of_number(7), value::of_text(text), Value { kind: None }] };
        let text = page(&columns, &[row("a = b\n\r c\u{202e}"), row("")]);
        let lines: Vec<&str> = text.split('\n').collect();
        let first = ["      pid = 7", r"     line = a = b\n\r c\u{202e}", r"\u{1b}[2J = "];
        assert_eq!(lines, [&first[..], &["", first[0], "     line = ", first[2], ""]].concat());
    }
}
