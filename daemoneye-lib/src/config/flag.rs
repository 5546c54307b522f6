//! Every setting as a flag of its program, in the words that a command-line parser wants. The parser itself stays in the
//! programs: what only links this library needs none.

use super::{Component, Kind};

/// A setting as a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// Dotted key of the setting.
    pub key: &'static str,
    /// Name without the dashes.
    pub long: &'static str,
    /// What stands for the value in the help.
    pub value_name: &'static str,
    /// The only words that it takes; empty where the value is checked with all the others.
    pub words: &'static [&'static str],
    /// Whether it may stand several times.
    pub repeats: bool,
    /// Whether it means yes without a value, and takes one only behind `=`.
    pub switch: bool,
    /// What it does, takes and is called elsewhere.
    pub help: String,
}

impl Component {
    /// Every setting as a flag, in the order of the table.
    pub fn flags(&self) -> impl Iterator<Item = Flag> {
        self.settings.iter().map(|setting| {
            let variable = self.variable(setting.key);
            // One path has one flag: a comma may be part of its name.
            let takes = match setting.kind {
                Kind::Paths => "a path; the flag may be repeated".to_owned(),
                kind => kind.describe(setting.unit),
            };
            let default = match setting.fallback.describe() {
                unset if unset.is_empty() => unset,
                default => format!(" [default: {default}]"),
            };
            let (value_name, words): (_, &[&str]) = match setting.kind {
                Kind::Boolean => ("BOOL", &[]),
                Kind::Choice(words) => ("WORD", words),
                Kind::Integer(..) => ("NUMBER", &[]),
                Kind::Path | Kind::Paths => ("PATH", &[]),
                Kind::Words(_) => ("WORDS", &[]),
            };
            Flag {
                key: setting.key,
                // Parsers take names that live as long as the program; these do, and each program has one small set.
                long: Self::flag(setting.key).leak().trim_start_matches('-'),
                value_name,
                words,
                repeats: setting.kind == Kind::Paths,
                switch: setting.kind == Kind::Boolean,
                help: format!("{} [{takes}]{default} [variable: {variable}]", setting.doc),
            }
        })
    }
}
