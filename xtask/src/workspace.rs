//! Where the workspace lies and which source files it has.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Directories that hold no production code.
const NOT_PRODUCTION: &[&str] = &["tests", "benches", "examples", "fuzz", "target"];

/// The directory above this crate.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run this with `cargo xtask`")?;
    Path::new(&manifest).parent().map(Path::to_owned).context("xtask lies in no workspace")
}

/// Runs cargo in the workspace and hands back what it printed.
pub(crate) fn cargo(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(cargo_program()).args(arguments).current_dir(root()?).output().context("start cargo")?;
    if !output.status.success() {
        bail!("cargo {} failed:\n{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What git says about the workspace; `None` where there is no git or it refuses.
pub(crate) fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).current_dir(root().ok()?).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The cargo that runs this task, so that the toolchain stays the same.
pub(crate) fn cargo_program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// `cargo metadata` of the workspace's own packages.
pub(crate) fn metadata() -> anyhow::Result<Value> {
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1"])?;
    serde_json::from_str(&text).context("read cargo metadata")
}

/// A production source file.
pub(crate) struct Source {
    /// Relative to the root, with forward slashes.
    pub(crate) path: String,
    /// The lines that are compiled outside tests.
    pub(crate) lines: Vec<String>,
}

/// Any Rust file, tests included.
pub(crate) struct RustFile {
    /// Relative to the root, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every production source file, sorted by path.
pub(crate) fn sources() -> anyhow::Result<Vec<Source>> {
    let production = |file: &RustFile| !file.path.ends_with("/tests.rs");
    let source = |file: RustFile| Source { lines: production_lines(&file.text), path: file.path };
    Ok(read_below(NOT_PRODUCTION)?.into_iter().filter(production).map(source).collect())
}

/// Every Rust file, sorted by path.
pub(crate) fn rust_files() -> anyhow::Result<Vec<RustFile>> {
    read_below(&["target"])
}

fn read_below(skipped: &[&str]) -> anyhow::Result<Vec<RustFile>> {
    let root = root()?;
    let mut files = Vec::new();
    collect(&root, skipped, &mut files)?;
    files.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let relative = path.strip_prefix(&root).unwrap_or(&path);
        Ok(RustFile { path: relative.to_string_lossy().replace('\\', "/"), text })
    };
    files.into_iter().map(read).collect()
}

fn collect(directory: &Path, skipped: &[&str], files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && !skipped.contains(&name.as_str()) {
                collect(&path, skipped, files)?;
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Everything before an inline `#[cfg(test)] mod … {`, which by convention ends a file.
fn production_lines(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let inline_tests = |at: usize| {
        let rest = lines.get(at..).unwrap_or_default();
        let item = rest.iter().skip(1).find(|line| !line.trim_start().starts_with("#["));
        rest.first().is_some_and(|line| *line == "#[cfg(test)]")
            && item.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    };
    let end = (0..lines.len()).find(|at| inline_tests(*at)).unwrap_or(lines.len());
    lines.into_iter().take(end).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_tests_are_cut_off_and_a_test_file_is_not_mistaken_for_them() {
        let inline = "fn a() {}\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(production_lines(inline), ["fn a() {}"]);
        let file = "#[cfg(test)]\nmod tests;\nfn a() {}\n";
        assert_eq!(production_lines(file).len(), 3);
    }
}
