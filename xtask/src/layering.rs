//! Who may depend on whom, where operating systems may differ, and how large the trusted computing base is.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde_json::Value;

use crate::workspace::{self, Source};

/// Every crate with exactly the crates of this workspace that it links.
const EDGES: &[(&str, &[&str])] = &[
    ("collector-core", &["daemoneye-eventbus", "daemoneye-lib"]),
    ("daemoneye-agent", &["daemoneye-engine", "daemoneye-eventbus", "daemoneye-lib"]),
    ("daemoneye-cli", &["daemoneye-eventbus", "daemoneye-lib"]),
    ("daemoneye-engine", &["daemoneye-lib"]),
    ("daemoneye-eventbus", &["daemoneye-lib"]),
    ("daemoneye-lib", &[]),
    ("e2e", &["daemoneye-lib"]),
    ("procmond", &["collector-core", "daemoneye-lib"]),
    ("xtask", &["daemoneye-lib"]),
];

/// Holds how many crates procmond may link; a change may lower it only.
const COUNT_FILE: &str = "xtask/procmond-crates.txt";

/// The count depends on the target; it is taken for the one that is deployed most.
const COUNT_TARGET: &str = "x86_64-unknown-linux-gnu";

/// What must never run with procmond's privileges: SQL, databases, HTTP and TLS, by the crates that everything of the kind needs.
const FORBIDDEN: &[&str] = &[
    "arrow-array",
    "datafusion",
    "h2",
    "hyper",
    "native-tls",
    "openssl",
    "parquet",
    "redb",
    "reqwest",
    "rusqlite",
    "rustls",
    "sqlparser",
    "tonic",
    "ureq",
];

/// One line per violation.
pub(crate) fn violations() -> anyhow::Result<Vec<String>> {
    let mut violations = edges(&workspace::metadata()?)?;
    violations.extend(scattered_systems()?);
    violations.extend(procmond_tree()?);
    Ok(violations)
}

fn edges(metadata: &Value) -> anyhow::Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut violations = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let found: BTreeSet<&str> = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|dependency| ours.contains(dependency))
            .collect();
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else {
            violations.push(format!("crate {name} has no entry in the table of edges"));
            continue;
        };
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        violations.extend(found.difference(&allowed).map(|to| format!("{name} must not depend on {to}")));
        violations
            .extend(allowed.difference(&found).map(|to| format!("{name} no longer depends on {to}: remove the edge")));
    }
    Ok(violations)
}

/// A difference between operating systems is a swapped file behind one `mod.rs`.
fn scattered_systems() -> anyhow::Result<Vec<String>> {
    let ours = workspace::sources()?.into_iter().filter(|source| !source.path.starts_with("xtask/"));
    Ok(ours.flat_map(|source| scattered(&source)).collect())
}

fn scattered(source: &Source) -> Vec<String> {
    if source.path.ends_with("/mod.rs") && swaps_files(&source.lines) {
        return Vec::new();
    }
    let names = |line: &str| line.contains("target_os") && !line.trim_start().starts_with("//");
    let found = source.lines.iter().enumerate().filter(|(_, line)| names(line));
    found.map(|(at, _)| format!("{}:{}: target_os outside a mod.rs that swaps files", source.path, at + 1)).collect()
}

/// Whether a module of another file is declared under a condition.
fn swaps_files(lines: &[String]) -> bool {
    let mut conditional = false;
    lines.iter().map(|line| line.trim_start()).any(|line| {
        let declares = line.ends_with(';') && line.split(' ').any(|word| word == "mod");
        let swaps = conditional && declares;
        conditional = line.starts_with("#[cfg") || (conditional && line.starts_with("#["));
        swaps
    })
}

