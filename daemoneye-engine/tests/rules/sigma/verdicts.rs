//! What is refused and by which name, what is inert or partial, what is kept of a rule, and that no text makes the conversion panic.

use std::path::Path;

use daemoneye_engine::hunt::{Hunt, Lacks, Line, Rows};
use daemoneye_engine::sigma::{RuleFile, Verdict, convert, is_sigma};
use daemoneye_lib::model::Severity;
use datafusion::arrow::array::AsArray as _;
use datafusion::arrow::datatypes::TimestampMicrosecondType;
use proptest::prelude::*;

use super::{converted, decides, file, lists, rule, told};

#[test]
fn what_cannot_be_said_is_refused_by_its_name() {
    let of = |selection: &str| rule(&format!("sel:\n  {selection}\ncondition: sel"));
    for (selection, word) in [
        ("CommandLine|frobnicate: a", "frobnicate"),
        ("CommandLine|i: a", "behind re"),
        ("CommandLine|re|contains: a", "contains"),
        ("CommandLine|contains|re: a", "re cannot"),
        ("CommandLine|wide: a", "UTF-16"),
        ("CommandLine|base64: 'a*'", "wildcards"),
        ("CommandLine|contains|base64: a", "wildcards"),
        ("CommandLine|expand: '%nobody%'", "%nobody%"),
        ("CommandLine|contains: null", "null"),
        ("CommandLine|exists: 1", "true or false"),
        ("CommandLine|lt: 5", "text"),
        ("CommandLine|hour: 5", "hour"),
        ("CommandLine|cidr: 10.0.0.0/99", "10.0.0.0/99"),
        ("CommandLine|re: '(?=a)'", "look-a"),
        ("CommandLine|re: '(?<!a)b'", "look-"),
        ("CommandLine|re: '(a)\\1'", "backreference"),
        ("CommandLine|re: '\\101'", "octal"),
        ("CommandLine|re: '('", "unclosed"),
        ("CommandLine|re: '(\\w{500}){500}'", "bytes compiled"),
        ("CommandLine|re: 'a++'", "possessive"),
        ("CommandLine|re: '\\Bx'", "\\B"),
        ("CommandLine|re: '\\R\\n'", "\\R"),
        ("CommandLine|re: '\\p{Greek}'", "Greek"),
        ("CommandLine|base64offset: a", "one byte"),
        ("CommandLine: []", "empty"),
        ("CommandLine: {a: b}", "a map"),
        ("CommandLine: [[a]]", "a list"),
        ("ProcessId: abc", "number"),
        ("ProcessId|contains: 4", "number"),
        ("Imphash: abc", "digits"),
        ("ProcessGuid|contains: abc", "whole values"),
        ("EventID|gt: 4", "EventID"),
        ("CommandLine|fieldref: ProcessId", "different kinds"),
        ("CommandLine: \"a\\0b\"", "NUL"),
        ("CommandLine|windash|base64: '-a -b -c -d -e -f'", "more than 5 options"),
    ] {
        told(selection, &of(selection), Verdict::Refused, word);
    }
}

