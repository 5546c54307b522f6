//! The bounds of a correlation's condition, and what counts can meet them.

use super::super::document::field;
use crate::detect::RULE_ROWS;
use crate::detect::rules::yaml::{Node, Yaml};

/// Events that are kept for a rule.
const WINDOW_ROWS: i64 = RULE_ROWS as i64;

/// The counts that a correlation may come to.
#[derive(Clone, Copy)]
pub(super) struct Counts {
    pub(super) least: i64,
    pub(super) most: i64,
}

impl Counts {
    /// Those of events or values, from `least` on.
    pub(super) const fn of_events(least: i64) -> Self {
        Self { least, most: WINDOW_ROWS }
    }

    /// Those of so many rules; of rules that were not found nothing is said.
    pub(super) fn of_rules(rules: usize) -> Self {
        let most = i64::try_from(rules).unwrap_or(i64::MAX);
        if rules == 0 { Self { least: i64::MIN, most: i64::MAX } } else { Self { least: 1, most } }
    }

    fn never(self) -> String {
        let Self { least, most } = self;
        let there_is = if most == WINDOW_ROWS {
            format!(
                "what is counted is {least} or more, and at most the {most} events that are kept for a rule; for what does not come write a \
                 rule with NOT EXISTS"
            )
        } else {
            format!("of its rules {least} to {most} are there")
        };
        format!("the condition can never be true: {there_is}")
    }
}

/// One bound of a condition.
pub(super) struct Bound {
    /// As SQL writes it.
    pub(super) operator: &'static str,
    pub(super) number: i64,
}

impl Bound {
    /// Whether what holds of a count holds of every larger one.
    pub(super) fn grows(&self) -> bool {
        matches!(self.operator, ">" | ">=")
    }

    /// The bounds of the condition; several are an AND, which some count has to meet.
    pub(super) fn read(node: &Node, counts: Counts) -> Result<Vec<Self>, String> {
        let Some(condition) = field(node, "condition") else { return Ok(Vec::new()) };
        let Yaml::Map(pairs) = &condition.value else {
            return Err("the condition of a correlation is a map of bounds".to_owned());
        };
        let mut bounds = Vec::new();
        for (key, value) in pairs.iter().filter(|(key, _)| key.value != "field") {
            let operator = match key.value.as_str() {
                "gt" => ">",
                "gte" => ">=",
                "lt" => "<",
                "lte" => "<=",
                "eq" => "=",
                "neq" => "<>",
                other => return Err(format!("the correlation's condition has {other}, which is no bound")),
            };
            let Yaml::Integer(number) = &value.value else {
                return Err(format!("the bound {} is {}, not a whole number", key.value, value.value.kind()));
            };
            bounds.push(Self { operator, number: number.value });
        }
        // What is met anywhere is met beside a bound or at an end.
        let beside = |bound: &Self| [-1, 0, 1].map(|by| bound.number.saturating_add(by));
        let mut known = bounds.iter().flat_map(beside).chain([counts.least, counts.most]);
        let is_met = known.any(|count| {
            (counts.least..=counts.most).contains(&count) && bounds.iter().all(|bound| bound.holds(count))
        });
        if is_met { Ok(bounds) } else { Err(counts.never()) }
    }

    pub(super) fn holds(&self, count: i64) -> bool {
        match self.operator {
            ">" => count > self.number,
            ">=" => count >= self.number,
            "<" => count < self.number,
            "<=" => count <= self.number,
            "=" => count == self.number,
            _ => count != self.number,
        }
    }
}
