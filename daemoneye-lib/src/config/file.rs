//! Finds and parses configuration files. What a parser refuses is reported with file, line and column.

use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use figment::providers::{Format as _, Json, Toml};
use figment::value::{Dict, Value};

use super::error::ConfigError;

/// A configuration has about forty keys; a file above this is a mistake, and reading it would cost memory for nothing.
const LIMIT_BYTES: u64 = 1024 * 1024;

const EXTENSIONS: &[&str] = &["yaml", "yml", "toml", "json"];

/// The one configuration file of `directory`, if there is any.
pub(super) fn find(directory: &Path) -> Result<Option<PathBuf>, ConfigError> {
    let mut found: Option<PathBuf> = None;
    for extension in EXTENSIONS {
        let path = directory.join("config").with_extension(extension);
        match path.symlink_metadata() {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            // What it sets is unknown, so going on without it would be wrong.
            Err(source) => return Err(ConfigError::IoFile { path, source }),
        }
        if let Some(first) = found {
            return Err(ConfigError::MisuseTwoFiles { first, second: path });
        }
        found = Some(path);
    }
    Ok(found)
}

/// The file's top level; an empty file sets nothing.
pub(super) fn read(path: &Path) -> Result<Dict, ConfigError> {
    let text = text(path)?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let value = match extension {
        "yaml" | "yml" => yaml(path, &text)?,
        "toml" => toml(path, &text)?,
        "json" => json(path, &text)?,
        _ => return Err(ConfigError::MisuseFormat { path: path.to_owned() }),
    };
    match value {
        Value::Dict(_, dict) => Ok(dict),
        Value::Empty(..) => Ok(Dict::new()),
        _ => Err(corrupt(path, 1, 1, "the file holds one value, not keys with values")),
    }
}

fn text(path: &Path) -> Result<String, ConfigError> {
    let io = |source| ConfigError::IoFile { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(LIMIT_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > LIMIT_BYTES {
        return Err(ConfigError::LimitFile { path: path.to_owned(), limit: LIMIT_BYTES });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let (line, column) = position(error.as_bytes(), valid);
        corrupt(path, line, column, "not UTF-8")
    })
}

fn yaml(path: &Path, text: &str) -> Result<Value, ConfigError> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Value::from(Dict::new()));
    }
    let options = serde_saphyr::options! { with_snippet: false };
    let value: serde_json::Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        corrupt(path, line, column, &error.without_snippet().to_string())
    })?;
    Value::serialize(value).map_err(|error| corrupt(path, 0, 0, &error.to_string()))
}

fn toml(path: &Path, text: &str) -> Result<Value, ConfigError> {
    Toml::from_str(text).map_err(|error| {
        let (line, column) = error.span().map_or((0, 0), |span| position(text.as_bytes(), span.start));
        corrupt(path, line, column, error.message())
    })
}

fn json(path: &Path, text: &str) -> Result<Value, ConfigError> {
    if text.trim().is_empty() {
        return Ok(Value::from(Dict::new()));
    }
    Json::from_str(text).map_err(|error| corrupt(path, error.line() as u64, error.column() as u64, &error.to_string()))
}

/// Line and column (in characters) of a byte offset, both from 1.
fn position(text: &[u8], offset: usize) -> (u64, u64) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
    let column = String::from_utf8_lossy(before.get(start..).unwrap_or_default()).chars().count() as u64 + 1;
    (line, column)
}

fn corrupt(path: &Path, line: u64, column: u64, message: &str) -> ConfigError {
    // Parsers draw a picture of the place on further lines; one line per mistake is enough here.
    let message = message.lines().next().unwrap_or_default().trim().trim_end_matches('.').to_owned();
    ConfigError::CorruptFile { path: path.to_owned(), line, column, message }
}
