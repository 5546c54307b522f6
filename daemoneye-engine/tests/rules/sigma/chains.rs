//! Chains: correlations over what other correlations find, held against finding it by looking at every event.

use daemoneye_engine::sigma::{Conversion, Verdict, convert};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::correlations::{at, at_ms, hunted, rules};
use super::{file, lists};

/// A correlation of that name; the last digits of its id are its number.
fn correlation(name: &str, number: usize, body: &str) -> String {
    let body: String = body.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "---\ntitle: {name}\nname: {name}\nid: 7e8a0a3e-2f5d-4c6e-9d0f-1a2b3c4d5e{number:02}\nlevel: high\ncorrelation:\n{body}"
    )
}

/// The lines at which each numbered correlation is found in a hunt.
fn found(correlations: &[&str], events: &[Value]) -> Vec<(usize, u64)> {
    let text = [&correlations.concat(), rules().as_str()].concat();
    let (found, hunt) = hunted(&[("x.yml", &text)], events, 7);
    assert_eq!(hunt.shortfalls(), Vec::<String>::new());
    let of = found.iter().filter(|(id, _)| id.starts_with("7e8a0a3e"));
    let mut of: Vec<_> = of.map(|(id, line)| (id[34..].parse().unwrap(), *line)).collect();
    of.sort_unstable();
    of
}

fn converted(correlations: &[&str]) -> Vec<Conversion> {
    convert(&[file("x.yml", &[&correlations.concat(), rules().as_str()].concat())], &lists())
}

const MANY: &str = "type: event_count\nrules: [rule_a]\ngroup-by: [User]\ntimespan: 10s\ncondition: {gte: 3}";
const THEN: &str = "type: temporal_ordered\nrules: [many, rule_b]\ngroup-by: [User]\ntimespan: 20s";

#[test]
fn many_of_one_rule_and_then_another() {
    let (many, then) = (correlation("many", 1, MANY), correlation("then", 2, THEN));
    let hit = [at(0, "a"), at(1, "b"), at(2, "a"), at(4, "a"), at(9, "c"), at(23, "b"), at(24, "b")];
    let few = [at(0, "a"), at(2, "a"), at(11, "a"), at(12, "b")];
    let late = [at(0, "a"), at(2, "a"), at(4, "a"), at(24, "b")];
    // In whatever order they stand, in one file.
    for chain in [[many.as_str(), &then], [&then, &many]] {
        assert_eq!(found(&chain, &hit), [(2, 5)]);
        assert_eq!(found(&chain, &few), []);
        assert_eq!(found(&chain, &late), []);
    }
    let kept = [&many.replace("timespan", "generate: true\n  timespan"), &then];
    assert_eq!(found(&kept.map(String::as_str), &hit), [(2, 5)], "what many says of generate is of its own rules");
    let both = [&many, &then.replace("timespan", "generate: true\n  timespan")];
    assert_eq!(found(&both.map(String::as_str), &hit), [(1, 3), (2, 5)]);
}

#[test]
fn what_an_inner_correlation_found_ends_with_time_alone() {
    let both = "type: temporal_ordered\nrules: [rule_a, rule_b]\ngroup-by: [User]\ntimespan: 10s";
    let then = "type: temporal_ordered\nrules: [both, rule_c]\ngroup-by: [User]\ntimespan: 20s";
    let chain = [correlation("both", 1, both), correlation("then", 2, then)];
    let mut events = vec![at_ms(0, "a", "bob"), at_ms(930, "b", "bob")];
    // More than are decided as they come: what comes with them waits until bob's match is too old.
    events.extend((0..8).map(|at| at_ms(20_100 + at * 100, "a", "root")));
    events.extend([at_ms(20_900, "c", "bob"), at_ms(20_950, "a", "root")]);
    assert_eq!(found(&chain.each_ref().map(String::as_str), &events), [(2, 10)]);
}

