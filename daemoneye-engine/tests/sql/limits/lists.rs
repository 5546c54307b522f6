//! What is in a list or not, and what is there.

use super::*;
use std::collections::BTreeSet;

/// A row and its process.
type Row = (i64, i64);
type Passes<'a> = &'a dyn Fn(&Row) -> bool;

async fn rows_where(engine: &QueryEngine, condition: &str) -> BTreeSet<Row> {
    let sql = format!("SELECT a.seq, a.pid FROM process_events AS a WHERE {condition}");
    let rows = ask(engine, &sql).await.rows;
    let whole = |value: &Value| match value.kind {
        Some(Kind::Integer(number)) => number,
        ref other => panic!("{sql}: {other:?}"),
    };
    rows.iter().map(|row| (whole(&row[0]), whole(&row[1]))).collect()
}

#[tokio::test]
async fn what_is_absent_from_a_list_is_so_with_null_and_wherever_it_is_asked() {
    let (_dir, store) = filled(1);
    let two = engine(&store, QueryLimits { threads: 2, spread_rows: 0, ..patient() });
    let engines = [two, engine(&store, QueryLimits { threads: 1, ..patient() })];
    let all = rows_where(&engines[0], "true").await;
    let mut asks = engines.iter().cycle();
    for (value, listed) in [("a.exit_code", "exit_code"), ("nullif(a.name, 'cat')", "parent_name")] {
        for list in [
            "b.seq < 300",
            "b.seq < 300 AND {y} IS NOT NULL",
            "b.seq < 0",
            "b.event_type = 'start' AND b.seq > 990",
            "b.pid = a.pid",
            "b.name = a.name AND {y} IS NOT NULL",
            "b.seq < a.seq AND b.seq > a.seq - 3",
        ] {
            let list = list.replace("{y}", &format!("b.{listed}"));
            let of = format!("FROM process_events AS b WHERE {list}");
            let is_in = format!("{value} IN (SELECT b.{listed} {of})");
            let not_in = format!("{value} NOT IN (SELECT b.{listed} {of})");
            let has = |met: &str| format!("EXISTS (SELECT 1 {of} AND (b.{listed} = {value}) {met})");
            let met = rows_where(&engines[0], &has("IS TRUE")).await;
            let may_be = rows_where(&engines[0], &has("IS NOT FALSE")).await;
            let even = |row: &Row| row.1 % 2 == 0;
            let present = |row: &Row| met.contains(row);
            let absent = |row: &Row| !may_be.contains(row);
            let conditions: [(String, Passes); 15] = [
                (not_in.clone(), &absent),
                (format!("NOT ({is_in})"), &absent),
                (format!("{not_in} AND a.seq > 500"), &|row| absent(row) && row.0 > 500),
                (format!("{not_in} OR a.pid % 2 = 0"), &|row| absent(row) || even(row)),
                (format!("NOT ({is_in} OR a.pid % 2 = 0)"), &|row| absent(row) && !even(row)),
                (format!("NOT ({not_in})"), &present),
                (format!("NOT ({not_in} AND a.pid % 2 = 0)"), &|row| present(row) || !even(row)),
                (format!("({not_in}) IS TRUE"), &absent),
                (format!("({is_in}) IS NOT FALSE"), &|row| !absent(row)),
                (format!("({is_in}) IS NOT TRUE"), &|row| !present(row)),
                (format!("({not_in}) IS FALSE"), &present),
                (format!("({not_in}) IS NULL"), &|row| !absent(row) && !present(row)),
                (format!("({is_in}) = false"), &absent),
                (format!("coalesce({is_in}, a.pid % 2 = 0)"), &|row| present(row) || (!absent(row) && even(row))),
                (format!("CASE WHEN {not_in} THEN a.pid % 2 = 0 ELSE {is_in} END"), &|row| {
                    present(row) || (absent(row) && even(row))
                }),
            ];
            for (condition, passes) in conditions {
                let asked = rows_where(asks.next().unwrap(), &condition).await;
                let right = all.iter().copied().filter(|row| passes(row)).collect();
                assert_eq!(asked, right, "{condition}");
            }
        }
    }
}

