//! Elsewhere niceness belongs to the whole process: lowering it would slow ingest too.

/// Leaves the priority as it is.
pub(crate) fn lower() {}