fn procmond_tree() -> anyhow::Result<Vec<String>> {
    let tree = workspace::cargo(&[
        "tree",
        "-p",
        "procmond",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--target",
        COUNT_TARGET,
    ])?;
    let crates: BTreeSet<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    let path = workspace::root()?.join(COUNT_FILE);
    let stored: usize = std::fs::read_to_string(&path)
        .with_context(|| format!("read {COUNT_FILE}"))?
        .trim()
        .parse()
        .with_context(|| format!("{COUNT_FILE} holds no number"))?;
    let mut violations = forbidden(&crates);
    violations.extend(raised(stored, &committed_counts()));
    let count = crates.len();
    violations.extend(match count.cmp(&stored) {
        std::cmp::Ordering::Equal => Vec::new(),
        std::cmp::Ordering::Greater => {
            vec![format!("procmond links {count} crates, {stored} are allowed; every one runs with its privileges")]
        }
        std::cmp::Ordering::Less => {
            vec![format!("procmond links only {count} crates now; write {count} into {COUNT_FILE} to keep it so")]
        }
    });
    Ok(violations)
}

/// What the file held where git knows it: in the last two commits, and where this branch left the main one. Empty without git.
fn committed_counts() -> Vec<usize> {
    let base = workspace::git(&["merge-base", "HEAD", "origin/HEAD"]).unwrap_or_default();
    let commits = ["HEAD", "HEAD^", base.trim()].into_iter().filter(|commit| !commit.is_empty());
    commits
        .filter_map(|commit| workspace::git(&["show", &format!("{commit}:{COUNT_FILE}")])?.trim().parse().ok())
        .collect()
}

/// Whoever adds a crate must not raise the bar with it.
fn raised(stored: usize, committed: &[usize]) -> Option<String> {
    let least = committed.iter().min().filter(|least| stored > **least)?;
    Some(format!("{COUNT_FILE} was raised from {least} to {stored}; it only goes down"))
}

/// `crates` as `cargo tree` prints them: name, a space, version.
fn forbidden(crates: &BTreeSet<&str>) -> Vec<String> {
    let names = crates.iter().filter_map(|line| line.split(' ').next());
    names
        .filter(|name| FORBIDDEN.contains(name))
        .map(|name| format!("procmond links {name}: SQL, databases, HTTP and TLS stay out of it"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_database_or_tls_in_procmond_is_named() {
        let found = forbidden(&BTreeSet::from(["redb v4.4.0", "rustix v1.1.0", "rustls v0.23.0"]));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_count_that_was_raised_with_its_file_is_named() {
        assert_eq!((raised(120, &[120, 121]), raised(119, &[120]), raised(120, &[])), (None, None, None));
        assert!(raised(121, &[122, 120]).unwrap().contains("from 120 to 121"));
    }

    #[test]
    fn an_operating_system_is_named_only_where_files_are_swapped_however_many_lines_it_takes() {
        let told = |path: &str, text: &str| {
            scattered(&Source { path: path.to_owned(), lines: text.lines().map(str::to_owned).collect() }).len()
        };
        let condition = "#[cfg(\n    target_os = \"linux\"\n)]\nfn only_there() {}";
        assert_eq!(told("house/src/roof.rs", condition), 1);
        assert_eq!(told("house/src/roof/mod.rs", condition), 1);
        let swap = "#[cfg(target_os = \"linux\")]\n#[path = \"tiles.rs\"]\npub mod system;";
        assert_eq!(told("house/src/roof/mod.rs", swap), 0);
        assert_eq!(told("house/src/roof.rs", swap), 1);
        assert_eq!(told("house/src/roof.rs", "// target_os is for mod.rs"), 0);
    }

    #[test]
    fn an_edge_too_many_and_one_too_few_are_both_named() {
        let package = |name: &str, to: &[&str]| {
            let dependencies: Vec<Value> = to.iter().map(|to| json!({"name": to, "kind": null})).collect();
            json!({"name": name, "dependencies": dependencies})
        };
        let metadata = json!({"packages": [
            package("daemoneye-lib", &["daemoneye-engine"]),
            package("daemoneye-engine", &[]),
        ]});
        let found = edges(&metadata).unwrap();
        assert_eq!(
            found,
            [
                "daemoneye-lib must not depend on daemoneye-engine",
                "daemoneye-engine no longer depends on daemoneye-lib: remove the edge",
            ]
        );
    }
}