#[test]
fn a_broken_condition_or_source_is_refused_by_its_name() {
    for (detection, word) in [
        ("sel: {CommandLine: a}\ncondition: sel | count() > 5", "pipe"),
        ("sel: {CommandLine: a}\ncondition: sel | near other", "pipe"),
        ("sel: {CommandLine: a}\ncondition: other", "other"),
        ("sel: {CommandLine: a}\ncondition: 1 of x*", "x*"),
        ("sel: {CommandLine: a}\ncondition: sel and", "ends"),
        ("sel: {CommandLine: a}", "no condition"),
        ("sel: {CommandLine: a}\ncondition: [sel, [sel]]", "a condition is text, and this is a list"),
        ("sel: []\ncondition: sel", "empty"),
        ("sel: {}\ncondition: sel", "empty"),
        ("sel: {Nowhere: a}\ncondition: not sel", "every event"),
    ] {
        told(detection, &rule(detection), Verdict::Refused, word);
    }
    let of = |source: &str| {
        rule("sel: {CommandLine: a}\ncondition: sel").replace("category: process_creation, product: windows", source)
    };
    for (source, word) in [
        ("category: file_event, product: windows", "file_event"),
        ("product: linux, service: auditd", "auditd"),
        ("category: process_creation, product: aws", "aws"),
    ] {
        told(source, &of(source), Verdict::Refused, word);
    }
    told("filter", "title: x\nfilter: {rules: [a]}\n", Verdict::Refused, "filter");
    told("no YAML", "title: [\n", Verdict::Refused, "YAML");
    told("a list", "- a\n", Verdict::Refused, "map");
    told("nothing in it", "title: x\n", Verdict::Refused, "detection");
}

#[test]
fn unmapped_fields_make_a_rule_inert_or_partial() {
    for (detection, verdict, word) in [
        ("sel: {Nowhere: a}\ncondition: sel", Verdict::Inert, "Nowhere"),
        ("sel: {CommandLine: a, Nowhere: b}\ncondition: sel", Verdict::Inert, "never matches"),
        ("sel: [{CommandLine: a}, {Nowhere: b}]\ncondition: sel", Verdict::Partial, "Nowhere"),
        ("sel: {CommandLine: a}\nf: {Nowhere: b}\ncondition: sel and not f", Verdict::Partial, "stays in"),
        ("sel: {CommandLine: a}\no: {Nowhere: b}\ncondition: sel or o", Verdict::Partial, "Nowhere"),
        ("sel: {CommandLine|fieldref: Nowhere}\ncondition: sel", Verdict::Inert, "Nowhere"),
        ("sel: {EventID: 3}\ncondition: sel", Verdict::Inert, "no event"),
        ("sel: {CommandLine|expand: '%empty%'}\ncondition: sel", Verdict::Inert, "no event"),
    ] {
        told(detection, &rule(detection), verdict, word);
    }
    // What is not asked for does not count.
    let unused = converted(&rule("sel: {CommandLine: a}\nx: {Nowhere: b}\ncondition: sel"));
    assert_eq!((unused.verdict, unused.reasons), (Verdict::Compiled, Vec::new()));
}

#[test]
fn what_a_rule_says_about_itself_is_kept() {
    let text = "title: 'A: \"title\"'\nid: 8d5f1f6e-6d0a-4c9b-9d6b-2f6f0c1a7e11\nstatus: test\ndescription: |\n  Two\n  lines\n\
        author: Jane Doe, Joe\nreferences: ['https://example.org/#x']\ntags: [attack.t1059, attack.execution]\nlevel: high\n\
        falsepositives: [None known]\nlogsource: {category: process_creation}\ndetection: {sel: {CommandLine: a}, condition: sel}\n";
    let conversion = converted(text);
    let rule = conversion.rule.unwrap();
    let kept = &rule.rule;
    assert_eq!((kept.name.as_str(), kept.description.as_str()), ("A: \"title\"", "Two\nlines"));
    assert_eq!((kept.author.as_str(), kept.status.as_str(), kept.severity), ("Jane Doe, Joe", "test", Severity::High));
    assert_eq!(kept.references, ["https://example.org/#x"]);
    assert_eq!(kept.tags, ["attack.t1059", "attack.execution"]);
    assert_eq!(kept.false_positives, ["None known"]);
    assert_eq!(kept.category, "process_creation");
    assert_eq!(conversion.id.to_string(), conversion.sigma_id);
    assert!(kept.sql.ends_with("WHERE event_type = 'start' AND ci_eq(command_line, 'a')"), "{}", kept.sql);
    assert!(rule.source.contains("sql: |-\n  SELECT"), "{}", rule.source);
}

