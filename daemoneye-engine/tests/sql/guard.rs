//! What the SQL gates refuse and accept, statement by statement.

use daemoneye_engine::ingest;
use daemoneye_engine::sql::{NoCollectors, QueryEngine, QueryLimits, SqlRefusal, check, check_plan};
use daemoneye_engine::store::{Store, StoreOptions};
use daemoneye_lib::proto::{
    Capture, EventType, Identity, ProcessEvent, ProcessRecord, QueryRequest, Record, Sequence, StartKind, Value,
    value::Kind,
};
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;
use std::sync::{Arc, LazyLock};
use tokio_util::sync::CancellationToken;

use self::answered::answered;

#[path = "../../../fuzz/fuzz_targets/answered.rs"]
mod answered;

/// 2026-01-31T12:00:00Z.
const NOON_US: i64 = 1_769_860_800_000_000;
/// Set to anything, the files in `guard` are written anew with what is answered now.
const REWRITE: &str = "DAEMONEYE_REWRITE_GUARD";

/// One statement of a file in `guard`, with what it says about it.
struct Case {
    /// What somebody may try, or what a person wants.
    idea: String,
    /// `refused LINE:COLUMN MESSAGE`, or `accepted`.
    verdict: String,
    sql: String,
    rows: Vec<String>,
}

impl Case {
    fn read(block: &str) -> Self {
        let mut lines = block.lines();
        let mut idea = Vec::new();
        let verdict = loop {
            let line = lines.next().unwrap_or_else(|| panic!("no verdict in {block:?}"));
            match line.strip_prefix("# ") {
                Some(words) => idea.push(words),
                None => break line.to_owned(),
            }
        };
        let rest: Vec<&str> = lines.collect();
        let end = rest.iter().position(|line| *line == "----").unwrap_or(rest.len());
        let rows = rest.iter().skip(end + 1).map(|row| (*row).to_owned()).collect();
        Self {
            idea: idea.join(" "),
            verdict,
            sql: rest.iter().take(end).copied().collect::<Vec<_>>().join("\n"),
            rows,
        }
    }

    fn written(&self) -> String {
        let rows: String = self.rows.iter().map(|row| format!("{row}\n")).collect();
        let answer = if self.verdict == "accepted" { format!("----\n{rows}") } else { String::new() };
        format!("# {}\n{}\n{}\n{answer}\n", self.idea, self.verdict, self.sql)
    }
}

fn shown(value: &Value) -> String {
    match &value.kind {
        None => "NULL".to_owned(),
        Some(Kind::Boolean(value)) => value.to_string(),
        Some(Kind::Integer(value)) => value.to_string(),
        Some(Kind::Real(value)) => value.to_string(),
        Some(Kind::Text(value)) => value.clone(),
        Some(Kind::TimestampUs(value)) => jiff::Timestamp::from_microsecond(*value).unwrap().to_string(),
        Some(Kind::Blob(value)) => format!("{value:02x?}"),
    }
}

fn refusal_line(refusal: &SqlRefusal) -> String {
    // Messages may repeat the statement, line breaks included.
    let message = refusal.message.replace('\n', " ");
    format!("refused {}:{} {message}", refusal.line, refusal.column)
}

