//! Settings: one table per program, merged from flags, environment, files and defaults.
//!
//! Precedence: flags, then `<PREFIX>…` variables, then `~/.config/<component>/config.{yaml,toml,json}`, then
//! `/etc/<component>/config.…`, then the table's defaults. A file named by `--config` (or `<PREFIX>CONFIG`) stands in for
//! both directories. The merged value is walked against the table, so every mistake is reported at once, and a key that
//! the table does not have is refused, never ignored.
//!
//! Nothing here is process-global: environment and directories are arguments ([`Sources`]), so tests run side by side.

mod error;
mod file;
mod flag;
mod load;
mod places;
mod table;

pub use error::{ConfigError, ConfigErrors};
pub use flag::Flag;
pub use load::load;
pub use places::Places;
pub use table::{
    AGENT, CLI, COMPONENTS, Component, Fallback, Kind, LEAST_ALERT_BYTES, LEAST_RETENTION_DAYS, PROCMOND, Setting,
};

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Origin of a value that nobody set.
pub const DEFAULT_ORIGIN: &str = "default";

/// Where settings come from. Every part can be replaced in a test.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `(key, value)` of the flags that were given, such as `("data_dir", "/tmp/d")`; a list key may stand several times.
    pub flags: Vec<(String, String)>,
    /// `--config`: stands in for the files in the configuration directories.
    pub config_file: Option<PathBuf>,
    /// The environment; variables without the component's prefix are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// Directories of this user and host.
    pub places: Places,
}

impl Sources {
    /// The environment and directories of this process, without flags.
    #[must_use]
    pub fn of_process() -> Self {
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let places = Places::of_environment(&environment);
        Self { flags: Vec::new(), config_file: None, environment, places }
    }

    /// Only `file`, as `config validate` reads it: no environment, no directories.
    #[must_use]
    pub fn of_file(file: PathBuf) -> Self {
        Self { config_file: Some(file), places: Places::of_process(), ..Self::default() }
    }
}

/// A checked value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Boolean(bool),
    Integer(u64),
    Paths(Vec<PathBuf>),
    Text(String),
    Unset,
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Paths(paths) => {
                let joined: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
                f.write_str(&joined.join(":"))
            }
            Self::Text(value) => f.write_str(value),
            Self::Unset => Ok(()),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) value: Value,
    pub(crate) origin: String,
}

/// One line of `config show --origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Dotted key.
    pub key: &'static str,
    /// Effective value; empty when unset.
    pub value: String,
    /// A flag, a variable, a file, or [`DEFAULT_ORIGIN`].
    pub origin: String,
    /// What the value would be if nobody set it, as the documentation words it.
    pub default: String,
    /// What it does.
    pub doc: &'static str,
}

impl Entry {
    /// Whether nobody set it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.origin == DEFAULT_ORIGIN
    }
}

/// The effective settings of one program. Every key of its table has a value here.
///
/// Asking for a key that the table does not have, or as another kind, is a mistake in the program: it fails in debug
/// builds and reads as unset otherwise.
#[derive(Debug, Clone)]
pub struct Config {
    component: &'static Component,
    values: BTreeMap<&'static str, Held>,
}

impl Config {
    pub(crate) const fn new(component: &'static Component, values: BTreeMap<&'static str, Held>) -> Self {
        Self { component, values }
    }

    /// Whose settings these are.
    #[must_use]
    pub const fn component(&self) -> &'static Component {
        self.component
    }

    fn held(&self, key: &str) -> &Value {
        debug_assert!(self.values.contains_key(key), "{} has no setting {key}", self.component.name);
        self.values.get(key).map_or(&Value::Unset, |held| &held.value)
    }

    /// A text or choice; empty when unset.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        match self.held(key) {
            Value::Text(text) => text,
            other => {
                debug_assert_eq!(*other, Value::Unset, "{key} is no text");
                ""
            }
        }
    }

    /// An integer in the unit of the table; 0 when unset.
    #[must_use]
    pub fn integer(&self, key: &str) -> u64 {
        self.optional_integer(key).unwrap_or_default()
    }

    /// An integer that may be unset.
    #[must_use]
    pub fn optional_integer(&self, key: &str) -> Option<u64> {
        match self.held(key) {
            Value::Integer(value) => Some(*value),
            other => {
                debug_assert_eq!(*other, Value::Unset, "{key} is no integer");
                None
            }
        }
    }

    /// True or false.
    #[must_use]
    pub fn boolean(&self, key: &str) -> bool {
        match self.held(key) {
            Value::Boolean(value) => *value,
            other => {
                debug_assert_eq!(*other, Value::Unset, "{key} is no boolean");
                false
            }
        }
    }

    /// A path; empty when unset.
    #[must_use]
    pub fn path(&self, key: &str) -> PathBuf {
        self.optional_path(key).unwrap_or_default()
    }

    /// A path that may be unset.
    #[must_use]
    pub fn optional_path(&self, key: &str) -> Option<PathBuf> {
        match self.held(key) {
            Value::Text(text) if !text.is_empty() => Some(PathBuf::from(text)),
            _ => None,
        }
    }

    /// A list of paths.
    #[must_use]
    pub fn paths(&self, key: &str) -> Vec<PathBuf> {
        match self.held(key) {
            Value::Paths(paths) => paths.clone(),
            other => {
                debug_assert_eq!(*other, Value::Unset, "{key} is no list of paths");
                Vec::new()
            }
        }
    }

    /// An integer setting in milliseconds.
    #[must_use]
    pub fn duration_ms(&self, key: &str) -> Duration {
        Duration::from_millis(self.integer(key))
    }

    /// Every setting in the order of the table.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.component
            .settings
            .iter()
            .filter_map(|setting| {
                let held = self.values.get(setting.key)?;
                Some(Entry {
                    key: setting.key,
                    value: held.value.to_string(),
                    origin: held.origin.clone(),
                    default: setting.fallback.describe(),
                    doc: setting.doc,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
