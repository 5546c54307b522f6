//! The real program against an agent of this test on a real socket: what it asks, what it prints, and what it tells a script.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use daemoneye_eventbus::{Caller, OperatorService, Peer, serve_operators};
use daemoneye_lib::proto::{
    AlertShown, Completeness, DataShown, Fault, FaultKind, FilePart, HealthShown, Hello, Lack, OperatorRequest,
    OperatorResponse, Problems, Progress, QueryDone, QueryRequest, Refusal, ResultColumn, ResultPage, Role, Row,
    RuleCheck, RulesChecked, Value, operator_request::Verb, operator_response::Answer, value::Kind,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const PAGE_ROWS: i64 = 500;

/// Only a test that fails waits for so long.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// Answers by what the statement says.
#[derive(Default)]
struct Agent {
    asked: Mutex<Vec<QueryRequest>>,
    hung_up: CancellationToken,
    /// Whether a backup names a file outside of its directory.
    leads_out: AtomicBool,
}

type Answers = mpsc::Sender<OperatorResponse>;

impl OperatorService for Agent {
    fn admit(&self, _: &Peer, _: &Hello) -> Result<Role, Fault> {
        Ok(Role::Operator)
    }

    fn handle(
        self: Arc<Self>,
        _: Caller,
        request: OperatorRequest,
        answers: Answers,
        cancel: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>> {
        Box::pin(async move { self.answer(request.verb.unwrap(), answers, cancel).await })
    }
}

impl Agent {
    async fn answer(&self, verb: Verb, answers: Answers, cancel: CancellationToken) -> Result<(), Fault> {
        match verb {
            Verb::Query(request) => self.query(request, answers, cancel).await,
            Verb::Health(_) => {
                let json =
                    r#"{"healthy":false,"findings":[{"what":"no rule runs","do":"give --rules DIR"}],"bus":{"shed":0},"none":{}}"#.to_owned();
                say(&answers, Answer::Health(HealthShown { json, healthy: false })).await
            }
            Verb::AlertShow(show) if show.id == "known" => {
                let json = r#"{"id":"known","title":"hidden executable","time_us":1769860800000000}"#.to_owned();
                say(&answers, Answer::Alert(AlertShown { json, ..AlertShown::default() })).await
            }
            Verb::AlertShow(_) => Err(Fault::new(FaultKind::NotFound, "there is no alert of this id")),
            Verb::RulesCheck(check) if check.files.iter().any(|file| file.yaml.contains("slow")) => {
                cancel.cancelled().await;
                Ok(())
            }
            Verb::RulesCheck(check) => {
                let rule = |file: &daemoneye_lib::proto::RuleText| RuleCheck {
                    file: file.name.clone(),
                    name: "a rule".into(),
                    tests_passed: 2,
                    tests_failed: file.yaml.contains("unfit").into(),
                    problems: if file.yaml.contains("bad") || file.yaml.contains("unfit") {
                        vec![Refusal {
                            message: "no such column".into(),
                            line: 3,
                            column: 7,
                            file: file.name.clone(),
                            ..Refusal::default()
                        }]
                    } else {
                        Vec::new()
                    },
                    ..RuleCheck::default()
                };
                say(&answers, Answer::RulesChecked(RulesChecked { rules: check.files.iter().map(rule).collect() }))
                    .await
            }
            Verb::EventsFollow(_) => {
                let names = ["time", "cwd", "event_type", "name"];
                let columns =
                    names.iter().map(|&name| ResultColumn { name: name.into(), r#type: String::new() }).collect();
                let cells = ["12:00", "/root", "start", "curl"].map(text);
                let page = ResultPage { columns, rows: vec![Row { values: cells.to_vec() }] };
                say(&answers, Answer::Page(page)).await?;
                let problem =
                    Refusal { message: "7 events came faster than they were read".into(), ..Refusal::default() };
                say(&answers, Answer::Problems(Problems { problems: vec![problem] })).await?;
                cancel.cancelled().await;
                self.hung_up.cancel();
                Ok(())
            }
            Verb::DataFsck(_) => {
                say(&answers, Answer::Progress(Progress { done: 1, total: 2 })).await?;
                let json = r#"{"segments":2,"problems":[{"place":"segments/a","what":"cut","advice":"restore it"}]}"#
                    .to_owned();
                say(&answers, Answer::Data(DataShown { json, sound: false })).await
            }
            Verb::DataBackup(_) => {
                let part = |path: &str, bytes: &[u8], last, hash: &[u8]| {
                    let (path, bytes, blake3) = (path.to_owned(), bytes.to_vec(), hash.to_vec());
                    Answer::FilePart(FilePart { path, bytes, last, blake3 })
                };
                say(&answers, Answer::Progress(Progress { done: 0, total: 6 })).await?;
                say(&answers, part("state.redb", b"one", false, b"")).await?;
                say(&answers, part("state.redb", b"two", true, blake3::hash(b"onetwo").as_bytes())).await?;
                say(&answers, part("segments/rotten.parquet", b"x", true, blake3::hash(b"y").as_bytes())).await?;
                if self.leads_out.load(Ordering::SeqCst) {
                    say(&answers, part("../outside", b"x", true, b"")).await?;
                }
                say(&answers, Answer::Data(DataShown { json: r#"{"files":2}"#.to_owned(), sound: true })).await
            }
            Verb::DataExport(export) if export.parquet => {
                let part = FilePart { bytes: b"PAR1".to_vec(), last: true, ..FilePart::default() };
                say(&answers, Answer::FilePart(part)).await?;
                if export.sql == "cut" {
                    return Err(Fault::new(FaultKind::Failed, "the disk is gone"));
                }
                say(&answers, Answer::QueryDone(QueryDone { rows: 7, ..QueryDone::default() })).await
            }
            other => panic!("not expected here: {other:?}"),
        }
    }

    async fn query(&self, request: QueryRequest, answers: Answers, cancel: CancellationToken) -> Result<(), Fault> {
        let (sql, params, explain) = (request.sql.clone(), request.params.clone(), request.explain);
        self.asked.lock().unwrap().push(request);
        let pages = match sql.as_str() {
            "never" => {
                cancel.cancelled().await;
                return Ok(());
            }
            sql if sql.contains("starts_with") => return find(&answers, params.first().unwrap()).await,
            "refused" => {
                let problem =
                    Refusal { message: "this is not a SELECT".into(), line: 1, column: 3, ..Refusal::default() };
                let fault =
                    Fault { problems: vec![problem.clone()], ..Fault::new(FaultKind::Refused, problem.message) };
                return Err(fault);
            }
            "fails" => return Err(Fault::new(FaultKind::Failed, "the query failed: division by zero")),
            "endless" => i64::MAX / PAGE_ROWS,
            "large" => 200,
            _ => 1,
        };
        let columns = vec![ResultColumn { name: "n".into(), r#type: "BIGINT".into() }];
        say(&answers, Answer::Page(ResultPage { columns, rows: Vec::new() })).await?;
        for page in 0..pages {
            let cell = |n| Row { values: vec![Value { kind: Some(Kind::Integer(page * PAGE_ROWS + n)) }] };
            let rows = (0..if sql == "one" { 1 } else { PAGE_ROWS }).map(cell).collect();
            if say(&answers, Answer::Page(ResultPage { columns: Vec::new(), rows })).await.is_err()
                || cancel.is_cancelled()
            {
                self.hung_up.cancel();
                return Ok(());
            }
        }
        let degraded = match sql.as_str() {
            "degraded" => vec!["events_shed".to_owned()],
            "slow" => vec!["timed_out".to_owned()],
            _ => Vec::new(),
        };
        let completeness = Some(Completeness { degraded });
        let lack = Lack { reason: "events_shed".into(), what: "7 events of procmond".into(), from_us: 1, to_us: 1 };
        let lacks = if sql == "degraded" { vec![lack] } else { Vec::new() };
        let explained_json =
            if explain { r#"{"segments":{"total":9,"read":2,"pruned":7}}"#.into() } else { String::new() };
        let done = QueryDone { elapsed_us: 1, completeness, lacks, explained_json, ..QueryDone::default() };
        say(&answers, Answer::QueryDone(done)).await
    }
}

/// Alerts whose id begins with the parameter.
async fn find(answers: &Answers, prefix: &Value) -> Result<(), Fault> {
    let Some(Kind::Text(prefix)) = &prefix.kind else { panic!("the prefix is text") };
    let ids = ["0000aaaa", "0000bbbb", "known"].into_iter().filter(|id| id.starts_with(prefix.as_str()));
    let rows = ids.map(|id| Row { values: vec![text(id)] }).collect();
    let columns = vec![ResultColumn { name: "id".into(), r#type: "VARCHAR".into() }];
    say(answers, Answer::Page(ResultPage { columns, rows })).await?;
    say(answers, Answer::QueryDone(QueryDone::default())).await
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::Text(text.into())) }
}

async fn say(answers: &Answers, answer: Answer) -> Result<(), Fault> {
    let sent = answers.send(OperatorResponse { answer: Some(answer) }).await;
    sent.map_err(|_| Fault::new(FaultKind::Cancelled, "the operator hung up"))
}

/// An agent on its own socket for the length of a test.
struct Scene {
    home: tempfile::TempDir,
    agent: Arc<Agent>,
    stop: CancellationToken,
    runtime: tokio::runtime::Runtime,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let agent = Arc::new(Agent::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let socket = home.path().join("cli.sock");
        let service = Arc::clone(&agent) as Arc<dyn OperatorService>;
        runtime.block_on(serve_operators(socket, service, stop.clone())).unwrap();
        Self { home, agent, stop, runtime }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let home: &Path = self.home.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_daemoneye-cli"));
        command.args(arguments).env_clear().env("HOME", home).env("DAEMONEYE_CLI_RUNTIME_DIR", home);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn wait_for_hang_up(&self) {
        let hung_up = self.agent.hung_up.cancelled();
        let waited = async { tokio::time::timeout(PATIENCE, hung_up).await };
        self.runtime.block_on(waited).unwrap();
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn printed(output: &Output) -> (String, String) {
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

fn end(mut child: Child) -> (i32, String) {
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    (child.wait().unwrap().code().unwrap(), errors)
}

#[test]
fn a_large_result_arrives_whole_and_in_order() {
    let scene = Scene::new();
    let output = scene.run(&["query", "large", "--format", "jsonl"]);
    assert_eq!(code(&output), 0);
    let (lines, _) = printed(&output);
    assert_eq!(lines.lines().count(), 100_000);
    assert_eq!(lines.lines().last(), Some("{\"n\":99999}"));
}

#[test]
fn a_rule_file_that_takes_too_long_costs_no_other_its_verdict() {
    let scene = Scene::new();
    let dir = scene.home.path().join("files");
    std::fs::create_dir(&dir).unwrap();
    for (name, text) in [("a", "slow"), ("b", "good"), ("c", "slow"), ("d", "slow"), ("e", "slow"), ("f", "good")] {
        std::fs::write(dir.join(name).with_extension("yaml"), text).unwrap();
    }
    let check = |names: &[&str]| {
        let files = names.iter().map(|name| dir.join(name).with_extension("yaml").display().to_string());
        let files: Vec<String> = files.collect();
        let mut arguments = vec!["rules", "validate", "--deadline-ms", "1000", "--format", "csv"];
        arguments.extend(files.iter().map(String::as_str));
        let output = scene.run(&arguments);
        let results: Vec<String> = printed(&output).0.lines().skip(1).map(str::to_owned).collect();
        let ends = results.into_iter().map(|line| line.rsplit(',').next().unwrap_or_default().to_owned());
        (code(&output), ends.collect::<Vec<_>>())
    };
    assert_eq!(check(&["a", "b"]), (6, vec!["not checked".to_owned(), "valid".to_owned()]));
    let (_, results) = check(&["a", "b", "c", "d", "e", "f"]);
    assert_eq!(results.iter().filter(|result| *result == "not checked").count(), 5, "three silences are enough");
}

#[test]
fn a_closed_pipe_ends_it_silently_and_cancels_the_query() {
    let scene = Scene::new();
    let mut child = scene.command(&["query", "endless", "--format", "csv"]).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    assert_eq!(first, "n\n");
    drop(reader);
    assert_eq!(end(child), (0, String::new()));
    scene.wait_for_hang_up();
}

#[test]
fn parameters_page_and_deadline_reach_the_agent() {
    let scene = Scene::new();
    let output =
        scene.run(&["query", "some", "--param", "sshd", "--param", "-5", "--page", "7", "--deadline-ms", "40000"]);
    assert_eq!(code(&output), 0, "{:?}", printed(&output));
    let asked = scene.agent.asked.lock().unwrap();
    assert_eq!(asked[0].params, [text("sshd"), Value { kind: Some(Kind::Integer(-5)) }]);
    assert_eq!((asked[0].page_rows, asked[0].deadline_ms), (7, Some(37_000)), "what is left is for the way back");
}

#[test]
fn a_degraded_result_says_why_and_exits_with_3() {
    let scene = Scene::new();
    let output = scene.run(&["query", "degraded", "--format", "json"]);
    let (data, messages) = printed(&output);
    assert_eq!(code(&output), 3);
    assert!(messages.starts_with("degraded: events_shed"), "{messages}");
    assert!(messages.contains("7 events of procmond (1970-01-01T00:00:00.000001Z)"), "{messages}");
    assert!(data.starts_with("[\n") && data.ends_with("]\n"), "the rows that there are come all the same");
}

#[test]
fn explain_tells_what_was_read_in_place_of_the_rows_in_every_format() {
    let scene = Scene::new();
    for (format, told) in [
        ("table", "2 read, 7 skipped of 9"),
        ("json", "\"pruned\": 7"),
        ("jsonl", "\"pruned\":7"),
        ("csv", "segments.pruned,7"),
        ("line", "segments.pruned = 7"),
    ] {
        let output = scene.run(&["query", "--explain", "some", "--format", format]);
        let (text, messages) = printed(&output);
        assert!(code(&output) == 0 && text.contains(told) && !text.contains("499"), "{format}: {text} {messages}");
    }
    let mut child = scene.command(&["shell"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b".timer on\none;\n.explain some\n;").unwrap();
    let output = child.wait_with_output().unwrap();
    let (told, messages) = printed(&output);
    assert!(told.contains("2 read, 7 skipped"), "{told} {messages}");
    let times: Vec<&str> = messages.lines().filter(|line| line.ends_with(" ms")).collect();
    assert!(times.len() == 1 && times[0].starts_with("1 row, "), "what is explained has its time in it: {messages}");
}

#[test]
fn a_query_that_ran_out_of_time_is_degraded_and_not_an_agent_that_is_away() {
    let scene = Scene::new();
    let output = scene.run(&["query", "slow", "--deadline-ms", "60000", "--format", "csv"]);
    let (data, messages) = printed(&output);
    assert_eq!(code(&output), 3, "{messages}");
    assert!(messages.contains("timed_out") && messages.contains("--deadline-ms"), "{messages}");
    assert_eq!(data.lines().count(), 501, "the rows that there are come all the same");
}

#[test]
fn a_list_that_is_cut_says_so() {
    let scene = Scene::new();
    let output = scene.run(&["alerts", "list", "--limit", "7", "--format", "csv"]);
    let (data, messages) = printed(&output);
    assert_eq!((code(&output), data.lines().count()), (0, 8));
    assert!(messages.contains("first 7") && messages.contains("--limit"), "{messages}");
}

#[test]
fn a_refused_statement_is_shown_with_the_place() {
    let scene = Scene::new();
    let output = scene.run(&["query", "refused"]);
    let (data, messages) = printed(&output);
    assert_eq!((code(&output), data.as_str()), (5, ""));
    assert_eq!(messages, "error: this is not a SELECT\n  | refused\n  |   ^\n");
}

#[test]
fn a_statement_that_fails_on_the_data_is_not_a_refused_one() {
    let scene = Scene::new();
    let output = scene.run(&["query", "fails"]);
    assert_eq!((code(&output), printed(&output).0.as_str()), (1, ""));
    assert_eq!(printed(&output).1, "error: the query failed: division by zero\n");
}

#[cfg(unix)]
#[test]
fn the_deadline_holds_for_an_agent_that_does_not_even_say_hello() {
    let scene = Scene::new();
    let directory = scene.home.path().join("hung");
    std::fs::create_dir(&directory).unwrap();
    // Connections wait in the backlog, as with an agent that is stopped.
    let listener = std::os::unix::net::UnixListener::bind(directory.join("cli.sock")).unwrap();
    let path = directory.display().to_string();
    let output = scene.run(&["query", "SELECT 1", "--runtime-dir", &path, "--deadline-ms", "1000"]);
    drop(listener);
    let (_, messages) = printed(&output);
    assert_eq!(code(&output), 6, "{messages}");
    assert!(messages.contains("for 1000 ms") && messages.contains("--deadline-ms"), "{messages}");
    assert!(!messages.contains("is it running"), "{messages}");
}

#[test]
fn an_agent_that_never_answers_is_unreachable_after_the_deadline() {
    let scene = Scene::new();
    let output = scene.run(&["query", "never", "--deadline-ms", "1000"]);
    let (_, messages) = printed(&output);
    assert_eq!(code(&output), 6, "{messages}");
    assert!(messages.contains("--deadline-ms"), "{messages}");
}

#[test]
fn an_output_file_is_new_or_refused() {
    let scene = Scene::new();
    let file = scene.home.path().join("rows.csv").display().to_string();
    assert_eq!(code(&scene.run(&["query", "some", "--format", "csv", "--output", &file])), 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 501);
    let again = scene.run(&["query", "some", "--format", "csv", "--output", &file]);
    assert_eq!(code(&again), 1, "{:?}", printed(&again));
    assert!(printed(&again).1.contains("name another file"), "{:?}", printed(&again));
}

#[test]
fn an_output_file_is_this_users_only_and_stays_only_with_an_answer() {
    let scene = Scene::new();
    let file = scene.home.path().join("rows.csv");
    let path = file.display().to_string();
    for (statement, exit) in [("refused", 5), ("fails", 1)] {
        let failed = scene.run(&["query", statement, "--format", "csv", "--output", &path]);
        assert_eq!((code(&failed), file.exists()), (exit, false), "{:?}", printed(&failed));
    }
    let answered = scene.run(&["query", "degraded", "--format", "csv", "--output", &path]);
    assert_eq!((code(&answered), file.exists()), (3, true), "{:?}", printed(&answered));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn alerts_and_health_are_documents_with_their_own_exit_codes() {
    let scene = Scene::new();
    let known = scene.run(&["alerts", "show", "known"]);
    assert_eq!(code(&known), 0);
    assert!(printed(&known).0.contains("2026-01-31T12:00:00.000000Z"), "{:?}", printed(&known));
    assert_eq!(code(&scene.run(&["alerts", "show", "unknown"])), 4);
    assert_eq!(code(&scene.run(&["alerts", "show", "kno"])), 2, "three characters are a guess");
    assert_eq!(code(&scene.run(&["alerts", "show", "know"])), 0);
    let ambiguous = scene.run(&["alerts", "show", "0000"]);
    assert_eq!(code(&ambiguous), 2);
    assert!(printed(&ambiguous).1.contains("0000aaaa\n  0000bbbb"), "{:?}", printed(&ambiguous));

    let health = scene.run(&["health"]);
    assert_eq!(code(&health), 3);
    let report = printed(&health).0;
    assert!(report.find("no rule runs") < report.find("shed"), "findings come first: {report}");
    let json: serde_json::Value =
        serde_json::from_str(&printed(&scene.run(&["health", "--format", "json"])).0).unwrap();
    assert_eq!(json["healthy"], false);
}

#[test]
fn rule_files_below_a_directory_are_checked_one_by_one() {
    let scene = Scene::new();
    let rules = scene.home.path().join("rules");
    std::fs::create_dir_all(rules.join("linux")).unwrap();
    std::fs::write(rules.join("linux/good.yaml"), "good").unwrap();
    std::fs::write(rules.join("README.md"), "bad").unwrap();
    let path = rules.display().to_string();
    let good = scene.run(&["rules", "test", &path, "--format", "csv"]);
    assert_eq!(code(&good), 0, "{:?}", printed(&good));
    assert!(printed(&good).0.contains(",passed,2,0"), "{:?}", printed(&good));

    std::fs::write(rules.join("linux/wrong.yml"), "bad").unwrap();
    let wrong = scene.run(&["rules", "validate", &path]);
    assert_eq!(code(&wrong), 5);
    assert!(printed(&wrong).1.contains("wrong.yml:3:7: no such column"), "{:?}", printed(&wrong));
    assert!(printed(&wrong).0.contains("refused"), "{:?}", printed(&wrong));

    let document = |verb: &str, format: &str| -> serde_json::Value {
        let (rows, messages) = printed(&scene.run(&["rules", verb, &path, "--format", format]));
        assert!(messages.contains("wrong.yml:3:7: no such column"), "{messages}");
        let rows = if format == "jsonl" { rows.lines().last().unwrap().to_owned() } else { rows };
        serde_json::from_str(&rows).unwrap()
    };
    let file = rules.join("linux/wrong.yml");
    let problem = serde_json::json!({ "file": file, "line": 3, "column": 7, "message": "no such column", "hint": "" });
    let validated = document("validate", "json");
    assert_eq!((&validated[0]["result"], &validated[0]["problems"]), (&"valid".into(), &serde_json::json!([])));
    assert_eq!(validated[1]["problems"], serde_json::json!([problem]));
    let tested = document("test", "jsonl");
    assert_eq!((&tested["passed"], &tested["problems"][0]), (&2.into(), &problem));

    std::fs::write(rules.join("linux/wrong.yml"), "unfit").unwrap();
    let failed = scene.run(&["rules", "test", &path, "--format", "csv"]);
    assert_eq!(code(&failed), 5);
    let (rows, messages) = printed(&failed);
    assert!(rows.contains(",failed,2,1") && rows.contains(",passed,2,0"), "{rows}");
    assert!(messages.starts_with("failed:") && !messages.contains("refused"), "{messages}");
}

#[cfg(unix)]
#[test]
fn following_ends_with_ctrl_c_and_exit_0() {
    let scene = Scene::new();
    let mut child = scene.command(&["events", "follow", "--format", "table"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let header = lines.next().unwrap().unwrap();
    assert_eq!(header.split_whitespace().collect::<Vec<_>>(), ["time", "event_type", "name"]);
    let event = lines.next().unwrap().unwrap();
    assert!(event.contains("curl") && !event.contains("/root"), "{event}");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let (code, messages) = end(child);
    assert_eq!(code, 0, "{messages}");
    scene.wait_for_hang_up();
}

#[test]
fn an_agent_that_stops_while_it_is_followed_is_told_as_that() {
    let scene = Scene::new();
    let mut child = scene.command(&["events", "follow", "--format", "json"]).spawn().unwrap();
    let mut printed = BufReader::new(child.stdout.take().unwrap());
    let mut document = String::new();
    printed.read_line(&mut document).unwrap();
    assert_eq!(document, "[\n", "the first page is here");
    scene.stop.cancel();
    let (code, messages) = end(child);
    assert_eq!(code, 6, "{messages}");
    assert!(messages.contains("the agent stopped") && !messages.contains("--deadline-ms"), "{messages}");
    printed.read_to_string(&mut document).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&document).is_ok(), "{document}");
}

#[test]
fn a_backup_is_written_whole_and_what_does_not_have_its_hash_is_told() {
    let scene = Scene::new();
    let dir = scene.home.path().join("a/backup");
    let path = dir.display().to_string();
    let output = scene.run(&["data", "backup", &path]);
    let (document, messages) = printed(&output);
    assert_eq!(code(&output), 3, "{messages}");
    assert!(document.contains("files") && messages.contains("segments/rotten.parquet"), "{document} {messages}");
    assert_eq!(std::fs::read(dir.join("state.redb")).unwrap(), b"onetwo");
    assert_eq!(code(&scene.run(&["data", "backup", &path])), 2, "a directory that is not empty is refused");

    scene.agent.leads_out.store(true, Ordering::SeqCst);
    let output = scene.run(&["data", "backup", &scene.home.path().join("b").display().to_string()]);
    assert_eq!(code(&output), 1, "{:?}", printed(&output));
    assert!(!scene.home.path().join("outside").exists());
    assert!(printed(&output).1.contains("incomplete"), "{:?}", printed(&output));
}

#[test]
fn a_check_that_finds_something_names_it_and_exits_with_1() {
    let scene = Scene::new();
    let output = scene.run(&["data", "fsck"]);
    let (table, messages) = printed(&output);
    assert_eq!(code(&output), 1);
    assert!(table.contains("segments/a") && table.contains("restore it"), "{table}");
    assert!(messages.contains("checked 2 segments") && messages.contains("1 problem"), "{messages}");
}

#[test]
fn an_export_that_fails_leaves_no_file() {
    let scene = Scene::new();
    let file = scene.home.path().join("x.parquet");
    let path = file.display().to_string();
    let cut = scene.run(&["data", "export", "--output", &path, "cut"]);
    assert_eq!((code(&cut), file.exists()), (1, false), "{:?}", printed(&cut));
    let whole = scene.run(&["data", "export", "--output", &path]);
    assert_eq!(code(&whole), 0, "{:?}", printed(&whole));
    assert_eq!(std::fs::read(&file).unwrap(), b"PAR1");
    assert!(printed(&whole).1.contains("7 rows"), "{:?}", printed(&whole));
    assert_eq!(code(&scene.run(&["data", "export", "--output", &path])), 1, "it is not overwritten");
    let dash = scene.run(&["data", "export", "--output", "-", "--format", "csv", "one"]);
    assert_eq!(code(&dash), 2, "{:?}", printed(&dash));
    assert!(printed(&dash).1.contains("name one") && !Path::new("-").exists(), "{:?}", printed(&dash));
}

#[cfg(unix)]
#[test]
fn an_output_file_that_is_not_whole_never_has_its_name_whatever_ends_the_program() {
    // What is killed can remove nothing; what is there then is not taken for the file.
    for (signal, left) in [("-TERM", 0), ("-KILL", 1)] {
        let scene = Scene::new();
        let dir = scene.home.path().join("out");
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("rows.csv").display().to_string();
        let mut child = scene.command(&["query", "endless", "--format", "csv", "--output", &path]).spawn().unwrap();
        let lengths = || -> Vec<u64> {
            let entries = std::fs::read_dir(&dir).unwrap();
            entries.map(|entry| entry.unwrap().metadata().map_or(0, |found| found.len())).collect()
        };
        let begun = std::time::Instant::now();
        while lengths().iter().sum::<u64>() == 0 {
            assert!(begun.elapsed() < PATIENCE, "no row came");
            std::thread::yield_now();
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let exit = child.wait().unwrap().code();
        assert_eq!(exit, (signal == "-TERM").then_some(1));
        assert!(!dir.join("rows.csv").exists(), "{signal}");
        assert_eq!(lengths().len(), left, "{signal}");
    }
}

#[test]
fn a_script_goes_through_the_shell_to_its_end() {
    let scene = Scene::new();
    let mut child = scene.command(&["shell", "--format", "csv"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"fails;\nrefused;\n.mode jsonl\nsome").unwrap();
    let output = child.wait_with_output().unwrap();
    let (rows, messages) = printed(&output);
    assert_eq!(code(&output), 1, "the first failure: {messages}");
    assert_eq!(rows.lines().next(), Some("{\"n\":0}"));
    assert!(messages.contains("division by zero") && messages.contains("| refused\n  |   ^"), "{messages}");
}

#[cfg(unix)]
#[test]
fn a_script_is_ended_by_ctrl_c_and_the_query_with_it() {
    let scene = Scene::new();
    let mut child = scene.command(&["shell", "--format", "csv"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"endless;\n").unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    let (code, messages) = end(child);
    assert_eq!((code, messages.as_str()), (1, "error: interrupted\n"));
    scene.wait_for_hang_up();
}

#[cfg(unix)]
#[test]
fn a_script_that_waits_for_its_next_line_is_ended_by_ctrl_c() {
    let scene = Scene::new();
    let mut child = scene.command(&["shell", "--format", "csv"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"some;\n").unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    let pid = child.id().to_string();
    let begun = std::time::Instant::now();
    // As a person would, who does not see whether it is between two lines.
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "it goes on");
        let _ended = Command::new("kill").args(["-INT", &pid]).stderr(Stdio::null()).status().unwrap();
    }
    let (code, messages) = end(child);
    assert_eq!((code, messages.as_str()), (1, "error: interrupted\n"));
}

/// A shell on a terminal of its own, and everything that it has shown so far.
#[cfg(unix)]
struct Terminal {
    child: Child,
    keys: std::fs::File,
    shown: mpsc::UnboundedReceiver<Vec<u8>>,
    text: String,
}

#[cfg(unix)]
impl Terminal {
    fn open(scene: &Scene) -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = scene.command(&["shell", "--format", "csv"]);
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        let mut screen = std::fs::File::from(pty.master.try_clone().unwrap());
        let (told, shown) = mpsc::unbounded_channel();
        // Ends with the terminal: reading fails when nobody has the other end any more.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut bytes) {
                if told.send(bytes.get(..read).unwrap_or_default().to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keys: pty.master.into(), shown, text: String::new() }
    }

    /// Waits until `wanted` is shown, and forgets what came up to it.
    fn wait_for(&mut self, scene: &Scene, wanted: &str) {
        while !self.text.contains(wanted) {
            let next = async { tokio::time::timeout(PATIENCE, self.shown.recv()).await };
            let bytes =
                scene.runtime.block_on(next).unwrap_or_else(|_| panic!("{wanted:?} is not in {:?}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&bytes.unwrap()));
        }
        let end = self.text.find(wanted).unwrap() + wanted.len();
        self.text.drain(..end);
    }

    fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn on_a_terminal_ctrl_c_ends_the_query_and_not_the_shell_and_ctrl_d_leaves() {
    let scene = Scene::new();
    let mut terminal = Terminal::open(&scene);
    terminal.wait_for(&scene, "daemoneye> ");
    // The second line belongs to the statement: no answer comes before the semicolon.
    terminal.type_in("some\r;\r");
    terminal.wait_for(&scene, "\n499");
    terminal.wait_for(&scene, "daemoneye> ");
    terminal.type_in("refused;\r");
    terminal.wait_for(&scene, "this is not a SELECT");
    terminal.wait_for(&scene, "daemoneye> ");
    terminal.type_in("never;\r");
    let asked = || scene.agent.asked.lock().unwrap().iter().any(|asked| asked.sql == "never");
    let begun = std::time::Instant::now();
    while !asked() {
        assert!(begun.elapsed() < PATIENCE, "the statement did not come");
        std::thread::yield_now();
    }
    let pid = terminal.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    terminal.wait_for(&scene, "cancelled");
    terminal.wait_for(&scene, "daemoneye> ");
    terminal.type_in("sel\t");
    terminal.wait_for(&scene, "SELECT");
    terminal.type_in("\u{3}");
    terminal.wait_for(&scene, "daemoneye> ");
    terminal.type_in("\u{4}");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    let history = scene.home.path().join(".local/state/daemoneye/shell_history");
    let kept = std::fs::read_to_string(history).unwrap();
    assert_eq!(kept.lines().collect::<Vec<_>>(), ["\"some\\n;\"", "\"refused;\"", "\"never;\""]);
}