/// Five starts: three sealed, two in memory.
fn little_store() -> (tempfile::TempDir, QueryEngine) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    let starts =
        [("bash", "sshd", 0), ("curl", "bash", 1), ("Curl", "bash", 2), ("nc", "bash", 60), ("it's", "cron", 61)];
    let records = (1..).zip(starts).map(|(number, (name, parent, at_s))| {
        let process = ProcessRecord {
            entity_id: u128::from(number).to_be_bytes().to_vec(),
            identity: Identity::Exact.into(),
            pid: 100 + number,
            ppid: Some(1),
            parent_name: Some(parent.to_owned()),
            name: name.to_owned(),
            executable_path: Some(format!("/usr/bin/{name}")),
            command_line: Some(format!("{name} --number {number} 100%_sure")),
            user: (number != 4).then(|| "alice".to_owned()),
            uid: Some(1000),
            memfd: Some(number % 2 == 0),
            memory_usage: Some(u64::from(number) * 1024),
            cpu_usage: Some(f64::from(number) / 4.0),
            capture: Capture::Complete.into(),
            ..ProcessRecord::default()
        };
        let event = ProcessEvent {
            event_type: EventType::Start.into(),
            time_us: NOON_US + at_s * 1_000_000,
            start_kind: StartKind::Exec.into(),
            process: Some(process),
            source: "procfs".to_owned(),
            ..ProcessEvent::default()
        };
        Record {
            sequence: Some(Sequence::new(1, u64::from(number))),
            topic: "events.process.start".to_owned(),
            time_us: event.time_us,
            payload: event.encode_to_vec().into(),
        }
    });
    let records: Vec<Record> = records.collect();
    let (sealed, open) = records.split_at(3);
    store.append(ingest::decode("procmond", sealed).unwrap()).unwrap();
    store.seal().unwrap();
    store.append(ingest::decode("procmond", open).unwrap()).unwrap();
    (dir, QueryEngine::new(Arc::new(store), QueryLimits::default(), Arc::new(NoCollectors)).unwrap())
}

/// Through all gates as an operator's statement goes, and the rows of one that is accepted.
async fn judged(engine: &QueryEngine, sql: &str) -> (String, Vec<String>) {
    let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
    let mut run = match engine.query(request, CancellationToken::new()).await {
        Ok(run) => run,
        Err(error) => {
            let Some(refusal) = error.refusal() else { return (format!("failed {error}"), Vec::new()) };
            assert!(!refusal.hint.is_empty(), "no hint for {sql}: {refusal:?}");
            return (refusal_line(refusal), Vec::new());
        }
    };
    let mut rows = Vec::new();
    loop {
        match run.next_page().await {
            Ok(Some(page)) => {
                let row = |values: &[Value]| values.iter().map(shown).collect::<Vec<_>>().join("|");
                rows.extend(page.rows.iter().map(|of| row(&of.values)));
            }
            Ok(None) => break,
            Err(error) => return (format!("failed {error}"), Vec::new()),
        }
    }
    // The store begins at noon, and statements name whole days.
    let lacks = run.done().lacks.into_iter().filter(|lack| !lack.what.starts_with("nobody watched before"));
    assert_eq!(lacks.count(), 0, "{sql}");
    // Only an ORDER BY behind every parenthesis is the statement's own.
    if !sql.rsplit(')').next().is_some_and(|end| end.contains("ORDER BY")) {
        rows.sort();
    }
    ("accepted".to_owned(), rows)
}

#[tokio::test]
async fn every_statement_of_the_guard_files_is_judged_as_they_say() {
    let (_dir, engine) = little_store();
    let (mut refused, mut accepted, mut wrong) = (0, 0, Vec::new());
    let mut files: Vec<_> =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sql/guard")).unwrap().collect();
    files.sort_by_key(|file| file.as_ref().unwrap().path());
    for file in files {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut now = String::new();
        for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
            let mut case = Case::read(block.trim_start_matches('\n'));
            let (verdict, rows) = judged(&engine, &case.sql).await;
            // The plan alone decides the same: what an operator is told before running is what running does.
            let planned =
                check_plan(&case.sql).map_or_else(|refusal| refusal_line(&refusal), |_| "accepted".to_owned());
            let agree = planned == verdict || verdict.starts_with("failed");
            refused += usize::from(verdict.starts_with("refused"));
            accepted += usize::from(verdict == "accepted");
            if !agree || (verdict.as_str(), &rows) != (case.verdict.as_str(), &case.rows) {
                wrong.push(format!(
                    "{}: {}\n    said     {} {:?}\n    is       {verdict} {rows:?}\n    planned  {planned}",
                    path.display(),
                    case.sql,
                    case.verdict,
                    case.rows
                ));
            }
            (case.verdict, case.rows) = (verdict, rows);
            now.push_str(&case.written());
        }
        if std::env::var_os(REWRITE).is_some() {
            std::fs::write(&path, now).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused >= 200 && accepted >= 80, "{refused} refused and {accepted} accepted are too few");
}

