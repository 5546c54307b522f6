//! What a query read and what it could skip, for a person. Machines get the document as it came.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::{bytes, counted};
use crate::value;

/// Lines about files and rows, then the tree of operators with what each gave and took.
pub(super) fn text(explained: &Json) -> String {
    let number = |path: &str| explained.pointer(path).and_then(Json::as_u64).unwrap_or_default();
    let read = |what: &str| {
        format!("{} read, {} skipped", number(&format!("/{what}/read")), number(&format!("/{what}/pruned")))
    };
    let pages = match (explained.get("pages").is_some_and(Json::is_object), number("/row_groups/read")) {
        (true, _) => read("pages"),
        (false, 0) => "none: no row group was read".to_owned(),
        (false, _) => "none left out by their statistics".to_owned(),
    };
    let bloom = match number("/row_groups/pruned_by_bloom_filter") {
        0 => String::new(),
        groups => format!(", {groups} more by Bloom filters"),
    };
    let spilled = match number("/spilled/files") {
        0 => "nothing".to_owned(),
        files => format!("{} in {files} files", bytes(number("/spilled/bytes"))),
    };
    let complete = if explained.get("complete") == Some(&Json::Bool(true)) { "complete" } else { "degraded" };
    let lines = [
        ("result", format!("{} in {}, {complete}", counted(number("/rows")), ms(number("/elapsed_us")))),
        ("segments", format!("{} of {}", read("segments"), number("/segments/total"))),
        ("row groups", format!("{}{bloom}", read("row_groups"))),
        ("pages", pages),
        (
            "scanned",
            format!(
                "{}, {} from files, {} of the open segment",
                counted(number("/scanned/rows")),
                bytes(number("/scanned/bytes")),
                counted(number("/scanned/open_rows"))
            ),
        ),
        ("spilled", spilled),
    ];
    let mut text: String = lines.iter().map(|(name, line)| format!("{name:10}  {line}\n")).collect();
    for (title, path) in [("files", "/segments/files"), ("unreadable", "/segments/unreadable")] {
        text.push_str(&files(title, explained.pointer(path)));
    }
    text.push_str(&operators(explained));
    text
}

/// Segments by name, one on a line, and how many more there are.
fn files(title: &str, listed: Option<&Json>) -> String {
    let listed = |name: &str| listed.and_then(|of| of.get(name));
    let names = listed("names").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let names = names.iter().filter_map(Json::as_str).map(value::harmless);
    let further = listed("further").and_then(Json::as_u64).filter(|further| *further > 0);
    let lines = names.chain(further.map(|further| format!("and {further} more")));
    let title = |at: usize| if at == 0 { title } else { "" };
    lines.enumerate().map(|(at, line)| format!("{:10}  {line}\n", title(at))).collect()
}

/// Rows and time first, because the tree has no width of its own.
fn operators(explained: &Json) -> String {
    let list = explained.get("operators").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut text = format!("\n{:>10}  {:>12}  operator\n", "rows", "time");
    for operator in list {
        let number = |name: &str| operator.get(name).and_then(Json::as_u64);
        let word = |name: &str| operator.get(name).and_then(Json::as_str).map(value::harmless).unwrap_or_default();
        let depth = usize::try_from(number("depth").unwrap_or_default()).unwrap_or_default();
        let rows = number("rows").map_or_else(String::new, |rows| rows.to_string());
        let time = number("elapsed_us").map_or_else(String::new, ms);
        // Writing to a String cannot fail.
        writeln!(
            text,
            "{rows:>10}  {time:>12}  {:indent$}{}",
            "",
            said(word("name"), word("does")),
            indent = depth * 2
        )
        .unwrap_or_default();
    }
    text
}

/// What many operators do begins with their name.
fn said(name: String, does: String) -> String {
    let plain = name.split('(').next().unwrap_or_default();
    match (does.is_empty(), does.starts_with(plain)) {
        (true, _) => name,
        (false, true) => does,
        (false, false) => format!("{name}: {does}"),
    }
}

fn ms(us: u64) -> String {
    format!("{}.{:03} ms", us / 1_000, us % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_reads_what_was_skipped_and_which_operator_took_the_time() {
        let explained = json!({
            "rows": 3, "elapsed_us": 5321, "complete": true,
            "segments": {"total": 12, "read": 3, "pruned": 9,
                "files": {"names": ["a.parquet", "b\u{1b}.parquet"], "further": 1},
                "unreadable": {"names": ["c.parquet"], "further": 0}},
            "row_groups": {"read": 3, "pruned": 1, "pruned_by_bloom_filter": 1},
            "pages": {"read": 5, "pruned": 40},
            "scanned": {"rows": 1200, "bytes": 40960, "open_rows": 17},
            "spilled": {"files": 0, "rows": 0, "bytes": 0},
            "operators": [
                {"depth": 0, "name": "SortExec(TopK)", "does": "SortExec: TopK(fetch=3)", "rows": 3, "elapsed_us": 120},
                {"depth": 1, "name": "DataSourceExec", "does": "a\u{1b}b", "rows": 1200, "elapsed_us": 4100},
            ],
        });
        let text = text(&explained);
        for expected in [
            "result      3 rows in 5.321 ms, complete\n",
            "segments    3 read, 9 skipped of 12\n",
            "row groups  3 read, 1 skipped, 1 more by Bloom filters\n",
            "pages       5 read, 40 skipped\n",
            "scanned     1200 rows, 40.9 kB from files, 17 rows of the open segment\n",
            "spilled     nothing\n",
            "files       a.parquet\n            b\\u{1b}.parquet\n            and 1 more\nunreadable  c.parquet\n\n",
            "         3      0.120 ms  SortExec: TopK(fetch=3)\n",
            "      1200      4.100 ms    DataSourceExec: a\\u{1b}b\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_document_that_lacks_everything_is_still_text() {
        assert!(text(&json!({})).contains("0 read, 0 skipped of 0"));
        assert!(text(&json!({"pages": null})).contains("pages       none: no row group was read\n"));
        let read = json!({"pages": null, "row_groups": {"read": 2}});
        assert!(text(&read).contains("pages       none left out by their statistics\n"));
    }
}