#[test]
fn events_of_one_time_complete_a_count_in_their_order() {
    let (many, then) = (correlation("many", 1, MANY), correlation("then", 2, THEN));
    let events = |names: &str| names.chars().map(|name| at(1, &name.to_string())).collect::<Vec<_>>();
    assert_eq!(found(&[&many, &then], &events("aaba")), []);
    assert_eq!(found(&[&many, &then], &events("aaab")), [(2, 3)]);
    let thrice = "type: event_count\nrules: [many]\ngroup-by: [User]\ntimespan: 20s\ncondition: {gte: 3}";
    let thrice = correlation("thrice", 2, thrice);
    assert_eq!(found(&[&many, &thrice], &events("aaaa")), []);
    assert_eq!(found(&[&many, &thrice], &events("aaaaa")), [(2, 4)]);
}

#[test]
fn values_and_rules_of_one_time_are_seen_alike() {
    let events = |names: &str| -> Vec<Value> {
        let of = |(at, name): (usize, char)| at_ms(if at == 0 { 1_000 } else { 20_000 }, &name.to_string(), "root");
        names.chars().enumerate().map(of).collect()
    };
    let of = |kind: &str, bound: &str| {
        format!(
            "type: {kind}\nrules: [rule_a, rule_b, rule_c]\ngroup-by: [User]\ntimespan: 30s\ncondition: {{{bound}}}"
        )
    };
    let outer = "type: event_count\nrules: [inner]\ngroup-by: [User]\ntimespan: 5s\ncondition: {gte: 1}";
    for (kind, field) in [("temporal", ""), ("value_count", ", field: CommandLine")] {
        for (bound, names, lines) in [
            ("eq: 2", "bbca", vec![]),
            ("eq: 2", "bcbc", vec![1, 2, 3]),
            ("eq: 1", "bca", vec![0]),
            ("neq: 2", "bbca", vec![0, 1, 2, 3]),
            ("lt: 3", "bbbbca", vec![0]),
            ("gte: 2, lte: 2", "aabbaac", vec![]),
        ] {
            let inner = correlation("inner", 1, &of(kind, &format!("{bound}{field}")));
            let expected: Vec<_> = lines.iter().map(|line| (1, *line)).collect();
            assert_eq!(found(&[&inner], &events(names)), expected, "{kind} {bound} {names}");
            let expected: Vec<_> = lines.iter().map(|line| (2, *line)).collect();
            let chained = found(&[&inner, &correlation("outer", 2, outer)], &events(names));
            assert!(chained.iter().all(|one| expected.contains(one)), "{kind} {bound} {names}: {chained:?}");
            assert_eq!(chained.last(), expected.last(), "{kind} {bound} {names}");
        }
    }
}

#[test]
fn groups_may_be_called_like_what_tells_events_apart() {
    let by = |body: &str| body.replace("group-by: [User]", "group-by: [collector, User]");
    let (many, then) = (correlation("many", 1, &by(MANY)), correlation("then", 2, &by(THEN)));
    assert!(converted(&[&many, &then]).iter().all(|one| one.verdict == Verdict::Compiled));
    let (both, then) = (by(MANY).replace("event_count", "temporal").replace("condition: {gte: 3}", ""), by(THEN));
    let (both, then) =
        (correlation("many", 1, &both), correlation("then", 2, &then.replace("[many,", "[many, many,")));
    assert!(converted(&[&both, &then]).iter().all(|one| one.verdict == Verdict::Compiled));
}

#[test]
fn a_chain_in_several_files() {
    let (then, many, rules) = (correlation("then", 2, THEN), correlation("many", 1, MANY), rules());
    let files = [("1.yml", then.as_str()), ("2.yml", &many), ("3.yml", &rules)];
    let (found, _) = hunted(&files, &[at(0, "a"), at(2, "a"), at(4, "a"), at(5, "b")], 100);
    let of = found.iter().filter(|(id, _)| id.starts_with("7e8a0a3e")).map(|(_, line)| *line);
    assert_eq!(of.collect::<Vec<_>>(), [3]);
}

