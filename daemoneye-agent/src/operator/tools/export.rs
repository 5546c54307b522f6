//! `rules export`: every loaded rule as it is in force, as a file that another host can load.

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
        for rule in &loaded {
            let bytes = rules::to_yaml(rule).into_bytes();
            let blake3 = blake3::hash(&bytes).as_bytes().to_vec();
            let part = FilePart { path: path(rule, &mut taken), bytes, last: true, blake3 };
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