fn refused(sql: &str, words: &str) {
    let Err(refusal) = check(sql) else { unreachable!("accepted: {sql:.80}") };
    assert!(refusal.message.contains(words), "{sql:.80}: {refusal:?}");
}

#[test]
fn ten_thousand_of_anything_that_nests_is_refused_and_does_not_overflow() {
    let n = 10_000;
    let nested = |open: &str, close: &str| format!("SELECT {}1{}", open.repeat(n), close.repeat(n));
    refused(&nested("(", ")"), "parentheses nested");
    refused(&nested("(", ""), "parentheses nested");
    refused(&format!("SELECT {}1{}", "lower(".repeat(8_000), ")".repeat(8_000)), "parentheses nested");
    refused(&format!("SELECT {}1{}", "(SELECT ".repeat(5_000), ")".repeat(5_000)), "parentheses nested");
    refused(&nested("-", ""), "not SQL that we know");
    refused(&nested("- ", ""), "prefix operators");
    refused(&nested("NOT ", ""), "prefix operators");
    refused(&nested("~ ", ""), "prefix operators");
    assert!(check(&nested("~", "")).unwrap_err().message.len() <= 400, "a message does not repeat the statement");
    refused(&format!("SELECT {}1", "NOT - + ".repeat(5_000)), "prefix operators");
    refused(&nested("[", "]"), "brackets");
    refused(&format!("SELECT {}1{}", "CASE WHEN ".repeat(3_000), " END".repeat(3_000)), "CASE nested");
    refused(&format!("SELECT CAST(1 AS {}INT{})", "ARRAY<".repeat(5_000), ">".repeat(5_000)), "nested types");
    refused(&format!("SELECT 1{}", "::INT".repeat(n)), "in a row");
    refused(&format!("SELECT 1{}", " IS NULL".repeat(8_000)), "in a row");
    refused(&format!("SELECT 1{}", " + 1".repeat(n)), "in a row");
    refused(&format!("SELECT 'a'{}", " || 'a'".repeat(8_000)), "in a row");
    refused(&format!("SELECT 1{}", " UNION SELECT 1".repeat(4_000)), "set operations");
    refused(&format!("SELECT 1 FROM alerts{}", " JOIN alerts ON true".repeat(3_000)), "joins");
    refused(&format!("SELECT 1 FROM alerts{}", ", alerts".repeat(6_000)), "tables are read");
    refused(&format!("{}SELECT 1", "EXPLAIN ".repeat(8_000)), "prefix operators");
    check(&format!("SELECT 1{}", ";".repeat(n))).unwrap();
}

#[test]
fn twenty_thousand_flat_ors_are_refused_and_two_thousand_plan() {
    let ors = |n: usize| format!("SELECT pid FROM processes WHERE {}pid=0", "pid=1 OR ".repeat(n));
    let too_many = "SELECT 1 WHERE ".to_owned() + &"1 OR ".repeat(12_000) + "1";
    refused(&too_many, "AND and OR");
    refused(&ors(20_000), "bytes, more than");
    check_plan(&ors(2_000)).unwrap();
    let mixed = "SELECT pid FROM processes WHERE ".to_owned() + &"pid=1 AND ppid=2 OR ".repeat(900) + "pid=3";
    check_plan(&mixed).unwrap();
}

