//! The operator socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use daemoneye_eventbus::operator::BoxFuture;
use daemoneye_eventbus::{BusError, Caller, OperatorClient, OperatorService, Peer, RpcError, serve_operators};
use daemoneye_lib::proto::{
    Empty, EventsFollow, Fault, FaultKind, HealthShown, Hello, OperatorRequest, OperatorResponse, QueryRequest, Role,
    operator_request, operator_response,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{Raw, eventually, fault_kind, within};

#[derive(Default)]
struct Desk {
    viewer: bool,
    pages: AtomicUsize,
    cancelled: AtomicBool,
}

impl OperatorService for Desk {
    fn admit(&self, _peer: &Peer, hello: &Hello) -> Result<Role, Fault> {
        if hello.id == "stranger" {
            return Err(Fault::new(FaultKind::Unauthenticated, "not in the group"));
        }
        Ok(if self.viewer { Role::Viewer } else { Role::Operator })
    }

    fn handle(
        self: Arc<Self>,
        caller: Caller,
        request: OperatorRequest,
        answers: mpsc::Sender<OperatorResponse>,
        cancel: CancellationToken,
    ) -> BoxFuture<Result<(), Fault>> {
        Box::pin(async move {
            match request.verb {
                Some(operator_request::Verb::Health(_)) => {
                    drop(answers.send(shown(&caller.id)).await);
                    Ok(())
                }
                Some(operator_request::Verb::Query(query)) if query.sql == "hang" => {
                    cancel.cancelled().await;
                    self.cancelled.store(true, Ordering::SeqCst);
                    std::future::pending().await
                }
                Some(operator_request::Verb::Query(_)) => {
                    // Pages of 256 KiB until nobody takes them.
                    while answers.send(shown(&"x".repeat(256 * 1024))).await.is_ok() {
                        self.pages.fetch_add(1, Ordering::SeqCst);
                    }
                    self.cancelled.store(true, Ordering::SeqCst);
                    Ok(())
                }
                Some(operator_request::Verb::DataBackup(_)) => {
                    // The same, by a service that has a bound for a caller who takes nothing.
                    let page = || answers.send(shown(&"x".repeat(256 * 1024)));
                    while let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(50), page()).await {}
                    self.cancelled.store(true, Ordering::SeqCst);
                    Err(Fault::new(FaultKind::Timeout, "nothing was taken"))
                }
                Some(operator_request::Verb::EventsFollow(_)) => {
                    cancel.cancelled().await;
                    Ok(())
                }
                _ => Err(Fault::new(FaultKind::NotFound, "no such thing")),
            }
        })
    }
}

fn shown(json: &str) -> OperatorResponse {
    let health = HealthShown { json: json.to_owned(), healthy: true };
    OperatorResponse { answer: Some(operator_response::Answer::Health(health)) }
}

fn ask(verb: operator_request::Verb) -> OperatorRequest {
    OperatorRequest { verb: Some(verb) }
}

fn query(sql: &str) -> OperatorRequest {
    ask(operator_request::Verb::Query(QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() }))
}

fn health() -> OperatorRequest {
    ask(operator_request::Verb::Health(Empty {}))
}

struct Office {
    directory: tempfile::TempDir,
    desk: Arc<Desk>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Office {
    async fn open(desk: Desk) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (desk, shutdown) = (Arc::new(desk), CancellationToken::new());
        let service = Arc::clone(&desk) as Arc<dyn OperatorService>;
        let served = serve_operators(directory.path().join("cli.sock"), service, shutdown.clone()).await.unwrap();
        Self { directory, desk, shutdown, served }
    }

    async fn client(&self) -> OperatorClient {
        OperatorClient::connect(&self.directory.path().join("cli.sock"), "cli").await.unwrap()
    }
}

#[tokio::test]
async fn an_operator_asks_and_is_answered() {
    let office = Office::open(Desk::default()).await;
    let client = office.client().await;
    assert_eq!(client.welcome().role(), Role::Operator);
    let mut answers = client.request(health(), None).await.unwrap();
    assert_eq!(within(answers.next()).await.unwrap(), Some(shown("cli")));
    assert_eq!(within(answers.next()).await.unwrap(), None);
    let mut refused = client.request(ask(operator_request::Verb::ConfigShow(Default::default())), None).await.unwrap();
    assert_eq!(fault_kind(&within(refused.next()).await.unwrap_err()), Some(FaultKind::NotFound));
    office.shutdown.cancel();
    within(office.served).await.unwrap();
    let gone = async {
        while let Ok(mut answers) = client.request(health(), None).await {
            if matches!(answers.next().await, Err(RpcError::Unavailable(_))) {
                break;
            }
        }
    };
    within(gone).await;
}

