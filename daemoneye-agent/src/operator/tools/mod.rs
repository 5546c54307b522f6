//! The tools around rules: why a rule matches, what it would have raised, what is loaded.

mod backtest;
mod explain;
mod export;
mod rows;
mod tally;

use std::path::Path;

use daemoneye_engine::detect::rules::Checked;
use daemoneye_engine::detect::{LoadedRule, rules};
use daemoneye_lib::proto::{Fault, FaultKind, RuleText};

use super::Operators;
use super::rules::refusal;

impl Operators {
    /// The rules that are loaded; over a copied store none are.
    pub(super) fn loaded(&self) -> Vec<LoadedRule> {
        self.worker.as_ref().map(|worker| worker.rules.loaded()).unwrap_or_default()
    }

    /// The loaded rule of this id, name or file.
    fn rule_called(&self, called: &str) -> Result<LoadedRule, Fault> {
        let is = |rule: &LoadedRule| {
            rule.rule.id.to_string().eq_ignore_ascii_case(called)
                || rule.rule.name == called
                || rule.rule.file == called
        };
        let found: Vec<LoadedRule> = self.loaded().into_iter().filter(is).collect();
        match <[LoadedRule; 1]>::try_from(found) {
            Ok([rule]) => Ok(rule),
            Err(found) if found.is_empty() => {
                let text =
                    format!("no loaded rule has the id, name or file {called:?}: see `daemoneye-cli rules list`");
                Err(Fault::new(FaultKind::NotFound, text))
            }
            Err(_) => {
                let text = format!("more than one loaded rule has the name or file {called:?}: name the id");
                Err(Fault::new(FaultKind::InvalidRequest, text))
            }
        }
    }
}

impl Operators {
    /// The lists in force; over a copied store there are none.
    pub(super) fn lists(&self) -> rules::Lists {
        let lists = self.worker.as_ref().map(|worker| worker.rules.read(|_, lists, _| lists.clone()));
        lists.unwrap_or_default()
    }

    /// A rule that came as text, which may name the lists in force; its problems stand in the fault.
    fn parse(&self, file: &RuleText) -> Result<LoadedRule, Fault> {
        let refused = || Fault::new(FaultKind::Refused, format!("{} is no rule that can be loaded", file.name));
        let other =
            |what: &str| Fault::new(FaultKind::Refused, format!("{} is {what}, and a rule is needed here", file.name));
        match rules::check_file(Path::new(&file.name), &file.yaml, &self.lists()) {
            Ok(Checked::Rule(rule)) => Ok(*rule),
            Ok(Checked::List(_)) => Err(other("a list of values")),
            Ok(Checked::Override(_)) => Err(other("an override of a rule")),
            Ok(Checked::Pack(_)) => Err(other("the manifest of a pack")),
            Err(problems) => Err(Fault { problems: problems.iter().map(refusal).collect(), ..refused() }),
        }
    }
}
