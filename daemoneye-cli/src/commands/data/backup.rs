//! `data backup DIR`: the agent sends its files, this program writes them. The agent's jail lets it write nowhere else than
//! its own directories, and this user may not read those.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Component, Path};

use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{DataBackup, FilePart, operator_request::Verb, operator_response::Answer};

use crate::agent::Session;
use crate::error::CliError;
use crate::private;
use crate::render::{self, Progress, Unit, bytes};
use crate::settings::Settings;

/// Where segments lie in a data directory; there also when there are none.
const SEGMENTS_DIR: &str = "segments";

pub(super) async fn run(settings: &Settings, dir: &Path) -> Result<Exit, CliError> {
    if settings.store.is_some() {
        let text = "a copied store is backed up by copying its directory: nothing changes it";
        return Err(CliError::Usage(text.to_owned()));
    }
    let session = Session::open(settings).await?;
    prepare(dir)?;
    let mut place = Place { dir, whole: false };
    let copied = copy(&session, dir).await;
    session.close().await;
    let document = copied?;
    place.whole = true;
    render::document(settings.format, &document.json)?;
    for path in &document.damaged {
        eprintln!("degraded: {path} is not as it was registered; `daemoneye-cli data fsck` says more");
    }
    Ok(if document.sound && document.damaged.is_empty() { Exit::Ok } else { Exit::Degraded })
}

/// Says what was left behind when the copy fails or is interrupted.
struct Place<'a> {
    dir: &'a Path,
    whole: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // Nothing was sent, and what is named is empty as before.
        if !self.whole
            && std::fs::remove_dir(self.dir.join(SEGMENTS_DIR)).is_ok()
            && is_empty(self.dir).is_ok_and(|empty| empty)
        {
            return;
        }
        if !self.whole {
            eprintln!("the copy in {} is incomplete; remove it", self.dir.display());
        }
    }
}

struct Copied {
    json: serde_json::Value,
    sound: bool,
    damaged: Vec<String>,
}

/// An empty directory, this user's alone.
fn prepare(dir: &Path) -> Result<(), CliError> {
    let io = |what: &str| {
        let what = format!("{what} {}", dir.display());
        move |source| CliError::Io { what, source }
    };
    private::create_dir(dir).map_err(io("create"))?;
    if !is_empty(dir).map_err(io("list"))? {
        return Err(CliError::Usage(format!("{} is not empty; name a new directory", dir.display())));
    }
    private::create_dir(&dir.join(SEGMENTS_DIR)).map_err(io("create segments in"))
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    Ok(std::fs::read_dir(dir)?.next().is_none())
}

async fn copy(session: &Session, dir: &Path) -> Result<Copied, CliError> {
    let mut answers = session.ask(Verb::DataBackup(DataBackup {})).await?;
    let mut progress = Progress::new("backup", Unit::Bytes);
    let (mut writing, mut damaged) = (Writing::new(dir), Vec::new());
    let (mut done, mut total) = (0_u64, 0);
    loop {
        match answers.next().await?.and_then(|response| response.answer) {
            Some(Answer::Progress(so_far)) => total = so_far.total,
            Some(Answer::FilePart(part)) => {
                done = done.saturating_add(part.bytes.len() as u64);
                if !writing.take(&part)? {
                    damaged.push(part.path);
                }
            }
            Some(Answer::Data(shown)) => {
                drop(progress);
                writing.finish()?;
                let json = super::document(&shown)?;
                eprintln!("{} files, {} in {}", writing.files, bytes(done), dir.display());
                return Ok(Copied { json, sound: shown.sound, damaged });
            }
            _ => return Err(CliError::AgentAnswer("a part of a file")),
        }
        progress.show(done, total);
    }
}

/// The file that is being written.
struct Writing<'a> {
    dir: &'a Path,
    open: Option<Open>,
    files: u64,
}

struct Open {
    path: String,
    file: File,
    hasher: blake3::Hasher,
}

impl<'a> Writing<'a> {
    const fn new(dir: &'a Path) -> Self {
        Self { dir, open: None, files: 0 }
    }

    /// Writes a part, and syncs the file after its last one; false when its bytes are not those that the agent has on record.
    fn take(&mut self, part: &FilePart) -> Result<bool, CliError> {
        let io = |source| CliError::Io { what: format!("write {}", self.dir.join(&part.path).display()), source };
        let mut open = match self.open.take() {
            Some(open) if open.path == part.path => open,
            Some(_) => return Err(CliError::AgentAnswer("the rest of a file")),
            None => {
                let place = self.dir.join(inside(&part.path)?);
                let file = private::create(&place).map_err(io)?;
                Open { path: part.path.clone(), file, hasher: blake3::Hasher::new() }
            }
        };
        open.file.write_all(&part.bytes).map_err(io)?;
        open.hasher.update(&part.bytes);
        if !part.last {
            self.open = Some(open);
            return Ok(true);
        }
        open.file.sync_all().map_err(io)?;
        self.files = self.files.saturating_add(1);
        Ok(open.hasher.finalize().as_bytes().as_slice() == part.blake3.as_slice())
    }

    fn finish(&self) -> Result<(), CliError> {
        if self.open.is_some() {
            return Err(CliError::AgentAnswer("the end of a file"));
        }
        let sync = |dir: &Path| {
            private::sync_dir(dir).map_err(|source| CliError::Io { what: format!("sync {}", dir.display()), source })
        };
        sync(&self.dir.join(SEGMENTS_DIR)).and_then(|()| sync(self.dir))
    }
}

/// A name from the other side: one that leads out of the directory is nothing that an agent of ours says.
fn inside(path: &str) -> Result<&Path, CliError> {
    let path = Path::new(path);
    let mut parts = path.components();
    let is_name = |part: Option<Component<'_>>| matches!(part, Some(Component::Normal(_)));
    let known = match parts.next() {
        Some(Component::Normal(first)) if first == SEGMENTS_DIR => is_name(parts.next()) && parts.next().is_none(),
        first => is_name(first) && parts.next().is_none(),
    };
    if known { Ok(path) } else { Err(CliError::AgentAnswer("a file of a backup")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(path: &str, bytes: &[u8], last: bool, whole: &[u8]) -> FilePart {
        FilePart { path: path.into(), bytes: bytes.to_vec(), last, blake3: blake3::hash(whole).as_bytes().to_vec() }
    }

    #[test]
    fn what_the_agent_sends_stays_inside_the_directory() {
        for path in ["state.redb", "segments/a.parquet"] {
            assert!(inside(path).is_ok(), "{path}");
        }
        for path in ["", "/etc/passwd", "../x", "segments/../../x", "segments", "segments/a/b", "a/b", "./x/.."] {
            assert!(inside(path).is_err() || path == "segments", "{path}");
        }
    }

    #[test]
    fn a_file_comes_in_parts_and_another_hash_than_the_registered_one_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut writing = Writing::new(dir.path());
        assert!(writing.take(&part("a", b"one", false, b"")).unwrap());
        assert!(writing.finish().is_err(), "a file that has no end yet");
        assert!(writing.take(&part("b", b"x", true, b"x")).is_err(), "another file in the middle of one");
        let mut writing = Writing::new(dir.path());
        assert!(writing.take(&part("c", b"one", false, b"")).unwrap());
        assert!(writing.take(&part("c", b"two", true, b"onetwo")).unwrap());
        assert!(!writing.take(&part("d", b"rotten", true, b"whole")).unwrap());
        assert_eq!(std::fs::read(dir.path().join("c")).unwrap(), b"onetwo");
        assert_eq!(writing.files, 2);
    }
}
