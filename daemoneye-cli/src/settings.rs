//! This program's settings, read once.

use std::path::PathBuf;
use std::time::Duration;

use daemoneye_lib::config::{self, CLI, Config, DEFAULT_ORIGIN, Sources};
use daemoneye_lib::telemetry;

use crate::args::Common;
use crate::error::CliError;
use crate::render::Format;

pub(crate) struct Settings {
    pub(crate) runtime_dir: PathBuf,
    pub(crate) data_dir: PathBuf,
    /// Whether somebody named the data directory.
    pub(crate) data_dir_is_given: bool,
    pub(crate) store: Option<PathBuf>,
    pub(crate) format: Format,
    pub(crate) deadline: Duration,
    pub(crate) config: Config,
}

impl Settings {
    pub(crate) fn load(common: &Common) -> Result<Self, CliError> {
        let mut sources = Sources::of_process();
        sources.config_file.clone_from(&common.config);
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let given = [
            ("runtime_dir", path(&common.runtime_dir)),
            ("data_dir", path(&common.data_dir)),
            ("format", common.format.clone()),
            ("deadline_ms", common.deadline_ms.clone()),
            ("log.level", common.log_level.clone()),
        ];
        sources.flags =
            given.into_iter().filter_map(|(key, value)| value.map(|value| (key.to_owned(), value))).collect();
        let config = config::load(&CLI, &sources)?;
        let origin = config.entries().into_iter().find(|entry| entry.key == "data_dir").map(|entry| entry.origin);
        Ok(Self {
            runtime_dir: config.path("runtime_dir"),
            data_dir: config.path("data_dir"),
            data_dir_is_given: origin.is_some_and(|origin| origin != DEFAULT_ORIGIN),
            store: common.store.clone(),
            format: Format::of_setting(config.text("format")),
            deadline: config.duration_ms("deadline_ms"),
            config,
        })
    }

    pub(crate) fn start_logging(&self) -> Result<(), CliError> {
        telemetry::init(CLI.name, self.config.text("log.level"), telemetry::Format::Human)
            .map_err(|error| CliError::Usage(error.to_string()))
    }

    /// The agent's operator socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime_dir.join("cli.sock")
    }
}
