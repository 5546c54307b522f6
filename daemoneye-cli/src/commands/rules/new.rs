//! `rules new`: a rule file to begin with, which loads and passes its own tests as it is.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use daemoneye_lib::exit::Exit;
use serde_json::json;
use uuid::Uuid;

use crate::args::RulesNew;
use crate::error::CliError;
use crate::private::NewFile;
use crate::render::{self, Format};
use crate::settings::Settings;

/// The text with the places that are filled in: `@ID@`, `@NAME@`, `@AUTHOR@`, `@SEVERITY@`.
const TEMPLATE: &str = include_str!("template.yaml");
/// Longest name of a file, in characters; file systems take 255 bytes.
const NAME_CHARACTERS: usize = 60;

pub(super) fn run(arguments: &RulesNew, settings: &Settings) -> Result<Exit, CliError> {
    let name = arguments.name.trim();
    if name.is_empty() || name.contains(char::is_control) {
        return Err(CliError::Usage("a rule needs a name: one line that says what it finds".to_owned()));
    }
    let path = arguments.output.clone().unwrap_or_else(|| file_name(name));
    let id = Uuid::new_v4().to_string();
    let text = text(name, &id, &author(), &arguments.severity);
    write(&path, &text)?;
    match settings.format {
        // What a script takes as the name of the file.
        Format::Line | Format::Table => println!("{}", path.display()),
        _ => {
            render::document(settings.format, &json!({ "file": path.display().to_string(), "id": id, "name": name }))?
        }
    }
    eprintln!("change it, then: daemoneye-cli rules test {}", path.display());
    Ok(Exit::Ok)
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let io = |what: &str| {
        let what = format!("{what} {}; name another file with --output", path.display());
        move |source| CliError::Io { what, source }
    };
    let file = NewFile::create(path).map_err(io("create"))?;
    file.writer().and_then(|mut writer| writer.write_all(text.as_bytes())).map_err(io("write"))?;
    file.keep().map_err(io("sync"))
}

fn text(name: &str, id: &str, author: &str, severity: &str) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    TEMPLATE
        .replace("@ID@", id)
        .replace("@SEVERITY@", severity)
        .replace("@AUTHOR@", &quoted(author))
        .replace("@NAME@", &quoted(name))
}

/// Whoever is logged in; a rule without an author has nobody to ask.
fn author() -> String {
    let name = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|variable| std::env::var(variable).ok());
    name.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| "your name".to_owned())
}

/// `Shell below a mail server` → `shell-below-a-mail-server.yaml`.
fn file_name(name: &str) -> PathBuf {
    let plain = |c: char| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { ' ' };
    let words: String = name.chars().take(NAME_CHARACTERS).map(plain).collect();
    let stem = words.split_whitespace().collect::<Vec<_>>().join("-");
    let stem = if stem.is_empty() { "rule".to_owned() } else { stem };
    PathBuf::from(format!("{stem}.yaml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_after_its_rule() {
        assert_eq!(file_name("Shell below a mail server!"), PathBuf::from("shell-below-a-mail-server.yaml"));
        assert_eq!(file_name("../../etc/passwd"), PathBuf::from("etc-passwd.yaml"));
        assert_eq!(file_name("…"), PathBuf::from("rule.yaml"));
    }

    #[test]
    fn no_place_of_the_template_stays_open_whatever_the_name_says() {
        let text = text("a \"b\" @SEVERITY@: c", "1", "d @ID@", "low");
        assert!(text.contains("name: \"a \\\"b\\\" @SEVERITY@: c\"\n"), "{text}");
        assert!(text.contains("severity: low\n"), "{text}");
        assert!(!text.contains("@NAME@") && !text.contains("@AUTHOR@"), "{text}");
    }
}