#[tokio::test]
async fn strangers_and_silent_agents_are_told_apart() {
    let office = Office::open(Desk::default()).await;
    let socket = office.directory.path().join("cli.sock");
    let refused = OperatorClient::connect(&socket, "stranger").await.err().unwrap();
    assert!(matches!(refused, BusError::PeerFault(fault) if fault.kind() == FaultKind::Unauthenticated));
    let nobody = OperatorClient::connect(&office.directory.path().join("none.sock"), "cli").await.err().unwrap();
    assert!(matches!(nobody, BusError::Io { .. }), "{nobody}");
}

#[tokio::test]
async fn a_viewer_changes_nothing() {
    let office = Office::open(Desk { viewer: true, ..Desk::default() }).await;
    let client = office.client().await;
    assert_eq!(client.welcome().role(), Role::Viewer);
    let mut answers = client.request(ask(operator_request::Verb::RulesReload(Empty {})), None).await.unwrap();
    assert_eq!(fault_kind(&within(answers.next()).await.unwrap_err()), Some(FaultKind::Forbidden));
    let mut answers = client.request(health(), None).await.unwrap();
    assert!(within(answers.next()).await.unwrap().is_some());
}

#[tokio::test]
async fn pages_are_made_only_as_they_are_read_and_a_hang_up_ends_them() {
    let office = Office::open(Desk::default()).await;
    let client = office.client().await;
    let mut answers = client.request(query("all"), None).await.unwrap();
    for _ in 0..4 {
        within(answers.next()).await.unwrap().unwrap();
    }
    // What lies between the two ends is bounded: channels, buffers, the socket.
    let settled = async {
        loop {
            let before = office.desk.pages.load(Ordering::SeqCst);
            for _ in 0..2_000 {
                tokio::task::yield_now().await;
            }
            if office.desk.pages.load(Ordering::SeqCst) == before {
                return before;
            }
        }
    };
    let made = within(settled).await;
    assert!(made < 64, "{made} pages of 256 KiB were made while 4 were read");
    drop((answers, client));
    eventually("the service notices", || office.desk.cancelled.load(Ordering::SeqCst)).await;
}

#[tokio::test]
async fn a_service_goes_on_while_its_caller_reads_nothing_and_the_caller_hears_of_it_later() {
    let office = Office::open(Desk::default()).await;
    let client = office.client().await;
    let mut answers = client.request(ask(operator_request::Verb::DataBackup(Default::default())), None).await.unwrap();
    eventually("the service has given up", || office.desk.cancelled.load(Ordering::SeqCst)).await;
    let mut pages = 0;
    let told = loop {
        match within(answers.next()).await {
            Ok(Some(_)) => pages += 1,
            Ok(None) => panic!("it is not told as whole"),
            Err(error) => break error,
        }
    };
    assert!(pages > 0 && fault_kind(&told) == Some(FaultKind::Timeout), "{pages} pages, then {told}");
}

#[tokio::test]
async fn cancel_ends_the_answers_and_reaches_the_service() {
    let office = Office::open(Desk::default()).await;
    let client = office.client().await;
    let mut answers = client.request(query("hang"), None).await.unwrap();
    within(client.cancel(answers.id())).await.unwrap();
    assert!(matches!(within(answers.next()).await, Err(RpcError::Cancelled)));
    eventually("the service notices", || office.desk.cancelled.load(Ordering::SeqCst)).await;
    let nothing = within(client.cancel(12_345)).await.unwrap_err();
    assert_eq!(fault_kind(&nothing), Some(FaultKind::NotFound));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_query_and_none_ends_a_follow() {
    let office = Office::open(Desk::default()).await;
    let client = office.client().await;
    let follow = ask(operator_request::Verb::EventsFollow(EventsFollow::default()));
    let mut following = client.request(follow, None).await.unwrap();
    let mut answers = client.request(query("hang"), Some(Duration::from_secs(5))).await.unwrap();
    assert!(matches!(answers.next().await, Err(RpcError::Timeout)));
    let waited = tokio::time::timeout(Duration::from_secs(3_600), following.next()).await;
    assert!(waited.is_err(), "still following after an hour");
    client.cancel(following.id()).await.unwrap();
    assert!(matches!(following.next().await, Err(RpcError::Cancelled)));
}

#[tokio::test]
async fn a_request_above_a_mebibyte_is_refused_on_both_sides() {
    let office = Office::open(Desk::default()).await;
    let client = office.client().await;
    let sql = "x".repeat(1_100_000);
    let refused = client.request(query(&sql), None).await.err().unwrap();
    assert!(matches!(refused, RpcError::LimitSize { limit: 1_048_576, .. }), "{refused}");

    let mut raw = Raw::admitted(office.directory.path().join("cli.sock"), "cli", Role::Operator).await;
    // The length alone is enough to refuse it.
    raw.send_bytes(&[1_100_000_u32.to_le_bytes(), [0; 4]].concat()).await;
    assert_eq!(raw.fault().await.kind(), FaultKind::TooLarge);
}
