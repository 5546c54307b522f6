//! From a place inside the SQL to the place in the file.

use serde_saphyr::Location;

/// Where the SQL of a rule stands in its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SqlPlace {
    line: u64,
    column: u64,
    block: bool,
}

impl SqlPlace {
    /// `key` is where the field's name stands and `at` where its value does.
    pub(super) fn new(source: &str, key: Location, at: Location) -> Self {
        let after = |line: u64| source.lines().skip(usize::try_from(line).unwrap_or(usize::MAX));
        let head = after(key.line().saturating_sub(1)).next().unwrap_or_default();
        let block = head.split_once(':').is_some_and(|(_, value)| value.trim_start().starts_with('|'));
        if !block {
            return Self { line: at.line(), column: at.column(), block };
        }
        // The block begins on the next line; the indentation of its first line with text is not part of it.
        let first = after(key.line()).find(|line| !line.trim().is_empty()).unwrap_or_default();
        let indentation = first.chars().take_while(|character| *character == ' ').count();
        Self { line: key.line() + 1, column: u64::try_from(indentation).unwrap_or(0) + 1, block }
    }

    /// The file's line and column of a place in the SQL. Folded and quoted text hides its line ends: the value's start then.
    pub(super) const fn of(self, line: u64, column: u64) -> (u64, u64) {
        if line == 0 || column == 0 {
            return (self.line, self.column);
        }
        if self.block || line == 1 {
            return (self.line + line - 1, self.column + column - 1);
        }
        (self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml::{Yaml, read};
    use super::*;

    fn place(source: &str) -> SqlPlace {
        let node = read(source).map_err(|e| e.message).unwrap();
        let Yaml::Map(pairs) = node.value else { panic!("not a map") };
        let (key, sql) = pairs.iter().find(|(key, _)| key.value == "sql").unwrap();
        SqlPlace::new(source, key.referenced, sql.referenced)
    }

    #[test]
    fn a_block_maps_every_line_and_column() {
        let place = place("name: x\nsql: |\n  SELECT a\n  FROM b\n");
        assert_eq!(place.of(1, 8), (3, 10));
        assert_eq!(place.of(2, 1), (4, 3));
        assert_eq!(place.of(0, 0), (3, 3));
    }

    #[test]
    fn plain_text_maps_its_first_line_and_folded_text_its_start() {
        assert_eq!(place("sql: SELECT a\n").of(1, 8), (1, 13));
        assert_eq!(place("sql: >-\n  SELECT\n  a\n").of(2, 3), place("sql: >-\n  SELECT\n  a\n").of(0, 0));
    }
}