#[test]
fn a_rule_without_an_id_gets_one_that_stays() {
    let text = rule("sel: {CommandLine: a}\ncondition: sel").replace("id: 8d5f1f6e-6d0a-4c9b-9d6b-2f6f0c1a7e11\n", "");
    let of = |dir: &str, name: &str| {
        let file = RuleFile { path: Path::new(dir).join(name), ..file(name, &text) };
        convert(&[file], &lists()).remove(0)
    };
    let (here, there) = (of("/here", "x/a.yml"), of("/there", "x/a.yml"));
    assert_eq!(here.id, there.id);
    assert_ne!(here.id, of("/here", "x/b.yml").id);
    assert_eq!(here.sigma_id, here.id.to_string());
    assert!(here.reasons.iter().any(|reason| reason.message.contains("no id")));
}

#[test]
fn places_are_those_of_the_file() {
    let text = format!(
        "{}---\ntitle: second\nlogsource: {{}}\ndetection:\n  sel: {{a: b}}\n  condition: nobody\n",
        rule("sel: {CommandLine: a}\ncondition: sel")
    );
    let all = convert(&[file("x.yml", &text)], &lists());
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].verdict, Verdict::Compiled);
    let last = u64::try_from(text.lines().count()).unwrap();
    assert_eq!(all[1].reasons[0].line, last, "{:?}", all[1].reasons);
}

#[test]
fn every_problem_of_a_rule_is_told_with_its_line_and_column() {
    let text = "title: many\nlogsource:\n  category: file_event\n  product: aws\ndetection:\n  one:\n    CommandLine|frob: a\n    \
        User|re:\n      - '(?=a)'\n      - good\n      - 'b++'\n  two:\n    - ProcessId: [4, abc]\n    - Image|i: x\n  unused:\n    \
        Image|i: y\n  condition: one and two\n";
    let told: Vec<_> =
        converted(text).reasons.into_iter().map(|reason| (reason.line, reason.column, reason.message)).collect();
    let wanted = [
        (3, 13, "file_event"),
        (4, 12, "aws"),
        (7, 5, "frob"),
        (9, 9, "look-ahead"),
        (11, 9, "possessive"),
        (13, 22, "number"),
        (14, 7, "behind re"),
    ];
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
    for ((line, column, message), (at, from, word)) in told.iter().zip(wanted) {
        assert_eq!((*line, *column), (at, from), "{message}");
        assert!(message.contains(word), "{message}");
    }
    // With a condition that cannot be read, whatever is wrong is told.
    let broken = converted(&text.replace("one and two", "one and"));
    assert!(broken.reasons.iter().any(|reason| (reason.line, reason.column) == (17, 14)), "{:#?}", broken.reasons);
    assert_eq!(broken.reasons.len(), 9, "{:#?}", broken.reasons);
    // Of one of several conditions the place is its own.
    let several = converted(&rule("sel:\n  CommandLine: a\ncondition:\n  - sel\n  - sel and\n  - nobody"));
    let places: Vec<_> = several.reasons.iter().map(|reason| (reason.line, reason.column)).collect();
    assert_eq!(places, [(9, 7), (10, 7)], "{:#?}", several.reasons);
    // Of a field that no column holds, too.
    let lacking =
        converted(&rule("sel:\n  CommandLine: a\nout:\n  - Image: b\n  - Nowhere: c\ncondition: sel and not out"));
    assert_eq!((lacking.reasons[0].line, lacking.reasons[0].column), (9, 7), "{:#?}", lacking.reasons);
}

