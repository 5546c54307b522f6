//! Merges the layers and walks the result against the table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value as Raw};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::{ConfigError, ConfigErrors};
use super::table::{Component, Fallback, Kind, Setting};
use super::{Config, DEFAULT_ORIGIN, Held, Sources, Value, file};

/// Below this likeness (0 to 1) a suggestion would confuse more than help.
const NEAREST_LIKENESS: f64 = 0.6;

/// Reads every layer of `sources` and checks the result.
///
/// # Errors
/// [`ConfigErrors`] with every mistake that was found in any layer.
pub fn load(component: &'static Component, sources: &Sources) -> Result<Config, ConfigErrors> {
    let mut walk = Walk { component, figment: Figment::new(), errors: Vec::new(), values: BTreeMap::new() };
    walk.files(sources);
    walk.environment(sources);
    walk.flags(sources);
    walk.check();
    walk.defaults(sources);
    if walk.errors.is_empty() {
        Ok(Config::new(component, walk.values))
    } else {
        Err(ConfigErrors { component: component.name, errors: walk.errors })
    }
}

/// One value of one layer; figment keeps the origin beside it through the merge.
struct Layer {
    origin: String,
    value: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.value.clone())]))
    }
}

struct Walk {
    component: &'static Component,
    figment: Figment,
    errors: Vec<ConfigError>,
    values: BTreeMap<&'static str, Held>,
}

impl Walk {
    fn lay(&mut self, origin: &str, key: &str, value: Raw) {
        if let Some(value) = figment::util::nest(key, value).into_dict() {
            let layer = Layer { origin: origin.to_owned(), value };
            self.figment = std::mem::take(&mut self.figment).merge(layer);
        }
    }

    fn files(&mut self, sources: &Sources) {
        let variable = self.component.variable("config");
        let named = sources.config_file.clone().or_else(|| {
            let (_, value) = sources.environment.iter().find(|(name, _)| *name == *variable)?;
            Some(PathBuf::from(value))
        });
        if let Some(path) = named {
            return self.file(&path);
        }
        let roots = [&sources.places.etc, &sources.places.config_home];
        for directory in roots.into_iter().flatten().map(|root| root.join(self.component.name)) {
            match file::find(&directory) {
                Ok(Some(path)) => self.file(&path),
                Ok(None) => {}
                Err(error) => self.errors.push(error),
            }
        }
    }

    fn file(&mut self, path: &Path) {
        match file::read(path) {
            Ok(dict) => {
                let origin = path.display().to_string();
                let mut leaves = Vec::new();
                flatten("", dict, &mut leaves);
                for (key, value) in leaves {
                    self.lay(&origin, &key, value);
                }
            }
            Err(error) => self.errors.push(error),
        }
    }

    fn environment(&mut self, sources: &Sources) {
        let config = self.component.variable("config");
        for (name, value) in &sources.environment {
            let name = name.to_string_lossy();
            if !name.starts_with(self.component.prefix) || name == config {
                continue;
            }
            let settings = self.component.settings;
            let Some(setting) = settings.iter().find(|setting| self.component.variable(setting.key) == name) else {
                self.errors.push(self.unknown_variable(&name));
                continue;
            };
            match value.to_str() {
                Some(text) => self.lay(&name, setting.key, typed(setting.kind, text)),
                None => self.errors.push(ConfigError::MisuseVariableText { name: name.into_owned() }),
            }
        }
    }

    /// All variables begin alike, so only what follows is compared, as a dotted key: one `_` in place of two, or a group's name
    /// that is missing, is the usual slip.
    fn unknown_variable(&self, name: &str) -> ConfigError {
        let given = name.strip_prefix(self.component.prefix).unwrap_or(name).replace("__", ".").to_lowercase();
        let known = self.component.settings.iter().map(|setting| setting.key);
        let nearest = nearest(&given, known.chain(["config"]).map(str::to_owned));
        ConfigError::MisuseVariable {
            name: name.to_owned(),
            nearest: nearest.map(|key| self.component.variable(&key)),
        }
    }