#[test]
fn what_the_planner_would_multiply_is_refused() {
    let chain = |levels: usize, step: &dyn Fn(usize) -> String, end: &str| {
        let steps: String = (1..=levels).map(|level| format!(", a{level} AS ({})", step(level - 1))).collect();
        format!("WITH a0 AS (SELECT name AS x FROM processes){steps} {end}")
    };
    // A condition on the last entry is moved inwards through all of them: 8, 64, 512, … columns.
    let wide = |below: usize| format!("SELECT concat(x,x,x,x,x,x,x,x) AS x FROM a{below}");
    refused(&chain(12, &wide, "SELECT x FROM a12 WHERE x = 'a'"), "stands for more than");
    check_plan(&chain(4, &wide, "SELECT x FROM a4 WHERE x = 'a'")).unwrap();
    let derived = "SELECT x FROM (SELECT concat(x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x) AS x FROM (SELECT \
                   concat(x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x) AS x FROM (SELECT concat(name,name,name,\
                   name,name,name,name,name,name,name,name,name,name,name,name,name,name,name,name,name,name,name,name,name,\
                   name,name,name) AS x FROM processes) AS a) AS b) AS c WHERE x = 'a'";
    refused(derived, "stands for more than");
    // An entry is planned once for each use: 2, 4, 8, … scans.
    let twice = |below: usize| format!("SELECT p.x FROM a{below} AS p JOIN a{below} AS q ON p.x = q.x");
    refused(&chain(12, &twice, "SELECT x FROM a12"), "each use of a WITH entry counted");
    let both = |below: usize| format!("SELECT x FROM a{below} UNION ALL SELECT x FROM a{below}");
    refused(&chain(12, &both, "SELECT x FROM a12"), "each use of a WITH entry counted");
    let constants = "WITH a0 AS (SELECT 1 AS x UNION ALL SELECT 2), a1 AS (SELECT x FROM a0 UNION ALL SELECT x FROM a0), \
                     a2 AS (SELECT x FROM a1 UNION ALL SELECT x FROM a1), a3 AS (SELECT x FROM a2 UNION ALL SELECT x FROM a2), \
                     a4 AS (SELECT x FROM a3 UNION ALL SELECT x FROM a3) SELECT x FROM a4";
    refused(constants, "each use of a WITH entry counted");
    // Fifty columns through ten entries are still fifty columns.
    check_plan(&chain(10, &|below| format!("SELECT * FROM a{below}"), "SELECT x FROM a10 WHERE x = 'a'")).unwrap();
}

#[test]
fn nesting_below_the_caps_is_accepted() {
    check_plan(&format!("SELECT {}1{}", "(".repeat(30), ")".repeat(30))).unwrap();
    check_plan("SELECT CASE WHEN true THEN CASE WHEN true THEN 1 END END").unwrap();
    check_plan(&format!("SELECT 1{}", " + 1".repeat(60))).unwrap();
}

#[test]
fn a_statement_beyond_64_kib_is_refused() {
    refused(&format!("SELECT '{}'", "x".repeat(64 * 1024)), "bytes, more than 65536");
}

#[test]
fn no_letter_outside_ascii_can_stand_for_one_of_a_name() {
    // U+212A lower-cases to k and U+017F upper-cases to S.
    refused("SELECT ran\u{212A}() OVER () FROM processes", "no function");
    refused("SELECT * FROM proce\u{17F}\u{17F}es", "no table");
}

