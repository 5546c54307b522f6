//! What the fuzz targets drive, with texts that reach deep: good files with pieces of others in them.

use proptest::prelude::*;

use self::readers::{hunted, rule_file, sigma};

#[path = "../../../fuzz/fuzz_targets/readers.rs"]
mod readers;

const RULE: &str = "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: r\nseverity: low\nsql: |\n  SELECT pid FROM process_events\n  \
    WHERE ci_contains(command_line, 'a') AND uid > 3\ntags: [attack.t1059]\ntests:\n  - name: one\n    match: true\n    event: {uid: 4}\n";
const SIGMA: &str = "title: t\nlogsource: {category: process_creation, product: linux}\ndetection:\n  sel:\n    CommandLine|re: 'a+$'\n    \
    Image|endswith: ['/x', '\\y*']\n  condition: sel and not 1 of s*\n";
const LINE: &str = r#"{"winlog": {"event_id": 1, "event_data": {"Image": "C:\\x.exe", "ProcessId": "0x1f", "Hashes": "MD5=0"}}, "time": 1}"#;
const PIECES: &[&str] = &[
    "\n",
    "  ",
    "- ",
    ": ",
    "|-\n",
    "'",
    "\"",
    "\\",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    "&a",
    "*a",
    "!!x",
    "%",
    "?",
    "$",
    "\u{0}",
    "é",
    "id",
    "sql: SELECT",
    " OR ",
    " JOIN process_events b ON b.pid = 1",
    "count(*)",
    "window: 5m",
    "dedup: [pid]",
    "expires: never",
    "|base64offset",
    "|windash",
    "|wide",
    "|all",
    "|expand",
    "not ",
    "1 of them",
    "correlation:\n",
    "timespan: 1m",
    "null",
    "0x",
    "1e999",
    "\\p{L}",
    "\\d",
    "[a&&b]",
    "{2,}",
    "++",
    "(?i)",
    "@timestamp",
    "2026-13-99",
    "#text",
    "EventData",
    "-9223372036854775808",
];

/// A text with pieces put in, each in place of some of it.
fn changed(text: &'static str) -> impl Strategy<Value = String> {
    let change = (0..text.len(), 0_usize..6, prop::sample::select(PIECES));
    prop::collection::vec(change, 0..5).prop_map(move |changes| {
        let mut text = text.to_owned();
        for (at, length, piece) in changes {
            let from = text.floor_char_boundary(at.min(text.len()));
            let to = text.floor_char_boundary((from + length).min(text.len()));
            text.replace_range(from..to.max(from), piece);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rule_file_is_read(text in changed(RULE)) {
        rule_file(&text);
    }

    #[test]
    fn any_sigma_file_is_read(text in changed(SIGMA)) {
        sigma(&text);
    }

    #[test]
    fn any_line_is_read(line in changed(LINE), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        hunted(line.as_bytes());
        hunted(&bytes);
    }
}

#[test]
fn what_is_changed_is_in_order() {
    rule_file(RULE);
    sigma(SIGMA);
    hunted(LINE.as_bytes());
    assert!(daemoneye_engine::detect::rules::parse("r.yaml".as_ref(), RULE).is_ok());
}