#[test]
fn every_problem_of_a_correlation_is_told_with_its_place() {
    let text = "title: c\ncorrelation:\n  type: event_count\n  gap: 5\n  rules: [nobody]\n  group-by: [Nowhere]\n  timespan: 5x\n  \
        generate: perhaps\n  condition: {gt: many}\n";
    let text = format!("{}---\n{text}", rule("sel: {CommandLine: a}\ncondition: sel"));
    let all = convert(&[file("c.yml", &text)], &lists());
    let first = u64::try_from(rule("sel: {CommandLine: a}\ncondition: sel").lines().count()).unwrap() + 1;
    let told: Vec<_> = all[1].reasons.iter().map(|reason| (reason.line - first, reason.column)).collect();
    for place in [(4, 3), (5, 10), (7, 13), (8, 13), (9, 14)] {
        assert!(told.contains(&place), "{place:?} is not in {:#?}", all[1].reasons);
    }
}

/// A thousand hashes; the public collections have rules of that size.
#[test]
fn a_rule_of_a_thousand_hashes_is_imported_loaded_and_matches() {
    let part =
        |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let hash = |number: u64| (0..4).map(|at| format!("{:016x}", part(number * 4 + at + 1))).collect::<String>();
    let values: String = (1..=1_000).map(|number| format!("    - SHA256={}\n", hash(number))).collect();
    let rule = rule(&format!("sel:\n  Hashes|contains:\n{values}condition: sel"));
    let event = |hash: &str| format!("{{\"Image\": \"C:\\\\a.exe\", \"Hashes\": \"MD5=0,SHA256={hash}\"}}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("r.yml"), &rule).unwrap();
    let (hunt, notes) = Hunt::load(&[dir.path().to_owned()], &lists());
    assert_eq!((hunt.rules(), notes), (1, Vec::new()));
    let mut rows = Rows::default();
    let events = [hash(1), hash(1_000).to_uppercase(), hash(1_001), String::new()].map(|hash| event(&hash));
    for (number, event) in (0..).zip(&events) {
        assert_eq!(rows.take(number, event.as_bytes()), Line::Taken);
    }
    let found = hunt.matches(rows.finish().unwrap());
    assert_eq!(found.iter().map(|found| found.event).collect::<Vec<_>>(), [0, 1]);
    // What was written is read again as a rule of ours.
    let written = converted(&rule).rule.unwrap();
    assert!(written.rule.sql.len() > 64 * 1024, "{}", written.rule.sql.len());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("r.yaml"), &written.source).unwrap();
    let loaded = daemoneye_engine::detect::rules::load_dirs(&[dir.path().to_owned()]);
    assert_eq!((loaded.rules.len(), loaded.problems.len()), (1, 0), "{:?}", loaded.problems);
    // A query of somebody is as small as before.
    assert!(daemoneye_engine::sql::check(&written.rule.sql).unwrap_err().message.contains("more than 65536"));
}

#[test]
fn a_rule_that_no_file_can_hold_is_refused_with_what_to_do() {
    let values: String = (0..4_000).map(|number| format!("    - SHA256={number:064x}\n")).collect();
    told(
        "four thousand",
        &rule(&format!("sel:\n  Hashes|contains:\n{values}condition: sel")),
        Verdict::Refused,
        "split",
    );
}

