//! The worker's jail, tried from inside by a copy of this test program.

use std::path::Path;

use daemoneye_lib::config::{self, AGENT, Sources};
use daemoneye_lib::jail::{Layer, Required};

use self::jailed::{By, Try, told};
use super::*;

#[path = "../../../daemoneye-lib/tests/jail/mod.rs"]
mod jailed;

const COPY: &[&str] = &["--exact", "jail::tests::inside", "--nocapture", "--test-threads=1"];
const FILES: By = &[&[Layer::Landlock]];

const OWN: &[Try] = &[
    ("list the root directory", FILES, |_| told(std::fs::read_dir("/"))),
    ("read what lies beside the data", FILES, |home| told(std::fs::read_dir(home.parent().unwrap_or(home)))),
    ("write a device", FILES, |_| told(std::fs::OpenOptions::new().write(true).open("/dev/null"))),
    ("read the passwords of the system", FILES, |_| told(std::fs::File::open("/etc/shadow"))),
    ("list /etc", FILES, |_| told(std::fs::read_dir("/etc"))),
    ("a new file in /etc", FILES, |_| {
        told(std::fs::write("/etc/daemoneye.probe", b"").and_then(|()| std::fs::remove_file("/etc/daemoneye.probe")))
    }),
    ("a new file beside the data", FILES, |home| told(std::fs::write(home.with_extension("probe"), b""))),
    ("a directory beside the data", FILES, |home| told(std::fs::create_dir(home.with_extension("dir")))),
    ("a file moved out of the data", FILES, |home| {
        told(
            std::fs::write(home.join("m"), b"")
                .and_then(|()| std::fs::rename(home.join("m"), home.with_extension("m"))),
        )
    }),
    ("another program's links", FILES, |_| {
        told(std::fs::read_link(format!("/proc/{}/exe", std::os::unix::process::parent_id())))
    }),
    ("a signal to others", &[&[Layer::Seccomp], &[Layer::Landlock]], |_| {
        told(nix::sys::signal::kill(nix::unistd::getppid(), None))
    }),
    ("a directory", &[], |home| told(std::fs::create_dir(home.join("segments")))),
    ("lower priority", &[], |_| told(rustix::process::setpriority_process(None, 5))),
    ("the time zone", &[], |_| told(std::fs::read_dir("/usr/share"))),
    ("names of groups", &[], |_| told(nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(0)))),
    ("an event loop", &[], |_| {
        told(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build())
    }),
];

/// What is tried here, in the copy; anywhere else it does nothing.
#[test]
fn inside() {
    let Some((layers, home)) = jailed::told_to_copy() else { return };
    let mut grants: Vec<Grant> = system(true).collect();
    grants.push(grant(&home, Right::Keep, "the test's data"));
    grants.push(grant(&home, Right::Sockets, "the test's sockets"));
    let jail = enter_with(&grants, layers, &Required::Available).unwrap();
    crate::platform::warm_up();
    close(jail).unwrap();
    jailed::try_all(OWN, &home);
}

#[test]
fn what_must_be_refused_is_and_what_must_go_on_does() {
    jailed::try_whole(LAYERS, COPY, OWN);
}

#[test]
fn every_combination_of_layers_refuses_exactly_what_it_should() {
    // It is seccomp that carries no-new-privs to the threads which the harness has started before.
    let possible = |up: &[Layer]| !up.contains(&Layer::NoNewPrivs) || up.contains(&Layer::Seccomp);
    jailed::try_every_combination(LAYERS, COPY, OWN, possible, &[(Layer::Seccomp, 8), (Layer::Landlock, 8)]);
}

#[test]
fn the_compiled_filters_answer_every_call_as_the_table_says() {
    let worker = plan(LAYERS.to_vec(), &Required::Available, system::worker_calls());
    jailed::filter::answers_as_the_table_says(&worker, "agent-worker");
    jailed::filter::decides_by_arguments(&worker);
    let parent = plan(LAYERS.to_vec(), &Required::Available, system::parent_calls());
    jailed::filter::answers_as_the_table_says(&parent, "agent-parent");
}

#[test]
fn a_directory_that_is_not_there_yet_is_told_and_a_part_of_the_system_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let later = dir.path().join("rules.d");
    let mut grants: Vec<Grant> = system(true).collect();
    grants.push(grant("/no-such-part-of-the-system", Right::Read, "optional"));
    assert_eq!(absent(&grants), Vec::<&Path>::new());
    grants.push(configured(&later, Right::Read, "rules"));
    grants.push(configured(dir.path(), Right::Read, "rules"));
    assert_eq!(absent(&grants), [later.as_path()]);
}

#[test]
fn a_ledger_outside_the_data_directory_is_opened_for_reading_live_and_copied() {
    let flags = [("data_dir", "/d"), ("runtime_dir", "/r"), ("procmond.audit_dir", "/p/audit")];
    let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let config = config::load(&AGENT, &Sources { flags, ..Sources::default() }).unwrap();
    let settings = Settings::read(config, &[]).unwrap();
    let is_it = |grant: &Grant| grant.path == Path::new("/p/audit") && grant.right == Right::Read;
    assert!(
        worker(&settings).iter().any(is_it)
            && offline(&settings, (Path::new("/c"), Path::new("/r/scratch")), true).iter().any(is_it)
    );
}
