//! Foreign rule files.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "each target drives one of the readers")]
mod readers;

fuzz_target!(|text: &str| readers::rule_file(text));
