//! The console as the system sees it end when its jail is not whole.

#![cfg(target_os = "linux")]

use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_daemoneye-cli");

#[test]
fn a_required_layer_that_is_missing_ends_it_with_77_and_privileges_that_stay_with_79() {
    let ended = |arguments: &[&str], required: &str| {
        let mut command = Command::new("timeout");
        command.arg("20").args(arguments).args(["health", "--runtime-dir", "/nonexistent"]);
        let output = command.env("DAEMONEYE_CLI_SANDBOX__REQUIRED", required).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, told) = ended(&[PROGRAM], "landlock");
    assert_eq!(code, Some(77), "{told}");
    assert!(told.contains("sandbox.required names landlock") && told.contains("take it out"), "{told}");
    if nix::unistd::geteuid().is_root() {
        let (code, told) = ended(&["setpriv", "--securebits=+keep_caps_locked", PROGRAM], "none");
        assert_eq!(code, Some(79), "{told}");
    }
}
