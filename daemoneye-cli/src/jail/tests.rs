//! The console's jail, tried from inside by a copy of this test program.

use daemoneye_lib::jail::{Layer, Required};
use rustix::net::{AddressFamily, SocketType, socket};

use self::jailed::calls::CALLS;
use self::jailed::{Try, told};

#[path = "../../../daemoneye-lib/tests/jail/mod.rs"]
mod jailed;

const COPY: &[&str] = &["--exact", "jail::tests::inside", "--nocapture", "--test-threads=1"];

const OWN: &[Try] = &[
    ("lower priority", CALLS, |_| told(rustix::process::setpriority_process(None, 5))),
    ("a connection of others", CALLS, |_| {
        told(socket(AddressFamily::UNIX, SocketType::STREAM, None).and_then(rustix::net::accept))
    }),
    ("a signal to the agent that it started", &[], |_| told(nix::sys::signal::kill(nix::unistd::Pid::this(), None))),
    ("the width of the terminal", &[], |_| match rustix::termios::tcgetwinsize(std::io::stderr()) {
        // Without a terminal it is an error of its own, which is no refusal.
        Err(error) if error != rustix::io::Errno::NOTTY => told::<(), _>(Err(error)),
        _ => Ok(()),
    }),
    ("keys as they are typed", &[], |_| match nix::sys::termios::tcgetattr(std::io::stdin()) {
        Ok(now) => told(nix::sys::termios::tcsetattr(std::io::stdin(), nix::sys::termios::SetArg::TCSANOW, &now)),
        Err(nix::errno::Errno::EPERM) => told::<(), _>(Err(nix::errno::Errno::EPERM)),
        // Without a terminal there are none.
        Err(_) => Ok(()),
    }),
    ("an event loop", &[], |_| {
        told(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build())
    }),
];

/// What is tried here, in the copy; anywhere else it does nothing.
#[test]
fn inside() {
    let Some((layers, home)) = jailed::told_to_copy() else { return };
    super::close_with(&layers, &Required::Available).unwrap();
    jailed::try_all(OWN, &home);
}

#[test]
fn what_must_be_refused_is_and_what_must_go_on_does() {
    jailed::try_whole(super::LAYERS, COPY, OWN);
}

#[test]
fn every_combination_of_layers_refuses_exactly_what_it_should() {
    // It is seccomp that carries no-new-privs to the threads which the harness has started before.
    let possible = |up: &[Layer]| !up.contains(&Layer::NoNewPrivs) || up.contains(&Layer::Seccomp);
    jailed::try_every_combination(super::LAYERS, COPY, OWN, possible, &[]);
}

#[test]
fn the_compiled_filter_answers_every_call_as_the_table_says() {
    let plan = super::plan(super::LAYERS, &Required::Available);
    jailed::filter::answers_as_the_table_says(&plan, "console");
    jailed::filter::decides_by_arguments(&plan);
}