#[test]
fn a_chain_knows_what_matches_have_in_common_and_of_the_event_that_completed_each() {
    let alias = "type: temporal_ordered\nrules: [many, rule_b]\ngroup-by: [who]\ntimespan: 20s\n\
                 aliases: {who: {many: User, rule_b: ParentUser}}";
    let (many, then) = (correlation("many", 1, MANY), correlation("then", 2, alias));
    let last = |parent: &str| json!({"UtcTime": "2026-01-31 12:00:05.000", "CommandLine": "b", "User": "bob", "ParentUser": parent});
    let events = |parent: &str| [at(0, "a"), at(2, "a"), at(4, "a"), last(parent)];
    assert_eq!(found(&[&many, &then], &events("root")), [(2, 3)]);
    assert_eq!(found(&[&many, &then], &events("bob")), []);
    // The group of the outer one is another than that of the inner one.
    let by = |body: &str, field: &str| body.replace("group-by: [User]", &format!("group-by: [{field}]"));
    let whose = |second: i64, name: &str, user: &str, cwd: &str| {
        let mut event = at(second, name);
        (event["User"], event["CurrentDirectory"]) = (json!(user), json!(cwd));
        event
    };
    let inner = [
        by(MANY, "CurrentDirectory"),
        "type: temporal_ordered\nrules: [rule_a, rule_a, rule_a]\ngroup-by: [CurrentDirectory]\ntimespan: 10s"
            .to_owned(),
        format!(
            "{}, field: ProcessId}}",
            by(MANY, "CurrentDirectory").replace("event_count", "value_count").trim_end_matches('}')
        ),
    ];
    for (at, inner) in inner.iter().enumerate() {
        let (many, then) = (correlation("many", 1, inner), correlation("then", 2, THEN));
        let mut events = vec![whose(0, "a", "eve", "/x"), whose(2, "a", "ann", "/x"), whose(4, "a", "bob", "/x")];
        events.extend([whose(5, "b", "eve", "/x"), whose(6, "b", "bob", "/y"), whose(7, "b", "ann", "/x")]);
        (0..).zip(&mut events).for_each(|(pid, event)| event["ProcessId"] = json!(pid));
        assert_eq!(found(&[&many, &then], &events), [(2, 4)], "{at}");
        let outer = "type: event_count\nrules: [then]\ngroup-by: [CommandLine]\ntimespan: 1m\ncondition: {gte: 1}";
        assert_eq!(found(&[&many, &then, &correlation("outer", 3, outer)], &events), [(3, 4)], "{at}");
        let values = "type: value_count\nrules: [many]\ngroup-by: [CurrentDirectory]\ntimespan: 1m\ncondition: {gte: 1, field: User}";
        assert_eq!(found(&[&many, &correlation("values", 4, values)], &events), [(4, 2)], "{at}");
    }
    let two = correlation("two", 1, &alias.replace("[many, rule_b]", "[rule_a, rule_b]").replace("many:", "rule_a:"));
    for field in ["User", "Nowhere"] {
        let outer = THEN.replace("[many,", "[two,").replace("[User]", &format!("[{field}]"));
        let conversion = &converted(&[&correlation("then", 2, &outer), &two])[0];
        assert_eq!(conversion.verdict, Verdict::Refused, "{field}");
    }
}

#[test]
fn a_field_that_an_inner_alias_is_called_by_is_refused_with_what_to_do() {
    let inner = |names: &str| {
        let alias = "{who: {rule_a: Description, rule_b: Company}}";
        let body = format!(
            "type: event_count\nrules: [{names}]\ngroup-by: [who]\ntimespan: 2s\naliases: {alias}\ncondition: {{gte: 1}}"
        );
        correlation("inner", 1, &body)
    };
    let outer = "type: event_count\nrules: [inner]\ngroup-by: [Description]\ntimespan: 10s\ncondition: {gte: 1}";
    let outer = correlation("outer", 2, outer);
    let refused = &converted(&[&outer, &inner("rule_a, rule_b")])[0];
    assert_eq!(refused.verdict, Verdict::Refused);
    assert!(refused.reasons[0].message.ends_with("name its rules in another order"), "{:?}", refused.reasons);
    let taken = &converted(&[&outer, &inner("rule_b, rule_a")])[0];
    assert_eq!(taken.verdict, Verdict::Compiled, "{:?}", taken.reasons);
}

