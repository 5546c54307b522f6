//! What a foreign text must come through: all gates of SQL answer it, without a panic or an overflow. What is accepted has planned
//! to allowed nodes, because the plan gate is the last of them. The fuzz target and a test of the engine drive this.

use daemoneye_engine::sql::{check, check_plan};

/// Puts `text` before the gates.
pub(crate) fn answered(text: &str) {
    let accepted = check_plan(text).is_ok();
    assert!(!accepted || check(text).is_ok(), "the plan gate accepts what the first two refuse: {text}");
}
