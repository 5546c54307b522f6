//! `hunt`: rules over a file of events, one JSON line for each match.
//!
//! One thread reads lines into batches while another evaluates the batch before, with no more than two batches between them, so
//! memory does not grow with the file. Matches leave in the order of the lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use daemoneye_engine::hunt::{Hunt, Line, Lines, Match, Rows};
use daemoneye_lib::exit::Exit;

use super::{confine, ended, lists, present};
use crate::error::AgentError;
use crate::jail;

/// Longest line in bytes; events with their command lines have some thousand.
const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;
/// Lines of one kind that are told one by one; the rest is counted.
const TOLD_LINES: u64 = 20;
/// Batches that are read before they are evaluated.
const BATCHES_AHEAD: usize = 2;
/// Ten times a second is all that anybody sees.
const REDRAW: Duration = Duration::from_millis(100);

/// What is hunted for, and where.
pub(crate) struct Asked {
    pub(crate) rules: Vec<PathBuf>,
    /// `-` is standard input.
    pub(crate) events: PathBuf,
    pub(crate) lists: Option<PathBuf>,
}

/// Hunts, and tells on standard error what could not be used.
pub(crate) fn run(asked: &Asked) -> Result<Exit, AgentError> {
    asked.rules.iter().try_for_each(|path| present("rules", "--rules", path))?;
    let (source, total) = open(&asked.events)?;
    let lists = lists(asked.lists.as_deref())?;
    jail::close(confine(&asked.rules)?)?;
    let (hunt, notes) = Hunt::load(&asked.rules, &lists);
    notes.iter().for_each(|note| eprintln!("{}", note.text));
    if hunt.rules() == 0 {
        eprintln!("no rule can run: name rule files or a directory of them with --rules");
        return Ok(Exit::Refused);
    }
    let progress = Progress::new(total);
    let is_whole = std::thread::scope(|scope| {
        let (ahead, batches) = sync_channel(BATCHES_AHEAD);
        let reading = scope.spawn(|| Reader::new(&hunt, &progress).read(source, ahead));
        let written = write(&hunt, batches, &progress);
        let read = reading.join().unwrap_or_else(|_| Err(io::Error::other("the reader stopped")));
        progress.end();
        // A reader of ours who has enough, like `head`, is no failure.
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(true),
            written => written.map_err(|source| AgentError::io("write the matches", "", source))?,
        }
        read.map_err(|source| AgentError::io("read", &asked.events, source))
    })?;
    let shortfalls = hunt.shortfalls();
    shortfalls.iter().for_each(|shortfall| eprintln!("not whole: {shortfall}"));
    let again = hunt.maybe_again();
    if again > 0 {
        eprintln!("{again} matches may stand twice: there were too many to remember them all");
    }
    Ok(ended(is_whole && shortfalls.is_empty() && !notes.iter().any(|note| note.is_refusal)))
}

/// The events and how many bytes of them there are, where that is known.
fn open(events: &Path) -> Result<(Box<dyn io::Read + Send>, u64), AgentError> {
    if events == Path::new("-") {
        return Ok((Box::new(io::stdin()), 0));
    }
    let input = |source| AgentError::Input { what: "events", flag: "--events", path: events.to_owned(), source };
    let file = File::open(events).map_err(input)?;
    let metadata = file.metadata().map_err(input)?;
    if metadata.is_dir() {
        return Err(input(io::Error::new(io::ErrorKind::IsADirectory, "this is a directory")));
    }
    Ok((Box::new(file), metadata.len()))
}

fn write(hunt: &Hunt, batches: Receiver<Lines>, progress: &Progress) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let found = batches.into_iter().map(|lines| hunt.matches(lines));
    // What waits for something that does not come is decided at the end of the file.
    let last = std::iter::once_with(|| hunt.finish());
    for matches in found.chain(last) {
        for found in matches {
            print(&mut out, &found)?;
            progress.matches.fetch_add(1, Ordering::Relaxed);
        }
        // What was found is seen while the rest is looked at.
        out.flush()?;
    }
    Ok(())
}

fn print(out: &mut impl io::Write, found: &Match<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, found)?;
    out.write_all(b"\n")
}

/// Lines into batches, and what is wrong with them.
struct Reader<'a> {
    progress: &'a Progress,
    rows: Rows,
    broken: u64,
    without: u64,
    other: u64,
    strange: u64,
}

impl<'a> Reader<'a> {
    fn new(hunt: &Hunt, progress: &'a Progress) -> Self {
        Self { progress, rows: Rows::counting(&hunt.unmapped()), broken: 0, without: 0, other: 0, strange: 0 }
    }

    /// Whether every line could be used, with all that rules ask for.
    fn read(mut self, source: impl io::Read, ahead: SyncSender<Lines>) -> io::Result<bool> {
        let mut source = BufReader::with_capacity(256 * 1024, source);
        let (mut line, mut number) = (Vec::new(), 0_u64);
        while let Some(length) = next_line(&mut source, &mut line)? {
            self.line(number, &line, length);
            number += 1;
            if self.rows.is_full() && ahead.send(self.batch()?).is_err() {
                return Ok(true);
            }
            self.progress.show(length);
        }
        // The evaluating side has ended where nobody takes it.
        drop(ahead.send(self.batch()?));
        self.summary();
        Ok(self.broken == 0 && self.without == 0 && self.rows.unmapped().is_empty())
    }

