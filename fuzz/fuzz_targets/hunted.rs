//! Lines of events from anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "each target drives one of the readers")]
mod readers;

fuzz_target!(|line: &[u8]| readers::hunted(line));
