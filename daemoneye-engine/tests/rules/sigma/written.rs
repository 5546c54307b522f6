//! Values of Sigma rules and of lists count as they are written, whatever type YAML gives them; files and documents are told apart by
//! what they say, not by where their text stands.

use daemoneye_engine::sigma::{Conversion, Verdict, convert, files, is_sigma, read_lists};

use super::{converted, decides, file, lists, rule, told};

fn of(selection: &str) -> String {
    rule(&format!("sel:\n  {selection}\ncondition: sel"))
}

fn sql(rule: &str) -> String {
    let conversion = converted(rule);
    conversion.rule.map(|rule| rule.rule.sql.clone()).unwrap_or_else(|| panic!("{rule}: {:?}", conversion.reasons))
}

/// What YAML takes for a number or a truth, and would print as another text.
const WRITTEN: &[&str] = &[
    "0777",
    "010",
    "007",
    "1e3",
    "1E3",
    "1_000",
    "0x1F",
    "0x1f",
    "0o17",
    "0b11",
    "1.10",
    "1.0",
    "5.",
    ".5",
    "+5",
    "-0",
    "-07",
    "+1.50",
    "00112233445566778899001122334455",
    "1e999",
    "4688",
    "-7",
    "True",
    "FALSE",
    "TRUE",
    "12345678901234567890123",
];

#[test]
fn a_number_in_text_is_the_text_that_it_is_written_as() {
    for written in WRITTEN {
        for (selection, expected) in [
            (format!("CommandLine|contains: {written}"), format!("ci_contains(command_line, '{written}')")),
            (format!("CommandLine|cased: {written}"), format!("cs_eq(command_line, '{written}')")),
            (format!("CommandLine: [x, {written} , y]"), format!("ci_eq(command_line, 'x', '{written}', 'y')")),
            (
                format!("CommandLine|endswith:\n    - {written} # so\n    - y"),
                format!("ci_ends(command_line, '{written}', 'y')"),
            ),
            (format!("{{CommandLine|startswith: {written}}}"), format!("ci_starts(command_line, '{written}')")),
        ] {
            let rule = if selection.starts_with('{') {
                rule(&format!("sel: {selection}\ncondition: sel"))
            } else {
                of(&selection)
            };
            let sql = sql(&rule);
            assert!(sql.contains(&expected), "{selection}: {sql}");
        }
        let keyword = sql(&rule(&format!("sel: [{written}, zz]\ncondition: sel")));
        assert!(keyword.contains(&format!("ci_contains(command_line, '{written}', 'zz')")), "{keyword}");
    }
    decides(
        "chmod",
        &of("CommandLine|contains: 0777"),
        &["chmod 0777 x"],
        &["chmod 777.0 x", "chmod 511 x", "chmod 777 x"],
    );
    let expression = sql(&of("CommandLine|re: 1.10"));
    assert!(expression.contains("re_match(command_line, '1.10')"), "{expression}");
}

#[test]
fn what_an_alias_or_a_tag_stands_for_counts_as_it_is_written() {
    let aliased = "a: &é 'é'\nsel:\n  CommandLine: &mode 0777\n  User: *mode\ncondition: sel";
    let aliased = sql(&rule(aliased));
    assert!(aliased.contains("ci_eq(command_line, '0777')") && aliased.contains("ci_eq(user, '0777')"), "{aliased}");
    let merged = sql(&rule("base: &base {CommandLine: 007, User: 1.10}\nsel: {<<: *base, User: 010}\ncondition: sel"));
    assert!(merged.contains("'007'") && merged.contains("'010'") && !merged.contains("1.1"), "{merged}");
    let tagged = sql(&of("CommandLine: !!float '1.10'"));
    assert!(tagged.contains("ci_eq(command_line, '1.10')"), "{tagged}");
    let before = sql(&format!("# Zeichen vor der Regel: äöü 漢字 🦀\n{}", of("CommandLine: ['é', 0777]")));
    assert!(before.contains("ci_eq(command_line, 'é', '0777')"), "{before}");
    let second = format!("title: ä\nlogsource: {{category: process_creation}}\n---\n{}", of("CommandLine: 0777"));
    let all = convert(&[file("c.yml", &format!("\u{feff}{second}"))], &lists());
    assert!(all[1].rule.as_ref().unwrap().rule.sql.contains("'0777'"), "{:?}", all[1]);
}

