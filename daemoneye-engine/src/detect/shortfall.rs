//! What a set could not decide, in words: for those who read a file and an answer and see no health.

use super::RuleSet;

impl RuleSet {
    /// Rules that need several events and could not see all that they need, each with what was missing.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<String> {
        let told = |stats: &super::RuleStats| {
            let window = stats.window?;
            let late = (window.late > 0)
                .then(|| format!("{} events came too late for it: order the file by time", window.late));
            let lacks: Vec<String> = late.into_iter().chain(window.shortfall()).collect();
            (!lacks.is_empty()).then(|| format!("{}: {}", stats.rule.name, lacks.join("; ")))
        };
        self.stats().iter().filter_map(told).collect()
    }
}
