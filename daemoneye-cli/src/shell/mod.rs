//! `shell`: statement after statement over one connection.
//!
//! On a terminal with a line editor, history, completion and paging; anything else is read to its end like a script, and the
//! first failure decides about the exit code. Ctrl-C ends the running query, never the shell. No program is started for any
//! of it: the jail would refuse that.

mod catalog;
mod command;
mod complete;
mod editor;
mod history;
mod kept;
mod pager;
mod statement;
mod terminal;

use std::io::{BufRead as _, IsTerminal as _};
use std::time::Instant;

use daemoneye_lib::exit::Exit;
use tokio::task::block_in_place;

use self::catalog::Catalog;
use self::command::{Dot, Switch};
use self::editor::{Editor, Read};
use self::kept::Kept;
use self::statement::Entry;
use crate::agent::Session;
use crate::commands::query::{self, Ended, Question};
use crate::error::CliError;
use crate::render::{Format, Output, Sheet, counted};
use crate::settings::Settings;

/// What is longer than a statement may be has lost its semicolon.
const LONGEST_BYTES: usize = daemoneye_lib::frame::STATEMENT_LIMIT_BYTES;

pub(crate) async fn run(settings: &Settings) -> Result<Exit, CliError> {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let session = Some(Session::open(settings).await?);
    let mut shell = Shell { settings, session, format: settings.format, timer: false, terminal };
    let ended = if terminal { shell.converse().await } else { shell.follow_script().await };
    if let Some(session) = shell.session {
        session.close().await;
    }
    ended
}

struct Shell<'a> {
    settings: &'a Settings,
    /// None after the agent went away; the next statement asks for it again.
    session: Option<Session>,
    format: Format,
    timer: bool,
    terminal: bool,
}

/// What an entry leads to.
enum Next {
    Go(Exit),
    Quit,
}