#[tokio::test]
async fn a_value_that_is_the_same_for_all_rows_is_looked_for_once() {
    let (_dir, store) = filled(20);
    let engine = engine(&store, patient());
    let count = |condition: &str| format!("SELECT count(*) FROM process_events WHERE {condition}");
    let all = one(&engine, &count("true")).await;
    let codes = "SELECT exit_code FROM process_events";
    for (condition, passes) in [
        (format!("0 IN ({codes})"), true),
        (format!("0 NOT IN ({codes})"), false),
        (format!("-7 IN ({codes})"), false),
        (format!("-7 NOT IN ({codes})"), false),
        (format!("(-7 NOT IN ({codes})) IS NULL"), true),
        (format!("-7 NOT IN ({codes} WHERE exit_code IS NOT NULL)"), true),
        (format!("NULL NOT IN ({codes} WHERE pid < 0)"), true),
        (format!("NULL IN ({codes} WHERE exit_code IS NOT NULL)"), false),
        (format!("(NULL IN ({codes} WHERE exit_code IS NOT NULL)) IS NULL"), true),
        (format!("-7 NOT IN ({codes} WHERE exit_code IS NOT NULL LIMIT 5)"), true),
        (format!("EXISTS ({codes} WHERE exit_code = 0)"), true),
        (format!("NOT EXISTS ({codes} WHERE exit_code = 0)"), false),
        (format!("EXISTS ({codes} WHERE exit_code = -7)"), false),
        (format!("NOT EXISTS ({codes} WHERE exit_code = -7)"), true),
        (format!("EXISTS ({codes} OFFSET 1000000)"), false),
        (format!("EXISTS ({codes} LIMIT 0)"), false),
        (format!("(pid NOT IN ({codes} WHERE EXISTS ({codes} WHERE exit_code = -7))) IS TRUE"), true),
        ("EXISTS (SELECT count(*) FROM process_events WHERE pid < 0)".to_owned(), true),
        (format!("EXISTS ({codes} WHERE exit_code = -7) OR pid < 0"), false),
    ] {
        let answer = ask(&engine, &count(&condition)).await;
        assert!(answer.degraded().is_empty(), "{condition}");
        let wanted = if passes { all.kind.clone() } else { Some(Kind::Integer(0)) };
        assert_eq!(answer.rows[0][0].kind, wanted, "{condition}");
    }
}

#[tokio::test]
async fn an_aggregate_of_what_belongs_to_a_row_has_a_value_where_nothing_does() {
    let (_dir, store) = filled(2);
    let engine = engine(&store, patient());
    let (of, none) = (
        "FROM process_events AS b WHERE b.ppid = a.pid",
        "FROM process_events AS b WHERE b.ppid = a.pid AND b.pid < 0",
    );
    let child = format!("EXISTS (SELECT 1 {of})");
    for (asked, said) in [
        (format!("0 IN (SELECT count(*) {of})"), format!("NOT {child}")),
        (format!("0 NOT IN (SELECT count(*) {of})"), child.clone()),
        (format!("a.seq IN (SELECT count(*) + 1 {none})"), "a.seq = 1".to_owned()),
        (format!("EXISTS (SELECT count(*) {none})"), "true".to_owned()),
        (format!("NOT EXISTS (SELECT max(b.pid) {none} LIMIT 1)"), "false".to_owned()),
        (format!("EXISTS (SELECT 1 {of} HAVING count(*) = 0)"), format!("NOT {child}")),
        (format!("NOT EXISTS (SELECT 1 {of} HAVING count(*) = 0)"), child.clone()),
        (
            format!("1 IN (SELECT count(*) {of} HAVING max(b.seq) > 500)"),
            format!("(SELECT count(*) {of}) = 1 AND EXISTS (SELECT 1 {of} AND b.seq > 500)"),
        ),
        (
            format!("1 NOT IN (SELECT count(*) {of} HAVING max(b.seq) > 500)"),
            format!("NOT ((SELECT count(*) {of}) = 1 AND EXISTS (SELECT 1 {of} AND b.seq > 500))"),
        ),
        (
            format!("a.exit_code IN (SELECT max(b.exit_code) {of} GROUP BY b.ppid)"),
            format!("a.exit_code = (SELECT max(b.exit_code) {of})"),
        ),
        (
            format!("(a.exit_code NOT IN (SELECT max(b.exit_code) {of})) IS NULL"),
            format!("a.exit_code IS NULL OR (SELECT max(b.exit_code) {of}) IS NULL"),
        ),
    ] {
        let count = |condition| format!("SELECT count(*), max(a.seq) FROM process_events AS a WHERE {condition}");
        let (asked, said) = (count(asked), count(said));
        assert_eq!(ask(&engine, &asked).await.rows, ask(&engine, &said).await.rows, "{asked}");
    }
}

