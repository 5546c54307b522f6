//! The ledger of a real run, damaged afterwards, judged by the console.
//!
//! Every byte of a ledger is flipped in process by `collector-core`'s ledger tests; here a sample goes through the program.

use std::fs;
use std::path::Path;
use std::process::Output;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::LedgerReader;
use e2e::{Home, wait_for};

/// Offsets that are tried, spread evenly over what is written.
const SAMPLES: usize = 48;

fn verify(home: &Home, dir: &Path) -> Output {
    home.cli(&["audit", "verify", "--audit-dir", dir.to_str().unwrap(), "--format", "json"]).unwrap()
}

#[test]
fn a_flipped_byte_is_found_and_the_first_bad_entry_named() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    wait_for("some entries", || {
        let verified = home.json(&["audit", "verify"])?;
        Ok((verified[0]["entries"].as_u64() > Some(4)).then_some(()))
    })
    .unwrap();
    assert_eq!(agent.stop().unwrap().0.code(), Some(0));

    let copy = home.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(home.data().join("audit")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    assert!(verify(&home, &copy).status.success(), "an untouched copy verifies");

    let mut ends = Vec::new();
    let mut reader = LedgerReader::open(&copy).unwrap();
    while reader.advance().unwrap().is_some() {
        ends.push(reader.verifier().position());
    }

    let segment = copy.join("entries-00001.log");
    let sound = fs::read(&segment).unwrap();
    let written = sound.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut offsets: Vec<usize> = (0..SAMPLES).map(|n| n * (written - 1) / (SAMPLES - 1)).collect();
    if written + 100 < sound.len() {
        offsets.push(written + 100);
    }
    for offset in offsets {
        let mut damaged = sound.clone();
        damaged[offset] ^= 0x10;
        fs::write(&segment, &damaged).unwrap();
        let output = verify(&home, &copy);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(i32::from(Exit::Tampered.code())), "byte {offset}: {said}");
        let row: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let expected = ends.iter().filter(|end| **end <= (1, offset as u64)).count();
        assert_eq!(row[0]["entry"], expected, "byte {offset}: {row}");
        assert!(said.contains(&format!("ledger entry {expected}, ")), "byte {offset}: {said}");
    }
    fs::write(&segment, &sound).unwrap();
    assert!(verify(&home, &copy).status.success(), "restored, it verifies again");
}
