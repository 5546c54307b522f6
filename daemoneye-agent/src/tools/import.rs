//! `import`: Sigma rules as ours, one JSON object a line for each, with the rule file that it became.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use daemoneye_engine::sigma::{self, Conversion, Verdict};
use daemoneye_lib::exit::Exit;
use serde_json::json;

use super::{confine, ended, lists, present};
use crate::error::AgentError;
use crate::jail;

/// Converts everything below `folder`.
pub(crate) fn run(folder: &Path, lists_at: Option<&Path>) -> Result<Exit, AgentError> {
    present("Sigma rules", "--sigma", folder)?;
    let lists = lists(lists_at)?;
    let dropped = confine(&[folder.to_owned()])?;
    jail::close(dropped)?;
    let (files, problems) = sigma::files(folder);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut is_whole = problems.is_empty();
    for (file, problem) in problems {
        let reason = json!({ "line": 0, "column": 0, "message": problem });
        let refused = Verdict::Refused.as_str();
        say(&mut out, &json!({ "file": file, "verdict": refused, "reasons": [reason], "title": "", "sigma_id": "" }))?;
    }
    let names: BTreeMap<&Path, &str> = files.iter().map(|file| (file.path.as_path(), file.name.as_str())).collect();
    let conversions = sigma::convert(&files, &lists);
    let of_files = conversions.chunk_by(|a, b| a.file == b.file);
    for (conversion, several) in of_files.flat_map(|of| of.iter().map(|conversion| (conversion, of.len() > 1))) {
        is_whole &= conversion.verdict != Verdict::Refused;
        let name = names.get(conversion.file.as_path()).copied().unwrap_or_default();
        say(&mut out, &shown(conversion, name, several))?;
    }
    out.flush().map_err(|source| AgentError::io("write the result", "", source))?;
    Ok(ended(is_whole))
}

fn say(out: &mut impl io::Write, line: &serde_json::Value) -> Result<(), AgentError> {
    writeln!(out, "{line}").map_err(|source| AgentError::io("write the result", "", source))
}

fn shown(conversion: &Conversion, name: &str, several: bool) -> serde_json::Value {
    let rule = conversion.rule.as_ref();
    json!({
        "file": conversion.file,
        "output": rule.map(|_| output(name, several.then_some(conversion.document))),
        "title": conversion.title,
        "sigma_id": conversion.sigma_id,
        "id": conversion.id,
        "verdict": conversion.verdict.as_str(),
        "reasons": conversion.reasons,
        "sql": rule.map(|rule| &rule.rule.sql),
        "yaml": rule.map(|rule| &rule.source),
    })
}

/// The path of the rule file below the directory that it is written to.
fn output(name: &str, document: Option<usize>) -> PathBuf {
    let path = Path::new(name);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let file = document.map_or_else(|| format!("{stem}.yaml"), |document| format!("{stem}-{}.yaml", document + 1));
    path.with_file_name(file)
}
