//! The console on a terminal of a size, as a person has it: pages, times, Ctrl-C, and what is told of long work.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use e2e::{Home, wait_for};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Takes many minutes, and neither memory nor room to spill, which would end it.
const ENDLESS: &str = "SELECT count(*) FROM columns a CROSS JOIN columns b CROSS JOIN columns c \
                       WHERE regexp_like(a.meaning || b.meaning || c.meaning, '(x|y)+z{5}$')";
/// The export of this takes as long.
const MANY_ROWS: &str = "SELECT a.meaning, b.meaning AS b, c.meaning AS c FROM columns a, columns b, columns c";

/// A program on a terminal of its own with 24 lines, and everything that it has shown.
struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn open(home: &Home, args: &[&str]) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let cli = home.cli_command(args).unwrap();
        // The terminal is its own, so that a typed Ctrl-C is a signal.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(cli.get_program()).args(cli.get_args());
        for (name, value) in cli.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.env("TERM", "xterm").env("HOME", home.path()).stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        let mut screen = File::from(pty.master.try_clone().unwrap());
        let shown = Arc::new(Mutex::new(String::new()));
        let text = Arc::clone(&shown);
        // Ends with the terminal: reading fails when nobody has the other end any more.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut bytes) {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self { child, keys: pty.master.into(), shown }
    }

    fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// What is shown up to `wanted`, which is forgotten with it.
    fn until(&self, wanted: &str) -> String {
        let found = wait_for(wanted, || {
            let mut shown = self.shown.lock().unwrap();
            let end = shown.find(wanted).map(|at| at + wanted.len());
            Ok(end.map(|end| shown.drain(..end).collect::<String>()))
        });
        found.unwrap_or_else(|error| panic!("{error:#}: {:?}", self.shown.lock().unwrap()))
    }

    fn ended(mut self) -> Option<i32> {
        wait_for("the end of the program", || Ok(self.child.try_wait()?)).unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_shell_pages_long_results_tells_times_and_survives_ctrl_c() {
    let home = Home::new().unwrap().set("QUERY__CONCURRENT", "1").set("QUERY__DEADLINE_MS", "300000");
    let agent = home.start_ready().unwrap();
    let mut shell = Terminal::open(&home, &["shell", "--deadline-ms", "300000"]);
    shell.until("daemoneye> ");
    // What is typed is shown as well, so the answers are looked for that were not.
    shell.type_in("SELECT 40 + 2 AS sum;\r");
    let short = shell.until("42") + &shell.until("daemoneye> ");
    assert!(!short.contains("--More--"), "{short}");

    shell.type_in("SELECT table_name, name FROM columns;\r");
    let page = shell.until("--More-- line ");
    assert!((10..=26).contains(&page.lines().count()), "a screen of 24 lines: {page}");
    shell.until("q: end)");
    shell.type_in(" ");
    let second = shell.until("--More-- line ");
    assert!((10..=26).contains(&second.lines().count()), "the next one: {second}");
    shell.until("q: end)");
    shell.type_in("q");
    shell.until("daemoneye> ");

    shell.type_in(".timer on\r");
    shell.until("daemoneye> ");
    shell.type_in("SELECT 40 + 3 AS sum;\r");
    shell.until("43");
    let timed = shell.until(" ms");
    let told = timed.rsplit("1 row, ").next().unwrap().trim_end_matches(" ms");
    assert!(told.parse::<u64>().is_ok(), "{timed}");
    shell.until("daemoneye> ");

    shell.type_in(&format!("{ENDLESS};\r"));
    // It has the only place.
    let is_busy = || {
        let asked = home.cli(&["query", "SELECT 1"])?;
        Ok((!asked.status.success() && String::from_utf8_lossy(&asked.stderr).contains("queries are running"))
            .then_some(()))
    };
    wait_for("the query to run", is_busy).unwrap();
    shell.type_in("\u{3}");
    shell.until("cancelled");
    shell.until("daemoneye> ");
    wait_for("its place", || Ok(home.cli(&["query", "SELECT 1"])?.status.success().then_some(()))).unwrap();
    shell.type_in("SELECT 40 + 4 AS sum;\r");
    shell.until("44");
    shell.until("1 row, ");
    shell.until("daemoneye> ");
    shell.type_in("\u{4}");
    assert_eq!(shell.ended(), Some(0));
    agent.stop().unwrap();
}

#[test]
fn an_export_tells_its_progress_on_a_terminal_and_writes_none_of_it_into_a_pipe() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let (seen, piped) = (home.path().join("seen.csv"), home.path().join("piped.csv"));
    let args =
        |file: &std::path::Path| ["data", "export", "--output", file.to_str().unwrap(), MANY_ROWS].map(str::to_owned);
    // Until it is whole it stands beside its name; it may be before somebody looks.
    let length = |file: &std::path::Path| {
        let begins = format!(".{}.", file.file_name().unwrap().to_string_lossy());
        let mut entries = std::fs::read_dir(home.path()).unwrap().filter_map(Result::ok);
        let partial = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(&begins));
        let found = partial.map_or_else(|| std::fs::metadata(file), |entry| entry.metadata());
        found.map_or(0, |found| found.len())
    };
    let on_terminal = args(&seen);
    let mut export = Terminal::open(&home, &on_terminal.each_ref().map(String::as_str));
    export.until("\rexport: ");
    let count = export.until(" rows, ");
    assert!(count.trim_end_matches(" rows, ").parse::<u64>().is_ok(), "{count}");
    let so_far = length(&seen);
    export.type_in("\u{3}");
    assert_ne!(export.ended(), Some(0), "it was ended");

    let into_pipe = args(&piped);
    let mut command = home.cli_command(&into_pipe.each_ref().map(String::as_str)).unwrap();
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // As much work as was told of there. The export before keeps its place until the agent has noticed that nobody reads it.
    wait_for("as many rows", || {
        if child.try_wait()?.is_some_and(|status| !status.success()) {
            child = command.spawn()?;
        }
        Ok((length(&piped) > so_far.max(1)).then_some(()))
    })
    .unwrap();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert!(!said.contains('\r') && !said.contains("export: "), "{said:?}");
    agent.stop().unwrap();
}
