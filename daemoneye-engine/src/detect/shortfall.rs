//! What a set could not decide, in words: for those who read a file and an answer and see no health.

use super::{RuleSet, RuleStats};

impl RuleStats {
    /// Why what a window rule found may not be all, beside events that came too late.
    #[must_use]
    pub fn shortfall(&self) -> Option<String> {
        let window = self.window?;
        let failed = window.failed.saturating_add(window.timed_out);
        let why = self.failure.as_deref().map(|why| format!(", the last time as {why}")).unwrap_or_default();
        let undecided = format!("times it could not be decided{why}");
        let lacks = [
            (window.shed, "events were let go before it was done with them"),
            (failed, undecided.as_str()),
            (window.skipped, "moments at which it may have matched were passed over, since there were too many"),
            (window.untimed, "events without a time, which a window rule goes by"),
        ];
        let lacks = lacks.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        Some(lacks.collect::<Vec<_>>().join("; ")).filter(|lacks| !lacks.is_empty())
    }
}

impl RuleSet {
    /// Rules that need several events and could not see all that they need, each with what was missing.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<String> {
        let told = |stats: &RuleStats| {
            let window = stats.window?;
            let late = (window.late > 0)
                .then(|| format!("{} events came too late for it: order the file by time", window.late));
            let lacks: Vec<String> = late.into_iter().chain(stats.shortfall()).collect();
            (!lacks.is_empty()).then(|| format!("{}: {}", stats.rule.name, lacks.join("; ")))
        };
        self.stats().iter().filter_map(told).collect()
    }
}
