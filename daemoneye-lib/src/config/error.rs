//! What can be wrong with settings. Values are shown only for keys of the table: what stands under an unknown key may be a
//! secret that was put in the wrong place.

use std::fmt;
use std::path::PathBuf;

/// One mistake.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not YAML, TOML or JSON.
    #[error("{}:{line}:{column}: {message}; correct the file", path.display())]
    CorruptFile {
        /// Which file.
        path: PathBuf,
        /// From 1; 0 where the parser does not know.
        line: u64,
        /// From 1; 0 where the parser does not know.
        column: u64,
        /// What the parser said.
        message: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}; name another file or change its permissions", path.display())]
    IoFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is too large to be meant.
    #[error("{} has more than {limit} bytes; it is not a configuration file", path.display())]
    LimitFile {
        /// Which file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file's name does not tell its format.
    #[error("{}: the name of a configuration file ends in .yaml, .yml, .toml or .json", path.display())]
    MisuseFormat {
        /// Which file.
        path: PathBuf,
    },
    /// One value where the table has a group of keys.
    #[error("{key} from {origin} is one value; it is a group of keys, such as {key}.{member}")]
    MisuseGroup {
        /// Dotted name of the group.
        key: String,
        /// File or flag.
        origin: String,
        /// A key of the group, without the group's name.
        member: String,
    },
    /// A key that the table does not have.
    #[error("unknown key {key:?} from {origin}; {}", hint(nearest))]
    MisuseKey {
        /// Dotted key.
        key: String,
        /// File or flag.
        origin: String,
        /// The known key that it resembles.
        nearest: Option<String>,
    },
    /// A setting has neither a value nor a default here.
    #[error("{key} has no default on this host (no home directory is known); set it with {flag} or {variable}")]
    MisuseMissing {
        /// Dotted key.
        key: &'static str,
        /// Its flag.
        flag: String,
        /// Its variable.
        variable: String,
    },
    /// More than one file in one directory.
    #[error("both {} and {} exist; keep one of them", first.display(), second.display())]
    MisuseTwoFiles {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Wrong kind, not one of the choices, or out of range.
    #[error("{key} = {value} from {origin} is refused; it takes {expected}")]
    MisuseValue {
        /// Dotted key.
        key: &'static str,
        /// What was given.
        value: String,
        /// Flag, variable or file.
        origin: String,
        /// What the setting takes.
        expected: String,
    },
    /// A variable with the component's prefix that is no setting.
    #[error("unknown variable {name}; {}", hint(nearest))]
    MisuseVariable {
        /// Its name.
        name: String,
        /// The known variable that it resembles.
        nearest: Option<String>,
    },
    /// A variable's value is not UTF-8.
    #[error("variable {name} is not UTF-8; set it to text or unset it")]
    MisuseVariableText {
        /// Its name.
        name: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    match nearest {
        Some(known) => format!("did you mean {known}?"),
        None => "remove it, or see `config show` for every known one".to_owned(),
    }
}

/// Every mistake that was found, in the order of the layers; never empty.
#[derive(Debug)]
pub struct ConfigErrors {
    /// Name of the component.
    pub component: &'static str,
    /// What is wrong.
    pub errors: Vec<ConfigError>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.errors.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        write!(f, "the configuration of {} has {count} {noun}:", self.component)?;
        for error in &self.errors {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
