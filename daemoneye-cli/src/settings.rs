//! This program's settings, read once.

use std::path::PathBuf;
use std::time::Duration;

use daemoneye_lib::config::{self, CLI, Component, Config, ConfigError, ConfigErrors, DEFAULT_ORIGIN, Sources};
use daemoneye_lib::jail::Required;
use daemoneye_lib::telemetry;

use crate::args::Common;
use crate::error::CliError;
use crate::render::Format;

/// Stands for a home directory while the other settings are read; nothing that lies below it is ever used.
const NOWHERE: &str = "/nonexistent";

pub(crate) struct Settings {
    /// Whether somebody named the data directory.
    pub(crate) data_dir_is_given: bool,
    /// Directories that nobody named where no home directory gives them a default; told by what needs them.
    missing: Vec<&'static str>,
    pub(crate) store: Option<PathBuf>,
    pub(crate) format: Format,
    pub(crate) deadline: Duration,
    pub(crate) sandbox_required: Required,
    pub(crate) config: Config,
}

impl Settings {
    pub(crate) fn load(common: &Common) -> Result<Self, CliError> {
        let mut sources = Sources::of_process();
        sources.config_file.clone_from(&common.config);
        sources.flags.clone_from(&common.settings.0);
        let (config, missing) = match config::load(&CLI, &sources) {
            Ok(config) => (config, Vec::new()),
            Err(errors) => {
                let missing = only_missing(errors)?;
                sources.places.data_home = Some(PathBuf::from(NOWHERE));
                (config::load(&CLI, &sources)?, missing)
            }
        };
        let origin = config.entries().into_iter().find(|entry| entry.key == "data_dir").map(|entry| entry.origin);
        Ok(Self {
            missing,
            data_dir_is_given: origin.is_some_and(|origin| origin != DEFAULT_ORIGIN),
            store: common.store.clone(),
            format: Format::of_setting(config.text("format")),
            deadline: config.duration_ms("deadline_ms"),
            sandbox_required: Required::of_setting(config.text("sandbox.required")),
            config,
        })
    }

    pub(crate) fn start_logging(&self) -> Result<(), CliError> {
        telemetry::init(CLI.name, self.config.text("log.level"), telemetry::Format::Human)
            .map_err(|error| CliError::Usage(error.to_string()))
    }

    /// The agent's operator socket.
    pub(crate) fn socket(&self) -> Result<PathBuf, CliError> {
        Ok(self.directory("runtime_dir")?.join("cli.sock"))
    }

    /// The data directory: the named one or the default.
    pub(crate) fn data_dir(&self) -> Result<PathBuf, CliError> {
        self.directory("data_dir")
    }

    /// Whether a setting has no value on this host.
    pub(crate) fn is_missing(&self, key: &str) -> bool {
        self.missing.contains(&key)
    }

    fn directory(&self, key: &'static str) -> Result<PathBuf, CliError> {
        if self.is_missing(key) {
            let (flag, variable) = (Component::flag(key), CLI.variable(key));
            let errors = vec![ConfigError::MisuseMissing { key, flag, variable }];
            return Err(ConfigErrors { component: CLI.name, errors }.into());
        }
        Ok(self.config.path(key))
    }
}

/// The keys without a value, where nothing else is wrong.
fn only_missing(errors: ConfigErrors) -> Result<Vec<&'static str>, ConfigErrors> {
    let key = |error: &ConfigError| match error {
        ConfigError::MisuseMissing { key, .. } => Some(*key),
        _ => None,
    };
    errors.errors.iter().map(key).collect::<Option<_>>().ok_or(errors)
}
