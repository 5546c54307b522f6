//! An agent over a copied store: a query beyond its memory spills, inside of the sandbox, and leaves nothing behind.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed step of a test is the failure")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daemoneye_engine::generate::Generator;
use daemoneye_engine::ingest::decode;
use daemoneye_engine::store::{Store, StoreOptions};
use daemoneye_eventbus::OperatorClient;
use daemoneye_lib::proto::{
    OperatorRequest, QueryDone, QueryRequest, operator_request::Verb, operator_response::Answer,
};
use serde_json::Value;

/// For whatever is waited for; the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
const MEMORY_BYTES: usize = 6 * 1024 * 1024;
const SORTED: &str = "SELECT command_line || '#' || seq FROM process_events ORDER BY command_line DESC, name, seq";

/// Ended when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn fill(dir: &Path) {
    let store = Store::open(StoreOptions::new(dir)).unwrap();
    let mut made = Generator::new(7, 1);
    for _ in 0..30 {
        store.append(decode("procmond", &made.records(2_000)).unwrap()).unwrap();
    }
    store.seal().unwrap();
}

fn serve(copy: &Path, runtime: &Path) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daemoneye-agent"));
    command.args(["serve", "--offline"]).arg(copy).arg("--runtime-dir").arg(runtime);
    command.env("DAEMONEYE_AGENT_QUERY__MEMORY_BYTES", MEMORY_BYTES.to_string());
    Server(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
}

async fn connected(socket: &Path) -> OperatorClient {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match OperatorClient::connect(socket, "test").await {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn explained(client: &OperatorClient, sql: &str) -> QueryDone {
    let verb = Verb::Query(QueryRequest { sql: sql.to_owned(), explain: true, ..QueryRequest::default() });
    let mut answers = client.request(OperatorRequest { verb: Some(verb) }, None).await.unwrap();
    let mut done = None;
    while let Some(answer) = answers.next().await.unwrap() {
        if let Some(Answer::QueryDone(of)) = answer.answer {
            done = Some(of);
        }
    }
    done.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_over_a_copied_store_spills_into_its_runtime_directory() {
    let home = tempfile::tempdir().unwrap();
    let (copy, runtime) = (home.path().join("copy"), home.path().join("run"));
    fill(&copy);
    let _server = serve(&copy, &runtime);
    let client = connected(&runtime.join("cli.sock")).await;
    let done = explained(&client, SORTED).await;
    assert_eq!(done.completeness.unwrap().degraded, Vec::<String>::new(), "{:?}", done.lacks);
    let told: Value = serde_json::from_str(&done.explained_json).unwrap();
    assert!(told.pointer("/spilled/bytes").and_then(Value::as_u64).unwrap() > 0, "{told}");
    let left: Vec<_> = std::fs::read_dir(runtime.join("scratch")).unwrap().collect();
    assert!(left.iter().flatten().all(|entry| std::fs::read_dir(entry.path()).unwrap().next().is_none()), "{left:?}");
    assert!(!copy.join("scratch").exists(), "the copy is as it was");
}