#[test]
fn a_circle_and_what_leads_there_are_refused_and_their_rules_go_on() {
    let over = |names: &str| format!("type: temporal\nrules: [{names}]\ngroup-by: [User]\ntimespan: 10s");
    let all = [
        correlation("one", 1, &over("two, rule_a")),
        correlation("two", 2, &over("one, rule_b")),
        correlation("three", 3, &over("two, rule_c")),
        correlation("fine", 4, &over("rule_a, rule_b")),
    ];
    let all = converted(&all.each_ref().map(String::as_str));
    let verdicts: Vec<_> = all.iter().map(|one| one.verdict == Verdict::Refused).collect();
    assert_eq!(verdicts[..4], [true, true, true, false]);
    let told: Vec<&str> = all.iter().flat_map(|one| &one.reasons).map(|reason| reason.message.as_str()).collect();
    assert!(told[0].contains("refers to two, and that refers back to it or stands in a circle"), "{told:?}");
    assert!(told[1].contains("refers to one, and nothing runs of that rule: one (x.yml:"), "{told:?}");
    assert!(all[6].rule.is_some(), "rule_c stands in nothing that runs");
}

/// A rule, or a correlation of rules.
#[derive(Debug, Clone)]
enum Node {
    Rule(char),
    Correlation { kind: usize, parts: Vec<Node>, span: i64, least: usize },
}

/// Milliseconds to the next event: far, near, in a burst, or none.
fn step() -> impl Strategy<Value = i64> {
    prop_oneof![2 => 1_000..4_000_i64, 2 => 100..900_i64, 2 => 1..40_i64, 2 => Just(0)]
}

const KINDS: [&str; 4] = ["event_count", "value_count", "temporal", "temporal_ordered"];

fn node(depth: u32) -> BoxedStrategy<Node> {
    let rule = prop::sample::select(vec!['a', 'b', 'c']).prop_map(Node::Rule);
    if depth == 0 {
        return rule.boxed();
    }
    let inner = prop_oneof![2 => rule, 3 => node(depth - 1)];
    (0..4_usize, prop::collection::vec(inner, 1..3), 3..15_i64, 1..4_usize)
        .prop_map(|(kind, parts, span, least)| {
            // Only rules have values, and matching the same rule twice counts it twice in both: one is enough.
            let rules = parts.iter().filter(|part| matches!(part, Node::Rule(_))).count();
            let kind = if kind == 1 && rules < parts.len() { 0 } else { kind };
            Node::Correlation { kind, parts, span, least }
        })
        .boxed()
}

impl Node {
    /// So many that a statement may read as many tables.
    fn rules(&self) -> usize {
        match self {
            Self::Rule(_) => 1,
            Self::Correlation { parts, .. } => parts.iter().map(Self::rules).sum(),
        }
    }

    /// Its documents, and what it is called.
    fn write(&self, documents: &mut Vec<String>) -> String {
        let Self::Correlation { kind, parts, span, least } = self else {
            let Self::Rule(name) = self else { unreachable!() };
            return format!("rule_{name}");
        };
        let names: Vec<String> = parts.iter().map(|part| part.write(documents)).collect();
        let condition = match kind {
            0 => format!("\ncondition: {{gte: {least}}}"),
            1 => format!("\ncondition: {{gte: {least}, field: CommandLine}}"),
            _ => String::new(),
        };
        let (number, names) = (documents.len(), names.join(", "));
        let body = format!("type: {}\nrules: [{names}]\ngroup-by: [User]\ntimespan: {span}s{condition}", KINDS[*kind]);
        documents.push(correlation(&format!("made_{number}"), number, &body));
        format!("made_{number}")
    }

