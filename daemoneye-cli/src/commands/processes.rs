//! `processes`: who is alive, as one SELECT.

use daemoneye_lib::exit::Exit;

use super::query::{self, Question};
use crate::args::Processes;
use crate::error::CliError;
use crate::settings::Settings;
use crate::value;

pub(super) async fn run(arguments: &Processes, settings: &Settings) -> Result<Exit, CliError> {
    let mut sql = String::from(r#"SELECT pid, ppid, "user", start_time, status, name, command_line FROM processes"#);
    let mut params = Vec::new();
    for (column, wanted) in [("name", &arguments.name), (r#""user""#, &arguments.user)] {
        if let Some(wanted) = wanted {
            params.push(value::of_text(wanted.as_str()));
            let keyword = if params.len() == 1 { "WHERE" } else { "AND" };
            sql.push_str(&format!(" {keyword} {column} = ${}", params.len()));
        }
    }
    sql.push_str(" ORDER BY pid");
    query::list(settings, Question { params, ..Question::new(sql) }).await
}
