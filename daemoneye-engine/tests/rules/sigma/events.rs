//! What is known of an event from elsewhere: which log it stands in, and what of it could not be taken as it is.

use daemoneye_engine::hunt::{Line, Rows};
use daemoneye_engine::sigma::Verdict;
use datafusion::arrow::array::{Array as _, AsArray as _};

use super::{converted, decides, rule, told};

fn of(selection: &str) -> String {
    rule(&format!("sel:\n  {selection}\ncondition: sel"))
}

fn in_service(service: &str) -> String {
    of("CommandLine: a").replace("product: windows}", &format!("product: windows, service: {service}}}"))
}

const SYSMON: &str = r#"{"EventID": 1, "Image": "C:\\x.exe", "CommandLine": "a"}"#;
const SECURITY: &str = r#"{"EventID": "4688", "NewProcessName": "C:\\x.exe", "CommandLine": "a"}"#;
const SYSMON_BY_CHANNEL: &str = r#"{"Channel": "Microsoft-Windows-Sysmon/Operational", "CommandLine": "a"}"#;
const SECURITY_BY_CHANNEL: &str = r#"{"Channel": "Security", "CommandLine": "a"}"#;
const NOWHERE: &str = r#"{"CommandLine": "a"}"#;
const WITHOUT_PATH: &str = r#"{"EventID": 1, "CommandLine": "a"}"#;

