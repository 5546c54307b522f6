//! Queries whose first plan found no memory, and that were answered by one which spills.

use super::*;

const SCRATCH: u64 = 256 * MIB as u64;

fn scarce(store: &Arc<Store>, memory_bytes: usize, threads: usize) -> QueryEngine {
    let limits = QueryLimits { memory_bytes, scratch: scratch(store, SCRATCH), threads, spread_rows: 0, ..patient() };
    engine(store, limits)
}

/// The operators of the plan that answered.
async fn operators(engine: &QueryEngine, sql: &str) -> String {
    operators_within(engine, sql, 120_000).await
}

async fn operators_within(engine: &QueryEngine, sql: &str, deadline_ms: u32) -> String {
    let explaining = QueryRequest { explain: true, deadline_ms: Some(deadline_ms), ..request(sql) };
    run(engine, explaining).await.unwrap().explained()["operators"].to_string()
}

#[tokio::test]
async fn joins_beyond_the_memory_are_merged_from_the_disk_and_right() {
    let (_dir, store) = filled(60);
    let enough = engine(&store, patient());
    for threads in [1, 2] {
        for sql in [
            "SELECT count(*), max(a.command_line || b.seq) FROM process_events AS a JOIN process_events AS b \
             ON a.entity_id = b.entity_id",
            "SELECT count(*), count(b.seq), max(b.command_line || a.seq) FROM process_events AS a LEFT JOIN process_events AS b \
             ON a.entity_id = b.parent_entity_id AND a.command_line < b.command_line",
            "SELECT count(*), count(a.seq), count(b.seq), max(a.command_line || b.command_line) FROM process_events AS a \
             FULL JOIN process_events AS b ON a.entity_id = b.parent_entity_id AND a.seq < b.seq",
            "SELECT count(*), max(a.command_line) FROM process_events AS a WHERE NOT EXISTS (SELECT 1 FROM process_events AS b \
             WHERE a.entity_id = b.entity_id AND b.seq > a.seq AND b.command_line || '' > '')",
            "SELECT count(*), max(a.command_line) FROM process_events AS a WHERE a.entity_id || a.command_line || a.command_line || a.seq IN \
             (SELECT b.entity_id || b.command_line || b.command_line || b.seq FROM process_events AS b WHERE b.pid % 3 > 0)",
            "SELECT count(*), count(c) FROM (SELECT a.command_line || b.command_line AS c FROM process_events AS a JOIN process_events AS b \
             ON a.entity_id = b.entity_id LIMIT 10) AS s",
        ] {
            let scarce = scarce(&store, 12 * MIB, threads);
            let (right, answer) = (ask(&enough, sql).await, ask(&scarce, sql).await);
            let merged = operators(&scarce, sql).await.contains("SortMergeJoin");
            assert!(merged || sql.contains("EXISTS"), "{sql}");
            assert_eq!((right.degraded().len(), right.rows.len()), (0, 1), "{sql}");
            assert_eq!((answer.degraded(), answer.lacks()), (Vec::new(), Vec::new()), "{sql}");
            assert_eq!(answer.rows, right.rows, "{sql}");
        }
    }
    let joined = "SELECT count(*), max(a.command_line || b.seq) FROM process_events AS a JOIN process_events AS b \
                  ON a.entity_id = b.entity_id";
    assert!(operators(&enough, joined).await.contains("HashJoin"));
    let scarce = scarce(&store, 12 * MIB, 2);
    let merged = operators(&scarce, joined).await;
    assert!(merged.contains("SortMergeJoin"), "the second plan is what is explained: {merged}");
    assert_eq!(files_below(&store.dir().join("scratch")), 0);
}

#[tokio::test]
async fn joins_by_a_time_beyond_the_memory_are_right() {
    let (_dir, store) = filled(60);
    let enough = engine(&store, patient());
    for (sql, kept) in [("a.time = b.time", "EXISTS"), ("a.time = b.time AND a.entity_id = b.entity_id", "NOT EXISTS")]
    {
        let sql = format!(
            "SELECT count(*), max(a.command_line) FROM process_events AS a WHERE {kept} (SELECT 1 FROM process_events AS b \
             WHERE {sql} AND a.command_line || a.seq <= b.command_line || b.seq)"
        );
        let right = ask(&enough, &sql).await;
        assert_eq!((right.degraded().len(), right.rows.len()), (0, 1), "{sql}");
        let scarce = scarce(&store, 7 * MIB, 1);
        assert!(operators(&scarce, &sql).await.contains("SortMergeJoin"), "{sql}");
        let answer = ask(&scarce, &sql).await;
        assert_eq!((answer.degraded(), answer.lacks()), (Vec::new(), Vec::new()), "{sql}");
        assert_eq!(answer.rows, right.rows, "{sql}");
    }
}

