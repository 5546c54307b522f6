//! The exceptions of an override file: whom a rule does not mean, who says so, why, and until when.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use uuid::Uuid;

use super::super::compile::{self, Compiled};
use super::super::exceptions::Exception;
use super::place::SqlPlace;
use super::reader::{Fields, Reader};
use super::statement;
use super::yaml::{Node, Yaml};

const FIELDS: &[&str] = &["where", "owner", "reason", "expires"];

/// The word of an exception that somebody means to keep.
pub(super) const NEVER: &str = "never";

/// Most exceptions of one rule: each is asked for every match.
pub(super) const MAX_EXCEPTIONS: usize = 256;

impl Reader<'_> {
    pub(super) fn exceptions(&mut self, fields: &Fields<'_>, rule: Uuid) -> Vec<Arc<Exception>> {
        let Some(node) = fields.of("exceptions") else { return Vec::new() };
        let Yaml::List(items) = &node.value else {
            self.wrong(node, "exceptions", "a list");
            return Vec::new();
        };
        if items.len() > MAX_EXCEPTIONS {
            let message = format!("a rule has at most {MAX_EXCEPTIONS} exceptions");
            self.refuse(node.referenced, message, Some("name many values in a list: x IN (list('…'))".into()));
        }
        items.iter().filter_map(|item| self.exception(item, rule)).map(Arc::new).collect()
    }

    fn exception(&mut self, node: &Node, rule: Uuid) -> Option<Exception> {
        let Yaml::Map(pairs) = &node.value else {
            self.wrong(node, "an exception", "a map");
            return None;
        };
        self.known_keys(pairs, FIELDS, "an exception");
        let fields = Fields { pairs, at: node.referenced };
        let compiled = self.predicate(&fields);
        let (owner, reason) = (self.required_text(&fields, "owner"), self.required_text(&fields, "reason"));
        let expires_us = self.expiry(&fields);
        let (condition, compiled) = compiled?;
        let id = Exception::identity(rule, &condition);
        Some(Exception {
            id,
            rule,
            condition,
            owner: owner?,
            reason: reason?,
            expires_us: expires_us?,
            file: self.file.to_owned(),
            line: node.referenced.line(),
            column: node.referenced.column(),
            compiled,
        })
    }

    /// The condition as text and as it runs.
    fn predicate(&mut self, fields: &Fields<'_>) -> Option<(String, Compiled)> {
        let condition = self.required_text(fields, "where")?;
        let place = SqlPlace::new(self.source, fields.key_place("where"), fields.place("where"), &condition);
        // On a line of its own, so that places are those of the condition but for one line.
        let statement = format!("SELECT pid FROM process_events WHERE\n{condition}\n");
        let decided = statement::decided(&statement, self.lists, |checked, _look| compile::compile(checked.query()));
        match decided {
            Ok((compiled, _)) => Some((condition, compiled)),
            Err(problems) => {
                self.refuse_sql(problems, |line, column| place.of(line.saturating_sub(1), column));
                None
            }
        }
    }

    /// Outer `None`: refused. Inner `None`: never.
    fn expiry(&mut self, fields: &Fields<'_>) -> Option<Option<i64>> {
        let text = self.required_text(fields, "expires")?;
        if text == NEVER {
            return Some(None);
        }
        let time = text.parse::<Timestamp>().or_else(|_| {
            let day: Date = text.parse()?;
            day.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp())
        });
        match time {
            Ok(time) => Some(Some(time.as_microsecond())),
            Err(_) => {
                let hint = format!("write 2027-01-31, 2027-01-31T12:00:00Z or {NEVER}");
                self.refuse(fields.place("expires"), format!("{text} is not a time"), Some(hint));
                None
            }
        }
    }
}
