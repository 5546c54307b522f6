//! Foreign text through all gates of SQL.
#![no_main]

use libfuzzer_sys::fuzz_target;

use self::answered::answered;

mod answered;

fuzz_target!(|text: &str| answered(text));
