use super::translated;

/// (expression, flags, texts that it is found in, texts that it is not): each as `grep -P` of PCRE2 without UTF decides where the texts
/// are ASCII.
type Case = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

fn decided(cases: &[Case]) {
    for (pattern, flags, yes, no) in cases {
        let ours = translated(pattern, flags).unwrap_or_else(|problem| panic!("{pattern}: {problem}"));
        let regex = regex::Regex::new(&ours).unwrap_or_else(|error| panic!("{pattern} → {ours}: {error}"));
        for (texts, wanted) in [(yes, true), (no, false)] {
            for text in *texts {
                assert_eq!(regex.is_match(text), wanted, "{pattern} ({flags}) → {ours} in {text:?}");
            }
        }
    }
}

#[test]
fn what_both_read_alike_stays_readable() {
    for (from, flags, to) in [
        ("", "", ""),
        ("a+?b*?c??d{2,3}?", "", "a+?b*?c??d{2,3}?"),
        ("(a|b)c", "", "(?:a|b)c"),
        ("[a-z]", "", "[a-z]"),
        (r"\\cmd\.exe", "", r"\\cmd\.exe"),
        ("power.*shell+", "i", "(?i-u:power).*(?i-u:shel)(?i-u:l)+"),
        (r"a\.b", "i", r"(?i-u:a\.b)"),
        (r"\d\W", "", "[0-9][^0-9A-Z_a-z]"),
        ("a$", "", r"a\n?\z"),
        ("^a$", "m", "(?m:^)a(?m:$)"),
        ("[a-c]", "i", "[A-Ca-c]"),
    ] {
        assert_eq!(translated(from, flags).unwrap(), to, "{from}");
    }
}

#[test]
fn braces_and_escapes_are_those_of_pcre() {
    decided(&[
        ("a{", "", &["a{"], &["a"]),
        ("{a}", "", &["{a}"], &["a"]),
        ("a{b}", "", &["a{b}"], &["ab"]),
        (r"${env:x}", "m", &[], &["a"]),
        (r"\${env:x}", "", &["${env:x}"], &["env:x"]),
        ("a{2}b{1,}", "", &["aab"], &["ab"]),
        ("x{a,1}", "", &["x{a,1}"], &["x"]),
        ("a]b}", "", &["a]b}"], &["ab"]),
        (r"\Qa.b*\E+c", "", &["a.b**c"], &["aab*c", "a.bc"]),
        (r"\Qa\b", "", &[r"a\b"], &["a"]),
        (r"a\Eb", "", &["ab"], &["aEb"]),
        (r"\e\a\f\t\cA", "", &["\u{1b}\u{7}\u{c}\t\u{1}"], &["ea"]),
        (r"\x41\x{42}\o{103}\x9", "", &["ABC\t"], &["ABC"]),
        (r"x\0121", "", &["x\n1"], &["x12"]),
        (r"\h\H", "", &["\tx", " x", "\u{a0}x"], &["\t ", "xx", "\nx"]),
        (r"\v\V", "", &["\nx", "\rx", "\u{2028}x"], &["xx", " x"]),
        (r"\N", "s", &["x"], &["\n"]),
        (r"a\Kb", "", &["ab"], &["b"]),
        (r"a(?#not this)b", "", &["ab"], &["a(?#not this)b"]),
        (r"(?<x>a)(?'y'b)(?P<z>c)", "", &["abc"], &["ab"]),
        (r"\<a\>\-\_", "", &["<a>-_"], &["a"]),
        (r"\bk\b", "", &["a k b", "ék"], &["ak"]),
    ]);
}

#[test]
fn ends_are_those_of_pcre() {
    decided(&[
        ("a$", "", &["a", "a\n"], &["a\n\n", "ab"]),
        (r"a\Z", "m", &["a", "a\n"], &["a\nb"]),
        (r"a\z", "", &["a"], &["a\n"]),
        ("(a$|b$)", "", &["a\n", "xb"], &["ab c"]),
        ("(a$|b)c", "", &["bc"], &["ac", "a\nc"]),
        ("a$", "m", &["a\nb", "a", "a\n\n"], &["ab"]),
        ("^b", "m", &["a\nb", "b"], &["ab"]),
        ("^(x|yz)", "m", &["a\nyz"], &["ax"]),
        ("^b", "", &["b"], &["a\nb"]),
        (r"a\R", "", &["a\r\n", "a\n", "a\u{85}"], &["a"]),
        (r"a\Rb", "", &["a\r\nb", "a\rb"], &["a\n\nb", "a\r\n\rb"]),
        (r"a\R+b", "", &["a\r\n\nb"], &["ab"]),
        ("a.b", "", &["axb"], &["a\nb"]),
        ("a.b", "s", &["a\nb"], &["ab"]),
        ("(?s)a.b|c(?-s).d", "", &["a\nb", "cxd"], &["c\nd"]),
    ]);
}