    fn flags(&mut self, sources: &Sources) {
        let mut lists: BTreeMap<&str, Vec<Raw>> = BTreeMap::new();
        for (key, text) in &sources.flags {
            let origin = Component::flag(key);
            match self.component.setting(key).map(|setting| setting.kind) {
                Some(Kind::Paths) => lists.entry(key).or_default().push(Raw::from(text.as_str())),
                Some(kind) => self.lay(&origin, key, typed(kind, text)),
                None => self.lay(&origin, key, Raw::from(text.as_str())),
            }
        }
        for (key, paths) in lists {
            self.lay(&Component::flag(key), key, Raw::from(paths));
        }
    }

    fn check(&mut self) {
        match self.figment.find_value("") {
            Ok(Raw::Dict(_, dict)) => self.group("", dict),
            // Only providers of this module feed the merge, and they hold dictionaries.
            Ok(_) | Err(_) => debug_assert!(false, "the merged settings are a dictionary"),
        }
    }

    fn group(&mut self, prefix: &str, dict: Dict) {
        for (name, value) in dict {
            let key = join(prefix, &name);
            let origin = self.figment.get_metadata(value.tag()).map(|at| at.name.to_string()).unwrap_or_default();
            if let Some(setting) = self.component.setting(&key) {
                self.value(setting, &value, origin);
                continue;
            }
            let member = self.component.settings.iter().find_map(|setting| below(setting.key, &key));
            match (member, value) {
                (Some(_), Raw::Dict(_, inner)) => self.group(&key, inner),
                // `store:` in YAML, with every line below it commented out.
                (Some(_), Raw::Empty(..)) => {}
                (Some(member), _) => {
                    self.errors.push(ConfigError::MisuseGroup { key, origin, member: member.to_owned() });
                }
                (None, _) => {
                    let nearest = nearest(&key, self.component.settings.iter().map(|setting| setting.key.to_owned()));
                    self.errors.push(ConfigError::MisuseKey { key, origin, nearest });
                }
            }
        }
    }

    fn value(&mut self, setting: &'static Setting, raw: &Raw, origin: String) {
        if let Some(value) = checked(setting.kind, raw) {
            self.values.insert(setting.key, Held { value, origin });
            return;
        }
        self.errors.push(ConfigError::MisuseValue {
            key: setting.key,
            value: shown(raw),
            origin,
            expected: setting.kind.describe(setting.unit),
        });
    }

    fn defaults(&mut self, sources: &Sources) {
        for setting in self.component.settings {
            if self.values.contains_key(setting.key) {
                continue;
            }
            let path = |path: Option<PathBuf>| path.map(|path| Value::Text(path.to_string_lossy().into_owned()));
            let value = match setting.fallback {
                Fallback::Boolean(value) => Some(Value::Boolean(value)),
                Fallback::DataDir => path(sources.places.data_dir()),
                Fallback::Integer(value) => Some(Value::Integer(value)),
                Fallback::RuntimeDir => path(sources.places.runtime_dir()),
                Fallback::Text(text) => Some(Value::Text(text.to_owned())),
                Fallback::Under(key, name) => path(self.under(key, name)),
                Fallback::Unset => Some(Value::Unset),
            };
            let Some(value) = value else {
                let (flag, variable) = (Component::flag(setting.key), self.component.variable(setting.key));
                self.errors.push(ConfigError::MisuseMissing { key: setting.key, flag, variable });
                continue;
            };
            self.values.insert(setting.key, Held { value, origin: DEFAULT_ORIGIN.to_owned() });
        }
    }

    fn under(&self, key: &str, name: &str) -> Option<PathBuf> {
        match &self.values.get(key)?.value {
            Value::Text(base) => Some(Path::new(base).join(name)),
            _ => None,
        }
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// What stands behind the group's name.
fn below<'a>(key: &'a str, group: &str) -> Option<&'a str> {
    key.strip_prefix(group)?.strip_prefix('.')
}

