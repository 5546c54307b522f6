//! What of a line could not be taken as it is, though it is a row.

use std::collections::BTreeSet;
use std::fmt;

/// What a row lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lacks {
    /// Columns for which there was something that cannot be read; they are NULL. In order of name.
    pub unread: Vec<&'static str>,
    /// Columns for which several fields had different values; one of them was taken.
    pub differ: BTreeSet<&'static str>,
    /// Text that is no Unicode was read with U+FFFD in its place.
    pub replaced: bool,
    /// It has fields and none of them is known, so nothing of it could be looked at.
    pub strange: bool,
}

impl Lacks {
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let differ: Vec<&str> = self.differ.iter().copied().collect();
        let parts = [
            (!self.unread.is_empty()).then(|| format!("cannot be read, so NULL: {}", self.unread.join(", "))),
            (!differ.is_empty()).then(|| format!("several values for {}, one of them is taken", differ.join(", "))),
            self.replaced.then(|| "text that is no Unicode is read with U+FFFD in its place".to_owned()),
            self.strange.then(|| {
                "none of its fields is known here: name them as process_events, Sysmon or Security 4688 do".to_owned()
            }),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}
