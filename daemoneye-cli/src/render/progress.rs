//! One line on a terminal about work that takes longer than a second: how much of how much, and how long still.
//!
//! It is written to standard error and taken away at the end; where that is no terminal it is a plain line each ten seconds, so that a
//! log shows that the work goes on.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::counted;

/// What is over before is not told about.
const QUIET: Duration = Duration::from_secs(1);
/// Ten times a second is all that anybody sees.
const REDRAW: Duration = Duration::from_millis(100);
/// And each ten seconds is enough for a log.
const PLAIN: Duration = Duration::from_secs(10);
/// Characters of the bar.
const BAR: u64 = 24;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Rows,
}

pub(crate) struct Progress {
    what: &'static str,
    unit: Unit,
    begun: Instant,
    piece: Piece,
    drawn: Option<Instant>,
    terminal: bool,
    width: usize,
}

/// One of the works that follow each other under one name, as merges do: what is left goes by its own pace.
#[derive(Debug, Clone, Copy)]
struct Piece {
    begun: Instant,
    /// What was done when it was first told of, and when last.
    from: u64,
    done: u64,
    total: u64,
}

impl Piece {
    const fn new(begun: Instant, done: u64, total: u64) -> Self {
        Self { begun, from: done, done, total }
    }

    /// Numbers that fall, or are parts of something else, are of a new one.
    fn take(&mut self, now: Instant, done: u64, total: u64) {
        if done < self.done || total != self.total && self.total > 0 {
            *self = Self::new(now, done, total);
        }
        (self.done, self.total) = (done, total);
    }
}

impl Progress {
    pub(crate) fn new(what: &'static str, unit: Unit) -> Self {
        let terminal = io::stderr().is_terminal();
        let begun = Instant::now();
        Self { what, unit, begun, piece: Piece::new(begun, 0, 0), drawn: None, terminal, width: 0 }
    }

    /// Shows that `done` of `total` are done; a total of 0 is not known.
    pub(crate) fn show(&mut self, done: u64, total: u64) {
        if let Some(text) = self.next(done, total) {
            self.write(&text);
        }
    }

    /// What is written now, if it is time.
    fn next(&mut self, done: u64, total: u64) -> Option<String> {
        let now = Instant::now();
        self.piece.take(now, done, total);
        let since = now.duration_since(self.begun);
        let (quiet, period) = if self.terminal { (QUIET, REDRAW) } else { (PLAIN, PLAIN) };
        if since < quiet || self.drawn.is_some_and(|drawn| drawn.elapsed() < period) {
            return None;
        }
        self.drawn = Some(now);
        let text = line(self.what, self.unit, &self.piece, now.duration_since(self.piece.begun));
        if !self.terminal {
            return Some(format!("{text}\n"));
        }
        let width = text.chars().count();
        // Blanks instead of an escape sequence, which a plain terminal would print.
        let rest = self.width.saturating_sub(width);
        self.width = width;
        Some(format!("\r{text}{}", " ".repeat(rest)))
    }

    fn write(&self, text: &str) {
        let mut stderr = io::stderr();
        // Nothing depends on it.
        stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).unwrap_or_default();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.drawn.is_some() {
            self.write(&format!("\r{}\r", " ".repeat(self.width)));
        }
    }
}

fn line(what: &str, unit: Unit, piece: &Piece, since: Duration) -> String {
    let &Piece { from, done, total, .. } = piece;
    let amount = |number| match unit {
        Unit::Bytes => bytes(number),
        Unit::Rows => counted(number),
    };
    if total == 0 {
        return format!("{what}: {}, {} s", amount(done), since.as_secs());
    }
    let (done, paced) = (done.min(total), done.saturating_sub(from));
    let of = |whole: u64| u64::try_from(u128::from(done) * u128::from(whole) / u128::from(total)).unwrap_or(whole);
    let full = usize::try_from(of(BAR)).unwrap_or_default();
    let rest = usize::try_from(BAR).unwrap_or_default().saturating_sub(full);
    let bar = format!("{}{}", "#".repeat(full), "-".repeat(rest));
    let left = match (since.as_millis() * u128::from(total - done)).checked_div(u128::from(paced)) {
        Some(ms) => format!(", {} s left", ms.div_ceil(1_000)),
        None => String::new(),
    };
    format!("{what}: [{bar}] {} %, {} of {}{left}", of(100), amount(done), amount(total))
}

