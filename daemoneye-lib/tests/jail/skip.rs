//! What a test says that lacks a right or a part of the kernel, for the tests of every crate. A test that lacks no more than a
//! tool says so by itself and goes on being skipped.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set where rights and kernel are all there, so that a skip hides a fault.
const NO_SKIP: &str = "DAEMONEYE_NO_SKIP";

/// For a program that runs its tests by itself.
pub(crate) static SKIPPED: AtomicBool = AtomicBool::new(false);

pub(crate) fn skipped(why: impl Display) {
    assert!(std::env::var_os(NO_SKIP).is_none(), "skipped although {NO_SKIP} is set: {why}");
    SKIPPED.store(true, Ordering::Relaxed);
    println!("skipped: {why}");
}
