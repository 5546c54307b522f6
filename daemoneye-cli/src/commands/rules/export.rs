//! `rules export`: the loaded rules and the lists, as they are in force, into a new directory.

use std::io::Write as _;
use std::path::Path;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{FilePart, RulesExport, operator_request::Verb, operator_response::Answer};

use crate::agent::Session;
use crate::error::CliError;
use crate::private;
use crate::settings::Settings;

pub(super) async fn run(settings: &Settings, dir: &Path) -> Result<Exit, CliError> {
    let session = Session::open(settings).await?;
    let io = |what: &str| {
        let what = format!("{what} {}", dir.display());
        move |source| CliError::Io { what, source }
    };
    private::create_dir(dir).map_err(io("create"))?;
    if std::fs::read_dir(dir).map_err(io("list"))?.next().is_some() {
        return Err(CliError::Usage(format!("{} is not empty; name a new directory", dir.display())));
    }
    let mut answers = session.ask(Verb::RulesExport(RulesExport {})).await?;
    let mut files = 0_u64;
    loop {
        match answers.next().await?.and_then(|response| response.answer) {
            Some(Answer::FilePart(part)) => {
                write(dir, &part)?;
                files = files.saturating_add(1);
            }
            Some(Answer::Data(_)) => break,
            _ => return Err(CliError::AgentAnswer("a rule")),
        }
    }
    drop(answers);
    session.close().await;
    eprintln!("{files} files in {}", dir.display());
    Ok(Exit::Ok)
}

fn write(dir: &Path, part: &FilePart) -> Result<(), CliError> {
    let io = |path: &Path| {
        let what = format!("write {}", path.display());
        move |source| CliError::Io { what, source }
    };
    let path = dir.join(inside(&part.path)?);
    if blake3::hash(&part.bytes).as_bytes().as_slice() != part.blake3.as_slice() {
        return Err(CliError::AgentAnswer("a whole rule"));
    }
    if let Some(pack) = path.parent() {
        private::create_dir(pack).map_err(io(pack))?;
    }
    let mut file = private::create(&path).map_err(io(&path))?;
    file.write_all(&part.bytes).and_then(|()| file.sync_all()).map_err(io(&path))
}

/// A pack and a file in it, and nothing that leads elsewhere.
fn inside(path: &str) -> Result<&Path, CliError> {
    let is_name = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']);
    match path.split_once('/') {
        Some((pack, file)) if is_name(pack) && is_name(file) && !file.contains('/') => Ok(Path::new(path)),
        _ => Err(CliError::AgentAnswer("the name of a file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_outside_of_the_directory() {
        assert!(inside("linux/a.yaml").is_ok());
        for path in ["../a.yaml", "linux/../a", "/etc/passwd", "a.yaml", "linux/a/b", "linux/", "linux\\x/a"] {
            assert!(inside(path).is_err(), "{path}");
        }
    }
}
