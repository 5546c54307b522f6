//! `rules export`: every loaded rule as it is in force, its exceptions, and the lists that they name, as files that another host
//! can load.

use std::collections::BTreeSet;

use daemoneye_engine::detect::{LoadedRule, rules};
use daemoneye_lib::proto::{Fault, FilePart, operator_response::Answer};
use serde_json::json;

use super::super::data::shown;
use super::super::{Answers, Operators, say};

impl Operators {
    pub(in crate::operator) async fn rules_export(&self, answers: &Answers) -> Result<(), Fault> {
        self.live_only("rules export")?;
        let mut taken = BTreeSet::new();
        let loaded = self.loaded();
        let lists =
            rules::lists_to_yaml(&self.lists()).into_iter().map(|(name, text)| (format!("lists/{name}"), text));
        let lists: Vec<(String, String)> = lists.collect();
        taken.extend(lists.iter().map(|(path, _)| path.clone()));
        let exceptions = loaded.iter().flat_map(rules::exceptions_to_yaml);
        let exceptions: Vec<(String, String)> =
            exceptions.map(|(name, text)| (format!("exceptions/{name}"), text)).collect();
        taken.extend(exceptions.iter().map(|(path, _)| path.clone()));
        let files = loaded.iter().map(|rule| (path(rule, &mut taken), rules::to_yaml(rule)));
        for (path, text) in lists.into_iter().chain(exceptions).chain(files) {
            let bytes = text.into_bytes();
            let blake3 = blake3::hash(&bytes).as_bytes().to_vec();
            let part = FilePart { path, bytes, last: true, blake3 };
            if !say(answers, Answer::FilePart(part)).await {
                return Ok(());
            }
        }
        say(answers, Answer::Data(shown(&json!({ "rules": loaded.len() }), true)?)).await;
        Ok(())
    }
}

/// Pack and file as they were read; of two with the same, the second has its id before its name.
fn path(rule: &LoadedRule, taken: &mut BTreeSet<String>) -> String {
    let path = format!("{}/{}", rule.rule.pack, rule.rule.file);
    if taken.insert(path.clone()) {
        return path;
    }
    format!("{}/{}-{}", rule.rule.pack, rule.rule.id, rule.rule.file)
}