    /// The events that complete a match of one user's.
    fn found(&self, events: &[(i64, char)]) -> Vec<usize> {
        let (kind, parts, span, least) = match self {
            Self::Rule(name) => return (0..events.len()).filter(|at| events[*at].1 == *name).collect(),
            Self::Correlation { kind, parts, span, least } => (*kind, parts, *span, *least),
        };
        let each: Vec<Vec<usize>> = parts.iter().map(|part| part.found(events)).collect();
        let goes_by_order = !matches!(kind, 1 | 2);
        let within = |at: usize, last: usize| {
            let (time, of_last) = (events[at].0, events[last].0);
            let is_before = if goes_by_order { at <= last } else { time <= of_last };
            is_before && time > of_last - span * 1_000
        };
        (0..events.len())
            .filter(|last| each.iter().any(|of| of.contains(last)))
            .filter(|last| {
                let seen = |of: &[usize]| of.iter().filter(|at| within(**at, *last)).copied().collect::<Vec<_>>();
                let seen: Vec<Vec<usize>> = each.iter().map(|of| seen(of)).collect();
                match kind {
                    0 => {
                        let of_rules = || parts.iter().zip(&seen).filter(|(part, _)| matches!(part, Self::Rule(_)));
                        let mut events: Vec<usize> = of_rules().flat_map(|(_, of)| of.clone()).collect();
                        events.sort_unstable();
                        events.dedup();
                        let all: usize = seen.iter().map(Vec::len).sum();
                        let again: usize = of_rules().map(|(_, of)| of.len()).sum();
                        all - again + events.len() >= least
                    }
                    1 => {
                        let mut values: Vec<char> = seen.iter().flatten().map(|at| events[*at].1).collect();
                        values.sort_unstable();
                        values.dedup();
                        values.len() >= least
                    }
                    2 => seen.iter().all(|of| !of.is_empty()),
                    _ => {
                        // The latest first event from which a chain leads on.
                        let mut firsts: Vec<(usize, usize)> = seen[0].iter().map(|at| (*at, *at)).collect();
                        for of in &seen[1..] {
                            let step = |at: &usize| {
                                let before = firsts.iter().filter(|(_, before)| before < at);
                                before.map(|(first, _)| *first).max().map(|first| (first, *at))
                            };
                            firsts = of.iter().filter_map(step).collect();
                        }
                        firsts.iter().any(|(_, at)| at == last)
                    }
                }
            })
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_chain_finds_what_looking_at_every_event_finds(
        node in node(3).prop_filter("a correlation of few rules", |node| matches!(node, Node::Correlation { .. }) && node.rules() < 6),
        steps in prop::collection::vec((step(), prop::sample::select(vec!['a', 'b', 'c']), any::<bool>()), 4..32),
    ) {
        let mut documents = Vec::new();
        node.write(&mut documents);
        let last = documents.len() - 1;
        let mut ms = 0;
        let events: Vec<(i64, char, &str)> = steps
            .iter()
            .map(|(step, name, is_root)| {
                ms += step;
                (ms, *name, if *is_root { "root" } else { "bob" })
            })
            .collect();
        let lines: Vec<Value> = events
            .iter()
            .map(|(ms, name, user)| {
                let mut event = at_ms(ms % 60_000, &name.to_string(), user);
                let (minute, rest) = (ms / 60_000, ms % 60_000);
                event["UtcTime"] = json!(format!("2026-01-31 12:{minute:02}:{:02}.{:03}", rest / 1_000, rest % 1_000));
                event
            })
            .collect();
        let mut expected = Vec::new();
        for user in ["root", "bob"] {
            let of: Vec<usize> = (0..events.len()).filter(|at| events[*at].2 == user).collect();
            let own: Vec<(i64, char)> = of.iter().map(|at| (events[*at].0, events[*at].1)).collect();
            expected.extend(node.found(&own).into_iter().map(|at| (last, of[at] as u64)));
        }
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        let found: Vec<_> = found(&documents, &lines).into_iter().filter(|(number, _)| *number == last).collect();
        for one in &found {
            prop_assert!(expected.contains(one), "{one:?} of {found:?} is none of {expected:?}");
        }
        // What stays true within a second is one match, of its last event.
        let second = |line: u64| {
            let (ms, _, user) = events[usize::try_from(line).unwrap()];
            (ms / 1_000, user)
        };
        for (_, line) in &expected {
            prop_assert!(found.iter().any(|(_, other)| second(*other) == second(*line)), "{line} of {expected:?} is not in {found:?}");
        }
    }
}
