//! What the word under the cursor may become: commands, tables, columns, functions, keywords.

use super::catalog::{Catalog, Table};
use super::command::NAMES;
use crate::render::Format;
use daemoneye_lib::functions::{DATETIME, FUNCTIONS, PROCESSES_AT};

const KEYWORDS: &[&str] = &[
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "DESC",
    "DISTINCT",
    "ELSE",
    "END",
    "EXISTS",
    "FALSE",
    "FROM",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INTERVAL",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OVER",
    "PARTITION",
    "REGEXP",
    "SELECT",
    "THEN",
    "TRUE",
    "UNION",
    "WHEN",
    "WHERE",
    "WITH",
];

/// Behind these stands a table.
const BEFORE_TABLE: &[&str] = &["from", "join"];

/// Where the word under the cursor begins, and what it may become, in the order in which it is offered.
pub(super) fn complete(catalog: &Catalog, line: &str, cursor: usize) -> (usize, Vec<String>) {
    let before = line.get(..cursor).unwrap_or(line);
    if let Some(command) = before.trim_start().strip_prefix('.').filter(|rest| !rest.starts_with("explain ")) {
        return commands(catalog, before, command);
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let start = before.trim_end_matches(is_part).len();
    let (earlier, word) = before.split_at_checked(start).unwrap_or((before, ""));
    // Behind a dot only columns of a table make sense.
    let is_qualified = earlier.ends_with('.');
    let mut last = earlier.split_whitespace();
    let behind = last.next_back().unwrap_or_default().to_lowercase();
    let tables = || catalog.0.iter().map(|table| table.name.clone());
    let found = if is_qualified {
        matching(word, columns(catalog, line))
    } else if BEFORE_TABLE.contains(&behind.as_str()) {
        matching(word, tables().chain([call(PROCESSES_AT)]))
    } else if word.is_empty() {
        Vec::new()
    } else {
        let functions = FUNCTIONS.iter().map(|(name, _)| *name).chain([DATETIME]).map(call);
        let keywords = KEYWORDS.iter().map(|name| (*name).to_owned());
        matching(word, columns(catalog, line).chain(functions).chain(tables()).chain(keywords))
    };
    (start, found)
}

fn call(function: &str) -> String {
    format!("{function}(")
}

fn commands(catalog: &Catalog, before: &str, command: &str) -> (usize, Vec<String>) {
    let Some((name, argument)) = command.split_once(' ') else {
        let start = before.len() - command.len() - 1;
        return (start, matching(&format!(".{command}"), NAMES.iter().map(|name| (*name).to_owned())));
    };
    let argument = argument.trim_start();
    let words: Vec<String> = match name {
        "mode" => Format::WORDS.iter().map(|(word, _)| (*word).to_owned()).collect(),
        "schema" => {
            let tables = catalog.0.iter().map(|table| table.name.clone());
            tables.chain([PROCESSES_AT.to_owned()]).collect()
        }
        "timer" => vec!["on".to_owned(), "off".to_owned()],
        _ => Vec::new(),
    };
    (before.len() - argument.len(), matching(argument, words.into_iter()))
}

/// Columns of the tables that the statement names; before it names one, of all.
fn columns<'a>(catalog: &'a Catalog, line: &str) -> impl Iterator<Item = String> + use<'a> {
    let words: Vec<String> = line.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_lowercase).collect();
    let is_named = |table: &&Table| words.contains(&table.name);
    let named: Vec<&Table> = catalog.0.iter().filter(is_named).collect();
    let chosen = if named.is_empty() { catalog.0.iter().collect() } else { named };
    chosen.into_iter().flat_map(|table| table.columns.iter().cloned())
}

fn matching(word: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let begins = |name: &String| name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let mut found: Vec<String> = names.filter(begins).collect();
    let mut seen = std::collections::HashSet::new();
    found.retain(|name| seen.insert(name.clone()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let table = |name: &str, columns: &[&str]| Table {
            name: name.into(),
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        };
        Catalog(vec![table("alerts", &["severity", "name"]), table("processes", &["pid", "name", "parent_name"])])
    }

    fn completed(line: &str) -> Vec<String> {
        let (start, found) = complete(&catalog(), line, line.len());
        assert!(line.is_char_boundary(start), "{line}");
        found
    }

    #[test]
    fn names_come_by_the_place_in_the_statement() {
        assert_eq!(completed("SELECT * FROM p"), ["processes", "processes_at("]);
        assert_eq!(completed("SELECT * FROM "), ["alerts", "processes", "processes_at("]);
        assert_eq!(completed("SELECT * FROM processes WHERE PA"), ["parent_name", "PARTITION"]);
        assert_eq!(completed("SELECT sev"), ["severity"]);
        assert_eq!(completed("SELECT p.na FROM processes p WHERE p.n"), ["name"]);
        assert_eq!(completed("SELECT cou"), ["count("]);
        assert_eq!(completed("wher"), ["WHERE"]);
        assert_eq!(completed("SELECT "), Vec::<String>::new());
        let inside = "SELECT pi FROM processes";
        assert_eq!(complete(&catalog(), inside, 9), (7, vec!["pid".to_owned()]));
    }

    #[test]
    fn every_function_that_the_guard_lets_through_is_offered() {
        for name in FUNCTIONS.iter().map(|(name, _)| *name).chain([DATETIME]) {
            assert!(completed(&format!("SELECT {name}")).contains(&call(name)), "{name}");
        }
        assert_eq!(completed("SELECT nth"), ["nth_value("]);
        assert_eq!(completed("SELECT * FROM processes WHERE name reg"), ["regexp_count(", "regexp_like(", "REGEXP"]);
    }

    #[test]
    fn commands_and_their_arguments_come_too() {
        assert_eq!(completed(".t"), [".tables", ".timer"]);
        assert_eq!(completed(".schema al"), ["alerts"]);
        assert_eq!(completed(".schema proc"), ["processes", "processes_at"]);
        assert_eq!(completed(".timer o"), ["on", "off"]);
        assert!(completed(".mode js").contains(&"jsonl".to_owned()));
        assert_eq!(completed(".explain SELECT * FROM al"), ["alerts"]);
        assert_eq!(completed("SELECT 'ü"), Vec::<String>::new());
    }
}
