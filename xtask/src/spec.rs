//! Holds the promises to their tests: every test that SPECIFICATION.md or docs/threats.md names must stand in the tree, in the
//! module that is named, and every row must name one or say that it is pending.

use std::collections::BTreeSet;

use anyhow::Context as _;

use crate::workspace::{self, RustFile};

/// Documents whose tables end with a column of tests.
const DOCUMENTS: &[&str] = &["SPECIFICATION.md", "docs/threats.md"];

/// Lines above a `fn` in which its `#[test]` is looked for: other attributes may stand between.
const ATTRIBUTE_LINES: usize = 5;

/// What an unkept promise says instead of a test.
const PENDING: &str = "*pending*";

/// A test in the tree.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Test {
    /// Name of its directory below the root, which is the package's name.
    package: String,
    /// Parts of its path that are modules: `src/a/mod.rs` and `tests/a.rs` have `a`.
    modules: Vec<String>,
    name: String,
}

/// One line per name without a test and per row without a name.
pub(crate) fn violations() -> anyhow::Result<Vec<String>> {
    let files = workspace::rust_files()?;
    let tests: BTreeSet<Test> = files.iter().flat_map(tests_of).collect();
    let packages: BTreeSet<&str> = files.iter().filter_map(|file| file.path.split('/').next()).collect();
    let root = workspace::root()?;
    let mut violations = Vec::new();
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(root.join(document)).with_context(|| format!("read {document}"))?;
        for (at, line) in text.lines().enumerate() {
            let place = format!("{document}:{}", at + 1);
            violations.extend(judge(line, &tests, &packages).into_iter().map(|what| format!("{place}: {what}")));
        }
    }
    Ok(violations)
}

fn tests_of(file: &RustFile) -> Vec<Test> {
    let mut parts = file.path.trim_end_matches(".rs").split('/');
    let package = parts.next().unwrap_or_default();
    // `a_tests.rs` is the file of `a::tests`.
    let modules: Vec<&str> = parts
        .filter(|part| !matches!(*part, "src" | "mod" | "lib" | "main"))
        .flat_map(|part| match part.strip_suffix("_tests") {
            Some(tested) => vec![tested, "tests"],
            None => vec![part],
        })
        .collect();
    let by_main = by_main(&file.text);
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    let mut tests = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function(line) else { continue };
        let above = lines.get(at.saturating_sub(ATTRIBUTE_LINES)..at).unwrap_or_default();
        let own = above.iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        if own.into_iter().any(|line| {
            line.starts_with("#[test]")
                || (line.starts_with("// test, run by main") && by_main.contains(&format!("(\"{name}\",{name}")))
                || line.starts_with("#[tokio::test")
        }) {
            let inline = lines.iter().take(at).any(|line| *line == "mod tests {").then_some("tests");
            let modules = modules.iter().copied().chain(inline).map(str::to_owned).collect();
            tests.push(Test { package: package.to_owned(), modules, name: name.to_owned() });
        }
    }
    tests
}

/// The table of a program that runs its tests by itself, without white space.
fn by_main(text: &str) -> String {
    let table = text.split_once("\nconst TESTS: ").and_then(|(_, rest)| rest.split_once("];"));
    table.map(|(rows, _)| rows.split_whitespace().collect()).unwrap_or_default()
}

/// The name of the function that begins on this line.
fn function(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    rest.split_once('(').map(|(name, _)| name)
}

/// What is wrong with one line of a document.
fn judge(line: &str, tests: &BTreeSet<Test>, packages: &BTreeSet<&str>) -> Vec<String> {
    let Some(row) = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else { return Vec::new() };
    let cells: Vec<&str> = row.split(" | ").collect();
    let cell = match cells.last() {
        Some(cell) if cells.len() > 1 && *cell != "test" => cell,
        _ => return Vec::new(),
    };
    let mut named = 0;
    let mut violations = Vec::new();
    for name in cell.split('`').skip(1).step_by(2) {
        match resolve(name, tests, packages) {
            None => {}
            Some(true) => named += 1,
            Some(false) => violations.push(format!("no test `{name}` stands in the tree")),
        }
    }
    if named == 0 && violations.is_empty() && !line.contains(PENDING) {
        violations.push("the row names no test and is not pending".to_owned());
    }
    violations
}

/// Whether a backticked text names a test that exists; `None` when it names none at all.
fn resolve(name: &str, tests: &BTreeSet<Test>, packages: &BTreeSet<&str>) -> Option<bool> {
    let path = name.replacen(' ', "::", 1);
    let mut parts: Vec<&str> = path.split("::").collect();
    let test = parts.pop()?;
    let (package, modules) = parts.split_first()?;
    if !packages.contains(package) {
        // A path that begins with no package is a test whose package was forgotten.
        return path.contains("tests::").then_some(false);
    }
    let within = |found: &Test| {
        // In this order; modules between them may be left out.
        let mut left = found.modules.iter();
        found.package == *package && found.name == test && modules.iter().all(|module| left.any(|part| part == module))
    };
    Some(tests.iter().any(within))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> BTreeSet<Test> {
        let text = "#[cfg(test)]\nmod tests {\n    #[tokio::test]\n    // why\n    async fn it_holds() {}\n    fn helper() {}\n}\n";
        tests_of(&RustFile { path: "house/src/roof/mod.rs".to_owned(), text: text.to_owned() }).into_iter().collect()
    }

    #[test]
    fn only_a_test_in_the_named_module_of_the_named_package_counts() {
        let (tests, packages) = (known(), BTreeSet::from(["house"]));
        let found = |name: &str| resolve(name, &tests, &packages);
        assert_eq!(found("house::roof::tests::it_holds"), Some(true));
        assert_eq!(found("house roof::it_holds"), Some(true));
        assert_eq!(found("house::cellar::tests::it_holds"), Some(false));
        assert_eq!(found("house::roof::tests::helper"), Some(false));
        assert_eq!(found("house::tests::roof::it_holds"), Some(false), "another order");
        assert_eq!(found("roof::tests::it_holds"), Some(false));
        assert_eq!(found("degraded"), None);
    }

    #[test]
    fn a_test_that_main_runs_counts_only_when_it_stands_in_the_table() {
        let of = "// test, run by main\nfn it_holds() {}\n// test, run by main\nfn nobody_calls_it() {}\n";
        let text = format!(
            "{of}\nconst TESTS: &[(&str, fn())] = &[\n    (\n        \"it_holds\",\n        it_holds,\n    ),\n];\n"
        );
        let found = tests_of(&RustFile { path: "house/tests/roof.rs".to_owned(), text });
        assert_eq!(found.iter().map(|test| test.name.as_str()).collect::<Vec<_>>(), ["it_holds"]);
    }

    #[test]
    fn a_row_without_a_test_is_told_unless_it_is_pending() {
        let (tests, packages) = (known(), BTreeSet::from(["house"]));
        let told = |line: &str| judge(line, &tests, &packages).len();
        assert_eq!(told("| It is dry | `house::roof::tests::it_holds` |"), 0);
        assert_eq!(told("| It is dry | `house::roof::tests::it_is_dry`, `house roof::it_holds` |"), 1);
        assert_eq!(told("| It is warm | some tests |"), 1);
        assert_eq!(told("| It is warm | *pending*: heating |"), 0);
        assert_eq!(told("| promise | test |"), 0);
        assert_eq!(told("|---|---|"), 0);
        assert_eq!(told("text with a | bar"), 0);
    }
}
