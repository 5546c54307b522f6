//! scratch
use daemoneye_engine::detect::{RuleSet, rules};
use daemoneye_engine::ingest::{EventBatch, batch_from_json};
use daemoneye_lib::proto::Sequence;
#[test]
fn proc() {
    let (set, _) = RuleSet::compile(rules::load_dirs(&["/work/main/rules".into()]).rules);
    let rows: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(&std::fs::read_to_string("/tmp/f-scratch/events.json").unwrap()).unwrap();
    let at = Sequence { epoch: 1, number: 1 };
    let b = EventBatch { batch: batch_from_json(&rows).unwrap(), collector: "t".into(), first: at, last: at, gaps: vec![], live: vec![] };
    for m in set.evaluate(&b, &Default::default()) { println!("MATCH {} {:?}", m.rule.name, m.output); }
    for s in set.stats() { println!("{} {} ns/row {}", s.rule.name, s.rows, s.nanoseconds / s.rows.max(1)); }
}
