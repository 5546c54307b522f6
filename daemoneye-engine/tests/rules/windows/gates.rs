//! The gates of rules that count: they save runs and lose nothing, and a running agent finds with them what its tools find.

use daemoneye_engine::detect::RuleSet;
use daemoneye_engine::store::RuleMatch;
use serde_json::json;

use super::*;

/// A rule that counts, and what bounds it in the file.
fn rule() -> impl Strategy<Value = (String, String)> {
    let having = prop::sample::select(vec![
        "count(*) >= 4",
        "3 < count(*)",
        "count(pid) >= 3",
        "count(DISTINCT pid) >= 3",
        "count(*) >= 3 AND count(DISTINCT pid) >= 2",
        "n >= 4",
        "count(*) = 3",
        "count(*) >= 3 AND max(pid) > 2",
    ]);
    let time = prop::sample::select(vec![
        "AND time > now() - INTERVAL '1 second'",
        "AND time >= now() - INTERVAL '2 seconds'",
        "AND time BETWEEN now() - INTERVAL '10 seconds' AND now()",
        "",
    ]);
    // The last one is left to the plan.
    let more = prop::sample::select(vec!["", "AND pid IS NOT NULL", "AND abs(pid) < 4"]);
    (having, time, more, any::<bool>()).prop_map(|(having, time, more, groups)| {
        let (user, by) = if groups { ("user, ", " GROUP BY user") } else { ("", "") };
        let sql = format!(
            "SELECT {user}count(*) AS n FROM process_events WHERE name = 'ssh' {time} {more}{by} HAVING {having}"
        );
        (sql, if time.is_empty() { "window: 3s\n".to_owned() } else { String::new() })
    })
}

/// Bursts of events: most in order, some late, some at the same time.
fn burst() -> impl Strategy<Value = Vec<Value>> {
    let one = (0_u32..300, prop::sample::select(vec!["root", "alice", "bob"]), 0_i64..5, -9_000_i32..2_000);
    prop::collection::vec(one, 10..70).prop_map(|events| {
        let mut now = 0.0;
        let made = events.into_iter().map(|(step, user, pid, skew)| {
            now += f64::from(step.saturating_sub(100)) / 1e3;
            let late = f64::from((skew + 6_000).min(0)) / 1e3;
            let mut event = event((now + late).max(0.0), "ssh", user, pid);
            if pid == 0 {
                event["pid"] = Value::Null;
            }
            event
        });
        made.collect()
    })
}

/// The group of a match, and the place of its latest event.
fn of(told: &str) -> (usize, Value) {
    let (seq, row) = told.split_once(' ').unwrap();
    (seq.parse().unwrap(), serde_json::from_str::<Value>(row).unwrap()["user"].clone())
}

/// What was found, each match by its group and its latest event: of a late one the number that is told depends on the moment.
fn groups(told: &[String]) -> BTreeSet<(usize, String)> {
    told.iter().map(|told| of(told)).map(|(seq, user)| (seq, user.to_string())).collect()
}

/// For each event the second that events have reached with it, and whether it is behind them.
fn reached(events: &[Value]) -> (Vec<i64>, Vec<bool>) {
    let mut latest = i64::MIN;
    let each = events.iter().map(|event| {
        let time = event["time"].as_i64().unwrap_or(i64::MIN);
        let is_late = time < latest || time == i64::MIN;
        latest = latest.max(time);
        (latest.div_euclid(1_000_000), is_late)
    });
    each.unzip()
}

/// What is found as a tool does, without gates, and as a running agent does; nothing may be passed over.
fn three_ways(
    (sql, more): &(String, String),
    rows: &RecordBatch,
    sizes: &[usize],
    clock: Option<i64>,
) -> [Vec<String>; 3] {
    [set(sql, more), set(sql, more).without_gates(), set(sql, more).in_haste()].map(|set| {
        clock.iter().for_each(|now| set.set_clock(*now, *now));
        let found = matches(&set, rows, sizes);
        let is_capped = |found: &RuleMatch| found.completeness.degraded.contains(&Degraded::Capped);
        // Where a further row may end what was true, an agent passes moments over.
        let may_cap = sql.contains("= 3") || sql.contains("max(pid)") || sql.contains("abs(pid)");
        assert!(may_cap || (skipped(&set) == 0 && !found.iter().any(is_capped)), "{sql}");
        told(&found)
    })
}