#[test]
fn refusals_name_line_column_and_the_nearest_name() {
    let refusal = check_plan("SELECT pid,\n       pg_sleep(1)\nFROM processes").unwrap_err();
    assert_eq!((refusal.line, refusal.column), (2, 8), "{refusal:?}");
    let refusal = check_plan("SELECT pid FROM proceses").unwrap_err();
    assert_eq!((refusal.line, refusal.column), (1, 17), "{refusal:?}");
    assert_eq!(refusal.hint, "did you mean processes?");
    let refusal = check_plan("SELECT pid,\n comand_line FROM processes").unwrap_err();
    assert_eq!((refusal.line, refusal.column), (2, 2), "{refusal:?}");
    assert_eq!(refusal.hint, "did you mean command_line?");
    let refusal = check_plan("SELECT pid FROM processes WHERE (").unwrap_err();
    assert_eq!(refusal.line, 1, "{refusal:?}");
    for (sql, column, hint) in [
        (
            "SELECT id FROM alert_deliveries",
            8,
            "the columns are sink, alert_id, state, attempts, created, next_try, last_error",
        ),
        (
            "SELECT id FROM alerts WHERE regexp_like(title, '(')",
            48,
            "a character that is meant itself takes a backslash: \\( \\[ \\*; counts multiply: keep {n} small",
        ),
        (
            "SELECT pid FROM processes WHERE start_time > 'yesterday'",
            46,
            "write a time as '2026-01-31 12:00:00', '2026-01-31T12:00Z' or '2026-01-31'",
        ),
        (
            "SELECT pid FROM processes WHERE start_time > datetime('2026-13-31 12:00')",
            55,
            "write a time as '2026-01-31 12:00:00', '2026-01-31T12:00Z' or '2026-01-31'",
        ),
        ("SELECT 1 FROM processes LIMIT 1 OFFSET 99999999999999999999", 40, "leave it out to get all rows"),
        ("SELECT pid FROM processes ORDER BY nme", 36, "did you mean name?"),
        ("SELECT count(*) FROM processes p GROUP BY p.nme", 43, "did you mean name?"),
        ("SELECT pid FROM processes GROUP BY pid HAVING nme = 'a'", 47, "did you mean name?"),
        ("SELECT p.pid, 'proceses' FROM 'proceses' AS p", 31, "did you mean processes?"),
    ] {
        let refusal = check_plan(sql).unwrap_err();
        assert_eq!((refusal.line, refusal.column, refusal.hint.as_str()), (1, column, hint), "{sql}: {refusal:?}");
    }
    let refusal = check_plan("SELECT group_concat(name) FROM processes").unwrap_err();
    assert_eq!(refusal.hint, "use string_agg(x, ',')");
    for (sql, hint) in [
        ("SELECT lpad(name, 3) FROM processes", "use concat("),
        ("SELECT percentile_cont(0.5) FROM processes", "use median(x)"),
        ("SELECT random()", "use ORDER BY a column"),
        ("SELECT from_unixtime(pid) FROM processes", "use to_timestamp(seconds)"),
        ("SELECT current_user", "use \"user\""),
        ("SELECT date('now')", "use date_trunc("),
        ("SELECT lenght(name) FROM processes", "did you mean length?"),
        ("SELECT quantum_leap(name) FROM processes", "the functions are "),
    ] {
        let refusal = check_plan(sql).unwrap_err();
        assert!(refusal.hint.starts_with(hint), "{sql}: {refusal:?}");
    }
}

#[test]
fn what_the_syntax_tree_has_no_place_for_is_shown_where_it_stands() {
    for (sql, place, words) in [
        ("SELECT pid FROM processes QUALIFY row_number() OVER () = 1", (1, 27), "QUALIFY"),
        ("SELECT TOP 5 pid FROM processes", (1, 8), "TOP"),
        ("SELECT pid FROM processes FETCH FIRST 5 ROWS ONLY", (1, 27), "FETCH"),
        ("SELECT pid FROM processes\nFOR UPDATE", (2, 1), "a locking clause"),
        ("SELECT pid, count(*) FROM processes GROUP BY ALL", (1, 46), "GROUP BY ALL"),
        ("SELECT pid FROM processes WHERE name LIKE ANY ('a')", (1, 43), "LIKE ANY"),
        ("SELECT pid FROM processes WHERE\n", (1, 32), "found: EOF"),
        ("SELECT pid FROM processes WHERE (pid = 1 -- one\n\n", (1, 41), "found: EOF"),
        ("SELECT pid\u{a0}FROM processes", (1, 11), "a no-break space (U+00A0)"),
        ("\u{feff}SELECT pid FROM processes", (1, 1), "a byte order mark (U+FEFF)"),
        ("SELECT pid FROM processes WHERE name = \u{2018}sh\u{2019}", (1, 40), "a typographic quote (U+2018)"),
    ] {
        let refusal = check_plan(sql).unwrap_err();
        assert!(refusal.message.contains(words), "{sql}: {refusal:?}");
        assert_eq!((refusal.line, refusal.column), place, "{sql}: {refusal:?}");
    }
    check_plan("SELECT pid AS \"a\u{a0}b\" FROM processes WHERE name = '\u{2018}sh\u{feff}'").unwrap();
}

