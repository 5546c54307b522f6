//! The manifest of a pack: `pack.yaml` gives the rules of its directory, and of those below it, a name and a version.

use std::path::{Path, PathBuf};

use super::super::Refusal;
use super::document::Document;
use super::lists::Lists;
use super::part;
use super::reader::{Fields, Reader};
use super::yaml::{Node, Yaml};

const FIELDS: &[&str] = &["pack", "version", "description", "author"];

/// A pack by its manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pack {
    /// Its name.
    pub name: String,
    /// Its version, as its author counts.
    pub version: String,
    /// What its rules are about.
    pub description: String,
    /// Who wrote it.
    pub author: String,
    /// The directory whose rules it names.
    pub dir: PathBuf,
}

/// The manifest nearest above a file.
pub(super) fn of<'a>(packs: &'a [Pack], file: &Path) -> Option<&'a Pack> {
    packs.iter().filter(|pack| file.starts_with(&pack.dir)).max_by_key(|pack| pack.dir.components().count())
}

/// The pack's name for the rules of a file: the manifest's, else that of its directory.
pub(super) fn name(packs: &[Pack], file: &Path) -> String {
    of(packs, file).map_or_else(|| part(file.parent()), |pack| pack.name.clone())
}

/// Reads a manifest.
pub(super) fn read(document: &Document) -> Result<Pack, Vec<Refusal>> {
    let lists = Lists::default();
    let mut reader = Reader::new(document, &lists);
    let pack = reader.pack(&document.root);
    reader.finish(pack)
}

impl Reader<'_> {
    fn pack(&mut self, root: &Node) -> Option<Pack> {
        let Yaml::Map(pairs) = &root.value else { return None };
        self.known_keys(pairs, FIELDS, "a pack");
        let fields = Fields { pairs, at: root.referenced };
        let (name, version) = (self.required_text(&fields, "pack"), self.required_text(&fields, "version"));
        let (description, author) = (self.text(&fields, "description"), self.text(&fields, "author"));
        let dir = self.file.parent().map(Path::to_path_buf).unwrap_or_default();
        Some(Pack { name: name?, version: version?, description, author, dir })
    }
}
