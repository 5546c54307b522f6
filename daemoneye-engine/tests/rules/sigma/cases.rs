//! One search identifier: values, wildcards, lists, maps, keywords and modifiers.

use super::{decides, rule};

type Case = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

fn run(cases: &[Case]) {
    for (name, selection, yes, no) in cases {
        let selection: String = selection.lines().map(|line| format!("  {line}\n")).collect();
        decides(name, &rule(&format!("sel:\n{selection}condition: sel")), yes, no);
    }
}

#[test]
fn values_wildcards_and_escapes() {
    run(&[
        ("equal, whatever the case", "CommandLine: WhoAmI", &["whoami", "WHOAMI"], &["whoami /all", "who", ""]),
        ("only ASCII folds", "CommandLine: 'É'", &["É"], &["é"]),
        ("Kelvin is no k", "CommandLine|contains: k", &["K", "k"], &["\u{212a}"]),
        ("long s is no s", "CommandLine|contains: s", &["S"], &["\u{17f}"]),
        ("star at the end", "CommandLine: who*", &["who", "whoami"], &["xwho"]),
        ("star at the start", r"CommandLine: '*\cmd.exe'", &[r"C:\Cmd.EXE"], &["cmd.exe"]),
        ("stars around", "CommandLine: '*ami*'", &["whoami /all", "ami"], &["am i"]),
        ("star inside", "CommandLine: a*z", &["az", "abcz", "a\nz"], &["abczd", "xaz"]),
        ("several stars", "CommandLine: a*b*c", &["abc", "a-b-c"], &["acb"]),
        ("star alone is any text", "CommandLine: '*'", &["", "x"], &["{}"]),
        (
            "question mark is one character",
            "CommandLine: prog?.exe",
            &["progA.exe", "prog\u{e9}.exe"],
            &["prog.exe", "progAB.exe"],
        ),
        ("two question marks", "CommandLine: '??'", &["ab", "日本"], &["a", "abc"]),
        ("both wildcards", "CommandLine: 'a?c*e'", &["abcde", "axce"], &["ace"]),
        ("escaped star", r"CommandLine: 'a\*b'", &["a*b"], &["axb", r"a\*b"]),
        ("escaped question mark", r"CommandLine: 'a\?b'", &["a?b"], &["axb"]),
        ("plain backslash", r"CommandLine: 'C:\a'", &[r"C:\a"], &[r"C:\\a", "C:a"]),
        ("double backslash is one", r"CommandLine: 'C:\\a'", &[r"C:\a"], &[r"C:\\a"]),
        ("four backslashes are two", r"CommandLine: '\\\\host'", &[r"\\host"], &[r"\host"]),
        ("three backslashes are two", r"CommandLine: '\\\host'", &[r"\\host"], &[r"\host"]),
        ("backslash and star", r"CommandLine: 'C:\\*'", &[r"C:\", r"C:\x"], &["C:*", "C:x"]),
        ("escaped backslash and escaped star", r"CommandLine: 'C:\\\*'", &[r"C:\*"], &[r"C:\x"]),
        ("backslash at the end", r"CommandLine: 'C:\'", &[r"C:\"], &["C:"]),
        ("percent and underscore are themselves", "CommandLine: 'a%b_?'", &["a%b_c"], &["axb_c", "a%bxc"]),
        ("percent and underscore searched", "CommandLine|contains: '%T_'", &["x%t_y"], &["xat_y", "x%tay"]),
        ("quotes", "CommandLine: \"it's \\\"x\\\"\"", &["it's \"x\""], &["its x"]),
        ("SQL in a value stays a value", "CommandLine: \"x' OR '1'='1\"", &["x' OR '1'='1"], &["x", ""]),
        ("comment in a value", "CommandLine|contains: '--; DROP /*'", &["a --; drop /* b"], &["a"]),
        ("line end in a value", "CommandLine: \"a\\nb\"", &["a\nb"], &["a b"]),
        ("tab and bell in a value", "CommandLine: \"a\\tb\\a\"", &["a\tb\u{7}"], &["a b"]),
        ("carriage return in a value", "CommandLine|contains: \"\\r\\n\"", &["a\r\nb"], &["a\nb"]),
        ("beyond ASCII", "CommandLine: '日本–é'", &["日本–é"], &["日本-é"]),
        ("empty text", "CommandLine: ''", &[""], &["{}", "-", " "]),
        ("dash", "CommandLine: '-'", &["-"], &["", "{}"]),
        ("null", "CommandLine: null", &["{}", r#"{"CommandLine": null}"#], &["", "-", "null"]),
        ("null by nothing", "CommandLine:", &["{}"], &["x"]),
        ("null in a list", "CommandLine: [null, '', x]", &["{}", "", "X"], &["-"]),
        (
            "number as text",
            "LogonId: 999",
            &[r#"{"LogonId": "999"}"#, r#"{"LogonId": 999}"#],
            &[r#"{"LogonId": "0x3e7"}"#],
        ),
        ("negative number", "CommandLine: -1", &["-1"], &["1"]),
        ("real number as text", "CommandLine: 1.5", &["1.5"], &["15"]),
        ("truth as text", "CommandLine: true", &["true", "TRUE"], &["false", "1"]),
        (
            "number in a column of numbers",
            "ProcessId: 4",
            &[r#"{"ProcessId": 4}"#, r#"{"ProcessId": "4"}"#],
            &[r#"{"ProcessId": 5}"#, "{}"],
        ),
        (
            "numbers in text",
            "ProcessId: ['4', '0x10']",
            &[r#"{"ProcessId": 4}"#, r#"{"ProcessId": 16}"#],
            &[r#"{"ProcessId": 5}"#],
        ),
        (
            "numbers as exporters write them",
            "ProcessId: '4688'",
            &[
                r#"{"ProcessId": 4688}"#,
                r#"{"ProcessId": "4688"}"#,
                r#"{"ProcessId": 4688.0}"#,
                r#"{"ProcessId": "4688.0"}"#,
                r#"{"ProcessId": "0x1250"}"#,
            ],
            &[r#"{"ProcessId": 46880}"#, "{}"],
        ),
        (
            "the event's number as text",
            "EventID: ['1', 4688]",
            &[r#"{"EventID": "1", "CommandLine": "a"}"#, r#"{"EventID": 1.0, "CommandLine": "a"}"#],
            &[],
        ),
        (
            "truth as text in a column of truth",
            "memfd: 'yes'",
            &[r#"{"memfd": "true"}"#, r#"{"memfd": 1}"#],
            &[r#"{"memfd": "false"}"#],
        ),
        ("no number", "ProcessId: null", &["{}"], &[r#"{"ProcessId": 4}"#]),
        ("any number", "ProcessId: '*'", &[r#"{"ProcessId": 4}"#], &["{}"]),
    ]);
}

#[test]
fn lists_and_maps() {
    run(&[
        ("list of values is an or", "CommandLine: [a, b, c*]", &["A", "b", "cat"], &["d", "{}"]),
        (
            "list of every shape",
            "CommandLine: [eq, 'st*', '*en', '*co*', 'li?e']",
            &["eq", "stx", "xen", "xcox", "live"],
            &["eqx", "xst", "enx", "lie"],
        ),
        ("list of one", "CommandLine: [a]", &["a"], &["b"]),
        (
            "map is an and",
            "CommandLine|contains: a\nImage|endswith: b",
            &[r#"{"CommandLine": "xay", "Image": "cb"}"#],
            &[r#"{"CommandLine": "a", "Image": "c"}"#, r#"{"Image": "b"}"#],
        ),
        (
            "map of three",
            "User: u\nCompany: c\nProduct: p",
            &[r#"{"User": "U", "Company": "C", "Product": "P"}"#],
            &[r#"{"User": "U", "Company": "C"}"#],
        ),
        ("list of maps is an or", "- CommandLine: a\n- Image: b", &["a", r#"{"Image": "B"}"#], &["b", "{}"]),
        (
            "list of maps of several",
            "- CommandLine: a\n  Image: i\n- User: u",
            &[r#"{"CommandLine": "a", "Image": "i"}"#, r#"{"User": "u"}"#],
            &["a"],
        ),
        ("lists in a list of maps", "- CommandLine: [a, b]\n- User: [u, v]", &["b", r#"{"User": "v"}"#], &["u"]),
        (
            "same field twice with modifiers",
            "CommandLine|startswith: a\nCommandLine|endswith: z",
            &["abz", "az"],
            &["a", "z"],
        ),
    ]);
}

#[test]
fn keywords() {
    run(&[
        (
            "keyword anywhere",
            "- evil",
            &["an EVIL thing", r#"{"Image": "C:\\evil.exe"}"#, r#"{"Company": "Evil Inc"}"#],
            &["good", "{}"],
        ),
        ("keywords are an or", "- foo\n- bar", &["a foo", "bar"], &["baz"]),
        ("keyword alone", "evil", &["x evil y"], &["good"]),
        ("keyword with wildcard", "- 'a*z'", &["x a to z y"], &["z a"]),
        ("keyword with one character", "- 'a?z'", &["xabzx"], &["az"]),
        ("keyword that is a number", "- 4711", &["pid 4711", r#"{"LogonId": "4711"}"#], &["471"]),
        (
            "all keywords",
            "'|all':\n  - foo\n  - bar",
            &["bar foo", r#"{"CommandLine": "foo", "Image": "bar"}"#],
            &["foo", "bar"],
        ),
        ("all keywords with contains", "'|contains|all': [foo, bar]", &["bar foo"], &["foo"]),
        ("keyword as an expression", "'|re': 'f[o0]{2}'", &["xf0oy"], &["fo", "FOO"]),
        ("keyword or map", "- evil\n- User: root", &["evil", r#"{"User": "root"}"#], &["good"]),
        ("keyword does not see how it was captured", "- exec", &["execute"], &["x"]),
        ("keyword with quotes", "- \"o'clock\"", &["five O'CLOCK"], &["clock"]),
        ("keyword in the user of the parent", "- SYSTEM", &[r#"{"ParentUser": "NT AUTHORITY\\SYSTEM"}"#], &["sys"]),
    ]);
}

#[test]
fn places_and_all() {
    run(&[
        ("contains", "CommandLine|contains: b", &["abc", "B"], &["ac", "{}"]),
        ("contains a list", "CommandLine|contains: [x, y]", &["ax", "ya"], &["a"]),
        ("contains all", "CommandLine|contains|all: [x, y]", &["y-x"], &["x", "y"]),
        ("all before contains", "CommandLine|all|contains: [x, y]", &["y-x"], &["x"]),
        ("startswith", "CommandLine|startswith: ab", &["AB", "abc"], &["xab"]),
        ("startswith a list", "CommandLine|startswith: [ab, cd]", &["abx", "cd"], &["xcd"]),
        (
            "endswith",
            r"Image|endswith: '\cmd.exe'",
            &[r#"{"Image": "C:\\CMD.EXE"}"#],
            &[r#"{"Image": "cmd.exe"}"#, r#"{"Image": "C:\\cmd.exe.bak"}"#],
        ),
        ("endswith a list", r"Image|endswith: ['\a', '\b']", &[r#"{"Image": "C:\\b"}"#], &[r#"{"Image": "C:\\c"}"#]),
        ("contains with a wildcard inside", "CommandLine|contains: 'a*b'", &["xa12by"], &["ba"]),
        ("startswith with a wildcard inside", "CommandLine|startswith: 'a?c'", &["abcd"], &["ac", "xabc"]),
        ("endswith with a wildcard inside", "CommandLine|endswith: 'a?c'", &["xabc"], &["abcx"]),
        ("contains what has its stars already", "CommandLine|contains: '*b*'", &["abc"], &["ac"]),
        ("contains an escaped star", r"CommandLine|contains: '\*'", &["a*b"], &["ab"]),
        ("contains nothing is any text", "CommandLine|contains: ''", &["", "a"], &["{}"]),
        ("contains a number", "CommandLine|contains: 12", &["x123"], &["1 2"]),
        ("contains a backslash at its end", r"CommandLine|contains: 'temp\'", &[r"C:\Temp\x"], &["temp"]),
        ("all of equal values", "CommandLine|all: ['a*', '*b']", &["a..b", "ab"], &["a", "b"]),
        ("all with null", "CommandLine|all: ['a*', null]", &[], &["a", "{}"]),
        ("trailing spaces count", "CommandLine|endswith: ' -x '", &["a -x "], &["a -x"]),
    ]);
}

#[test]
fn cased() {
    run(&[
        ("cased equal", "CommandLine|cased: Ab", &["Ab"], &["ab", "AB"]),
        ("cased contains", "CommandLine|contains|cased: Ab", &["xAbx"], &["xabx"]),
        ("contains cased", "CommandLine|cased|contains: Ab", &["xAbx"], &["xabx"]),
        ("cased startswith", "CommandLine|startswith|cased: Ab", &["Abx"], &["abx"]),
        ("cased endswith", "CommandLine|endswith|cased: aB", &["xaB"], &["xab"]),
        ("cased wildcard", "CommandLine|cased: 'A?c*'", &["Abcd"], &["abcd"]),
        ("cased all", "CommandLine|contains|all|cased: [A, b]", &["bA"], &["ba"]),
        ("cased keyword", "'|cased': [Evil]", &["xEvil"], &["evil"]),
    ]);
}

#[test]
fn expressions_and_networks() {
    run(&[
        ("expression is cased and unanchored", "CommandLine|re: 'b+c'", &["abbcd"], &["ABBC", "bd", "{}"]),
        ("expression with anchors", "CommandLine|re: '^a.*z$'", &["abcz"], &["xaz", "azx"]),
        ("expression keeps backslashes", r"CommandLine|re: '\\\\host\\\d+'", &[r"\\host\12"], &[r"\host\12"]),
        ("expression keeps stars", r"CommandLine|re: 'a\*b?'", &["a*", "a*b"], &["ab"]),
        ("expressions are an or", "CommandLine|re: ['^a', 'z$']", &["ab", "yz"], &["b"]),
        ("all expressions", "CommandLine|re|all: ['^a', 'z$']", &["abz"], &["a", "z"]),
        (
            "i folds ASCII alone",
            "CommandLine|re|i: '^[a-k]s\u{e9}$'",
            &["KS\u{e9}", "as\u{e9}"],
            &["\u{212a}s\u{e9}", "a\u{17f}\u{e9}", "as\u{c9}"],
        ),
        (
            "quoted in an expression",
            r"CommandLine|re: '^\Qa.b{\E\h{2}\R?x\Z'",
            &["a.b{\t x", "a.b{  \r\nx\n"],
            &["acb{  x"],
        ),
        ("braces in an expression", "CommandLine|re: '[$]{env:x}{2}'", &["${env:x}}"], &["${env:x}", "env:x"]),
        ("i", "CommandLine|re|i: 'abc'", &["xABCx"], &["ab"]),
        ("no m", "CommandLine|re: '^b$'", &["b"], &["a\nb"]),
        ("m", "CommandLine|re|m: '^b$'", &["b", "a\nb\nc"], &["ab"]),
        ("no s", "CommandLine|re: 'a.b'", &["axb"], &["a\nb"]),
        ("s", "CommandLine|re|s: 'a.b'", &["axb", "a\nb"], &["ab"]),
        ("i and s", "CommandLine|re|i|s: 'a.b'", &["A\nB"], &["ab"]),
        ("i, m and s", "CommandLine|re|i|m|s: '^b.c$'", &["a\nB\nC\nd"], &["abc"]),
        ("flags inside", "CommandLine|re: '(?i)abc'", &["ABC"], &["ab"]),
        ("a word's start is a bracket", r"CommandLine|re: 'a\<b'", &["a<b"], &["a b", "b"]),
        ("two signs in a class", "CommandLine|re: '^[a&&b]$'", &["a", "b", "&"], &["c"]),
        ("letters are ASCII", r"CommandLine|re: '^\w+\d$'", &["ab1"], &["é1", "a\u{661}"]),
        ("a line end at the end", "CommandLine|re: 'b$'", &["ab", "ab\n"], &["ab\n\n", "b c"]),
        ("expression with quotes", "CommandLine|re: \"it's\"", &["it's"], &["its"]),
        (
            "address in a network",
            "CommandLine|cidr: 10.0.0.0/8",
            &["10.1.2.3", "10.0.0.0"],
            &["11.0.0.1", "x", "", "{}", "10.1.2.3x"],
        ),
        (
            "networks are an or",
            "CommandLine|cidr: [192.168.0.0/16, '10.0.0.0/8']",
            &["192.168.7.7", "10.9.9.9"],
            &["172.16.0.1"],
        ),
        (
            "network with bits that are no byte",
            "CommandLine|cidr: 192.168.4.0/22",
            &["192.168.7.255"],
            &["192.168.8.0"],
        ),
        ("network of IPv6", "CommandLine|cidr: 'fe80::/10'", &["fe80::1", "FEBF::1"], &["fec0::1", "10.0.0.1"]),
        ("one address", "CommandLine|cidr: 127.0.0.1/32", &["127.0.0.1"], &["127.0.0.2"]),
    ]);
}

#[test]
fn encodings() {
    run(&[
        ("base64", "CommandLine|base64: foobar", &["Zm9vYmFy"], &["foobar", "xZm9vYmFy"]),
        ("base64 contains", "CommandLine|base64|contains: foobar", &["-e Zm9vYmFy"], &["foobar"]),
        ("base64 with its end", "CommandLine|base64|contains: fo", &["x Zm8= y"], &["x Zm8 y"]),
        (
            "base64offset contains, every offset",
            "CommandLine|base64offset|contains: /bin/bash",
            &["x L2Jpbi9iYXNo", "y 9iaW4vYmFzaA", "z vYmluL2Jhc2g"],
            &["/bin/bash"],
        ),
        (
            "base64offset of two values",
            "CommandLine|base64offset|contains: [http, ftpx]",
            &["aHR0c", "h0dH", "odHRw"],
            &["http"],
        ),
        (
            "base64offset all",
            "CommandLine|base64offset|contains|all: [foobar, '12345']",
            &["Zm9vYmFyMTIzNDU="],
            &["Zm9vYmFy"],
        ),
        ("wide and base64", "CommandLine|wide|base64|contains: cmd", &["YwBtAGQA"], &["Y21k"]),
        (
            "utf16le and base64offset",
            "CommandLine|utf16le|base64offset|contains: cmd",
            &["YwBtAGQA", "MAbQBkA"],
            &["cmd"],
        ),
        (
            "wide and base64offset",
            "CommandLine|wide|base64offset|contains: IEX",
            &["-enc SQBFAFgA", "kARQBYA"],
            &["IEX"],
        ),
        ("utf16be and base64", "CommandLine|utf16be|base64|contains: cmd", &["AGMAbQBk"], &["YwBtAGQA"]),
        ("utf16 and base64", "CommandLine|utf16|base64|contains: cmd", &["//5jAG0AZAA="], &["YwBtAGQA"]),
        ("base64 of a value with a space", "CommandLine|base64|contains: 'a b'", &["YSBi"], &["a b"]),
        ("base64 takes an escaped star as it is", r"CommandLine|base64: 'a\*b'", &["YSpi"], &[r"YVwqYg=="]),
        ("base64 of a backslash", r"CommandLine|base64: 'a\\b'", &["YVxi"], &["YVxcYg=="]),
    ]);
}

#[test]
fn spellings_of_options() {
    run(&[
        ("windash", "CommandLine|windash: -a", &["-a", "/a", "\u{2013}a", "\u{2014}a", "\u{2015}A"], &["a", "+a"]),
        ("windash from a slash", "CommandLine|windash: /a", &["-a", "/a"], &["a"]),
        (
            "windash contains",
            "CommandLine|windash|contains: ' -f '",
            &["x -f y", "x /F y", "x \u{2014}f y"],
            &["x-f y", "x f y"],
        ),
        ("contains windash", "CommandLine|contains|windash: ' -f '", &["x -f y", "x /f y"], &["x f y"]),
        (
            "contains all windash",
            "CommandLine|contains|all|windash: [' -a', ' -b']",
            &["x /a -b", "x -b \u{2013}a"],
            &["x /a", "x -b"],
        ),
        (
            "every option by itself",
            "CommandLine|windash: -a -b",
            &["-a -b", "/a -b", "-a /b", "\u{2015}a \u{2013}b"],
            &["-a", "a b"],
        ),
        ("a dash in a word stays", "CommandLine|windash: a-b", &["a-b"], &["a/b"]),
        ("a dash before a blank stays", "CommandLine|windash: a - b", &["a - b"], &["a / b"]),
        ("windash endswith", "CommandLine|windash|endswith: ' -x'", &["p /x"], &["p /xy"]),
        ("windash cased", "CommandLine|windash|contains|cased: -A", &["x /A"], &["x /a"]),
        (
            "windash and base64offset",
            "CommandLine|windash|base64offset|contains: -abcdef",
            &["LWFiY2RlZg", "L2FiY2RlZg"],
            &["-abcdef"],
        ),
    ]);
}

#[test]
fn presence_references_and_numbers() {
    run(&[
        ("exists", "CommandLine|exists: true", &["x", ""], &["{}"]),
        ("exists not", "CommandLine|exists: false", &["{}"], &["x", ""]),
        ("a number exists", "ProcessId|exists: true", &[r#"{"ProcessId": 1}"#], &["{}"]),
        (
            "fieldref",
            "CommandLine|fieldref: ParentCommandLine",
            &[r#"{"CommandLine": "A", "ParentCommandLine": "a"}"#],
            &[r#"{"CommandLine": "a", "ParentCommandLine": "b"}"#, "a", "{}"],
        ),
        (
            "fieldref folds ASCII only",
            "CommandLine|fieldref: ParentCommandLine",
            &[r#"{"CommandLine": "É a", "ParentCommandLine": "É A"}"#],
            &[r#"{"CommandLine": "é", "ParentCommandLine": "É"}"#],
        ),
        (
            "fieldref cased",
            "CommandLine|fieldref|cased: ParentCommandLine",
            &[r#"{"CommandLine": "a", "ParentCommandLine": "a"}"#],
            &[r#"{"CommandLine": "A", "ParentCommandLine": "a"}"#],
        ),
        (
            "fieldref startswith",
            "CommandLine|fieldref|startswith: Image",
            &[r#"{"CommandLine": "C:\\x -a", "Image": "c:\\X"}"#],
            &[r#"{"CommandLine": "x", "Image": "y"}"#, "x"],
        ),
        (
            "fieldref endswith",
            "Image|fieldref|endswith: OriginalFileName",
            &[r#"{"Image": "C:\\Cmd.exe", "OriginalFileName": "cmd.EXE"}"#],
            &[r#"{"Image": "C:\\x.exe", "OriginalFileName": "cmd.exe"}"#],
        ),
        (
            "fieldref contains",
            "CommandLine|fieldref|contains: User",
            &[r#"{"CommandLine": "net user Bob /add", "User": "bob"}"#],
            &["net user bob"],
        ),
        (
            "fieldref neq",
            "Image|fieldref|neq: ParentImage",
            &[r#"{"Image": "a", "ParentImage": "b"}"#, "{}"],
            &[r#"{"Image": "a", "ParentImage": "A"}"#],
        ),
        (
            "fieldref of numbers",
            "ProcessId|fieldref: ParentProcessId",
            &[r#"{"ProcessId": 7, "ParentProcessId": 7}"#],
            &[r#"{"ProcessId": 7, "ParentProcessId": 8}"#, "{}"],
        ),
        ("fieldref or", "CommandLine|fieldref: [User, Company]", &[r#"{"CommandLine": "a", "Company": "a"}"#], &["a"]),
        ("lt", "ProcessId|lt: 5", &[r#"{"ProcessId": 4}"#], &[r#"{"ProcessId": 5}"#, "{}"]),
        ("lte", "ProcessId|lte: 5", &[r#"{"ProcessId": 5}"#], &[r#"{"ProcessId": 6}"#, "{}"]),
        ("gt", "ProcessId|gt: 5", &[r#"{"ProcessId": 6}"#], &[r#"{"ProcessId": 5}"#, "{}"]),
        ("gte", "ProcessId|gte: '5'", &[r#"{"ProcessId": 5}"#], &[r#"{"ProcessId": 4}"#, "{}"]),
        ("gt a real number", "ProcessId|gt: 4.5", &[r#"{"ProcessId": 5}"#], &[r#"{"ProcessId": 4}"#]),
        (
            "a range",
            "ProcessId|gte: 4\nProcessId|lt: 6",
            &[r#"{"ProcessId": 4}"#, r#"{"ProcessId": 5}"#],
            &[r#"{"ProcessId": 6}"#, r#"{"ProcessId": 3}"#],
        ),
        ("neq text", "CommandLine|neq: a", &["b", "{}", ""], &["A"]),
        ("neq list", "CommandLine|neq: [a, b]", &["c"], &["a", "B"]),
        ("neq number", "ProcessId|neq: 4", &[r#"{"ProcessId": 5}"#, "{}"], &[r#"{"ProcessId": 4}"#]),
    ]);
}

#[test]
fn placeholders() {
    run(&[
        (
            "expand",
            "User|expand: '%admins%'",
            &[r#"{"User": "ROOT"}"#, r#"{"User": "admin7"}"#],
            &[r#"{"User": "bob"}"#, r#"{"User": "%admins%"}"#],
        ),
        (
            "expand inside",
            "CommandLine|expand: 'run %tools% now'",
            &["run nmap now", "run NC.EXE now"],
            &["run x now"],
        ),
        ("expand twice", "CommandLine|expand: '%tools% %tools%'", &["nmap nc.exe", "nmap nmap"], &["nmap"]),
        ("expand contains", "CommandLine|expand|contains: '%tools%'", &["x nmap y"], &["x"]),
        ("contains expand", "CommandLine|contains|expand: '%tools%'", &["x nmap y"], &["x"]),
        ("without expand it is text", "CommandLine: '%tools%'", &["%tools%"], &["nmap"]),
        (
            "an escaped percent sign is text",
            r"CommandLine|expand: '\%tools% %tools%'",
            &["%tools% nmap"],
            &["nmap nmap"],
        ),
        ("a percent sign alone is text", "CommandLine|expand: '100% %tools%'", &["100% nmap"], &["100 nmap"]),
    ]);
}

#[test]
fn fields_of_windows_events() {
    run(&[
        (
            "parent",
            "ParentImage|endswith: x\nParentCommandLine: y",
            &[r#"{"ParentImage": "ax", "ParentCommandLine": "y"}"#],
            &["y"],
        ),
        (
            "version resource",
            "OriginalFileName: a\nDescription: b\nProduct: c\nCompany: d",
            &[r#"{"OriginalFileName": "A", "Description": "B", "Product": "C", "Company": "D"}"#],
            &[r#"{"OriginalFileName": "A"}"#],
        ),
        (
            "integrity",
            "IntegrityLevel: [High, System]",
            &[r#"{"IntegrityLevel": "high"}"#, r#"{"EventID": 4688, "MandatoryLabel": "S-1-16-16384"}"#],
            &[r#"{"IntegrityLevel": "Medium"}"#],
        ),
        (
            "integrity by its SID",
            "MandatoryLabel: S-1-16-12288",
            &[r#"{"MandatoryLabel": "S-1-16-12288"}"#],
            &[r#"{"MandatoryLabel": "S-1-16-8192"}"#],
        ),
        (
            "session and directory",
            "LogonId: '0x3e7'\nCurrentDirectory: 'C:\\Windows\\'",
            &[r#"{"LogonId": "0x3E7", "CurrentDirectory": "C:\\Windows\\"}"#],
            &[r#"{"LogonId": "0x3e7"}"#],
        ),
        (
            "hashes",
            "Hashes|contains: 'IMPHASH=00112233445566778899aabbccddeeff'",
            &[r#"{"Hashes": "MD5=1,IMPHASH=00112233445566778899AABBCCDDEEFF"}"#],
            &[r#"{"Hashes": "MD5=1"}"#],
        ),
        (
            "one hash",
            "Imphash: 00112233445566778899aabbccddeeff",
            &[
                r#"{"Hashes": "SHA1=2,IMPHASH=00112233445566778899AABBCCDDEEFF"}"#,
                r#"{"Imphash": "00112233445566778899aabbccddeeff"}"#,
            ],
            &[r#"{"Hashes": "MD5=00112233445566778899AABBCCDDEEFF"}"#],
        ),
        (
            "names of event 4688",
            "NewProcessName|endswith: x\nProcessCommandLine: y\nParentProcessName: z\nSubjectUserName: u",
            &[
                r#"{"NewProcessName": "ax", "CommandLine": "y", "ParentProcessName": "z", "SubjectUserName": "u"}"#,
                r#"{"Image": "ax", "CommandLine": "y", "ParentImage": "z", "User": "u"}"#,
            ],
            &["y"],
        ),
        (
            "pids of event 4688",
            "NewProcessId: 420\nParentProcessId: 16",
            &[
                r#"{"EventID": 4688, "NewProcessId": "0x1a4", "ProcessId": "0x10"}"#,
                r#"{"EventID": 1, "ProcessId": "420", "ParentProcessId": "16"}"#,
            ],
            &[r#"{"EventID": 4688, "NewProcessId": "0x10", "ProcessId": "0x1a4"}"#],
        ),
        (
            "number of the event",
            "EventID: 1",
            &[r#"{"EventID": 1}"#, r#"{"EventID": "1"}"#],
            &[r#"{"EventID": 5}"#, r#"{"EventID": "4688"}"#],
        ),
        (
            "numbers of events",
            "EventID: [4688, 4689]\nCommandLine: a",
            &[r#"{"EventID": 4688, "CommandLine": "a"}"#],
            &[r#"{"EventID": 4688}"#],
        ),
        (
            "identity",
            "ProcessGuid: '{0123abcd-4567-89ab-cdef-0123456789AB}'",
            &[r#"{"ProcessGuid": "{0123ABCD-4567-89AB-CDEF-0123456789ab}"}"#],
            &[r#"{"ProcessGuid": "{1123ABCD-4567-89AB-CDEF-0123456789ab}"}"#],
        ),
        (
            "user of the parent",
            "ParentUser|contains: AUTHORI",
            &[r#"{"ParentUser": "NT AUTHORITY\\SYSTEM"}"#],
            &[r#"{"User": "NT AUTHORITY\\SYSTEM"}"#],
        ),
        (
            "our own columns",
            "command_line|contains: a\nmemfd: true\neuid: 0",
            &[r#"{"command_line": "xa", "memfd": true, "euid": 0}"#],
            &[r#"{"command_line": "xa", "euid": 0}"#],
        ),
        (
            "session number",
            "TerminalSessionId: 1",
            &[r#"{"TerminalSessionId": "1"}"#, r#"{"TerminalSessionId": 1}"#],
            &["{}"],
        ),
        (
            "inside Event.EventData",
            "CommandLine: a",
            &[r#"{"Event": {"System": {"EventID": 1}, "EventData": {"CommandLine": "a"}}}"#],
            &[r#"{"Other": {"CommandLine": "a"}}"#],
        ),
        (
            "inside winlog.event_data",
            "CommandLine: a",
            &[
                r#"{"winlog": {"event_id": "1", "event_data": {"CommandLine": "a"}}}"#,
                r#"{"winlog.event_data.CommandLine": "a"}"#,
            ],
            &["{}"],
        ),
        (
            "as XML becomes JSON",
            "CommandLine: a",
            &[
                r##"{"Event": {"System": {"EventID": {"#text": 1}}, "EventData": {"Data": [{"@Name": "Image", "#text": "i"}, {"@Name": "CommandLine", "#text": "a"}]}}}"##,
            ],
            &["{}"],
        ),
    ]);
}