#[test]
fn sugar_is_lowered_before_anyone_else_sees_it() {
    let lowered =
        check("SELECT 1 FROM processes WHERE name NOT REGEXP 'a' AND time > datetime('now', '-30 minutes')").unwrap();
    let text = lowered.query().to_string();
    assert!(text.contains("name !~ 'a'"), "{text}");
    assert!(text.contains("INTERVAL '-30 minute'") && !text.contains("datetime"), "{text}");
}

#[test]
fn tables_and_parameters_are_reported() {
    let checked = check("WITH c AS (SELECT * FROM alerts) SELECT 1 FROM c, rules WHERE c.id = $2").unwrap();
    assert_eq!(checked.tables().collect::<Vec<_>>(), ["alerts", "rules"]);
    assert_eq!(checked.parameters(), 2);
}

/// The texts that the fuzzer begins with.
static CORPUS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/sql_guard");
    let mut files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()).collect()
});

#[test]
fn every_text_of_the_fuzz_corpus_is_answered() {
    assert!(CORPUS.len() >= 100, "only {} texts", CORPUS.len());
    CORPUS.iter().for_each(|text| answered(text));
}

/// A piece of one of those texts.
fn piece() -> impl Strategy<Value = String> {
    (any::<Index>(), any::<Index>(), any::<Index>()).prop_map(|(text, one, other)| {
        let text: Vec<char> = text.get(&CORPUS).chars().collect();
        let (one, other) = (one.index(text.len() + 1), other.index(text.len() + 1));
        text[one.min(other)..one.max(other)].iter().collect()
    })
}

/// Scalars of a grammar that is mostly SQL: names, literals and functions of ours and of others, nested.
fn scalar() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "pid",
        "p.name",
        "name",
        "time",
        "memfd",
        "cpu_usage",
        "\"user\"",
        "user",
        "1",
        "-1.5",
        "'a'",
        "'%\u{17f}'",
        "NULL",
        "TRUE",
        "$1",
        "now()",
        "nothing",
        "processes.pid",
        "X'00'",
        "DATE '2026-01-31'",
        "INTERVAL '1 day'",
        "current_date",
        "*",
        "datetime('now', '-1 day')",
        "E'x'",
        "@v",
        "(VALUES (1))",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 3, |inner| {
        let op = prop::sample::select(vec![
            "+",
            "-",
            "*",
            "/",
            "%",
            "||",
            "=",
            "<>",
            "<",
            "AND",
            "OR",
            "LIKE",
            "NOT ILIKE",
            "~",
            "REGEXP",
            "IS DISTINCT FROM",
            "@>",
            "::",
            "BETWEEN 1 AND",
            "COLLATE",
        ]);
        let function = prop::sample::select(vec![
            "lower",
            "length",
            "coalesce",
            "concat",
            "count",
            "sum",
            "string_agg",
            "max",
            "abs",
            "round",
            "regexp_like",
            "date_trunc",
            "pg_sleep",
            "read_csv",
            "row_number",
            "NOT ",
            "- ",
            "EXISTS ",
            "ARRAY",
        ]);
        let over = prop::sample::select(vec!["", "", "", " OVER ()", " OVER (ORDER BY pid)", " FILTER (WHERE memfd)"]);
        prop_oneof![
            (inner.clone(), op, inner.clone()).prop_map(|(left, op, right)| format!("({left} {op} {right})")),
            (function, prop::collection::vec(inner.clone(), 0..3), over)
                .prop_map(|(name, args, over)| format!("{name}({}){over}", args.join(", "))),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(when, then, or)| format!("CASE WHEN {when} THEN {then} ELSE {or} END")),
            (inner.clone(), prop::collection::vec(inner.clone(), 1..3))
                .prop_map(|(of, list)| format!("{of} IN ({})", list.join(", "))),
            inner.clone().prop_map(|of| format!("CAST({of} AS BIGINT)")),
            inner.prop_map(|of| format!("(SELECT {of} FROM processes AS p LIMIT 1)")),
        ]
    })
}