#[tokio::test]
async fn a_list_beside_or_is_held_once_and_found_among_more_rows_than_fit() {
    let (_dir, store) = filled(60);
    let (enough, scarce) = (
        engine(&store, patient()),
        engine(&store, QueryLimits { memory_bytes: 4 * MIB, threads: 2, spread_rows: 0, ..patient() }),
    );
    let select = "SELECT count(*), max(command_line), sum(pid) FROM process_events WHERE pid % 7 = 0 OR";
    for list in [
        "IN (SELECT command_line FROM process_events WHERE seq < 1000)",
        "NOT IN (SELECT command_line FROM process_events WHERE seq < 1000)",
    ] {
        let sql = format!("{select} command_line {list}");
        let (right, answer) = (ask(&enough, &sql).await, ask(&scarce, &sql).await);
        assert_eq!((answer.degraded(), answer.lacks()), (Vec::new(), Vec::new()), "{sql}");
        assert_eq!(answer.rows, right.rows, "{sql}");
    }
    // Sixty thousand rows of a dozen names, each with each, would be half a thousand million pairs.
    let names = format!("{select} name IN (SELECT parent_name FROM process_events)");
    let said = format!("{select} name IN (SELECT DISTINCT parent_name FROM process_events)");
    assert_eq!(ask(&scarce, &names).await.rows, ask(&enough, &said).await.rows);
}

#[tokio::test]
async fn what_a_join_would_answer_for_all_rows_at_once_is_refused() {
    let (_dir, store) = filled(1);
    let engine = engine(&store, patient());
    let of = "FROM process_events AS b WHERE b.pid = a.pid";
    for (condition, what) in [
        (format!("a.exit_code NOT IN (SELECT b.exit_code {of} LIMIT 1)"), "LIMIT in a subquery"),
        (format!("a.exit_code IN (SELECT b.exit_code {of} ORDER BY b.seq)"), "ORDER BY in a subquery"),
        (format!("1 IN (SELECT row_number() OVER (ORDER BY b.seq) {of})"), "a window function in a subquery"),
        (format!("EXISTS (SELECT 1 {of} OFFSET 1)"), "LIMIT in a subquery"),
        (format!("EXISTS (SELECT b.pid {of} UNION SELECT 1)"), "UNION in a subquery"),
        (
            "EXISTS (SELECT 1 FROM process_events AS b JOIN process_events AS c ON b.pid = a.pid)".to_owned(),
            "more than conditions in WHERE",
        ),
    ] {
        let sql = format!("SELECT count(*) FROM process_events AS a WHERE {condition}");
        match run(&engine, request(&sql)).await {
            Err(QueryError::Planning(refusal)) => {
                assert!(
                    refusal.message.contains(what) && refusal.message.contains("looks at the outer row"),
                    "{refusal}"
                );
                assert!(refusal.line == 1 && refusal.hint.contains("JOIN it"), "{sql}: {refusal:?}");
            }
            other => panic!("{sql}: {:?}", other.map(|answer| answer.rows)),
        }
    }
    let codes = "(SELECT exit_code FROM process_events LIMIT 3)";
    let joined = "SELECT count(*) FROM process_events AS a LEFT JOIN process_events AS b ON a.pid = b.pid";
    let of = "SELECT exit_code FROM process_events WHERE process_events.ppid = p.ppid";
    let both = format!(
        "SELECT 1 FROM processes AS p JOIN process_events ON p.pid = process_events.pid WHERE exit_code NOT IN ({of})"
    );
    for (sql, what) in [
        (format!("{joined} AND a.exit_code IN {codes}"), "ON of an outer join"),
        (format!("{joined} WHERE a.exit_code NOT IN {codes} OR a.pid > 5"), "not joined to the rest by AND"),
        (both, "process_events inside of NOT IN (SELECT …) and outside of it"),
    ] {
        match run(&engine, request(&sql)).await {
            Err(QueryError::Planning(refusal)) => {
                assert!(refusal.message.contains(what), "{sql}: {refusal}");
                assert_eq!(refusal.column as usize, sql.rfind("SELECT").unwrap() + 1, "{sql}");
            }
            other => panic!("{sql}: {:?}", other.map(|answer| answer.rows)),
        }
    }
}

#[tokio::test]
async fn lists_of_joins_and_groups_and_in_on_are_right() {
    let (_dir, store) = filled(1);
    let engine = engine(&store, patient());
    let (a, met) = ("FROM process_events AS a", "b.pid = c.ppid WHERE b.pid = a.pid");
    let pairs = "FROM process_events AS b JOIN process_events AS c ON";
    for (asked, said) in [
        (
            format!("{a} WHERE a.exit_code NOT IN (SELECT c.exit_code {pairs} {met})"),
            format!("{a} WHERE NOT EXISTS (SELECT 1 {pairs} {met} AND (c.exit_code = a.exit_code) IS NOT FALSE)"),
        ),
        (
            format!("{a} WHERE a.exit_code NOT IN (SELECT DISTINCT b.exit_code FROM process_events AS b WHERE b.pid = a.pid)"),
            format!("{a} WHERE a.exit_code NOT IN (SELECT b.exit_code FROM process_events AS b WHERE b.pid = a.pid)"),
        ),
        (
            "FROM process_events WHERE exit_code NOT IN (SELECT exit_code FROM process_events AS b WHERE b.ppid = process_events.ppid)"
                .to_owned(),
            format!("{a} WHERE a.exit_code NOT IN (SELECT b.exit_code FROM process_events AS b WHERE b.ppid = a.ppid)"),
        ),
        (
            format!("{a} WHERE 2 NOT IN (SELECT count(*) FROM process_events AS b WHERE b.pid = a.pid GROUP BY b.event_type)"),
            format!(
                "{a} WHERE NOT EXISTS (SELECT 1 FROM process_events AS b WHERE b.pid = a.pid GROUP BY b.event_type HAVING count(*) = 2)"
            ),
        ),
        (
            format!("{a} JOIN process_events AS d ON a.seq = d.seq AND a.exit_code NOT IN (SELECT exit_code FROM process_events WHERE seq < 9)"),
            format!("{a} WHERE a.exit_code NOT IN (SELECT exit_code FROM process_events WHERE seq < 9)"),
        ),
    ] {
        let (asked, said) = (format!("SELECT count(*) {asked}"), format!("SELECT count(*) {said}"));
        let (answer, right) = (ask(&engine, &asked).await, ask(&engine, &said).await);
        assert_eq!(answer.rows, right.rows, "{asked}");
    }
}

