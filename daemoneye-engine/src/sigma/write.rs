//! A converted rule as one of our rule files: what Sigma says about it is kept, and the SQL is there to be read.

use std::fmt::Write as _;

use uuid::Uuid;

use super::document::Header;

/// The fields of a rule file for one converted rule.
pub(super) fn rule_file(header: &Header, id: Uuid, sql: &str, dedup: &[&str]) -> String {
    let mut out = format!("id: {id}\n");
    field(&mut out, "name", &header.title);
    field(&mut out, "description", header.description.trim_end());
    field(&mut out, "author", &header.author);
    list(&mut out, "references", &header.references);
    line(&mut out, format_args!("severity: {}", severity(header.level.as_deref())));
    line(&mut out, format_args!("category: {}", quoted(header.category.as_deref().unwrap_or("process"))));
    list(&mut out, "tags", &header.tags);
    line(&mut out, format_args!("status: {}", status(header.status.as_deref())));
    list(&mut out, "false_positives", &header.false_positives);
    field(&mut out, "sql", sql);
    if !dedup.is_empty() {
        line(&mut out, format_args!("dedup: [{}]", dedup.join(", ")));
    }
    out
}

/// Sigma's word for it is `informational`; what says nothing is taken for medium.
fn severity(level: Option<&str>) -> &'static str {
    match level.map(str::to_lowercase).as_deref() {
        Some("informational" | "info") => "info",
        Some("low") => "low",
        Some("high") => "high",
        Some("critical") => "critical",
        _ => "medium",
    }
}

/// Our rule files have no word for `unsupported`; such a rule is as little meant to be used as a deprecated one.
fn status(status: Option<&str>) -> &'static str {
    match status {
        Some("stable") => "stable",
        Some("test") => "test",
        Some("deprecated" | "unsupported") => "deprecated",
        _ => "experimental",
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    writeln!(out, "{text}").unwrap_or_default();
}

fn list(out: &mut String, name: &str, items: &[String]) {
    let items: Vec<&String> = items.iter().filter(|item| !item.is_empty()).collect();
    if items.is_empty() {
        return;
    }
    line(out, format_args!("{name}:"));
    for item in items {
        line(out, format_args!("  - {}", quoted(item)));
    }
}

/// Text of several lines stands as a block, which shows it as it is; whatever a block cannot hold is quoted.
fn field(out: &mut String, name: &str, text: &str) {
    if text.trim().is_empty() {
        return;
    }
    let fits =
        |c: char| c == '\n' || c == '\t' || (!c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}'));
    let blank_ends = text.starts_with([' ', '\n', '\t'])
        || text.ends_with('\n')
        || text.lines().any(|line| line.ends_with([' ', '\t']));
    if !text.contains('\n') || blank_ends || !text.chars().all(fits) {
        return line(out, format_args!("{name}: {}", quoted(text)));
    }
    line(out, format_args!("{name}: |-"));
    for part in text.lines() {
        line(out, format_args!("{}{part}", if part.is_empty() { "" } else { "  " }));
    }
}

/// As YAML's double quotes have it, everything that is not plainly visible by its number.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    for c in text.chars() {
        let code = u32::from(c);
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            _ if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                write!(out, "\\u{code:04x}").unwrap_or_default();
            }
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::rules::yaml::{Yaml, read};

    fn read_back(text: &str) -> String {
        let mut out = String::new();
        field(&mut out, "sql", text);
        let node = read(&out).map_err(|error| error.message).unwrap();
        match node.value {
            Yaml::Map(pairs) => match &pairs[0].1.value {
                Yaml::Text(text) => text.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_text_comes_back_as_it_was() {
        for text in [
            "a",
            "a\nb",
            " a\n b",
            "a: b # c",
            "'x'\n  AND \"y\"",
            "a \nb",
            "tab\tin\nside",
            "\u{7}bell\n",
            "é–―\n日",
            "a\r\nb",
            "a\n\nb",
            "- x\n- y",
            "\u{85}x",
            "{a}\n[b]",
            "%x\n&y *z",
            "a\n\n",
            "\\n\n\\",
        ] {
            assert_eq!(read_back(text), text, "{text:?}");
        }
    }
}
