//! Long text a screen at a time. Built in: the jail starts no pager, and a small host may have none.

use std::io::Write as _;

use unicode_width::UnicodeWidthStr as _;

use super::terminal::{self, Key};
use crate::error::CliError;

/// Prints `text`; where it is higher than the terminal, a screen at a time until the reader has enough.
pub(super) fn show(text: &str) -> Result<(), CliError> {
    let Some(size) = terminal::size() else { return print(text) };
    let mut pages = Pages::new(text, size);
    print(pages.next(pages.room))?;
    while !pages.is_over() {
        let prompt = pages.prompt();
        print(&prompt)?;
        let key = terminal::key().map_err(CliError::Output)?;
        // Blanks take the prompt away on any terminal.
        print(&format!("\r{}\r", " ".repeat(prompt.chars().count())))?;
        match key {
            Key::Line => print(pages.next(1))?,
            Key::Page => print(pages.next(pages.room))?,
            Key::Quit => return Ok(()),
            Key::Other => {}
        }
    }
    Ok(())
}

fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = std::io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(CliError::Output)
}

/// What is left of a text, on a terminal of a size.
struct Pages<'a> {
    rest: &'a str,
    /// Rows of the terminal that a page may take: one stays for the prompt.
    room: usize,
    width: usize,
    shown: usize,
    lines: usize,
}

impl<'a> Pages<'a> {
    fn new(text: &'a str, (width, height): (usize, usize)) -> Self {
        let room = height.saturating_sub(1).max(1);
        Self { rest: text, room, width: width.max(1), shown: 0, lines: text.lines().count() }
    }

    const fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whole lines that take at most `rows` rows, but at least one.
    fn next(&mut self, rows: usize) -> &'a str {
        let (mut end, mut taken) = (0, 0);
        for line in self.rest.split_inclusive('\n') {
            taken += line.trim_end_matches('\n').width().div_ceil(self.width).max(1);
            if taken > rows && end > 0 {
                break;
            }
            end += line.len();
            self.shown += 1;
        }
        let (page, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        page
    }

    fn prompt(&self) -> String {
        let full = format!("--More-- line {} of {} (space: page, enter: line, q: end)", self.shown, self.lines);
        let short = "--More--".to_owned();
        if full.chars().count() < self.width { full } else { short }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_fits_and_long_lines_take_more_rows() {
        let text = "1\n2\n3\n4\n5\n";
        let mut pages = Pages::new(text, (80, 4));
        assert_eq!(pages.next(pages.room), "1\n2\n3\n");
        assert!(pages.prompt().contains("line 3 of 5"), "{}", pages.prompt());
        assert_eq!((pages.next(1), pages.next(pages.room), pages.is_over()), ("4\n", "5\n", true));
        let wide = format!("{}\nb\nc\n", "a".repeat(25));
        let mut pages = Pages::new(&wide, (10, 5));
        assert_eq!(pages.next(pages.room).lines().count(), 2);
        assert_eq!(pages.prompt(), "--More--");
        let double = format!("{}\nb\nc\n", "日".repeat(15));
        let mut pages = Pages::new(&double, (10, 5));
        assert_eq!(pages.next(pages.room).lines().count(), 2, "each takes two cells");
        let huge = "x".repeat(1_000);
        let mut pages = Pages::new(&huge, (10, 5));
        assert_eq!((pages.next(pages.room).len(), pages.is_over()), (1_000, true));
    }
}
