//! Calls that the agent tries once from inside, beyond those that every program tries. Each is harmless where it succeeds.

use std::io;

use daemoneye_lib::jail::Probe;

fn refused<T>(call: &str, outcome: io::Result<T>) -> Probe {
    let (allowed, answer) = match outcome {
        Ok(_) => (true, "done".to_owned()),
        Err(error) => (error.kind() != io::ErrorKind::PermissionDenied, error.to_string()),
    };
    Probe { call: call.to_owned(), wanted: false, allowed, answer }
}

pub(in crate::jail) fn probes() -> Vec<Probe> {
    let everybodys = std::fs::OpenOptions::new().write(true).open("/dev/null");
    let listening = std::net::TcpListener::bind(("127.0.0.1", 0));
    vec![
        refused("open /dev/null to write, which is granted nowhere", everybodys),
        refused("list the root directory", std::fs::read_dir("/")),
        refused("listen on a TCP port", listening),
    ]
}
