//! DaemonEye under load: what it has seen of it, and the CPU time of all its processes.

use std::path::Path;

use e2e::{Agent, Home, procmonds};

use crate::load::{self, Load, cost, settle};
use crate::support::cpu_seconds;
use crate::{RATES, Recalled, row};

pub(crate) struct Ours {
    pub(crate) home: Home,
    agent: Agent,
}

impl Ours {
    /// The agent, its worker and procmond with this source; `None`, with a row that says why, when it does not start.
    pub(crate) fn start(source: &str) -> Option<Self> {
        Self::start_with(source, None)
    }

    /// With other rules than the built-in ones.
    pub(crate) fn start_with(source: &str, rules: Option<&Path>) -> Option<Self> {
        let home = Home::new().unwrap();
        let home = match rules {
            Some(rules) => home.rules(rules.to_owned()),
            None => home,
        };
        let home = home.set("PROCMOND__SNAPSHOT_INTERVAL_MS", "30000").set("PROCMOND__SOURCE", source);
        match home.start_ready() {
            Ok(agent) => {
                let ours = Self { home, agent };
                ours.settle();
                Some(ours)
            }
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().replace('|', "/");
                println!("| {source} | not measured: {reason} |");
                None
            }
        }
    }

    pub(crate) fn stop(self) {
        self.agent.stop().unwrap();
    }

    pub(crate) fn worker(&self) -> Option<i32> {
        self.agent.worker()
    }

    fn pids(&self) -> Vec<i32> {
        let mut pids = vec![self.agent.pid().as_raw()];
        pids.extend(self.agent.worker());
        pids.extend(procmonds(&self.home.data()).unwrap());
        pids
    }

    fn cpu_seconds(&self) -> f64 {
        self.pids().into_iter().map(cpu_seconds).sum()
    }

    fn settle(&self) {
        settle(|| self.cpu_seconds());
    }

    fn count(&self, sql: &str) -> i64 {
        let rows = self.home.query(sql).unwrap();
        rows.first().and_then(|row| row.get("n")?.as_i64()).unwrap_or(0)
    }

    /// Programs that this process has started during the load, as the events tell: how many, and how many with all arguments.
    fn seen(&self, source: &str, load: &Load, tag: &str) -> [usize; 2] {
        let me = std::process::id();
        let [from, to] = load.span;
        // One entity runs one program here, whatever the source could read of it.
        let of_load = format!(
            "FROM process_events WHERE event_type = 'start' AND start_kind = 'exec' AND source = '{source}' \
             AND ppid = {me} AND time >= to_timestamp({from:.6}) AND time <= to_timestamp({to:.6})"
        );
        let all = self.count(&format!("SELECT count(DISTINCT entity_id) AS n {of_load}"));
        let whole =
            format!("SELECT count(DISTINCT command_line) AS n {of_load} AND command_line LIKE '/bin/true arg%-{tag}'");
        [all, self.count(&whole)].map(|n| usize::try_from(n).unwrap_or(0))
    }

    fn lost(&self) -> u64 {
        let lost = self.count("SELECT coalesce(sum(\"count\"), 0) AS n FROM coverage WHERE reason = 'kernel_lost'");
        u64::try_from(lost).unwrap_or(0)
    }
}

pub(crate) fn recall_and_cost(source: &str, execs: usize) {
    let Some(ours) = Ours::start(source) else { return };
    for (number, rate) in RATES.iter().enumerate() {
        let lost = ours.lost();
        // What answering a query costs is not capture's.
        ours.settle();
        let tag = format!("{source}{number}");
        let (load, cpu) = cost(|| ours.cpu_seconds(), || load::run(*rate, execs, &tag));
        ours.settle();
        let [announced, whole] = ours.seen(source, &load, &tag);
        let recalled = Recalled { announced, whole, lost: ours.lost() - lost };
        row(&format!("all programs, {source}"), &load, whole, cpu, &recalled.told(&load));
    }
    ours.stop();
}