impl Shell<'_> {
    async fn converse(&mut self) -> Result<Exit, CliError> {
        let catalog = self.catalog().await?;
        let mut editor = Editor::new(catalog)?;
        eprintln!("daemoneye-cli {}. Statements end with a semicolon; .help lists commands.", daemoneye_lib::BUILD);
        loop {
            // The connection is served by another thread meanwhile.
            let text = match block_in_place(|| editor.read()) {
                Read::Text(text) => text,
                Read::Interrupted => continue,
                Read::End => return Ok(Exit::Ok),
                Read::Failed(error) => return Err(error),
            };
            let mut rest = text.as_str();
            while let Some((entry, length)) = statement::first(rest, true) {
                rest = rest.get(length..).unwrap_or_default();
                match self.take(entry).await {
                    Ok(Next::Quit) => return Ok(Exit::Ok),
                    Ok(Next::Go(_)) => {}
                    Err(error) => eprintln!("{}", error.report()),
                }
            }
        }
    }

    async fn follow_script(&mut self) -> Result<Exit, CliError> {
        let (mut pending, mut failure, mut is_over) = (String::new(), None, false);
        while !is_over {
            is_over = more(&mut pending).await?;
            while let Some((entry, length)) = statement::first(&pending, is_over) {
                let entry = entry.into_owned();
                pending.drain(..length);
                match self.take(entry.as_ref()).await {
                    Ok(Next::Quit) => return Ok(failure.unwrap_or(Exit::Ok)),
                    Ok(Next::Go(Exit::Ok)) => {}
                    Ok(Next::Go(exit)) => failure = failure.or(Some(exit)),
                    Err(error @ (CliError::Interrupted | CliError::Output(_))) => return Err(error),
                    Err(error) => {
                        eprintln!("{}", error.report());
                        failure = failure.or(Some(error.exit()));
                    }
                }
            }
        }
        Ok(failure.unwrap_or(Exit::Ok))
    }

    async fn take(&mut self, entry: Entry<'_>) -> Result<Next, CliError> {
        match entry {
            Entry::Statement(sql) => self.ask(Question::new(sql.to_owned())).await.map(Next::Go),
            Entry::Command(line) => self.command(Dot::parse(line)?).await,
        }
    }

    async fn command(&mut self, dot: Dot<'_>) -> Result<Next, CliError> {
        match dot {
            Dot::Explain(sql) => {
                let question = Question { explain: true, ..Question::new(sql.to_owned()) };
                return self.ask(question).await.map(Next::Go);
            }
            Dot::Help => Output::stdout().print(&command::help())?,
            Dot::Mode(Some(word)) => self.format = word,
            Dot::Mode(None) => Output::stdout().print(&format!("{}\n", self.format.word()))?,
            Dot::Quit => return Ok(Next::Quit),
            Dot::Schema(table) => return self.schema(table).await.map(Next::Go),
            Dot::Tables => return self.ask(catalog::tables()).await.map(Next::Go),
            Dot::Timer(Some(switch)) => self.timer = switch == Switch::On,
            Dot::Timer(None) => {
                let word = if self.timer { "on" } else { "off" };
                Output::stdout().print(&format!("{word}\n"))?;
            }
        }
        Ok(Next::Go(Exit::Ok))
    }

    /// A table that is not there has no columns.
    async fn schema(&mut self, table: Option<&str>) -> Result<Exit, CliError> {
        let unknown = |name| CliError::NotFound(format!("there is no table {name}; .tables lists them"));
        let session = self.session().await?;
        if let Some(name) = table
            && query::words(session, catalog::schema(table)).await?.is_empty()
        {
            return Err(unknown(name));
        }
        if table.is_some_and(catalog::is_instant) {
            eprintln!("{}", catalog::CALL);
        }
        self.ask(catalog::schema(table)).await
    }

    async fn ask(&mut self, question: Question) -> Result<Exit, CliError> {
        let (began, explained) = (Instant::now(), question.explain);
        let kept = Kept::default();
        let output = if self.terminal { Output::shown_later(kept.clone()) } else { Output::stdout() };
        let mut sheet = Sheet::new(output, self.format);
        let asked = self.answered(&mut sheet, question).await;
        // Without the time that somebody reads page by page.
        let (rows, took) = (sheet.rows(), began.elapsed());
        if self.terminal {
            self.show(&kept.take())?;
        }
        let exit = match asked {
            Err(error) if kept::is_full(&error) => {
                eprintln!(
                    "degraded: only the first {} were fetched; narrow the query, or write all of them with \
                     `daemoneye-cli data export`",
                    counted(rows)
                );
                Exit::Degraded
            }
            Err(CliError::Interrupted) if self.terminal => {
                eprintln!("cancelled");
                Exit::Failure
            }
            other => other?.tell(),
        };
        // What is explained says how many rows there were and how long they took.
        if self.timer && !explained {
            eprintln!("{}, {} ms", counted(rows), took.as_millis());
        }
        Ok(exit)
    }

    /// Asks until the end of the answer or Ctrl-C; leaving the answer cancels the query.
    async fn answered(&mut self, sheet: &mut Sheet, question: Question) -> Result<Ended, CliError> {
        let session = self.session().await?;
        let asked = tokio::select! {
            asked = query::print(session, sheet, question) => asked,
            _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
        };
        if matches!(asked, Err(CliError::AgentStopped | CliError::AgentSilent(_))) {
            self.session = None;
        }
        asked
    }

    /// The connection, with its deadline begun anew; made again when it was lost.
    async fn session(&mut self) -> Result<&mut Session, CliError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::open(self.settings).await?,
        };
        session.renew();
        Ok(self.session.insert(session))
    }

    async fn catalog(&mut self) -> Result<Catalog, CliError> {
        let session = self.session().await?;
        Catalog::load(session).await
    }

    fn show(&self, text: &str) -> Result<(), CliError> {
        if self.terminal { block_in_place(|| pager::show(text)) } else { Output::stdout().print(text) }
    }
}

/// Reads one more line of the script, or until Ctrl-C; true at its end.
async fn more(pending: &mut String) -> Result<bool, CliError> {
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let line = tokio::select! {
        line = line => line.map_err(std::io::Error::other).flatten(),
        _ = tokio::signal::ctrl_c() => return Err(CliError::Interrupted),
    };
    let line = line.map_err(|source| CliError::Io { what: "read standard input".to_owned(), source })?;
    pending.push_str(&line);
    if pending.len() > LONGEST_BYTES {
        let text = format!("a statement has more than {LONGEST_BYTES} bytes; is a semicolon missing?");
        return Err(CliError::Usage(text));
    }
    Ok(line.is_empty())
}