fn is_whole(sql: &str) -> bool {
    !(sql.contains("= 3") || sql.contains("max(pid)") || sql.contains("abs(pid)"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_gate_saves_runs_and_loses_no_group_of_any_second(rule in rule(), events in burst(), sizes in prop::collection::vec(1_usize..20, 0..4)) {
        let [gated, open, hasty] = three_ways(&rule, &rows(&events), &sizes, None);
        prop_assert!(groups(&gated).is_subset(&groups(&open)), "{:?}: {:?} of {:?}", rule, gated, open);
        if is_whole(&rule.0) {
            prop_assert_eq!(&hasty, &gated, "{:?}", rule);
        }
        if rule.0.contains("count(*) = 3") {
            prop_assert_eq!(&gated, &open, "{:?}", rule);
        }
        let (seconds, late) = reached(&events);
        for (seq, user) in groups(&open) {
            // What a late event was seen with may be told of the events beside it.
            let has = |(other, of): &(usize, String)| {
                *of == user && (late[seq - 1] || (*other >= seq && seconds[other - 1] == seconds[seq - 1]))
            };
            prop_assert!(groups(&gated).iter().any(has), "{:?}: {} {} of {:?} in {:?}", rule, seq, user, open, gated);
        }
    }

    #[test]
    fn a_gate_follows_a_clock_that_is_wrong_and_events_without_a_time(
        rule in rule(),
        events in burst(),
        back_at in 0_usize..40,
        untimed in prop::collection::btree_set(0_usize..70, 0..4),
        clock in prop::option::of(0_i64..6),
    ) {
        let mut events = events;
        for event in events.iter_mut().skip(back_at) {
            event["time"] = json!(event["time"].as_i64().unwrap() - 600_000_000);
        }
        for at in untimed {
            if let Some(event) = events.get_mut(at) {
                event["time"] = Value::Null;
            }
        }
        let clock = clock.map(|second| T0 + second * 1_000_000);
        let [gated, open, hasty] = three_ways(&rule, &rows(&events), &[7], clock);
        prop_assert!(groups(&gated).is_subset(&groups(&open)), "{:?}: {:?} of {:?}", rule, gated, open);
        if is_whole(&rule.0) {
            prop_assert_eq!(&hasty, &gated, "{:?}", rule);
        }
        let (_, late) = reached(&events);
        for (seq, user) in groups(&open) {
            let has = |(other, of): &(usize, String)| *of == user && (late[seq - 1] || clock.is_some() || *other >= seq);
            prop_assert!(groups(&gated).iter().any(has), "{:?}: {} {} of {:?} in {:?}", rule, seq, user, open, gated);
        }
    }
}

/// Users who one after the other do something ten times within a second, and one who does it all the time.
fn busy() -> Vec<Value> {
    let once = (0..20_u32).flat_map(|user| {
        let at = move |at: u32| f64::from(user) * 0.9 + f64::from(at) * 0.09;
        (0..10_u32).map(move |nth| event(at(nth), "ssh", &format!("user{user}"), 1))
    });
    let always = (0..360_u32).map(|at| event(f64::from(at) * 0.05 + 0.01, "ssh", "root", 1));
    let mut events: Vec<Value> = once.chain(always).collect();
    events.sort_by_key(|event| event["time"].as_i64());
    events
}

#[test]
fn a_running_agent_misses_no_group_of_a_burst_and_is_not_capped_by_one_that_stays_above_its_number() {
    let rows = rows(&busy());
    let users = |found: &[RuleMatch]| -> BTreeSet<String> {
        found.iter().map(|found| found.output()["user"].as_str().unwrap().to_owned()).collect()
    };
    let tools = matches(&set(DENSE, ""), &rows, &[]);
    for sizes in [vec![], vec![1], vec![37]] {
        let agent = set(DENSE, "").in_haste();
        let found = matches(&agent, &rows, &sizes);
        assert_eq!((told(&found), skipped(&agent)), (told(&tools), 0), "{sizes:?}");
        assert_eq!(users(&found).len(), 21);
        assert!(found.iter().all(|found| found.completeness.is_complete()));
    }
    // Which is what it took.
    let agent = set(DENSE, "").in_haste().without_gates();
    let found = matches(&agent, &rows, &[]);
    assert!(users(&found).len() < 21 && skipped(&agent) > 0);
}

#[test]
fn what_is_shed_is_gone_for_the_gate_as_for_the_plan() {
    let long = "x".repeat(96 * 1024);
    let events = (0..200).map(|at| {
        let mut event = event(f64::from(at) / 20.0, "ssh", ["root", "alice"][usize::from(at % 3 == 0)], i64::from(at));
        event["command_line"] = json!(long);
        event
    });
    let rows = rows(&events.collect::<Vec<_>>());
    let of = |least: usize| MANY.replace(">= 3", &format!(">= {least}"));
    let found = |set: RuleSet| {
        let found = told(&matches(&set, &rows, &[]));
        assert!(set.stats()[0].window.unwrap().shed > 0);
        found
    };
    for least in [20, 50, 60] {
        assert_eq!(found(set(&of(least), "")), found(set(&of(least), "").without_gates()), "{least}");
    }
    assert!(!found(set(&of(50), "")).is_empty() && found(set(&of(60), "")).is_empty());
}
