//! Starts the real programs in a directory of their own and talks to them as a user would.
//!
//! Nothing here is a double: the binaries are the ones that cargo built beside the running test, and a stale one is refused
//! (its sources, as cargo's dep-info lists them, must not be newer than the binary).

mod agent;
mod processes;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use daemoneye_lib::exit::Exit;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

pub use self::agent::Agent;
pub use self::processes::{processes_on, procmonds};

/// How long anything may take here; generous, because the suite shares its two cores with other tests.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Waits for `condition`; says what it waited for when it does not come.
///
/// # Errors
/// After [`PATIENCE`], or when the condition itself fails.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = condition().with_context(|| format!("while waiting for {what}"))? {
            return Ok(found);
        }
        ensure!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Copies a file as a program of its own does: while a copy of this one is open for writing, a test beside it may start a program,
/// and until that runs the copy is busy.
///
/// # Errors
/// When it cannot be copied.
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let copied = Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).status()?;
    ensure!(copied.success(), "cannot copy {} to {}", from.as_ref().display(), to.as_ref().display());
    Ok(())
}

/// What a program was made of. Only `cargo build` writes that beside it, for all crates; in a fresh target directory `cargo test`
/// leaves what the compiler knows of the last of them, under the name that the program has there.
fn dep_info(program: &Path, dir: &Path) -> Result<String> {
    let beside = program.with_extension("d");
    if beside.exists() {
        return Ok(fs::read_to_string(beside)?);
    }
    let inode = fs::metadata(program)?.ino();
    for entry in fs::read_dir(dir.join("deps"))? {
        let path = entry?.path();
        if path.extension().is_none() && fs::metadata(&path)?.ino() == inode {
            return Ok(fs::read_to_string(path.with_extension("d"))?);
        }
    }
    bail!("nothing tells what {} was made of: run `cargo test --workspace`", program.display())
}

/// One of the three programs, as cargo built it.
///
/// # Errors
/// When it is missing or older than its sources.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let dir = here.parent().and_then(Path::parent).context("a test binary lies in target/<profile>/deps")?;
    let path = dir.join(name);
    ensure!(path.exists(), "{} is not built: run `cargo test --workspace`", path.display());
    let built = fs::metadata(&path)?.modified()?;
    let dep_info = dep_info(&path, dir)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = dep_info.split_once(": ").map_or("", |(_, sources)| sources);
    for source in sources.split_whitespace() {
        // A source that is gone was renamed: cargo rebuilds then, so it cannot be stale because of it.
        let source = root.join(source);
        if let Ok(changed) = fs::metadata(&source).and_then(|m| m.modified()) {
            ensure!(changed <= built, "{name} is older than {}: run `cargo test --workspace`", source.display());
        }
    }
    Ok(path)
}

/// The built-in rules of this checkout.
#[must_use]
pub fn builtin_rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/linux")
}

/// A data and a runtime directory; programs come and go, the directories stay until this is dropped.
pub struct Home {
    dir: TempDir,
    settings: Vec<(String, String)>,
    rules: PathBuf,
    /// Copies of the programs, run as this user; cargo's own lie where only the builder may look.
    other_user: Option<(PathBuf, u32)>,
}

impl Home {
    /// Empty directories and settings that make a test quick: a snapshot every 100 ms. No alert is folded because of its number:
    /// every agent here hears of what all tests start.
    ///
    /// # Errors
    /// When no directory can be made.
    pub fn new() -> Result<Self> {
        // For a look at what a failed test left behind.
        let keep = std::env::var_os("DAEMONEYE_E2E_KEEP").is_some();
        let dir = tempfile::Builder::new().prefix("de-").disable_cleanup(keep).tempdir()?;
        fs::create_dir(dir.path().join("data"))?;
        fs::create_dir(dir.path().join("run"))?;
        let home = Self { dir, settings: Vec::new(), rules: builtin_rules(), other_user: None };
        Ok(home
            .set("PROCMOND__SNAPSHOT_INTERVAL_MS", "100")
            .set("ALERTS__RATE_PER_RULE_PER_MINUTE", "1000000")
            .set("ALERTS__RATE_PER_MINUTE", "1000000"))
    }