#[tokio::test]
async fn names_that_lists_have_of_their_own_are_free_for_columns_and_tables() {
    let (_dir, store) = filled(1);
    let engine = engine(&store, patient());
    let named = "SELECT count(*) FROM process_events AS \"list 1\" WHERE \"list 1\".exit_code NOT IN \
                 (SELECT exit_code FROM process_events AS b WHERE exit_code <> 0)";
    let plain = named.replace("\"list 1\"", "a");
    let (named, plain) = (ask(&engine, named).await, ask(&engine, &plain).await);
    assert!(named.rows == plain.rows && plain.rows[0][0].kind != Some(Kind::Integer(0)), "{:?}", named.rows);
    let limited = "SELECT count(*) FROM (SELECT exit_code AS \"value of a list 0\" FROM process_events) AS a \
                   WHERE \"value of a list 0\" NOT IN (SELECT exit_code AS \"value of a list 1\" FROM process_events \
                   WHERE exit_code = 1 LIMIT 5)";
    assert!(ask(&engine, limited).await.degraded().is_empty());
}

#[tokio::test]
async fn what_is_absent_from_a_list_is_found_among_more_rows_than_fit() {
    let (_dir, store) = filled(60);
    let (enough, scarce) = (
        engine(&store, patient()),
        engine(&store, QueryLimits { memory_bytes: 4 * MIB, threads: 2, spread_rows: 0, ..patient() }),
    );
    let new = "SELECT count(*), max(command_line) FROM process_events WHERE command_line NOT IN \
               (SELECT command_line FROM process_events WHERE seq < 1000)";
    let (right, answer) = (ask(&enough, new).await, ask(&scarce, new).await);
    assert_eq!((answer.degraded(), answer.lacks()), (Vec::new(), Vec::new()));
    assert_eq!(answer.rows, right.rows);
    assert!(!matches!(right.rows[0][0].kind, Some(Kind::Integer(0))));
}

#[tokio::test]
async fn a_condition_on_one_of_two_columns_of_a_name_is_asked_of_that_one() {
    let (_dir, store) = filled(2);
    let engine = engine(&store, patient());
    let few = "(SELECT * FROM process_events WHERE seq < 300)";
    let more = "(SELECT * FROM process_events WHERE seq > 100)";
    for condition in [
        "a.pid IS NULL",
        "coalesce(a.name, 'none') = 'none'",
        "(a.exit_code = 0) IS NOT TRUE",
        "a.name IS NULL AND b.pid % 2 = 0",
    ] {
        let right = format!(
            "SELECT count(*), sum(b.seq) FROM {few} AS a RIGHT JOIN {more} AS b ON a.ppid = b.pid WHERE {condition}"
        );
        let left = format!(
            "SELECT count(*), sum(b.seq) FROM {more} AS b LEFT JOIN {few} AS a ON a.ppid = b.pid WHERE {condition}"
        );
        let (right, left) = (ask(&engine, &right).await, ask(&engine, &left).await);
        assert!(
            right.rows == left.rows && left.rows[0][0].kind != Some(Kind::Integer(0)),
            "{condition}: {:?}",
            right.rows
        );
    }
    for join in ["RIGHT", "FULL"] {
        let using = format!("SELECT count(pid) FROM process_events AS a {join} JOIN processes AS b USING (pid)");
        let told = run(&engine, request(&using)).await.map(|answer| answer.rows).unwrap_err().to_string();
        assert!(told.contains("USING is not accepted"), "{told}");
    }
    let replaced = "SELECT count(*) FROM process_events WHERE replace(executable_path, name, cwd) = 'x'";
    assert!(ask(&engine, replaced).await.degraded().is_empty());
}