#[test]
fn only_ascii_folds() {
    decided(&[
        ("Kisk", "i", &["kISK", "KISK"], &["\u{212a}isk", "ki\u{17f}k"]),
        ("É", "i", &["É"], &["é"]),
        ("[k-s]+x", "i", &["Kx", "sX"], &["\u{212a}x", "\u{17f}x"]),
        ("^[^k]$", "i", &["\u{212a}", "x"], &["k", "K"]),
        ("[[:upper:]]", "i", &["a"], &["1", "é"]),
        ("[[:^lower:]]", "i", &["1"], &["a", "A"]),
        (r"\p{Lu}", "i", &["A", "É"], &["a", "é"]),
        ("a(?i)b|c", "", &["aB", "C"], &["AB"]),
        ("(?i:a)b", "", &["Ab"], &["AB"]),
        ("(?i)a(?-i)b", "", &["Ab"], &["aB"]),
        ("((?i)a)b", "", &["Ab"], &["aB"]),
        ("-enc?", "i", &["-EN", "-Enc"], &["-e"]),
    ]);
}

#[test]
fn classes_are_those_of_pcre() {
    decided(&[
        ("^[a&&b]$", "", &["a", "&", "b"], &["c"]),
        ("^[a~~b]$", "", &["~"], &["c"]),
        ("^[a[b]$", "", &["[", "a"], &["]"]),
        ("^[]a]$", "", &["]", "a"], &["b"]),
        ("^[^]a]$", "", &["b"], &["]", "a"]),
        (r"^[\w-z]$", "", &["-", "z", "_"], &["."]),
        (r"^[a-\d]$", "", &["-", "5", "a"], &["b"]),
        ("^[+--]$", "", &["+", ",", "-"], &["."]),
        ("^[a-]$", "", &["a", "-"], &["b"]),
        (r"^[^\S]$", "", &[" ", "\t"], &["x"]),
        (r"^[\Q]^\E-]$", "", &["]", "^", "-"], &["Q", "\\"]),
        (r"^[\b\101\x42]$", "", &["\u{8}", "A", "B"], &["b"]),
        (r"^[\h\v]$", "", &["\t", "\n"], &["h"]),
        ("^[[:alpha:]-z]$", "", &["-", "b"], &["5"]),
        ("^[[:punct:][:digit:]]$", "", &["!", "~", "5"], &["a", " "]),
        (r"^[\p{Lu}a]$", "", &["É", "a"], &["b"]),
        (r"^\p{^L}$", "", &["1"], &["a"]),
        ("^[:alpha:]$", "", &["a", ":"], &["b"]),
        (r"\pL\p{Lu}", "", &["aB"], &["ab"]),
    ]);
}

#[test]
fn what_cannot_be_said_is_refused_by_its_name() {
    for (pattern, flags, word) in [
        ("a++", "", "possessive"),
        ("a{2}+", "", "possessive"),
        ("a?+", "", "possessive"),
        (r"\p{Greek}", "", "Greek"),
        (r"\Bx", "", r"\B"),
        (r"\X", "", r"\X"),
        (r"\C", "", r"\C"),
        (r"\Ga", "", r"\G"),
        (r"\u0041", "", r"\u"),
        (r"\N{U+41}", "", r"\N"),
        (r"\R\n", "", r"\R"),
        (r"\R{2}x", "", r"\R"),
        (r"[\R]", "", r"\R"),
        ("(?x)a b", "", "(?x"),
        ("(?i-u:a)", "", "(?u"),
        ("(?R)", "", "(?R"),
        ("(?1)", "", "(?1"),
        ("(?=a)", "", "look-ahead"),
        ("(?<!a)", "", "look-behind"),
        ("(?>a)", "", "atomic"),
        ("(?|a|b)", "", "branches"),
        ("(?(1)a)", "", "condition"),
        ("(*UTF)a", "", "verb"),
        (r"(a)\1", "", "backreference"),
        (r"\g{1}", "", "backreference"),
        (r"\k<x>", "", "backreference"),
        ("(?P=x)", "", "backreference"),
        ("a{,2}", "", "versions"),
        ("a{1, 2}", "", "versions"),
        (r"a$\n", "", "$"),
        ("^$", "m", "^ with m"),
        ("^x*", "m", "^ with m"),
        ("[[.a.]]", "", "collating"),
        ("[[:foo:]]", "", "[:foo:]"),
        ("[a", "", "unclosed"),
        ("(a", "", "unclosed"),
        ("a)", "", "parenthesis"),
        ("*a", "", "nothing"),
        ("[z-a]", "", "order"),
        (r"a\", "", "end"),
    ] {
        let refused = translated(pattern, flags).expect_err(pattern);
        assert!(refused.contains(word), "{pattern}: {refused}");
    }
}
