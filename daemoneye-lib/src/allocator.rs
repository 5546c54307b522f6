//! What the agent's allocator (docs/adr/0010) is told in the environment of the programs that keep history.

/// For a program that shall rest small: without the first, memory that was freed stays with it (180 MB instead of 81 over a million
/// events). The second is the allocator's own, named so that it stays: with a second instead of 10 ms, queries hold some 30 MB more that
/// they have freed, and ingest gains nothing.
pub const SETTINGS: [(&str, &str); 2] = [("MIMALLOC_ARENA_EAGER_COMMIT", "0"), ("MIMALLOC_PURGE_DELAY", "10")];

/// Those that nobody has set for this program. What the operator has set stays.
#[must_use]
pub fn unset() -> Vec<(&'static str, &'static str)> {
    SETTINGS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect()
}
