//! `selftest`: imitates known techniques with processes that do nothing, and tells which of them the running agent raised
//! an alert for and how fast.
//!
//! Everything that is written lies in one temporary directory, which is the working directory of every imitation, so its alerts
//! are told from others by it. The time of an alert is the agent's own: from the event to the moment it entered the outbox.

mod cases;
mod imitation;
mod start;

use std::collections::BTreeMap;
use std::time::Duration;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{Row, Value, operator_request::Verb, operator_response::Answer, value::Kind};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::time::Instant;

pub(crate) use self::imitation::{imitate, is_imitation};

use self::cases::{CASES, Case};
use self::imitation::Running;
use crate::agent::{self, Session};
use crate::args::Selftest;
use crate::commands::query::{self, Question};
use crate::error::CliError;
use crate::render;
use crate::settings::Settings;
use crate::value;

/// What the working directory of every imitation begins with; alerts are known by it.
const PREFIX: &str = "daemoneye-selftest-";
/// Between two starts: each alert is timed by itself, not in the queue behind the others.
const SPACING: Duration = Duration::from_millis(50);
/// Between two looks for alerts. Nothing is measured with it.
const PAUSE: Duration = Duration::from_millis(50);
/// The agent may take the time of an event from another clock than ours, which differs by less than this.
const CLOCKS_US: i64 = 2_000_000;

/// One imitation and what became of it.
struct Attempt {
    case: &'static Case,
    running: Result<Running, String>,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// The alert, and milliseconds from event to alert where a sink is on.
    Alert {
        id: String,
        ms: Option<i64>,
    },
    Missing,
    NotTried(String),
}

impl Outcome {
    /// Whether another look may tell more.
    const fn is_open(&self) -> bool {
        matches!(self, Self::Missing | Self::Alert { ms: None, .. })
    }
}

/// An alert as it was listed.
struct Found {
    id: String,
    time_us: i64,
    created_us: Option<i64>,
}

/// Runs every imitation and waits for its alert.
pub(crate) async fn run(arguments: &Selftest, settings: &Settings) -> Result<Exit, CliError> {
    if settings.store.is_some() {
        return Err(CliError::Usage("selftest needs a running agent: a copied store judges nothing".to_owned()));
    }
    // Before anything is started: an agent that cannot be asked is told at once.
    drop(agent::connect(&settings.socket()?, settings.deadline.min(agent::CONNECT_DEADLINE)).await?);
    let io = |source| CliError::Io { what: "make a temporary directory".to_owned(), source };
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir().map_err(io)?;
    let since_us = Timestamp::now().as_microsecond().saturating_sub(CLOCKS_US);
    let mut attempts = start_all(&dir).await;
    // From here on no program can be started: the console's jail closes with the connection.
    let watched = watch(arguments, settings, &mut attempts, since_us).await;
    attempts.iter_mut().for_each(end);
    watched?;
    print(settings, &attempts)
}

async fn start_all(dir: &TempDir) -> Vec<Attempt> {
    let mut attempts = Vec::with_capacity(CASES.len());
    for (number, case) in CASES.iter().enumerate() {
        let running = Running::start(case, dir.path(), number).map_err(|error| error.to_string());
        let outcome = match &running {
            Ok(_) => Outcome::Missing,
            Err(error) => Outcome::NotTried(format!("it could not be started: {error}")),
        };
        attempts.push(Attempt { case, running, outcome });
        tokio::time::sleep(SPACING).await;
    }
    attempts
}

fn end(attempt: &mut Attempt) {
    if let Ok(running) = std::mem::replace(&mut attempt.running, Err(String::new())) {
        running.end();
    }
}

async fn watch(
    arguments: &Selftest,
    settings: &Settings,
    attempts: &mut [Attempt],
    since_us: i64,
) -> Result<(), CliError> {
    let mut session = Session::open(settings).await?;
    let active =
        query::words(&session, Question::new("SELECT id FROM rules WHERE state = 'active'".to_owned())).await?;
    for attempt in attempts.iter_mut().filter(|attempt| !active.iter().any(|id| id == attempt.case.rule)) {
        attempt.outcome = Outcome::NotTried("its rule is not in force".to_owned());
    }
    let until = Instant::now() + Duration::from_secs(arguments.wait_s.into());
    let mut again = false;
    loop {
        session.renew();
        let found = alerts(&session, since_us).await?;
        attempts.iter_mut().filter(|attempt| attempt.outcome.is_open()).for_each(|attempt| judge(attempt, &found));
        let all_came = attempts.iter().all(|attempt| attempt.outcome != Outcome::Missing);
        // One look may see an alert and not yet its delivery; the next one does where there is any.
        let settled = again || !attempts.iter().any(|attempt| attempt.outcome.is_open());
        if Instant::now() >= until || (all_came && settled) {
            break;
        }
        again = all_came;
        tokio::time::sleep(PAUSE).await;
    }
    session.close().await;
    Ok(())
}