#[test]
fn long_lists_of_numbers_and_many_options_are_taken() {
    let numbers: Vec<String> = (10..3_010).map(|number| number.to_string()).collect();
    let numbers = rule(&format!("sel:\n  ProcessId: [{}]\ncondition: sel", numbers.join(", ")));
    decides("numbers", &numbers, &[r#"{"ProcessId": 10}"#, r#"{"ProcessId": "3009"}"#], &[r#"{"ProcessId": 3010}"#]);
    let options =
        rule("sel:\n  CommandLine|contains|windash: [' -aK /b -c -d -e -f -g', '-s?x -y -z*w']\ncondition: sel");
    decides(
        "options",
        &options,
        &["x /Ak -b \u{2013}c \u{2014}d \u{2015}e /f -g", "-sqX /y -z--w"],
        &["x /a\u{212a} -b -c -d -e -f -g", "\u{17f}ax -y -zw", "-aK /b -c -d -e -f -g", "-sx -y -zw"],
    );
    let cased = rule("sel:\n  CommandLine|cased|windash: '-A -b -c'\ncondition: sel");
    decides("cased options", &cased, &["/A /b -c"], &["/a /b -c", "/A /b -c ", " -A -b -c"]);
}

#[test]
fn a_hunt_takes_both_kinds_of_rules_and_goes_on_after_what_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("a.yml", &rule("sel: {CommandLine|contains: a}\ncondition: sel"));
    write("b.yml", &rule("sel: {CommandLine: b}\ncondition: nobody").replace("8d5f", "8d60"));
    write(
        "c.yaml",
        "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: own\ndescription: own\nauthor: test\nseverity: low\n\
         category: process_creation\nsql: SELECT pid FROM process_events WHERE name = 'x.exe'\n",
    );
    write("d.yaml", "id: 3\nsql: no\n");
    let (hunt, notes) = Hunt::load(&[dir.path().to_owned()], &lists());
    assert_eq!(hunt.rules(), 2, "{notes:?}");
    for file in ["b.yml", "d.yaml"] {
        assert!(notes.iter().any(|note| note.is_refusal && note.text.contains(file)), "{file}: {notes:?}");
    }
    assert!(!notes.iter().any(|note| note.text.contains("a.yml") || note.text.contains("c.yaml")), "{notes:?}");
    let mut rows = Rows::default();
    assert_eq!(rows.take(3, br#"{"Image": "C:\\x.exe", "CommandLine": "xa"}"#), Line::Taken);
    assert!(matches!(rows.take(4, b"no"), Line::Broken(_)));
    assert!(matches!(rows.take(5, b"[1]"), Line::Broken(_)));
    assert_eq!(rows.take(6, br#"{"EventID": 3, "CommandLine": "a"}"#), Line::Other);
    assert_eq!(rows.take(8, br#"{"process": {"executable": "/usr/bin/id"}, "x": 1}"#), strange());
    assert_eq!(rows.take(8, b"{}"), Line::Strange);
    assert_eq!(rows.take(7, br#"{"ProcessId": "x", "CommandLine": "a"}"#), without("pid"));
    let found: Vec<_> =
        hunt.matches(rows.finish().unwrap()).iter().map(|found| (found.event, found.rule_id.to_owned())).collect();
    let (own, sigma) =
        ("3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01".to_owned(), "8d5f1f6e-6d0a-4c9b-9d6b-2f6f0c1a7e11".to_owned());
    assert_eq!(found, [(3, own), (3, sigma.clone()), (7, sigma)]);
}

#[test]
fn a_hunt_counts_the_events_that_have_what_rules_ask_for_and_no_column_holds() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("a.yml", &rule("sel: {CommandLine|contains: a, FileVersion: x}\ncondition: sel"));
    write(
        "b.yml",
        &rule("sel: {CommandLine: b}\nout: {LogonGuid: y}\ncondition: sel and not out").replace("8d5f", "8d60"),
    );
    let (hunt, _) = Hunt::load(&[dir.path().to_owned()], &lists());
    assert_eq!(hunt.unmapped(), ["FileVersion", "LogonGuid"]);
    let mut rows = Rows::counting(&hunt.unmapped());
    for line in [
        r#"{"Image": "C:\\x.exe", "Product": "p", "Other": 1, "LogonGuid": null}"#,
        r#"{"Image": "C:\\x.exe", "FileVersion": "1.0"}"#,
        r##"{"Event": {"EventData": {"Data": [{"@Name": "FileVersion", "#text": "2"}]}}}"##,
        r#"{"winlog.event_data.FileVersion": "2"}"#,
    ] {
        assert_eq!(rows.take(0, line.as_bytes()), Line::Taken, "{line}");
    }
    rows.finish().unwrap();
    assert_eq!(rows.unmapped(), [("FileVersion", 3)]);
}

#[test]
fn a_hunt_for_keywords_counts_the_events_that_have_fields_where_it_does_not_look() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yml"), rule("sel: [mimikatz, 4711]\ncondition: sel")).unwrap();
    let (hunt, notes) = Hunt::load(&[dir.path().to_owned()], &lists());
    assert!(notes.len() == 1 && notes[0].text.contains(":5:19: compiled: a keyword is looked for"), "{notes:?}");
    let mut rows = Rows::counting(&hunt.unmapped());
    for line in [
        r#"{"Image": "C:\\x.exe", "Product": "p", "Other": null}"#,
        r#"{"Image": "C:\\x.exe", "ServiceName": "mimikatz"}"#,
        r##"{"Event": {"EventData": {"Data": [{"@Name": "ServiceName", "#text": "2"}]}}}"##,
    ] {
        assert_eq!(rows.take(0, line.as_bytes()), Line::Taken, "{line}");
    }
    rows.finish().unwrap();
    assert_eq!(rows.unmapped(), [("a field that keywords were not looked for in", 2)]);
}

#[test]
fn an_event_of_which_nothing_can_be_told_is_told_of() {
    assert_eq!(taken(r#"{"process.command_line": "foo", "host": "x"}"#), strange());
    for line in [r#"{"command_line": "foo", "event_type": "exec"}"#, r#"{"CommandLine": "foo", "EventID": "x"}"#] {
        assert_eq!(taken(line), without("event_type"), "{line}");
    }
    for line in [r#"{"CommandLine": "foo", "EventID": "-"}"#, r#"{"CommandLine": "foo", "event_type": "stop"}"#] {
        assert_eq!(taken(line), Line::Taken, "{line}");
    }
}

#[test]
fn our_files_and_sigmas_are_told_apart() {
    assert!(is_sigma("title: x\ndetection:\n  a: b\n"));
    assert!(is_sigma("title: x\ncorrelation:\n  a: b\n"));
    assert!(!is_sigma("name: x\nsql: SELECT 1\n"));
}

/// Pieces of rules in any order, and what trips readers.
const PIECES: &[&str] = &[
    "detection:\n",
    "  sel:\n",
    "    CommandLine|contains: a\n",
    "    - a\n",
    "  condition: sel\n",
    "  condition: 1 of s*\n",
    "---\n",
    "title: x\n",
    "id: 7\n",
    "    '|all': [a, b]\n",
    "  condition: not not (sel\n",
    "\t",
    "&a ",
    "*a",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "|windash|base64offset",
    "|re|i",
    "%x%",
    "\\",
    "'",
    "\"",
    "\u{0}",
    "é",
    "null",
    "0x",
    "1e999",
    "-",
    "logsource: {category: process_creation}\n",
    "!!str ",
    "? ",
    "#",
];

proptest! {
    #[test]
    fn no_text_makes_the_conversion_panic(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..24)) {
        drop(convert(&[file("x.yml", &pieces.concat())], &lists()));
    }

    #[test]
    fn no_change_of_a_rule_makes_the_conversion_panic(
        at in 0_usize..400, length in 0_usize..12, piece in prop::sample::select(PIECES),
        modifiers in prop::collection::vec(prop::sample::select(vec!["contains", "re", "i", "all", "windash", "wide", "base64offset", "expand", "cidr", "fieldref", "exists", "gt", "neq", "cased", "utf16"]), 0..4),
        value in ".{0,20}",
    ) {
        let value = serde_json::to_string(&value).unwrap();
        let key: String = std::iter::once("CommandLine").chain(modifiers).collect::<Vec<_>>().join("|");
        let mut text = rule(&format!("sel:\n  {key}: {value}\ncondition: sel and not 1 of s*"));
        drop(convert(&[file("x.yml", &text)], &lists()));
        let from = text.floor_char_boundary(at.min(text.len()));
        let to = text.floor_char_boundary((from + length).min(text.len()));
        text.replace_range(from..to, piece);
        drop(convert(&[file("x.yml", &text)], &lists()));
    }
}

#[test]
fn a_rule_of_one_system_does_not_look_at_events_of_another() {
    let of = |product: &str| rule("sel: {CommandLine: a}\ncondition: sel").replace("windows", product);
    let windows = r#"{"Image": "C:\\x.exe", "CommandLine": "a"}"#;
    let logged = r#"{"Channel": "Security", "EventID": 4688, "CommandLine": "a"}"#;
    let other = r#"{"Image": "/bin/x", "CommandLine": "a"}"#;
    let captured = r#"{"source": "ebpf", "command_line": "a"}"#;
    let nowhere = r#"{"CommandLine": "a"}"#;
    decides("windows", &of("windows"), &[windows, logged, nowhere], &[other, captured]);
    decides("linux", &of("linux"), &[other, captured, nowhere], &[windows, logged]);
    decides("macos", &of("macos"), &[other, nowhere], &[windows, logged, captured]);
}

#[test]
fn an_object_of_the_same_name_does_not_stand_in_the_way_of_a_value() {
    let user = rule("sel: {User: bob}\ncondition: sel");
    let events = [
        r#"{"winlog": {"event_data": {"User": "bob"}, "user": {"name": "x", "type": "User"}}}"#,
        r#"{"winlog": {"user": {"name": "x"}, "event_data": {"User": "bob"}}}"#,
        r#"{"User": "bob", "user": null}"#,
        r#"{"winlog": {"user": {"name": "x"}, "event_id": 4688, "event_data": {"SubjectUserName": "bob"}}}"#,
    ];
    decides("user", &user, &events, &[r#"{"User": "eve", "winlog": {"user": {"name": "bob"}}}"#]);
}

fn strange() -> Line {
    Line::Without(Lacks { strange: true, ..Lacks::default() })
}

fn without(column: &'static str) -> Line {
    Line::Without(Lacks { unread: vec![column], ..Lacks::default() })
}

fn taken(line: &str) -> Line {
    Rows::default().take(0, line.as_bytes())
}

/// What one event has in this column; of a time its µs.
fn column(name: &str, line: &str) -> String {
    let mut rows = Rows::default();
    rows.take(0, line.as_bytes());
    let lines = rows.finish().unwrap();
    let column = lines.batch().column_by_name(name).unwrap();
    match column.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(times) => times.value(0).to_string(),
        None => column.as_string::<i32>().value(0).to_owned(),
    }
}

#[test]
fn a_hunt_tells_what_it_cannot_read_of_fields_that_become_columns() {
    for (line, lacks) in [
        (r#"{"CommandLine": "a", "UtcTime": "31/01/2026 12:00:00"}"#, "time"),
        (r#"{"CommandLine": "a", "@timestamp": 20260131}"#, "time"),
        (r#"{"CommandLine": "a", "ProcessGuid": "no guid"}"#, "entity_id"),
        (r#"{"CommandLine": "a", "ParentProcessGuid": 7}"#, "parent_entity_id"),
    ] {
        assert_eq!(taken(line), without(lacks), "{line}");
    }
    for line in [r#"{"CommandLine": "a", "ParentProcessGuid": "-"}"#, r#"{"CommandLine": "a", "UtcTime": null}"#] {
        assert_eq!(taken(line), Line::Taken, "{line}");
    }
}

#[test]
fn of_several_times_a_fixed_one_counts_in_whatever_order_they_stand() {
    let mut fields = [
        r#""UtcTime": "2026-01-31 12:00:01""#,
        r#""SystemTime": "2026-01-31T12:00:02Z""#,
        r##""TimeCreated": {"#attributes": {"SystemTime": "2026-01-31T12:00:03Z"}}"##,
        r#""@timestamp": 1769860804"#,
    ]
    .to_vec();
    for second in 1_769_860_801_i64..=1_769_860_804 {
        let reversed: Vec<_> = fields.iter().rev().copied().collect();
        for fields in [fields.join(","), reversed.join(",")] {
            assert_eq!(column("time", &format!("{{{fields}}}")), format!("{second}000000"), "{fields}");
        }
        fields.remove(0);
    }
}

#[test]
fn an_event_is_left_out_only_where_its_log_is_known_to_be_another() {
    for (line, is_taken) in [
        (r#"{"Channel": "ForwardedEvents", "EventID": 4688, "NewProcessName": "C:\\x.exe"}"#, true),
        (r#"{"Channel": "WEC-Processes", "EventID": 1, "Image": "C:\\x.exe"}"#, true),
        (
            r#"{"winlog": {"channel": "ForwardedEvents", "event_id": 1, "provider_name": "Microsoft-Windows-Sysmon"}}"#,
            true,
        ),
        (
            r#"{"Event": {"System": {"Channel": "ForwardedEvents", "EventID": 1, "Provider": {"@Name": "Microsoft-Windows-Kernel-General"}}}}"#,
            false,
        ),
        (r#"{"Channel": "System", "EventID": 1, "Image": "x"}"#, false),
        (r#"{"Channel": "Microsoft-Windows-PowerShell/Operational", "EventID": 4688}"#, false),
    ] {
        assert_eq!(taken(line), if is_taken { Line::Taken } else { Line::Other }, "{line}");
    }
    assert_eq!(
        column("source", r#"{"Channel": "ForwardedEvents", "EventID": 1, "SourceName": "Linux-Sysmon"}"#),
        "unix-sysmon"
    );
}

#[test]
fn every_integrity_level_has_its_word_and_others_stay_as_they_are() {
    for (sid, word) in [
        ("S-1-16-0", "Untrusted"),
        ("S-1-16-8448", "MediumPlus"),
        ("S-1-16-20480", "Protected"),
        ("S-1-16-9999", "S-1-16-9999"),
    ] {
        assert_eq!(column("integrity_level", &format!(r#"{{"EventID": 4688, "MandatoryLabel": "{sid}"}}"#)), word);
    }
}

#[test]
fn words_of_yaml_1_1_are_a_truth_where_one_is_asked_for_and_maps_may_be_merged() {
    let sql = |detection: &str| {
        let conversion = converted(&rule(detection));
        conversion
            .rule
            .map(|rule| rule.rule.sql.clone())
            .unwrap_or_else(|| panic!("{detection}: {:?}", conversion.reasons))
    };
    for (word, asked) in [("no", "IS NULL"), ("off", "IS NULL"), ("yes", "IS NOT NULL"), ("On", "IS NOT NULL")] {
        let sql = sql(&format!("sel: {{CommandLine: a, User|exists: {word}}}\ncondition: sel"));
        assert!(sql.contains(&format!("user {asked}")), "{sql}");
    }
    assert!(sql("sel: {CommandLine: no}\ncondition: sel").contains("ci_eq(command_line, 'no')"));
    let merged = sql("base: &base {CommandLine: a, User: x}\nsel: {<<: *base, User: b}\ncondition: sel");
    assert!(merged.contains("'a'") && merged.contains("'b'") && !merged.contains("'x'"), "{merged}");
}

#[test]
fn what_is_wrong_with_a_file_is_said_to_the_one_who_wrote_it() {
    let twice = converted(&rule("sel: {CommandLine: a, CommandLine: b}\ncondition: sel"));
    assert!(twice.reasons[0].message.contains("the key CommandLine stands twice"), "{:?}", twice.reasons);
    let two = "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: r\n---\nname: s\n";
    let problems = daemoneye_engine::detect::rules::parse("r.yaml".as_ref(), two).unwrap_err();
    assert!(problems[0].message.contains("one file holds one rule"), "{problems:?}");
}
