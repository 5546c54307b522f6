//! Writes `docs/reference` from the tables that the programs themselves use, so that it cannot be wrong.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use daemoneye_lib::columns::SCHEMA_VERSION;
use daemoneye_lib::config::{COMPONENTS, Component};
use daemoneye_lib::exit::Exit;
use daemoneye_lib::metrics::METRICS;
use daemoneye_lib::tables::{TABLES, Table};

use crate::workspace;

const NOTE: &str = "<!-- Written by `cargo xtask docs` from the tables in the code; edit those. -->\n\n";

/// Writes every file.
pub(crate) fn write() -> anyhow::Result<()> {
    for (path, text) in files()? {
        let directory = path.parent().context("a generated file has a directory")?;
        std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// One line per file that differs from what the tables give.
pub(crate) fn differences() -> anyhow::Result<Vec<String>> {
    let differs = |(path, text): (PathBuf, String)| {
        // A checkout on Windows may have turned the line ends.
        let same = std::fs::read_to_string(&path).is_ok_and(|stored| stored.replace("\r\n", "\n") == text);
        (!same).then(|| format!("{} is out of date; run `cargo xtask docs`", path.display()))
    };
    Ok(files()?.into_iter().filter_map(differs).collect())
}

fn files() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let directory = workspace::root()?.join("docs/reference");
    Ok(vec![
        (directory.join("tables.md"), tables()?),
        (directory.join("config.md"), settings()?),
        (directory.join("exit-codes.md"), exit_codes()?),
        (directory.join("metrics.md"), metrics()?),
    ])
}

/// A pipe would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn tables() -> anyhow::Result<String> {
    let mut out = format!("# Tables and their columns\n\n{NOTE}");
    write!(
        out,
        "What `SELECT` can name; the same list can be asked for: `SELECT * FROM tables`, `SELECT * FROM columns WHERE table_name = \
         'processes'`. Schema version {SCHEMA_VERSION}. Any column may be NULL where its value is not known; of a process always known \
         are `time`, `entity_id` and `pid`, and `name` but for a `start` of `capture = 'partial'` whose process had ended before its name was \
         read.\n\n\
         `processes_at('2026-01-31T12:00Z')` stands in FROM like a table: the rows of `process_lifetimes` of those that lived at \
         that instant (started then or before, not ended yet). It takes a time as text with modifiers like `datetime(…)`, as in \
         `processes_at('now', '-30 minutes')`, or one bound parameter. An instant in a gap, or before what is kept, gives a degraded \
         answer.\n\n\
         NULL comes first in an ascending ORDER BY and last with DESC, as in SQLite and osquery and unlike in PostgreSQL; \
         `ORDER BY x NULLS LAST` (or `NULLS FIRST`) says otherwise. Text is never made a number or a time unasked: \
         `name = 1` is refused, `CAST(name AS BIGINT) = 1` is not.\n\n\
         Functions of rules and queries alike: `ci_eq(x, 'v', …)`, `ci_contains`, `ci_starts`, `ci_ends` and `ci_like` are TRUE where one \
         of the values fits, with ASCII letters folded; `cs_eq` to `cs_like` regard case. `re_match(x, 'pattern'[, 'flags'])` finds an \
         expression anywhere (flags of `imsx`), `cidr(x, '10.0.0.0/8', …)` an address in a network. NULL does not fit, so \
         `NOT ci_eq(NULL, 'v')` is TRUE where `NOT (NULL = 'v')` is unknown. Values are literals; in a pattern of LIKE, `ci_like` and \
         `cs_like` `%` is any run, `_` one character, and `\\` takes the next one as it is. `ci_fold(x)` is a text with its ASCII letters \
         small, for comparing two columns.\n"
    )?;
    for table in TABLES {
        table_columns(&mut out, table)?;
    }
    Ok(out)
}

fn table_columns(out: &mut String, table: &Table) -> anyhow::Result<()> {
    writeln!(out, "\n## {}\n\n{}.\n", table.name, table.meaning)?;
    out.push_str("| column | type | unit | sensitivity | meaning | example |\n|---|---|---|---|---|---|\n");
    for column in table.columns() {
        let (unit, meaning, example) = (cell(column.unit), cell(column.meaning), cell(column.example));
        let (name, kind, sensitivity) = (column.name, column.kind.sql(), column.sensitivity.words());
        writeln!(out, "| `{name}` | {kind} | {unit} | {sensitivity} | {meaning} | `{example}` |")?;
    }
    Ok(())
}

fn settings() -> anyhow::Result<String> {
    let mut out = format!("# Settings\n\n{NOTE}");
    out.push_str(
        "Flags beat environment variables beat `~/.config/<program>/config.{yaml,toml,json}` beat \
         `/etc/<program>/config.{yaml,toml,json}` beat defaults. `--config FILE` (or `<PREFIX>CONFIG`) stands in for both \
         directories. Unknown keys and variables are refused. `daemoneye-cli config show --origin` tells where each value \
         came from.\n",
    );
    for component in COMPONENTS {
        component_settings(&mut out, component)?;
    }
    Ok(out)
}

fn component_settings(out: &mut String, component: &Component) -> anyhow::Result<()> {
    writeln!(out, "\n## {}\n", component.name)?;
    out.push_str("| key | variable | takes | default | meaning |\n|---|---|---|---|---|\n");
    for setting in component.settings {
        let takes = cell(&setting.kind.describe(setting.unit));
        let default = match setting.fallback.describe() {
            text if text.is_empty() => "unset".to_owned(),
            text => format!("`{}`", cell(&text)),
        };
        let (key, variable, doc) = (setting.key, component.variable(setting.key), cell(setting.doc));
        writeln!(out, "| `{key}` | `{variable}` | {takes} | {default} | {doc} |")?;
    }
    Ok(())
}

fn exit_codes() -> anyhow::Result<String> {
    let mut out = format!("# Exit codes\n\n{NOTE}The same for all three programs.\n\n| code | meaning |\n|---|---|\n");
    for exit in Exit::ALL {
        writeln!(out, "| {} | {} |", exit.code(), cell(exit.meaning()))?;
    }
    Ok(out)
}

fn metrics() -> anyhow::Result<String> {
    let mut out = format!("# Metrics\n\n{NOTE}");
    out.push_str(
        "Every number of `daemoneye-cli health --format json`, by a stable name. The place is a JSON pointer into that \
         document; `*` stands for every element of a list, which the member in brackets tells apart. Counters begin at \
         zero when the program that counts starts, unless the meaning says otherwise; `null` means not known now.\n\n\
         | metric | kind | unit | place | meaning |\n|---|---|---|---|---|\n",
    );
    for metric in METRICS {
        let label = if metric.label.is_empty() { String::new() } else { format!(" [{}]", metric.label) };
        let (name, kind, unit, place) = (metric.name, metric.kind.as_str(), metric.unit, metric.pointer);
        writeln!(out, "| `{name}` | {kind} | {unit} | `{place}`{label} | {} |", cell(metric.meaning))?;
    }
    Ok(out)
}