#[tokio::test]
async fn many_first_rows_of_an_order_are_sorted_where_they_do_not_fit() {
    let (_dir, store) = filled(30);
    const FIRST: &str =
        "SELECT command_line || '#' || seq FROM process_events ORDER BY command_line DESC, seq LIMIT 20000";
    let right = ask(&engine(&store, patient()), FIRST).await;
    assert_eq!((right.degraded().len(), right.rows.len()), (0, 20_000));
    for threads in [1, 2] {
        let scarce = scarce(&store, 4 * MIB, threads);
        let answer = ask(&scarce, FIRST).await;
        assert_eq!((answer.degraded(), answer.lacks()), (Vec::new(), Vec::new()));
        assert!(answer.texts() == right.texts(), "the same rows in the same order");
        let few = "SELECT seq FROM process_events ORDER BY command_line, seq LIMIT 5";
        assert!(operators(&scarce, few).await.contains("TopK"), "few are kept in a heap");
    }
}

#[tokio::test]
async fn numbers_of_rows_in_an_order_beyond_the_memory_are_right() {
    let (_dir, store) = filled(60);
    const NUMBERED: &str = "SELECT max(n), max(n || c) FROM (SELECT row_number() OVER (ORDER BY command_line, seq) AS n, \
                            command_line || seq AS c FROM process_events) AS s";
    let right = ask(&engine(&store, patient()), NUMBERED).await;
    assert_eq!((right.degraded().len(), right.rows.len()), (0, 1));
    for threads in [1, 2] {
        let answer = ask(&scarce(&store, 4 * MIB, threads), NUMBERED).await;
        assert_eq!((answer.degraded(), answer.lacks()), (Vec::new(), Vec::new()), "{threads} threads");
        assert_eq!(answer.rows, right.rows);
    }
}

#[tokio::test]
async fn a_merged_join_whose_condition_nothing_passes_ends_with_its_deadline() {
    let (_dir, store) = filled(40);
    let limits = QueryLimits { memory_bytes: 6 * MIB, scratch: scratch(&store, SCRATCH), concurrent: 1, ..patient() };
    let engine = engine(&store, limits);
    let barren = "SELECT count(*) FROM process_events AS a JOIN process_events AS b \
                  ON a.event_type = b.event_type AND a.command_line || b.command_line ~ 'no such command'";
    let hurried = QueryRequest { deadline_ms: Some(8_000), ..request(barren) };
    assert!(operators_within(&engine, barren, 8_000).await.contains("SortMergeJoin"));
    let answer = run(&engine, hurried).await.unwrap();
    assert_eq!(answer.degraded(), ["timed_out"]);
    assert_eq!(one(&engine, "SELECT 1").await.kind, Some(Kind::Integer(1)), "the slot is free again");
}

#[tokio::test]
async fn several_counts_of_different_values_beyond_the_memory_are_right() {
    let (_dir, store) = filled(60);
    for counted in [
        "SELECT count(DISTINCT command_line || seq), max(pid), count(DISTINCT entity_id), count(*), count(DISTINCT name), \
         sum(DISTINCT pid) FROM process_events WHERE pid > 1",
        "SELECT count(*), count(DISTINCT command_line || seq) FROM process_events",
    ] {
        let right = ask(&engine(&store, patient()), counted).await;
        assert_eq!((right.degraded().len(), right.rows.len()), (0, 1));
        for threads in [1, 2] {
            let scarce = scarce(&store, 8 * MIB, threads);
            assert!(operators(&scarce, counted).await.contains("CrossJoin"), "one for each");
            let answer = ask(&scarce, counted).await;
            assert_eq!((answer.degraded(), answer.lacks()), (Vec::new(), Vec::new()));
            assert_eq!(answer.rows, right.rows);
        }
    }
}

