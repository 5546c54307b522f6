//! The built-in rules keep what they promise: they load without a remark, pass their own tests, and stay silent on what an
//! ordinary Linux machine does.

use std::collections::HashSet;
use std::path::PathBuf;

use daemoneye_engine::detect::{LoadedRule, RuleSet, rules};
use daemoneye_engine::ingest::{EventBatch, batch_from_json};
use daemoneye_lib::model::Completeness;
use daemoneye_lib::proto::Sequence;
use serde_json::{Map, Value};

fn pack() -> Vec<LoadedRule> {
    let loaded = rules::load_dirs(&[PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../rules")]);
    assert!(loaded.problems.is_empty(), "{:#?}", loaded.problems);
    loaded.rules
}

#[test]
fn every_built_in_rule_passes_its_own_tests() {
    for rule in pack() {
        let report = rules::run_tests(&rule);
        assert!(report.is_ok(), "{}: {:#?}", rule.path.display(), report.failures);
        let positive = rule.tests.iter().filter(|test| test.expect).count();
        assert!(positive >= 2 && rule.tests.len() - positive >= 2, "{} has too few tests", rule.path.display());
    }
}

#[test]
fn every_built_in_rule_says_what_a_person_needs() {
    let pack = pack();
    assert!(pack.len() >= 12);
    for rule in &pack {
        let (file, rule) = (rule.path.display(), &rule.rule);
        assert!(!rule.description.is_empty() && !rule.author.is_empty() && !rule.category.is_empty(), "{file}");
        assert!(!rule.references.is_empty() && !rule.false_positives.is_empty(), "{file}");
        assert!(rule.tags.iter().any(|tag| tag.starts_with("attack.t")), "{file} names no technique");
        assert!(rule.references.iter().all(|link| link.starts_with("https://")), "{file}");
        assert_eq!(rule.pack, "linux", "{file}");
    }
    let names: HashSet<_> = pack.iter().map(|rule| &rule.rule.name).collect();
    assert_eq!(names.len(), pack.len(), "names are unique");
}

/// (name, executable, parent, command line)
const ORDINARY: &[(&str, &str, &str, &str)] = &[
    ("systemd", "/usr/lib/systemd/systemd", "", "/sbin/init splash"),
    ("systemd-journal", "/usr/lib/systemd/systemd-journald", "systemd", "/usr/lib/systemd/systemd-journald"),
    ("(sd-pam)", "/usr/lib/systemd/systemd", "systemd", "(sd-pam)"),
    ("systemctl", "/usr/bin/systemctl", "bash", "systemctl restart nginx"),
    ("sshd", "/usr/sbin/sshd", "systemd", "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups"),
    ("sshd", "/usr/sbin/sshd", "sshd", "sshd: alice@pts/0"),
    ("bash", "/usr/bin/bash", "sshd", "-bash"),
    ("bash", "/usr/bin/bash", "tmux: server", "bash -i"),
    ("ssh", "/usr/bin/ssh", "bash", "ssh -i /home/alice/.ssh/id_ed25519 build.example.org"),
    ("cargo", "/home/dev/.cargo/bin/cargo", "bash", "cargo test --workspace"),
    (
        "rustc",
        "/home/dev/.rustup/toolchains/stable/bin/rustc",
        "cargo",
        "rustc --crate-name regex --edition=2024 -C linker=cc --out-dir /home/dev/p/target/debug/deps",
    ),
    (
        "cc",
        "/usr/bin/x86_64-linux-gnu-gcc-14",
        "rustc",
        "cc -m64 /tmp/rustcXk2a/symbols.o -o /home/dev/p/target/debug/deps/p-1a2b",
    ),
    (
        "build-script-bu",
        "/home/dev/p/target/debug/build/ring-1a/build-script-build",
        "cargo",
        "/home/dev/p/target/debug/build/ring-1a/build-script-build",
    ),
    ("rust_out", "/tmp/rustdoctestAbC123/rust_out", "rustdoc", "/tmp/rustdoctestAbC123/rust_out"),
    ("procmond", "/tmp/.tmpQw3rTy/bin/procmond", "e2e", "/tmp/.tmpQw3rTy/bin/procmond"),
    ("conftest", "/tmp/build/conftest", "sh", "./conftest"),
    ("sh", "/usr/bin/dash", "make", "/bin/sh -c cc -O2 -c a.c -o a.o > build.log 2>&1"),
    ("make", "/usr/bin/make", "bash", "make -j8 install DESTDIR=/tmp/stage"),
    ("git", "/usr/bin/git", "bash", "git commit -m add stratum+tcp:// parser"),
    ("cron", "/usr/sbin/cron", "systemd", "/usr/sbin/cron -f -P"),
    ("sh", "/usr/bin/dash", "cron", "/bin/sh -c command -v debian-sa1 > /dev/null && debian-sa1 1 1"),
    ("run-parts", "/usr/bin/run-parts", "sh", "run-parts --report /etc/cron.daily"),
    ("logrotate", "/usr/sbin/logrotate", "systemd", "/usr/sbin/logrotate /etc/logrotate.conf"),
    ("apt-get", "/usr/bin/apt-get", "bash", "apt-get -y install nginx"),
    (
        "dpkg",
        "/usr/bin/dpkg",
        "apt-get",
        "/usr/bin/dpkg --unpack --auto-deconfigure /var/cache/apt/archives/nginx_1.26_amd64.deb",
    ),
    ("modprobe", "/usr/bin/kmod", "kthreadd", "/sbin/modprobe -q -- fs-overlay"),
    ("runc", "/usr/bin/runc", "containerd-shim", "runc init"),
    ("nginx", "/usr/sbin/nginx", "nginx", "nginx: worker process"),
    ("python3", "/usr/bin/python3.13", "bash", "python3 -c import sys; print(sys.version)"),
    ("curl", "/usr/bin/curl", "bash", "curl -fsSL https://example.org/x.tar.gz -o /tmp/x.tar.gz"),
    ("base64", "/usr/bin/base64", "bash", "base64 -d token.b64"),
    ("passwd", "/usr/bin/passwd", "bash", "passwd"),
    ("unix_chkpwd", "/usr/sbin/unix_chkpwd", "login", "/usr/sbin/unix_chkpwd alice nullok"),
    ("chmod", "/usr/bin/chmod", "bash", "chmod +x /home/alice/run.sh"),
    ("rm", "/usr/bin/rm", "bash", "rm -rf /tmp/build"),
    ("journalctl", "/usr/bin/journalctl", "bash", "journalctl -u ssh --since today"),
    ("kworker/0:1", "", "kthreadd", ""),
];

fn ordinary() -> Vec<Map<String, Value>> {
    let known = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    let event = |(name, executable, parent, command): &(&str, &str, &str, &str)| {
        let mut event = Map::new();
        event.insert("event_type".into(), "start".into());
        event.insert("start_kind".into(), "exec".into());
        event.insert("name".into(), known(name));
        event.insert("executable_path".into(), known(executable));
        event.insert("parent_name".into(), known(parent));
        event.insert("command_line".into(), known(command));
        event.insert("deleted_executable".into(), false.into());
        event.insert("memfd".into(), false.into());
        event
    };
    ORDINARY.iter().map(event).collect()
}

#[test]
fn an_ordinary_machine_raises_no_alert() {
    let (set, refusals) = RuleSet::compile(pack());
    assert!(refusals.is_empty());
    let at = Sequence { epoch: 1, number: 1 };
    let batch = batch_from_json(&ordinary()).unwrap();
    let events =
        EventBatch { batch, collector: "test".into(), first: at, last: at, gaps: Vec::new(), live: Vec::new() };
    let matches = set.evaluate(&events, &Completeness::complete());
    let wrong: Vec<_> = matches.iter().map(|found| (&found.rule.name, &found.output)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