#[test]
fn a_hash_of_digits_is_a_hash() {
    for hash in
        ["00112233445566778899001122334455", "12345678901234567890123456789012", "1234567890123456789012345678e999"]
    {
        let event = format!(r#"{{"Imphash": "{hash}"}}"#);
        decides(hash, &of(&format!("Imphash: {hash}")), &[&event], &["x"]);
    }
}

#[test]
fn a_number_that_readers_of_yaml_take_for_different_ones_is_refused_in_columns_of_numbers() {
    for written in ["010", "-010", "+010", "007"] {
        told(written, &of(&format!("ProcessId: {written}")), Verdict::Refused, "octal");
    }
    for (written, meant) in
        [("0x1250", "4688"), ("4_688", "4688"), ("4688.0", "4688"), ("+4688", "4688"), ("'4688'", "4688")]
    {
        let event = format!(r#"{{"ProcessId": {meant}}}"#);
        decides(written, &of(&format!("ProcessId: {written}")), &[&event], &["x"]);
    }
}

#[test]
fn what_a_rule_says_about_itself_and_lists_count_as_they_are_written() {
    let text = of("CommandLine: a").replace("title: case", "title: 1.10\nauthor: 007\nreferences: [0x1F]");
    let source = converted(&text).rule.unwrap().source;
    for part in ["name: \"1.10\"", "author: \"007\"", "\"0x1F\""] {
        assert!(source.contains(part), "{part}: {source}");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), "\u{feff}x: [007, 1.10, 0x1F, True]\ny: 1e3\n").unwrap();
    let lists = read_lists(dir.path()).unwrap();
    assert_eq!((lists["x"].join(" "), lists["y"].join(" ")), ("007 1.10 0x1F True".to_owned(), "1e3".to_owned()));
}

#[test]
fn a_file_is_told_by_the_keys_of_its_documents() {
    for sigma in [
        "{\n\"title\": \"x\",\n\"detection\": {\n\"sql\": {\"CommandLine\": \"a\"},\n\"condition\": \"sql\"\n}\n}\n",
        "{\"title\": \"x\", \"detection\": {\"a\": \"b\"}}\n",
        "  title: x\n  detection: {}\n",
        "'detection': {}\n",
        "? detection\n: {}\n",
        "title: x\n---\ncorrelation: {}\n",
        "%YAML 1.2\n---\nlogsource: {}\n",
    ] {
        assert!(is_sigma(sigma), "{sigma}");
    }
    for ours in [
        "{\n\"list\": \"x\",\n\"values\": [{\n\"detection\": 1\n}]\n}\n",
        "{\"name\": \"x\", \"sql\": \"SELECT 1\"}\n",
        "sql: SELECT 1\ndetection: {}\n",
        "- detection\n",
        "list: x\nvalues: [detection]\n",
    ] {
        assert!(!is_sigma(ours), "{ours}");
    }
    // What is broken is told by the reader that it was meant for.
    assert!(is_sigma("title: x\ndetection:\n  a: [b\n"));
    assert!(!is_sigma("name: x\nsql: [SELECT 1\n"));
}

#[test]
fn directives_stand_before_a_document() {
    let plain = of("CommandLine: a");
    for text in [
        format!("%YAML 1.2\n---\n{plain}"),
        format!("# rules of ours\n%YAML 1.1\n\n--- # begins\n{plain}...\n"),
        format!("%TAG ! tag:example.org,2026:\n---\n{plain}"),
    ] {
        let conversion = converted(&text);
        assert_eq!(conversion.verdict, Verdict::Compiled, "{text}: {:?}", conversion.reasons);
    }
    let two = format!(
        "%YAML 1.2\n---\n{plain}...\n%YAML 1.2\n---\n{}",
        plain.replace("condition: sel", "condition: nobody")
    );
    let all = convert(&[file("c.yml", &two)], &lists());
    assert_eq!(all.iter().map(|one| one.verdict).collect::<Vec<_>>(), [Verdict::Compiled, Verdict::Refused]);
    let line = u64::try_from(two.lines().count()).unwrap();
    assert_eq!(all[1].reasons[0].line, line, "places stay those of the file: {:?}", all[1].reasons);
    // What stands on the line of the mark belongs to the document.
    let flow = "--- {title: x, logsource: {category: process_creation}, detection: {sel: {CommandLine: a}, condition: sel}}\n";
    assert_eq!(converted(flow).verdict, Verdict::Compiled);
}

#[cfg(unix)]
#[test]
fn a_link_in_a_circle_is_walked_once() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("rules/linux");
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(inner.join("a.yml"), of("CommandLine: a")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("rules"), inner.join("loop")).unwrap();
    std::os::unix::fs::symlink(&inner, dir.path().join("rules/again")).unwrap();
    let (found, problems) = files(&dir.path().join("rules"));
    assert_eq!(problems, Vec::new());
    assert_eq!(found.len(), 1, "{:?}", found.iter().map(|file| &file.name).collect::<Vec<_>>());
}

#[test]
fn a_timespan_that_no_window_holds_is_refused_by_its_length() {
    let of = |span: &str| {
        let text = format!(
            "title: c\ncorrelation: {{type: event_count, rules: [r], timespan: {span}, condition: {{gte: 2}}}}\n---\nname: r\n{}",
            of("CommandLine: a")
        );
        let conversion: Conversion = convert(&[file("c.yml", &text)], &lists()).remove(0);
        (conversion.verdict, format!("{:?}", conversion.reasons))
    };
    for span in ["7d", "8d", "30d", "52w", "366d"] {
        assert_eq!(of(span).0, Verdict::Compiled, "{span}");
    }
    for (span, what) in [
        ("367d", "from 1s to 366d"),
        ("0s", "from 1s to 366d"),
        ("9223372036854775807w", "from 1s to 366d"),
        ("1M", "as 30d"),
        ("1y", "as 365d"),
        ("1.5d", "write 90s"),
        ("d", "write 90s"),
    ] {
        let (verdict, reasons) = of(span);
        assert!(verdict == Verdict::Refused && reasons.contains(what), "{span}: {reasons}");
        assert!(reasons.contains("line: 2") || reasons.contains("timespan"), "{span}: {reasons}");
    }
}
