//! `hunt`: rules over a file of events. The agent's program does it; its output is this command's.

use std::ffi::OsString;
use std::process::Stdio;

use daemoneye_lib::exit::Exit;

use crate::args::Hunt;
use crate::error::CliError;
use crate::settings::Settings;
use crate::tool;

pub(super) async fn run(hunt: &Hunt, settings: &Settings) -> Result<Exit, CliError> {
    let mut arguments = vec![OsString::from("hunt")];
    arguments.extend(hunt.rules.iter().flat_map(|path| tool::flag("--rules", path)));
    arguments.extend(tool::flag("--events", &hunt.events));
    arguments.extend(hunt.lists.iter().flat_map(|path| tool::flag("--lists", path)));
    let mut child = tool::start(arguments, Stdio::inherit(), settings)?;
    tool::ended(&mut child).await
}