    /// Sets a `DAEMONEYE_AGENT_*` variable for every agent started from here on.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((format!("DAEMONEYE_AGENT_{key}"), value.to_owned()));
        self
    }

    /// Sets any variable for every agent started from here on.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Uses another rules directory.
    #[must_use]
    pub fn rules(mut self, dir: PathBuf) -> Self {
        self.rules = dir;
        self
    }

    /// Everything on these directories runs as `nobody` from here on. Needs root.
    ///
    /// # Errors
    /// When the programs or rules cannot be copied or given away.
    pub fn as_nobody(mut self) -> Result<Self> {
        let nobody = nix::unistd::User::from_name("nobody")?.context("no user nobody")?;
        let bin = self.dir.path().join("bin");
        let rules = self.dir.path().join("rules");
        fs::create_dir(&bin)?;
        fs::create_dir(&rules)?;
        for name in ["procmond", "daemoneye-agent", "daemoneye-cli"] {
            copy_program(program(name)?, bin.join(name))?;
        }
        for entry in fs::read_dir(&self.rules)? {
            let path = entry?.path();
            fs::copy(&path, rules.join(path.file_name().context("a rule file")?))?;
        }
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755))?;
        for dir in [self.data(), self.runtime()] {
            std::os::unix::fs::chown(dir, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw()))?;
        }
        self.rules = rules;
        self.other_user = Some((bin, nobody.uid.as_raw()));
        Ok(self)
    }

    fn command(&self, name: &str) -> Result<Command> {
        let Some((bin, uid)) = &self.other_user else { return Ok(Command::new(program(name)?)) };
        let mut command = Command::new(bin.join(name));
        command.uid(*uid).gid(*uid);
        Ok(command)
    }

    /// Root of both directories.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The runtime directory.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// `daemoneye-agent run` on these directories, not started yet.
    ///
    /// # Errors
    /// When the program is missing or stale.
    pub fn agent_command(&self) -> Result<Command> {
        let mut command = self.command("daemoneye-agent")?;
        command.arg("run").arg("--data-dir").arg(self.data()).arg("--runtime-dir").arg(self.runtime());
        command.arg("--rules").arg(&self.rules);
        command.env_clear().envs(self.settings.iter().cloned());
        for kept in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        if self.other_user.is_some() {
            command.env("HOME", self.path());
        }
        Ok(command)
    }

    /// Starts the agent and returns at once.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> Result<Agent> {
        program("procmond")?;
        let child = self
            .agent_command()?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("daemoneye-agent")?;
        Agent::follow(child)
    }

    /// Starts the agent and waits until it is in its steady state.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn start_ready(&self) -> Result<Agent> {
        let mut agent = self.start()?;
        let ready = wait_for("the agent's steady state", || {
            if let Some(status) = agent.child.try_wait()? {
                bail!("the agent ended with {status}");
            }
            Ok(self.health().ok().filter(|health| health["state"] == "steady_state"))
        });
        match ready {
            Ok(_) => Ok(agent),
            Err(error) => Err(error.context(agent.transcript())),
        }
    }

    /// The CLI on these directories, not started yet.
    ///
    /// # Errors
    /// When the program is missing or stale.
    pub fn cli_command(&self, args: &[&str]) -> Result<Command> {
        let mut command = self.command("daemoneye-cli")?;
        command.args(args).env("DAEMONEYE_CLI_RUNTIME_DIR", self.runtime()).env("DAEMONEYE_CLI_DATA_DIR", self.data());
        if self.other_user.is_some() {
            command.env("HOME", self.path());
        }
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Runs the CLI against these directories.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        self.cli_command(args)?.output().context("daemoneye-cli")
    }

    /// Runs the CLI with `--format json`; its standard output must be JSON and its exit code 0.
    ///
    /// # Errors
    /// Names the command, its exit code and what it said.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        self.document(args, &[Exit::Ok])
    }

    /// The same of a question about events. A machine that is busy with other tests may have lost some, of which the answer says
    /// so.
    ///
    /// # Errors
    /// As [`Home::json`].
    pub fn answer(&self, args: &[&str]) -> Result<Value> {
        self.document(args, &[Exit::Ok, Exit::Degraded])
    }

    fn document(&self, args: &[&str], accepted: &[Exit]) -> Result<Value> {
        let all = [args, &["--format", "json"]].concat();
        let output = self.cli(&all)?;
        let said =
            || format!("{all:?}: {} {}\n{}", output.status, String::from_utf8_lossy(&output.stderr), self.condition());
        let code = output.status.code();
        ensure!(accepted.iter().any(|exit| code == Some(i32::from(exit.code()))), said());
        serde_json::from_slice(&output.stdout).with_context(said)
    }

    /// What a failure is judged by: gaps and health.
    fn condition(&self) -> String {
        let asked: [&[&str]; 2] =
            [&["query", "SELECT * FROM coverage", "--format", "jsonl"], &["health", "--format", "json"]];
        let answers = asked.map(|args| {
            self.cli(args).map_or_else(|error| error.to_string(), |out| String::from_utf8_lossy(&out.stdout).into())
        });
        answers.join("\n")
    }

    /// Rows of a query, whole or over a gap.
    ///
    /// # Errors
    /// As [`Home::json`].
    pub fn query(&self, sql: &str) -> Result<Vec<Value>> {
        rows(self.answer(&["query", sql])?)
    }

    /// Rows of a query that lack nothing.
    ///
    /// # Errors
    /// As [`Home::json`].
    pub fn whole_query(&self, sql: &str) -> Result<Vec<Value>> {
        rows(self.json(&["query", sql])?)
    }

    /// The health document; a degraded system has one too.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn health(&self) -> Result<Value> {
        let output = self.cli(&["health", "--format", "json"])?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{} {}", output.status, String::from_utf8_lossy(&output.stderr)))
    }

    /// Alerts that the file sink has written.
    ///
    /// # Errors
    /// When a whole line is not JSON.
    pub fn delivered(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.data().join("alerts.jsonl")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| text.get(..=end).unwrap_or_default());
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Pid of the procmond that works on these directories, by its lock file's holder in the health document.
    ///
    /// # Errors
    /// When health does not name one.
    pub fn procmond_pid(&self) -> Result<i32> {
        let processes = procmonds(&self.data())?;
        processes.first().copied().context("no procmond runs on this data directory")
    }
}

impl Drop for Home {
    /// A collector outlives its agent on purpose; nothing outlives its test.
    fn drop(&mut self) {
        for left in procmonds(&self.data()).unwrap_or_default() {
            let _gone = kill(Pid::from_raw(left), Signal::SIGKILL);
        }
    }
}

fn rows(answer: Value) -> Result<Vec<Value>> {
    match answer {
        Value::Array(rows) => Ok(rows),
        other => bail!("expected an array, got {other}"),
    }
}