#[test]
fn a_number_of_an_event_is_of_its_log() {
    let sysmon = [SYSMON, SYSMON_BY_CHANNEL, WITHOUT_PATH, NOWHERE];
    let security = [SECURITY, SECURITY_BY_CHANNEL, NOWHERE];
    let of = |ids: &str| of(&format!("EventID: {ids}\n  CommandLine: a"));
    decides("1", &of("1"), &sysmon, &security[..2]);
    decides("4688", &of("4688"), &security, &sysmon[..3]);
    decides("either", &of("[1, 4688]"), &[SYSMON, SECURITY, WITHOUT_PATH, NOWHERE], &[]);
    let stop = of("5").replace("process_creation", "process_termination");
    decides(
        "5",
        &stop,
        &[r#"{"EventID": 5, "CommandLine": "a"}"#],
        &[SYSMON, r#"{"EventID": 4689, "CommandLine": "a"}"#],
    );
    let not = rule("sel: {CommandLine: a}\nout: {EventID: 4688}\ncondition: sel and not out");
    decides("not 4688", &not, &sysmon[..3], &security[..2]);
}

#[test]
fn a_service_is_the_log_that_it_names() {
    decides(
        "sysmon",
        &in_service("sysmon"),
        &[SYSMON, SYSMON_BY_CHANNEL, WITHOUT_PATH, NOWHERE],
        &[SECURITY, SECURITY_BY_CHANNEL],
    );
    decides(
        "security",
        &in_service("security"),
        &[SECURITY, SECURITY_BY_CHANNEL, NOWHERE],
        &[SYSMON, SYSMON_BY_CHANNEL, WITHOUT_PATH],
    );
    let linux = of("CommandLine: a").replace("windows", "linux");
    let of_linux = r#"{"EventID": 1, "Image": "/bin/x", "CommandLine": "a"}"#;
    decides("a log of another system", &linux, &[of_linux, WITHOUT_PATH], &[SYSMON, SECURITY]);
    decides("and the other way", &of("CommandLine: a"), &[SYSMON, SECURITY, WITHOUT_PATH], &[of_linux]);
}

#[test]
fn a_rule_of_one_log_says_that_events_without_one_are_looked_at() {
    for rule in [
        of("EventID: 1\n  CommandLine: a"),
        in_service("security"),
        rule("sel: [{EventID|neq: 4688}, {CommandLine: a}]\ncondition: sel"),
    ] {
        told("a log", &rule, Verdict::Compiled, "does not tell its log");
    }
    assert_eq!(converted(&of("CommandLine: a")).reasons, Vec::new());
}

#[test]
fn a_whole_sid_of_an_integrity_level_stands_for_its_word() {
    let by_label = r#"{"EventID": 4688, "MandatoryLabel": "S-1-16-16384"}"#;
    let by_word = r#"{"IntegrityLevel": "system"}"#;
    let by_sid = r#"{"IntegrityLevel": "S-1-16-16384"}"#;
    let other = r#"{"IntegrityLevel": "High"}"#;
    for value in ["S-1-16-16384", "s-1-16-16384", "[System, S-1-16-16384]", "System"] {
        decides(value, &of(&format!("IntegrityLevel: {value}")), &[by_label, by_word, by_sid], &[other, "{}"]);
    }
    decides("neq", &of("IntegrityLevel|neq: S-1-16-16384"), &[other, "{}"], &[by_label, by_word]);
    decides("ours", &of("integrity_level: S-1-16-12288"), &[other], &[by_label]);
    decides("a word", &of("IntegrityLevel|startswith: Sys"), &[by_label, by_sid], &[other]);
    decides("words", &of("IntegrityLevel|re: '^(High|Low)$'"), &[other], &[by_label]);
    let unknown = r#"{"EventID": 4688, "MandatoryLabel": "S-1-16-9999"}"#;
    decides("unknown", &of("IntegrityLevel: S-1-16-9999"), &[unknown], &[by_label]);
    for part in [
        "|endswith: '-16384'",
        "|contains: 16384",
        "|startswith: 'S-1-16-'",
        ": 'S-1-16-*'",
        "|re: 'S-1-16-(12288|16384)'",
    ] {
        told(part, &of(&format!("IntegrityLevel{part}")), Verdict::Refused, "whole SID");
    }
}

#[test]
fn a_hash_may_be_asked_for_without_its_value() {
    let (imphash, other) = (r#"{"Hashes": "MD5=1,IMPHASH=2"}"#, r#"{"Hashes": "MD5=1"}"#);
    let alone = r#"{"Imphash": "2"}"#;
    for selection in ["Imphash|exists: true", "Imphash: '*'", "imphash|neq: null"] {
        decides(selection, &of(selection), &[imphash, alone], &[other, "{}"]);
    }
    for selection in ["Imphash|exists: false", "Imphash: null"] {
        decides(selection, &of(selection), &[other, "{}"], &[imphash, alone]);
    }
    let either = of("Imphash: [null, 00112233445566778899aabbccddeeff]");
    decides("either", &either, &["{}", other, r#"{"Imphash": "00112233445566778899AABBCCDDEEFF"}"#], &[imphash]);
    told("exists", &of("Imphash|exists: 3"), Verdict::Refused, "true or false");
    told("part", &of("Imphash|contains: 33"), Verdict::Refused, "32 digits");
}

fn taken(line: &[u8]) -> (String, String) {
    let mut rows = Rows::default();
    let told = match rows.take(0, line) {
        Line::Without(lacks) => lacks.to_string(),
        other => format!("{other:?}"),
    };
    let lines = rows.finish().unwrap();
    let column = lines.batch().column_by_name("command_line").unwrap();
    let text = column.as_string_opt::<i32>().filter(|texts| !texts.is_empty()).map(|texts| texts.value(0).to_owned());
    (told, text.unwrap_or_default())
}

#[test]
fn text_that_is_no_unicode_takes_no_event_away() {
    for (line, text) in [
        (br#"{"CommandLine":"a\ud800"}"#.as_slice(), "a\u{fffd}"),
        (br#"{"CommandLine":"\udc00\ud83e\udd80\ud83e x"}"#, "\u{fffd}\u{1f980}\u{fffd} x"),
        (br#"{"CommandLine":"\ud800\u0041\\ud800"}"#, "\u{fffd}A\\ud800"),
        (br#"{"CommandLine":"\\\uDbFf"}"#, "\\\u{fffd}"),
        (b"{\"CommandLine\":\"a\xff\xfeb\"}", "a\u{fffd}\u{fffd}b"),
        (b"{\"CommandLine\":\"\xed\xa0\x80\xff\\ud800\"}", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
    ] {
        let (told, found) = taken(line);
        assert_eq!(found, text, "{}", String::from_utf8_lossy(line));
        assert!(told.contains("U+FFFD"), "{told}");
    }
    let whole = br#"{"CommandLine":"\ud83e\udd80\\ud800 \ufffd"}"#;
    assert_eq!(taken(whole), ("Taken".to_owned(), "\u{1f980}\\ud800 \u{fffd}".to_owned()));
    for broken in [
        br#"{"CommandLine":"a\ud80"}"#.as_slice(),
        br#"{"CommandLine":"a\ud800"#,
        b"\xff",
        b"{\"CommandLine\":\"a\xff",
    ] {
        assert!(taken(broken).0.starts_with("Broken"), "{}", String::from_utf8_lossy(broken));
    }
}

#[test]
fn two_fields_of_one_column_that_differ_are_told() {
    for (line, column) in [
        (r#"{"Image": "C:\\a.exe", "NewProcessName": "C:\\b.exe"}"#, "executable_path"),
        (r#"{"CommandLine": "a", "ProcessCommandLine": "b"}"#, "command_line"),
        (r#"{"command_line": "a", "winlog": {"event_data": {"CommandLine": "b"}}}"#, "command_line"),
        (r#"{"User": "a", "SubjectUserName": "b"}"#, "user"),
        (r#"{"EventID": 4688, "ProcessId": "0x10", "ParentProcessId": 17}"#, "ppid"),
        (r#"{"EventID": 1, "ProcessId": "0x10", "pid": 17}"#, "pid"),
        (r#"{"MandatoryLabel": "S-1-16-16384", "IntegrityLevel": "High"}"#, "integrity_level"),
        (r#"{"Hashes": "MD5=1,SHA1=2", "MD5": "3"}"#, "hashes"),
        (r#"{"ProcessGuid": "{0123abcd-4567-89ab-cdef-0123456789ab}", "entity_id": "7"}"#, "entity_id"),
    ] {
        let told = taken(line.as_bytes()).0;
        assert!(told.contains(&format!("several values for {column}")), "{line}: {told}");
    }
    for line in [
        r#"{"Image": "C:\\a.exe", "NewProcessName": "C:\\a.exe", "executable_path": null}"#,
        r#"{"EventID": 4688, "ProcessId": "0x10", "ParentProcessId": 16, "NewProcessId": "17", "pid": 17.0}"#,
        r#"{"MandatoryLabel": "S-1-16-16384", "IntegrityLevel": "system"}"#,
        r#"{"Hashes": "MD5=aB,SHA1=2", "MD5": "Ab", "IMPHASH": "7"}"#,
        r#"{"User": "a", "SubjectUserName": "a"}"#,
        r#"{"User": {"name": "b"}, "SubjectUserName": "a"}"#,
        r#"{"User": "a", "SubjectUserName": "-"}"#,
        r#"{"UtcTime": "2026-01-31 12:00:01", "SystemTime": "2026-01-31T12:00:02Z", "CommandLine": "a"}"#,
        r#"{"ProcessGuid": "{0123abcd-4567-89ab-cdef-0123456789ab}", "entity_id": "0123abcd456789abcdef0123456789ab"}"#,
    ] {
        assert_eq!(taken(line.as_bytes()).0, "Taken", "{line}");
    }
}

#[test]
fn a_hash_beside_a_list_of_others_is_not_lost() {
    let rule = of("Imphash: 00112233445566778899aabbccddeeff");
    decides(
        "beside",
        &rule,
        &[r#"{"Hashes": "MD5=1", "Imphash": "00112233445566778899aabbccddeeff"}"#],
        &[r#"{"Hashes": "MD5=1"}"#],
    );
}