/// Bytes for a person, in powers of 1000 as disks are sold.
pub(crate) fn bytes(number: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut tenths, mut at) = (u128::from(number) * 10, 0);
    while tenths >= 10_000 && at + 1 < units.len() {
        tenths /= 1_000;
        at += 1;
    }
    let unit = units.get(at).copied().unwrap_or_default();
    if at == 0 { format!("{number} {unit}") } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_how_much_of_how_much_and_how_long_still() {
        let line = |what, unit, done, total, since| {
            let piece = Piece { done, total, ..Piece::new(Instant::now(), 0, 0) };
            super::line(what, unit, &piece, since)
        };
        let half = line("backup", Unit::Bytes, 1_000_000, 2_000_000, Duration::from_secs(3));
        assert_eq!(half, "backup: [############------------] 50 %, 1.0 MB of 2.0 MB, 3 s left");
        assert_eq!(line("export", Unit::Rows, 12, 0, Duration::from_secs(7)), "export: 12 rows, 7 s");
        assert_eq!(line("export", Unit::Rows, 1, 0, Duration::from_secs(7)), "export: 1 row, 7 s");
        let begun = line("fsck", Unit::Bytes, 0, 10, Duration::from_secs(2));
        assert!(begun.ends_with("0 %, 0 B of 10 B"), "{begun}");
        assert!(line("fsck", Unit::Bytes, 30, 10, Duration::from_secs(2)).contains("100 %"));
    }

    fn ago(seconds: u64) -> Instant {
        Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap()
    }

    #[test]
    fn what_is_left_of_a_piece_goes_by_its_own_pace() {
        let left = |piece: &Piece, at: Instant| line("vacuum", Unit::Rows, piece, at.duration_since(piece.begun));
        let begun = ago(1_000);
        let after = |seconds| begun.checked_add(Duration::from_secs(seconds)).unwrap();
        let mut piece = Piece::new(begun, 0, 0);
        piece.take(after(100), 90, 100);
        assert!(left(&piece, after(100)).ends_with(", 12 s left"), "{}", left(&piece, after(100)));
        piece.take(after(101), 10, 1_000);
        assert!(left(&piece, after(101)).ends_with("10 rows of 1000 rows"), "nothing is known of its pace yet");
        piece.take(after(111), 110, 1_000);
        assert!(left(&piece, after(111)).ends_with(", 89 s left"), "{}", left(&piece, after(111)));
        // One that had come further than the one before it when it was first looked at.
        piece.take(after(112), 500, 5_000);
        piece.take(after(122), 1_500, 5_000);
        assert!(left(&piece, after(122)).ends_with(", 35 s left"), "{}", left(&piece, after(122)));
    }

    #[test]
    fn a_terminal_has_one_line_and_a_log_a_line_each_ten_seconds() {
        let after = |seconds, terminal| Progress {
            begun: ago(seconds),
            piece: Piece::new(ago(seconds), 0, 0),
            terminal,
            ..Progress::new("verifying", Unit::Bytes)
        };
        let mut log = after(11, false);
        let told = log.next(1, 2).unwrap();
        assert!(told.starts_with("verifying: [") && told.ends_with(" left\n"), "{told:?}");
        assert_eq!(log.next(1, 2), None, "not before ten seconds have passed");
        assert_eq!(after(9, false).next(1, 2), None);
        let mut terminal = after(2, true);
        let shown = terminal.next(1, 2).unwrap();
        assert!(shown.starts_with("\rverifying: [") && !shown.contains('\n'), "{shown:?}");
        // Nothing is taken away that this test has not drawn.
        terminal.drawn = None;
    }

    #[test]
    fn sizes_are_short() {
        let shown: Vec<String> = [999, 1_000, 1_949, 2_147_483_648, u64::MAX].map(bytes).to_vec();
        assert_eq!(shown, ["999 B", "1.0 kB", "1.9 kB", "2.1 GB", "18446744.0 TB"]);
    }
}
