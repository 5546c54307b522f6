//! What is suspicious about a process by itself, and what only looks like it.

use super::*;

#[test]
fn each_suspicion_is_raised_once_with_its_severity() {
    let mut tracker = tracker();
    let mut odd = process(30, 1, "kworker/0:1", 10_000);
    odd.memfd = Some(true);
    odd.deleted_executable = Some(true);
    let events = whole(&mut tracker, 100, [odd.clone()]);
    let raised: Vec<_> =
        events[1..].iter().map(|event| (event.reason.clone().unwrap(), event.severity().as_str_name())).collect();
    assert_eq!(
        raised,
        [
            ("executable_deleted".into(), "ALERT_SEVERITY_MEDIUM"),
            ("memfd_executable".into(), "ALERT_SEVERITY_HIGH"),
            ("kernel_thread_name".into(), "ALERT_SEVERITY_HIGH"),
            ("start_time_in_future".into(), "ALERT_SEVERITY_LOW"),
        ]
    );
    odd.euid = Some(1);
    assert_eq!(kinds(&whole(&mut tracker, 105, [odd])), [(EventType::Modify, 30)]);
}

#[test]
fn a_bracketed_command_line_is_a_disguise_and_the_test_program_is_not() {
    let disguised = |line: &str, zeroth: u32| {
        let mut record = process(31, 1, "x", 1);
        record.command_line = Some(line.into());
        record.arg_lengths = vec![zeroth];
        whole(&mut tracker(), 10, [record]).len() == 2
    };
    assert!(disguised("[kworker/1:0]", 13));
    assert!(!disguised("[ a = b ]", 1));
}

#[test]
fn a_first_argument_that_is_the_path_of_another_program_is_told_and_links_and_scripts_are_not() {
    let told = |zeroth: &str, given: Option<&str>, executable: &str| {
        let mut record = process(31, 1, "x", 1);
        record.command_line = Some(format!("{zeroth} -D"));
        record.arg_lengths = vec![u32::try_from(zeroth.len()).unwrap(), 2];
        record.exec_filename = given.map(Into::into);
        record.executable_path = Some(executable.into());
        let events = whole(&mut tracker(), 10, [record]);
        events.iter().any(|event| event.reason.as_deref() == Some("name_unlike_executable"))
    };
    assert!(told("/usr/sbin/sshd", Some("/tmp/x"), "/tmp/x"));
    assert!(told("/usr/sbin/sshd", Some("./x"), "/tmp/x"));
    assert!(!told("/usr/sbin/sshd", Some("/usr/sbin/sshd"), "/usr/sbin/sshd"));
    assert!(!told("/bin/sh", Some("/opt/start.sh"), "/usr/bin/dash"), "a script");
    assert!(!told("/usr/bin/awk", Some("/usr/bin/awk"), "/usr/bin/mawk"), "a link");
    assert!(!told("-bash", Some("/bin/bash"), "/usr/bin/bash"), "a login shell");
    assert!(!told("/usr/sbin/sshd", None, "/tmp/x"), "nobody saw what was executed");
}
