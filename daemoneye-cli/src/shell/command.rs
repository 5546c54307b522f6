//! The commands that begin with a dot.

use crate::error::CliError;
use crate::render::Format;

/// Names as they are completed.
pub(super) const NAMES: &[&str] = &[".explain", ".help", ".mode", ".quit", ".schema", ".tables", ".timer"];

/// What `.help` says.
pub(super) fn help() -> String {
    format!(
        "\
.explain SELECT …;  what a query reads and skips, in place of its rows
.help               this list
.mode [FORMAT]      shape of results: {}
.quit               leave; so does Ctrl-D
.schema [TABLE]     the columns of one table, or of all
.tables             the tables
.timer [on|off]     tell rows and milliseconds after each result
Anything else is SQL, up to its semicolon. Tab completes names, Ctrl-C cancels
the running query. A long result: space for a page, enter for a line, q to end.
",
        modes()
    )
}

fn modes() -> String {
    Format::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    Off,
    On,
}

/// A command that was understood; without its argument it shows what holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dot<'a> {
    Explain(&'a str),
    Help,
    Mode(Option<Format>),
    Quit,
    Schema(Option<&'a str>),
    Tables,
    Timer(Option<Switch>),
}

impl<'a> Dot<'a> {
    pub(super) fn parse(line: &'a str) -> Result<Self, CliError> {
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        // As in a statement: a semicolon at the end is a habit.
        let argument = Some(argument.trim().trim_end_matches(';').trim_end()).filter(|text| !text.is_empty());
        match (name.trim_end_matches(';'), argument) {
            (".explain", Some(sql)) => Ok(Self::Explain(sql)),
            (".explain", None) => Err(CliError::Usage("which statement? .explain takes one".to_owned())),
            (".help", None) => Ok(Self::Help),
            (".mode", word) => word.map(mode).transpose().map(Self::Mode),
            (".quit" | ".exit", None) => Ok(Self::Quit),
            (".schema", table) => Ok(Self::Schema(table)),
            (".tables", None) => Ok(Self::Tables),
            (".timer", word) => word.map(switch).transpose().map(Self::Timer),
            (known, Some(more)) if NAMES.contains(&known) => {
                Err(CliError::Usage(format!("{known} takes nothing, not {more:?}")))
            }
            (unknown, _) => Err(CliError::Usage(format!("there is no command {unknown}; .help lists them"))),
        }
    }
}

fn mode(word: &str) -> Result<Format, CliError> {
    Format::WORDS
        .iter()
        .find(|(known, _)| *known == word)
        .map(|(_, format)| *format)
        .ok_or_else(|| CliError::Usage(format!("there is no mode {word}; take one of {}", modes())))
}

fn switch(word: &str) -> Result<Switch, CliError> {
    match word {
        "on" => Ok(Switch::On),
        "off" => Ok(Switch::Off),
        other => Err(CliError::Usage(format!(".timer takes on or off, not {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_lib::exit::Exit;

    #[test]
    fn commands_are_understood_with_and_without_their_argument() {
        assert_eq!(Dot::parse(".mode csv").unwrap(), Dot::Mode(Some(Format::Csv)));
        assert_eq!(Dot::parse(".mode").unwrap(), Dot::Mode(None));
        assert_eq!(Dot::parse(".explain SELECT\n1").unwrap(), Dot::Explain("SELECT\n1"));
        assert_eq!(Dot::parse(".schema  processes ;").unwrap(), Dot::Schema(Some("processes")));
        assert_eq!(Dot::parse(".quit;").unwrap(), Dot::Quit);
        assert_eq!(Dot::parse(".timer on").unwrap(), Dot::Timer(Some(Switch::On)));
        for wrong in [".explain;", ".nothing", ".mode xml", ".timer maybe", ".tables x", "."] {
            assert_eq!(Dot::parse(wrong).unwrap_err().exit(), Exit::Usage, "{wrong}");
        }
        for name in NAMES {
            assert!(help().contains(name), "{name}");
        }
        assert!(help().lines().all(|line| line.chars().count() < 80), "a narrow terminal shows each line as one");
    }
}
