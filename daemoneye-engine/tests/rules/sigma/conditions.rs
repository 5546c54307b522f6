//! Several search identifiers, several conditions, and what NOT makes of what is not there.

use super::{decides, rule};

#[test]
fn conditions() {
    let identifiers = "a: {CommandLine|contains: a}\nb: {CommandLine|contains: b}\nc: {CommandLine|contains: c}\n\
                       sel_x: {CommandLine|contains: x}\nsel_y: {CommandLine|contains: y}\n_z: {CommandLine|contains: z}\n";
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("a and b", &["ab"], &["a", "b"]),
        ("a or b", &["a", "b"], &["c"]),
        ("a and not b", &["a"], &["ab", "b"]),
        ("not a", &["b", "{}"], &["a"]),
        ("not a and not b", &["c", "{}"], &["a", "b"]),
        ("not (a or b)", &["c", "{}"], &["a", "ab"]),
        ("not (a and b)", &["a", "b", "{}"], &["ab"]),
        ("a or b and c", &["a", "bc"], &["b", "c"]),
        ("(a or b) and c", &["ac", "bc"], &["a", "ab"]),
        ("a and b or c", &["ab", "c"], &["a"]),
        ("not a or b", &["c", "ab"], &["a"]),
        ("not not a", &["a"], &["b"]),
        ("A and ((b) or (c))", &[], &[]),
        ("a and ((b) or (c))", &["ab", "ac"], &["a", "bc"]),
        ("a AND b OR NOT c", &["abc", "x"], &["c", "ac"]),
        ("1 of sel_*", &["x", "y"], &["a"]),
        ("any of sel_*", &["x"], &["a"]),
        ("all of sel_*", &["xy"], &["x", "y"]),
        ("1 of sel_x", &["x"], &["y"]),
        ("1 of them", &["a", "x", "y"], &["z", "q"]),
        ("all of them", &["abcxy"], &["abcx", "z"]),
        ("1 of _*", &["z"], &["a"]),
        ("a and 1 of sel_*", &["ax"], &["a", "x"]),
        ("a and not 1 of sel_*", &["a"], &["ax", "ay"]),
        ("a and not all of sel_*", &["a", "ax"], &["axy"]),
        ("1 of s*_x or 1 of s*_y", &["x", "y"], &["a"]),
        ("[a and b, c]", &["ab", "c"], &["a"]),
        ("[a, b]", &["a", "b"], &["c"]),
    ];
    for (condition, yes, no) in cases.iter().filter(|(condition, ..)| !condition.starts_with('A')) {
        decides(condition, &rule(&format!("{identifiers}condition: {condition}")), yes, no);
    }
}

