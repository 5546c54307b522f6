//! From a place inside a text of YAML to the place in the file: blocks are indented, folded ones and those in quotes have other line
//! ends, and quotes have escapes.
//!
//! The text is read once more as YAML reads it, with the place of each character. Where that does not give the text that the parser gave
//! (behind an alias or a tag), every place is that of the value.

use serde_saphyr::Location;

/// Where the SQL of a rule stands in its file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SqlPlace {
    start: (u64, u64),
    text: String,
    /// Of each character, line and column.
    places: Vec<(u64, u64)>,
}

impl SqlPlace {
    /// `key` is where the field's name stands, `at` where its value does, and `text` what that says.
    pub(super) fn new(source: &str, key: Location, at: Location, text: &str) -> Self {
        let text = text.trim_end();
        let mut reading = Reading { lines: source.lines().collect(), out: Vec::new(), most: text.chars().count() };
        let start = reading.value(key, at);
        let read: String = reading.out.iter().map(|(character, _)| character).take(reading.most).collect();
        if read != text {
            return Self { start, ..Self::default() };
        }
        let places = reading.out.iter().map(|(_, place)| *place).collect();
        Self { start, text: text.to_owned(), places }
    }

    /// The file's line and column of a place in the SQL; of one behind its end that of the end.
    pub(super) fn of(&self, line: u64, column: u64) -> (u64, u64) {
        let (Some(line), Some(column)) = (line.checked_sub(1), column.checked_sub(1)) else { return self.start };
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let before =
            self.text.split_inclusive('\n').take(number(line)).map(|line| line.chars().count()).sum::<usize>();
        let at = before.saturating_add(number(column));
        let end =
            || self.places.get(self.text.chars().count().checked_sub(1)?).map(|(line, column)| (*line, column + 1));
        self.places.get(at).copied().or_else(end).unwrap_or(self.start)
    }
}

struct Reading<'a> {
    lines: Vec<&'a str>,
    /// Each character with its line and column.
    out: Vec<(char, (u64, u64))>,
    /// More characters than these are not asked for.
    most: usize,
}

/// What a line of a folded block is to its neighbours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Indented further: its line ends stay.
    Deeper,
    Plain,
}

impl Reading<'_> {
    /// Reads the value and returns where it begins.
    fn value(&mut self, key: Location, at: Location) -> (u64, u64) {
        let head = self.line(key.line()).split_once(':').map(|(_, value)| value.trim_start()).unwrap_or_default();
        if head.starts_with(['|', '>']) {
            let (is_folded, digit) = (head.starts_with('>'), head.chars().take(3).find_map(|sign| sign.to_digit(10)));
            return self.block(key, is_folded, digit);
        }
        let start = (at.line(), at.column());
        let first = self.line(at.line()).chars().nth(index(at.column()).saturating_sub(1));
        self.flow(start, first.filter(|sign| matches!(sign, '\'' | '"')));
        start
    }

    fn line(&self, number: u64) -> &str {
        self.lines.get(index(number).wrapping_sub(1)).copied().unwrap_or_default()
    }

    fn push(&mut self, character: char, line: u64, column: usize) {
        self.out.push((character, (line, u64::try_from(column).unwrap_or(u64::MAX).saturating_add(1))));
    }

    /// A literal or folded block behind its head.
    fn block(&mut self, key: Location, is_folded: bool, digit: Option<u32>) -> (u64, u64) {
        let spaces = |line: &str| line.chars().take_while(|character| *character == ' ').count();
        let first = key.line() + 1;
        let behind = self.lines.iter().skip(index(key.line()));
        let found = behind.clone().find(|line| !line.trim().is_empty()).map_or(0, |line| spaces(line));
        let indentation = digit.map_or(found, |digit| index(key.column()).saturating_sub(1) + index(digit.into()));
        let (mut before, mut empty) = (None, 0_usize);
        let mut end = (first, 0);
        let lines: Vec<String> = behind.map(|line| (*line).to_owned()).collect();
        for (number, line) in (first..).zip(&lines) {
            if spaces(line) < indentation && !line.trim().is_empty() {
                break;
            }
            let text: Vec<char> = line.chars().skip(indentation).collect();
            if text.is_empty() || (is_folded && line.trim().is_empty()) {
                empty += 1;
                continue;
            }
            let kind =
                if text.first().is_some_and(|first| matches!(first, ' ' | '\t')) { Kind::Deeper } else { Kind::Plain };
            let folds = is_folded && before == Some(Kind::Plain) && kind == Kind::Plain;
            let (sign, count) = match (folds, before) {
                (true, _) if empty == 0 => (' ', 1),
                (true, _) | (false, None) => ('\n', empty),
                (false, Some(_)) => ('\n', empty + 1),
            };
            (0..count).for_each(|_| self.push(sign, end.0, end.1));
            for (at, character) in text.iter().enumerate() {
                self.push(*character, number, indentation + at);
            }
            (before, empty, end) = (Some(kind), 0, (number, indentation + text.len()));
            if self.out.len() >= self.most {
                break;
            }
        }
        self.out.first().map_or((first, 1), |(_, place)| *place)
    }

    /// Plain text, or text in these quotes, which may go on for several lines.
    fn flow(&mut self, start: (u64, u64), quote: Option<char>) {
        // Columns count from 1: behind a quote the text begins at its column.
        let (mut number, mut at) = (start.0, index(start.1).saturating_sub(usize::from(quote.is_none())));
        while self.out.len() < self.most && index(number) <= self.lines.len() {
            let line: Vec<char> = self.line(number).chars().collect();
            let is_last = self.flow_line(&line, number, &mut at, quote);
            if is_last {
                return;
            }
            // An escaped line end takes the blanks before it along, which are text then.
            let joins = quote == Some('"') && line.last() == Some(&'\\');
            if !joins {
                while self
                    .out
                    .last()
                    .is_some_and(|(character, (of, _))| *of == number && matches!(character, ' ' | '\t'))
                {
                    self.out.pop();
                }
            }
            let (from, end) = (number, line.len());
            number += 1;
            let mut empty = 0_usize;
            while index(number) <= self.lines.len() && self.line(number).trim().is_empty() {
                (empty, number) = (empty + 1, number + 1);
            }
            match (joins, empty) {
                (true, 0) => {}
                (false, 0) => self.push(' ', from, end),
                (_, several) => (0..several).for_each(|_| self.push('\n', from, end)),
            }
            at = self.line(number).chars().take_while(|character| matches!(character, ' ' | '\t')).count();
        }
    }

    /// One line of it from `at` on; whether it ends there.
    fn flow_line(&mut self, line: &[char], number: u64, at: &mut usize, quote: Option<char>) -> bool {
        while let Some(character) = line.get(*at) {
            let from = *at;
            *at += 1;
            match (quote, character, line.get(*at)) {
                (Some('\''), '\'', Some('\'')) => {
                    *at += 1;
                    self.push('\'', number, from);
                }
                (Some(quote), character, _) if *character == quote => return true,
                (Some('"'), '\\', None) => return false,
                (Some('"'), '\\', Some(escape)) => {
                    *at += 1;
                    let digits = match escape {
                        'x' => 2,
                        'u' => 4,
                        'U' => 8,
                        _ => 0,
                    };
                    let code: String = line.iter().skip(*at).take(digits).collect();
                    *at += digits;
                    let coded = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                    self.push(coded.unwrap_or_else(|| escaped(*escape)), number, from);
                }
                _ => self.push(*character, number, from),
            }
        }
        false
    }
}