/// A SELECT around them.
fn select() -> impl Strategy<Value = String> {
    let table = prop::sample::select(vec![
        "processes AS p",
        "process_events AS p",
        "processes AS p JOIN process_events AS q USING (entity_id)",
        "processes AS p, rules",
        "(SELECT * FROM processes) AS p",
        "pg_class AS p",
        "processes AS p NATURAL JOIN alerts",
        "c AS p",
    ]);
    let end = prop::sample::select(vec![
        "",
        "",
        " LIMIT 3",
        " FOR UPDATE",
        "; SELECT 1",
        " UNION ALL SELECT 1",
        " ORDER BY 1",
    ]);
    let before = prop::sample::select(vec![
        "",
        "",
        "WITH c AS (SELECT * FROM processes) ",
        "EXPLAIN ",
        "WITH RECURSIVE c AS (SELECT 1) ",
    ]);
    (before, prop::collection::vec(scalar(), 1..3), table, scalar(), prop::option::of(scalar()), end).prop_map(
        |(before, list, table, condition, group, end)| {
            let group = group.map(|group| format!(" GROUP BY {group}")).unwrap_or_default();
            format!("{before}SELECT {} FROM {table} WHERE {condition}{group}{end}", list.join(", "))
        },
    )
}

proptest! {
    /// What a fuzzer does to its corpus: pieces of several texts with a few characters between them.
    #[test]
    fn what_is_spliced_of_the_fuzz_corpus_is_answered(
        pieces in prop::collection::vec((piece(), "\\PC{0,4}"), 1..5)
    ) {
        let text: String = pieces.into_iter().flat_map(|(piece, between)| [piece, between]).collect();
        answered(&text);
    }

    /// Whatever the text, the gates answer; they do not panic and do not overflow.
    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        drop(check(&text));
    }

    /// Words of SQL in any order reach deeper than random characters do.
    #[test]
    fn any_words_are_answered(words in prop::collection::vec(prop::sample::select(vec![
        "SELECT", "FROM", "WHERE", "(", ")", ",", "*", "processes", "pid", "name", "1", "'a'", "=", "AND", "OR", "NOT",
        "IN", "LIKE", "REGEXP", "BETWEEN", "CASE", "WHEN", "THEN", "ELSE", "END", "JOIN", "ON", "USING", "GROUP", "BY",
        "ORDER", "LIMIT", "UNION", "WITH", "AS", "EXISTS", "count", "lower", "pg_sleep", "OVER", "PARTITION", "CAST", "::",
        "INTERVAL", "datetime", "$1", ";", "-", "||", "[", "]", "IS", "NULL", "DISTINCT", "FILTER", "VALUES", "EXTRACT",
    ]), 0..40)) {
        drop(check_plan(&words.join(" ")));
    }

    /// What is nearly a statement of ours reaches all gates.
    #[test]
    fn what_a_grammar_makes_is_answered_and_plans_to_allowed_nodes(text in select()) {
        answered(&text);
    }
}