    fn batch(&mut self) -> io::Result<Lines> {
        self.rows.finish().map_err(io::Error::other)
    }

    fn line(&mut self, number: u64, line: &[u8], length: u64) {
        let start = if number == 0 { b"\xEF\xBB\xBF".as_slice() } else { b"" };
        let line = line.strip_prefix(start).unwrap_or(line).trim_ascii();
        if line.is_empty() && length <= u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX) {
            return;
        }
        let taken = if line.is_empty() {
            Line::Broken(format!("longer than {MAX_LINE_BYTES} bytes"))
        } else {
            self.rows.take(number, line)
        };
        match taken {
            Line::Taken => {}
            Line::Other => self.other += 1,
            Line::Strange => self.strange += 1,
            Line::Without(lacks) => {
                self.without += 1;
                self.tell(self.without, number, &format!("not whole: {lacks}"));
            }
            Line::Broken(problem) => {
                self.broken += 1;
                self.tell(self.broken, number, &problem);
            }
        }
    }

    fn tell(&self, count: u64, number: u64, problem: &str) {
        if count <= TOLD_LINES {
            self.progress.clear();
            eprintln!("event {number}: {problem}");
        }
    }

    fn summary(&self) {
        self.progress.clear();
        if self.other > 0 {
            eprintln!("{} events are not of a process's start or end and were not looked at", self.other);
        }
        if self.strange > 0 {
            let what = "events have none of the fields that are known here: name them as process_events, Sysmon or Security 4688 do";
            eprintln!("{} {what}", self.strange);
        }
        if self.broken > TOLD_LINES {
            eprintln!("{} lines in all could not be read", self.broken);
        }
        for (field, events) in self.rows.unmapped() {
            eprintln!("not whole: {events} events have {field}, which no column holds and rules ask for");
        }
        if self.without > TOLD_LINES {
            eprintln!("not whole: {} events in all had fields that could not be taken as they are", self.without);
        }
    }
}

/// Reads a line without its end, and how many bytes it had; of one that is too long nothing is kept. `None`: the input has ended.
fn next_line(source: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<u64>> {
    line.clear();
    let mut length = 0_u64;
    loop {
        let buffer = match source.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok((length > 0).then_some(length));
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        let taken = part.len() + usize::from(end.is_some());
        length = length.saturating_add(u64::try_from(taken).unwrap_or(u64::MAX));
        if usize::try_from(length).unwrap_or(usize::MAX) <= MAX_LINE_BYTES {
            line.extend_from_slice(part);
        } else {
            line.clear();
        }
        source.consume(taken);
        if end.is_some() {
            return Ok(Some(length));
        }
    }
}

/// One line on a terminal: how much of how much, and what was found.
struct Progress {
    total: u64,
    done: AtomicU64,
    matches: AtomicU64,
    drawn_ms: AtomicU64,
    begun: Instant,
    terminal: bool,
}

impl Progress {
    fn new(total: u64) -> Self {
        let (done, matches, drawn_ms) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let terminal = io::stderr().is_terminal();
        Self { total, done, matches, drawn_ms, begun: Instant::now(), terminal }
    }

    fn show(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if !self.terminal {
            return;
        }
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let since = now.saturating_sub(self.drawn_ms.load(Ordering::Relaxed));
        if u128::from(since) < REDRAW.as_millis() {
            return;
        }
        self.drawn_ms.store(now, Ordering::Relaxed);
        let matches = self.matches.load(Ordering::Relaxed);
        let share =
            done.saturating_mul(100).checked_div(self.total).map_or(String::new(), |share| format!(" {share} %"));
        eprint!("\rhunting:{share} {} MB read, {matches} matches ", done / 1_000_000);
    }

    /// Makes room for a message.
    fn clear(&self) {
        if self.terminal && self.drawn_ms.load(Ordering::Relaxed) > 0 {
            eprint!("\r{}\r", " ".repeat(60));
        }
    }

    fn end(&self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<(Vec<u8>, u64)> {
        let (mut source, mut line, mut found) = (BufReader::with_capacity(3, text), Vec::new(), Vec::new());
        while let Some(length) = next_line(&mut source, &mut line).unwrap() {
            found.push((line.clone(), length));
        }
        found
    }

    #[test]
    fn lines_are_found_across_buffers_and_the_last_one_needs_no_end() {
        let of = |text: &str, length| (text.as_bytes().to_vec(), length);
        assert_eq!(lines(b"abcdef\n\ngh"), [of("abcdef", 7), of("", 1), of("gh", 2)]);
        assert_eq!(lines(b""), []);
    }

    #[test]
    fn of_a_line_that_is_too_long_nothing_is_kept_and_the_next_is_whole() {
        let mut text = vec![b'x'; MAX_LINE_BYTES + 10];
        text.extend_from_slice(b"\nab\n");
        let mut source = BufReader::new(text.as_slice());
        let mut line = Vec::new();
        assert!(next_line(&mut source, &mut line).unwrap().is_some_and(|bytes| bytes > 4_000_000));
        assert!(line.is_empty());
        next_line(&mut source, &mut line).unwrap();
        assert_eq!(line, b"ab");
    }
}
