//! What was typed, cut into statements and commands.
//!
//! A statement ends at a semicolon that stands in no quotes and no comment; a command begins with a dot and is one line, but
//! `.explain` takes a statement with it.

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// With its dot.
    Command(&'a str),
    /// Without its semicolon.
    Statement(&'a str),
}

/// The same, for when its text goes away.
#[derive(Debug)]
pub(super) struct Owned {
    text: String,
    is_command: bool,
}

impl Entry<'_> {
    pub(super) fn into_owned(self) -> Owned {
        match self {
            Self::Command(text) => Owned { text: text.to_owned(), is_command: true },
            Self::Statement(text) => Owned { text: text.to_owned(), is_command: false },
        }
    }
}

impl Owned {
    pub(super) fn as_ref(&self) -> Entry<'_> {
        if self.is_command { Entry::Command(&self.text) } else { Entry::Statement(&self.text) }
    }
}

/// The first entry and the bytes that it takes; `None`: there is none that is whole. At the end of the input a statement may
/// lack its semicolon.
pub(super) fn first(text: &str, is_over: bool) -> Option<(Entry<'_>, usize)> {
    let from = significant(text, is_over)?;
    let rest = text.get(from..)?;
    if rest.starts_with(';') {
        let (entry, length) = first(rest.get(1..)?, is_over)?;
        return Some((entry, from + 1 + length));
    }
    if rest.starts_with('.') && !rest.starts_with(".explain") {
        let length = match rest.find('\n') {
            Some(end) => end + 1,
            None if is_over => rest.len(),
            None => return None,
        };
        return Some((Entry::Command(rest.get(..length)?.trim_end()), from + length));
    }
    let (end, length) = match end_of(rest) {
        Some(end) => (end, end + 1),
        None if is_over => (rest.len(), rest.len()),
        None => return None,
    };
    let whole = rest.get(..end)?.trim_end();
    let entry = if whole.starts_with('.') { Entry::Command(whole) } else { Entry::Statement(whole) };
    Some((entry, from + length))
}

/// Whether everything in `text` can be done without a further line.
pub(super) fn is_whole(text: &str) -> bool {
    let mut rest = text;
    while let Some((_, length)) = first(rest, false) {
        rest = rest.get(length..).unwrap_or_default();
    }
    let Some(from) = significant(rest, true) else { return true };
    let rest = rest.get(from..).unwrap_or_default().trim_end_matches([';', ' ', '\t', '\n']);
    rest.is_empty() || (rest.starts_with('.') && !rest.starts_with(".explain"))
}

/// Where the first character stands that is neither blank nor in a comment; a comment in front of a statement is left out.
fn significant(text: &str, is_over: bool) -> Option<usize> {
    let mut from = 0;
    loop {
        let rest = text.get(from..)?;
        let blank = rest.len() - rest.trim_start().len();
        let rest = rest.trim_start();
        let length = if rest.starts_with("--") {
            match rest.find('\n') {
                Some(end) => end + 1,
                None if is_over => rest.len(),
                None => return None,
            }
        } else if rest.starts_with("/*") {
            match comment(rest) {
                Some(length) => length,
                // What does not end is for the agent to refuse.
                None if is_over => return Some(from + blank),
                None => return None,
            }
        } else if rest.is_empty() {
            return None;
        } else {
            return Some(from + blank);
        };
        from += blank + length;
    }
}

/// Bytes of the block comment that `text` begins with; such comments nest. `None`: it does not end.
fn comment(text: &str) -> Option<usize> {
    let (mut depth, mut from) = (0_usize, 0);
    loop {
        let rest = text.get(from..)?;
        if rest.starts_with("/*") {
            depth += 1;
            from += 2;
        } else if rest.starts_with("*/") {
            depth = depth.saturating_sub(1);
            from += 2;
            if depth == 0 {
                return Some(from);
            }
        } else {
            from += rest.chars().next()?.len_utf8();
        }
    }
}

/// Where the semicolon stands that ends the statement at the beginning of `text`.
fn end_of(text: &str) -> Option<usize> {
    let (mut from, mut before) = (0, ' ');
    loop {
        let rest = text.get(from..)?;
        let next = rest.chars().next()?;
        from += match next {
            ';' => return Some(from),
            '\'' => quoted(rest, '\'', matches!(before, 'e' | 'E'))?,
            '"' => quoted(rest, '"', false)?,
            '-' if rest.starts_with("--") => rest.find('\n')? + 1,
            '/' if rest.starts_with("/*") => comment(rest)?,
            other => other.len_utf8(),
        };
        before = next;
    }
}

/// Bytes of the quoted text that `text` begins with. A doubled quote ends one and begins the next, which comes to the same.
fn quoted(text: &str, quote: char, has_escapes: bool) -> Option<usize> {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if is_escaped {
            is_escaped = false;
        } else if has_escapes && c == '\\' {
            is_escaped = true;
        } else if c == quote {
            return Some(at + c.len_utf8());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<String> {
        let (mut rest, mut found) = (text, Vec::new());
        while let Some((entry, length)) = first(rest, true) {
            found.push(match entry {
                Entry::Command(text) | Entry::Statement(text) => text.to_owned(),
            });
            rest = &rest[length..];
        }
        found
    }

    #[test]
    fn a_semicolon_in_quotes_or_a_comment_ends_nothing() {
        let text =
            "SELECT ';''--' ; SELECT \"a;b\" -- c;d\n, 1; /* e; /* f; */ g; */ SELECT E'\\';' ;SELECT 2 /* ; */;";
        let expected = ["SELECT ';''--'", "SELECT \"a;b\" -- c;d\n, 1", "SELECT E'\\';'", "SELECT 2 /* ; */"];
        assert_eq!(all(text), expected);
    }

    #[test]
    fn commands_are_lines_and_explain_takes_a_statement_with_it() {
        let text = ".tables\n-- note\n.mode csv\n.explain SELECT 1\n FROM t; SELECT 2\n";
        assert_eq!(all(text), [".tables", ".mode csv", ".explain SELECT 1\n FROM t", "SELECT 2"]);
    }

    #[test]
    fn a_statement_is_waited_for_until_its_semicolon() {
        for whole in [
            "",
            "  ",
            "SELECT 1;",
            ".help",
            "SELECT 1; -- done",
            ";;",
            "SELECT 1; ;",
            "-- only a note",
            ".explain SELECT 1;",
        ] {
            assert!(is_whole(whole), "{whole:?}");
        }
        for cut in
            ["SELECT", "SELECT 1; SELECT", "SELECT ';", "SELECT 1 -- ;", "/* ;", ".explain SELECT 1", "SELECT \"a;"]
        {
            assert!(!is_whole(cut), "{cut:?}");
            assert!(first(cut, false).is_none_or(|(_, length)| length < cut.len()), "{cut:?}");
        }
    }

    #[test]
    fn no_beginning_of_a_text_panics_and_nothing_is_taken_twice() {
        let text = "-- ü\n.mode csv\nSELECT 'ß;' /* ä */; .explain E'\\\\' \"é\";;/* */";
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            let cut = &text[..end];
            assert!(all(cut).iter().map(String::len).sum::<usize>() <= end);
            let _whole = is_whole(cut);
        }
    }
}
