//! `completions`: a script for the operator's shell.

use clap::CommandFactory as _;
use clap_complete::Shell;
use daemoneye_lib::exit::Exit;

use crate::args::Arguments;
use crate::error::CliError;
use crate::render::Output;

pub(super) fn run(shell: Shell) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "daemoneye-cli", &mut script);
    Output::stdout().print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
