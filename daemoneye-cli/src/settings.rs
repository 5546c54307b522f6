//! This program's settings, read once.

use std::path::PathBuf;
use std::time::Duration;

use daemoneye_lib::config::{self, CLI, Config, DEFAULT_ORIGIN, Sources};
use daemoneye_lib::jail::Required;
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
    pub(crate) sandbox_required: Required,
    pub(crate) config: Config,
}

impl Settings {
    pub(crate) fn load(common: &Common) -> Result<Self, CliError> {
        let mut sources = Sources::of_process();
        sources.config_file.clone_from(&common.config);
        sources.flags.clone_from(&common.settings.0);
        let config = config::load(&CLI, &sources)?;
        let origin = config.entries().into_iter().find(|entry| entry.key == "data_dir").map(|entry| entry.origin);
        Ok(Self {
            runtime_dir: config.path("runtime_dir"),
            data_dir: config.path("data_dir"),
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
    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime_dir.join("cli.sock")
    }
}
