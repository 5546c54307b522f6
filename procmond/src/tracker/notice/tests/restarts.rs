//! A run that goes on from the log of another.

use super::*;

#[test]
fn what_the_log_says_in_short_is_no_change_after_a_restart() {
    let mut host = Host::new();
    let long = "x".repeat(5000);
    let shell = ProcessRecord { command_line: Some(long.clone()), ..image(7, 1, "sh") };
    let mut log = host.fork(20, 1, 7);
    log.extend(host.tell(21, 7, Some(20), exec(shell.clone())));
    log.extend(host.tell(22, 7, Some(20), What::Rename("zsh".into())));
    log.extend(host.fork(23, 7, 8));
    let mut after = Host::after(log);
    let read = |pid, start| ProcessRecord {
        command_line: Some(long.clone()),
        name: "zsh".into(),
        ..record(pid, 1, "sh", start)
    };
    assert_eq!(after.look(30, [record(1, 0, "init", 5), read(7, 20), read(8, 23)]), []);
    let start = after.tell(31, 8, Some(23), exec(image(8, 7, "cp"))).remove(0).process.unwrap();
    assert_eq!(start.parent_command_line, Some(long));
}

#[test]
fn a_run_that_was_killed_goes_on_with_differences_only() {
    let mut host = Host::new();
    let mut log = host.fork(20, 1, 7);
    log.extend(host.tell(21, 7, Some(20), exec(image(7, 1, "cp"))));
    log.extend(host.fork(22, 1, 8));
    log.extend(host.tell(23, 8, Some(22), What::Exit(Some(0))));
    let mut after = Host::after(log);
    let ended = record(8, 1, "init", 22);
    after.begin(30);
    after.see(&record(1, 0, "init", 5));
    after.see(&record(7, 1, "cp", 20));
    after.see(&ended);
    after.see_dead(&ended);
    assert_eq!(after.end(), []);
    assert_eq!(after.fork(31, 7, 9)[0].process.as_ref().unwrap().parent_name.as_deref(), Some("cp"));
}
