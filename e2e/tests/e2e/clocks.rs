//! The host's clock jumps, both ways, while the agent runs and while it is down: nothing that is stored goes for it.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Agent, Home, wait_for};

use crate::first_light::Hidden;

const DAY_S: i64 = 86_400;

/// The clock that the agent sees, so many seconds ahead of that of this host.
struct Clock {
    shim: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn new(dir: &Path, days: i64) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clock_shim.c");
        let clock = Self { shim: dir.join("clock.so"), file: dir.join("clock") };
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&clock.shim).arg(source).output();
        let built = built.unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        fs::write(&clock.file, [0; 8]).unwrap();
        clock.set(days);
        clock
    }

    /// In place, because the agent has it mapped.
    fn set(&self, days: i64) {
        let mut file = fs::OpenOptions::new().write(true).open(&self.file).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(&(days * DAY_S).to_ne_bytes()).unwrap();
    }

    fn seen_by(&self, home: Home) -> Home {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        home.variable("LD_PRELOAD", &path(&self.shim)).variable("E2E_CLOCK", &path(&self.file))
    }
}

/// What health says of the clock.
fn told(home: &Home) -> anyhow::Result<Option<String>> {
    let health = home.health()?.to_string();
    let at = health.find("the clock is ");
    Ok(at.and_then(|at| health.get(at..at + 40)).map(str::to_owned))
}

/// Old history has been looked for, and the event is there all the same.
fn assert_kept(home: &Home, agent: &Agent, own: &str) {
    let looked = || Ok(agent.transcript().contains("retention expired=").then_some(()));
    wait_for("a look for old history", looked).unwrap_or_else(|error| panic!("{error:#}\n{}", agent.transcript()));
    assert!(!home.query(own).unwrap().is_empty(), "{}", agent.transcript());
}

#[test]
fn a_clock_that_jumps_either_way_removes_nothing_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    // Events are dated no later than when they were stored: by this clock they are far older than the retention of 30 days.
    let clock = Clock::new(dir.path(), -400);
    let home = clock.seen_by(Home::new().unwrap()).set("LOG__LEVEL", "debug").set("STORE__SEAL_MS", "100");
    let agent = home.start_ready().unwrap();
    let hidden = Hidden::start();
    let path = hidden.path.display().to_string();
    let own = format!("SELECT pid FROM process_events WHERE executable_path = '{path}' AND event_type = 'start'");
    wait_for("the event", || Ok(home.query(&own)?.pop())).unwrap();
    assert_eq!(told(&home).unwrap(), None);

    clock.set(0);
    let jumped = wait_for("the jump to be told", || told(&home)).unwrap();
    assert!(jumped.contains(" 399 days") || jumped.contains(" 400 days"), "{jumped}");
    agent.stop().unwrap();

    // The worker that begins behind the jump looks for old history at once.
    let agent = home.start_ready().unwrap();
    assert_kept(&home, &agent, &own);
    let still = told(&home).unwrap().unwrap();
    assert!(still.contains(" 399 days") || still.contains(" 400 days"), "{still}");
    agent.stop().unwrap();

    clock.set(-800);
    let agent = home.start_ready().unwrap();
    assert_kept(&home, &agent, &own);
    assert_eq!(told(&home).unwrap(), None, "a step back removes nothing and is believed");
    let second = Hidden::start();
    let wanted = second.path.display().to_string();
    let delivered = || {
        let alerts = home.delivered()?;
        Ok(alerts.into_iter().find(|alert| alert["process"]["executable_path"] == wanted.as_str()))
    };
    wait_for("an alert of the time after it", delivered).unwrap();
    second.stop();
    hidden.stop();
    agent.stop().unwrap();
}