/// What a letter behind a backslash stands for.
const fn escaped(letter: char) -> char {
    match letter {
        '0' => '\0',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'e' => '\u{1b}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        'N' => '\u{85}',
        '_' => '\u{a0}',
        'L' => '\u{2028}',
        'P' => '\u{2029}',
        other => other,
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::yaml::{Yaml, read};
    use super::*;

    /// Every `@` of the value has the place that it has in the file.
    fn told(source: &str) {
        let node = read(source).map_err(|e| e.message).unwrap();
        let Yaml::Map(pairs) = node.value else { panic!("not a map") };
        let (key, sql) = pairs.iter().find(|(key, _)| key.value == "sql").unwrap();
        let Yaml::Text(text) = &sql.value else { panic!("not text") };
        let place = SqlPlace::new(source, key.referenced, sql.referenced, text);
        let marks = |text: &str| -> Vec<(u64, u64)> {
            let lines = (1..).zip(text.lines());
            lines
                .flat_map(|(line, text)| {
                    (1..).zip(text.chars()).filter(|(_, c)| *c == '@').map(move |(column, _)| (line, column))
                })
                .collect()
        };
        let found: Vec<_> = marks(text).into_iter().map(|(line, column)| place.of(line, column)).collect();
        assert!(!found.is_empty());
        assert_eq!(found, marks(source), "{source}\n{text:?}");
    }

    #[test]
    fn every_style_of_yaml_keeps_its_places() {
        for source in [
            "sql: SELECT @\n",
            "sql:   é@ b@\nname: x\n",
            "sql: a @ b\n  c @\n\n  d @\nname: x\n",
            "name: x\nsql: |\n  a @\n    b @\n\n  @ c\nid: x\n",
            "sql: |-\n      @\n      b@\n",
            "sql: |2\n    @\n  b@\n",
            "sql: >\n  a @\n  b @\n\n  @ c\n\n\n  d@\n",
            "sql: >-\n  a @\n    deeper @\n  b @\n\n    @\n  c@\n",
            "sql: >\n\n  a @\n  b @\n",
            "'sql': >+\n  a é@\n  b @\n\n",
            "sql: 'it''s @ '' @'\n",
            "sql: 'a @\n  b @\n\n  c '' @'\n",
            "sql: \"a \\t @ \\u00e9 @ \\\"@\\\" \\x41@\"\n",
            "sql: \"a @\n  b \\\n  c @ \\\\ @\n\n  d@\"\n",
            "name: x\nsql:\n  SELECT @\n  @\n",
            "{\"name\": \"x\", \"sql\": \"a @\"}\n",
        ] {
            told(source);
        }
    }

    #[test]
    fn what_is_not_told_has_the_place_of_the_value() {
        let source = "name: &a x y\nsql: *a\n";
        let node = read(source).map_err(|e| e.message).unwrap();
        let Yaml::Map(pairs) = node.value else { panic!("not a map") };
        let (key, sql) = &pairs[1];
        let place = SqlPlace::new(source, key.referenced, sql.referenced, "x y");
        assert_eq!(place.of(1, 3), place.of(0, 0));
        let place = SqlPlace::new("sql: |\n  ab\n", key.referenced, sql.referenced, "zz");
        assert_eq!(place.of(9, 9), place.of(0, 0));
    }

    #[test]
    fn behind_the_end_is_the_end() {
        let source = "sql: >\n  a\n  b\n";
        let node = read(source).map_err(|e| e.message).unwrap();
        let Yaml::Map(pairs) = node.value else { panic!("not a map") };
        let place = SqlPlace::new(source, pairs[0].0.referenced, pairs[0].1.referenced, "a b");
        assert_eq!((place.of(1, 4), place.of(7, 1)), ((3, 4), (3, 4)));
    }
}
