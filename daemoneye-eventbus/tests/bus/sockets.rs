//! Where a socket may lie, with which mode, and what happens to the one that lies there already.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use daemoneye_eventbus::{Broker, BrokerOptions, BusError, Client};

use crate::support::{Bus, House, connected, options};

async fn open(socket: &Path) -> Result<Broker, BusError> {
    Broker::start(BrokerOptions::new(socket.to_owned(), Arc::new(House::default()))).await.map(|(broker, _)| broker)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn an_absent_directory_is_created_closed_to_others_and_so_is_the_socket() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("run/daemoneye/bus.sock");
    let broker = open(&socket).await.unwrap();
    assert_eq!(mode(socket.parent().unwrap()) & !0o750, 0);
    assert_eq!(mode(&socket) & !0o660, 0);
    assert_eq!(mode(&socket) & 0o600, 0o600);
    broker.shutdown().await;
    assert!(!socket.exists(), "removed at shutdown");
}

#[tokio::test]
async fn a_directory_that_exists_keeps_its_mode_and_one_open_to_everybody_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let own = root.path().join("own");
    std::fs::DirBuilder::new().mode(0o711).create(&own).unwrap();
    let before = mode(&own);
    open(&own.join("bus.sock")).await.unwrap();
    assert_eq!(mode(&own), before);

    let open_to_all = root.path().join("open");
    std::fs::create_dir(&open_to_all).unwrap();
    std::fs::set_permissions(&open_to_all, std::fs::Permissions::from_mode(0o1777)).unwrap();
    let refused = open(&open_to_all.join("bus.sock")).await.err().unwrap();
    assert!(matches!(refused, BusError::MisuseOpenDirectory { .. }), "{refused}");
    assert_eq!(mode(&open_to_all), 0o777, "and not chmodded");
}

#[tokio::test]
async fn a_path_that_is_too_long_is_refused_with_its_length() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("x".repeat(120)).join("bus.sock");
    let refused = open(&socket).await.err().unwrap();
    assert!(matches!(&refused, BusError::LimitPath { limit: 107 | 103, .. }));
    assert!(refused.to_string().contains("choose a shorter runtime directory"), "{refused}");
    assert!(!socket.parent().unwrap().exists(), "nothing was created");
    assert!(matches!(Client::start(options(socket, "procmond")), Err(BusError::LimitPath { .. })));
}

#[tokio::test]
async fn a_socket_is_replaced_only_when_nobody_answers_on_it() {
    let bus = Bus::open().await;
    let refused = open(&bus.socket()).await.err().unwrap();
    assert!(matches!(refused, BusError::MisuseInUse { .. }), "{refused}");
    // The one that answers is unharmed.
    let (_client, mut events) = Client::start(bus.options("procmond")).unwrap();
    connected(&mut events).await;

    let root = tempfile::tempdir().unwrap();
    let stale = root.path().join("bus.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists(), "as a killed agent leaves it");
    open(&stale).await.unwrap();

    let file = root.path().join("file.sock");
    std::fs::write(&file, "precious").unwrap();
    let refused = open(&file).await.err().unwrap();
    assert!(matches!(refused, BusError::MisuseNotSocket { .. }), "{refused}");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[tokio::test]
async fn of_two_that_start_at_once_one_serves_and_the_other_is_told() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("bus.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (one, other) = tokio::join!(open(&socket), open(&socket));
    assert!(one.is_ok() != other.is_ok(), "exactly one");
}
