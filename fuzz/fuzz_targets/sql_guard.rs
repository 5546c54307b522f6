//! Foreign text through all gates of SQL: it is answered, never a panic or an overflow. What is accepted has planned to allowed
//! nodes, because the plan gate is the last of them.
#![no_main]

use daemoneye_engine::sql::{check, check_plan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let accepted = check_plan(text).is_ok();
    assert!(!accepted || check(text).is_ok(), "the plan gate accepts what the first two refuse");
});
