//! Bad input gets a message that says what, where and what to do, its exit code or fault, and nothing is lost.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Output, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::frame::{self, BUS_LIMIT_BYTES};
use daemoneye_lib::proto::envelope::Body;
use daemoneye_lib::proto::{Envelope, FaultKind, Hello, Ping, Role};
use e2e::Home;

/// Runs an agent that has to end by itself; its exit code and what it said.
fn refused(home: &Home, extra: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String) {
    let mut command = home.agent_command().unwrap();
    command.args(args).envs(extra.iter().copied()).stdin(Stdio::null());
    said(command.output().unwrap())
}

fn said(output: Output) -> (Option<i32>, String) {
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn code(exit: Exit) -> Option<i32> {
    Some(i32::from(exit.code()))
}

#[test]
fn every_wrong_setting_is_named_at_once() {
    let home = Home::new().unwrap();
    let config = home.path().join("config.yaml");
    fs::write(&config, "store:\n  seal_rowz: 5\nquery:\n  deadline_ms: soon\n").unwrap();
    let (exit, text) = refused(&home, &[], &["--config", config.to_str().unwrap()]);
    assert_eq!(exit, code(Exit::Config), "{text}");
    for part in ["store.seal_rowz", "store.seal_rows", "query.deadline_ms", "soon", "config.yaml"] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn yaml_that_does_not_parse_is_named_with_its_line() {
    let home = Home::new().unwrap();
    let config = home.path().join("config.yaml");
    fs::write(&config, "store:\n  seal_rows: [\n").unwrap();
    let (exit, text) = refused(&home, &[], &["--config", config.to_str().unwrap()]);
    assert_eq!(exit, code(Exit::Config), "{text}");
    assert!(text.contains("config.yaml") && text.contains("line"), "{text}");
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let home = Home::new().unwrap();
    fs::remove_dir(home.data()).unwrap();
    fs::write(home.data(), "a file").unwrap();
    let (exit, text) = refused(&home, &[], &[]);
    assert_eq!(exit, code(Exit::Unreadable), "{text}");
    assert!(text.contains(home.data().to_str().unwrap()), "{text}");
}

#[test]
fn a_runtime_directory_too_long_for_a_socket_is_named_with_the_limit() {
    let home = Home::new().unwrap();
    let long = home.path().join("r".repeat(120));
    let (exit, text) =
        refused(&home, &[("DAEMONEYE_AGENT_RUNTIME_DIR", "")], &["--runtime-dir", long.to_str().unwrap()]);
    assert_eq!(exit, code(Exit::Config), "{text}");
    assert!(text.contains("107"), "{text}");
}

#[test]
fn a_second_agent_on_the_same_data_is_refused_and_the_first_goes_on() {
    let home = Home::new().unwrap();
    let _first = home.start_ready().unwrap();
    let (exit, text) = refused(&home, &[], &[]);
    assert_eq!(exit, code(Exit::InUse), "{text}");
    assert!(text.contains(home.data().to_str().unwrap()), "{text}");
    assert_eq!(home.health().unwrap()["state"], "steady_state");
}

#[test]
fn statements_and_rules_that_are_refused_say_where_and_exit_with_5() {
    let home = Home::new().unwrap();
    let _agent = home.start_ready().unwrap();
    for sql in [
        "DELETE FROM process_events",
        "SELECT pid FROM \"/etc/passwd\"",
        "SELECT nmae FROM process_events",
        "SELECT (",
    ] {
        let (exit, text) = said(home.cli(&["query", sql]).unwrap());
        assert_eq!(exit, code(Exit::Refused), "{sql}: {text}");
        assert!(text.contains('^') || text.contains("line"), "{sql}: {text}");
    }
    let rule = home.path().join("bad.yaml");
    fs::write(&rule, "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a02\nname: bad\ndescription: bad\nauthor: test\nseverity: low\ncategory: process_creation\nsql: SELECT pid FROM process_events WHERE nmae = 'x'\n").unwrap();
    let (exit, text) = said(home.cli(&["rules", "validate", rule.to_str().unwrap()]).unwrap());
    assert_eq!(exit, code(Exit::Refused), "{text}");
    assert!(text.contains("bad.yaml:7") && text.contains("name"), "{text}");
}

#[test]
fn without_an_agent_the_console_says_what_to_do() {
    let home = Home::new().unwrap();
    let (exit, text) = said(home.cli(&["health"]).unwrap());
    assert_eq!(exit, code(Exit::Unreachable), "{text}");
    assert!(text.contains("daemoneye-agent"), "{text}");
}

/// Sends bytes to a socket and returns the fault that comes back before the connection is closed.
fn fault_for(home: &Home, socket: &str, bytes: &[u8]) -> FaultKind {
    let mut stream = UnixStream::connect(home.runtime().join(socket)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset after the fault is a close, too.
    let _closed = stream.read_to_end(&mut answer);
    let mut buffer = BytesMut::from(&answer[..]);
    while let Some(envelope) = frame::decode(&mut buffer, BUS_LIMIT_BYTES).unwrap() {
        if let Some(Body::Fault(fault)) = envelope.body {
            return fault.kind();
        }
    }
    panic!("no fault came back for {bytes:?}, only {answer:?}");
}

fn framed(body: Body) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::encode(&Envelope { body: Some(body) }, BUS_LIMIT_BYTES, &mut out).unwrap();
    out.to_vec()
}

fn hello(role: Role, protocol: u32) -> Body {
    Body::Hello(Hello { protocol, build: "test".into(), role: role.into(), id: "procmond".into(), token: Vec::new() })
}

#[test]
fn broken_frames_and_strangers_get_a_fault_and_cost_nobody_else_anything() {
    let home = Home::new().unwrap();
    let _agent = home.start_ready().unwrap();
    let mut wrong_checksum = framed(hello(Role::Operator, daemoneye_lib::PROTOCOL_VERSION));
    *wrong_checksum.last_mut().unwrap() ^= 1;
    for socket in ["bus.sock", "cli.sock"] {
        assert_eq!(fault_for(&home, socket, &wrong_checksum), FaultKind::BadChecksum);
        assert_eq!(fault_for(&home, socket, &[0; 8]), FaultKind::BadLength);
        assert_eq!(fault_for(&home, socket, &[0xff; 8]), FaultKind::TooLarge);
        let before_hello = fault_for(&home, socket, &framed(Body::Ping(Ping { nonce: 1 })));
        assert_eq!(before_hello, FaultKind::Unauthenticated);
    }
    let no_token = framed(hello(Role::Collector, daemoneye_lib::PROTOCOL_VERSION));
    assert_eq!(fault_for(&home, "bus.sock", &no_token), FaultKind::Unauthenticated);
    let other_version = framed(hello(Role::Operator, 9_999));
    assert_eq!(fault_for(&home, "cli.sock", &other_version), FaultKind::UnsupportedVersion);

    // Half a frame, left open, delays nobody.
    let mut half = UnixStream::connect(home.runtime().join("cli.sock")).unwrap();
    half.write_all(&wrong_checksum[..5]).unwrap();
    assert_eq!(home.query("SELECT 1 AS one").unwrap()[0]["one"], 1);
    assert_eq!(home.health().unwrap()["state"], "steady_state");
}
