//! What became of a rule, and what there is to know about it.

use std::path::PathBuf;

use serde::Serialize;
use serde_saphyr::Location;
use uuid::Uuid;

use crate::detect::LoadedRule;

/// What became of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It says the same as the original.
    Compiled,
    /// It needs a field that no column holds, so it could never match.
    Inert,
    /// It runs; a part of it needs a field that no column holds.
    Partial,
    /// It cannot be said here.
    Refused,
}

impl Verdict {
    /// Every verdict, in the order of reports.
    pub const ALL: [Self; 4] = [Self::Compiled, Self::Partial, Self::Inert, Self::Refused];

    /// As reports write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compiled => "compiled",
            Self::Inert => "inert",
            Self::Partial => "partial",
            Self::Refused => "refused",
        }
    }
}

/// One Sigma rule and what became of it.
#[derive(Debug)]
pub struct Conversion {
    /// The file that it stands in.
    pub file: PathBuf,
    /// Its document in that file, from 0.
    pub document: usize,
    /// Its title; empty if it has none.
    pub title: String,
    /// Its id as it is written, or the one that was made for it.
    pub sigma_id: String,
    /// The id of our rule.
    pub id: Uuid,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, and what else should be known, each with its line; 0 is the document as a whole.
    pub reasons: Vec<Reason>,
    /// The fields that it asks for and no column holds.
    pub unmapped: Vec<String>,
    /// Whether it looks for keywords, which are looked for in columns only.
    pub keywords: bool,
    /// Our rule, unless it is refused or inert.
    pub rule: Option<LoadedRule>,
    /// Where its id stands, or else its title.
    pub(super) id_at: Location,
}

impl Conversion {
    /// Takes back a rule whose id another one has.
    pub(super) fn refuse_id_of(&mut self, other: &str) {
        let message =
            format!("the id {} is also that of the rule in {other}: give one of them an id of its own", self.sigma_id);
        self.verdict = Verdict::Refused;
        self.rule = None;
        self.reasons.push(Reason::new(self.id_at, message));
    }
}

/// Something to know about a conversion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Line of the file, from 1; 0 is the document as a whole.
    pub line: u64,
    /// Column of that line in characters, from 1; 0 with line 0.
    pub column: u64,
    /// One sentence.
    pub message: String,
}

impl Reason {
    pub(super) fn new(at: Location, message: impl Into<String>) -> Self {
        Self { line: at.line(), column: at.column(), message: message.into() }
    }

    /// `line:column: `, or nothing for the whole document.
    #[must_use]
    pub fn place(&self) -> String {
        if self.line > 0 { format!("{}:{}: ", self.line, self.column) } else { String::new() }
    }
}
