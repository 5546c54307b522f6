//! A jail tried from inside, for the tests of every program: a copy of the test program enters it with chosen layers and tries
//! calls, and what comes out is compared with what each call says of itself: which layers refuse it.

#![expect(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failed step of a test is the failure"
)]

pub(crate) mod accounts;
pub(crate) mod calls;
pub(crate) mod filter;
pub(crate) mod skip;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Stdio;

use daemoneye_lib::jail::Layer;

use self::accounts::{is_root, with_accounts};

/// Names the layers of the jail that the copy enters.
const LAYERS: &str = "DAEMONEYE_TEST_LAYERS";
/// Names the directory that the copy may use.
const HOME: &str = "DAEMONEYE_TEST_HOME";

/// A user that has nothing to do with any of it.
pub(crate) const STRANGER: u32 = 54_321;

/// `Err` holds the error's number, so that a refusal is told from a failure.
pub(crate) type Outcome = Result<(), String>;

/// Combinations of layers, each of which suffices to refuse; none: it must always go on.
pub(crate) type By = &'static [&'static [Layer]];

/// What is tried, what refuses it, and how it is tried in the copy's directory.
pub(crate) type Try = (&'static str, By, fn(&Path) -> Outcome);

/// What came out, by what was tried.
pub(crate) type Outcomes = BTreeMap<String, String>;

pub(crate) fn told<T, E: Into<std::io::Error> + Display>(outcome: Result<T, E>) -> Outcome {
    outcome.map(drop).map_err(|error| {
        let error: std::io::Error = error.into();
        error.raw_os_error().map_or_else(|| error.to_string(), |number| number.to_string())
    })
}

/// EPERM and EACCES.
fn is_refused(outcome: &str) -> bool {
    outcome == "1" || outcome == "13"
}

/// The part of a copy: its layers and its directory.
pub(crate) fn told_to_copy() -> Option<(Vec<Layer>, std::path::PathBuf)> {
    let (layers, home) = (std::env::var(LAYERS).ok()?, std::env::var_os(HOME)?);
    Some((
        Layer::ALL.iter().copied().filter(|layer| layers.split(',').any(|name| name == layer.name())).collect(),
        home.into(),
    ))
}

/// Tries everything, in the copy; the last ones change the process.
pub(crate) fn try_all(own: &[Try], home: &Path) {
    for (what, _, how) in own.iter().chain(calls::EVERYBODYS) {
        println!("\n|{what}|{}", how(home).map_or_else(|error| error, |()| "done".to_owned()));
    }
}

/// A copy of this program, started with `arguments`, in a jail of `layers`, after it has ended.
pub(crate) fn copy(layers: &[Layer], arguments: &[&str]) -> (std::process::Output, tempfile::TempDir) {
    let (accounts, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let home = dir.path().join("home");
    let (_listening, _elsewhere, port) = furnish(&home);
    let names: Vec<&str> = layers.iter().map(|layer| layer.name()).collect();
    let output = with_accounts(accounts.path(), Path::new("timeout"))
        .arg("60")
        .arg(std::env::current_exe().unwrap())
        .args(arguments)
        .env(LAYERS, names.join(","))
        .env(HOME, &home)
        .env(calls::PORT, port.local_addr().unwrap().port().to_string())
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output, dir)
}

fn outcomes(layers: &[Layer], arguments: &[&str], own: &[Try]) -> Outcomes {
    let (output, _dir) = copy(layers, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter_map(|line| line.strip_prefix('|')?.split_once('|'));
    let outcomes: Outcomes = lines.map(|(what, outcome)| (what.to_owned(), outcome.to_owned())).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(outcomes.len(), own.len() + calls::EVERYBODYS.len(), "with {layers:?}: {text}\n{said}");
    outcomes
}

/// What the tries look for: files of several owners, a program that runs as its owner, and three who listen.
fn furnish(home: &Path) -> (UnixListener, UnixListener, std::net::TcpListener) {
    fs::create_dir(home).unwrap();
    for dir in [home.parent().unwrap(), home] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::create_dir(home.join("mount")).unwrap();
    for name in ["kept", "foreign"] {
        fs::write(home.join(name), b"").unwrap();
    }
    fs::copy("/usr/bin/id", home.join("id")).unwrap();
    if is_root() {
        for name in ["foreign", "id"] {
            std::os::unix::fs::chown(home.join(name), Some(STRANGER), Some(STRANGER)).unwrap();
        }
        // Root alone makes what a jailed program of another user works in.
        fs::set_permissions(home, fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::set_permissions(home.join("foreign"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(home.join("id"), fs::Permissions::from_mode(0o4755)).unwrap();
    let named = UnixListener::bind(home.join("old.sock")).unwrap();
    fs::set_permissions(home.join("old.sock"), fs::Permissions::from_mode(0o777)).unwrap();
    let name = SocketAddr::from_abstract_name(home.as_os_str().as_encoded_bytes()).unwrap();
    (named, UnixListener::bind_addr(&name).unwrap(), std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap())
}

/// Whether the layers that are up refuse it.
fn denies(by: By, up: &[Layer]) -> bool {
    by.iter().any(|needed| needed.iter().all(|layer| up.contains(layer)))
}

/// Compares every outcome with what the call says of itself. `free` are the outcomes without any layer: what the system refuses
/// by itself proves nothing of the jail, and what fails anyway may fail in the same way.
fn compare(outcomes: &Outcomes, free: Option<&Outcomes>, up: &[Layer], own: &[Try]) {
    for (what, by, _) in own.iter().chain(calls::EVERYBODYS) {
        let (outcome, without) = (&outcomes[*what], free.map(|free| free[*what].as_str()));
        if by.is_empty() {
            assert_eq!(outcome, "done", "{what} must go on with {up:?}");
        } else if denies(by, up) {
            let fails_anyway = without.is_some_and(|without| without != "done" && outcome == without);
            assert!(is_refused(outcome) || fails_anyway, "{what} is not refused with {up:?}: {outcome}");
        } else if without.is_some_and(|without| !is_refused(without)) {
            assert!(!is_refused(outcome), "{what} is refused with {up:?} alone, which it does not say");
        }
    }
}

/// Every combination of `layers` that `possible` lets through, against what each call says, and how many calls of a layer the
/// others must still refuse without it. Only root is refused nothing by the system itself.
pub(crate) fn try_every_combination(
    layers: &[Layer],
    arguments: &[&str],
    own: &[Try],
    possible: impl Fn(&[Layer]) -> bool,
    without: &[(Layer, usize)],
) {
    if !is_root() {
        return skip::skipped("only root can leave out layers");
    }
    let free = outcomes(&[], arguments, own);
    let refused: Vec<&String> = free.iter().filter(|(_, outcome)| is_refused(outcome)).map(|(what, _)| what).collect();
    assert!(refused.len() <= 3, "the system itself refuses {refused:?}: run this with all capabilities");
    for chosen in 1..1_u32 << layers.len() {
        let up = layers.iter().copied().enumerate().filter(|(place, _)| chosen & (1 << place) != 0);
        let up: Vec<Layer> = up.map(|(_, layer)| layer).collect();
        if possible(&up) {
            compare(&outcomes(&up, arguments, own), Some(&free), &up, own);
        }
    }
    for (layer, at_least) in without {
        let count = still_refused_without(*layer, layers, own);
        assert!(count >= *at_least, "without {layer} the others refuse {count} of its calls");
    }
}

/// The whole jail: everything that must be refused is, everything that must go on does. What only root can put up is not
/// asked of an ordinary user.
pub(crate) fn try_whole(layers: &[Layer], arguments: &[&str], own: &[Try]) {
    assert!(own.len() + calls::EVERYBODYS.len() >= 60);
    let for_root = [Layer::NetworkNamespace, Layer::User];
    let up: Vec<Layer> = layers.iter().copied().filter(|layer| is_root() || !for_root.contains(layer)).collect();
    compare(&outcomes(layers, arguments, own), None, &up, own);
}

/// How many of the calls that `layer` refuses are still refused without it.
fn still_refused_without(layer: Layer, layers: &[Layer], own: &[Try]) -> usize {
    let others: Vec<Layer> = layers.iter().copied().filter(|other| *other != layer).collect();
    let refuses = |by: &By| by.iter().any(|needed| needed.contains(&layer));
    own.iter().chain(calls::EVERYBODYS).filter(|(_, by, _)| refuses(by) && denies(by, &others)).count()
}