#[tokio::test]
async fn counts_of_different_values_in_groups_beyond_the_memory_are_right() {
    let (_dir, store) = filled(60);
    let enough = engine(&store, patient());
    for sql in [
        "SELECT name, count(*), count(DISTINCT command_line || seq) FROM process_events GROUP BY name ORDER BY 1",
        // Two keys, of which one is NULL in some rows and one is calculated; one count twice, one in a condition.
        "SELECT nullif(pid % 5, 3) AS k, event_type, count(DISTINCT command_line || seq) AS n, max(pid), count(DISTINCT entity_id), \
         count(DISTINCT command_line || seq) + 1 FROM process_events GROUP BY 1, 2 HAVING count(DISTINCT seq) > 1 ORDER BY 1, 2",
        "SELECT sum(n), count(DISTINCT k), max(c) FROM (SELECT pid % 7 AS k, count(DISTINCT command_line || seq) AS n, count(pid) AS c \
         FROM process_events GROUP BY 1) AS s",
    ] {
        let right = ask(&enough, sql).await;
        assert!(right.degraded().is_empty() && !right.rows.is_empty(), "{sql}");
        for threads in [1, 2] {
            let scarce = scarce(&store, 16 * MIB, threads);
            let operators = operators(&scarce, sql).await;
            assert!(threads == 2 || operators.contains("Join"), "one for each: {sql}: {operators}");
            let answer = ask(&scarce, sql).await;
            assert_eq!((answer.degraded(), answer.lacks()), (Vec::new(), Vec::new()), "{sql}");
            assert_eq!(answer.rows, right.rows, "{sql}");
        }
    }
}

#[tokio::test]
async fn several_threads_have_half_of_the_memory_where_what_does_not_fit_may_begin_again() {
    let (_dir, store) = filled(60);
    let joined = "FROM process_events AS a JOIN process_events AS b ON a.entity_id = b.entity_id";
    let counted = format!("SELECT count(*), max(a.command_line || b.command_line) {joined}");
    let handed_on = format!("SELECT a.seq, a.command_line || b.command_line AS c {joined}");
    let half = scarce(&store, 24 * MIB, 2);
    let (alone, several) = (operators(&half, &counted).await, operators(&half, &handed_on).await);
    assert!(alone.contains("HashJoin") && !alone.contains("2 groups"), "it begins again, on one thread: {alone}");
    assert!(several.contains("2 groups"), "its rows leave as they come: {several}");
    let limits = QueryLimits { memory_bytes: 24 * MIB, threads: 2, spread_rows: 0, ..patient() };
    let diskless = engine(&store, limits);
    assert!(operators(&diskless, &counted).await.contains("2 groups"), "nothing would spill");
    let right = ask(&engine(&store, patient()), &counted).await;
    for (engine, which) in [(half, "spills"), (diskless, "does not")] {
        let answer = ask(&engine, &counted).await;
        assert_eq!((answer.degraded(), answer.lacks()), (Vec::new(), Vec::new()), "{which}");
        assert_eq!(answer.rows, right.rows);
    }
}

#[tokio::test]
async fn rows_of_one_key_beyond_the_memory_are_cut() {
    let (_dir, store) = filled(20);
    let counted = "SELECT count(*), max(a.command_line || b.command_line) FROM process_events AS a JOIN process_events AS b \
                   ON a.event_type = b.event_type AND a.command_line || b.command_line > ''";
    let scarce = scarce(&store, 2 * MIB, 1);
    let answer = ask(&scarce, counted).await;
    assert_eq!((answer.degraded(), answer.rows.len()), (vec!["capped".to_owned()], 0), "{:?}", answer.lacks());
    let explained = run(&scarce, QueryRequest { explain: true, ..request(counted) }).await.unwrap();
    assert_eq!(explained.explained()["complete"], false, "{}", explained.explained());
}

#[tokio::test]
async fn what_no_other_plan_answers_is_cut_and_does_not_fail() {
    let (_dir, store) = filled(30);
    let joined = "SELECT count(*), max(a.command_line || b.seq) FROM process_events AS a JOIN process_events AS b \
                  ON a.entity_id = b.entity_id";
    let limits = QueryLimits { memory_bytes: 4 * MIB, scratch: None, threads: 1, ..patient() };
    assert_eq!(ask(&engine(&store, limits), joined).await.degraded(), ["capped"], "nothing spills");
    // Counts that look at an outer row stay together.
    let correlated = "SELECT p.seq, (SELECT count(DISTINCT c.command_line) + count(DISTINCT c.executable_path) FROM process_events AS c \
                      WHERE c.parent_entity_id = p.entity_id) AS n FROM process_events AS p ORDER BY p.command_line, p.seq LIMIT 9000";
    let right = ask(&engine(&store, patient()), correlated).await;
    assert_eq!((right.degraded().len(), right.rows.len()), (0, 9_000));
    let answer = ask(&scarce(&store, 3 * MIB, 1), correlated).await;
    assert!(answer.degraded() == ["capped"] || answer.rows == right.rows, "{:?}", answer.lacks());
}
