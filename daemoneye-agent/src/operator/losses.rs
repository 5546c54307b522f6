//! What was lost in the last day, as findings of the health report: events that were captured and are not in the store, and
//! entries that the ledger never got. A gap that loses nothing, or that `health` tells as the state of a collector, is none.

use std::collections::BTreeMap;

use daemoneye_engine::store::{CompactionState, LedgerFall, Store};
use daemoneye_lib::proto::CoverageGap;

use crate::worker::FALL_REMEDY;

/// A day in microseconds.
const DAY_US: i64 = 86_400_000_000;

/// Problems with their remedies.
pub(super) type Losses = Vec<(String, String)>;

/// Reasons of gaps that are no loss of captured events.
const NO_LOSS: &[&str] = &[
    "alerts_retention",
    "alerts_undelivered",
    "audit_outbox_full",
    "collector_unavailable",
    "lifetimes_retention",
    "processes_full",
    "retention",
    "rule_over_budget",
    "segment_damaged",
    "store_paused",
    "subscriber_slow",
];

/// Whether captured events are gone because of this reason; one that this build does not know counts.
pub(crate) fn is_loss(reason: &str) -> bool {
    !NO_LOSS.contains(&reason)
}

/// One finding for each collector and reason, and one for the ledger.
pub(super) fn of(gaps: &[CoverageGap], audit_lost: u64) -> Losses {
    let mut kinds: BTreeMap<(&str, &str), (usize, &str)> = BTreeMap::new();
    for gap in gaps.iter().filter(|gap| is_loss(&gap.reason)) {
        let kind = kinds.entry((&gap.collector, &gap.reason)).or_default();
        *kind = (kind.0 + 1, &gap.detail);
    }
    let mut losses: Losses = kinds.into_iter().map(|(kind, (count, detail))| lost(kind, count, detail)).collect();
    losses.extend(crowded_out(gaps));
    if audit_lost > 0 {
        losses.push((
            format!("{audit_lost} audit entries are lost: the outbox was full"),
            "the ledger takes entries while procmond runs: keep it running".to_owned(),
        ));
    }
    losses
}

/// Alerts that made room for others.
fn crowded_out(gaps: &[CoverageGap]) -> Option<(String, String)> {
    let of = |reason: &str| gaps.iter().filter(|gap| gap.reason == reason).filter_map(|gap| gap.count).sum::<u64>();
    let (removed, undelivered) = (of("alerts_retention"), of("alerts_undelivered"));
    (removed > 0).then(|| {
        let problem = format!(
            "{removed} alerts were removed to make room for others, {undelivered} of them before every sink had them"
        );
        let remedy = "find the rule that matches too much (`alerts list`, `rules list`) and narrow it, or raise \
                      alerts.retention_bytes; a sink that does not answer is in `health`";
        (problem, remedy.to_owned())
    })
}

/// What is wrong with the store itself: files that it cannot use, however old, and a clock that it does not believe.
pub(super) fn of_store(store: &Store) -> Losses {
    let mut found = Losses::new();
    let damaged = store.snapshot().damaged;
    if let Some(first) = damaged.first() {
        let name = first.path.file_name().unwrap_or_default().display();
        let rows: u64 = damaged.iter().map(|segment| segment.rows).sum();
        found.push((
            format!("{} segments with {rows} events cannot be used ({name}: {})", damaged.len(), first.what),
            "restore the files from a backup, or bring their disk back: they are used again within a minute, one whose bytes \
             had changed when the slow check of all files has come to it; check who can write to the data directory; everything else answers"
                .to_owned(),
        ));
    }
    let ahead_us = store.clock_ahead_us();
    if ahead_us > 0 {
        found.push((
            format!("the clock is {} days ahead of what this store has seen", ahead_us / DAY_US),
            "set the clock right; when it is right, do nothing: it is believed after the agent has run for a day, and \
             history stays until then"
                .to_owned(),
        ));
    }
    found
}

/// Ledgers that are not the ones that they were, until an operator has looked at the alert.
pub(super) fn of_ledgers(falls: &[LedgerFall]) -> Losses {
    falls.iter().map(|fall| (fall.to_string(), FALL_REMEDY.to_owned())).collect()
}

/// Groups of segments that cannot be merged: history takes more room than it should, and nothing is missing.
pub(super) fn of_merges(state: &CompactionState) -> Losses {
    let CompactionState { set_back, last_error, .. } = state;
    if *set_back == 0 {
        return Losses::new();
    }
    let why = last_error.as_deref().unwrap_or("the log has more");
    let problem = format!("{set_back} groups of segments could not be merged: {why}");
    vec![(
        problem,
        "look at the disk; they are tried again by themselves, `data vacuum` tries them at once".to_owned(),
    )]
}

fn lost((collector, reason): (&str, &str), count: usize, detail: &str) -> (String, String) {
    let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
    let problem = match reason {
        "wal_corrupt" => {
            format!("the write-ahead log of {collector} was damaged ({count} gaps in the last day){detail}")
        }
        "not_received" => {
            format!("the store lacks events that {collector} has no more ({count} gaps in the last day){detail}")
        }
        _ => format!("{collector} lost events, {reason} ({count} gaps in the last day){detail}"),
    };
    let remedy = match reason {
        "wal_corrupt" => "check the disk and who can write to the data directory; the damaged segment was kept aside",
        "wal_bound" => "raise wal.max_bytes of procmond, and see why the agent did not take its events",
        "not_received" => {
            "the table coverage says of which time; if a backup was put back, `audit verify --rows` names them and a newer one may have them"
        }
        "wal_disk" => "make room on the disk of the data directory",
        _ => "see the table coverage for when and why",
    };
    (problem, remedy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_that_fail_are_a_finding_until_they_succeed() {
        assert!(of_merges(&CompactionState::default()).is_empty());
        let failing = CompactionState { set_back: 2, last_error: Some("cannot read x".into()), ..Default::default() };
        let told = of_merges(&failing);
        assert!(told[0].0.contains("2 groups") && told[0].0.ends_with("cannot read x"), "{told:?}");
    }

    fn gap(reason: &str) -> CoverageGap {
        CoverageGap { collector: "procmond".into(), reason: reason.into(), ..CoverageGap::default() }
    }

    #[test]
    fn a_loss_is_a_finding_with_a_remedy_and_what_only_waits_is_none() {
        let gaps = ["wal_corrupt", "wal_corrupt", "shed", "collector_unavailable", "retention"].map(gap);
        let losses = of(&gaps, 0);
        assert_eq!(losses.len(), 2, "{losses:?}");
        assert!(losses[1].0.contains("damaged") && losses[1].0.contains("2 gaps"), "{losses:?}");
        assert!(losses.iter().all(|(_, remedy)| !remedy.is_empty()));
        assert_eq!(of(&[], 3).len(), 1);
        assert!(of(&[gap("subscriber_slow")], 0).is_empty());
        let missing = of(&[gap("not_received")], 0);
        assert!(missing[0].0.contains("lacks events") && missing[0].1.contains("coverage"), "{missing:?}");
        let gone =
            ["alerts_retention", "alerts_undelivered"].map(gap).map(|gap| CoverageGap { count: Some(7), ..gap });
        let told = of(&gone, 0);
        assert!(told.len() == 1 && told[0].0.starts_with("7 alerts were removed"), "{told:?}");
    }
}
