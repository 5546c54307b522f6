//! No production file above the limit: a file that a reader cannot hold in mind is two files.

use crate::workspace;

/// Lines before the inline tests; the house's median is far below.
const LIMIT_LINES: usize = 500;

/// One line per file that is too long.
pub(crate) fn violations() -> anyhow::Result<Vec<String>> {
    let too_long = workspace::sources()?.into_iter().filter(|source| source.lines.len() > LIMIT_LINES);
    Ok(too_long
        .map(|source| {
            format!(
                "{} has {} production lines, the limit is {LIMIT_LINES}; split it",
                source.path,
                source.lines.len()
            )
        })
        .collect())
}