/// Leaves with their dotted keys, so that `store.seal_rows: 5` and the nested form mean the same.
fn flatten(prefix: &str, dict: Dict, leaves: &mut Vec<(String, Raw)>) {
    for (name, value) in dict {
        let key = join(prefix, &name);
        match value {
            Raw::Dict(_, inner) if !inner.is_empty() => flatten(&key, inner, leaves),
            leaf => leaves.push((key, leaf)),
        }
    }
}

/// The text of a variable or flag as its kind; what does not parse stays text and is refused with its origin.
fn typed(kind: Kind, text: &str) -> Raw {
    match kind {
        // `PROCMOND_STANDALONE=1` is how a shell says yes.
        Kind::Boolean => match text {
            "true" | "1" => Raw::from(true),
            "false" | "0" => Raw::from(false),
            _ => Raw::from(text),
        },
        Kind::Integer(..) => text.parse::<u64>().map_or_else(|_| Raw::from(text), Raw::from),
        Kind::Paths => {
            let parts = std::env::split_paths(text).filter(|path| !path.as_os_str().is_empty());
            Raw::from(parts.map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>())
        }
        Kind::Choice(_) | Kind::Path | Kind::Words(_) => Raw::from(text),
    }
}

fn checked(kind: Kind, raw: &Raw) -> Option<Value> {
    match (kind, raw) {
        (Kind::Boolean, Raw::Bool(_, value)) => Some(Value::Boolean(*value)),
        (Kind::Choice(words), Raw::String(_, text)) => {
            words.contains(&text.as_str()).then(|| Value::Text(text.clone()))
        }
        (Kind::Integer(min, max), Raw::Num(_, number)) => {
            let unsigned = number.to_u128().and_then(|value| u64::try_from(value).ok());
            let signed = || number.to_i128().and_then(|value| u64::try_from(value).ok());
            let value = unsigned.or_else(signed)?;
            (min..=max).contains(&value).then_some(Value::Integer(value))
        }
        (Kind::Path, Raw::String(_, text)) => (!text.is_empty()).then(|| Value::Text(text.clone())),
        (Kind::Words(words), Raw::String(_, text)) => {
            text.split(',').all(|word| words.contains(&word.trim())).then(|| Value::Text(text.clone()))
        }
        (Kind::Paths, Raw::String(_, text)) => Some(Value::Paths(vec![PathBuf::from(text)])),
        (Kind::Paths, Raw::Array(_, items)) => {
            let paths: Option<Vec<PathBuf>> = items.iter().map(|item| item.as_str().map(PathBuf::from)).collect();
            paths.map(Value::Paths)
        }
        _ => None,
    }
}

fn shown(raw: &Raw) -> String {
    match raw {
        Raw::String(_, text) => format!("{text:?}"),
        Raw::Bool(_, value) => value.to_string(),
        Raw::Num(_, number) => number
            .to_u128()
            .map(|value| value.to_string())
            .or_else(|| number.to_i128().map(|value| value.to_string()))
            .or_else(|| number.to_f64().map(|value| value.to_string()))
            .unwrap_or_default(),
        Raw::Array(..) => "a list".to_owned(),
        Raw::Dict(..) => "a group of keys".to_owned(),
        Raw::Empty(..) | Raw::Char(..) => "nothing".to_owned(),
    }
}

/// The known name that `given` resembles most, or whose last part is the same.
fn nearest(given: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    known
        .map(|name| {
            let whole = strsim::normalized_damerau_levenshtein(given, &name);
            let part = if last(given) == last(&name) { 0.9 } else { 0.0 };
            (name, whole.max(part))
        })
        .filter(|(_, likeness)| *likeness >= NEAREST_LIKENESS)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(name, _)| name)
}