#[test]
fn not_has_two_values() {
    let cases: &[(&str, &str, &[&str], &[&str])] = &[
        (
            "of text that is not there",
            "sel: {Image: i}\nfilter: {User: u}\ncondition: sel and not filter",
            &[r#"{"Image": "i"}"#, r#"{"Image": "i", "User": "v"}"#],
            &[r#"{"Image": "i", "User": "u"}"#],
        ),
        (
            "of a map of which one part is not there",
            "sel: {Image: i}\nfilter: {User: u, Company: c}\ncondition: sel and not filter",
            &[r#"{"Image": "i", "User": "u"}"#, r#"{"Image": "i"}"#],
            &[r#"{"Image": "i", "User": "u", "Company": "c"}"#],
        ),
        (
            "of a number that is not there",
            "sel: {Image: i}\nfilter: {ProcessId|gt: 5}\ncondition: sel and not filter",
            &[r#"{"Image": "i"}"#, r#"{"Image": "i", "ProcessId": 5}"#],
            &[r#"{"Image": "i", "ProcessId": 6}"#],
        ),
        (
            "of equal columns that are not there",
            "sel: {Image: i}\nfilter: {Image|fieldref: ParentImage}\ncondition: sel and not filter",
            &[r#"{"Image": "i"}"#],
            &[r#"{"Image": "i", "ParentImage": "I"}"#],
        ),
        (
            "of an expression",
            "sel: {Image: i}\nfilter: {CommandLine|re: x}\ncondition: sel and not filter",
            &[r#"{"Image": "i"}"#],
            &[r#"{"Image": "i", "CommandLine": "x"}"#],
        ),
        (
            "of a network",
            "sel: {Image: i}\nfilter: {CommandLine|cidr: 10.0.0.0/8}\ncondition: sel and not filter",
            &[r#"{"Image": "i"}"#, r#"{"Image": "i", "CommandLine": "x"}"#],
            &[r#"{"Image": "i", "CommandLine": "10.0.0.1"}"#],
        ),
        (
            "of null",
            "sel: {Image: i}\nfilter: {User: null}\ncondition: sel and not filter",
            &[r#"{"Image": "i", "User": ""}"#],
            &[r#"{"Image": "i"}"#],
        ),
        (
            "of empty text",
            "sel: {Image: i}\nfilter: {User: ''}\ncondition: sel and not filter",
            &[r#"{"Image": "i"}"#, r#"{"Image": "i", "User": "-"}"#],
            &[r#"{"Image": "i", "User": ""}"#],
        ),
        (
            "of all",
            "sel: {Image: i}\nfilter: {CommandLine|contains|all: [a, b]}\ncondition: sel and not filter",
            &[r#"{"Image": "i"}"#, r#"{"Image": "i", "CommandLine": "a"}"#],
            &[r#"{"Image": "i", "CommandLine": "ab"}"#],
        ),
        (
            "of keywords",
            "sel: {Image: i}\nfilter: [evil]\ncondition: sel and not filter",
            &[r#"{"Image": "i"}"#],
            &[r#"{"Image": "i", "CommandLine": "evil"}"#],
        ),
        (
            "twice",
            "sel: {Image: i}\nfilter: {User: u}\ncondition: sel and not (not filter)",
            &[r#"{"Image": "i", "User": "u"}"#],
            &[r#"{"Image": "i"}"#],
        ),
        (
            "inside parentheses",
            "sel: {Image: i}\nf1: {User: u}\nf2: {Company: c}\ncondition: sel and not (f1 or f2)",
            &[r#"{"Image": "i"}"#, r#"{"Image": "i", "User": "x"}"#],
            &[r#"{"Image": "i", "Company": "c"}"#],
        ),
        (
            "or not",
            "sel: {Image: i}\nf: {User: u}\ncondition: sel or not f",
            &["{}", r#"{"User": "u", "Image": "i"}"#],
            &[r#"{"User": "u"}"#],
        ),
    ];
    for (name, detection, yes, no) in cases {
        decides(name, &rule(detection), yes, no);
    }
}

#[test]
fn events_of_other_kinds_and_systems_are_left_out() {
    let detection = "sel: {CommandLine: a}\ncondition: sel";
    decides(
        "starts only",
        &rule(detection),
        &["a", r#"{"command_line": "a", "event_type": "start", "start_kind": "exec"}"#],
        &[
            r#"{"CommandLine": "a", "EventID": 5}"#,
            r#"{"command_line": "a", "event_type": "modify"}"#,
            r#"{"command_line": "a", "event_type": "start", "start_kind": "fork"}"#,
            r#"{"command_line": "a", "source": "ebpf"}"#,
        ],
    );
    let linux = rule(detection).replace("windows", "linux");
    decides("Linux", &linux, &["a", r#"{"command_line": "a", "source": "ebpf"}"#], &["b"]);
    let stops = rule(detection).replace("process_creation", "process_termination");
    decides("stops", &stops, &[r#"{"CommandLine": "a", "EventID": 5}"#], &["a"]);
    let security = rule("sel: {EventID: 4688, ProcessId: 16}\ncondition: sel")
        .replace("category: process_creation", "service: security");
    decides(
        "in Security's events ProcessId is the parent's",
        &security,
        &[r#"{"EventID": 4688, "ProcessId": "0x10", "NewProcessId": "0x20"}"#],
        &[r#"{"EventID": 1, "ProcessId": 16}"#],
    );
}
