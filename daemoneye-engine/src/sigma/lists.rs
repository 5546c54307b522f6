//! The user's values for placeholders: list files as rule directories have them, or one map from names to values.

use std::collections::BTreeMap;
use std::path::Path;

use super::document::{text, texts};
use super::folder;
use crate::detect::rules::yaml::{Yaml, read};

/// The values by name of placeholder.
pub type Lists = BTreeMap<String, Vec<String>>;

/// Reads the lists of a file, or of every file below a folder.
///
/// # Errors
/// The first file that could not be read, and why: a list that is left out would change what rules mean.
pub fn read_lists(path: &Path) -> Result<Lists, String> {
    let (files, problems) = folder::files(path);
    if let Some((file, problem)) = problems.first() {
        return Err(format!("{}: {problem}", file.display()));
    }
    let mut lists = Lists::new();
    for file in files {
        let unreadable = |message: String| format!("{}: {message}", file.path.display());
        let node = read(&file.text).map_err(|error| unreadable(error.message))?;
        let Yaml::Map(pairs) = &node.value else {
            return Err(unreadable("a file of lists is a map: of names to values, or list: and values:".to_owned()));
        };
        if let Some(name) = text(&node, "list") {
            lists.entry(name).or_default().extend(texts(&node, "values"));
            continue;
        }
        for (name, _) in pairs {
            lists.entry(name.value.clone()).or_default().extend(texts(&node, &name.value));
        }
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_lists_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), "admins: [root, 7]\nservers: web*\n").unwrap();
        std::fs::write(dir.path().join("b.yml"), "list: admins\ndescription: d\nvalues:\n  - alice\n").unwrap();
        let lists = read_lists(dir.path()).unwrap();
        assert_eq!(lists["admins"], ["root", "7", "alice"]);
        assert_eq!(lists["servers"], ["web*"]);
        std::fs::write(dir.path().join("c.yml"), "- x\n").unwrap();
        assert!(read_lists(dir.path()).unwrap_err().contains("c.yml"));
    }
}