/// The alerts since then by rule and pid; of several deliveries the first counts.
async fn alerts(session: &Session, since_us: i64) -> Result<BTreeMap<(String, i64), Found>, CliError> {
    let sql = "SELECT a.rule_id, a.pid, a.id, a.time, d.created FROM alerts a LEFT JOIN alert_deliveries d \
               ON d.alert_id = a.id WHERE a.time >= $1";
    let params = vec![Value { kind: Some(Kind::TimestampUs(since_us)) }];
    let question = Question { params, ..Question::new(sql.to_owned()) };
    let mut answers = session.ask(Verb::Query(query::request(session, &question))).await?;
    let mut found = BTreeMap::<_, Found>::new();
    while let Some(response) = answers.next().await? {
        match response.answer {
            Some(Answer::Page(page)) => page.rows.into_iter().filter_map(read).for_each(|(key, alert)| {
                let first =
                    alert.created_us.into_iter().chain(found.get(&key).and_then(|known| known.created_us)).min();
                found.insert(key, Found { created_us: first, ..alert });
            }),
            Some(Answer::QueryDone(_)) => return Ok(found),
            _ => return Err(CliError::AgentAnswer("a page of alerts")),
        }
    }
    Err(CliError::AgentAnswer("the end of the alerts"))
}

fn read(row: Row) -> Option<((String, i64), Found)> {
    let mut kinds = row.values.into_iter().map(|value| value.kind);
    let (rule, pid, id, time, created) = (kinds.next()?, kinds.next()?, kinds.next()?, kinds.next()?, kinds.next()?);
    let (Some(Kind::Text(rule)), Some(Kind::Integer(pid))) = (rule, pid) else { return None };
    let (Some(Kind::Text(id)), Some(Kind::TimestampUs(time_us))) = (id, time) else { return None };
    let created_us = match created {
        Some(Kind::TimestampUs(created)) => Some(created),
        _ => None,
    };
    Some(((rule, pid), Found { id, time_us, created_us }))
}

fn judge(attempt: &mut Attempt, found: &BTreeMap<(String, i64), Found>) {
    let Ok(running) = &attempt.running else { return };
    if let Some(alert) = found.get(&(attempt.case.rule.to_owned(), running.pid().into())) {
        let ms = alert.created_us.map(|created| created.saturating_sub(alert.time_us).max(0) / 1_000);
        attempt.outcome = Outcome::Alert { id: alert.id.clone(), ms };
    }
}

fn print(settings: &Settings, attempts: &[Attempt]) -> Result<Exit, CliError> {
    let columns = ["technique", "result", "ms", "rule_id", "alert_id", "note"];
    let rows: Vec<Row> = attempts.iter().map(row).collect();
    render::rows(settings.format, &columns, &rows)?;
    let count = |is: fn(&Outcome) -> bool| attempts.iter().filter(|attempt| is(&attempt.outcome)).count();
    let came = count(|outcome| matches!(outcome, Outcome::Alert { .. }));
    let missing = count(|outcome| *outcome == Outcome::Missing);
    let times = attempts.iter().filter_map(|attempt| match &attempt.outcome {
        Outcome::Alert { ms, .. } => *ms,
        _ => None,
    });
    let slowest = times.max().map(|ms| format!(", the slowest after {ms} ms")).unwrap_or_default();
    eprintln!("{came} of {} imitations raised their alert{slowest}", attempts.len());
    eprintln!(
        "these alerts: daemoneye-cli query \"SELECT id, title FROM alerts WHERE contains(process, '{PREFIX}')\""
    );
    Ok(match (missing, came == attempts.len()) {
        (0, true) => Exit::Ok,
        (0, false) => Exit::Degraded,
        _ => Exit::Failure,
    })
}

fn row(attempt: &Attempt) -> Row {
    let (result, ms, alert, note) = match &attempt.outcome {
        Outcome::Alert { id, ms } => {
            let note = if ms.is_some() { "" } else { "no sink is on, so nobody noted when it was raised" };
            ("alert", ms.map(value::of_number), id.as_str(), note)
        }
        Outcome::Missing => ("missing", None, "", "no alert came in time"),
        Outcome::NotTried(why) => ("not tried", None, "", why.as_str()),
    };
    let text = |text: &str| value::of_text(text);
    let (technique, rule) = (text(attempt.case.technique), text(attempt.case.rule));
    Row { values: vec![technique, text(result), ms.unwrap_or_default(), rule, text(alert), text(note)] }
}
