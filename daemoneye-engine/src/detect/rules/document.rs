//! What a file of a rule directory holds: a rule, a value list, an override or the manifest of a pack. Its own fields tell.

use std::path::{Path, PathBuf};

use super::super::Refusal;
use super::yaml::{Node, Yaml, read};

/// One file that is YAML.
pub(super) struct Document {
    pub(super) file: PathBuf,
    pub(super) text: String,
    pub(super) root: Node,
    pub(super) kind: Kind,
}

/// What a file is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    List,
    Override,
    Pack,
    Rule,
}

impl Document {
    pub(super) fn new(file: &Path, text: &str) -> Result<Self, Vec<Refusal>> {
        let root = read(text).map_err(|unreadable| {
            let message = format!("this is not YAML that we read: {}", unreadable.message);
            let mut refusal = Refusal::whole(file, message, None);
            (refusal.line, refusal.column) = (unreadable.location.line(), unreadable.location.column());
            vec![refusal]
        })?;
        let kind = Kind::of(&root);
        Ok(Self { file: file.to_owned(), text: text.to_owned(), root, kind })
    }

    /// Line and column of the value of a field; of the document where it has none.
    pub(super) fn place(&self, name: &str) -> (u64, u64) {
        let at = match &self.root.value {
            Yaml::Map(pairs) => pairs.iter().find(|(key, _)| key.value == name).map(|(_, value)| value.referenced),
            _ => None,
        };
        let at = at.unwrap_or(self.root.referenced);
        (at.line(), at.column())
    }
}

impl Kind {
    /// A file with an id or a statement is meant as a rule, whatever else stands in it by mistake.
    fn of(root: &Node) -> Self {
        let Yaml::Map(pairs) = &root.value else { return Self::Rule };
        let has = |name: &str| pairs.iter().any(|(key, _)| key.value == name);
        match () {
            () if has("id") || has("sql") => Self::Rule,
            () if has("override") => Self::Override,
            () if has("list") => Self::List,
            () if has("pack") => Self::Pack,
            () => Self::Rule,
        }
    }
}
